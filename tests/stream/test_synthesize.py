"""`contrastream synthesize`: what it leaves in its folder, and what it leaves out."""

import functools
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
import torch

from casgan.networks import Generator
from casgan.presets import PresetConfig
from engines.errors import ModelError
from engines.model import ModelCard, load_model
from engines.network_graph import export_model
from stream.config import SynthesizeConfig
from stream.errors import SourceError, StreamError
from stream.synthesize import Synthesis

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
TINY = PresetConfig("tiny", 64, 4, (8, 16), 1, 1, 1)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled models of tests never land in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Exports a small network with random weights that draws everywhere; returns its file."""

    @functools.cache
    def export(*, taught: bool = True, overflow: bool = False) -> str:
        torch.manual_seed(0)
        network = Generator(TINY).eval()
        with torch.no_grad():
            assert network.attention.conv.bias is not None
            network.attention.conv.bias.fill_(2.0)
            if overflow:  # the sum of C's logits is no longer a number of fp32
                assert network.context.conv.bias is not None
                network.context.conv.bias.fill_(3e38)
        path = tmp_path_factory.mktemp("model") / f"tiny-{taught}-{overflow}.onnx"
        export_model(network, ModelCard("tiny", 64, 0.1, taught=taught), path)
        return str(path)

    return export


@pytest.fixture(scope="module")
def loop_synthesis(loop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The cine loop's synthesis by the shipped model, from and into folders that are named after patients."""
    named = tmp_path_factory.mktemp("DOE^JANE")
    recording = named / "MILLER^ANN.dcm"
    recording.write_bytes(loop.read_bytes())
    return named / "out", synthesized(recording, named / "out")


def synthesized(source: object, out: Path, **settings: Any) -> dict[str, Any]:
    """Run it to its end; what synthesis.json says."""
    config = SynthesizeConfig(sources=(str(source),), out=out, threads=1, **settings)
    said = Synthesis(config).run()
    written: dict[str, Any] = json.loads((out / "synthesis.json").read_text())
    assert written == {"schema": "contrastream.synthesis/1", **said}
    return written


def pictures(folder: Path) -> np.ndarray:
    """(frame, row, column) of a folder of PNGs, in the order of their names."""
    return np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())])


def test_every_frame_of_a_cine_is_written_and_unchanged_where_nothing_is_drawn(
    loop_synthesis: tuple[Path, dict[str, Any]], loop_frames: np.ndarray
) -> None:
    out, said = loop_synthesis
    synthetic, attention = pictures(out / "synthetic"), pictures(out / "attention")
    assert synthetic.shape == attention.shape == loop_frames.shape
    assert synthetic.dtype == attention.dtype == np.uint8
    untouched = attention == 0
    assert 0 < untouched.mean() < 1
    np.testing.assert_array_equal(synthetic[untouched], loop_frames[untouched])
    assert (synthetic[~untouched] != loop_frames[~untouched]).any()
    assert said["complete"] is True
    assert said["counts"] == {"frames": 40, "synthetic": 40, "live_because_not_finite": 0}
    assert [frame["frame"] for frame in said["frames"]] == list(range(40))
    areas = [frame["area"] for frame in said["frames"]]
    np.testing.assert_allclose(areas, (~untouched).mean((1, 2)), atol=2e-6)
    means = [frame["mean"] for frame in said["frames"]]
    np.testing.assert_allclose(means, attention.mean((1, 2)) / 255, atol=1e-3)
    assert said["model"]["sha256"] == load_model("compact").card.sha256
    assert (said["source"]["kind"], round(said["source"]["rate_hz"], 6)) == ("cine", 30.0)


def test_as_dicom_it_is_the_recorders_objects_with_the_same_pixels_and_true_times(
    loop_synthesis: tuple[Path, dict[str, Any]], loop: Path, loop_frames: np.ndarray, tmp_path: Path
) -> None:
    recording = pydicom.dcmread(loop)
    steps = [0.0, *(33.3 if number % 4 else 66.6 for number in range(1, 40))]
    del recording.FrameTime
    recording.FrameTimeVector, recording.FrameIncrementPointer = steps, 0x00181065
    recording.save_as(tmp_path / "vector.dcm")
    out = tmp_path / "out"
    said = synthesized(tmp_path / "vector.dcm", out, dicom=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "loop-attention.dcm", "loop-synthetic.dcm", "loop.dcm", "preview.mp4", "preview.png", "synthesis.json"
    ]  # fmt: skip
    assert said["complete"] is True
    live, synthetic, attention = (
        pydicom.dcmread(out / f"loop{which}.dcm") for which in ("", "-synthetic", "-attention")
    )
    np.testing.assert_array_equal(live.pixel_array, loop_frames)
    np.testing.assert_array_equal(synthetic.pixel_array, pictures(loop_synthesis[0] / "synthetic"))
    np.testing.assert_array_equal(attention.pixel_array, pictures(loop_synthesis[0] / "attention"))
    assert (synthetic.SyntheticData, synthetic.ContentQualification) == ("YES", "RESEARCH")
    assert said["model"]["sha256"] in synthetic.DerivationDescription
    for each in (live, synthetic, attention):
        np.testing.assert_allclose([float(step) for step in each.FrameTimeVector], steps, atol=1e-3)
    assert [float(each) for each in live.ImagerPixelSpacing] == [0.4, 0.4]
    assert not [path for path in out.iterdir() if b"LEAKED" in path.read_bytes()]


def test_as_dicom_it_needs_the_time_of_each_frame(
    tmp_path: Path, model: Callable[..., str], loop_frames: np.ndarray
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(loop_frames[:3]):
        assert cv2.imwrite(str(folder / f"{number}.png"), frame)
    with pytest.raises(
        SourceError, match="DICOM needs the time of each frame, and nothing says it; give --rate"
    ):
        synthesized(folder, tmp_path / "out", model=model(), dicom=True)
    synthesized(folder, tmp_path / "b", model=model(), dicom=True, rate=10.0)
    times = pydicom.dcmread(tmp_path / "b" / "loop-synthetic.dcm").FrameTimeVector
    assert [float(each) for each in times] == [0.0, 100.0, 100.0]


def test_the_preview_shows_every_frame_with_its_marks(loop_synthesis: tuple[Path, dict[str, Any]]) -> None:
    out, _ = loop_synthesis
    film = cv2.VideoCapture(str(out / "preview.mp4"))
    assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FPS)) == (40, 30)
    film.release()
    still = cv2.imread(str(out / "preview.png"))
    assert still is not None
    yellow = (still[..., 0] < 90) & (still[..., 1] > 190) & (still[..., 2] > 220)
    label = slice(60, 90)
    thirds = still.shape[1] // 3
    live, synthetic, overlay = (yellow[label, n * thirds : (n + 1) * thirds].sum() for n in range(3))
    assert live == 0
    assert min(synthetic, overlay) > 50


def test_nothing_of_the_patient_or_of_a_path_is_written(loop_synthesis: tuple[Path, dict[str, Any]]) -> None:
    out, _ = loop_synthesis
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 40 + 40 + 3
    for path in files:
        data = path.read_bytes()
        assert not [word for word in (b"LEAKED", b"PATIENT^", b"MILLER", b"DOE^JANE") if word in data], path


@pytest.mark.parametrize("bits", [8, 10])
def test_frames_keep_the_recordings_own_bits(tmp_path: Path, model: Callable[..., str], bits: int) -> None:
    out = tmp_path / "out"
    said = synthesized("phantom", out, frames=2, size=96, bits=bits, film=False, model=model())
    synthetic = pictures(out / "synthetic")
    assert synthetic.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert (1 << bits) // 4 < synthetic.max() < 1 << bits
    assert said["source"]["bits_stored"] == bits
    assert not (out / "preview.mp4").exists()
    comment = b"tEXtComment\0SYNTHETIC: vessels drawn by a neural network, not measured. Research use only."
    assert comment in (out / "synthetic" / "frame_00000.png").read_bytes()


def test_a_single_image_and_a_folder_without_a_rate_are_recordings(
    tmp_path: Path, model: Callable[..., str], loop_frames: np.ndarray
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(loop_frames[:3]):
        assert cv2.imwrite(str(folder / f"{number}.png"), frame)
    said = synthesized(folder, tmp_path / "a", model=model())
    assert (said["source"]["kind"], said["source"]["rate_hz"], said["counts"]["frames"]) == (
        "folder",
        None,
        3,
    )
    said = synthesized(folder / "1.png", tmp_path / "b", model=model())
    assert (said["source"]["kind"], said["counts"]["frames"]) == ("image", 1)
    np.testing.assert_array_equal(
        pictures(tmp_path / "a" / "synthetic")[1], pictures(tmp_path / "b" / "synthetic")[0]
    )


def test_an_output_that_is_not_finite_is_written_as_live_and_counted(
    tmp_path: Path, model: Callable[..., str], loop: Path, loop_frames: np.ndarray
) -> None:
    out = tmp_path / "out"
    said = synthesized(loop, out, frames=2, model=model(overflow=True))
    assert said["counts"] == {"frames": 2, "synthetic": 0, "live_because_not_finite": 2}
    assert said["frames"][1] == {
        "frame": 1, "written": "live", "finite": False, "area": None, "mean": None, "maximum": None
    }  # fmt: skip
    np.testing.assert_array_equal(pictures(out / "synthetic"), loop_frames[:2])
    assert not pictures(out / "attention").any()
    assert (
        b"LIVE: the network's output was not finite" in (out / "synthetic" / "frame_00000.png").read_bytes()
    )


def test_an_untaught_model_is_refused(tmp_path: Path, model: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match=r"needed a taught model, got tiny-False-False\.onnx"):
        synthesized("phantom", tmp_path / "out", frames=1, size=64, model=model(taught=False))
    assert not (tmp_path / "out").exists()


def test_an_untaught_models_frames_are_never_called_synthetic(
    tmp_path: Path, model: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    said = synthesized("phantom", out, frames=1, size=64, model=model(taught=False), untaught=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "attention", "preview.mp4", "preview.png", "synthesis.json", "untaught"
    ]  # fmt: skip
    assert said["model"]["taught"] is False
    data = (out / "untaught" / "frame_00000.png").read_bytes()
    assert b"UNTAUGHT: drawn by a network with random weights" in data
    assert b"SYNTHETIC" not in data + json.dumps(said).encode()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(
        StreamError, match=r"--out needs an empty folder, got files in .*; name another, or replace"
    ):
        synthesized("phantom", out, frames=1, size=64)
    with pytest.raises(
        StreamError, match=r"--overwrite replaces a former synthesis, and .* \(no synthesis\.json\)"
    ):
        synthesized("phantom", out, frames=1, size=64, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_overwrite_leaves_no_frame_of_the_former_synthesis_and_every_file_of_others(
    tmp_path: Path, model: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    synthesized("phantom", out, frames=3, size=64, model=model())
    (out / "synthetic" / "note.txt").write_text("mine")
    said = synthesized("phantom", out, frames=1, size=64, model=model(), film=False, overwrite=True)
    assert sorted(path.name for path in (out / "synthetic").iterdir()) == ["frame_00000.png", "note.txt"]
    assert [path.name for path in (out / "attention").iterdir()] == ["frame_00000.png"]
    assert not (out / "preview.mp4").exists()
    assert said["counts"]["frames"] == 1


def test_what_cannot_be_opened_leaves_a_former_synthesis_as_it_was(
    tmp_path: Path, model: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    synthesized("phantom", out, frames=2, size=64, model=model())
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(SourceError, match="nowhere: needed phantom"):
        synthesized(tmp_path / "nowhere", out, overwrite=True)
    with pytest.raises(ModelError, match="needed a model file, found none"):
        synthesized("phantom", out, frames=1, size=64, model=str(tmp_path / "no.onnx"), overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_frames_of_a_synthesis_are_not_read_while_they_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "synthesis.json").write_text('{"schema": "contrastream.synthesis/1"}')
    with pytest.raises(SourceError, match=r"lies in --out .*, which is written anew; name another"):
        synthesized(out / "synthetic", out, overwrite=True)


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        pytest.param("phantom", {}, "phantom: it has no end of its own; give --frames", id="endless"),
        pytest.param("v4l2:0", {"frames": 5}, "needed a recording, got a live device; use: contrastream run", id="device"),
        pytest.param(
            "rtsp://doe:secret@127.0.0.1/x", {}, "^rtsp: needed a recording, got a live device; use: contrastream run SOURCE$", id="stream"
        ),
        pytest.param("/nowhere", {}, "/nowhere: needed phantom, .* an image, a folder of frames", id="missing"),
    ],
)  # fmt: skip
def test_what_is_no_recording_is_refused(
    tmp_path: Path, source: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        synthesized(source, tmp_path / "out", **settings)


def test_a_damaged_frame_ends_it_with_the_frames_before_kept(
    tmp_path: Path, model: Callable[..., str], loop_frames: np.ndarray
) -> None:
    folder, out = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    for number, frame in enumerate(loop_frames[:4]):
        assert cv2.imwrite(str(folder / f"{number}.png"), frame)
    damaged = folder / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    with pytest.raises(SourceError, match=r"2\.png: the image ends too early; it is cut off, copy it again"):
        synthesized(folder, out, model=model())
    said = json.loads((out / "synthesis.json").read_text())
    assert (said["complete"], said["counts"]["frames"]) == (False, 2)
    assert len(pictures(out / "synthetic")) == len(pictures(out / "attention")) == 2


def test_frames_that_change_their_size_end_it_with_the_frames_before_kept(
    tmp_path: Path, model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with pytest.raises(SourceError, match="needed frames of one size and depth, and they change on the way"):
        synthesized(
            "python:growing_source:GrowingSource", tmp_path / "out", frames=100, film=False, model=model()
        )
    assert len(pictures(tmp_path / "out" / "synthetic")) == 60


def test_a_full_disk_is_said_and_leaves_no_broken_file(tmp_path: Path, model: Callable[..., str]) -> None:
    out = tmp_path / "out"
    config = SynthesizeConfig(
        sources=("phantom",), out=out, frames=5000, size=256, bits=16, model=model(), film=False
    )
    synthesis = Synthesis(config)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk() -> None:
        # From now on no file may be longer than 30 kB: the report can be written, a frame cannot.
        while synthesis.progress is None:
            time.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))

    filling = threading.Thread(target=fill_disk)
    filling.start()
    try:
        with pytest.raises(
            StreamError, match=r"needed to write below .*out, got: File too large; choose another"
        ):
            synthesis.run()
    finally:
        filling.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = json.loads((out / "synthesis.json").read_text())
    whole = [frame["frame"] for frame in said["frames"]]
    assert said["complete"] is False
    assert {f"frame_{index:05}.png" for index in whole} <= {
        path.name for path in (out / "synthetic").iterdir()
    }
    assert [path for path in out.rglob("*") if "partial" in path.name] == []


def test_ctrl_c_leaves_whole_files_and_says_what_is_there(start: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = start("synthesize", "phantom", "--frames", "100000", "--size", "128", "--out", str(out))
    over = time.monotonic() + 60
    while not (out / "synthetic" / "frame_00005.png").exists():
        assert running.process.poll() is None
        assert time.monotonic() < over
        time.sleep(0.01)
    printed = running.end()
    said = json.loads((out / "synthesis.json").read_text())
    frames = said["counts"]["frames"]
    assert running.process.returncode == 130, printed
    assert said["complete"] is False
    assert frames >= 5
    assert f"frames   {frames} of 100000: {frames} SYNTHETIC" in printed
    assert len(pictures(out / "synthetic")) == len(pictures(out / "attention")) == frames
    film = cv2.VideoCapture(str(out / "preview.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == frames
    film.release()
    assert [path for path in out.rglob("*") if "partial" in path.name] == []


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        pytest.param("rf_single/KarstenHilbertRF.dcm", (1, 464, 512), np.uint8, id="odd shape"),
    ],
)
def test_real_recordings_come_out_in_their_own_shape(
    tmp_path: Path, model: Callable[..., str], name: str, shape: tuple[int, ...], dtype: type
) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real X-ray data at {REAL}")
    synthesized(REAL / name, tmp_path / "out", model=model(), film=False)
    synthetic = pictures(tmp_path / "out" / "synthetic")
    assert (synthetic.shape, synthetic.dtype) == (shape, dtype)
