"""The engine contract: what the frame path asks of a runtime, whichever it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from calib.domain import Domain

BackendName = Literal["tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime"]
Precision = Literal["f32", "bf16", "f16", "int8"]
AUTO_ORDER: tuple[BackendName, ...] = ("tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime")


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is opened for: one frame size and sample width. Other sizes need another engine.

    Args:
        rows: Rows of a frame, 64 to 2048.
        columns: Columns of a frame, 64 to 2048.
        bits_stored: Bits stored per sample, 8 to 16; 8 travels as one byte, more as two, low byte first.
        slots: How many frames may be in the engine at once.
    """

    rows: int
    columns: int
    bits_stored: int = 8
    slots: int = 2

    def __post_init__(self) -> None:
        if not (64 <= self.rows <= 2048 and 64 <= self.columns <= 2048):
            raise ValueError(
                f"frames must be 64 to 2048 pixels a side, got {self.rows}x{self.columns}; crop or resample"
            )
        if not 8 <= self.bits_stored <= 16:
            raise ValueError(f"frames must have 8 to 16 bits stored, got {self.bits_stored}")
        if self.slots < 1:
            raise ValueError(f"an engine needs at least one slot, got {self.slots}")

    @property
    def sample_bytes(self) -> int:
        """Bytes per sample at the graph's edges."""
        return 1 if self.bits_stored == 8 else 2


@dataclass(frozen=True)
class FrameStatistics:
    """What the graph says of one inference, in fp32, since bytes cannot carry a NaN."""

    finite: bool
    """Every value of A and C was finite."""
    minimum: float
    """Smallest A, 0 to 1, after the clamp."""
    maximum: float
    """Largest A."""
    mean: float
    """Mean A over the frame."""
    area: float
    """Share of pixels whose 8-bit attention is above 0."""
    domain: float
    """How unlike the taught frames this one is, by the engine's `domain`: below 1 for most such frames, above its threshold
    for strange ones, infinite where it cannot be said; NaN where the engine has no domain."""
    features: Float32[np.ndarray, "71"] = field(compare=False, repr=False)
    """What that is judged by (`calib/domain.py`)."""


@runtime_checkable
class Slot(Protocol):
    """One frame's place in an engine. Buffers stay bound until bound anew; nothing is copied on the host."""

    def bind(self, live: np.ndarray, synthetic: np.ndarray, attention: np.ndarray) -> None:
        """Point the slot at the arrays it reads and writes in place.

        Args:
            live: (rows, columns) stored pixel values, uint8 or uint16. Only read.
            synthetic: As `live`; written.
            attention: (rows, columns) uint8; written.

        Raises:
            ValueError: Another shape or dtype than the engine was opened for, or not contiguous.
        """
        ...

    def submit(self) -> None:
        """Start the inference of what `live` holds now; returns at once. The slot must be idle."""
        ...

    def ready(self) -> bool:
        """Whether the submitted inference is done; never waits."""
        ...

    def wait(self) -> FrameStatistics:
        """Wait for the submitted inference; its planes are then written. Slots finish in submission order.

        Raises:
            EngineError: The runtime failed; the planes hold nothing of use.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """A network on a runtime, opened for one frame size."""

    spec: EngineSpec
    backend: BackendName
    precision: Precision
    """What the convolutions are computed in."""
    model_sha256: str
    """The source ONNX file's hash, which is the model's name."""
    taught: bool
    """Whether the network was taught; an untaught one never streams as SYNTHETIC."""

    @property
    def domain(self) -> Domain | None:
        """What frames are judged by: the model card's statistics, until a site's are set; None where there are none."""
        ...

    def slots(self, count: int) -> Sequence[Slot]:
        """The engine's slots; `count` is at most `spec.slots`."""
        ...

    def set_grey_table(self, table: np.ndarray, inverse: np.ndarray) -> None:
        """Use another grey-level table from the next submission on; needs no rebuild.

        Args:
            table: (256,) float32, monotone: grey level 0 to 1 at 256 stored values spaced evenly over the range.
            inverse: (256,) float32: stored value at 256 grey levels spaced evenly over 0 to 1.
        """
        ...

    def set_field(self, field: np.ndarray | None) -> None:
        """Draw only inside the calibrated field.

        Args:
            field: (rows, columns) uint8, 0 outside and 255 inside; None for the whole frame.
        """
        ...

    def set_domain(self, domain: Domain | None) -> None:
        """Judge frames by other statistics, a site's, from the next `wait` on; None does not judge them."""
        ...

    def close(self) -> None:
        """Wait for what is in flight and give everything back."""
        ...


@dataclass(frozen=True)
class Opened:
    """An engine, and why every backend before it in the order was not taken."""

    engine: Engine
    skipped: tuple[tuple[BackendName, str], ...] = ()
    """(backend, reason) for each one that `auto` passed over; shown on the status line and in the viewer."""
