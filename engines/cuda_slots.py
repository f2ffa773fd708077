"""Two frames or more at once on one GPU: copy-in, inference and copy-out, each in the order of its slot's stream.

    slot 0:  in 0 | infer 0 | out 0         in 2 | infer 2 | out 2
    slot 1:         in 1    | infer 1 | out 1      ...

A slot has its own stream, buffers and execution context, so the copies of one frame run beside the inference of
another. Inferences run one after the other: two at once would share the GPU and both come late. Copies read and write
the ring where it is page-locked (`page_lock.py`).

The CUDA graph of a slot holds the inference alone, where nearly all launches are (hundreds of kernels against four
copies). Copies have the addresses of ring slots, of which there are more than engine slots: with them inside, every
pair would need a graph of its own, captured while frames wait, or its nodes set anew at each bind.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from engines import page_lock
from engines.base import BaseEngine, BaseSlot
from engines.cuda_calls import CudaCalls
from engines.cuda_graph import capture
from engines.engine import EngineSpec
from engines.errors import CudaLost, EngineError
from engines.model import INPUTS, OUTPUTS
from engines.page_lock import address_of, whole_mapping
from engines.planes import Settings

log = logging.getLogger(__name__)

MAPPINGS_KEPT = 8
"""Mappings that stay page-locked though no slot is bound to them any more; locking one anew takes milliseconds."""
WARM_UP = 2
"""Inferences before a capture: the first ones load kernels and allocate, which cannot be captured."""
MARKS = ("entered", "copied", "started", "inferred", "leaving", "done")
"""Points in a slot's stream: before and after copy-in, inference and copy-out."""


@runtime_checkable
class Inference(Protocol):
    """A network that reads and writes one slot's buffers on the GPU."""

    def enqueue(self, stream: int) -> None:
        """Give one inference to a stream and return at once; the same work each time, so that it can be captured.

        Args:
            stream: The `cudaStream_t` as a number.

        Raises:
            EngineError: The runtime refused.
        """
        ...

    def close(self) -> None: ...


OpenInference = Callable[[Mapping[str, int]], Inference]
"""Opens one for the buffers at these addresses, by the graph's input and output names."""


@dataclass(frozen=True)
class SlotTimes:
    """When the last frame of a slot was where, (begin, end) in ms after the engine was opened, by the GPU's clock."""

    copy_in: tuple[float, float]
    inference: tuple[float, float]
    copy_out: tuple[float, float]


class CudaSlots(BaseEngine["CudaSlot"]):
    """The slots of one engine, and what they share.

    Args:
        calls: CUDA, in the context to run in.
        spec: Frame size, bits and how many slots.
        open_inference: Opens the network for one slot's buffers.
        graphs: Launch each inference as one CUDA graph. False where the runtime makes graphs by itself.
        timed: Keep the times of each frame for `CudaSlot.times`; costs some microseconds a frame.

    Raises:
        EngineError: Not enough memory, or the runtime failed; nothing stays behind.
    """

    def __init__(
        self,
        calls: CudaCalls,
        spec: EngineSpec,
        open_inference: OpenInference,
        *,
        graphs: bool = True,
        timed: bool = False,
    ) -> None:
        super().__init__(spec, Settings.default(spec))
        self.calls = calls
        self.open_inference = open_inference
        self.graphs = graphs and calls.graphs
        self.timed = timed
        self.last: CudaSlot | None = None
        """The slot whose frame was submitted last; the next one's inference follows it."""
        self.origin: Any = None
        """The event that times are counted from."""
        self.failures_on_close = 0
        self._mappings: OrderedDict[int, page_lock.Mapping] = OrderedDict()
        self._guard = threading.Lock()
        self._said_no_graph = False
        self._owned = ExitStack()
        try:
            with calls.current():
                if timed:
                    self.origin = calls.create_event(timing=True)
                    self._owned.callback(self.quietly, calls.destroy_event, self.origin)
                for _ in range(spec.slots):
                    self._slots.append(CudaSlot(self))
                if timed:
                    self._slots[0].record(self.origin)
        except BaseException:
            self.close()
            raise

    def lock(self, plane: np.ndarray) -> int | None:
        """Page-lock the mapping that a plane lies in; where it starts, or None where the plane must be staged."""
        view = whole_mapping(plane)
        if view is None:
            return None
        start = address_of(view)
        with self._guard:
            if start not in self._mappings:
                self._mappings[start] = self.calls.page_locks.hold(view)
            self._mappings.move_to_end(start)
            return start if self._mappings[start].locked else None

    def forget_mappings(self) -> None:
        """Let go of those that no slot has been bound to for long: rings come and go, the engine stays."""
        with self._guard:
            bound = {start for slot in self._slots for start in slot.bound_mappings}
            for start in [start for start in self._mappings if start not in bound]:
                if len(self._mappings) <= MAPPINGS_KEPT:
                    return
                self.quietly(self.calls.page_locks.let_go, self._mappings.pop(start))

    def say_no_graph(self, reason: EngineError) -> None:
        """A slot runs without a graph, which costs launches: said for the first one."""
        if not self._said_no_graph:
            self._said_no_graph = True
            log.warning("inferences run without a CUDA graph, so each frame takes longer: %s", reason)

    def quietly(self, call: Callable[..., object], *arguments: Any) -> None:
        """Give something back; a failure is counted and must not keep the rest from being given back."""
        try:
            call(*arguments)
        except EngineError as error:
            self.failures_on_close += 1
            log.debug("on closing: %s", error)

    def close(self) -> None:
        """Wait for what is in flight and give everything back. Works also where the GPU is lost."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.calls.current())
            except EngineError as error:
                log.debug("on closing: %s", error)
            # First of all: what is given back is what copies read and write, and one slot waits for another's events.
            for slot in self._slots:
                slot.settle()
            for slot in self._slots:
                slot.close()
            self._slots = []
            self.last = None
            with self._guard:
                while self._mappings:
                    self.quietly(self.calls.page_locks.let_go, self._mappings.popitem()[1])
            self._owned.close()
            self.origin = None
        if self.failures_on_close:
            log.warning(
                "the GPU took back all but %d things on closing; they go with this process",
                self.failures_on_close,
            )
            self.failures_on_close = 0


class CudaSlot(BaseSlot):
    """One frame's place on the GPU. Implements `engines.engine.Slot`; CUDA's failures are told by `wait`.

    Args:
        machine: The slots it is one of.
    """

    def __init__(self, machine: CudaSlots) -> None:
        super().__init__(machine.spec, lambda: machine.settings)
        self._machine = machine
        self._calls = calls = machine.calls
        self.bound_mappings: frozenset[int] = frozenset()
        self._failure: EngineError | None = None
        self._unbound: EngineError | None = None
        self._host: dict[str, int] = {}
        self._staged: set[str] = set()
        self._staging: dict[str, np.ndarray] = {}
        self._settings: Settings | None = None
        self._graph: Any = None
        with ExitStack() as owned:
            self._sizes = tensor_bytes(machine.spec)
            self._device: dict[str, int] = {}
            for name, size in self._sizes.items():
                self._device[name] = calls.allocate(size)
                owned.callback(machine.quietly, calls.free, self._device[name])
            self._small = {name: self._pin(name, owned) for name in Settings.default(machine.spec).tensors}
            self._small["statistics"] = self._pin("statistics", owned)
            self._stream = calls.create_stream()
            owned.callback(machine.quietly, calls.destroy_stream, self._stream)
            self._marks: dict[str, Any] = {}
            for name in MARKS if machine.timed else ("inferred", "done"):
                self._marks[name] = calls.create_event(timing=machine.timed)
                owned.callback(machine.quietly, calls.destroy_event, self._marks[name])
            self._inference = machine.open_inference(self._device)
            owned.callback(machine.quietly, self._inference.close)
            # An error must not leave work in flight on what is given back.
            owned.callback(machine.quietly, calls.synchronize_stream, self._stream)
            self._warm_up(owned)
            self._owned = owned.pop_all()

    def _pin(self, name: str, owned: ExitStack) -> np.ndarray:
        array = self._calls.allocate_pinned(self._sizes[name])
        owned.callback(self._machine.quietly, self._calls.free_pinned, array)
        return array

    def _warm_up(self, owned: ExitStack) -> None:
        self._refresh_settings()
        handle = self._calls.stream_handle(self._stream)
        for _ in range(WARM_UP):
            self._inference.enqueue(handle)
            self._calls.synchronize_stream(self._stream)
        if not self._machine.graphs:
            return
        try:
            graph = capture(self._calls, self._stream, lambda: self._inference.enqueue(handle))
        except CudaLost:
            raise
        except EngineError as reason:
            self._machine.say_no_graph(reason)
            return
        owned.callback(self._machine.quietly, self._calls.destroy_executable, graph)
        self._graph = graph

    # The contract -------------------------------------------------------------------------------------------

    def _attach(self, planes: dict[str, np.ndarray]) -> None:
        """Page-locks the mapping at its first plane."""
        starts: set[int] = set()
        self._staged.clear()
        self._unbound = None
        try:
            with self._calls.current():
                for name, plane in planes.items():
                    if (start := self._machine.lock(plane)) is not None:
                        starts.add(start)
                        self._host[name] = address_of(plane)
                    else:
                        self._host[name] = address_of(self._stage(name))
                        self._staged.add(name)
                self.bound_mappings = frozenset(starts)
                self._machine.forget_mappings()
        except EngineError as error:
            self._unbound = error

    def _stage(self, name: str) -> np.ndarray:
        if name not in self._staging:
            self._staging[name] = self._pin(name, self._owned)
        return self._staging[name]

    def _begin(self) -> None:
        try:
            if self._unbound is not None:
                raise self._unbound
            with self._calls.current():
                self._enqueue()
        except EngineError as error:
            self._failure = error

    def _enqueue(self) -> None:
        calls, stream, last = self._calls, self._stream, self._machine.last
        self._refresh_settings()
        if "live" in self._staged:
            np.copyto(self._staging["live"], self._bound["live"].reshape(-1))
        self._mark("entered")
        calls.copy_in(self._device["live"], self._host["live"], self._sizes["live"], stream)
        self._mark("copied")
        if last is not None and last is not self:
            calls.await_event(stream, last.mark("inferred"))
        self._mark("started")
        if self._graph is not None:
            calls.launch(self._graph, stream)
        else:
            self._inference.enqueue(calls.stream_handle(stream))
        self._mark("inferred")
        if last is not None and last is not self:
            # Frames are done in the order of their submission, however long their copies take.
            calls.await_event(stream, last.mark("done"))
        self._mark("leaving")
        for name in ("synthetic", "attention"):
            calls.copy_out(self._host[name], self._device[name], self._sizes[name], stream)
        statistics = address_of(self._small["statistics"])
        calls.copy_out(statistics, self._device["statistics"], self._sizes["statistics"], stream)
        self._mark("done")
        self._machine.last = self

    def _refresh_settings(self) -> None:
        """Copy them to the GPU where they have changed. The slot is idle, so its pinned bytes are free."""
        settings = self._machine.settings
        if settings is self._settings:
            return
        for name, tensor in settings.tensors.items():
            np.copyto(self._small[name], np.ascontiguousarray(tensor).view(np.uint8).reshape(-1))
            source = address_of(self._small[name])
            self._calls.copy_in(self._device[name], source, self._sizes[name], self._stream)
        self._settings = settings

    def _mark(self, name: str) -> None:
        if name in self._marks:
            self._calls.record_event(self._marks[name], self._stream)

    def mark(self, name: str) -> Any:
        """The event of a point in this slot's stream."""
        return self._marks[name]

    def record(self, event: Any) -> None:
        """Record an event of somebody else's in this slot's stream."""
        self._calls.record_event(event, self._stream)

    def ready(self) -> bool:
        if not self._busy or self._failure is not None:
            return True
        try:
            with self._calls.current():
                return self._calls.is_done(self._marks["done"])
        except EngineError:
            return True  # wait() tells

    def _end(self) -> np.ndarray:
        """After an error the slot takes the next frame, unless it is a `CudaLost`."""
        failure, self._failure = self._failure, None
        try:
            with self._calls.current():
                if failure is not None:
                    # What was given to the stream before the failure must not write into a later frame.
                    self._calls.synchronize_stream(self._stream)
                    raise failure
                self._calls.synchronize_event(self._marks["done"])
        except CudaLost:
            raise
        except EngineError as error:
            raise failure or error from None
        for name in self._staged - {"live"}:
            np.copyto(self._bound[name].reshape(-1), self._staging[name])
        return self._small["statistics"].view(np.float32)

    def times(self) -> SlotTimes:
        """Of the last frame, after `wait`.

        Raises:
            ValueError: The engine was not opened to be timed.
        """
        if not self._machine.timed:
            raise ValueError("times() needs an engine that keeps times; open it with timed=True")
        with self._calls.current():
            at = {name: self._calls.elapsed_ms(self._machine.origin, self._marks[name]) for name in MARKS}
        return SlotTimes(
            (at["entered"], at["copied"]), (at["started"], at["inferred"]), (at["leaving"], at["done"])
        )

    def settle(self) -> None:
        """Wait for what is in flight, whatever becomes of it."""
        if self._stream is not None:
            self._machine.quietly(self._calls.synchronize_stream, self._stream)
        self._busy = False

    def close(self) -> None:
        """Give everything back; nothing is in flight."""
        self._owned.close()
        self._bound, self._host, self._staging = {}, {}, {}
        self._marks, self._small, self._graph, self._stream = {}, {}, None, None


def tensor_bytes(spec: EngineSpec) -> dict[str, int]:
    """The size of each of the graph's inputs and outputs for one frame format."""
    sides = {"rows": spec.rows, "columns": spec.columns, "bytes": spec.sample_bytes}
    sizes = {}
    for name, (dtype, shape) in {**INPUTS, **OUTPUTS}.items():
        count = 1
        for side in shape:
            count *= sides[side] if isinstance(side, str) else side
        sizes[name] = count * np.dtype(dtype).itemsize
    return sizes
