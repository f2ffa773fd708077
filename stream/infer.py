"""The engine process: a ring slot's live plane in, its synthetic and attention planes out, under a lease.

It may crash, hang or be killed at any instant; the guard then goes on without it. Nothing is copied on the host:
an engine slot is bound to the ring slot's own memory.
"""

import gc
import math
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from stream.adapted_engine import AdaptedSide
from stream.control import (
    DONE,
    LEASE,
    ChildSocket,
    Kind,
    become_child,
    end_with_any_thread,
    receive_ring,
    unpack_json,
)
from stream.drawer import Drawer
from stream.frame import FrameFormat
from stream.ring import RingMemory
from stream.timing import NS_PER_MS, MonotonicClock

if TYPE_CHECKING:
    from calib.patient_facts import PatientFacts
    from calib.patient_gate import PatientGate
    from engines.engine import Engine, Opened, Slot
    from engines.model import ModelFile

WARM_UP = 8
LARGEST_SCORE = 1e6
"""Of the domain, so that a frame without one, which is infinitely strange, is a number in JSON too."""


def open_for(frame_format: FrameFormat, config: dict[str, Any]) -> "Opened":
    """Open the engine that the guard's first packet names, for one frame format, with the site's grey tables and field."""
    from engines.engine import EngineSpec
    from engines.open import open_engine
    from stream.site_engine import precision_for, set_up

    spec = EngineSpec(
        frame_format.rows, frame_format.columns, frame_format.bits_stored, slots=int(config["slots"])
    )
    precision, int8 = precision_for(config["backend"], config.get("site"))
    opened = open_engine(
        config["model"],
        spec,
        backend=config["backend"],
        untaught=bool(config["untaught"]),
        threads=config["threads"],
        precision=precision,
        int8_frames_sha256=int8,
    )
    set_up(opened.engine, frame_format, config.get("site"))
    return opened


def open_adapted(
    frame_format: FrameFormat,
    config: dict[str, Any],
    general: "Engine",
    model: "ModelFile",
    facts: "PatientFacts",
) -> "Opened":
    """Open the engine of an adapted model beside the general one: the same runtime, grey tables, field and domain.

    Args:
        frame_format: Of the frames.
        config: The guard's first packet.
        general: The general engine, open for these frames.
        model: The adapted model.
        facts: What the adaptation says of itself.

    Raises:
        CheckpointError: It was taught with other grey levels than these frames have.
        EngineError, CalibrationError, ValueError: It cannot be opened.
    """
    from calib.patient_facts import levels_name
    from casgan.errors import CheckpointError
    from engines.engine import EngineSpec
    from engines.open import open_engine
    from stream.site_engine import grey_tables, set_up

    site = config.get("site")
    table, _ = grey_tables(frame_format, None if site is None else site["intensity"])
    if levels_name(table) != facts.levels_sha256:
        raise CheckpointError(
            "needed an adaptation that was taught with the grey levels of this stream, got one of another window or site "
            "record; teach it from a recording of this room: contrastream calib patient, with the same --site"
        )
    spec = EngineSpec(
        frame_format.rows, frame_format.columns, frame_format.bits_stored, slots=int(config["slots"])
    )
    # What is int8 was made of the general model's values: the adapted one is computed as without a site's frames.
    precision = None if general.precision == "int8" else general.precision
    opened = open_engine(model, spec, backend=general.backend, threads=config["threads"], precision=precision)
    set_up(opened.engine, frame_format, site, model_sha256=facts.model_sha256)
    return opened


def warm_up(slot: "Slot", frame_format: FrameFormat, pause_s: float = 0.0) -> int:
    """Run some frames through a slot, one after the other; returns the median time of one in ns.

    Args:
        slot: Idle.
        frame_format: Of the frames.
        pause_s: Between two of them, for an engine beside that has frames of its own.
    """
    shape = (frame_format.rows, frame_format.columns)
    live = np.full(shape, frame_format.max_value // 2, frame_format.dtype)
    synthetic, attention = np.zeros_like(live), np.zeros(shape, np.uint8)
    slot.bind(live, synthetic, attention)
    clock = MonotonicClock()
    times_ns = []
    for _ in range(WARM_UP):
        time.sleep(pause_s)
        start_ns = clock.now_ns()
        slot.submit()
        slot.wait()
        times_ns.append(clock.now_ns() - start_ns)
    return round(median(times_ns[WARM_UP // 2 :]))


def open_warm(memory: RingMemory, config: dict[str, Any]) -> tuple["Opened", list["Slot"], dict[str, Any]]:
    """Open the engine for a ring's frames and run its slots warm.

    Args:
        memory: The ring.
        config: The guard's first packet.

    Returns:
        The engine, its slots, and the body of the READY packet.

    Raises:
        EngineError, CalibrationError, ValueError: It cannot be opened; the user can mend it.
    """
    start_ns = MonotonicClock().now_ns()
    opened = open_for(memory.frame_format, config)
    slots = list(opened.engine.slots(int(config["slots"])))
    inference_ns = max(warm_up(slot, memory.frame_format) for slot in slots)
    opened_ns = MonotonicClock().now_ns() - start_ns
    return (
        opened,
        slots,
        {
            "backend": opened.engine.backend,
            "precision": opened.engine.precision,
            "model_sha256": opened.engine.model_sha256,
            "taught": opened.engine.taught,
            "domain": None if opened.engine.domain is None else opened.engine.domain.rule,
            "skipped": [list(pair) for pair in opened.skipped],
            "gpu_bus_id": getattr(opened.engine, "gpu_bus_id", None),
            "inference_ms": inference_ns / NS_PER_MS,
            "open_ms": opened_ns / NS_PER_MS,
        },
    )


def refusal(error: Exception) -> dict[str, Any]:
    """The body of the ERROR packet for an engine that could not be opened."""
    from calib.errors import CalibrationError
    from casgan.errors import CheckpointError
    from engines.errors import CudaOutOfMemory, EngineError

    if isinstance(error, CudaOutOfMemory):
        # Whoever fills the GPU may be done with it soon: the guard tries again while the live picture goes on.
        return {"message": str(error), "input": False, "retry": True}
    if isinstance(error, (EngineError, CalibrationError, CheckpointError, ValueError)):
        return {"message": str(error), "input": True}
    said = f"the engine could not be opened: {type(error).__name__}: {error}"
    return {"message": said, "input": False}


class Told:
    """What has been said of an engine's frames: each failure once, whatever its figures, not thirty times a second."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()

    def is_new(self, failure: Exception) -> bool:
        """Whether no failure like this one was said before; from now on one was."""
        kind = re.sub(r"\d+", "", str(failure))
        if kind in self._kinds:
            return False
        self._kinds.add(kind)
        return True


def finish(
    slot: "Slot",
    index: int,
    epoch: int,
    submitted_ns: int,
    serial: int = 0,
    gate: "PatientGate | None" = None,
) -> tuple[bytes, Exception | None]:
    """Wait for a slot's inference: the DONE packet, and what went wrong where it says that the output is no use.

    Args:
        slot: Submitted.
        index: The ring slot.
        epoch: Of its lease.
        submitted_ns: When it was submitted.
        serial: Of the adaptation that draws; 0 for the general model.
        gate: Of the adaptation that is ready, whichever draws; None without one.
    """
    from engines.errors import EngineError

    failure: Exception | None = None
    away = math.nan
    try:
        said = slot.wait()
        # One value everywhere is no attention map, and would lie over the whole picture.
        valid = said.finite and not (said.minimum == said.maximum > 0.0)
        values = (said.minimum, said.maximum, said.mean, said.area, min(said.domain, LARGEST_SCORE))
        if gate is not None:
            away = min(gate.distance(said.features), LARGEST_SCORE)
    except EngineError as error:
        valid, values, failure = False, (0.0, 0.0, 0.0, 0.0, math.nan), error
    inferred_ns = MonotonicClock().now_ns()
    done = DONE.pack(Kind.DONE, index, epoch, submitted_ns, inferred_ns, valid, *values, away, serial)
    return done, failure


class Inferrer:
    """Runs leased ring slots through the engines' slots, in the order they are leased.

    Args:
        guard: The socket to the guard.
        general: The general engine's slots.
        adapted: What becomes of a patient's adaptation; None where there can be none.
        end: Ends this process at once with a status.
    """

    def __init__(
        self,
        guard: ChildSocket,
        general: Drawer,
        adapted: AdaptedSide | None = None,
        *,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._guard = guard
        self._end = end
        self._general = general
        self._adapted = adapted
        self._told = Told()
        self._submitted: queue.SimpleQueue[tuple[Drawer, Slot, int, int, int] | None] = queue.SimpleQueue()
        self._clock = MonotonicClock()

    def run(self) -> None:
        """Infer until the guard is gone."""
        waiter = threading.Thread(target=self._return_leases, name="return-leases")
        waiter.start()
        while True:
            packet, descriptors = self._guard.receive()
            if not packet:
                break
            if packet[0] == Kind.LEASE:
                _, index, epoch, serial = LEASE.unpack(packet)
                self._infer(index, epoch, serial)
            elif packet[0] in (Kind.PATIENT, Kind.PATIENT_OFF) and self._adapted is not None:
                self._adapted.take(packet, descriptors)
        self._submitted.put(None)
        waiter.join()

    def _infer(self, index: int, epoch: int, serial: int) -> None:
        drawer, slot = taken(self._general, self._adapted, index, serial)
        submitted_ns = self._clock.now_ns()
        slot.submit()
        self._submitted.put((drawer, slot, index, epoch, submitted_ns))

    def _return_leases(self) -> None:
        """Wait for each inference in turn and say so; a thread of its own, so that the next one starts meanwhile."""
        from engines.errors import CudaLost

        while (work := self._submitted.get()) is not None:
            drawer, slot, index, epoch, submitted_ns = work
            gate = None if self._adapted is None else self._adapted.gate
            done, failure = finish(slot, index, epoch, submitted_ns, drawer.serial, gate)
            if failure is not None and self._told.is_new(failure):
                self._guard.send_json(Kind.NOTE, {"message": str(failure)})
            if isinstance(failure, CudaLost):
                # Only a new process may find the GPU again, and closing things in this one would fail or hang.
                self._end(1)
                return
            try:
                self._guard.send(done)
            except OSError:
                return
            drawer.give_back(slot, index)


def taken(general: Drawer, adapted: AdaptedSide | None, index: int, serial: int) -> tuple[Drawer, "Slot"]:
    """Who draws a frame, and the slot for it: the adaptation that was asked for while it is ready, else the general model.

    Args:
        general: The general engine.
        adapted: The adaptation beside it; None where there can be none.
        index: The ring slot.
        serial: Of the adaptation that is asked for; 0 for the general model.
    """
    found = adapted.drawer(serial) if adapted is not None and serial else None
    slot = None if found is None else found.take(index)
    if found is not None and slot is not None:
        return found, slot
    slot = general.take(index)
    assert slot is not None  # the general engine is never retired
    return general, slot


def main() -> int:
    """Entry point of the engine process: `python -m stream.infer DESCRIPTOR`."""
    become_child()
    end_with_any_thread()
    guard = ChildSocket(int(sys.argv[1]))
    packet, _ = guard.receive()
    if not packet:
        return 0
    config = unpack_json(packet)
    from engines.open import load_runtime

    try:
        load_runtime(config["backend"])
        packet, descriptors = guard.receive()
        if not packet:
            return 0
        memory, _ = receive_ring(packet, descriptors)
        opened, slots, ready = open_warm(memory, config)
    except Exception as error:
        said = refusal(error)
        guard.send_json(Kind.ERROR, said)
        return 2 if said["input"] else 1
    guard.send_json(Kind.READY, ready)
    gc.freeze()  # what was loaded so far lives as long as the process
    adapted = AdaptedSide(guard.send_json, memory, config, opened)
    Inferrer(guard, Drawer(slots, memory), adapted).run()
    adapted.close()
    opened.engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
