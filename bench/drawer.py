"""One way to draw, whatever the model is: live frames in, synthetic frames and 8-bit attention out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bench.errors import EvaluationError
from engines.engine import Engine, EngineSpec, Slot
from engines.model import file_sha256
from engines.open import open_engine
from engines.untaught import find_model

SERIAL_RUNS = 50
WARM_RUNS = 10
NS_PER_MS = 1e6


@runtime_checkable
class Drawer(Protocol):
    """A model opened for one frame size."""

    facts: "ModelFacts"

    def draw(self, live: np.ndarray, field: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The synthetic frame and the attention of one live frame; new arrays.

        Args:
            live: (rows, columns) stored pixel values.
            field: (rows, columns) uint8, 255 where drawing is allowed; None for everywhere.
        """
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


@dataclass(frozen=True)
class ModelFacts:
    """What was evaluated."""

    kind: str
    """`onnx` or `checkpoint`."""
    name: str
    """The file or folder, without the way to it."""
    sha256: str
    preset: str
    network_size: int
    threshold: float
    """t of the attention's clamp."""
    taught: bool
    training_run: dict[str, Any]
    backend: str
    precision: str


def open_drawer(model: str, rows: int, columns: int, threads: int | None = None) -> Drawer:
    """Open a model for 8-bit frames of one size.

    Args:
        model: A shipped preset's name, an .onnx file, or the folder of a training run.
        rows: Of a frame.
        columns: Of a frame.
        threads: Of the CPU; None for as many as there are cores.

    Raises:
        EvaluationError: There is no such model.
        EngineError: The model or its runtime cannot be used.
        CheckpointError: The folder holds no usable checkpoint.
    """
    spec = EngineSpec(rows, columns)
    path = Path(model)
    if path.is_dir():
        return CheckpointDrawer(path, spec, threads)
    if path.suffix and path.suffix != ".onnx":
        raise EvaluationError(
            f"needed a shipped model's name, an .onnx file or the folder of a training run, got {model}"
        )
    return EngineDrawer(model, spec, threads)


class EngineDrawer:
    """An ONNX model on the first runtime that is usable here."""

    def __init__(self, model: str, spec: EngineSpec, threads: int | None) -> None:
        file = find_model(model, untaught=True)
        card = file.card
        # An untaught network may be measured too; that it is one stands in the report.
        engine: Engine = open_engine(model, spec, untaught=True, threads=threads).engine
        self._engine = engine
        self._slot: Slot = engine.slots(1)[0]
        self._field: np.ndarray | None = None
        self.facts = ModelFacts(
            kind="onnx",
            name=file.said_name,
            sha256=engine.model_sha256,
            preset=card.preset,
            network_size=card.network_size,
            threshold=card.threshold,
            taught=engine.taught,
            training_run=card.training_run,
            backend=engine.backend,
            precision=engine.precision,
        )

    def draw(self, live: np.ndarray, field: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        if field is not self._field:
            self._engine.set_field(field)
            self._field = field
        synthetic, attention = np.empty_like(live), np.empty(live.shape, np.uint8)
        self._slot.bind(np.ascontiguousarray(live), synthetic, attention)
        self._slot.submit()
        if not self._slot.wait().finite:
            raise EvaluationError(
                f"{self.facts.name} drew values that are not finite; its weights are broken: train again"
            )
        return synthetic, attention

    def close(self) -> None:
        self._engine.close()


class CheckpointDrawer:
    """A training run's averaged weights, drawn by the torch reference of the graph, in fp32."""

    def __init__(self, folder: Path, spec: EngineSpec, threads: int | None) -> None:
        import torch

        from casgan import checkpoint
        from engines.planes import Settings
        from engines.reference import Reference

        if threads is not None:
            torch.set_num_threads(threads)
        network, config, facts = checkpoint.taught_network(folder)
        self._reference = Reference(network.folded(), config.drawn_above)
        self._spec = spec
        self._settings = Settings.default(spec)
        self.facts = ModelFacts(
            kind="checkpoint",
            name="run",  # a folder's name may say more than it should; the hash says which
            sha256=file_sha256(folder / checkpoint.NAME),
            preset=network.preset.name,
            network_size=network.preset.network_size,
            threshold=config.drawn_above,
            taught=True,
            training_run={"step": facts.get("step")},
            backend="torch reference",
            precision="f32",
        )

    def draw(self, live: np.ndarray, field: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        from engines.reference import run_reference

        settings = self._settings if field is None else self._settings.with_field(field)
        drawn = run_reference(self._reference, self._spec, live, settings)
        if not drawn.statistics.finite:
            raise EvaluationError(
                f"{self.facts.name} drew values that are not finite; its weights are broken: train again"
            )
        return drawn.synthetic, drawn.attention

    def close(self) -> None:
        """Nothing is held."""


def serial_ms(drawer: Drawer, live: np.ndarray, runs: int = SERIAL_RUNS, warm: int = WARM_RUNS) -> np.ndarray:
    """(`runs`,) ms of one frame after the other, each waited for, after some to warm up."""
    times_ms = []
    for run in range(warm + runs):
        start_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        drawer.draw(live)
        if run >= warm:
            times_ms.append((time.clock_gettime_ns(time.CLOCK_MONOTONIC) - start_ns) / NS_PER_MS)
    return np.array(times_ms)
