"""The statistics of the frames a model was taught on, measured through its own graph: `python -m engines.taught_domain MODEL`.

    phantom patients of the teaching -> features -> centre and whitening
    patients it was not taught on    -> scores   -> threshold at a false-alarm rate

They go into the sidecar; the ONNX file, and with it the model's name, stays what it is. A model that was taught on a folder
is measured on the phantom too: a site's calibration (`calib/domain_site.py`) needs the axes and puts its own frames in place.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from calib.config import PhantomConfig
from calib.domain import CONFIDENCE, Domain, TaughtDomain, measure_axes, threshold_at
from calib.errors import CalibrationError
from calib.phantom import Phantom
from engines.engine import EngineSpec
from engines.errors import EngineError, ModelError
from engines.model import ModelFile, load_model, save_card
from engines.open import open_engine

SIDES = (256, 512, 256, 384, 512, 768)
"""Rows and columns of the frames, in turn: the network's own size as in teaching, and larger ones as rooms have them."""
LATER_SEEDS = range(5000, 7500)
"""Patients of the shipped models' teaching (`engines/models/*.json`)."""
HELD_SEEDS = range(300, 700)
"""Patients that no model is taught on; one frame each, so that the scores are independent."""
FALSE_ALARM_RATE = 0.01
STEP = 2
"""Every so many-th patient of the teaching is enough."""


def phantom_frames(seeds: Iterable[int], sides: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """One frame of each patient, at a random place of its loop, every second one filled: (side, 8-bit frame).

    Filled frames belong: an injection is nothing that the synthesis should be afraid of, and a threshold that a catheter's first
    drop of contrast medium crosses would flicker.
    """
    for seed, side in zip(seeds, sides, strict=True):
        phantom = Phantom(PhantomConfig(seed=seed, rows=side, columns=side))
        frame = phantom.frame(int(np.random.default_rng((seed, 0xD0)).integers(phantom.loop.frames)))
        yield side, frame.plain if seed % 4 < 2 else frame.angiogram


def features_of(
    model: str | Path,
    frames: Iterable[tuple[int, np.ndarray]],
    *,
    threads: int | None = None,
    progress: str | None = None,
) -> Float32[np.ndarray, "n 71"]:
    """The graph's features of square 8-bit frames, in fp32.

    Args:
        model: As `open_engine` takes it.
        frames: (side, frame), in any order of sides.
        threads: CPU threads.
        progress: What a bar is called; None shows none.
    """
    engines = {}
    found = []
    try:
        for side, frame in tqdm(frames, progress, unit="frame", disable=progress is None):
            if side not in engines:
                spec = EngineSpec(side, side, 8, slots=1)
                opened = open_engine(model, spec, "openvino", untaught=True, threads=threads, precision="f32")
                engines[side] = opened.engine
            (slot,) = engines[side].slots(1)
            slot.bind(frame, np.empty_like(frame), np.empty_like(frame))
            slot.submit()
            found.append(slot.wait().features)
    finally:
        for engine in engines.values():
            engine.close()
    return np.stack(found)


def measure_taught_domain(
    model: ModelFile,
    *,
    seeds: Iterable[int] = LATER_SEEDS[::STEP],
    held_seeds: Iterable[int] = HELD_SEEDS,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    threads: int | None = None,
    progress: bool = False,
) -> TaughtDomain:
    """Centre, whitening and threshold of a model.

    Args:
        model: On disk.
        seeds: Patients of its teaching.
        held_seeds: Others.
        false_alarm_rate: Of the threshold, at `calib.domain.CONFIDENCE`.
        threads: CPU threads.
        progress: Show a bar.

    Raises:
        DomainError: Too few patients.
        ModelError, EngineError: The model cannot be run.
    """
    rows = []
    for name, patients in (("taught", list(seeds)), ("held out", list(held_seeds))):
        sides = [SIDES[index % len(SIDES)] for index in range(len(patients))]
        frames = phantom_frames(patients, sides)
        rows.append(features_of(model.path, frames, threads=threads, progress=name if progress else None))
    taught = measure_axes(rows[0])
    scores = Domain.of_model(taught).scores(rows[1])
    facts = {
        "data": "phantom",
        "patients": len(rows[0]),
        "held_out_patients": len(rows[1]),
        "confidence": CONFIDENCE,
    }
    threshold = threshold_at(scores, false_alarm_rate)
    return dataclasses.replace(taught, threshold=threshold, false_alarm_rate=false_alarm_rate, facts=facts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure which frames a model was taught on, into its sidecar."
    )
    parser.add_argument("model", help="a shipped model's name, or an ONNX file")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    arguments = parser.parse_args()
    try:
        model = load_model(arguments.model)
        taught = measure_taught_domain(model, threads=arguments.threads, progress=sys.stderr.isatty())
    except (ModelError, EngineError, CalibrationError) as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 2
    save_card(dataclasses.replace(model.card, domain=taught.card()), model.path)
    print(
        f"{model.path.name}: a frame is strange above {taught.threshold:.3f} (false alarms: {taught.facts})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
