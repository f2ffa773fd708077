"""Does the domain's score tell strange frames from those it should know? `python -m bench.domain DATA [--model compact]`.

Two questions, each split by patient:

    phantom    the model's own threshold, on digital patients it was neither taught on nor given its threshold by
    site       real coronary runs: centre, spread, threshold and learned changes of the other patients, on the patient
               left out

DATA is a folder with `angiodata_cine`, `xa_phantom_cine`, `rf_single` as this project's tests use them; nothing of it is kept.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64

from bench.errors import BenchError
from calib.config import PhantomConfig
from calib.domain import TaughtDomain
from calib.domain_changes import LEARNED, PlacedFrames
from calib.domain_site import changed_frames, enlarged, learned_domain
from calib.errors import CalibrationError
from calib.phantom import Phantom
from engines.engine import Engine, EngineSpec
from engines.errors import EngineError, ModelError
from engines.open import open_engine

UNSEEN = range(60)
"""Digital patients of neither the teaching nor the threshold."""
RATES = (0.01, 0.05)
SITE_EVERY = 3
"""Every so many-th frame of a real run."""
CHANGED = 2
"""Frames of a run that are changed."""
SIDE = 512


@dataclass(frozen=True)
class Row:
    """One kind of frames against one threshold."""

    question: str
    frames: str
    strange: bool
    """Whether it should be above the threshold."""
    count: int
    auc: float | None
    """Against the frames of the same question that should not be; None for those themselves."""
    above: tuple[float, ...]
    """Share above the threshold, for each of the thresholds."""


class Teller:
    """Features of 8-bit frames of any size, through the engine that would run."""

    def __init__(self, model: str, threads: int | None) -> None:
        self._model, self._threads = model, threads
        self._engines: dict[tuple[int, int], Engine] = {}

    def engine(self, shape: tuple[int, int]) -> Engine:
        if shape not in self._engines:
            spec = EngineSpec(*shape, 8, slots=1)
            self._engines[shape] = open_engine(self._model, spec, "openvino", threads=self._threads).engine
        return self._engines[shape]

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        (slot,) = self.engine((frame.shape[0], frame.shape[1])).slots(1)
        slot.bind(frame, np.empty_like(frame), np.empty_like(frame))
        slot.submit()
        return slot.wait().features

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


def area_under_curve(strange: Float64[np.ndarray, " n"], like: Float64[np.ndarray, " m"]) -> float:
    """The chance that a strange frame scores above one that is not, ties by half (Mann and Whitney)."""
    order = np.sort(like)
    below = np.searchsorted(order, strange, "left") + np.searchsorted(order, strange, "right")
    return float(below.mean() / (2.0 * len(like)))


def charts() -> Iterator[tuple[str, np.ndarray]]:
    """What no patient looks like."""
    yield "black", np.zeros((SIDE, SIDE), np.uint8)
    yield "white", np.full((SIDE, SIDE), 255, np.uint8)
    for grey in (60, 115, 180):
        yield "flat", np.full((SIDE, SIDE), grey, np.uint8)
    luma = np.array([235, 210, 170, 145, 106, 81, 41, 16], np.uint8)
    yield "colour bars", np.ascontiguousarray(np.tile(np.repeat(luma, SIDE // 8), (SIDE, 1)))
    row, column = np.mgrid[:SIDE, :SIDE]
    yield "test chart", np.where((row // 32 + column // 32) % 2, 230, 25).astype(np.uint8)
    rings = 127.5 + 127.5 * np.cos(((row - 256) ** 2 + (column - 256) ** 2) * np.pi / SIDE)
    yield "test chart", np.round(rings).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))
    yield "noise", noise.astype(np.uint8)


def turned(frame: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same frame as it must not come; the first two as a site learns them, the others as it does not."""
    for name, changed in changed_frames(frame, 255):
        if name in LEARNED:
            yield name, changed
    for times in (1.5, 2.0, 5.0):
        yield f"enlarged {times:g} times", enlarged(frame, times)
    bent = np.round(255.0 * (1.0 - frame / 255.0) ** 0.6)
    yield "inverted, gamma 0.6", bent.astype(np.uint8)
    yield "on its side", np.ascontiguousarray(np.rot90(frame))


def phantom_rows(tell: Teller) -> list[Row]:
    """The model's own threshold on digital patients."""
    domain = tell.engine((SIDE, SIDE)).domain
    if domain is None:
        raise BenchError("needed a model with domain statistics; run: python -m engines.taught_domain MODEL")
    like: dict[str, list[np.ndarray]] = {"contrast-free": [], "filled": []}
    strange: dict[str, list[np.ndarray]] = {}
    for seed in UNSEEN:
        phantom = Phantom(PhantomConfig(seed=seed, rows=SIDE, columns=SIDE))
        for index in (5,):
            frame = phantom.frame(index)
            like["contrast-free"].append(tell(frame.plain))
            like["filled"].append(tell(frame.angiogram))
        for name, changed in turned(frame.plain):
            strange.setdefault(name, []).append(tell(changed))
    for name, chart in charts():
        strange.setdefault(name, []).append(tell(chart))
    known = domain.scores(np.stack(like["contrast-free"]))
    return [
        *_rows("phantom", like, False, domain.scores, known, (domain.threshold,)),
        *_rows("phantom", strange, True, domain.scores, known, (domain.threshold,)),
    ]


def real_frames(data: Path) -> dict[str, dict[str, list[np.ndarray]]]:
    """Patient to run to frames of `angiodata_cine`.

    Raises:
        BenchError: It is not there.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for run in sorted((data / "angiodata_cine").glob("Patient_*/Coro_*")):
        paths = sorted((run / "frames").glob("frame_*.jpg"))[::SITE_EVERY]
        pictures = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
        found.setdefault(run.parent.name, {})[run.name] = [each for each in pictures if each is not None]
    if len(found) < 3:
        raise BenchError(f"needed angiodata_cine with 3 patients or more in {data}, got {len(found)}")
    return found


def other_frames(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """X-rays of another kind: a shoulder, and a plastic phantom of another maker's machine."""
    import pydicom

    for path in sorted((data / "rf_single").glob("*.dcm")):
        yield "RF, a shoulder", np.ascontiguousarray(pydicom.dcmread(path).pixel_array)
    for path in sorted((data / "xa_phantom_cine").glob("*.dcm")):
        for frame in pydicom.dcmread(path).pixel_array[::4]:
            yield "XA, a plastic phantom", np.ascontiguousarray(frame)


def site_rows(tell: Teller, data: Path, report: Callable[[str], None]) -> list[Row]:
    """Each patient judged by what the others taught."""
    patients = real_frames(data)
    domain = tell.engine((SIDE, SIDE)).domain
    assert domain is not None
    own: dict[str, np.ndarray] = {}
    changed: dict[str, dict[str, list[np.ndarray]]] = {}
    for patient, runs in patients.items():
        report(f"{patient}: {sum(map(len, runs.values()))} frames of {len(runs)} runs")
        own[patient] = np.stack([tell(frame) for frames in runs.values() for frame in frames])
        frames = [frame for frames in runs.values() for frame in frames[:CHANGED]]
        changed[patient] = {}
        for frame in frames:
            for name, other in turned(frame):
                changed[patient].setdefault(name, []).append(tell(other))
    common: dict[str, list[np.ndarray]] = {}
    for name, frame in (*charts(), *other_frames(data)):
        common.setdefault(name, []).append(tell(frame))
    by_model = domain.scores(np.concatenate(list(own.values())))
    rows = [
        Row(
            "real frames by the model's own threshold",
            "all real runs",
            True,
            len(by_model),
            None,
            (float(np.mean(by_model > domain.threshold)),),
        )
    ]
    gathered: dict[str, list[tuple[int, float, list[float]]]] = {}
    for patient in patients:
        placed = _placed(domain.taught, own, changed, [name for name in patients if name != patient])
        judges = [learned_domain(domain.taught, placed, rate) for rate in RATES]
        judged: dict[str, Sequence[np.ndarray]] = {
            f"unseen: {patient}": list(own[patient]),
            **changed[patient],
            **common,
        }
        for name, features in judged.items():
            known = judges[0].scores(own[patient])
            scores = [judge.scores(np.stack(features)) for judge in judges]
            above = [
                float(np.mean(found > judge.threshold)) for judge, found in zip(judges, scores, strict=True)
            ]
            gathered.setdefault(name, []).append((len(features), area_under_curve(scores[0], known), above))
    for name, parts in gathered.items():
        strange = not name.startswith("unseen")
        shares = tuple(float(np.mean([above[rate] for _, _, above in parts])) for rate in range(len(RATES)))
        auc = float(np.mean([area for _, area, _ in parts]))
        count = sum(frames for frames, _, _ in parts)
        rows.append(Row("site", name, strange, count, auc if strange else None, shares))
    return rows


def _placed(
    taught: TaughtDomain,
    own: dict[str, np.ndarray],
    changed: dict[str, dict[str, list[np.ndarray]]],
    patients: list[str],
) -> PlacedFrames:
    """What a site of these patients is measured on."""
    counts = [len(changed[name][LEARNED[0]]) for name in patients]
    return PlacedFrames(
        taught.axes(np.concatenate([own[name] for name in patients])),
        np.repeat(patients, [len(own[name]) for name in patients]),
        {
            kind: taught.axes(np.concatenate([np.stack(changed[name][kind]) for name in patients]))
            for kind in LEARNED
        },
        np.repeat(patients, counts),
    )


def _rows(
    question: str,
    kinds: dict[str, list[np.ndarray]],
    strange: bool,
    scores: Callable[[np.ndarray], np.ndarray],
    known: np.ndarray,
    thresholds: tuple[float, ...],
) -> list[Row]:
    rows = []
    for name, features in kinds.items():
        found = scores(np.stack(features))
        above = tuple(float(np.mean(found > threshold)) for threshold in thresholds)
        auc = area_under_curve(found, known) if strange else None
        rows.append(Row(question, name, strange, len(found), auc, above))
    return rows


def format_rows(rows: list[Row]) -> str:
    """A Markdown table."""
    lines = ["| question | frames | n | AUC | above the threshold |", "|---|---|---|---|---|"]
    for row in rows:
        auc = "" if row.auc is None else f"{row.auc:.3f}"
        above = " / ".join(f"{100 * share:.1f} %" for share in row.above)
        lines.append(f"| {row.question} | {row.frames} | {row.count} | {auc} | {above} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Whether the domain's score tells strange frames from others."
    )
    parser.add_argument("data", type=Path, help="the folder of real X-ray data")
    parser.add_argument("--model", default="compact", help="a model with domain statistics")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--out", type=Path, default=None, help="write the rows as JSON too")
    arguments = parser.parse_args()
    tell = Teller(arguments.model, arguments.threads)
    try:
        domain, precision = tell.engine((SIDE, SIDE)).domain, tell.engine((SIDE, SIDE)).precision
        rows = phantom_rows(tell)
        rows += site_rows(tell, arguments.data, lambda line: print(line, file=sys.stderr))
    except (BenchError, ModelError, EngineError, CalibrationError) as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 2
    finally:
        tell.close()
    assert domain is not None
    print(
        f"{arguments.model}, openvino {precision}, threshold {domain.threshold:.3f} at {domain.false_alarm_rate:g}"
    )
    print(format_rows(rows))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
