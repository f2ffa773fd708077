"""Whether torch can be an engine here, asked of its files and of the driver before torch itself is imported.

Importing torch takes seconds and 200 MB, which a machine without a GPU must not pay for an answer of no.
"""

import ast
import ctypes
import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.driver import Driver, find_driver

INSTALL = 'pip install -e ".[torch]"'
INDEX = "https://download.pytorch.org/whl"


@dataclass(frozen=True)
class TorchBuild:
    """What an installed torch was built for, as its version file says."""

    version: str
    cuda: tuple[int, int] | None
    """None for a build without CUDA."""
    hip: str | None
    """Set in a build for AMD's GPUs."""


def probe_torch(
    *,
    find: Callable[[str], Any] = importlib.util.find_spec,
    load: Callable[[str], Any] = ctypes.CDLL,
    import_torch: Callable[[], Any] = lambda: importlib.import_module("torch"),
) -> tuple[bool, str]:
    """Whether the torch backend can run here; else why not and what to do.

    Args:
        find: Finds a module without importing it.
        load: Opens the driver's library.
        import_torch: Imports torch; only called where a driver and a GPU are there and torch is built for them.
    """
    for package in ("torch", "onnx"):
        if (spec := find(package)) is None:
            return False, f"{package} is not installed; run: {INSTALL}"
        if package == "torch":
            build = read_build(Path(spec.origin).parent / "version.py")
    if build.hip is not None:
        return False, f"torch {build.version} is built for AMD GPUs; install it from {INDEX}"
    driver, why = find_driver(load)
    if build.cuda is None:
        cuda_build = f"install a CUDA build of torch from {INDEX}"
        if driver is not None:
            return False, f"torch {build.version} is built without CUDA; {cuda_build}"
        said, _, mend = why.partition("; ")
        return (
            False,
            f"torch {build.version} is built without CUDA, and there is {said}; {mend}, then {cuda_build}",
        )
    if driver is None:
        return False, why
    if driver.cuda[0] < build.cuda[0]:
        major, minor = driver.cuda
        return False, (
            f"torch {build.version} needs a driver for CUDA {build.cuda[0]}, got one for {major}.{minor}; "
            f"update the driver, or install torch for CUDA {major} from {INDEX}"
        )
    return _ask_torch(import_torch(), build, driver)


def read_build(version_file: Path) -> TorchBuild:
    """What torch's version file says, without running it; a build without CUDA where it cannot be read."""
    said: dict[str, str | None] = {}
    try:
        statements = ast.parse(version_file.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        statements = []
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        value = getattr(statement, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                said[target.id] = None if value.value is None else str(value.value)
    numbers = re.match(r"(\d+)\.(\d+)", said.get("cuda") or "")
    return TorchBuild(
        said.get("__version__") or "of unknown version",
        (int(numbers[1]), int(numbers[2])) if numbers else None,
        said.get("hip"),
    )


def _ask_torch(torch: Any, build: TorchBuild, driver: Driver) -> tuple[bool, str]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        said = str(heard[-1].message).splitlines()[0][:200] if heard else "it does not say why"
        return False, f"torch {build.version} cannot use the GPU: {said}; look at nvidia-smi"
    archs = torch.cuda.get_arch_list()
    if not covers(archs, driver.gpus[0].capability):
        return False, (
            f"torch {build.version} is built for {' '.join(archs)}, got {driver.gpus[0]}; "
            f"install a build for it from {INDEX}"
        )
    return True, ""


def covers(archs: list[str], capability: tuple[int, int]) -> bool:
    """Whether a build for these architectures runs on a GPU.

    Code for sm_XY runs on a GPU of the same major and the same or a higher minor version; compute_XY is compiled
    on the machine for any later GPU; with a letter behind it is for that one alone.
    """
    for arch in archs:
        if (found := re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch)) is None:
            continue
        kind, major, minor, letter = found[1], int(found[2]), int(found[3]), found[4]
        if letter:
            if (major, minor) == capability:
                return True
        elif kind == "compute":
            if (major, minor) <= capability:
                return True
        elif major == capability[0] and minor <= capability[1]:
            return True
    return False
