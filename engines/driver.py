"""What the NVIDIA driver says of its GPUs, asked through the driver's own library: no package and no CUDA context."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LIBRARY = "libcuda.so.1"
COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76
NO_DEVICE = 100
FAILURES = {
    NO_DEVICE: "no GPU that the driver can use (CUDA_ERROR_NO_DEVICE); look at nvidia-smi and CUDA_VISIBLE_DEVICES",
    3: "a driver that is not initialised (CUDA_ERROR_NOT_INITIALIZED); load the kernel module: modprobe nvidia",
    46: "a GPU held by another process in exclusive mode (CUDA_ERROR_DEVICE_UNAVAILABLE); end that process",
    802: "a GPU whose fabric manager is not ready (CUDA_ERROR_SYSTEM_NOT_READY); start nvidia-fabricmanager",
    803: "a driver whose library and kernel module are of two versions; restart this machine",
    804: "a GPU that does not take the driver's compatibility package; install the driver itself",
}
"""cuInit's answers that a user can do something about."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as CUDA counts them."""

    name: str
    capability: tuple[int, int]
    """Compute capability, such as (9, 0)."""

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor})"


@dataclass(frozen=True)
class Driver:
    """An NVIDIA driver that answers."""

    cuda: tuple[int, int]
    """The newest CUDA version that it runs."""
    gpus: tuple[Gpu, ...]


def find_driver(load: Callable[[str], Any] = ctypes.CDLL) -> tuple[Driver | None, str]:
    """The driver with its GPUs, at least one; or None, why, and what to do.

    Args:
        load: Opens a shared library by name.
    """
    try:
        library = load(LIBRARY)
    except OSError:
        return None, f"no NVIDIA driver ({LIBRARY} is not there); with a GPU, install its driver"
    if (code := library.cuInit(0)) != 0:
        return None, FAILURES.get(
            code, f"a driver that cannot start (cuInit: error {code}); look at nvidia-smi"
        )
    version = _integer(library.cuDriverGetVersion)
    count = _integer(library.cuDeviceGetCount)
    if not count:
        return None, FAILURES[NO_DEVICE]
    return (
        Driver(
            (version // 1000, version % 1000 // 10),
            tuple(_read_gpu(library, index) for index in range(count)),
        ),
        "",
    )


def _integer(call: Callable[..., int], *arguments: Any) -> int:
    """What a driver call writes into its first argument; 0 where it fails."""
    value = ctypes.c_int(0)
    return value.value if call(ctypes.byref(value), *arguments) == 0 else 0


def _read_gpu(library: Any, index: int) -> Gpu:
    device = ctypes.c_int(_integer(library.cuDeviceGet, ctypes.c_int(index)))
    name = ctypes.create_string_buffer(128)
    library.cuDeviceGetName(name, ctypes.c_int(len(name)), device)
    major, minor = (
        _integer(library.cuDeviceGetAttribute, ctypes.c_int(attribute), device)
        for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR)
    )
    return Gpu(name.value.decode(errors="replace"), (major, minor))
