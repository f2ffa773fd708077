"""Video files, written and read by real codecs."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from stream.errors import SourceError
from stream.sources.options import SourceOptions
from stream.sources.video import is_video


@pytest.fixture
def smooth(ramp):
    """Frames that lossy codecs keep well: blurred, moving."""

    def make(frames=8, rows=96, columns=128):
        base = cv2.GaussianBlur(ramp(frames=1, rows=rows, columns=columns)[0], (0, 0), 6)
        base = cv2.normalize(base, None, 30, 220, cv2.NORM_MINMAX)
        return np.stack([np.roll(base, 3 * index, axis=1) for index in range(frames)])

    return make


def test_a_lossless_video_arrives_bit_for_bit(ramp, write_video, opening, read_all):
    pixels = ramp(frames=5, rows=66, columns=98)
    source = opening(write_video(pixels, codec="HFYU", rate_hz=25.0))
    assert (source.kind, source.frame_count, source.rate_hz, source.interval_ms(1)) == (
        "video",
        5,
        25.0,
        40.0,
    )
    np.testing.assert_array_equal(read_all(source), pixels)


@pytest.mark.parametrize(
    ("codec", "name"),
    [("mp4v", "loop.mp4"), ("MJPG", "loop.avi"), ("FFV1", "loop.mkv")],
    ids=["mpeg4", "mjpeg", "ffv1"],
)
def test_gray_of_any_codec_is_close_to_what_was_written(codec, name, smooth, write_video, opening, read_all):
    pixels = smooth()
    got = read_all(opening(write_video(pixels, codec=codec, name=name)))
    assert got.shape == pixels.shape
    assert np.abs(got.astype(int) - pixels.astype(int)).mean() < 4


def test_a_gray_plane_is_taken_without_a_turn_through_colour(smooth, write_video, opening, read_all):
    path = write_video(smooth(), codec="Y800")
    source = opening(path)
    assert not any("colour" in note for note in source.notes)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    wanted = np.stack([capture.read()[1][..., 0] for _ in range(8)])
    np.testing.assert_array_equal(read_all(source), wanted)
    source.rewind()
    np.testing.assert_array_equal(read_all(source), wanted)


def test_colour_is_refused_before_the_stream_starts_unless_gray_is_asked_for(
    smooth, write_video, opening, read_all
):
    pixels = np.stack([cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for frame in smooth()])
    pixels[:, 20:60, 20:60] = (0, 0, 255)
    path = write_video(pixels, codec="HFYU")
    with pytest.raises(
        SourceError,
        match=r"loop\.avi: frames must be gray, got colour in frame 0; colour sources need --gray",
    ):
        opening(path)
    source = opening(path, SourceOptions(gray=True))
    assert any("the luma of its colour is taken" in note for note in source.notes)
    wanted = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in pixels])
    np.testing.assert_array_equal(read_all(source), wanted)


def test_colour_that_comes_later_is_refused_by_its_frame(smooth, write_video, opening):
    pixels = np.stack([cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for frame in smooth()])
    pixels[5, 20:60, 20:60] = (0, 0, 255)
    source = opening(write_video(pixels, codec="HFYU"))
    out = np.empty(pixels.shape[1:3], np.uint8)
    for _ in range(5):
        assert source.read(out) is not None
    with pytest.raises(SourceError, match="got colour in frame 6"):
        source.read(out)


def test_a_rate_that_is_asked_for_wins_over_the_container(smooth, write_video, opening):
    source = opening(write_video(smooth()), SourceOptions(rate_hz=7.5))
    assert (source.rate_hz, source.interval_ms(0)) == (7.5, 1000 / 7.5)


def test_rewind_and_skip(ramp, write_video, opening):
    pixels = ramp(frames=4, rows=66, columns=98)
    source = opening(write_video(pixels, codec="HFYU"))
    out = np.empty((66, 98), np.uint8)
    for _ in range(2):
        assert source.skip()
        source.read(out)
        np.testing.assert_array_equal(out, pixels[1])
        assert source.skip()
        assert source.skip()
        assert not source.skip()
        assert source.read(out) is None
        source.rewind()
        source.read(out)
        np.testing.assert_array_equal(out, pixels[0])
        source.rewind()


def test_a_crop_delivers_its_region(ramp, write_video, opening, read_all):
    pixels = ramp(frames=3, rows=100, columns=120)
    source = opening(write_video(pixels, codec="HFYU"), SourceOptions(crop=(10, 20, 70, 66)))
    np.testing.assert_array_equal(read_all(source), pixels[:, 20:86, 10:80])


@pytest.mark.parametrize(("rows", "columns"), [(66, 130), (464, 512)], ids=str)
def test_sizes_that_are_no_multiple_of_sixteen(rows, columns, smooth, write_video, opening):
    source = opening(write_video(smooth(frames=2, rows=rows, columns=columns), codec="mp4v", name="odd.mp4"))
    assert (source.format.rows, source.format.columns) == (rows, columns)


def test_a_video_without_frames_is_refused(smooth, write_video, opening):
    path = write_video(smooth(frames=1), codec="MJPG")
    data = bytearray(path.read_bytes())
    at = data.index(b"movi")
    data[at + 4 : at + 8] = b"JUNK"  # the only frame becomes padding
    index = data.index(b"idx1")
    data[index : index + 4] = b"JUNK"
    path.write_bytes(data)
    with pytest.raises(
        SourceError, match=r"needed a video with at least one frame|the video cannot be opened"
    ):
        opening(path)


def test_a_container_without_a_stream_is_refused_in_silence(tmp_path):
    path = tmp_path / "loop.mp4"
    path.write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(500))
    # a process of its own: FFmpeg's log level is set once per process, and other tests have written videos
    code = (
        "import sys\nfrom stream.errors import SourceError\nfrom stream.sources.open import open_source\n"
        "try:\n    open_source(sys.argv[1])\nexcept SourceError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("loop.mp4: the video cannot be opened; it is damaged, cut off")
    assert done.stderr == ""


def test_a_video_that_is_cut_off_ends_early_and_says_so(smooth, write_video, opening, read_all):
    path = write_video(smooth(frames=20), codec="MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    source = opening(path)
    got = read_all(source)
    assert 5 < len(got) < 20
    assert source.frame_count == len(got)
    assert any(f"promises 20 frames, but {len(got)} could be decoded" in said for said in source.warnings())


def test_a_picture_too_large_for_a_stream_is_refused(smooth, write_video, opening):
    path = write_video(smooth(frames=1, rows=96, columns=2100), codec="MJPG")
    with pytest.raises(
        SourceError, match=r"loop\.avi: frames must be 64 to 2048 pixels a side, got 96 rows x 2100 columns"
    ):
        opening(path)


@pytest.mark.parametrize(
    "head",
    [
        b"#EXTM3U\n#EXTINF:10,\nhttp://example.org/a.ts",
        b"ffconcat version 1.0\nfile /etc/passwd",
        b"RIFF....WAVE",
    ],
    ids=["playlist", "concat", "sound"],
)
def test_what_ffmpeg_would_follow_elsewhere_is_no_video(head, tmp_path, opening):
    assert not is_video(head)
    path = tmp_path / "loop.mp4"
    path.write_bytes(head)
    with pytest.raises(SourceError, match="got a file of another kind; not a DICOM, and not MP4"):
        opening(path)


def test_steady_reading_allocates_nothing_of_frame_size(smooth, write_video, opening):
    import tracemalloc

    source = opening(write_video(smooth(frames=20, rows=512, columns=512), codec="mp4v", name="loop.mp4"))
    out = np.empty((512, 512), np.uint8)
    source.read(out)
    tracemalloc.start()
    for _ in range(10):
        source.read(out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024
