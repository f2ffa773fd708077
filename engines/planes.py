"""The caller's arrays as the graph sees them: checked, and viewed as bytes in place."""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from calib.domain import Domain, TaughtDomain
from calib.errors import DomainError
from calib.intensity import default_tables
from engines.engine import EngineSpec, FrameStatistics
from engines.errors import ModelError
from engines.model import INPUTS, LEVELS, OUTPUTS, ModelFile

IoFacts = dict[str, tuple[str, int]]
"""Name to dtype and number of axes."""


def byte_planes(
    spec: EngineSpec, live: np.ndarray, synthetic: np.ndarray, attention: np.ndarray
) -> dict[str, np.ndarray]:
    """The graph's frame-sized tensors as views of the caller's arrays; nothing is copied.

    Args:
        spec: What the engine was opened for.
        live: (rows, columns) uint8 or little-endian uint16; only read.
        synthetic: As `live`, writable.
        attention: (rows, columns) uint8, writable.

    Raises:
        ValueError: Another shape or dtype, not contiguous, or an output that cannot be written.
    """
    dtype = np.dtype(np.uint8) if spec.sample_bytes == 1 else np.dtype("<u2")
    planes = (
        ("live", live, dtype),
        ("synthetic", synthetic, dtype),
        ("attention", attention, np.dtype("u1")),
    )
    shape = (spec.rows, spec.columns)
    for name, array, needed in planes:
        if array.shape != shape or array.dtype != needed:
            raise ValueError(
                f"{name} must be {shape} {needed}, got {array.shape} {array.dtype}; "
                f"open an engine for that frame format"
            )
        if not array.flags.c_contiguous:
            raise ValueError(
                f"{name} must be contiguous row by row, got strides {array.strides}; copy it first"
            )
        if name != "live" and not array.flags.writeable:
            raise ValueError(f"{name} is written by the engine, got a read-only array; pass a writable one")
    return {
        "live": live.view(np.uint8).reshape(*shape, spec.sample_bytes),
        "synthetic": synthetic.view(np.uint8).reshape(*shape, spec.sample_bytes),
        "attention": attention,
    }


def unlocked(array: np.ndarray) -> np.ndarray:
    """A writable view of a read-only array's memory; whoever takes it must only read."""
    memory = memoryview((ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data))
    view: np.ndarray = np.frombuffer(memory, np.uint8).view(array.dtype).reshape(array.shape)
    return view


def domain_of(model: ModelFile) -> Domain | None:
    """What a model's card says of the frames it was taught on.

    Raises:
        ModelError: Something that cannot be used.
    """
    if model.card.domain is None:
        return None
    try:
        return Domain.of_model(TaughtDomain.of_card(model.card.domain))
    except DomainError as error:
        raise ModelError(f"{model.path.with_suffix('.json').name}: {error}") from error


def statistics_of(values: Float32[np.ndarray, "76"], domain: Domain | None = None) -> FrameStatistics:
    """The graph's fp32 outputs by name. Finite only if every one of A's and C's is.

    Args:
        values: Copied.
        domain: What the frame is judged by.
    """
    finite, minimum, maximum, mean, area = (float(value) for value in values[:5])
    features = np.array(values[5:], np.float32)
    return FrameStatistics(
        finite == 1.0 and bool(np.isfinite(values[:5]).all()),
        minimum,
        maximum,
        mean,
        area,
        math.nan if domain is None else domain.score(features),
        features,
    )


@dataclass(frozen=True)
class Settings:
    """The inputs that stay between frames; replaced as a whole, so that no frame sees half a change."""

    table: Float32[np.ndarray, "256"]
    inverse: Float32[np.ndarray, "256"]
    field: UInt8[np.ndarray, "h w"]
    max_value: Float32[np.ndarray, "1"]
    domain: Domain | None = None
    """What frames are judged by, on the host."""

    @classmethod
    def default(cls, spec: EngineSpec, domain: Domain | None = None) -> "Settings":
        """Linear over the stored range, the whole frame as field."""
        table, inverse = default_tables(spec.bits_stored)
        field = np.full((spec.rows, spec.columns), 255, np.uint8)
        return cls(table, inverse, field, np.array([(1 << spec.bits_stored) - 1], np.float32), domain)

    def with_tables(self, table: np.ndarray, inverse: np.ndarray) -> "Settings":
        """These settings with other grey levels, copied.

        Raises:
            ValueError: Not (256,), not finite, or not monotone.
        """
        checked = []
        for name, values in (("table", table), ("inverse", inverse)):
            if values.shape != (LEVELS,) or not np.isfinite(values).all():
                raise ValueError(
                    f"{name} must be ({LEVELS},) finite numbers, got {values.shape} {values.dtype}"
                )
            steps = np.diff(values.astype(np.float64))
            if not ((steps >= 0).all() or (steps <= 0).all()):
                raise ValueError(f"{name} must be monotone, or grey levels cannot be mapped back")
            checked.append(np.array(values, np.float32))
        return replace(self, table=checked[0], inverse=checked[1])

    def with_field(self, field: np.ndarray | None) -> "Settings":
        """These settings with another field, copied; None is the whole frame.

        Raises:
            ValueError: Another shape than the frame's, or not uint8.
        """
        if field is None:
            field = np.full(self.field.shape, 255, np.uint8)
        if field.shape != self.field.shape or field.dtype != np.uint8:
            raise ValueError(f"field must be {self.field.shape} uint8, got {field.shape} {field.dtype}")
        return replace(self, field=np.array(field, order="C"))

    def with_domain(self, domain: Domain | None) -> "Settings":
        """These settings with other statistics to judge frames by."""
        return replace(self, domain=domain)

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """By the graph's input names."""
        return {
            "table": self.table,
            "inverse": self.inverse,
            "field": self.field,
            "max_value": self.max_value,
        }


def check_graph(inputs: IoFacts, outputs: IoFacts, name: str) -> None:
    """Refuse a model that is not our graph.

    Args:
        inputs: Name to dtype and number of axes, as the runtime read them.
        outputs: As `inputs`.
        name: The file, for the message.

    Raises:
        ModelError: Another set of names, another dtype or number of axes.
    """
    for kind, found, needed in (("inputs", inputs, INPUTS), ("outputs", outputs, OUTPUTS)):
        expected = {key: (dtype, len(shape)) for key, (dtype, shape) in needed.items()}
        if found != expected:
            raise ModelError(
                f"{name} must have the {kind} {_listing(expected)}, got {_listing(found)}; "
                f"export it with engines.graph"
            )


def _listing(facts: IoFacts) -> str:
    parts: Sequence[str] = [f"{name} {dtype}[{axes}]" for name, (dtype, axes) in facts.items()]
    return ", ".join(parts) or "none"
