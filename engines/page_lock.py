"""Shared memory page-locked where it lies, so that the GPU's copies read and write it with no copy on the host.

Only memory mappings are page-locked, each as a whole and once, however many planes, slots and engines use it: a
ring is one mapping. CUDA refuses a range twice, and memory of the heap may be given back or share its pages with
others, so planes elsewhere go through pinned buffers of their slot.
"""

import logging
import mmap
import threading
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from engines.errors import CudaError

log = logging.getLogger(__name__)

PAGE = mmap.PAGESIZE


@runtime_checkable
class Registrar(Protocol):
    """The two calls of `engines.cuda_calls.CudaCalls` that page-lock a mapping."""

    def register(self, address: int, size: int) -> None: ...

    def unregister(self, address: int) -> None: ...


@dataclass(eq=False)
class Mapping:
    """A mapping that CUDA has been asked to page-lock."""

    start: int
    size: int
    view: np.ndarray
    """Keeps it mapped: what is page-locked must not vanish."""
    locked: bool
    """Whether CUDA did."""
    users: int = 0


class PageLocks:
    """What one process has page-locked for one GPU.

    Args:
        calls: CUDA.
    """

    def __init__(self, calls: Registrar) -> None:
        self._calls = calls
        self._mappings: dict[int, Mapping] = {}
        self._guard = threading.Lock()
        self._said = False

    def hold(self, view: np.ndarray) -> Mapping:
        """A mapping, page-locked at its first use.

        Whoever gets one gives it back with `let_go`. A refusal of CUDA is said once; the mapping tells of it.

        Args:
            view: What `whole_mapping` gave.
        """
        start = address_of(view)
        with self._guard:
            mapping = self._mappings.get(start)
            if mapping is None:
                mapping = self._mappings[start] = self._lock(start, view)
            mapping.users += 1
            return mapping

    def _lock(self, start: int, view: np.ndarray) -> Mapping:
        size = -(-view.nbytes // PAGE) * PAGE
        try:
            self._calls.register(start, size)
        except CudaError as error:
            if not self._said:
                self._said = True
                log.warning("frames are copied once more on the host, through pinned buffers: %s", error)
            return Mapping(start, view.nbytes, view, locked=False)
        return Mapping(start, view.nbytes, view, locked=True)

    def let_go(self, mapping: Mapping) -> None:
        """A user is done with a mapping; with its last user it is page-locked no more.

        Raises:
            CudaError: CUDA did not unlock it; it is forgotten all the same.
        """
        with self._guard:
            mapping.users -= 1
            if mapping.users:
                return
            del self._mappings[mapping.start]
            if mapping.locked:
                self._calls.unregister(mapping.start)


def address_of(array: np.ndarray) -> int:
    """Where an array's first byte lies."""
    return int(array.__array_interface__["data"][0])  # several times cheaper than array.ctypes


def whole_mapping(array: np.ndarray) -> np.ndarray | None:
    """All bytes of the memory mapping that an array is a view of; None where its memory is no mapping."""
    owner: object = array
    while not isinstance(owner, mmap.mmap):
        if isinstance(owner, np.ndarray):
            owner = owner.base
        elif isinstance(owner, memoryview):
            owner = owner.obj
        else:
            return None
    return np.frombuffer(owner, np.uint8)
