"""The message: one frame, one single-part ZeroMQ message. Everything a client in another language needs.

All numbers are little-endian. A message is a fixed core, then extensions, then planes.

Core, 192 bytes:

    offset  type    field
         0  8 bytes magic, the ASCII letters CNTRSTRM
         8  u16     major version; a reader refuses every other one
        10  u16     minor version; a reader accepts every one
        12  u16     core length in bytes (192; a later minor version may be longer: skip to it, and on to the
                    next multiple of 8)
        14  u16     header length in bytes: core and extensions together
        16  16 byte stream: random, made anew when a publisher starts
        32  u64     sequence: the source's number of this frame; counts repeats and drops too
        40  u64     publication: counts this publisher's messages one by one, so a gap is a loss
        48  u64     generation: how often the slot this frame lay in has been written
        56  5 x u64 stamps in ns of CLOCK_MONOTONIC of the publisher's host: due, grabbed, submitted,
                    inferred, published; 0 where the frame did not pass that stage
        96  u32     rows
       100  u32     columns
       104  u8      bits stored, 8 to 16; planes have 1 byte a sample for 8 bits, else 2
       105  u8      photometric interpretation: 1 MONOCHROME1, 2 MONOCHROME2
       106  u8      state: 1 synthetic, 2 passthrough, 3 unchanged, 4 stale
       107  u8      reason of a passthrough: 0 none, 1 starting, 2 deadline, 3 engine_lost, 4 out_of_domain,
                    5 output_invalid, 6 untaught, 7 off
       108  u8      plane mask: 1 live, 2 synthetic, 4 attention
       109  u8      flags: 1 the CRCs are valid; 2 burned-in text is not masked (no site calibration);
                    4 the first frame after a gap in the source's time; 8 faults are injected (`--fault`): a test,
                    and a viewer must say so
       110  u16     number of extensions
       112  u32     age in ms: for how long the source has held this image (state 3)
       116  3 x u32 CRC-32 (zlib) of the live, synthetic and attention plane; 0 where absent
       128  6 x u64 offset and length in bytes of the live, synthetic and attention plane from the start of
                    the message; 0, 0 where absent. Offsets are multiples of 64
       176  u64     publisher's process id
       184  8 bytes 0

Extensions follow the core, each starting at a multiple of 8: u16 type, u16 0, u32 payload length, payload,
then zeros to the next multiple of 8. A reader skips the types it does not know.

    type 1   window: f64 centre, f64 width, in stored pixel values
    type 2   source rate: f64 frames per second, intended; 0 where unknown
    type 3   pixel spacing (since version 1.1; absent where unknown): f64 mm from one row to the next, f64 mm from one
             column to the next, u32 where that holds: 1 at the detector (what lies in the patient is smaller), 2 at the
             isocentre, 3 where an object of known size lay; a reader takes other places for unknown
    type 4   patient's adaptation (since version 1.2; absent where the general model drew, or nothing): 16 bytes key, random,
             f64 positioner primary angle of the run that taught it, in degrees, LAO positive, f64 positioner secondary
             angle, cranial positive, each NaN where unknown, u32 minute of the day at which it was taught

Planes: rows x columns samples, row by row, without padding between rows. Live and synthetic are unsigned,
1 or 2 bytes a sample; attention is 1 byte, 255 is wholly synthetic. Where attention is 0, synthetic equals
live bit for bit. Live carries the source's pixels unchanged.

`contrastream run` prints a stream's endpoint. Of `ipc:///path` the frames are at `ipc:///path.frames` and the heartbeat at
`ipc:///path.status`; of `tcp://host:port` the frames are at that port and the heartbeat at the next.

The status endpoint's messages are one part of UTF-8 JSON, several times a second: the heartbeat. They are on
an endpoint of their own since a heartbeat on a socket with CONFLATE would replace an unread frame.
Of the GPU they say

    gpu      null, or what was read last, at most 5 s ago: name, driver, sm_mhz, sm_max_mhz, memory_mhz,
             temperature_c, power_w, power_limit_w, busy_percent, memory_used_mib, memory_total_mib, throttle
             (why the clocks are down, a list of words); each of them null where this GPU does not tell
    gpu_why  null, or why gpu is: the engine runs on the CPU, no driver, the GPU is lost and so on

of the time of the frames that went out SYNTHETIC or PASSTHROUGH, since the publisher's start (stream/histograms.py)

    histograms  buckets_ms, upper bounds; stages, an object with by name counts (frames in each bucket, the last one above
                all bounds) and sum_ms. published is from due to published, the others are the stages of the reports

of a patient's adaptation (stream/adaptation.py)

    adaptation  null where none is asked for, or: words, as a viewer says it; key; adapted_sha256, of the adapted model; ready_ms,
                what it took to make it ready; these four null before it is; next, whether another is being made ready
                beside it; draws, whether it draws the next frame; why_general, why it does not; failure, why the one asked for
                last cannot be had; distance of the newest frame from the taught projection, and its limit, null without

and of the audit log (stream/audit_chain.py)

    audit    null where none is kept, or: head, the newest written entry's mac, 64 hexadecimal digits; entries, its number;
             lost, entries that could not be written so far; why, null or why none can be written now. Whoever keeps a
             head elsewhere can show later that nothing up to it was removed: contrastream audit verify --head
"""

import functools
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream import extensions
from stream.errors import WireError
from stream.frame import ALL_PLANES, FrameFormat, Photometric, Plane, Reason, Spacing, State, aligned
from stream.timing import Stage

MAGIC = b"CNTRSTRM"
MAJOR = 1
MINOR = 2
CORE = struct.Struct("<8s4H16s3Q5Q2I6BHI3I6QQ8x")
FLAG_CRC = 1
FLAG_UNMASKED_TEXT = 2
FLAG_DISCONTINUITY = 4
FLAG_FAULTS = 8
HEADER_ROOM = 512
"""Bytes a ring slot keeps for the header; a multiple of the planes' alignment."""
SLOT_GENERATION_AT = HEADER_ROOM - 8
"""Where in a slot its generation stands for readers of the memory (`stream/memory_door.py`). No header reaches so far,
and it says nothing in a message."""
PLANES = (Plane.LIVE, Plane.SYNTHETIC, Plane.ATTENTION)
MEASURING = b"contrastream.measure"
"""A measuring client also subscribes to this, with which no message begins: so the publisher knows that it is there."""
STATUS_SCHEMA = "contrastream.status/1"

assert CORE.size == 192


@dataclass(frozen=True)
class Layout:
    """Where the planes of one format lie in a slot, which is where they lie in a message."""

    live: int
    synthetic: int
    attention: int
    size: int
    """Bytes of a slot."""

    @classmethod
    def of(cls, frame_format: FrameFormat) -> "Layout":
        """The layout of a format: header room, live, synthetic, attention, each at a multiple of 64."""
        live = HEADER_ROOM
        synthetic = live + aligned(frame_format.plane_bytes(Plane.LIVE))
        attention = synthetic + aligned(frame_format.plane_bytes(Plane.SYNTHETIC))
        return cls(live, synthetic, attention, attention + aligned(frame_format.plane_bytes(Plane.ATTENTION)))

    def offset(self, plane: Plane) -> int:
        """Where `plane` starts, in bytes from the start of the slot."""
        return {Plane.LIVE: self.live, Plane.SYNTHETIC: self.synthetic, Plane.ATTENTION: self.attention}[
            plane
        ]

    def message_bytes(self, frame_format: FrameFormat, planes: Plane) -> int:
        """Bytes from the start of a slot to the end of the last plane in `planes`."""
        last = max(plane for plane in PLANES if plane in planes)
        return self.offset(last) + frame_format.plane_bytes(last)


@dataclass
class Header:
    """What a message says of its frame."""

    stream: bytes
    sequence: int
    publication: int
    frame_format: FrameFormat
    state: State
    reason: Reason = Reason.NONE
    planes: Plane = Plane.LIVE
    generation: int = 0
    stamps_ns: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Due, grabbed, submitted, inferred, published; 0 where not passed."""
    age_ms: int = 0
    unmasked_text: bool = True
    discontinuity: bool = False
    faults_injected: bool = False
    """A test with `--fault`, never a room."""
    rate_hz: float = 0.0
    publisher_pid: int = 0
    crc: tuple[int, int, int] | None = None
    """CRC-32 of live, synthetic, attention; None where the publisher sends none."""
    spacing: Spacing | None = None
    """How large a pixel is; None where nobody knows."""
    adaptation: extensions.Adaptation | None = None
    """Which patient's adaptation drew; None where the general model did, or nothing was drawn."""

    def stamp_ns(self, stage: Stage) -> int:
        """The stamp of a stage that is on the wire; 0 where the frame did not pass it."""
        return self.stamps_ns[stage]


@dataclass
class Message:
    """A received frame. The planes are read-only views into the message's own bytes; nothing is copied."""

    header: Header
    live: np.ndarray
    synthetic: np.ndarray | None = None
    attention: np.ndarray | None = None
    raw: Any = field(default=None, repr=False)
    """The message's bytes, which the planes look into."""

    @property
    def planes(self) -> dict[Plane, np.ndarray]:
        """The planes that came."""
        named = {
            Plane.LIVE: self.live,
            Plane.SYNTHETIC: self.synthetic,
            Plane.ATTENTION: self.attention,
        }
        return {plane: array for plane, array in named.items() if array is not None}


def pack_header(slot: memoryview, header: Header, layout: Layout) -> int:
    """Write a header into the head of a slot.

    Args:
        slot: The slot's bytes, writable, at least `HEADER_ROOM` long.
        header: What to write. Its planes lie in the slot as `layout` says.
        layout: The slot's layout.

    Returns:
        The length of the message in bytes: slot[:length] is what is sent.
    """
    frame_format = header.frame_format
    said, count = extensions.packed(frame_format, header.rate_hz, header.spacing, header.adaptation)
    end = CORE.size + len(said)
    slot[CORE.size : end] = said
    table, length = _places(layout, frame_format, int(header.planes))
    flags = (
        (FLAG_CRC if header.crc is not None else 0)
        | (FLAG_UNMASKED_TEXT if header.unmasked_text else 0)
        | (FLAG_DISCONTINUITY if header.discontinuity else 0)
        | (FLAG_FAULTS if header.faults_injected else 0)
    )
    CORE.pack_into(
        slot,
        0,
        MAGIC,
        MAJOR,
        MINOR,
        CORE.size,
        end,
        header.stream,
        header.sequence,
        header.publication,
        header.generation,
        *header.stamps_ns,
        frame_format.rows,
        frame_format.columns,
        frame_format.bits_stored,
        frame_format.photometric,
        header.state,
        header.reason,
        header.planes,
        flags,
        count,
        header.age_ms,
        *(header.crc or (0, 0, 0)),
        *table,
        header.publisher_pid,
    )
    return length


@functools.lru_cache(maxsize=16)
def _places(layout: Layout, frame_format: FrameFormat, planes: int) -> tuple[tuple[int, ...], int]:
    """Offset and bytes of each plane, 0 for one that is not sent, and the length of the message; alike for every frame."""
    sent = Plane(planes)
    table: list[int] = []
    for plane in PLANES:
        table += [layout.offset(plane), frame_format.plane_bytes(plane)] if plane in sent else [0, 0]
    return tuple(table), layout.message_bytes(frame_format, sent)


def plane_crcs(
    slot: memoryview, frame_format: FrameFormat, planes: Plane, layout: Layout
) -> tuple[int, int, int]:
    """CRC-32 of each plane in `planes` as it lies in a slot; 0 for the others."""
    crcs = [
        zlib.crc32(slot[layout.offset(plane) : layout.offset(plane) + frame_format.plane_bytes(plane)])
        if plane in planes
        else 0
        for plane in PLANES
    ]
    return crcs[0], crcs[1], crcs[2]


def unpack(data: bytes | bytearray | memoryview, *, check_crc: bool = True) -> Message:
    """Read a message. Every length and enumeration is checked before it is used.

    Args:
        data: The message as received; the planes of the result look into it.
        check_crc: Compare the planes with their CRCs where the message carries them.

    Raises:
        WireError: Not a message of ours, another major version, cut off, inconsistent, or a CRC differs.
    """
    view = memoryview(data).cast("B") if not isinstance(data, memoryview) or data.format != "B" else data
    if len(view) < CORE.size:
        raise WireError(
            f"a message has at least {CORE.size} bytes, got {len(view)}; is this a frames endpoint?"
        )
    if bytes(view[:8]) != MAGIC:
        raise WireError(
            f"a message starts with {MAGIC!r}, got {bytes(view[:8])!r}; is this a frames endpoint?"
        )
    # fmt: off
    (_, major, _minor, core_bytes, header_bytes, stream, sequence, publication, generation,
     due, grabbed, submitted, inferred, published, rows, columns, bits_stored, photometric, state, reason,
     mask, flags, extension_count, age_ms, crc_live, crc_synthetic, crc_attention,
     *table, publisher_pid) = CORE.unpack_from(view)
    # fmt: on
    if major != MAJOR:
        raise WireError(f"needed a message of version {MAJOR}.x, got {major}; update the older side")
    if not CORE.size <= core_bytes <= header_bytes <= len(view):
        raise WireError(
            f"header lengths do not fit: core {core_bytes}, header {header_bytes}, message {len(view)} bytes"
        )
    said = extensions.read(view, core_bytes, header_bytes, extension_count)
    try:
        frame_format = FrameFormat(
            rows, columns, bits_stored, Photometric(photometric), said.window_center, said.window_width
        )
        header = Header(
            stream=stream,
            sequence=sequence,
            publication=publication,
            frame_format=frame_format,
            state=_wire_state(state),
            reason=Reason(reason),
            planes=_plane_mask(mask),
            generation=generation,
            stamps_ns=(due, grabbed, submitted, inferred, published),
            age_ms=age_ms,
            unmasked_text=bool(flags & FLAG_UNMASKED_TEXT),
            discontinuity=bool(flags & FLAG_DISCONTINUITY),
            faults_injected=bool(flags & FLAG_FAULTS),
            rate_hz=said.rate_hz,
            publisher_pid=publisher_pid,
            crc=(crc_live, crc_synthetic, crc_attention) if flags & FLAG_CRC else None,
            spacing=said.spacing,
            adaptation=said.adaptation,
        )
    except ValueError as error:
        raise WireError(f"the header holds a value that is not allowed: {error}") from error
    if header.state is State.SYNTHETIC and header.planes != ALL_PLANES:
        raise WireError(
            f"a SYNTHETIC frame carries live, synthetic and attention, got planes {int(header.planes)}"
        )
    arrays = [
        _read_plane(view, frame_format, plane, table[2 * index], table[2 * index + 1], header_bytes)
        if plane in header.planes
        else None
        for index, plane in enumerate(PLANES)
    ]
    if check_crc and header.crc is not None:
        for plane, array, expected in zip(PLANES, arrays, header.crc, strict=True):
            if array is not None and (got := zlib.crc32(array.data)) != expected:
                raise WireError(
                    f"frame {sequence}: the {plane.name} plane's CRC-32 must be {expected:08x}, got {got:08x}"
                )
    live, synthetic, attention = arrays
    assert live is not None  # _plane_mask refuses a message without it
    return Message(header, live, synthetic, attention, raw=data)


def _wire_state(code: int) -> State:
    state = State(code)
    if state is State.NO_SIGNAL:
        raise ValueError("NO_SIGNAL is found by a client and never sent")
    return state


def _plane_mask(mask: int) -> Plane:
    if mask & ~int(ALL_PLANES) or not mask & Plane.LIVE:
        raise ValueError(f"a plane mask holds live and at most synthetic and attention, got {mask:#x}")
    return Plane(mask)


def _read_plane(
    view: memoryview, frame_format: FrameFormat, plane: Plane, offset: int, length: int, header_bytes: int
) -> np.ndarray:
    needed = frame_format.plane_bytes(plane)
    if length != needed or offset < header_bytes or offset % 64 or offset + length > len(view):
        raise WireError(
            f"the {plane.name} plane of {frame_format.rows}x{frame_format.columns} must be {needed} bytes inside "
            f"the message of {len(view)} bytes, got {length} bytes at offset {offset}"
        )
    dtype = np.dtype(np.uint8) if plane is Plane.ATTENTION else frame_format.dtype
    array = np.frombuffer(view, dtype, frame_format.pixels, offset).reshape(
        frame_format.rows, frame_format.columns
    )
    array.flags.writeable = False
    return array


def pack_status(status: dict[str, Any]) -> bytes:
    """A heartbeat: UTF-8 JSON with its schema's name."""
    return json.dumps({"schema": STATUS_SCHEMA, **status}, separators=(",", ":")).encode()


def unpack_status(data: bytes) -> dict[str, Any]:
    """Read a heartbeat.

    Raises:
        WireError: Not JSON, of another schema, or with a state, reason or age that is none.
    """
    try:
        status = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a status message is JSON, got {data[:40]!r}") from error
    if not isinstance(status, dict) or status.get("schema") != STATUS_SCHEMA:
        raise WireError(f"a status message has the schema {STATUS_SCHEMA}, got {data[:60]!r}")
    try:
        _wire_state(status.get("state_code", State.PASSTHROUGH))
        Reason(status.get("reason_code", Reason.NONE))
        float(status.get("age_ms", 0.0))
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(
            f"a status message holds a state, reason or age that is not allowed: {error}"
        ) from error
    return status
