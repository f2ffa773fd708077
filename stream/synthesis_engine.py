"""The engine of a synthesis, kept open from one recording to the next where both have frames of one size and depth."""

from typing import TYPE_CHECKING, Any

from stream.frame import FrameFormat

if TYPE_CHECKING:
    from engines.engine import Opened


class EngineKeeper:
    """Opens engines, one at a time."""

    def __init__(self) -> None:
        self._opened: tuple[Opened, int] | None = None
        self._what: Any = None

    def open(self, frame_format: FrameFormat, settings: dict[str, Any]) -> "tuple[Opened, int]":
        """An engine for frames of this format, warm.

        Args:
            frame_format: Of the frames.
            settings: As `stream.infer.open_for` takes them.

        Returns:
            The engine, this keeper's to close, and the median time of one inference alone in ns.

        Raises:
            EngineError, CalibrationError, ValueError: It cannot be opened.
        """
        from stream.infer import open_for, warm_up
        from stream.site_engine import set_up

        what = (frame_format.rows, frame_format.columns, frame_format.bits_stored, settings)
        if self._opened is not None and self._what == what:
            # The window and the photometric interpretation may differ, and the grey tables with them.
            set_up(self._opened[0].engine, frame_format, settings["site"])
            return self._opened
        self.close()
        opened = open_for(frame_format, settings)
        try:
            slots = opened.engine.slots(settings["slots"])
            self._opened = opened, max(warm_up(slot, frame_format) for slot in slots)
        except BaseException:
            opened.engine.close()
            raise
        self._what = what
        return self._opened

    def close(self) -> None:
        """Close the engine, if one is open."""
        if self._opened is not None:
            opened, _ = self._opened
            self._opened = self._what = None
            opened.engine.close()

    def __enter__(self) -> "EngineKeeper":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
