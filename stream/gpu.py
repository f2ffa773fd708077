"""What the GPU is doing, once a second, through NVIDIA's management library (NVML; package nvidia-ml-py).

NVML is the vendor's code and waits for the kernel's driver: where a GPU falls off the bus, a call of it may take
seconds or never return, and a process inside such a call cannot be ended. So it runs in a process of its own,
neither in the guard, which holds no vendor's library and must never wait, nor in the engine process, whose death
is what its last words should explain. The guard reads what came when it makes the heartbeat, without waiting.

The process is started for an engine that runs on a GPU; a CPU engine's stream has none.
"""

import contextlib
import importlib
import importlib.util
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from stream.children import Child, exit_words
from stream.control import Kind, become_child, pack_json, unpack_json
from stream.timing import NS_PER_S, Clock

GPU_BACKENDS = ("tensorrt", "tensorrt_rtx", "torch")
INTERVAL_S = 1.0
RETRY_AFTER = 10
"""Intervals until a driver that is gone is asked again: it may have been loaded anew."""
SILENT_NS = 5 * NS_PER_S
INSTALL = 'pip install -e ".[cuda]"'
MIB = 2**20

THROTTLE_WORDS = {
    "GpuIdle": "idle",
    "ApplicationsClocksSetting": "application clocks",
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SyncBoost": "sync boost",
    "SwThermalSlowdown": "heat (driver)",
    "HwThermalSlowdown": "heat (hardware)",
    "HwPowerBrakeSlowdown": "power brake",
    "DisplayClockSetting": "display clocks",
}
"""nvmlClocksEventReason... in words: why the clocks are below what they could be."""
GONE = ("GpuIsLost", "DriverNotLoaded", "Uninitialized", "ResetRequired", "GpuNotFound")
"""NVMLError_... after which nothing is to be heard; any other failure is that of one figure."""
WORDS = {
    "LibraryNotFound": "no NVIDIA driver (libnvidia-ml.so.1 is not there); with a GPU, install its driver",
    "DriverNotLoaded": "the NVIDIA driver is not loaded; run: modprobe nvidia",
    "LibRmVersionMismatch": "the driver's library and its kernel module are of two versions; restart this machine",
    "GpuIsLost": "the GPU is lost: it fell off the bus or is off; look at dmesg, restart this machine",
    "ResetRequired": "the GPU must be reset; run: nvidia-smi --gpu-reset, or restart this machine",
    "NoPermission": "this user may not ask the driver; look at the rights of /dev/nvidiactl",
    "NotFound": "the engine's GPU is not among the driver's; look at nvidia-smi",
    "GpuNotFound": "the driver sees no GPU any more; look at nvidia-smi",
}
"""What an NVMLError_... means and what to do."""
SERIES = ("sm_mhz", "memory_mhz", "temperature_c", "power_w", "busy_percent", "memory_used_mib")


class NoGpu(Exception):
    """There is nothing to read; says why and what to do."""


def load_nvml() -> ModuleType:
    """The binding of NVML.

    Raises:
        NoGpu: It is not installed.
    """
    if importlib.util.find_spec("pynvml") is None:
        raise NoGpu(f"nvidia-ml-py is not installed; run: {INSTALL}")
    return importlib.import_module("pynvml")


def kind_of(error: Exception) -> str:
    """Which of NVML's errors it is."""
    return type(error).__name__.removeprefix("NVMLError_")


def why_of(error: Exception) -> str:
    """What an error of NVML means, and what to do."""
    kind = kind_of(error)
    return WORDS.get(kind, f"the NVIDIA driver says: {error} ({kind}); look at nvidia-smi")


class GpuReader:
    """One GPU, read through NVML.

    Args:
        nvml: The binding: `pynvml`, or what stands in for the hardware in a test.
        which: Which GPU: its number, or its place on the PCI bus.

    Raises:
        NoGpu: No driver, or no such GPU.
    """

    def __init__(self, nvml: Any, which: int | str = 0) -> None:
        self._nvml = nvml
        self._open = False
        try:
            nvml.nvmlInit()
            self._open = True
            self._handle = (
                nvml.nvmlDeviceGetHandleByIndex(which)
                if isinstance(which, int)
                else nvml.nvmlDeviceGetHandleByPciBusId(which)
            )
        except nvml.NVMLError as error:
            self.close()
            raise NoGpu(why_of(error)) from error
        try:
            self._fixed = self._ask_fixed()
        except NoGpu:
            self.close()
            raise

    def _ask_fixed(self) -> dict[str, Any]:
        nvml, handle = self._nvml, self._handle
        limit_mw = self._ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        return {
            "name": self._ask(lambda: str(nvml.nvmlDeviceGetName(handle))),
            "driver": self._ask(lambda: str(nvml.nvmlSystemGetDriverVersion())),
            "power_limit_w": None if limit_mw is None else limit_mw / 1000,
            "sm_max_mhz": self._ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
        }

    def _ask(self, call: Callable[[], Any]) -> Any:
        """One figure; None where this GPU or this user has it not.

        Raises:
            NoGpu: The GPU or its driver is gone.
        """
        try:
            return call()
        except self._nvml.NVMLError as error:
            if kind_of(error) in GONE:
                raise NoGpu(why_of(error)) from error
            return None

    def read(self) -> dict[str, Any]:
        """What the GPU is and does now; None for each figure that it does not tell.

        Raises:
            NoGpu: The GPU or its driver is gone.
        """
        nvml, handle = self._nvml, self._handle
        power_mw = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        rates = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return {
            **self._fixed,
            "sm_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "temperature_c": self._ask(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            "power_w": None if power_mw is None else power_mw / 1000,
            "busy_percent": None if rates is None else int(rates.gpu),
            "throttle": self._throttle(),
            "memory_used_mib": None if memory is None else round(memory.used / MIB),
            "memory_total_mib": None if memory is None else round(memory.total / MIB),
        }

    def _throttle(self) -> list[str] | None:
        nvml, handle = self._nvml, self._handle
        mask = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        if mask is None:  # drivers before 535 have it under its old name
            mask = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return None if mask is None else throttle_words(nvml, mask)

    def close(self) -> None:
        """Leave NVML; may be called twice."""
        if self._open:
            self._open = False
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()


def throttle_words(nvml: Any, mask: int) -> list[str]:
    """The reasons of a mask in words; a bit that has none yet as its number."""
    words = []
    for name, word in THROTTLE_WORDS.items():
        bit = getattr(nvml, f"nvmlClocksEventReason{name}")
        if mask & bit:
            words.append(word)
            mask &= ~bit
    return words + ([f"reason {mask:#x}"] if mask else [])


def read_gpus() -> tuple[list[dict[str, Any]], str]:
    """Every GPU of this machine as it is now, read in this process; where there is none, why."""
    readings: list[dict[str, Any]] = []
    try:
        nvml = load_nvml()
        count = 1
        while len(readings) < count:
            reader = GpuReader(nvml, len(readings))
            try:
                count = nvml.nvmlDeviceGetCount()
                readings.append(reader.read())
            finally:
                reader.close()
    except NoGpu as error:
        return readings, str(error)
    return readings, ""


@dataclass
class GpuSeries:
    """Least, mean and most of each figure over a time; constant memory."""

    readings: int = 0
    figures: dict[str, list[float]] = field(default_factory=dict)
    """By figure: count, sum, least, most."""
    throttled: dict[str, int] = field(default_factory=dict)
    """By reason: in how many readings."""
    last: dict[str, Any] = field(default_factory=dict)

    def add(self, reading: dict[str, Any]) -> None:
        """Take in one reading."""
        self.readings += 1
        self.last = reading
        for name in SERIES:
            if (value := reading.get(name)) is not None:
                count, total, least, most = self.figures.get(name, [0, 0.0, value, value])
                self.figures[name] = [count + 1, total + value, min(least, value), max(most, value)]
        for word in reading.get("throttle") or ():
            self.throttled[word] = self.throttled.get(word, 0) + 1

    def summary(self) -> dict[str, Any] | None:
        """For a report; None before the first reading."""
        if not self.readings:
            return None
        fixed = ("name", "driver", "power_limit_w", "sm_max_mhz", "memory_total_mib")
        return {
            **{name: self.last.get(name) for name in fixed},
            "readings": self.readings,
            "interval_s": INTERVAL_S,
            **{
                name: {"min": least, "mean": round(total / count, 1), "max": most}
                for name, (count, total, least, most) in self.figures.items()
            },
            "throttled_readings": dict(self.throttled),
        }


class GpuWatch:
    """The telemetry process as the guard sees it.

    Args:
        clock: The clock of the frame path.
        backend: The engine's; no process is started for one that runs on the CPU.
        bus_id: Which GPU it runs on; None for the first.
    """

    def __init__(self, clock: Clock, backend: str, bus_id: str | None = None) -> None:
        self._clock = clock
        self._heard_ns = clock.now_ns()
        self._child: Child | None = None
        self._reading: dict[str, Any] | None = None
        self._why = "the GPU has not been asked yet"
        self._series = GpuSeries()
        if backend not in GPU_BACKENDS:
            self._why = f"the engine runs on the CPU ({backend})"
        elif importlib.util.find_spec("pynvml") is None:
            self._why = f"nvidia-ml-py is not installed; run: {INSTALL}"
        else:
            self._child = Child("stream.gpu", {"bus_id": bus_id})

    def look(self) -> tuple[dict[str, Any] | None, str]:
        """The last reading, or None and why; never waits."""
        while self._child is not None:
            packet = self._child.receive()
            if packet is None:
                break
            if not packet:
                self._end(f"the telemetry process ended ({exit_words(self._child.kill())})")
                break
            try:
                said = unpack_json(packet)
                reading, why = said["gpu"], str(said["why"])
            except (ValueError, KeyError) as error:
                self._child.kill()
                self._end(f"the telemetry process sent what it must not ({type(error).__name__})")
                break
            self._heard_ns = self._clock.now_ns()
            self._reading, self._why = reading, why
            if reading is not None:
                self._series.add(reading)
        silent_ns = self._clock.now_ns() - self._heard_ns
        if self._child is not None and silent_ns > SILENT_NS:
            return None, f"the GPU has not answered for {silent_ns // NS_PER_S} s"
        return self._reading, self._why

    def _end(self, why: str) -> None:
        self._child = None
        self._reading, self._why = None, why

    def begin_anew(self) -> None:
        """Forget what came before, but for the last reading: a short time has none of its own."""
        reading, _ = self.look()
        self._series = GpuSeries()
        if reading is not None:
            self._series.add(reading)

    def report(self) -> dict[str, Any]:
        """What came so far, for a report: {"gpu": ..., "why": ...}, one of them null."""
        _, why = self.look()
        summary = self._series.summary()
        return {"gpu": summary, "why": None if summary is not None else why}

    def close(self) -> None:
        """End the process; may be called twice."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def watch_gpu(
    guard: socket.socket, nvml: Any, bus_id: str | None, wait: Callable[[float], None] = time.sleep
) -> None:
    """Tell the guard once a second what the GPU does, or why there is nothing to tell, until the guard is gone.

    Args:
        guard: A socket to the guard.
        nvml: As `GpuReader` takes it.
        bus_id: Which GPU.
        wait: Waits some seconds.
    """
    reader: GpuReader | None = None
    said: dict[str, Any] = {}
    waits = 0  # until the driver is asked again
    try:
        while True:
            waits -= 1
            if waits <= 0:
                try:
                    reader = reader or GpuReader(nvml, bus_id or 0)
                    said = {"gpu": reader.read(), "why": ""}
                except NoGpu as error:
                    if reader is not None:
                        reader.close()
                        reader = None
                    said, waits = {"gpu": None, "why": str(error)}, RETRY_AFTER
            try:
                # A guard that is busy does without this one.
                with contextlib.suppress(BlockingIOError):
                    guard.send(pack_json(Kind.GPU, said), socket.MSG_DONTWAIT)
            except OSError:
                return
            wait(INTERVAL_S)
    finally:
        if reader is not None:
            reader.close()


def main() -> int:
    """Entry point of the telemetry process: `python -m stream.gpu DESCRIPTOR`."""
    become_child()
    guard = socket.socket(fileno=int(sys.argv[1]))
    config = unpack_json(guard.recv(1 << 16))
    watch_gpu(guard, load_nvml(), config["bus_id"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
