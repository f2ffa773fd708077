"""A recording read offline: every frame once, in order, as fast as they are taken. The source process decodes.

What the guard does for the live path is done here without deadlines: hostile bytes and codecs stay in the source
process (stream/grab.py), which writes into a ring's slots, and nothing is dropped or passed over.
"""

import dataclasses
import math
import select
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from stream.children import Child, exit_words
from stream.control import (
    SLOT,
    Kind,
    angles_from_json,
    format_from_json,
    send_ring,
    unpack_frame,
    unpack_json,
)
from stream.errors import PipelineError, SourceError
from stream.frame import FrameFormat
from stream.pacing import Pacing
from stream.reported import reported_source
from stream.ring import Ring, SlotView
from stream.sources.open import LIVE
from stream.sources.options import SourceOptions

GRANTS = 3
"""Slots the source may write at once: as far as it may decode ahead."""
LOOK_S = 0.1
"""How often a wait looks whether it was stopped."""
MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error)


@dataclass(frozen=True)
class Recorded:
    """A frame in its slot, which is the reader's until it gives it back."""

    index: int
    """Its number in the recording, from 0."""
    view: SlotView


class Recording:
    """An open recording.

    Args:
        source: As `open_source` takes it.
        options: What is asked of it.
        frames: End after so many; None for the recording's own end.
        slots: Frames that may be held at once; the reader must keep fewer than `slots - GRANTS`.
        stopped: Asked while waiting; once it says True, `read` ends.
        live: Read a live device too, until it is stopped.
        blank: Regions to blank before anything sees them, as `stream.blank.Blank.as_json` gives them.
        timed: Ask when each frame is.

    Raises:
        SourceError: It cannot be opened, or has no end.
        KeyboardInterrupt: Stopped before it was open.
        PipelineError: Its process failed.
    """

    def __init__(
        self,
        source: str,
        options: SourceOptions,
        *,
        frames: int | None,
        slots: int,
        stopped: Callable[[], bool],
        live: bool = False,
        blank: dict[str, Any] | None = None,
        timed: bool = False,
    ) -> None:
        if source.startswith(LIVE) and not live:
            name = reported_source(source)  # an address may hold a password
            run = source if name == source else "SOURCE"
            raise SourceError(f"{name}: needed a recording, got a live device; use: contrastream run {run}")
        if source == "phantom" and frames is None and not live:
            raise SourceError("phantom: it has no end of its own; give --frames, for example --frames 64")
        self._stopped = stopped
        self._live = live
        self.ended = False
        """Whether `read` has given every frame."""
        pacing = Pacing(rate_hz=options.rate_hz, speed=math.inf, lossless=True, frames=frames)
        config = {
            "source": source,
            "options": dataclasses.asdict(options),
            "pacing": dataclasses.asdict(pacing),
            "first_sequence": 0,
            "blank": blank,
            "timed": timed,
        }
        self._masked = blank is not None
        self._ring: Ring | None = None
        self._child = Child("stream.grab", config, quiet=True)
        try:
            self._open(frames, slots)
        except BaseException:
            self.close()
            raise

    def _open(self, frames: int | None, slots: int) -> None:
        packet = self._packet()
        try:
            if packet is None:
                raise KeyboardInterrupt
            if packet[0] != Kind.OPENED:
                raise ValueError(f"packet {packet[0]} before the recording is open")
            opened = unpack_json(packet)
            self.kind = str(opened["kind"])
            self.format: FrameFormat = format_from_json(opened["format"])
            self.notes = tuple(str(note) for note in opened["notes"])
            self.sizes = {
                str(name): tuple(float(each) for each in size) if isinstance(size, list) else float(size)
                for name, size in opened["sizes"].items()
            }
            """What the header says of sizes and distances, in mm."""
            self.angles_deg = angles_from_json(opened)
            """The C-arm's positioner angles; None where the header does not say them."""
            self.device = str(opened["device"])
            """What tells the device from others; empty where nothing says."""
            count = None if opened["frame_count"] is None else int(opened["frame_count"])
            live = bool(opened["live"])
            self.rate_hz = None if opened["recorded_hz"] is None else float(opened["recorded_hz"])
            """Frames per second; None where nothing says."""
            times = opened.get("times_ms")
            self.times_ms = None if times is None else [float(each) for each in times]
            """When each frame is, from the first on, in ms; None where nothing says or it was not asked for."""
        except MALFORMED as error:
            raise self._nonsense(error) from error
        if not self._live and (live or (count is None and frames is None)):
            raise SourceError(
                f"needed a recording with an end, got a {self.kind} source without one; give --frames"
                if not live
                else f"needed a recording, got a live {self.kind} source; use: contrastream run"
            )
        self.frame_count = min((each for each in (count, frames) if each is not None), default=0)
        """Frames that `read` will give, unless the recording is shorter than it says; 0 for a live device without end."""
        try:
            self._ring = Ring(self.format, slots)
        except OSError as error:
            raise PipelineError(
                f"needed memory for {slots} frames of {self.format.rows} x {self.format.columns}, got: {error.strerror}"
            ) from error
        send_ring(self._child.socket, self._ring.memory, 1)

    @property
    def unmasked_text(self) -> bool:
        """Whether the frames may show burned-in text."""
        return self.kind != "phantom" and not self._masked

    def read(self) -> Recorded | None:
        """The next frame; None at the end, or once it was stopped.

        Raises:
            SourceError: It cannot be decoded, or its frames change their size.
            PipelineError: Its process failed.
        """
        ring = self._ring
        assert ring is not None
        while ring.granted() < GRANTS and (slot := ring.grant()) is not None:
            self._child.send(SLOT.pack(Kind.GRANT, slot))
        packet = self._packet()
        if packet is None:
            return None
        try:
            if packet[0] != Kind.FRAME:
                raise SourceError(
                    "needed frames of one size and depth, and they change on the way; take each part by itself"
                )
            grabbed, *_ = unpack_frame(packet)
            ring.fill(grabbed.slot)
            return Recorded(grabbed.sequence, ring.slots[grabbed.slot])
        except MALFORMED as error:
            raise self._nonsense(error) from error

    def give_back(self, frame: Recorded) -> None:
        """The reader needs the frame's slot no more."""
        assert self._ring is not None
        self._ring.release(frame.view.index)

    def _packet(self) -> bytes | None:
        """The next packet that is no note and no beat; None at the end, or once stopped."""
        while not (self.ended or self._stopped()):
            packet = self._child.receive()
            if packet is None:
                select.select([self._child.socket], [], [], LOOK_S)
            elif packet == b"":
                status = self._child.process.wait()
                raise PipelineError(
                    f"the process that reads the recording ended with {exit_words(status)}; the file may be damaged, "
                    "copy it again"
                )
            elif packet[0] == Kind.ERROR:
                try:
                    said = unpack_json(packet)
                    raise (SourceError if said["input"] else PipelineError)(str(said["message"]))
                except MALFORMED as error:
                    raise self._nonsense(error) from error
            elif packet[0] == Kind.END:
                self.ended = True
            elif packet[0] not in (Kind.NOTE, Kind.ALIVE):
                return packet
        return None

    @staticmethod
    def _nonsense(error: Exception) -> PipelineError:
        return PipelineError(
            f"the process that reads the recording sent what it must not ({type(error).__name__}); is the file damaged?"
        )

    def close(self) -> None:
        """End the source process and give the memory back."""
        if self._child.socket.fileno() >= 0:  # not yet closed
            self._child.kill()
        if self._ring is not None:
            self._ring.close()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
