"""Writes an ONNX graph node by node, with only what every runtime executes alike."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.model import LEVELS


class GraphWriter:
    """Appends nodes to an ONNX graph; every call returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, bytes], str] = {}

    def floats(self, *values: float) -> str:
        return self._constant(np.array(values, np.float32))

    def integers(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, array: "np.ndarray | np.generic") -> str:
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
            self._constants[key] = name
        return self._constants[key]

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def cast(self, value: str, kind: int, name: str | None = None) -> str:
        return self.add("Cast", value, to=kind, name=name)

    def part(self, value: str, start: str, end: str, axis: int) -> str:
        return self.add("Slice", value, start, end, self.integers(axis))

    def clip(self, value: str, low: str, high: str, name: str | None = None) -> str:
        return self.add("Min", self.add("Max", value, low), high, name=name)

    def round(self, value: str) -> str:
        """Half upwards: the same on every runtime and in every language, unlike half to even."""
        return self.add("Floor", self.add("Add", value, self.floats(0.5)))

    def resize(self, value: str, axis: int, before: str, after: str) -> str:
        """Linear along one axis, half-pixel centres; exactly half the size is the mean of two.

        Written as two Gathers and a blend: OpenVINO's Resize takes 3.4 ms for one plane of 512x512.
        Positions are computed in integers, so that every runtime picks the same neighbours.
        """
        none = self._constant(np.zeros(0, np.int64))
        count = self.add("Reshape", after, none)
        zero, one = self.integers(0), self.integers(1)
        order = self.add("Range", self._constant(np.int64(0)), count, self._constant(np.int64(1)))
        unit = self.add("Mul", after, self.integers(2))
        # (order + 1/2) before / after - 1/2, in units of 1 / (2 after)
        centre = self.add("Mul", self.add("Add", self.add("Mul", order, self.integers(2)), one), before)
        centre = self.add("Max", self.add("Sub", centre, after), zero)
        first = self.add("Div", centre, unit)
        second = self.add("Min", self.add("Add", first, one), self.add("Sub", before, one))
        part = self.add("Sub", centre, self.add("Mul", first, unit))
        share = self.add("Div", self.cast(part, TensorProto.FLOAT), self.cast(unit, TensorProto.FLOAT))
        share = self.add("Reshape", share, self.integers(1, 1, -1, 1) if axis == 2 else self.integers(-1))
        low, high = (
            self.add("Gather", value, self.cast(index, TensorProto.INT32), axis=axis)
            for index in (first, second)
        )
        return self.add("Add", low, self.add("Mul", share, self.add("Sub", high, low)))

    def look_up(self, table: str, level: str) -> str:
        """A table of 256 knots, linear between them; `level` runs from 0 to 255."""
        steps = self.add(
            "Sub",
            self.part(table, self.integers(1), self.integers(LEVELS), 0),
            self.part(table, self.integers(0), self.integers(LEVELS - 1), 0),
        )
        # A comparison, not Max: a NaN from a broken network must not become an index outside the table.
        above = self.add("Where", self.add("Greater", level, self.floats(0.0)), level, self.floats(0.0))
        knot = self.add("Min", self.add("Floor", above), self.floats(LEVELS - 2.0))
        index = self.cast(knot, TensorProto.INT32)
        rise = self.add("Mul", self.add("Sub", level, knot), self.add("Gather", steps, index, axis=0))
        return self.add("Add", self.add("Gather", table, index, axis=0), rise)
