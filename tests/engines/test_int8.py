"""int8 by NNCF: what becomes int8 and what never does, how it is kept and found, and that it is never taken in silence."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.precision import LIMITS
from engines import int8 as int8_files
from engines import quantize as quantizing
from engines.cache_folder import cache_folder
from engines.drawing import drawing
from engines.engine import EngineSpec
from engines.errors import EngineError, ModelError
from engines.int8 import frames_sha256, has_wide_sums, int8_key, keep_int8, read_int8
from engines.model import load_model
from engines.open import open_engine
from engines.openvino_engine import default_precision, load_openvino
from engines.planes import Settings
from engines.quantize import MIN_FRAMES, obtain_int8
from engines.site_precision import measure_site_precision

needs_nncf = pytest.mark.skipif(not quantizing.probe_nncf()[0], reason="needs nncf")
SPEC = EngineSpec(128, 160)


@pytest.fixture(autouse=True)
def _few_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice by speed is tested with pretended engines; here it would only take time."""
    monkeypatch.setattr("calib.precision.MIN_TIMINGS", 6)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    phantom = Phantom(PhantomConfig(seed=4, rows=128, columns=160))
    return [phantom.frame(index).plain for index in range(2 * MIN_FRAMES)]


@needs_nncf
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_shipped_model_in_int8_draws_the_same_vessels(
    pictures: list[np.ndarray], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """One long way, since quantising takes seconds: made, kept, found, judged, and its parts looked at."""
    phantom = Phantom(PhantomConfig(seed=4, rows=128, columns=160))
    truths = [phantom.frame(index).mask for index in range(len(pictures))]
    result, worst = measure_site_precision("compact", SPEC, pictures, truths=truths, backends=["openvino"])
    int8 = result.engines[-1]
    assert (int8.backend, int8.precision) == ("openvino", "int8")
    assert int8.passed, result.says
    assert int8.background_exact
    assert int8.grey_max > 0, "an int8 engine that differs nowhere is not in int8"
    assert "openvino int8" in worst
    assert result.reference == "torch f32"
    assert "int8 is accepted" in " ".join(result.says) or "nothing is won" in " ".join(result.says)
    assert capsys.readouterr().out == ""

    # It is found again by what it was made of, and opened without NNCF.
    chosen = pictures[::2]
    found = frames_sha256(chosen, Settings.default(SPEC).table)
    ov = load_openvino()
    kept = read_int8(int8_key(load_model("compact").card.sha256, ov.__version__, found))
    graph = ov.Core().read_model(kept.xml, kept.weights)
    assert quantizing.check_scope(graph, "compact") == (kept.quantised, kept.convolutions)
    # Of 31 convolutions 4 are the heads'; whether fixed blurs are taken is NNCF's choice, by their channels.
    assert 20 <= kept.quantised <= kept.convolutions - 4
    for node in graph.get_ordered_ops():
        # int8 weights stand in i8 before a convert; the heads' stay in f32.
        if node.get_friendly_name().startswith(quantizing.HEADS) and node.get_type_name() == "Constant":
            assert node.get_element_type().get_type_name() not in ("i8", "u8")
    written = {path: path.stat().st_mtime_ns for path in _folder().iterdir()}
    assert obtain_int8(load_model("compact"), chosen, Settings.default(SPEC)) == found
    assert {path: path.stat().st_mtime_ns for path in _folder().iterdir()} == written

    # Another frame size needs no other model, and leaves the background as it is in 12 bits too.
    spec = EngineSpec(96, 96, 12)
    engine = open_engine("compact", spec, "openvino", precision="int8", int8_frames_sha256=found).engine
    assert engine.precision == "int8"
    live = Phantom(PhantomConfig(seed=7, rows=96, columns=96, bits_stored=12)).frame(0).plain
    synthetic, attention = drawing(engine)(live)
    engine.close()
    assert 0 < np.count_nonzero(attention) < attention.size
    np.testing.assert_array_equal(synthetic[attention == 0], live[attention == 0])

    # A file that was changed is refused by name.
    (path,) = _folder().glob("*.int8")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        EngineError, match=r"int8 model .* cannot be used: it was cut off or changed; run: contrast"
    ):
        open_engine("compact", spec, "openvino", precision="int8", int8_frames_sha256=found)


def _folder() -> Path:
    folder = cache_folder("int8", "")
    assert folder is not None
    return folder


@needs_nncf
def test_what_was_quantised_is_looked_at(tiny_model: Path) -> None:
    ov = load_openvino()
    graph = quantizing.read_graph(ov.Core(), load_model(tiny_model))
    with pytest.raises(ModelError, match="no convolution that NNCF could quantise"):
        quantizing.check_scope(graph, "tiny")
    (head,) = [
        node
        for node in graph.get_ordered_ops()
        if node.get_friendly_name().startswith("network/attention/")
        and node.get_type_name() in quantizing.CONVOLUTIONS
        and node.input(0).get_source_output().get_node().get_type_name() != "Reshape"
    ][:1]
    low, high = np.float32(0.0), np.float32(1.0)
    ops = ov.opset13
    between = ops.fake_quantize(head.input(0).get_source_output(), low, high, low, high, 256)
    head.input(0).replace_source_output(between.output(0))
    with pytest.raises(
        ModelError, match="only the network's inner layers of tiny may be quantised, but network/attention"
    ):
        quantizing.check_scope(graph, "tiny")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(
            {"precision": "int8"},
            "the hash of those frames go together, got int8 and no hash",
            id="no frames",
        ),
        pytest.param(
            {"int8_frames_sha256": "ab" * 32}, "go together, got no precision and abab", id="no precision"
        ),
        pytest.param(
            {"precision": "int8", "int8_frames_sha256": "ab" * 32},
            "needed the int8 model that this site's frames gave with OpenVINO .* found none",
            id="never made here",
        ),
    ],
)
def test_int8_is_never_replaced_in_silence(
    tiny_model: Path, arguments: dict[str, str], sentence: str
) -> None:
    with pytest.raises(EngineError, match=sentence):
        open_engine(tiny_model, SPEC, "openvino", **arguments)  # type: ignore[arg-type]


def test_other_backends_say_that_they_have_no_int8(tiny_model: Path) -> None:
    with pytest.raises(EngineError, match="backend onnxruntime: it has no int8 of a site's own frames"):
        open_engine(tiny_model, SPEC, "onnxruntime", precision="int8", int8_frames_sha256="ab" * 32)


def test_without_nncf_it_says_what_to_install(
    tiny_model: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        quantizing,
        "probe_nncf",
        lambda: (False, 'nncf is not installed; run: pip install -e ".[int8]"'),
    )
    with pytest.raises(EngineError, match=r'pip install -e "\.\[int8\]"'):
        obtain_int8(load_model(tiny_model), pictures, Settings.default(SPEC))


@needs_nncf
def test_too_few_frames_are_refused(tiny_model: Path, pictures: list[np.ndarray]) -> None:
    with pytest.raises(EngineError, match=f"at least {MIN_FRAMES} frames to be calibrated on, got 3"):
        obtain_int8(load_model(tiny_model), pictures[:3], Settings.default(SPEC))


def test_a_short_run_is_judged_without_int8_and_a_foreign_preset_without_torch(
    pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casgan.presets.PRESETS", {})
    result, _ = measure_site_precision("compact", SPEC, pictures[:9], backends=["openvino"])
    assert result.frames == 9
    assert result.reference == "openvino f32"
    assert [each.precision for each in result.engines] != ["int8"]
    assert any(said.startswith("int8 was not tried: it needs 16 frames") for said in result.says)


def test_bf16_that_is_not_close_enough_is_measured_in_f32_too(
    pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    if default_precision() != "bf16":
        pytest.skip("this CPU has no bf16")
    without = measure_site_precision("compact", SPEC, pictures[:9], backends=["openvino"])[0]
    assert [each.precision for each in without.engines] == ["bf16"]
    strict = dataclasses.replace(LIMITS["bf16"], grey_mean=0.0, dice=1.0)
    monkeypatch.setattr("calib.precision.LIMITS", {**LIMITS, "bf16": strict})
    result, worst = measure_site_precision("compact", SPEC, pictures[:9], backends=["openvino"])
    assert [each.precision for each in result.engines] == ["bf16", "f32"]
    assert (result.passed, result.chosen) == (True, "f32")
    assert "openvino f32" in worst


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda frames, table: (frames[1:], table), id="a frame less"),
        pytest.param(lambda frames, table: (frames[::-1], table), id="another order"),
        pytest.param(lambda frames, table: ([frames[0].T.copy(), *frames[1:]], table), id="turned"),
        pytest.param(
            lambda frames, table: ([frame.astype(np.uint16) for frame in frames], table), id="wider"
        ),
        pytest.param(lambda frames, table: (frames, table * np.float32(0.99)), id="other grey levels"),
    ],
)
def test_another_calibration_has_another_hash(
    pictures: list[np.ndarray],
    change: Callable[[list[np.ndarray], np.ndarray], tuple[list[np.ndarray], np.ndarray]],
) -> None:
    table = Settings.default(SPEC).table
    assert frames_sha256(pictures, table) == frames_sha256([frame.copy() for frame in pictures], table.copy())
    assert frames_sha256(*change(pictures, table)) != frames_sha256(pictures, table)


def test_the_key_tells_the_kind_of_cpu_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, wide in (("fpu avx2", False), ("fpu avx2 avx_vnni", True), ("fpu avx512_vnni", True)):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert has_wide_sums(tmp_path / "cpuinfo") is wide
    assert has_wide_sums(tmp_path / "none") is False
    monkeypatch.setattr(int8_files, "has_wide_sums", lambda: True)
    wide_key = int8_key("ab" * 32, "2026", "cd" * 32)
    monkeypatch.setattr(int8_files, "has_wide_sums", lambda: False)
    assert int8_key("ab" * 32, "2026", "cd" * 32).name != wide_key.name


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(int8_files, "KEPT", 2)
    made = int8_files.Int8Model(b"<xml/>", b"\x00\n\xff", "3.4", 5, 7)
    keys = [int8_key("ab" * 32, "2026", f"{index:064x}") for index in range(4)]
    for key in keys:
        keep_int8(key, made)
    assert len(list((tmp_path / "contrastream" / "int8").iterdir())) == 2
    assert read_int8(keys[-1]) == made
    with pytest.raises(EngineError, match="found none"):
        read_int8(keys[0])


def test_a_file_of_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = int8_files.Int8Model(b"<xml/>", b"", "3.4", 5, 7)
    ours, other = (int8_key("ab" * 32, "2026", f"{index:064x}") for index in range(2))
    path = keep_int8(other, made)
    path.rename(path.with_name(f"{ours.name}.int8"))
    with pytest.raises(EngineError, match="it is of something else"):
        read_int8(ours)
    assert json.loads(path.with_name(f"{ours.name}.int8").read_bytes()[32:].split(b"\n")[0])["nncf"] == "3.4"


def test_opening_the_default_engine_loads_no_nncf(tiny_model: Path) -> None:
    import subprocess

    script = (
        "import sys; from engines.engine import EngineSpec; from engines.open import open_engine;"
        f"open_engine({str(tiny_model)!r}, EngineSpec(64, 64), 'openvino').engine.close();"
        "print('nncf' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
