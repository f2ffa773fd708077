"""Every engine that is usable here against the fp32 reference on a site's own frames; int8 tried where it may serve.

frames -> half of them calibrate int8, the other half judge every engine -> calib.precision chooses

Where OpenVINO's own precision is not close enough, it is measured in f32 too.
"""

import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from calib.precision import Candidate, Draw, WorstFrame, measure_precision
from calib.results import PrecisionResult
from engines.drawing import drawing
from engines.engine import AUTO_ORDER, BackendName, EngineSpec
from engines.errors import EngineError
from engines.model import ModelFile, load_model
from engines.open import open_engine, probe
from engines.planes import Settings
from engines.quantize import MIN_FRAMES as MIN_INT8_FRAMES
from engines.quantize import obtain_int8

MAX_JUDGED = 64
"""Frames that engines are compared on; more would only take longer."""


def measure_site_precision(
    model: str | Path,
    spec: EngineSpec,
    frames: Sequence[np.ndarray],
    *,
    settings: Settings | None = None,
    truths: Sequence[np.ndarray] | None = None,
    backends: Sequence[BackendName] | None = None,
    int8: bool = True,
    untaught: bool = False,
    threads: int | None = None,
) -> tuple[PrecisionResult, dict[str, WorstFrame]]:
    """Measure the engines, and choose the precision to run in.

    Args:
        model: As `open_engine` takes it.
        spec: The frames' format.
        frames: (rows, columns) stored pixel values; 8 or more, and 16 or more for int8 to be tried.
        settings: The site's grey levels and field; None for the defaults.
        truths: True vessels of each frame, bool; None where nobody knows them, as on real frames.
        backends: Which to measure; None for all that are usable here.
        int8: Try int8 where the first of them is OpenVINO.
        untaught: Take a model with random weights too.
        threads: CPU threads.

    Returns:
        As `calib.precision.measure_precision`; the worst frames are by names such as `openvino int8`.

    Raises:
        CalibrationError: Too few frames.
        EngineError: No engine can be opened.
        ModelError: The model is missing or broken.
    """
    settings = settings or Settings.default(spec)
    file = load_model(model)
    order = [backend for backend in AUTO_ORDER if backend in (backends or AUTO_ORDER)]
    without = [
        f"{backend} was not measured: {probe(backend)[1]}" for backend in order if not probe(backend)[0]
    ]
    usable = [backend for backend in order if probe(backend)[0]]
    calibrating, judging = _halves(len(frames), int8 and usable[:1] == ["openvino"])
    with ExitStack() as opened:
        candidates: list[Candidate] = []

        def open_one(backend: BackendName, precision: str = "", hash_of: str = "") -> None:
            try:
                engine = open_engine(
                    model,
                    spec,
                    backend,
                    untaught=untaught,
                    threads=threads,
                    precision=precision or None,  # type: ignore[arg-type]
                    int8_frames_sha256=hash_of,
                ).engine
            except EngineError as error:
                without.append(f"{backend} {precision} was not measured: {error}")
                return
            opened.callback(engine.close)
            engine.set_grey_table(settings.table, settings.inverse)
            engine.set_field(settings.field)
            candidates.append(Candidate(backend, engine.precision, drawing(engine)))

        for backend in usable:
            open_one(backend)
        found = ""
        if int8 and usable[:1] == ["openvino"]:
            if not calibrating:
                without.append(
                    f"int8 was not tried: it needs {2 * MIN_INT8_FRAMES} frames, half to calibrate it on and half to judge "
                    f"it on, got {len(frames)}"
                )
            else:
                try:
                    found = obtain_int8(file, [frames[index] for index in calibrating], settings)
                except EngineError as error:
                    without.append(f"int8 was not tried: {error}")
                else:
                    open_one("openvino", "int8", found)
        if not candidates:
            raise EngineError(f"needed one usable engine to measure, found none: {'; '.join(without)}")
        reference = _reference(file, spec, settings, opened, untaught=untaught, threads=threads)

        def measured() -> tuple[PrecisionResult, dict[str, WorstFrame]]:
            return measure_precision(
                [frames[index] for index in judging],
                spec.bits_stored,
                reference,
                candidates,
                truths=None if truths is None else [truths[index] for index in judging],
                int8_frames_sha256=found,
                without=without,
            )

        result, worst = measured()
        if not result.passed and usable[:1] == ["openvino"] and candidates[0].precision != "f32":
            open_one("openvino", "f32")
            result, worst = measured()
        return result, worst


def _halves(count: int, int8: bool) -> tuple[list[int], list[int]]:
    """Frames to calibrate int8 on, and frames to judge on: every other one, so that both see the whole run."""
    if not int8 or count < 2 * MIN_INT8_FRAMES:
        calibrating, judging = [], list(range(count))
    else:
        calibrating, judging = list(range(0, count, 2)), list(range(1, count, 2))
    if len(judging) > MAX_JUDGED:
        judging = [judging[round(place)] for place in np.linspace(0, len(judging) - 1, MAX_JUDGED)]
    return calibrating, judging


def _reference(
    file: ModelFile,
    spec: EngineSpec,
    settings: Settings,
    opened: ExitStack,
    *,
    untaught: bool,
    threads: int | None,
) -> Candidate:
    """The network in torch where torch is installed, else OpenVINO in f32, which `contrastream export` compares with torch."""
    if all(importlib.util.find_spec(name) for name in ("torch", "onnx")):
        from casgan.presets import PRESETS

        if file.card.preset in PRESETS:
            return Candidate("torch", "f32", _torch_drawing(file, spec, settings))
    engine = open_engine(
        file.path, spec, "openvino", untaught=untaught, threads=threads, precision="f32"
    ).engine
    opened.callback(engine.close)
    engine.set_grey_table(settings.table, settings.inverse)
    engine.set_field(settings.field)
    return Candidate("openvino", "f32", drawing(engine))


def _torch_drawing(file: ModelFile, spec: EngineSpec, settings: Settings) -> Draw:
    from engines.reference import load_reference, run_reference  # imports torch

    reference = load_reference(file)

    def draw(live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        drawn = run_reference(reference, spec, live, settings)
        return drawn.synthetic, drawn.attention

    return draw
