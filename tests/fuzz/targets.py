"""What is fuzzed: where bytes from outside are read, with real messages to begin from, and what reading them may raise.

Anything else that is raised, a hang of ten seconds, and memory without bound are faults.
"""

import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.pages import Pages

from stream.errors import RecordError, SourceError, WireError
from stream.frame import FrameFormat, Plane, Reason, Spacing, SpacingPlace, State
from stream.ring import RingMemory
from stream.wire import Header, pack_header, pack_status, unpack, unpack_status

FORMAT = FrameFormat(64, 80, 12, window_center=2000.0, window_width=3000.0)


@dataclass(frozen=True)
class Target:
    """One place where bytes come in."""

    name: str
    what: str
    seeds: Callable[[], list[bytes]]
    """Real messages, to begin from."""
    make: Callable[[], Callable[[bytes], None]]
    """Makes what takes one input; it raises for a fault."""


# Messages -------------------------------------------------------------------------------------------------------


def message(state: State = State.SYNTHETIC, **more: Any) -> bytes:
    """A frame as the publisher sends it."""
    memory = RingMemory.create(FORMAT, 1)
    slot = memory.slots[0]
    slot.live[:] = np.arange(64 * 80).reshape(64, 80) % 4096
    slot.synthetic[:] = slot.live
    slot.attention[:] = 0
    header = Header(
        stream=b"s" * 16,
        sequence=7,
        publication=5,
        frame_format=FORMAT,
        state=state,
        reason=Reason.NONE if state is State.SYNTHETIC else Reason.DEADLINE,
        planes=Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION if state is State.SYNTHETIC else Plane.LIVE,
        generation=3,
        stamps_ns=(1, 2, 3, 4, 5),
        rate_hz=15.0,
        publisher_pid=9,
        **more,
    )
    length = pack_header(slot.bytes, header, memory.layout)
    whole = bytes(slot.bytes[:length])
    memory.close()
    return whole


def frame_seeds() -> list[bytes]:
    """Frames with all planes, with the live one alone, and with a spacing."""
    return [message(), message(State.PASSTHROUGH), message(spacing=Spacing(0.2, 0.3, SpacingPlace.ISOCENTRE))]


def take_frame() -> Callable[[bytes], None]:
    """A subscriber reads a frame and looks at every pixel."""

    def take(data: bytes) -> None:
        with contextlib.suppress(WireError):
            found = unpack(data)
            for plane in found.planes.values():
                int(plane.sum())

    return take


def status() -> dict[str, Any]:
    """A heartbeat as `Pipeline.status` makes it."""
    return {
        "pid": 7, "stream": "73" * 16, "stamp_ns": 5, "state": "SYNTHETIC", "state_code": 1, "reason": "none", "reason_code": 0,
        "age_ms": 3.0, "source": {"kind": "device", "rate_hz": 15.0, "live": True, "frame_count": None, "notes": ["a"]},
        "faults": {"spec": "drop=0.1", "seed": 0, "begun": []}, "domain": {"score": 0.1, "threshold": 1.0, "out": False},
        "engine": {"backend": "openvino", "precision": "bf16", "model_sha256": "0" * 64, "inference_ms": 5.0, "taught": True,
                   "skipped": [["tensorrt", "not here"]]},
        "engine_why": None, "source_why": None, "gpu": {"name": "G", "throttle": ["idle"], "temperature_c": 50.0}, "gpu_why": None,
        "engine_restarts": 0, "source_restarts": 0, "fps_in": 15.0, "fps_out": 15.0,
        "counters": {"due": 9, "waiting": 0, "grabbed": 9, "published": 9, "synthetic": 9, "passthrough": {"starting": 1},
                     "unchanged": 0, "repeated": 0, "dropped": {"ring_full": 1}, "late_results": 0, "passed_over": 0},
        "latency_ms": {"n": 9, "p50": 1.0, "p95": 2.0, "p99": None, "max": 3.0}, "clients": {"subscribers": 1},
        "audit": {"head": "00"}, "ended": False,
    }  # fmt: skip


def take_status() -> Callable[[bytes], None]:
    """A viewer and a subscriber take in a heartbeat."""
    from stream.display.relay import heartbeat_figures
    from stream.subscribe import Subscriber

    subscriber = Subscriber("ipc:///tmp/contrastream-fuzz-nobody")
    subscriber._heard_ns = 10**18

    def take(data: bytes) -> None:
        try:
            said = unpack_status(data)
        except WireError:
            return
        json.dumps(heartbeat_figures(said))
        for latest in (None, unpack(message())):
            subscriber.status, subscriber.latest = said, latest
            subscriber.shown_state(10**18)

    return take


def packet_seeds() -> list[bytes]:
    """Packets of the source and of the engine."""
    from stream.control import DONE, LEASE, Kind, SourceDrops, format_to_json, pack_frame, pack_json
    from stream.outgoing import Grabbed

    return [
        pack_frame(Grabbed(1, 2, 3, 4), 1, SourceDrops()),
        pack_json(Kind.FORMAT, format_to_json(FORMAT)),
        LEASE.pack(Kind.LEASE, 1, 2, 0),
        DONE.pack(Kind.DONE, 1, 2, 3, 4, 1, 0.0, 1.0, 0.5, 0.1, 0.2, 0.3, 0),
    ]


def take_packet() -> Callable[[bytes], None]:
    """The guard reads what a child sent; what is malformed there is named in `stream/engine_side.py`."""
    from stream.control import DONE, format_from_json, unpack_frame, unpack_json
    from stream.engine_side import MALFORMED

    def take(data: bytes) -> None:
        for read in (unpack_frame, lambda packet: format_from_json(unpack_json(packet)), DONE.unpack):
            with contextlib.suppress(*MALFORMED):
                read(data)

    return take


def igtl_seeds() -> list[bytes]:
    """An image with a spacing, and a status."""
    from stream.igtl.message import OK, image_body, pack, status_body

    plane = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    return [
        pack("IMAGE", "Live", 1.5, image_body(plane, (0.2, 0.3))),
        pack("IMAGE", "Live", 1.5, image_body(plane.astype(np.uint8), None)),
        pack("STATUS", "Status", 1.5, status_body(OK, "OK", "live")),
    ]


def take_igtl() -> Callable[[bytes], None]:
    """A source reads a server's message; its CRC is taken as right, since a peer can compute it."""
    from stream.igtl.message import HEADER, read_image, unpack_head

    def take(data: bytes) -> None:
        if len(data) < HEADER.size:
            return
        with contextlib.suppress(WireError):
            head = unpack_head(data[: HEADER.size])
            plane, _spacing = read_image(head, data[HEADER.size :])
            int(plane.sum())

    return take


# Files ----------------------------------------------------------------------------------------------------------


def dicom(jpeg: bool = False, **elements: Any) -> bytes:
    """A small XA file with everything that is read of a header."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, XRayAngiographicImageStorage

    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = XRayAngiographicImageStorage, "1.2.3"
    data.Modality, data.NumberOfFrames, data.FrameTime = "XA", "2", 33.0
    data.FrameTimeVector = [0.0, 33.0]
    data.Rows = data.Columns = 64
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.WindowCenter, data.WindowWidth = "128", "256"
    data.RescaleSlope, data.RescaleIntercept = "1", "0"
    data.ImagerPixelSpacing, data.DistanceSourceToDetector = ["0.2", "0.2"], "1000"
    data.Manufacturer = "Maker"
    item = Dataset()
    item.FrameVOILUTSequence = Sequence([Dataset()])
    item.FrameVOILUTSequence[0].WindowCenter, item.FrameVOILUTSequence[0].WindowWidth = "100", "200"
    data.SharedFunctionalGroupsSequence = Sequence([item])
    for name, value in elements.items():
        setattr(data, name, value)
    if jpeg:
        coded = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x40\x00\x40\x01\x01\x11\x00\xff\xd9\0"
        data.PixelData = (
            b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0"
            + struct.pack("<I", len(coded))
            + coded
            + b"\xfe\xff\xdd\xe0\0\0\0\0"
        )
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    else:
        data.PixelData = bytes(2 * 64 * 64)
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def dicom_seeds() -> list[bytes]:
    """Raw and encapsulated pixels; a deflated one as pydicom writes it."""
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    deflated = dcmread(BytesIO(dicom()))
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = BytesIO()
    deflated.save_as(file, enforce_file_format=True)
    return [dicom(), dicom(jpeg=True), dicom(PixelRepresentation=1), file.getvalue()]


def take_dicom() -> Callable[[bytes], None]:
    """The source process opens a file and reads one frame, where the codec is pydicom's or none."""
    from stream.sources.cine import CineSource
    from stream.sources.options import SourceOptions

    path = _file("fuzz.dcm")
    options = SourceOptions(rate_hz=15.0)

    def take(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(SourceError):
            source = CineSource(path, options)
            try:
                source.read(np.empty((source.format.rows, source.format.columns), source.format.dtype))
            finally:
                source.close()

    return take


def picture_seeds() -> list[bytes]:
    """One picture in each format that is told apart."""
    import cv2

    plane = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    kinds = (".png", ".jpg", ".bmp", ".tif", ".jp2")
    return [cv2.imencode(kind, plane)[1].tobytes() for kind in kinds if cv2.haveImageWriter(kind)]


def take_picture() -> Callable[[bytes], None]:
    """What a picture's own header claims, read before any codec sees it."""
    from stream.sources.codestream import picture_of

    def take(data: bytes) -> None:
        with contextlib.suppress(SourceError):
            picture_of(data)

    return take


def site_seeds() -> list[bytes]:
    """A record with a geometry and an engine's precision as `calib` writes it, and one by hand."""
    from calib.record import SCHEMA, ModelIdentity, SiteRecord, SourceIdentity
    from calib.record_text import write_toml
    from calib.results import Box, EngineDifference, GeometryResult, PixelSpacing, PrecisionResult

    source = SourceIdentity("device", 256, 256, 8, "MONOCHROME2", "a card")
    model = ModelIdentity("compact", "ab" * 32)
    corners = ((128.0, 0.0), (256.0, 0.0), (256.0, 256.0), (128.0, 256.0))
    geometry = GeometryResult(
        True, 9, 0.5, 4.0, "px", ("A sentence.",), 256, 256, "rectangle", corners, None, 0.5, Box(0, 0, 256, 256),
        (Box(8, 4, 100, 20),), 0.0, PixelSpacing(0.2, 0.2, "calibrated object", "a grid", None, 0.001),
    )  # fmt: skip
    engine = EngineDifference(
        "openvino", "bf16", True, 0.1, 1.0, 4.0, 0.1, 1.0, 9.0, 0.99, None, None, True, 3, 10.5
    )
    precision = PrecisionResult(
        True, 40, 1.0, 2.0, "grey levels", ("All is well.",), "openvino f32", "bf16", (engine,), ""
    )
    record = SiteRecord(
        SCHEMA, "2026-01-02T03:04:05+00:00", "0.1.0", source, model, geometry, precision=precision
    )
    return [write_toml(record, "").encode(), b'schema = "contrastream.site/1"\n[source]\nkind = "device"\n']


def take_site() -> Callable[[bytes], None]:
    """`run --site` reads a record."""
    from calib.errors import CalibrationError
    from calib.record import read_record

    path = _file("fuzz.toml")

    def take(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(CalibrationError):
            read_record(path)

    return take


def patient_seeds() -> list[bytes]:
    """A small adaptation's file, and a table alone."""
    from calib.patient_facts import FORMAT, PatientFacts, facts_text

    facts = facts_text(PatientFacts("a" * 64, "b" * 32, "c" * 64, "10:15", 90, 4.0, 0.8, 0.6, -30.0, 20.0))
    sizes = {
        "delta.predictor.x": ("F16", [2], 4),
        "gate.centre": ("F32", [71], 284),
        "gate.axes": ("F32", [1, 71], 284),
    }
    table: dict[str, Any] = {"__metadata__": {"format": FORMAT, "facts": facts, "gate_limit": "1.5"}}
    at = 0
    for name, (kind, shape, size) in sizes.items():
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(table).encode()
    return [len(text).to_bytes(8, "little") + text + bytes(at), (2).to_bytes(8, "little") + b"{}"]


def take_patient() -> Callable[[bytes], None]:
    """`run --patient` reads an adaptation."""
    from casgan.errors import CheckpointError
    from casgan.patient_weights import read_patient

    path = _file("fuzz.safetensors")

    def take(data: bytes) -> None:
        path.write_bytes(data)
        with path.open("rb") as file, contextlib.suppress(CheckpointError):
            read_patient(file.fileno(), "fuzz")

    return take


def capture_seeds() -> list[bytes]:
    """A recording of two frames with an engine, a stop and its end."""
    from stream.record.capture import CaptureWriter

    path = _file("seed.capture")
    writer = CaptureWriter(path)
    writer.add(unpack(message()), 5)
    writer.add_engine(
        {"backend": "openvino", "precision": "bf16", "model_sha256": "0" * 64, "taught": True},
        6,
        stream="00" * 16,
    )
    writer.add(unpack(message(State.PASSTHROUGH)), 7)
    writer.add_stop(State.STALE, 600.0, 8)
    writer.finish(9)
    return [path.read_bytes()]


def take_capture() -> Callable[[bytes], None]:
    """`record CAPTURE OUT` reads what a killed recorder left."""
    from stream.record.arrays import about
    from stream.record.capture import Capture
    from stream.record.segment import segments

    path = _file("fuzz.capture")

    def take(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(RecordError):
            for segment in segments(Capture(path)):
                json.dumps(about(segment), allow_nan=False)

    return take


# A browser ------------------------------------------------------------------------------------------------------


def take_websocket() -> Callable[[bytes], None]:
    """What a page says over its WebSocket; `stream/display/web.py` closes it for these errors."""
    from stream.display.relay import Viewer
    from stream.display.shown import ShownLog

    def take(data: bytes) -> None:
        log = ShownLog()
        viewer = Viewer(log)
        with contextlib.suppress(ValueError, KeyError, RuntimeError):
            for text in data.decode("utf-8", "replace").split("\n"):
                viewer.asked(text, 1)
        # As `Viewer.serve` answers them.
        for pong in viewer._pongs:
            log.ponged(1, float(pong["sent_ms"]), pong["received_ns"], 2)
            json.dumps(pong)

    return take


WEBSOCKET = [
    b'{"type": "ping", "sent_ms": 1.5}\n{"type": "next", "back": [1.5, 2.5, 0.1]}',
    b'{"type": "next", "publication": 3, "shown_ms": 2.5}',
]


def _file(name: str) -> Path:
    """A file in memory, of this process alone."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    made = Path(tempfile.mkdtemp(prefix="contrastream-fuzz-", dir=folder))
    return made / name


TARGETS = (
    Target("wire", "a frame's message at a subscriber (stream/wire.py)", frame_seeds, take_frame),
    Target("status", "a heartbeat at a viewer", lambda: [pack_status(status())], take_status),
    Target("packets", "a child's packets at the guard (stream/control.py)", packet_seeds, take_packet),
    Target("igtl", "an OpenIGTLink server's messages", igtl_seeds, take_igtl),
    Target("dicom", "a DICOM file's header and first frame", dicom_seeds, take_dicom),
    Target("picture", "an image's header before its codec", picture_seeds, take_picture),
    Target("site", "a site's record (site.toml)", site_seeds, take_site),
    Target("patient", "a patient's adaptation (patient.safetensors)", patient_seeds, take_patient),
    Target("capture", "what a killed recorder left", capture_seeds, take_capture),
    Target(
        "http", "requests to the web viewer, with and without its cookie", Pages.seeds, lambda: Pages().take
    ),
    Target("websocket", "what a page says over its WebSocket", lambda: WEBSOCKET, take_websocket),
)
