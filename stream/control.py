"""What the guard and its two children say to each other: small packets on a socket pair, beside the ring.

Each packet is one kind byte and a body: fixed structs for what happens every frame, JSON for the rest. Frames
themselves are never in here. The sockets are SOCK_SEQPACKET: a packet arrives whole or not at all, and the other
side's death is an end of file.
"""

import contextlib
import ctypes
import json
import math
import os
import signal
import socket
import struct
import threading
from enum import IntEnum
from typing import Any, NamedTuple

from stream.frame import FrameFormat, Photometric
from stream.outgoing import Grabbed
from stream.ring import RingMemory

MAX_PACKET = 1 << 16
PR_SET_PDEATHSIG = 1
Angles = tuple[float, float]
"""A C-arm's positioner primary (LAO positive) and secondary (cranial positive) angle, in degrees."""
PARENT_VARIABLE = "CONTRASTREAM_PARENT"
"""Environment variable that tells a child its parent's process id."""


class Kind(IntEnum):
    """What a packet is. Above 64 they come from a child."""

    CONFIG = 1
    """JSON: what the child needs to begin."""
    RING = 2
    """JSON format and slot count, with the ring's descriptor beside it."""
    GRANT = 3
    """The source may write this slot."""
    LEASE = 4
    """The engine may write this slot's synthetic and attention planes."""
    ROOM = 5
    """JSON with a room's number: the engine host serves one more, whose socket is beside it."""
    ENGINE = 6
    """A room's engine: a socket to the host and the host's pidfd, beside it."""
    STOP = 7
    """A room ends its stream."""
    GPU_SEEN = 8
    """JSON as of `GPU`, told on to a room."""
    PATIENT = 9
    """JSON with a serial number above 0: the engine makes ready the adaptation whose file's descriptor is beside it."""
    PATIENT_OFF = 10
    """The engine gives its adaptation up."""

    OPENED = 65
    """JSON: the source is open; its format, rate and notes."""
    FORMAT = 66
    """JSON: the next frame has another format."""
    FRAME = 67
    """A slot is filled."""
    NOTE = 68
    """JSON: a sentence for a person."""
    END = 69
    """JSON: the recording is over; the number after its last frame, and what was dropped."""
    READY = 70
    """JSON: the engine is warm."""
    DONE = 71
    """A lease is returned with its result."""
    ERROR = 72
    """JSON: it cannot go on; `input` is True where the user can mend it, `retry` where it may work later."""
    GPU = 73
    """JSON: what the GPU does, or why there is nothing to tell."""
    PASSED_OVER = 74
    """A lease is returned unused, as LEASE packs it: a newer frame of its room took its turn."""
    LET_GO = 75
    """The engine host serves this room no more; it writes nothing into its ring from here on."""
    WANT_ENGINE = 76
    """A room gave its engine up and wants another."""
    STATUS = 77
    """JSON: a room's heartbeat."""
    FAULT = 78
    """JSON: an injected fault begins; its place in the list, and when it ends."""
    ALIVE = 79
    """The source process lives; for how many ms it has been in the read in hand."""
    ADAPTED = 80
    """JSON: the adaptation of this serial number is warm; its facts, its gate's limit, and what it took."""
    NOT_ADAPTED = 81
    """JSON: the adaptation of this serial number cannot be had, with the sentence that says why."""


SLOT = struct.Struct("<BI")
LEASE = struct.Struct("<BIQI")
"""Kind, slot, epoch; the serial number of the adaptation that is to draw, 0 for the general model."""
ALIVE = struct.Struct("<BI")
FRAME = struct.Struct("<BIIQQQBQQQQ")
DONE = struct.Struct("<BIQQQB6fI")
"""Kind, slot, epoch, submitted, inferred, valid; then of A minimum, maximum, mean and area, the domain's score, and the distance
from what the patient's adaptation was taught on (NaN without one); the serial number of the adaptation that drew, 0 for none."""


class SourceDrops(NamedTuple):
    """Frames that were due and never left the source process, so far, by reason."""

    late: int = 0
    """Passed over, since the source had fallen a period behind."""
    full: int = 0
    """Dropped, since no slot was granted."""
    lost: int = 0
    """Those that the source has lost."""
    down: int = 0
    """Due between the last frame of the process before and the first of this one."""

    def more(self, *, late: int = 0, full: int = 0, lost: int = 0, down: int = 0) -> "SourceDrops":
        """These and so many more."""
        return SourceDrops(self.late + late, self.full + full, self.lost + lost, self.down + down)


FLAG_REPEATED = 1
FLAG_DISCONTINUITY = 2


def pack_json(kind: Kind, body: dict[str, Any]) -> bytes:
    """A packet with a JSON body."""
    return bytes((kind,)) + json.dumps(body).encode()


def unpack_json(packet: bytes) -> dict[str, Any]:
    """The JSON body of a packet.

    Raises:
        ValueError: There is none.
    """
    try:
        body = json.loads(packet[1:])
    except RecursionError:
        raise ValueError("a packet's body is nested too deep") from None
    if not isinstance(body, dict):
        raise ValueError(f"a packet's body is a JSON object, got {type(body).__name__}")
    return body


def pack_frame(grabbed: Grabbed, ring_number: int, drops: SourceDrops) -> bytes:
    """A FRAME packet.

    Args:
        grabbed: The frame.
        ring_number: Which ring the slot is in; a slot of a ring that was replaced is ignored.
        drops: So far.
    """
    flags = (FLAG_REPEATED if grabbed.repeated else 0) | (FLAG_DISCONTINUITY if grabbed.discontinuity else 0)
    return FRAME.pack(
        Kind.FRAME,
        grabbed.slot,
        ring_number,
        grabbed.sequence,
        grabbed.due_ns,
        grabbed.grabbed_ns,
        flags,
        *drops,
    )


def unpack_frame(packet: bytes) -> tuple[Grabbed, int, SourceDrops]:
    """The inverse of `pack_frame`: the frame, the ring's number, and the drops so far."""
    _, slot, ring_number, sequence, due_ns, grabbed_ns, flags, *drops = FRAME.unpack(packet)
    grabbed = Grabbed(
        slot,
        sequence,
        due_ns,
        grabbed_ns,
        bool(flags & FLAG_REPEATED),
        bool(flags & FLAG_DISCONTINUITY),
    )
    return grabbed, ring_number, SourceDrops(*drops)


def format_to_json(frame_format: FrameFormat) -> dict[str, Any]:
    """A format as JSON."""
    return {
        "rows": frame_format.rows,
        "columns": frame_format.columns,
        "bits_stored": frame_format.bits_stored,
        "photometric": int(frame_format.photometric),
        "window_center": frame_format.window_center,
        "window_width": frame_format.window_width,
    }


def format_from_json(body: dict[str, Any]) -> FrameFormat:
    """The inverse of `format_to_json`. The source process reads hostile files, so its words are checked.

    Raises:
        ValueError, KeyError, TypeError: Not a format.
    """
    return FrameFormat(
        int(body["rows"]),
        int(body["columns"]),
        int(body["bits_stored"]),
        Photometric(body["photometric"]),
        None if body["window_center"] is None else float(body["window_center"]),
        None if body["window_width"] is None else float(body["window_width"]),
    )


def angles_from_json(opened: dict[str, Any]) -> Angles | None:
    """The angles that a source said when it was opened; None where its header holds none.

    Raises:
        ValueError, TypeError: Not as a source says them.
    """
    said = opened.get("angles_deg")
    if said is None:
        return None
    primary_deg, secondary_deg = (float(angle) for angle in said)
    if not (math.isfinite(primary_deg) and math.isfinite(secondary_deg)):
        raise ValueError("angles that are no numbers")
    return primary_deg, secondary_deg


def send_ring(sock: socket.socket, memory: RingMemory, ring_number: int) -> None:
    """Hand a ring's memory to a child; one that is dead gets nothing, and its successor gets the ring."""
    body = {
        "format": format_to_json(memory.frame_format),
        "slots": len(memory.slots),
        "ring_number": ring_number,
    }
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        socket.send_fds(sock, [pack_json(Kind.RING, body)], [memory.descriptor])


class ChildSocket:
    """A child's end of its socket to the guard.

    Args:
        descriptor: The inherited descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for a packet and the descriptors beside it; an empty packet means that the guard is gone."""
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._socket, MAX_PACKET, 1)
        except ConnectionResetError:  # gone, with packets of ours unread
            return b"", []
        return data, list(descriptors)

    def send(self, packet: bytes) -> None:
        """Send a packet; waits while the guard has many unread."""
        self._socket.send(packet)

    def send_json(self, kind: Kind, body: dict[str, Any]) -> None:
        """Send a packet with a JSON body."""
        self.send(pack_json(kind, body))


def receive_ring(packet: bytes, descriptors: list[int]) -> tuple[RingMemory, int]:
    """Map the ring of a RING packet; also its number."""
    body = unpack_json(packet)
    memory = RingMemory(descriptors[0], format_from_json(body["format"]), int(body["slots"]))
    return memory, int(body["ring_number"])


def become_child() -> None:
    """Begin life as a child of the guard: die with it, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def end_with_any_thread() -> None:
    """End this process when one of its threads fails: it would go on for ever and do half of its work, and a death is seen at once."""

    def end(failed: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(failed)
        os._exit(1)

    threading.excepthook = end


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # A parent that died before the line above sends no signal. It may be process 1 itself, in a container.
    if os.getppid() != int(os.environ.get(PARENT_VARIABLE, os.getppid())):
        os._exit(0)
