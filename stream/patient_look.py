"""What the live graph says of a recording's frames: the same runtime, grey levels and field that will judge the live ones."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from calib.errors import CalibrationError
from stream.frame import FrameFormat
from stream.site_engine import grey_tables, set_up

if TYPE_CHECKING:
    from engines.engine import Engine, Slot
    from engines.model import ModelFile
    from stream.site import Site


class GraphLook:
    """The model's engine with one slot, opened for the first recording's frames.

    Args:
        model: The general model.
        site: The site's record; None for the default grey levels.
        threads: CPU threads.
    """

    def __init__(self, model: "ModelFile", site: "Site | None", threads: int | None) -> None:
        self._model, self._site, self._threads = model, site, threads
        self._settings: dict[str, Any] | None = None if site is None else site.engine_settings()
        self._engine: Engine | None = None
        self._slot: Slot | None = None
        self._planes: tuple[np.ndarray, np.ndarray] | None = None

    def open(self, frame_format: FrameFormat) -> Float32[np.ndarray, "256"]:
        """Open it, once, for frames of a format; returns their grey-level table.

        Raises:
            CalibrationError: The site's record is not for such frames.
            EngineError: The engine cannot be opened.
        """
        from engines.engine import EngineSpec
        from engines.open import open_engine

        if self._site is not None and (why := self._site.why_not(frame_format)) is not None:
            raise CalibrationError(f"{why}; give the recording's own, or leave --site out")
        if self._engine is None:
            spec = EngineSpec(frame_format.rows, frame_format.columns, frame_format.bits_stored, slots=1)
            self._engine = open_engine(self._model, spec, threads=self._threads).engine
            set_up(self._engine, frame_format, self._settings)
            (self._slot,) = self._engine.slots(1)
            shape = (frame_format.rows, frame_format.columns)
            self._planes = np.empty(shape, frame_format.dtype), np.empty(shape, np.uint8)
        table, _ = grey_tables(frame_format, None if self._settings is None else self._settings["intensity"])
        return table

    def features(self, live: np.ndarray) -> Float32[np.ndarray, "71"]:
        """Of one frame, stored pixel values.

        Raises:
            EngineError: The runtime failed.
        """
        assert self._slot is not None
        assert self._planes is not None
        self._slot.bind(live, *self._planes)
        self._slot.submit()
        return self._slot.wait().features

    def close(self) -> None:
        """Give the engine back."""
        if self._engine is not None:
            self._slot = None
            self._engine.close()
            self._engine = None
