"""Whether a site's measured grey-level table helps: phantom patients seen by other detectors, Dice against the truth.

`python -m bench.site_tables` prints the table of calib/README.md. Each site changes the grey levels of the same frames;
its table is measured on other patients than those that are drawn on. Drawn by OpenVINO.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from calib.intensity import default_tables
from calib.intensity_site import measure_intensity
from calib.phantom import Phantom
from casgan.data import patient_config
from casgan.vessel_metrics import DRAWN, dice
from engines.engine import Engine, EngineSpec
from engines.model import load_model
from engines.open import open_engine

SITE_SEEDS = range(900, 906)
"""Patients on whom a site's table is measured, 4 frames each; neither taught on nor drawn on."""
SITE_FRAMES = 4
FRAMES_PER_PATIENT = 2

Picture = Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class Site:
    """Another detector, or another window before the grabber."""

    name: str
    bits_stored: int
    seen: Callable[[Picture], Picture]
    """Share of the stored range, from the phantom's own grey levels 0 to 1."""


SITES = (
    Site("as taught, 8 bits", 8, lambda grey: grey),
    Site("as taught, 12 bits", 12, lambda grey: grey),
    Site("gamma 0.5", 8, lambda grey: grey**0.5),
    Site("gamma 2", 8, lambda grey: grey**2),
    Site("logarithmic, 12 bits", 12, lambda grey: np.log(grey.clip(1 / 64) * 64.0) / np.log(64.0)),
    Site("gain 0.4, offset 0.1", 8, lambda grey: 0.4 * grey + 0.1),
    Site("gain 0.5, offset 0.5", 8, lambda grey: 0.5 * grey + 0.5),
    Site("an eighth of 12 bits", 12, lambda grey: grey / 8.0),
    Site("gain 1.6, saturating", 8, lambda grey: 1.6 * grey),
    Site("window 0.25 to 0.75, cut off", 8, lambda grey: (grey - 0.25) / 0.5),
    Site("inverted, not said", 8, lambda grey: 1.0 - grey),
    Site("gamma 0.6, inverted, 10 bits, not said", 10, lambda grey: 1.0 - grey**0.6),
)


def stored(site: Site, grey: Picture) -> np.ndarray:
    """A picture as the site stores it."""
    largest = (1 << site.bits_stored) - 1
    values = np.rint(site.seen(grey).clip(0.0, 1.0) * largest)
    return np.asarray(values, np.uint8 if site.bits_stored == 8 else np.uint16)


@dataclass(frozen=True)
class Frames:
    """Contrast-free frames, grey levels 0 to 1 without rounding, and what is true of them."""

    grey: list[Picture]
    field: list[np.ndarray]
    vessels: list[np.ndarray]
    patient: list[int]


def render(seeds: range, each: int, size: int) -> Frames:
    """Frames of some patients at 16 bits."""
    frames = Frames([], [], [], [])
    for seed in tqdm(seeds, desc="patients", disable=None):
        phantom = Phantom(replace(patient_config(seed), rows=size, columns=size, bits_stored=16))
        rng = np.random.default_rng((seed, 0xE7A1))
        for index in sorted(int(at) for at in rng.choice(phantom.loop.frames, each, replace=False)):
            frame = phantom.frame(index)
            frames.grey.append((frame.plain / np.float32(65535.0)).astype(np.float32))
            frames.field.append(phantom.field > 0.99)
            frames.vessels.append(frame.mask)
            frames.patient.append(seed)
    return frames


def drawn_dice(
    engine: Engine, site: Site, frames: Frames, tables: tuple[np.ndarray, np.ndarray]
) -> list[float]:
    """Dice of what is drawn against the truth, of each frame."""
    engine.set_grey_table(*tables)
    slot = engine.slots(1)[0]
    found = []
    for grey, vessels in zip(frames.grey, frames.vessels, strict=True):
        live = stored(site, grey)
        synthetic, attention = np.empty_like(live), np.empty(live.shape, np.uint8)
        slot.bind(live, synthetic, attention)
        slot.submit()
        slot.wait()
        found.append(dice(attention > 255.0 * DRAWN, vessels))
    return found


def site_rows(model: str, drawn: Frames, calibration: Frames, size: int) -> list[dict[str, object]]:
    """One row for each site."""
    card = load_model(model).card
    rows: list[dict[str, object]] = []
    for bits in sorted({site.bits_stored for site in SITES}):
        opened = open_engine(model, EngineSpec(size, size, bits), "openvino")
        for site in (site for site in SITES if site.bits_stored == bits):
            found = measure_intensity(
                np.stack([stored(site, grey) for grey in calibration.grey]),
                np.stack(calibration.field),
                bits,
                reference=card.reference_greys,
                runs=calibration.patient,
                looks_filled=[False] * len(calibration.grey),
            )
            measured = np.array(found.table, np.float32), np.array(found.inverse, np.float32)
            before = drawn_dice(opened.engine, site, drawn, default_tables(bits))
            after = drawn_dice(opened.engine, site, drawn, measured)
            rows.append(
                {
                    "site": site.name,
                    "default": float(np.mean(before)),
                    "measured": float(np.mean(after)),
                    "better_of": int(np.sum(np.array(after) > np.array(before))),
                    "frames": len(after),
                    "polarity": found.polarity_seen,
                    "response": found.response,
                    "residual_percent": found.residual,
                    "passed": found.passed,
                }
            )
        opened.engine.close()
    order = {site.name: number for number, site in enumerate(SITES)}
    return sorted(rows, key=lambda row: order[str(row["site"])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--patients", type=int, default=24, help="drawn on; seeds from 0")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    drawn = render(range(asked.patients), FRAMES_PER_PATIENT, asked.size)
    calibration = render(SITE_SEEDS, SITE_FRAMES, asked.size)
    rows = site_rows(asked.model, drawn, calibration, asked.size)
    if asked.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(
        "| site | Dice, default table | Dice, measured table | better in | polarity seen | response by noise |"
    )
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['site']} | {row['default']:.3f} | {row['measured']:.3f} | {row['better_of']} of {row['frames']} "
            f"| {row['polarity']} | {row['response']} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
