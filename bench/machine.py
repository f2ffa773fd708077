"""What this machine is. A figure without its machine means nothing."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from stream.gpu import read_gpus

PACKAGES = (
    "contrastream",
    "numpy",
    "opencv-python",
    "pyzmq",
    "pydicom",
    "openvino",
    "onnxruntime",
    "torch",
    "tensorrt-cu13",
    "tensorrt-rtx-cu13",
    "cuda-bindings",
    "nvidia-ml-py",
)
"""Whose version a report names, where installed."""
FAST_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)


def _text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def cpu_facts() -> dict[str, Any]:
    """The CPU's model, the cores this process may use, and the instructions that decide an engine's precision."""
    fields: dict[str, str] = {}
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    present = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cores_online": os.cpu_count(),
        "flags": [flag for flag in FAST_CPU_FLAGS if flag in present],
        "hypervisor": "hypervisor" in present,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def memory_bytes() -> tuple[int, int]:
    """Memory of the machine and what is left of it."""
    fields = dict(line.split(":", 1) for line in (_text("/proc/meminfo") or "").splitlines())

    def read(name: str) -> int:
        return int(fields.get(name, "0 kB").split()[0]) * 1024

    return read("MemTotal"), read("MemAvailable")


def _core_times_ms() -> list[float]:
    # user nice system idle iowait irq softirq steal guest guest_nice, in clock ticks: proc_stat(5)
    first = (_text("/proc/stat") or "").partition("\n")[0].split()[1:]
    return [int(ticks) * 1000.0 / os.sysconf("SC_CLK_TCK") for ticks in first]


def steal_ms() -> float | None:
    """Time the hypervisor took from all cores since boot, in ms; None where the kernel does not count it."""
    times = _core_times_ms()
    return times[7] if len(times) > 7 else None


def busy_ms() -> float:
    """Time all cores have run processes of this machine since boot, in ms."""
    return sum(_core_times_ms()[:3])


def scheduling() -> str:
    """How the kernel ranks this process, which its children inherit: real-time figures are not everyday ones."""
    names = {
        os.SCHED_OTHER: "normal",
        os.SCHED_FIFO: "SCHED_FIFO",
        os.SCHED_RR: "SCHED_RR",
        os.SCHED_BATCH: "batch",
    }
    policy = os.sched_getscheduler(0)
    named = names.get(policy, f"policy {policy}")
    if policy in (os.SCHED_FIFO, os.SCHED_RR):
        return f"{named} {os.sched_getparam(0).sched_priority}"
    return f"{named}, nice {os.nice(0)}"


def package_versions() -> dict[str, str]:
    """Versions of the packages that a figure may depend on, where installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """The machine block of every report."""
    total, available = memory_bytes()
    gpus, why_no_gpu = read_gpus()
    return {
        "cpu": cpu_facts(),
        "memory_gib": round(total / 2**30, 1),
        "memory_available_gib": round(available / 2**30, 1),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "packages": package_versions(),
        "gpus": gpus,
        "why_no_gpu": why_no_gpu or None,
        "scheduling": scheduling(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "steal_since_boot_ms": steal_ms(),
    }


def one_line(machine: dict[str, Any]) -> str:
    """The machine in one line, for tables."""
    cpu = machine["cpu"]
    named = {"amx_bf16": "AMX bf16", "avx512_bf16": "AVX512 bf16", "avx512_vnni": "VNNI", "avx2": "AVX2"}
    best = next((name for flag, name in named.items() if flag in cpu["flags"]), "no AVX2")
    gpu = ", ".join(f"{gpu['name']} (driver {gpu['driver']})" for gpu in machine["gpus"]) or "no GPU seen"
    return (
        f"{cpu['cores']} cores of {cpu['model']} ({best}{', virtual' if cpu['hypervisor'] else ''}), "
        f"{machine['memory_gib']} GiB, {gpu}, {machine['system']} {machine['kernel']}, "
        f"Python {machine['python']}, load {machine['load_average'][0]}, priority {machine['scheduling']}"
    )
