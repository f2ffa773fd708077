"""Which engine is opened, and what is said of those that were not."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from casgan.networks import Generator
from engines import open as opening
from engines.engine import AUTO_ORDER, EngineSpec
from engines.errors import EngineError, ModelError
from engines.model import ModelCard
from engines.open import open_engine, probe

SPEC = EngineSpec(64, 64)
ON_A_GPU = ("tensorrt", "tensorrt_rtx", "torch")


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, also where there is one."""
    for name in ON_A_GPU:
        if probe(name)[0]:
            monkeypatch.setitem(opening.PROBES, name, lambda: (False, "no GPU in this test"))


@pytest.mark.usefixtures("_no_gpu")
def test_auto_takes_openvino_and_says_why_the_earlier_ones_were_skipped(tiny_model: Path) -> None:
    opened = open_engine(tiny_model, SPEC)
    opened.engine.close()
    assert opened.engine.backend == "openvino"
    assert tuple(name for name, _ in opened.skipped) == ON_A_GPU
    assert all(reason == probe(name)[1] != "" for name, reason in opened.skipped)


@pytest.mark.usefixtures("_no_gpu")
def test_auto_goes_on_to_the_next_usable_backend(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(opening.PROBES, "openvino", lambda: (False, "openvino is not installed"))
    opened = open_engine(tiny_model, SPEC)
    opened.engine.close()
    assert opened.engine.backend == "onnxruntime"
    assert opened.skipped[-1] == ("openvino", "openvino is not installed")


@pytest.mark.usefixtures("_no_gpu")
def test_no_usable_backend_names_every_reason(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(opening.PROBES, name, lambda: (False, "it is not installed"))
    with pytest.raises(EngineError, match=r"found none: tensorrt: .*onnxruntime: it is not installed"):
        open_engine(tiny_model, SPEC)


@pytest.mark.parametrize("backend", ON_A_GPU)
def test_a_backend_asked_for_by_name_never_falls_back(tiny_model: Path, backend: str) -> None:
    usable, reason = probe(backend)
    if usable:
        pytest.skip(f"{backend} is usable here")
    with pytest.raises(EngineError, match=re.escape(f"needed the backend {backend}: {reason}")):
        open_engine(tiny_model, SPEC, backend)


def test_an_unknown_backend_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=r"backend must be auto or one of tensorrt, .* got 'cuda'"):
        open_engine(tiny_model, SPEC, "cuda")


@pytest.mark.usefixtures("_no_gpu")
def test_an_installed_backend_is_usable() -> None:
    assert [name for name in AUTO_ORDER if probe(name)[0]] == ["openvino", "onnxruntime"]


def test_an_untaught_model_runs_only_when_asked_for(
    tiny_network: Generator, export_tiny: Callable[..., Path]
) -> None:
    path = export_tiny(tiny_network, replace(ModelCard("tiny", 64, 0.1, True), taught=False))
    with pytest.raises(ModelError, match=r"needed a taught model, got changed\.onnx, .* --untaught"):
        open_engine(path, SPEC)
    opened = open_engine(path, SPEC, untaught=True)
    opened.engine.close()
    assert opened.engine.taught is False


def test_onnxruntime_computes_in_f32_alone(tiny_model: Path) -> None:
    with pytest.raises(EngineError, match="onnxruntime computes in f32 here, got a request for bf16"):
        open_engine(tiny_model, SPEC, "onnxruntime", precision="bf16")


@pytest.mark.parametrize(
    ("rows", "columns", "bits_stored", "slots", "message"),
    [
        pytest.param(63, 64, 8, 2, "64 to 2048 pixels a side, got 63x64", id="small"),
        pytest.param(64, 2049, 8, 2, "64 to 2048 pixels a side, got 64x2049", id="large"),
        pytest.param(64, 64, 7, 2, "8 to 16 bits stored, got 7", id="bits"),
        pytest.param(64, 64, 8, 0, "at least one slot, got 0", id="slots"),
    ],
)
def test_a_frame_that_no_engine_takes_is_refused(
    rows: int, columns: int, bits_stored: int, slots: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EngineSpec(rows, columns, bits_stored, slots)
