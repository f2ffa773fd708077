"""Capture devices, on described capabilities: no device is here, and none of this is a run on hardware.

`DescribedCard` answers as OpenCV's V4L2 backend does for a device with the modes of `devices/*.json`, and delivers
pictures in the layouts that this backend delivers with CAP_PROP_CONVERT_RGB off.
"""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.errors import SourceError
from stream.sources import device, negotiation, v4l2
from stream.sources.device import DeviceSource, limited_range_table, open_device
from stream.sources.negotiation import FORMATS, check_rows, describe, negotiate
from stream.sources.open import open_source
from stream.sources.options import SourceOptions
from stream.sources.source import FormatChanged
from stream.sources.v4l2 import DeviceFormat, parse_capability, parse_format
from stream.timing import FakeClock

pytestmark = pytest.mark.hardware

DEVICES = Path(__file__).parent / "devices"
PLAIN = SourceOptions()


def fourcc(name: str) -> int:
    return int.from_bytes(name.encode(), "little")


class DescribedCard:
    """The part of `cv2.VideoCapture` that is used, over described modes."""

    def __init__(self, name: str, clock: FakeClock | None = None) -> None:
        described = json.loads((DEVICES / f"{name}.json").read_text())
        self.modes = described["modes"]
        found = described["found"]
        self.mode = self._nearest(found["fourcc"], found["columns"], found["rows"])
        self.size = (640, 480)  # what OpenCV asks for when nobody asks
        self.rate_hz = self.mode["rates_hz"][0]
        self.converts = True
        self.buffers = 4
        self.clock = clock or FakeClock()
        self.period_ms = 1000 / self.rate_hz
        self.stamp_ms: float | None = None
        self.frames: list[np.ndarray] = []
        self.stamp_offset_ms = -3.0
        self.released = 0
        self.settled = DeviceFormat(
            self.mode["columns"],
            self.mode["rows"],
            self.mode["fourcc"],
            described.get("fields"),
            0,
            described.get("luma"),
        )

    def _nearest(self, name: str, columns: int, rows: int) -> dict:
        known = [mode for mode in self.modes if mode["fourcc"] == name] or self.modes
        return min(known, key=lambda mode: abs(mode["columns"] - columns) + abs(mode["rows"] - rows))

    def set(self, property_id: int, value: float, /) -> bool:
        match property_id:
            case cv2.CAP_PROP_CONVERT_RGB:
                self.converts = bool(value)
            case cv2.CAP_PROP_FOURCC:
                name = int(value).to_bytes(4, "little").decode()
                if name not in {mode["fourcc"] for mode in self.modes}:
                    return False
                self.mode = self._nearest(name, *self.size)
            case cv2.CAP_PROP_FRAME_WIDTH:
                self.size = (int(value), 0)
            case cv2.CAP_PROP_FRAME_HEIGHT:
                self.size = (self.size[0], int(value))
                self.mode = self._nearest(self.mode["fourcc"], *self.size)
            case cv2.CAP_PROP_FPS:
                below = [rate for rate in self.mode["rates_hz"] if rate <= value + 0.5]
                self.rate_hz = max(below) if below else min(self.mode["rates_hz"])
                self.period_ms = 1000 / self.rate_hz
            case cv2.CAP_PROP_BUFFERSIZE:
                self.buffers = int(value)
            case _:
                raise AssertionError(f"an unknown property {property_id} is set")
        return True

    def get(self, property_id: int, /) -> float:
        match property_id:
            case cv2.CAP_PROP_FOURCC:
                return float(fourcc(self.mode["fourcc"]))
            case cv2.CAP_PROP_FRAME_WIDTH:
                return float(self.mode["columns"])
            case cv2.CAP_PROP_FRAME_HEIGHT:
                return float(self.mode["rows"])
            case cv2.CAP_PROP_FPS:
                return float(self.rate_hz)
            case cv2.CAP_PROP_POS_MSEC:
                return self.stamp_ms or 0.0
            case _:
                raise AssertionError(f"an unknown property {property_id} is asked for")

    def grab(self) -> bool:
        if not self.frames:
            return False
        self.clock.advance_ms(self.period_ms)
        self.stamp_ms = self.clock.now_ns() / 1e6 + self.stamp_offset_ms
        return True

    def retrieve(self, image: np.ndarray | None = None) -> tuple[bool, np.ndarray | None]:
        frame = self.frames.pop(0)
        if image is not None and image.shape == frame.shape:
            np.copyto(image, frame)
            return True, image
        return True, frame.copy()

    def release(self) -> None:
        self.released += 1


def opened(card: DescribedCard, options: SourceOptions = PLAIN) -> DeviceSource:
    """What `open_device` does, on a described card."""
    mode = negotiate(card, options, card.settled)
    return DeviceSource(card, mode, options, path="/dev/video0", settled=card.settled, clock=card.clock)


def test_the_stand_in_speaks_of_properties_that_opencv_has():
    for module in (device, negotiation):
        text = Path(module.__file__).read_text()
        used = {
            word.split("cv2.")[1]
            for word in text.replace("(", " ").replace(",", " ").replace(")", " ").split()
            if word.startswith("cv2.CAP_PROP_")
        }
        assert used
        for name in used:
            assert isinstance(getattr(cv2, name), int), name
    assert isinstance(cv2.CAP_V4L2, int)
    for name in ("get", "set", "grab", "retrieve", "release", "isOpened"):
        assert callable(getattr(cv2.VideoCapture, name))


# --- negotiation ---


@pytest.mark.parametrize(
    ("card", "asked", "got"),
    [
        ("hdmi_usb2", {}, ("MJPG", 1920, 1080, 30.0)),
        ("hdmi_usb2", {"width": 640, "height": 480}, ("YUYV", 640, 480, 30.0)),
        ("hdmi_usb2", {"rate_hz": 5.0}, ("YUYV", 1920, 1080, 5.0)),
        ("hdmi_usb2", {"width": 1280, "height": 720, "rate_hz": 60.0}, ("MJPG", 1280, 720, 60.0)),
        ("hdmi_usb3", {}, ("NV12", 1920, 1080, 29.97)),
        ("hdmi_usb3", {"width": 1280, "height": 720}, ("YUYV", 1280, 720, 29.97)),
        ("sdi_pcie", {"rate_hz": 30.0}, ("UYVY", 1920, 1080, 25.0)),
        ("gray_detector", {}, ("GREY", 1024, 1024, 30.0)),
        ("gray_detector", {"rate_hz": 7.5}, ("Y16 ", 1024, 1024, 7.5)),
        ("rgb_only", {"rate_hz": 25.0}, ("BGR3", 720, 576, 25.0)),
    ],
    ids=lambda value: (
        value
        if isinstance(value, str)
        else "-".join(map(str, value.values()))
        if isinstance(value, dict)
        else ""
    ),
)
def test_the_first_format_that_reaches_size_and_rate_is_taken(card, asked, got):
    capture = DescribedCard(card)
    mode = negotiate(capture, SourceOptions(**asked), capture.settled)
    assert (mode.pixels.fourcc, mode.columns, mode.rows, mode.rate_hz) == got
    assert not capture.converts
    assert capture.buffers == 2
    assert capture.mode["fourcc"] == mode.pixels.fourcc  # the card is left in the mode that is told


def test_the_size_a_device_is_found_in_is_kept_when_nobody_asks():
    capture = DescribedCard("hdmi_usb3")
    mode = negotiate(capture, PLAIN, capture.settled)
    assert (mode.columns, mode.rows) == (1920, 1080)


def test_a_size_that_the_device_does_not_have_is_refused():
    capture = DescribedCard("hdmi_usb2")
    with pytest.raises(
        SourceError,
        match=r"offers no picture format that is read here at 1000x1000 pixels .*ask for another --width",
    ):
        negotiate(capture, SourceOptions(width=1000, height=1000), capture.settled)


def test_what_was_negotiated_is_told():
    capture = DescribedCard("hdmi_usb2")
    mode = negotiate(capture, PLAIN, capture.settled)
    notes = describe(mode, PLAIN, None)
    assert notes[0] == "The device delivers 1920x1080 pixels of MJPG at 30 frames per second."
    assert "Its colour (MJPG) is converted: the luma is taken as gray." in notes
    assert not any("expanded" in note for note in notes)


def test_a_rate_below_the_wanted_one_is_told():
    capture = DescribedCard("sdi_pcie")
    notes = describe(negotiate(capture, SourceOptions(rate_hz=50.0), capture.settled), PLAIN, capture.settled)
    assert any("at most 25 frames per second at this size, 50 were wanted" in note for note in notes)


def test_interlacing_is_warned_of():
    capture = DescribedCard("sdi_pcie")
    notes = describe(negotiate(capture, PLAIN, capture.settled), PLAIN, capture.settled)
    assert any("interlaced, top field first: moving edges are combed" in note for note in notes)


def test_padded_rows_are_refused_since_opencv_misreads_them():
    capture = DescribedCard("hdmi_usb3")
    mode = negotiate(capture, SourceOptions(width=1280, height=720), capture.settled)
    check_rows(mode, DeviceFormat(1280, 720, "YUYV", None, 2560, None))
    with pytest.raises(SourceError, match=r"rows must be 2560 bytes, got 2688 \(padded\).*multiple of 64"):
        check_rows(mode, DeviceFormat(1280, 720, "YUYV", None, 2688, None))


# --- frames ---

LIMITED = np.array([16, 17, 125, 126, 235, 0, 255], np.uint8)


def test_limited_range_luma_becomes_full_range():
    table = limited_range_table()
    assert table[LIMITED].tolist() == [0, 1, 127, 128, 255, 0, 255]
    assert np.all(np.diff(table.astype(int)) >= 0)


def picture(rows: int, columns: int) -> np.ndarray:
    row, column = np.ogrid[:rows, :columns]
    return ((row * 7 + column * 3) % 256).astype(np.uint8)


def delivered(luma: np.ndarray, name: str) -> np.ndarray:
    """How OpenCV's V4L2 backend delivers `luma` in a pixel format, with CAP_PROP_CONVERT_RGB off."""
    rows = luma.shape[0]
    chroma = np.full_like(luma, 77)
    match name:
        case "YUYV":
            return np.stack([luma, chroma], axis=-1)
        case "UYVY":
            return np.stack([chroma, luma], axis=-1)
        case "NV12":
            return np.vstack([luma, chroma[: rows // 2]])
        case "MJPG":
            coded = cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
            return coded.reshape(1, -1)
        case "BGR3":
            return np.stack([luma, luma, luma], axis=-1)
        case "Y16 ":
            return luma.astype(np.uint16) * 257
        case _:
            return luma


@pytest.mark.parametrize("crop", [None, (40, 30, 128, 101)], ids=["whole", "cropped"])
@pytest.mark.parametrize(
    ("card", "asked", "name", "limited"),
    [
        ("hdmi_usb2", {}, "MJPG", False),
        ("hdmi_usb2", {"width": 640, "height": 480}, "YUYV", True),
        ("hdmi_usb3", {}, "NV12", True),
        ("sdi_pcie", {}, "UYVY", True),
        ("gray_detector", {}, "GREY", False),
        ("rgb_only", {}, "BGR3", False),
    ],
    ids=["mjpg", "yuyv", "nv12", "uyvy", "grey", "bgr"],
)
def test_the_luma_of_every_layout_lands_in_the_buffer(card, asked, name, limited, crop):
    capture = DescribedCard(card)
    source = opened(capture, SourceOptions(crop=crop, **asked))
    luma = picture(capture.mode["rows"], capture.mode["columns"])
    capture.frames = [delivered(luma, name) for _ in range(2)]
    wanted = limited_range_table()[luma] if limited else luma
    if name == "MJPG":
        wanted = cv2.imdecode(capture.frames[0].reshape(-1), cv2.IMREAD_GRAYSCALE)
    if crop is not None:
        x, y, width, height = crop
        wanted = wanted[y : y + height, x : x + width]
    out = np.empty((source.format.rows, source.format.columns), np.uint8)
    for _ in range(2):
        source.read(out)
        np.testing.assert_array_equal(out, wanted)
        out[:] = 0
    source.close()
    assert capture.released == 1


def test_luma_range_can_be_said_either_way():
    for asked, wanted in (("full", picture(480, 640)), ("limited", limited_range_table()[picture(480, 640)])):
        capture = DescribedCard("hdmi_usb2")
        source = opened(capture, SourceOptions(width=640, height=480, luma=asked))
        capture.frames = [delivered(picture(480, 640), "YUYV")]
        out = np.empty((480, 640), np.uint8)
        source.read(out)
        np.testing.assert_array_equal(out, wanted)
        assert any("16-235 to 0-255 (as asked)" in note for note in source.notes) == (asked == "limited")


def test_the_drivers_word_on_the_luma_range_wins_over_the_formats_default():
    capture = DescribedCard("hdmi_usb3")
    mode = negotiate(capture, PLAIN, capture.settled)
    stated = DeviceFormat(1920, 1080, "NV12", None, 1920, "full")
    assert negotiation.luma_range("auto", mode, stated) == "full"
    assert negotiation.luma_range("auto", mode, None) == "limited"
    assert negotiation.luma_range("limited", mode, stated) == "limited"


def test_sixteen_bit_gray_keeps_its_bits_and_saturates_above_those_that_were_said():
    luma = picture(1024, 1024)
    for bits, maximum in ((None, 65535), (12, 4095)):
        capture = DescribedCard("gray_detector")
        source = opened(capture, SourceOptions(rate_hz=7.5, bits=bits))
        assert source.format.bits_stored == (bits or 16)
        capture.frames = [delivered(luma, "Y16 ")]
        out = np.empty((1024, 1024), np.uint16)
        source.read(out)
        np.testing.assert_array_equal(out, np.minimum(luma.astype(np.uint16) * 257, maximum))


def test_a_crop_outside_the_picture_is_refused():
    with pytest.raises(
        SourceError, match=r"/dev/video0: --crop must lie inside 1920x1080 pixels, got x 1000 to 2080"
    ):
        opened(DescribedCard("hdmi_usb2"), SourceOptions(crop=(1000, 0, 1080, 1080)))


def test_a_picture_too_large_for_a_stream_asks_for_a_crop():
    capture = DescribedCard("hdmi_usb2")
    capture.modes.append({"fourcc": "MJPG", "columns": 3840, "rows": 2160, "rates_hz": [30]})
    with pytest.raises(SourceError, match="got 2160 rows x 3840 columns; crop"):
        opened(capture, SourceOptions(width=3840, height=2160))


# --- stamps, rate, trouble ---


def test_the_drivers_stamp_is_used_where_it_is_of_this_clock():
    capture = DescribedCard("gray_detector")
    source = opened(capture)
    capture.frames = [picture(1024, 1024)]
    frame = source.read(np.empty((1024, 1024), np.uint8))
    assert frame.stamp_ns == pytest.approx(capture.clock.now_ns() - 3_000_000, abs=1000)
    assert source.warnings() == ()
    assert source.live


@pytest.mark.parametrize("offset_ms", [+50.0, -60_000.0, -1e12], ids=["future", "old", "zero or wall clock"])
def test_a_stamp_of_another_clock_is_not_used_and_told(offset_ms):
    capture = DescribedCard("gray_detector", FakeClock(100_000_000_000))
    capture.stamp_offset_ms = offset_ms
    source = opened(capture)
    capture.frames = [picture(1024, 1024)]
    assert source.read(np.empty((1024, 1024), np.uint8)).stamp_ns is None
    assert any("buffer stamps are not of this host's monotonic clock" in text for text in source.warnings())


def run(capture: DescribedCard, source: DeviceSource, frames: int) -> None:
    out = np.empty((source.format.rows, source.format.columns), source.format.dtype)
    frame = delivered(picture(capture.mode["rows"], capture.mode["columns"]), capture.mode["fourcc"])
    for _ in range(frames):
        capture.frames = [frame]
        source.read(out)


def test_a_measured_rate_below_the_one_asked_for_is_a_warning():
    capture = DescribedCard("gray_detector")
    source = opened(capture, SourceOptions(rate_hz=30.0))
    capture.period_ms = 1000 / 6  # the driver says 30 and delivers 6
    run(capture, source, 12)
    assert source.warnings() == ()  # two seconds are not over
    run(capture, source, 2)
    assert any(
        "measured 6.0 frames per second over the first 2 s, needed 30" in text for text in source.warnings()
    )


def test_a_measured_rate_that_is_reached_is_no_warning():
    capture = DescribedCard("gray_detector")
    source = opened(capture, SourceOptions(rate_hz=30.0))
    run(capture, source, 90)
    assert source.warnings() == ()


def test_damaged_jpegs_are_passed_over_and_counted():
    capture = DescribedCard("hdmi_usb2")
    source = opened(capture)
    good = delivered(picture(1080, 1920), "MJPG")
    capture.frames = [good[:, : good.shape[1] // 2], np.zeros((1, 500), np.uint8), good]
    assert source.read(np.empty((1080, 1920), np.uint8)) is not None
    assert any("2 damaged frames were passed over" in text for text in source.warnings())
    capture.frames = [np.zeros((1, 500), np.uint8)] * 40
    with pytest.raises(SourceError, match="/dev/video0: needed whole frames, got 30 damaged ones in a row"):
        source.read(np.empty((1080, 1920), np.uint8))


def test_a_device_that_stops_delivering_is_an_error():
    source = opened(DescribedCard("gray_detector"))
    with pytest.raises(
        SourceError, match="/dev/video0: the device delivers no more frames; check that it is plugged in"
    ):
        source.read(np.empty((1024, 1024), np.uint8))


def test_a_size_that_changes_mid_stream_loses_no_frame():
    capture = DescribedCard("hdmi_usb2")
    source = opened(capture)
    small = picture(480, 640)
    capture.frames = [delivered(picture(1080, 1920), "MJPG"), delivered(small, "MJPG")]
    source.read(np.empty((1080, 1920), np.uint8))
    with pytest.raises(FormatChanged, match="the device now delivers 640x480 pixels"):
        source.read(np.empty((1080, 1920), np.uint8))
    out = np.empty((source.format.rows, source.format.columns), np.uint8)
    assert out.shape == (480, 640)
    assert source.read(out) is not None
    assert np.abs(out.astype(int) - small).max() <= 12


# --- the kernel's words ---


def test_the_formats_reply_is_read_as_linux_lays_it_out():
    pix = struct.pack("<12I", 1920, 1080, fourcc("UYVY"), 8, 3840, 4147200, 1, 0xFEEDCAFE, 0, 0, 2, 0)
    reply = struct.pack("<II", 1, 0) + pix.ljust(200, b"\0")
    assert len(reply) == 208
    assert parse_format(reply) == DeviceFormat(
        1920, 1080, "UYVY", "interlaced, top field first", 3840, "limited"
    )


@pytest.mark.parametrize(("priv", "luma"), [(0xFEEDCAFE, "full"), (0, None)], ids=["stated", "old driver"])
def test_a_luma_range_counts_only_where_the_driver_states_it(priv, luma):
    pix = struct.pack("<12I", 640, 480, fourcc("YUYV"), 1, 1280, 614400, 8, priv, 0, 0, 1, 0)
    found = parse_format(struct.pack("<II", 1, 0) + pix.ljust(200, b"\0"))
    assert (found.luma, found.fields) == (luma, None)


def test_the_capability_reply_is_read_as_linux_lays_it_out():
    reply = struct.pack(
        "<16s32s32s6I", b"uvcvideo", b"USB Video", b"usb-0", 6, 0x84A00001, 0x04200001, 0, 0, 0
    )
    assert parse_capability(reply) == ("USB Video", 0x04200001)
    metadata_node = struct.pack(
        "<16s32s32s6I", b"uvcvideo", b"USB Video", b"", 6, 0x84A00001, 0x04A00000, 0, 0, 0
    )
    assert not parse_capability(metadata_node)[1] & 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("x", r"v4l2:x: a capture device is named v4l2:0 or v4l2:/dev/video0"),
        ("4711", r"/dev/video4711: needed a capture device, but there is none of this name \(present: "),
        (
            "/dev/null",
            r"/dev/null: needed a capture device, got something else; name one such as /dev/video0",
        ),
    ],
    ids=["no address", "missing", "another kind"],
)
def test_a_device_that_does_not_open_is_an_error_at_once(address, message, capfd):
    with pytest.raises(SourceError, match=message):
        open_source(f"v4l2:{address}")
    assert capfd.readouterr() == ("", "")


def test_a_driver_that_hangs_is_given_up(monkeypatch):
    import threading

    hang = threading.Event()
    monkeypatch.setattr(device, "check_device", lambda path: "card")
    monkeypatch.setattr(device, "current_format", lambda path: None)
    monkeypatch.setattr(device, "_open_capture", lambda path: hang.wait())
    monkeypatch.setattr(device, "OPEN_TIMEOUT_S", 0.05)
    with pytest.raises(SourceError, match=r"/dev/video0: the driver did not answer within 0\.05 s; unplug"):
        open_device("0", PLAIN)
    hang.set()


def test_a_device_that_opencv_cannot_open_says_so_without_its_chatter(capfd):
    with pytest.raises(SourceError, match="/dev/null: OpenCV cannot open the device; it may be in use"):
        device._open_capture("/dev/null")


def test_every_format_has_its_own_code():
    names = [each.fourcc for each in FORMATS]
    assert len(set(names)) == len(names)
    assert all(len(name) == 4 for name in names)
    assert v4l2.device_path("3") == "/dev/video3"
