"""What OpenVINO alone does: precision by CPU, the cache of compiled models, no telemetry."""

import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.engine import EngineSpec
from engines.open import open_engine
from engines.openvino_engine import default_precision


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        pytest.param("fpu avx512f amx_bf16 amx_tile", "bf16", id="amx"),
        pytest.param("fpu avx512f avx512_bf16", "bf16", id="avx512 with bf16"),
        pytest.param("fpu avx2 avx512f avx512_vnni", "f32", id="avx512 without"),
    ],
)
def test_bf16_is_taken_where_the_cpu_has_it(tmp_path: Path, flags: str, precision: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nprocessor\t: 1\n")
    assert default_precision(cpuinfo) == precision


def test_f32_is_taken_where_nothing_is_known_of_the_cpu(tmp_path: Path) -> None:
    assert default_precision(tmp_path / "none") == "f32"


def test_compiled_models_are_kept_for_this_user_alone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    open_engine(tiny_model, EngineSpec(64, 64), "openvino").engine.close()
    folder = tmp_path / "cache" / "contrastream" / "openvino"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    blobs = list(folder.iterdir())
    assert len(blobs) == 1
    written = blobs[0].stat().st_mtime_ns
    open_engine(tiny_model, EngineSpec(64, 64), "openvino").engine.close()
    assert [blob.stat().st_mtime_ns for blob in folder.iterdir()] == [written]


def test_a_spoilt_cache_is_rebuilt(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_frame: Callable[..., np.ndarray],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    live = random_frame(64, 64)

    def draw() -> np.ndarray:
        engine = open_engine(tiny_model, EngineSpec(64, 64), "openvino").engine
        synthetic = np.zeros_like(live)
        (slot,) = engine.slots(1)
        slot.bind(live, synthetic, np.zeros_like(live))
        slot.submit()
        slot.wait()
        engine.close()
        return synthetic

    expected = draw()
    (blob,) = (tmp_path / "cache" / "contrastream" / "openvino").iterdir()
    content = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(content[: len(content) // 2])
    np.testing.assert_array_equal(draw(), expected)


def test_a_model_opens_where_there_can_be_no_cache(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    open_engine(tiny_model, EngineSpec(64, 64), "openvino").engine.close()
    assert "compiled models are not kept, so every start compiles anew" in caplog.text


def test_opening_an_engine_loads_no_telemetry_and_no_torch(tiny_model: Path) -> None:
    script = (
        "import sys; from engines.engine import EngineSpec; from engines.open import open_engine;"
        f"open_engine({str(tiny_model)!r}, EngineSpec(64, 64), 'openvino').engine.close();"
        "loaded = [m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules];"
        "print(loaded, sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[] None"


def test_ready_does_not_wait(tiny_model: Path, random_frame: Callable[..., np.ndarray]) -> None:
    engine = open_engine(tiny_model, EngineSpec(2048, 2048), "openvino", threads=1).engine
    live = random_frame(2048, 2048)
    (slot,) = engine.slots(1)
    slot.bind(live, np.zeros_like(live), np.zeros_like(live))
    slot.submit()
    slot.wait()
    slot.submit()
    began = time.monotonic()
    polls = 0
    while not slot.ready():
        polls += 1
        time.sleep(0.0002)
    elapsed_s = time.monotonic() - began
    slot.wait()
    engine.close()
    # A ready() that waited would return True at its first call.
    assert polls > 0, f"2048x2048 was done at the first look, after {elapsed_s:.4f} s"
