"""TensorRT and TensorRT-RTX: plans built for real, run on a pretended GPU; what this machine answers; and, marked `gpu`, the rest."""

import inspect
import logging
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import open as opening
from engines import tensorrt_engine
from engines.cuda import Cuda, open_cuda, probe_cuda
from engines.cuda_calls import Device
from engines.engine import Engine, EngineSpec, Precision
from engines.errors import CudaOutOfMemory, EngineError, ModelError
from engines.model import load_model
from engines.obtain import obtain_plan
from engines.open import open_engine
from engines.tensorrt_engine import choose_cuda, open_tensorrt, probe_tensorrt, probe_tensorrt_rtx, refusal

trt = pytest.importorskip("tensorrt_rtx")

FAKES = runpy.run_path(str(Path(__file__).with_name("fake_tensorrt.py")))
FakeRuntime: Any = FAKES["FAKES"]["FakeRuntime"]
SPEC, KINDS = FAKES["SPEC"], FAKES["KINDS"]
Library: Any = FAKES["Library"]
FullLibrary: Any = FAKES["FullLibrary"]
L4 = Device(0, "NVIDIA L4", (8, 9), 13000)
H200 = Device(0, "NVIDIA H200", (9, 0), 13000)


@pytest.fixture
def gpu() -> Any:
    return FakeRuntime()


@pytest.fixture
def open_pretended(gpu: Any, tiny_model: Path) -> Iterator[Callable[..., Engine]]:
    """Opens the tiny model on the pretended GPU; closes it, and looks whether anything is left."""
    opened: list[Engine] = []

    def make(library: Any, spec: EngineSpec = SPEC, **more: Any) -> Engine:
        engine = open_tensorrt(load_model(tiny_model), spec, module=library, cuda=Cuda(gpu), **more)
        opened.append(engine)
        return engine

    yield make
    for engine in opened:
        engine.close()
    assert gpu.count_alive() == {}


@pytest.fixture
def full_plan(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """TensorRT itself is not here to build: its plan is that of TensorRT-RTX. Returns what was asked for."""
    asked: list[tuple[str, str]] = []

    def obtain(library: Any, model: Any, spec: Any, precision: Any, target: str) -> Any:
        asked.append((target, precision))
        return obtain_plan(trt, model, spec, "f16")

    monkeypatch.setattr(tensorrt_engine, "obtain_plan", obtain)
    return asked


def infer(engine: Engine, live: np.ndarray) -> tuple[np.ndarray, Any]:
    synthetic, attention = np.zeros_like(live), np.zeros(live.shape, np.uint8)
    (slot,) = engine.slots(1)
    slot.bind(live, synthetic, attention)
    slot.submit()
    return synthetic, slot.wait()


@pytest.mark.parametrize(
    ("pretended", "real"),
    [
        pytest.param("Context", "IExecutionContext", id="context"),
        pytest.param("CudaEngine", "ICudaEngine", id="engine"),
        pytest.param("RuntimeConfig", "IRuntimeConfig", id="config"),
        pytest.param("RuntimeCache", "IRuntimeCache", id="cache"),
        pytest.param("Runtime", "Runtime", id="runtime"),
    ],
)
def test_what_is_pretended_has_the_names_of_the_real_library(pretended: str, real: str) -> None:
    names = [name for name, _ in inspect.getmembers(FAKES[pretended], inspect.isfunction) if name[0] != "_"]
    known = dir(getattr(trt, real)) if hasattr(trt, real) else dir(trt.tensorrt_rtx.__dict__[real])
    assert names
    assert [name for name in names if name not in known] == []
    assert hasattr(trt.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(trt.ICudaEngine, "num_io_tensors")


def test_rtx_runs_a_plan_that_it_has_built_and_makes_its_own_graphs(
    open_pretended: Callable[..., Engine], gpu: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    library = Library(gpu)
    engine = open_pretended(library)
    live = np.arange(64 * 80, dtype=np.uint8).reshape(64, 80)
    synthetic, said = infer(engine, live)
    np.testing.assert_array_equal(synthetic, 255 - live)
    assert said.finite
    assert (engine.backend, engine.precision, engine.taught) == ("tensorrt_rtx", "f16", True)
    assert getattr(engine, "gpu_bus_id", None) == "0000:3B:00.0"
    assert library.plans[0][:4] == b"vtrt"
    assert library.config.cuda_graph_strategy == trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert library.config.set is library.config.cache
    assert "cudaStreamBeginCapture" not in gpu.calls
    assert "CUDA graph" not in caplog.text
    assert "tensorrt_rtx on NVIDIA Pretended: 2 slots take 0 MB, 1000 of 8000 MB are free" in caplog.text


def test_full_tensorrt_is_captured_by_us_and_its_plan_is_of_this_gpu(
    open_pretended: Callable[..., Engine], gpu: Any, full_plan: list[tuple[str, str]]
) -> None:
    engine = open_pretended(FullLibrary(gpu), precision="f32")
    live = np.full((64, 80), 9, np.uint8)
    assert infer(engine, live)[0].min() == 246
    assert (engine.backend, engine.precision) == ("tensorrt", "f32")
    assert full_plan == [("NVIDIA Pretended SM89", "f32")]
    assert gpu.calls.count("cudaGraphInstantiate") == 2


def test_what_rtx_has_compiled_is_kept_for_the_next_start_on_such_a_gpu(
    open_pretended: Callable[..., Engine], gpu: Any
) -> None:
    gpu.capability = (8, 6)
    first, second, other = Library(gpu), Library(gpu), Library(gpu)
    open_pretended(first)
    open_pretended(second)
    gpu.capability = (12, 0)
    open_pretended(other)
    assert first.kernels_seen == other.kernels_seen == []
    assert second.kernels_seen == [b"kernels for this GPU"]
    assert first.plans == second.plans == other.plans


def test_a_kept_plan_that_the_library_refuses_is_built_anew_once(
    open_pretended: Callable[..., Engine], gpu: Any, caplog: pytest.LogCaptureFixture
) -> None:
    open_pretended(Library(gpu))
    library = Library(gpu)
    library.refuses_plans = 1
    open_pretended(library)
    assert len(library.plans) == 2
    assert "is removed from the cache: IRuntime::deserializeCudaEngine" in caplog.text


@pytest.fixture
def just_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan from the cache passes for one that was built now, which saves building it once more."""

    def obtain(_library: Any, *arguments: Any) -> Any:
        return replace(obtain_plan(trt, *arguments), why_built="for the test")

    monkeypatch.setattr(tensorrt_engine, "obtain_plan", obtain)


def test_a_plan_that_is_refused_for_good_is_an_error_with_the_librarys_words(
    open_pretended: Callable[..., Engine], gpu: Any, just_built: None
) -> None:
    library = Library(gpu)
    library.refuses_plans = 9
    with pytest.raises(EngineError, match=r"refuses the plan of tiny\.onnx for 64x80 on .*\(wrong magic\)"):
        open_pretended(library)
    assert len(library.plans) == 1


def test_a_plan_that_found_no_memory_is_kept_for_the_next_try(
    open_pretended: Callable[..., Engine], gpu: Any, caplog: pytest.LogCaptureFixture
) -> None:
    open_pretended(Library(gpu))
    library = Library(gpu)
    library.refuses_plans, library.says = (
        1,
        "Requested amount of GPU memory (40000000 bytes) could not be allocated.",
    )
    with pytest.raises(
        CudaOutOfMemory, match=r"refuses the plan of tiny\.onnx .*40000000 bytes.*; close what else"
    ):
        open_pretended(library)
    open_pretended(library)
    assert library.plans[0] == library.plans[1]
    assert "removed from the cache" not in caplog.text


def test_no_memory_for_a_second_context_leaves_nothing_behind(
    open_pretended: Callable[..., Engine], gpu: Any
) -> None:
    library = Library(gpu)
    library.contexts = 1
    with pytest.raises(
        CudaOutOfMemory,
        match=r"cannot make an execution context of \d+ MB: .*Requested size was 2147483648 bytes.*; close what else",
    ):
        open_pretended(library)
    assert gpu.count_alive() == {}


def test_no_memory_for_the_buffers_is_told_apart(open_pretended: Callable[..., Engine], gpu: Any) -> None:
    gpu.fail("cudaMalloc", "cudaErrorMemoryAllocation", after=3)
    with pytest.raises(CudaOutOfMemory, match="1000 of 8000 MB are free"):
        open_pretended(Library(gpu))
    assert gpu.count_alive() == {}


def test_an_inference_that_is_refused_is_told_by_wait_and_the_next_one_runs(
    open_pretended: Callable[..., Engine], gpu: Any
) -> None:
    library = Library(gpu)
    engine = open_pretended(library)
    live = np.zeros((64, 80), np.uint8)
    library.refuses_frames = 1
    with pytest.raises(CudaOutOfMemory, match=r"cannot start an inference: .*OutOfMemory \(no memory left\)"):
        infer(engine, live)
    assert infer(engine, live)[0].min() == 255


def test_a_plan_of_another_size_is_refused(open_pretended: Callable[..., Engine], gpu: Any) -> None:
    library = Library(gpu)
    library.plan_is_of = EngineSpec(96, 80)
    with pytest.raises(EngineError, match=r"for frames of \(64, 80, 1\), got one for \(96, 80, 1\)"):
        open_pretended(library)


def test_a_plan_of_another_graph_is_refused(
    open_pretended: Callable[..., Engine], gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "uint8", "INT8")
    with pytest.raises(ModelError, match=r"tiny\.onnx must have the inputs live uint8\[3\]"):
        open_pretended(Library(gpu))


def test_a_buffer_that_is_refused_is_an_error(open_pretended: Callable[..., Engine], gpu: Any) -> None:
    library = Library(gpu)
    library.refuses_buffers = True
    with pytest.raises(EngineError, match="tensorrt_rtx refuses the buffer of live"):
        open_pretended(library)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_that_plans_have_not_is_refused(
    open_pretended: Callable[..., Engine], gpu: Any, precision: Precision
) -> None:
    with pytest.raises(EngineError, match=f"computes in f16 or f32 here, got a request for {precision}"):
        open_pretended(Library(gpu), precision=precision)


def test_settings_are_taken_without_a_rebuild(open_pretended: Callable[..., Engine], gpu: Any) -> None:
    library = Library(gpu)
    engine = open_pretended(library)
    engine.set_grey_table(
        np.linspace(0.5, 1.0, 256, dtype=np.float32), np.linspace(0, 99, 256, dtype=np.float32)
    )
    engine.set_field(np.zeros((64, 80), np.uint8))
    said = infer(engine, np.zeros((64, 80), np.uint8))[1]
    assert (said.minimum, said.maximum, said.area) == (0.5, 99.0, 0.0)
    assert len(library.plans) == 1


# What this machine answers ------------------------------------------------------------------------------------------


def no_gpu() -> bool:
    return probe_cuda()[0] is None


@pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU")
def test_without_a_driver_auto_takes_the_cpu_and_says_why(tiny_model: Path) -> None:
    opened = open_engine(tiny_model, SPEC)
    opened.engine.close()
    reasons = dict(opened.skipped)
    assert opened.engine.backend == "openvino"
    assert reasons["tensorrt"] == 'tensorrt is not installed; run: pip install -e ".[trt]"'
    assert reasons["tensorrt_rtx"] == probe_cuda()[1]
    assert "NVIDIA" in reasons["tensorrt_rtx"]


@pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU")
def test_without_a_driver_the_shipped_model_runs_on_the_cpu() -> None:
    opened = open_engine("compact", EngineSpec(64, 64))
    opened.engine.close()
    assert [name for name, _ in opened.skipped] == ["tensorrt", "tensorrt_rtx", "torch"]


@pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU")
def test_the_real_library_without_a_driver_refuses_its_own_plan_in_a_sentence(
    tiny_model: Path, just_built: None
) -> None:
    runtime = tensorrt_engine.make_runtime(trt)
    with pytest.raises(EngineError, match=r"refuses the plan of tiny\.onnx .*cudaError 35.*another backend"):
        tensorrt_engine.load_plan(trt, runtime, load_model(tiny_model), SPEC, "f16", L4)


@pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU")
def test_opening_by_hand_without_a_driver_is_a_sentence(tiny_model: Path) -> None:
    open_cuda.cache_clear()
    with pytest.raises(EngineError, match=r"no NVIDIA driver is loaded|no NVIDIA GPU is visible"):
        open_tensorrt(load_model(tiny_model), SPEC, module="tensorrt_rtx")


def test_a_gpu_that_rtx_does_not_list_is_sent_to_torch_or_full_tensorrt() -> None:
    reason = refusal(trt, H200)
    assert "75, 80, 86, 89, 120, 121, this GPU is a NVIDIA H200 of 90;" in reason
    assert '(pip install -e ".[trt]") or the backend torch' in reason
    assert refusal(trt, L4) == ""
    assert refusal(FullLibrary(None), H200) == ""


@pytest.mark.parametrize(
    ("probe", "device", "usable", "reason"),
    [
        pytest.param(probe_tensorrt_rtx, L4, True, "", id="rtx on a listed GPU"),
        pytest.param(probe_tensorrt_rtx, H200, False, "or the backend torch", id="rtx on another"),
        pytest.param(probe_tensorrt, L4, False, "tensorrt is not installed", id="tensorrt"),
    ],
)
def test_a_probe_looks_at_library_and_gpu(
    monkeypatch: pytest.MonkeyPatch,
    probe: Callable[[], tuple[bool, str]],
    device: Device,
    usable: bool,
    reason: str,
) -> None:
    monkeypatch.setattr(tensorrt_engine, "probe_cuda", lambda: (device, ""))
    found, said = probe()
    assert found is usable
    assert reason in said


def test_an_old_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt, "__version__", "1.5.0.1")
    with pytest.raises(EngineError, match=r"needed tensorrt_rtx 1\.7 or later, got 1\.5\.0\.1; run: pip"):
        tensorrt_engine.load_tensorrt("tensorrt_rtx")


def test_a_given_context_is_only_for_tensorrt(tiny_model: Path, gpu: Any) -> None:
    with pytest.raises(
        EngineError, match="openvino: it does not run in a given CUDA context; leave cuda out"
    ):
        open_engine(tiny_model, SPEC, "openvino", cuda=Cuda(gpu))


def test_the_calls_of_a_given_context_reach_the_engine(
    tiny_model: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(gpu)
    monkeypatch.setitem(opening.PROBES, "tensorrt_rtx", lambda: (True, ""))
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", lambda name: library)
    opened = open_engine(tiny_model, SPEC, "tensorrt_rtx", cuda=Cuda(gpu))
    assert opened.engine.backend == "tensorrt_rtx"
    opened.engine.close()
    assert gpu.count_alive() == {}


@pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU")
def test_pycuda_that_is_not_here_is_a_sentence() -> None:
    with pytest.raises(EngineError, match=r"pycuda is not installed; run: pip|it needs an NVIDIA driver"):
        choose_cuda("pycuda")
