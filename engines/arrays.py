"""An engine for one array after another, where nothing streams: a notebook, a script, a test."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from engines.engine import BackendName, Engine, EngineSpec, FrameStatistics
from engines.open import open_engine


@dataclass(frozen=True)
class Synthesis:
    """What became of one frame.

    Args:
        synthetic: (rows, columns) in the frame's own dtype and stored values.
        attention: (rows, columns) uint8, 255 where a pixel is wholly synthetic; where 0, synthetic equals the frame.
        statistics: What the graph says of it; `statistics.domain` above 1 is unlike the taught frames.
    """

    synthetic: np.ndarray
    attention: UInt8[np.ndarray, "rows columns"]
    statistics: FrameStatistics


class ArrayEngine:
    """Synthesizes arrays, one call each. Opened for the first frame's size, and anew when another size comes.

    Args:
        model: A shipped model's name or the path of an ONNX file.
        backend: `auto` for the first usable runtime, or a name, which is taken at its word.
        untaught: Take a model with random weights too.
        threads: CPU threads; None for as many as there are cores.

    Raises:
        ModelError, EngineError, ValueError: At the first call, as `engines.open.open_engine`.
    """

    def __init__(
        self,
        model: str | Path = "compact",
        backend: BackendName | str = "auto",
        *,
        untaught: bool = False,
        threads: int | None = None,
    ) -> None:
        self._model, self._backend = model, backend
        self._untaught, self._threads = untaught, threads
        self._spec: EngineSpec | None = None
        self.engine: Engine | None = None
        """The engine in use; None before the first call."""
        self._buffers: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def __call__(self, frame: np.ndarray, *, bits_stored: int | None = None) -> Synthesis:
        """Synthesize a frame.

        Args:
            frame: (rows, columns) uint8, or uint16 stored pixel values; 64 to 2048 a side.
            bits_stored: Of a uint16 frame, 9 to 16: the table of grey levels spans as many. 8 for uint8.

        Returns:
            Arrays of the caller's own.

        Raises:
            ValueError: Another shape or dtype, or values beyond `bits_stored`.
        """
        spec = self._spec_of(frame, bits_stored)
        if spec != self._spec or self.engine is None or self._buffers is None:
            self._open(spec, frame.dtype)
        assert self.engine is not None
        assert self._buffers is not None
        live, synthetic, attention = self._buffers
        np.copyto(live, frame)
        (slot,) = self.engine.slots(1)
        slot.submit()
        statistics = slot.wait()
        return Synthesis(synthetic.copy(), attention.copy(), statistics)

    @staticmethod
    def _spec_of(frame: np.ndarray, bits_stored: int | None) -> EngineSpec:
        if frame.ndim != 2 or frame.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"needed one grey frame, (rows, columns) of uint8 or uint16, got {frame.shape} of {frame.dtype}; take one "
                "frame of a loop, and one channel of a colour picture"
            )
        if frame.dtype == np.uint8:
            bits = 8
        elif bits_stored is None:
            raise ValueError(
                "needed bits_stored for a uint16 frame, got none; give it as DICOM's Bits Stored, 9 to 16"
            )
        else:
            bits = bits_stored
        if (bits_stored is not None and bits_stored != bits) or not (bits == 8) == (frame.dtype == np.uint8):
            raise ValueError(
                f"needed 8 bits stored for uint8 and 9 to 16 for uint16, got {bits_stored} for {frame.dtype}"
            )
        if int(frame.max(initial=0)) >> bits:
            raise ValueError(
                f"needed values of {bits} bits, got {int(frame.max())}; give the bits the values have"
            )
        rows, columns = frame.shape
        return EngineSpec(rows, columns, bits_stored=bits, slots=1)

    def _open(self, spec: EngineSpec, dtype: np.dtype) -> None:
        self.close()
        opened = open_engine(self._model, spec, self._backend, untaught=self._untaught, threads=self._threads)
        self.engine, self._spec = opened.engine, spec
        shape = (spec.rows, spec.columns)
        self._buffers = np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros(shape, np.uint8)
        (slot,) = self.engine.slots(1)
        slot.bind(*self._buffers)

    def close(self) -> None:
        """Give the engine back; may be called twice. The next call opens one again."""
        if self.engine is not None:
            self.engine.close()
        self.engine = self._spec = self._buffers = None

    def __enter__(self) -> "ArrayEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
