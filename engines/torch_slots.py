"""The torch backend's slots: one frame's buffers on the device, its way there and back, and what orders two of them.

On a GPU a slot owns a stream. What lies on it for one frame:

    copy in        the live plane, from page-locked memory in place
    wait           for the inference of the slot submitted before
    inference      a CUDA graph, bytes in and bytes out
    wait           for the copy out of the slot submitted before
    copy out       synthetic, attention, statistics

So one slot's copies overlap the other's inference, and slots finish in the order of their submission.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.base import BaseSlot
from engines.engine import EngineSpec
from engines.errors import CudaError, CudaLost, CudaOutOfMemory, EngineError
from engines.model import STATISTICS
from engines.page_lock import Mapping, PageLocks, address_of, whole_mapping
from engines.planes import Settings, unlocked
from engines.reference import SettingTensors, draw

WARM_UP = 3
"""Inferences before a capture: what a first one does (choose algorithms, take memory) no graph can hold."""
MAPPINGS_KEPT = 8
"""Rings that stay page-locked while no slot is bound to them: page-locking anew takes milliseconds."""
OUTPUTS = ("synthetic", "attention", "statistics")
Logits = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def reason_of(error: BaseException) -> str:
    """The first line of a torch error, which holds the reason; the rest is advice for torch's own developers."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


class Picture:
    """One frame on the device: buffers that never move, and the inference from one to the others.

    Args:
        logits: The network.
        size: The network's rows and columns.
        threshold: t of the attention's clamp.
        spec: Frame size and bits.
        settings: Grey levels and field to begin with.
        device: Where.
    """

    def __init__(
        self,
        logits: Logits,
        size: int,
        threshold: float,
        spec: EngineSpec,
        settings: Settings,
        device: str,
    ) -> None:
        self._logits, self._size, self._threshold = logits, size, threshold
        shape = (spec.rows, spec.columns)
        self.live = torch.zeros((*shape, spec.sample_bytes), dtype=torch.uint8, device=device)
        self.synthetic = torch.zeros_like(self.live)
        self.attention = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.statistics = torch.zeros(STATISTICS, device=device)
        self.settings = SettingTensors.of(settings, device)
        self._pinned = self.live.is_cuda

    def infer(self) -> None:
        """`live` to `synthetic`, `attention` and `statistics`, all in place; waits for nothing."""
        with torch.no_grad():
            low, *high = self.live.unbind(-1)
            stored = low.float() + 256.0 * high[0].float() if high else low.float()
            drawn = draw(self._logits, self._size, self._threshold, stored, self.settings)
            whole = drawn.stored.to(torch.int32)
            for byte, plane in enumerate(self.synthetic.unbind(-1)):
                plane.copy_((whole >> (8 * byte)) & 255)
            self.attention.copy_(drawn.level)
            self.statistics.copy_(drawn.statistics)

    def take(self, settings: Settings) -> None:
        """Write other grey levels and another field into the same buffers, in the order of the current stream."""
        for target, array in (
            (self.settings.table, settings.table),
            (self.settings.inverse, settings.inverse),
            (self.settings.field, settings.field),
        ):
            given = torch.from_numpy(np.array(array))
            # `torch.tensor(array, pin_memory=True)` refuses an array of numpy's. The page-locked copy is torch's own, which
            # keeps it until the copy to the GPU is over.
            target.copy_(given.pin_memory() if self._pinned else given, non_blocking=True)


class HostSlot(BaseSlot):
    """A slot on the CPU: `submit` computes. Implements `engines.engine.Slot`.

    Args:
        spec: Frame size and bits.
        picture: Its buffers.
        settings: Gives the engine's present settings.
    """

    def __init__(self, spec: EngineSpec, picture: Picture, settings: Callable[[], Settings]) -> None:
        super().__init__(spec, settings)
        self._picture = picture
        self._taken: Settings | None = None
        self._planes: dict[str, Tensor] = {}
        self._failure: RuntimeError | None = None
        self._statistics = torch.zeros(STATISTICS)

    def _attach(self, planes: dict[str, np.ndarray]) -> None:
        # torch warns of read-only arrays; live is only read.
        self._planes = {name: torch.from_numpy(unlocked(array)) for name, array in planes.items()}

    def _begin(self) -> None:
        try:
            self._start()
        except RuntimeError as error:  # torch's errors share no narrower base
            self._failure = error

    def _start(self) -> None:
        self._copy_in()
        self._picture.infer()
        self._copy_out()

    def _copy_in(self) -> None:
        settings = self._present()
        if settings is not self._taken:
            self._picture.take(settings)
            self._taken = settings
        self._picture.live.copy_(self._planes["live"], non_blocking=True)

    def _copy_out(self) -> None:
        targets = {**self._planes, "statistics": self._statistics}
        for name in OUTPUTS:
            targets[name].copy_(getattr(self._picture, name), non_blocking=True)

    def ready(self) -> bool:
        return True

    def _end(self) -> np.ndarray:
        try:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            self._finish()
        except RuntimeError as error:
            raise self._told(error) from error
        statistics: np.ndarray = self._statistics.numpy()
        return statistics

    def _finish(self) -> None:
        """Wait for what `_start` has begun."""

    def _told(self, error: RuntimeError) -> EngineError:
        return EngineError(f"torch failed on a frame: {reason_of(error)}; open the engine anew")

    def close(self) -> None:
        """Wait for what is in flight and let go of everything."""
        self._planes, self._bound = {}, {}


class Shared:
    """What the slots of an engine share: whose turn it was last, and the mappings that stay page-locked.

    Args:
        locks: What this process has page-locked for the GPU; other engines may use the same ring.
    """

    def __init__(self, locks: PageLocks) -> None:
        self.last: CudaSlot | None = None
        """The slot submitted last; the next one's inference comes after its."""
        self.locks = locks
        self._kept: OrderedDict[int, Mapping] = OrderedDict()
        self._guard = threading.Lock()  # slots are bound from more than one thread

    def keep(self, whole: np.ndarray) -> None:
        """Leave a mapping page-locked though no slot is bound to it; of many, those used last."""
        start = address_of(whole)
        with self._guard:
            if start not in self._kept:
                self._kept[start] = self.locks.hold(whole)
            self._kept.move_to_end(start)
            if len(self._kept) > MAPPINGS_KEPT:
                self.let_go(self._kept.popitem(last=False)[1])

    def let_go(self, mapping: Mapping) -> None:
        """Give a mapping back."""
        with contextlib.suppress(CudaError):  # a GPU that is lost has let go of the pages already
            self.locks.let_go(mapping)

    def close(self) -> None:
        """Give all of them back."""
        while self._kept:
            self.let_go(self._kept.popitem()[1])


class CudaSlot(HostSlot):
    """A slot on a GPU: everything asynchronous, on a stream of its own.

    Args:
        spec: Frame size and bits.
        picture: Its buffers.
        settings: Gives the engine's present settings.
        cuda: `torch.cuda`, or what stands in for it in a test.
        shared: What it shares with the engine's other slots.
        capture: Hold the inference in a CUDA graph.
    """

    def __init__(
        self,
        spec: EngineSpec,
        picture: Picture,
        settings: Callable[[], Settings],
        *,
        cuda: Any,
        shared: Shared,
        capture: bool,
    ) -> None:
        super().__init__(spec, picture, settings)
        self._cuda = cuda
        self._shared = shared
        pinned = picture.live.is_cuda
        self._statistics = torch.zeros(STATISTICS, pin_memory=pinned)
        self._staging = {
            name: torch.zeros_like(getattr(picture, name), device="cpu", pin_memory=pinned)
            for name in ("live", "synthetic", "attention")
        }
        self._staged: dict[str, Tensor] = {}
        """The caller's planes that no copy of the GPU reaches; each goes through `_staging`."""
        self._held: list[Mapping] = []
        self._stream = cuda.Stream()
        self._inferred = cuda.Event()
        # Blocking: a thread that spins until a frame is done would take a core from the frame path.
        self._done = cuda.Event(blocking=True)
        self._graph: Any = None
        self.why_no_graph = "" if capture else "not asked for"
        self._warm_up()
        if capture:
            self._capture()

    def _warm_up(self) -> None:
        self._cuda.synchronize()  # the buffers were filled on another stream
        with self._cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._infer()
        self._stream.synchronize()

    def _capture(self) -> None:
        graph = self._cuda.CUDAGraph()
        try:
            # The outer one gives the stream back where the inner one, which ends a failed capture, does not.
            with (
                self._cuda.stream(self._stream),
                # In the default mode a call of any other thread of this process could break the capture.
                self._cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._infer()
        except RuntimeError as error:
            self.why_no_graph = reason_of(error)
            self._warm_up()  # a device that the capture has left unusable is found now
            return
        self._graph = graph

    @property
    def captured(self) -> bool:
        """Whether the inference is a CUDA graph."""
        return self._graph is not None

    def _infer(self) -> None:
        # Convolutions of one shape for ever: worth choosing by trial. TF32 would make f32 something else.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            self._picture.infer()

    def _attach(self, planes: dict[str, np.ndarray]) -> None:
        super()._attach(planes)
        self._staged = {}
        held: list[Mapping] = []
        for name, array in planes.items():
            whole = whole_mapping(array)
            if whole is not None:
                held.append(self._shared.locks.hold(whole))
                self._shared.keep(whole)
            if whole is None or not held[-1].locked:
                self._staged[name] = self._planes[name]
                self._planes[name] = self._staging[name]
        # Only now, so that a mapping in which the planes before lay too stays page-locked.
        self._let_go()
        self._held = held

    def _let_go(self) -> None:
        for mapping in self._held:
            self._shared.let_go(mapping)
        self._held = []

    def _start(self) -> None:
        if "live" in self._staged:
            self._planes["live"].copy_(self._staged["live"])
        before = self._shared.last if self._shared.last is not self else None
        self._shared.last = self
        with self._cuda.stream(self._stream):
            self._copy_in()
            if before is not None:
                self._stream.wait_event(before._inferred)
            if self._graph is not None:
                self._graph.replay()
            else:
                self._infer()
            self._inferred.record(self._stream)
            if before is not None:
                self._stream.wait_event(before._done)
            self._copy_out()
            self._done.record(self._stream)

    def ready(self) -> bool:
        if not self._busy or self._failure is not None:
            return True
        try:
            return bool(self._done.query())
        except RuntimeError as error:
            self._failure = error  # told by wait()
            return True

    def _finish(self) -> None:
        self._done.synchronize()
        for name in ("synthetic", "attention"):
            if name in self._staged:
                self._staged[name].copy_(self._staging[name])

    def _told(self, error: RuntimeError) -> EngineError:
        """What became of the device; after this nothing is in flight, since the planes are given back now."""
        said, code = f"torch failed on a frame: {reason_of(error)}", type(error).__name__
        try:
            self._stream.synchronize()
        except RuntimeError:
            # An error that stays: CUDA answers this process no more.
            return CudaLost(f"{said}; start the engine process anew", call="torch", code=code)
        kind = CudaOutOfMemory if isinstance(error, torch.OutOfMemoryError) else CudaError
        return kind(f"{said}; the next frame is tried again", call="torch", code=code)

    def close(self) -> None:
        # A device that failed has nothing in flight any more, and its graph went with it.
        with contextlib.suppress(RuntimeError):
            self._stream.synchronize()
            if self._graph is not None:
                self._graph.reset()
        self._graph = None
        self._busy = False
        self._staged = {}
        super().close()
        self._let_go()
