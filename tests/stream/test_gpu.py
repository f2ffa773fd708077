"""GPU telemetry. Every name is that of the real pynvml; a stand-in gives the hardware's answers alone."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream import gpu as telemetry
from stream.control import Kind, unpack_json
from stream.gpu import (
    GONE,
    GPU_BACKENDS,
    THROTTLE_WORDS,
    WORDS,
    GpuReader,
    GpuSeries,
    GpuWatch,
    NoGpu,
    read_gpus,
    throttle_words,
    watch_gpu,
)
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.sources.options import SourceOptions
from stream.timing import FakeClock
from stream.wire import pack_status, unpack_status

pynvml = pytest.importorskip("pynvml")

SOURCE = Path(telemetry.__file__).read_text()


class FakeNvml:
    """Two GPUs that are not there. What is not answered here is the real module's: its errors and constants."""

    def __init__(self) -> None:
        self.fails: dict[str, type[Exception]] = {}
        self.opened = 0
        self.reasons = 0
        self.gpus = ["GPU of a test", "second GPU"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvml") and not name.startswith("nvmlClocks"):
            return lambda *arguments: self._answer(name, *arguments)
        return getattr(pynvml, name)

    def _answer(self, name: str, *arguments: Any) -> Any:
        getattr(pynvml, name)  # a name that the real one has not is an error of ours
        if name in self.fails:
            raise self.fails[name]()
        match name:
            case "nvmlInit":
                self.opened += 1
            case "nvmlShutdown":
                self.opened -= 1
        answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByPciBusId": lambda place: {"00000000:3b:00.0": 1}[place],
            "nvmlDeviceGetName": lambda handle: self.gpus[handle],
            "nvmlSystemGetDriverVersion": lambda: "580.95.05",
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
            "nvmlDeviceGetPowerUsage": lambda handle: 412_500,
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=45, memory=10),
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=3 << 30, total=141 << 30),
            "nvmlDeviceGetClockInfo": lambda handle, kind: {
                pynvml.NVML_CLOCK_SM: 1755, pynvml.NVML_CLOCK_MEM: 3201
            }[kind],
            "nvmlDeviceGetTemperature": lambda handle, sensor: 63,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: self.reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: self.reasons,
        }  # fmt: skip
        return answers[name](*arguments)


@pytest.fixture
def nvml() -> FakeNvml:
    return FakeNvml()


def test_every_name_of_the_binding_is_one_of_the_real_module() -> None:
    names = set(re.findall(r"nvml\.(\w+)", SOURCE))
    assert {"nvmlInit", "nvmlShutdown", "NVMLError", "NVML_CLOCK_SM"} <= names
    assert {name for name in names if not hasattr(pynvml, name)} == set()
    for kind in {*GONE, *WORDS}:
        assert issubclass(getattr(pynvml, f"NVMLError_{kind}"), pynvml.NVMLError)
    every = {name for name in vars(pynvml) if name.startswith("nvmlClocksEventReason")}
    assert {f"nvmlClocksEventReason{name}" for name in THROTTLE_WORDS} <= every


def test_a_reading_has_units_and_words(nvml: FakeNvml) -> None:
    nvml.reasons = pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    reader = GpuReader(nvml)
    assert reader.read() == {
        "name": "GPU of a test", "driver": "580.95.05", "power_limit_w": 700.0, "sm_max_mhz": 1980, "sm_mhz": 1755,
        "memory_mhz": 3201, "temperature_c": 63, "power_w": 412.5, "busy_percent": 45,
        "throttle": ["power cap", "heat (hardware)"], "memory_used_mib": 3072, "memory_total_mib": 144384,
    }  # fmt: skip
    reader.close()
    reader.close()
    assert nvml.opened == 0


def test_every_throttle_reason_has_a_word_and_an_unknown_bit_its_number() -> None:
    assert throttle_words(pynvml, 0) == []
    assert throttle_words(pynvml, pynvml.nvmlClocksEventReasonGpuIdle) == ["idle"]
    known = sum(getattr(pynvml, f"nvmlClocksEventReason{name}") for name in THROTTLE_WORDS)
    assert throttle_words(pynvml, known | 1 << 40) == [*THROTTLE_WORDS.values(), "reason 0x10000000000"]


def test_the_engines_own_gpu_is_found_by_its_place_on_the_bus(nvml: FakeNvml) -> None:
    assert GpuReader(nvml, "00000000:3b:00.0").read()["name"] == "second GPU"


@pytest.mark.parametrize("error", ["NotSupported", "NoPermission", "FunctionNotFound"])
def test_a_figure_that_a_gpu_does_not_tell_is_null_and_the_others_stay(nvml: FakeNvml, error: str) -> None:
    kind = getattr(pynvml, f"NVMLError_{error}")
    nvml.reasons = pynvml.nvmlClocksEventReasonSwPowerCap
    for name in (
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCurrentClocksEventReasons",
    ):
        nvml.fails[name] = kind
    reading = GpuReader(nvml).read()
    assert reading["power_w"] is reading["busy_percent"] is reading["memory_used_mib"] is None
    assert reading["temperature_c"] == 63
    assert reading["throttle"] == ["power cap"], "an old driver tells it under the old name"
    nvml.fails["nvmlDeviceGetCurrentClocksThrottleReasons"] = kind
    assert GpuReader(nvml).read()["throttle"] is None


@pytest.mark.parametrize("kind", GONE)
def test_a_gpu_that_goes_in_mid_run_is_a_reason(nvml: FakeNvml, kind: str) -> None:
    reader = GpuReader(nvml)
    nvml.fails["nvmlDeviceGetTemperature"] = getattr(pynvml, f"NVMLError_{kind}")
    with pytest.raises(NoGpu, match=re.escape(WORDS.get(kind, f"({kind}); look at nvidia-smi"))):
        reader.read()
    nvml.fails["nvmlShutdown"] = getattr(pynvml, f"NVMLError_{kind}")
    reader.close()


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName"])
def test_a_gpu_that_cannot_be_opened_is_a_reason_and_leaves_nothing_open(nvml: FakeNvml, name: str) -> None:
    nvml.fails[name] = pynvml.NVMLError_DriverNotLoaded
    with pytest.raises(NoGpu, match="driver is not loaded; run: modprobe nvidia"):
        GpuReader(nvml)
    assert nvml.opened == 0


def test_all_gpus_of_a_machine_are_read(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "load_nvml", lambda: nvml)
    readings, why = read_gpus()
    assert [reading["name"] for reading in readings] == ["GPU of a test", "second GPU"]
    assert why == ""
    assert nvml.opened == 0


def test_a_machine_without_a_driver_has_no_gpu_and_a_reason() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        assert read_gpus() == ([], WORDS["LibraryNotFound"])
    else:
        pynvml.nvmlShutdown()
        pytest.skip("there is a driver here")


def test_a_binding_that_is_not_installed_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry.importlib.util, "find_spec", lambda name: None)
    assert read_gpus() == ([], 'nvidia-ml-py is not installed; run: pip install -e ".[cuda]"')
    watch = GpuWatch(FakeClock(), "torch")
    assert watch.look() == (None, 'nvidia-ml-py is not installed; run: pip install -e ".[cuda]"')


# The process, the guard's side of it ---------------------------------------------------------------------------


def told(
    nvml: FakeNvml, seconds: int, then: Callable[[int], None] = lambda second: None
) -> list[dict[str, Any]]:
    """What the telemetry process says in so many seconds, without waiting for one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[dict[str, Any]] = []

    def wait(interval_s: float) -> None:
        assert interval_s == 1.0
        packet = ours.recv(1 << 16)
        assert packet[0] == Kind.GPU
        heard.append(unpack_json(packet))
        then(len(heard))
        if len(heard) == seconds:
            ours.close()

    with theirs:
        watch_gpu(theirs, nvml, None, wait)
    return heard


def test_the_process_tells_once_a_second_until_the_guard_is_gone(nvml: FakeNvml) -> None:
    heard = told(nvml, 3)
    assert [said["gpu"]["temperature_c"] for said in heard] == [63, 63, 63]
    assert nvml.opened == 0


def test_a_lost_gpu_is_told_every_second_and_asked_for_again_now_and_then(nvml: FakeNvml) -> None:
    def happen(second: int) -> None:
        if second == 2:
            nvml.fails["nvmlDeviceGetMemoryInfo"] = pynvml.NVMLError_GpuIsLost
        if second == 5:
            nvml.fails.clear()

    heard = told(nvml, 16, happen)
    known = [said["gpu"] is not None for said in heard]
    assert known == [True, True] + [False] * telemetry.RETRY_AFTER + [True] * (14 - telemetry.RETRY_AFTER)
    assert heard[4] == {"gpu": None, "why": WORDS["GpuIsLost"]}
    assert nvml.opened == 0


class FakeChild:
    """What the guard holds of the process, with packets put in by hand."""

    def __init__(self, module: str, config: dict[str, Any]) -> None:
        self.module, self.config = module, config
        self.packets: list[bytes] = []
        self.killed = 0

    def say(self, said: Any) -> None:
        self.packets.append(bytes((Kind.GPU,)) + json.dumps(said).encode())

    def receive(self) -> bytes | None:
        return self.packets.pop(0) if self.packets else None

    def kill(self) -> int:
        self.killed += 1
        return -signal.SIGSEGV


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FakeChild]:
    children: list[FakeChild] = []

    def start(module: str, config: dict[str, Any]) -> FakeChild:
        children.append(FakeChild(module, config))
        return children[-1]

    monkeypatch.setattr(telemetry, "Child", start)
    return children


def test_the_guard_has_the_last_reading_and_a_series_of_all(started: list[FakeChild], nvml: FakeNvml) -> None:
    watch = GpuWatch(FakeClock(), "torch", "00000000:3b:00.0")
    (child,) = started
    assert (child.module, child.config) == ("stream.gpu", {"bus_id": "00000000:3b:00.0"})
    assert watch.look() == (None, "the GPU has not been asked yet")
    reading = GpuReader(nvml).read()
    for sm_mhz, throttle in ((1755, ["power cap"]), (1500, ["power cap", "idle"]), (1980, [])):
        child.say({"gpu": {**reading, "sm_mhz": sm_mhz, "throttle": throttle, "power_w": None}, "why": ""})
    now, why = watch.look()
    assert now is not None
    assert (now["sm_mhz"], why) == (1980, "")
    report = watch.report()
    assert report["why"] is None
    assert report["gpu"]["sm_mhz"] == {"min": 1500, "mean": 1745.0, "max": 1980}
    assert report["gpu"]["throttled_readings"] == {"power cap": 2, "idle": 1}
    assert "power_w" not in report["gpu"]
    assert (report["gpu"]["readings"], report["gpu"]["driver"]) == (3, "580.95.05")
    watch.begin_anew()
    assert watch.report()["gpu"]["sm_mhz"] == {"min": 1980, "mean": 1980.0, "max": 1980}
    watch.close()
    watch.close()
    assert child.killed == 1


def test_a_gpu_that_does_not_answer_is_a_reason(started: list[FakeChild], nvml: FakeNvml) -> None:
    clock = FakeClock()
    watch = GpuWatch(clock, "tensorrt")
    started[0].say({"gpu": GpuReader(nvml).read(), "why": ""})
    assert watch.look()[0] is not None
    clock.advance_ms(7000.0)
    assert watch.look() == (None, "the GPU has not answered for 7 s")
    started[0].say({"gpu": GpuReader(nvml).read(), "why": ""})
    assert watch.look()[0] is not None


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        pytest.param(b"", r"the telemetry process ended \(signal SIGSEGV\)", id="dead"),
        pytest.param(b"\x49{", "sent what it must not", id="cut off"),
        pytest.param(b"\x49{}", "sent what it must not", id="empty"),
        pytest.param(b"\x49[]", "sent what it must not", id="no object"),
    ],
)
def test_a_process_that_dies_or_talks_nonsense_is_a_reason(
    started: list[FakeChild], packet: bytes, why: str
) -> None:
    watch = GpuWatch(FakeClock(), "torch")
    started[0].packets.append(packet)
    for _ in range(2):
        reading, said = watch.look()
        assert reading is None
        assert re.search(why, said)
    assert started[0].killed == 1
    assert watch.report() == {"gpu": None, "why": said}


def test_a_cpu_engine_starts_no_process(started: list[FakeChild]) -> None:
    watch = GpuWatch(FakeClock(), "openvino")
    assert watch.report() == {"gpu": None, "why": "the engine runs on the CPU (openvino)"}
    assert started == []
    assert set(GPU_BACKENDS).isdisjoint({"openvino", "onnxruntime"})


def test_a_series_of_nothing_is_null() -> None:
    assert GpuSeries().summary() is None


def test_the_real_process_says_what_this_machine_has() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(60.0)
        ours.send(bytes((Kind.CONFIG,)) + json.dumps({"bus_id": None}).encode())
        process = subprocess.Popen(
            [sys.executable, "-m", "stream.gpu", str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        try:
            said = unpack_json(ours.recv(1 << 16))
        finally:
            process.kill()
            process.wait()
    assert (said["gpu"] is None) == bool(said["why"])
    readings, why = read_gpus()
    assert said["why"] == why
    assert not readings or said["gpu"]["name"] == readings[0]["name"]


def test_the_heartbeat_says_why_there_is_no_gpu_and_a_restarted_engine_keeps_its_watch(
    started: list[FakeChild], nvml: FakeNvml
) -> None:
    pipeline = Pipeline(PipelineConfig(source="phantom", options=SourceOptions(), endpoint="test-gpu"))
    try:
        assert (pipeline.status()["gpu"], pipeline.status()["gpu_why"]) == (None, "no engine has been opened")
        pipeline._engine.watch_gpu("torch", "00000000:3b:00.0")
        pipeline._engine.watch_gpu("torch", "00000000:3b:00.0")
        assert len(started) == 1
        started[0].say({"gpu": GpuReader(nvml).read(), "why": ""})
        status = unpack_status(pack_status(pipeline.status()))
        assert status["gpu"]["name"] == "GPU of a test"
        assert status["gpu_why"] is None
        pipeline._engine.watch_gpu("openvino", None)
        assert started[0].killed == 1
        assert pipeline.status()["gpu_why"] == "the engine runs on the CPU (openvino)"
    finally:
        pipeline._close()
    assert pipeline.gpu == {"gpu": None, "why": "the engine runs on the CPU (openvino)"}
