"""An engine process whose GPU is pretended, and full when a test says so. Run by its Python before anything else.

The folder in CONTRASTREAM_PRETENDED holds a file `full` while no memory can be allocated on the GPU, a file `busy`
while an inference finds none, and a file `no room` while the disk of the cache is full. Plans are built for real.
"""

import errno
import os
import runpy
import threading
from pathlib import Path
from typing import Any

from engines import open as opening
from engines import plan_cache
from engines.cuda import Cuda
from engines.tensorrt_engine import open_tensorrt

FOLDER = Path(os.environ["CONTRASTREAM_PRETENDED"])
FAKES = runpy.run_path(str(Path(__file__).parents[1] / "engines" / "fake_tensorrt.py"))
FULL = FAKES["FAKES"]["Code"].cudaErrorMemoryAllocation
turn = threading.RLock()


class Gpu(FAKES["FAKES"]["FakeRuntime"]):  # type: ignore[misc]
    """One call at a time, since an engine process has two threads; and as full as the test says."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not (callable(found) and name.startswith("cuda") and name[4].isupper()) or isinstance(found, type):
            return found

        def call(*arguments: Any) -> Any:
            with turn:
                return found(*arguments)

        return call

    def _begin(self, call: str) -> Any:
        self.calls.clear()
        self.log.clear()
        if call == "cudaMalloc" and (FOLDER / "full").exists():
            return FULL
        return super()._begin(call)

    def kernel(self, *arguments: Any) -> Any:
        with turn:
            return super().kernel(*arguments)


class Library(FAKES["Library"]):  # type: ignore[misc]
    """Refuses an inference while the test says so."""

    @property
    def refuses_frames(self) -> int:
        return int((FOLDER / "busy").exists())

    @refuses_frames.setter
    def refuses_frames(self, left: int) -> None: ...


def open_pretended(model: Any, spec: Any, **more: Any) -> Any:
    gpu = Gpu()
    return open_tensorrt(model, spec, module=Library(gpu, spec), cuda=Cuda(gpu), **more)


def write_whole(path: Path, content: bytes) -> None:
    if (FOLDER / "no room").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write_for_real(path, content)


write_for_real = plan_cache.write_whole
plan_cache.write_whole = write_whole
opening.PROBES["tensorrt_rtx"] = lambda: (True, "")
opening.LOADERS["tensorrt_rtx"] = lambda: None
opening.OPENERS["tensorrt_rtx"] = open_pretended
