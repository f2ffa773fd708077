"""Joins source, ring, guard, engine and publisher; the only file that knows all of them.

One loop, in the guard's process: it waits for packets of the two children, for their deaths and for the next
deadline. Nothing in it waits for anything else.
"""

import contextlib
import dataclasses
import gc
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from calib.errors import CalibrationError
from calib.patient_facts import open_patient
from stream.adaptation import Answer, PatientSide
from stream.admission import Admission
from stream.audit_trail import AuditTrail
from stream.children import exit_words
from stream.command_door import CommandDoor
from stream.control import (
    SLOT,
    Kind,
    SourceDrops,
    angles_from_json,
    format_from_json,
    send_ring,
    unpack_frame,
    unpack_json,
)
from stream.credit import Credit
from stream.endpoint import parse_endpoint
from stream.engine_side import MALFORMED, EngineSide
from stream.engine_supply import EngineSupply, OwnEngine
from stream.errors import (
    AuditError,
    EndpointError,
    EngineRefused,
    KeyFileError,
    PipelineError,
    SourceError,
    SourceGone,
    StreamError,
)
from stream.frame import FrameFormat, Reason, State
from stream.guard import Guard, Outgoing
from stream.histograms import FrameHistograms
from stream.latency import RecentLatencies, RecentRate
from stream.pacing import Pacing, due_between
from stream.publish import Publisher
from stream.ring import Ring
from stream.site import Site
from stream.source_side import SourceSide
from stream.sources.options import SourceOptions
from stream.spacing import live_spacing
from stream.timing import NS_PER_MS, NS_PER_S, MonotonicClock, Stage

log = logging.getLogger("contrastream.pipeline")

HEARTBEAT_NS = 100 * NS_PER_MS
ENGINE_SLOTS = 2
GRANTS = 3
"""Slots the source may write at once: as far as it may decode ahead."""
FINISH_NS = 200 * NS_PER_MS
"""So long the frames in hand may take when the run is told to end; those with a deadline are gone within 50 ms."""
CLIENT_WITHIN_NS = 30 * NS_PER_S


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """What a pipeline runs."""

    source: str
    options: SourceOptions
    pacing: Pacing = dataclasses.field(default_factory=Pacing)
    endpoint: str | None = None
    model: str = "compact"
    engine: str = "auto"
    """A backend's name, `auto` for the first usable one, `off` for live pictures only."""
    untaught: bool = False
    threads: int | None = None
    """Threads of a CPU engine; None leaves it to the runtime."""
    domain: bool = True
    """Leave frames live that are unlike the taught ones."""
    slots: int = 16
    crc: bool = False
    wait_for_engine: bool = False
    """Begin only when the engine is warm (a replay), not at once (a room)."""
    wait_for_client: bool = False
    """Begin only when the measuring client is there, and end when it goes."""
    fault: str | None = None
    """Faults to inject into the source, as `stream.sources.faults.parse_faults` takes them. A test, and it says so."""
    fault_seed: int = 0
    """Of what is drawn at random in them."""
    site: Site | None = None
    """What this site's calibration found; None for the default grey levels on the whole frame."""
    audit_folder: str | None = None
    """Where the audit log is kept; None for none."""
    patient: str | None = None
    """The file of a patient's adaptation to begin with; None for the general model."""


def engine_config(config: PipelineConfig) -> dict[str, Any]:
    """What the engine process needs to begin: its first packet."""
    return {
        "model": config.model,
        "backend": config.engine,
        "untaught": config.untaught,
        "threads": config.threads,
        "slots": ENGINE_SLOTS,
        "site": None if config.site is None else config.site.engine_settings(),
    }


class Pipeline:
    """Runs one stream until its source ends or `stop` is called.

    Args:
        config: What to run.
        supply: Where its engine comes from; None for a process of its own.

    Raises:
        EndpointError: The endpoint is in use.
        KeyFileError: It needs CURVE keys, and they are not there or not this user's alone.
    """

    def __init__(self, config: PipelineConfig, supply: EngineSupply | None = None) -> None:
        self.config = config
        self._clock = MonotonicClock()
        self.endpoint = parse_endpoint(config.endpoint)
        self._publisher = Publisher(self.endpoint, self._clock, crc=config.crc)
        self._credit: Credit | None = None
        if config.pacing.lossless:
            try:
                self._credit = Credit(self.endpoint.credit, self.endpoint.curve)
            except (EndpointError, KeyFileError):
                self._publisher.close()
                raise
        try:
            self._trail = AuditTrail(config.audit_folder)
        except AuditError:
            self._publisher.close()
            if self._credit is not None:
                self._credit.close()
            raise
        try:
            self._door = CommandDoor(self.endpoint.control, self._take_command)
        except EndpointError:
            self._publisher.close()
            if self._credit is not None:
                self._credit.close()
            raise
        self._ring: Ring | None = None
        self._ring_number = 0
        self._retired: list[Ring] = []
        self._guard: Guard | None = None
        self._source = SourceSide(self._clock, self._source_config)
        self._patient = PatientSide(self._clock, self._trail.adaptation)
        self._engine = EngineSide(
            supply or OwnEngine(self._clock, engine_config(config)),
            patient=self._patient,
            wanted=config.engine != "off",
            domain=config.domain,
            may_wait=not config.wait_for_engine,
            note=lambda sentence: self.on_note(sentence),
        )
        self._refused: str | None = None
        """Why the adaptation that the run was started with cannot be had."""
        self._unfit: str | None = None
        """Why the site's record is not for the present format, so that there is no engine; None where it is."""
        self._dropped_before: dict[str, int] = {}
        """Drops of source processes that are gone; each one counts from 0."""
        self._due_ns: int | None = None
        """When the last frame that came was due."""
        self._faults_begun: list[dict[str, int]] = []
        """Injected faults, each with its place, when it began and when it ends."""
        self._publisher.faults_injected = config.fault is not None
        self._source_failure: StreamError | None = None
        self._source_ended = False
        self._stop = threading.Event()
        self._finish_by_ns = 0
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._heartbeat_ns = 0
        self._poller = zmq.Poller()
        self._polled: tuple[object, ...] = ()
        """The processes that the poller knows."""
        self._client_by_ns = 0
        self._started = not (config.wait_for_engine or config.wait_for_client)
        self._grabbed_rate = RecentRate()
        self._published_rate = RecentRate()
        self._next_sequence = 0
        self.latencies = RecentLatencies()
        self.histograms = FrameHistograms()
        self.last_status: dict[str, Any] | None = None
        """The last heartbeat, for other threads."""
        self.opened: dict[str, Any] = {}
        """What the source said when it opened."""
        self.gpu: dict[str, Any] = {"gpu": None, "why": "no engine has been opened"}
        """What the GPU did over the run, set at its end."""
        self.on_note: Callable[[str], None] = log.warning
        self.on_status: Callable[[dict[str, Any]], None] = lambda _status: None
        """Called with each heartbeat."""

    @property
    def engine(self) -> dict[str, Any]:
        """What the engine said when it was ready; empty before."""
        return self._engine.ready

    # The loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the source ends or `stop` is called. Leaves no process and no memory behind.

        Raises:
            SourceError: The source cannot be opened or read.
            PipelineError: The source process died before its first frame, or cannot go on.
            EngineRefused: The engine cannot be opened for this model and format.
        """
        why = "fault"
        self._trail.start(stream=self._publisher.stream, engine=self.config.engine, site=self.config.site)
        try:
            if self.config.patient is not None:
                self._ask_first_patient(self.config.patient)
            self._source.start()
            self._ask_for_engine()
            gc.freeze()  # what was loaded so far lives as long as the pipeline
            while not self._is_over():
                ready = self._wait()
                if self._engine.supply.descriptor() in ready:
                    self._engine.supply.hear()
                if self._engine.link is not None and self._engine.link.socket.fileno() in ready:
                    self._engine.hear()
                child = self._source.child
                if child is not None and child.socket.fileno() in ready and not self._stop.is_set():
                    self._hear_source()
                self._see_deaths(ready)
                if self._refused is not None:
                    raise EngineRefused(self._refused)
                if self._credit is not None:
                    self._credit.hear()
                self._tick()
            if self._source_failure is not None:
                raise self._source_failure
            why = "asked" if self._stop.is_set() else "source_ended"
        except StreamError as error:
            why = type(error).__name__  # its words may hold a file's name
            raise
        finally:
            self._close()
            self._trail.stop(why, self.last_status)

    def stop(self) -> None:
        """End `run` when the frames in hand have gone out; safe from a signal handler and from another thread."""
        self._stop.set()
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"x")

    def _is_over(self) -> bool:
        """Whether no more frames come, and those in hand have gone out, or have had their time for it."""
        drained = self._guard is None or self._guard.drained()
        if not self._stop.is_set():
            return self._source_ended and drained
        now_ns = self._clock.now_ns()
        self._finish_by_ns = self._finish_by_ns or now_ns + FINISH_NS
        return drained or now_ns >= self._finish_by_ns

    def _wait(self) -> set[int]:
        """Wait for a packet, a death or the next deadline; returns the descriptors that have something."""
        children = (self._source.child, self._engine.link)
        if children != self._polled:
            self._poller = self._make_poller()
            self._polled = children
        now_ns = self._clock.now_ns()
        # Rounded up to whole milliseconds for the heartbeat, down for a deadline: what is left of its last one is
        # spun away, so that no frame leaves late by rounding.
        wait_ms = max(0, -((now_ns - self._heartbeat_ns - HEARTBEAT_NS) // NS_PER_MS))
        if self._guard is not None and (deadline_ns := self._guard.next_deadline_ns()) is not None:
            wait_ms = min(wait_ms, max(0, (deadline_ns - now_ns) // NS_PER_MS))
        return {ready for ready, _ in self._poller.poll(wait_ms) if isinstance(ready, int)}

    def _make_poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        poller.register(self._wake_reader, zmq.POLLIN)
        for child in (self._source.child, self._engine.link):
            if child is not None:
                poller.register(child.socket.fileno(), zmq.POLLIN)
                poller.register(child.pidfd, zmq.POLLIN)
        if (told := self._engine.supply.descriptor()) is not None:
            poller.register(told, zmq.POLLIN)
        if self._credit is not None:
            poller.register(self._credit.socket, zmq.POLLIN)
        return poller

    def _tick(self) -> None:
        now_ns = self._clock.now_ns()
        if self._guard is not None:
            self._guard.tick()
            if self._guard.hung_since_ns() is not None:
                log.warning("the engine has not answered; killing it")
                self._engine.lose()
        self._ask_for_engine()
        self._see_hang()
        self._bury_source()
        self._source.start_if_due()
        self._grant()
        if now_ns - self._heartbeat_ns >= HEARTBEAT_NS:
            self._heartbeat_ns = now_ns
            self._publisher.see_clients()
            self._door.see_clients()
            if self._started and self.config.wait_for_client and self._publisher.measuring == 0:
                raise PipelineError("the measuring client ended before the replay did")
            self.last_status = self.status()
            self._publisher.heartbeat(self.last_status)
            self._trail.see(
                self.last_status, self.opened, self._ring.frame_format if self._ring else None, now_ns
            )
            if isinstance(self._publisher.turnstile, Admission):
                self._trail.admitted(dict(self._publisher.turnstile.admitted))
            self.on_status(self.last_status)
            self._retired = [ring for ring in self._retired if not self._drop_if_idle(ring)]

    @staticmethod
    def _drop_if_idle(ring: Ring) -> bool:
        if ring.idle():
            ring.close()
            return True
        return False

    # The source -----------------------------------------------------------------------------------------------

    def _source_config(self) -> dict[str, Any]:
        """The first packet of a source process that is started now."""
        return {
            "source": self.config.source,
            "options": dataclasses.asdict(self.config.options),
            "pacing": dataclasses.asdict(self.config.pacing),
            "first_sequence": self._next_sequence,
            "down_since_ns": None if self.config.pacing.lossless else self._due_ns,
            "blank": None if self.config.site is None else self.config.site.blank_json,
            "faults": None
            if self.config.fault is None
            else {
                "spec": self.config.fault,
                "seed": self.config.fault_seed,
                # Of those it was asked for, so that the same seed does the same however long a process was gone.
                "first": self._next_sequence - self._dropped_before.get("source_down", 0),
                "begun": [(fault["place"], fault["ends_ns"]) for fault in self._faults_begun],
            },
        }

    def _hear_source(self) -> None:
        while self._source.child is not None and (packet := self._source.child.receive()):
            self._source.heard()
            try:
                self._take_source_packet(packet)
            except MALFORMED as error:
                self._lose_source(
                    "malformed", f"the source process sent what it must not ({type(error).__name__})"
                )

    def _take_source_packet(self, packet: bytes) -> None:
        kind = packet[0]
        if kind == Kind.FRAME:
            self._take_frame(packet)
        elif kind == Kind.ALIVE:
            self._source.take_alive(packet)
        elif kind == Kind.OPENED:
            self._take_opened(unpack_json(packet))
        elif kind == Kind.FORMAT:
            self._change_format(format_from_json(unpack_json(packet)))
        elif kind == Kind.NOTE:
            self.on_note(str(unpack_json(packet)["message"]))
        elif kind == Kind.FAULT:
            self._take_fault(unpack_json(packet))
        elif kind == Kind.END:
            said = unpack_json(packet)
            self._count_due(int(said["sequence"]), SourceDrops(*(int(count) for count in said["drops"])))
            self._source_ended = True
        elif kind == Kind.ERROR:
            said = unpack_json(packet)
            if (self.opened.get("live") or said.get("gone")) and self._next_sequence > 0:
                # A device that is gone may come back: its process ends now and is started again.
                self.on_note(str(said["message"]))
                return
            kind_of = SourceGone if said.get("gone") else SourceError if said["input"] else PipelineError
            self._source_failure = kind_of(said["message"])
            self._source_ended = True

    def _take_fault(self, said: dict[str, Any]) -> None:
        """An injected fault begins."""
        begun = {name: int(said[name]) for name in ("place", "at_ns", "ends_ns")}
        self._faults_begun.append(begun)
        text = str(self.config.fault).split(",")[begun["place"]].strip()
        log.warning("injected fault: %s", text)

    def _take_opened(self, opened: dict[str, Any]) -> None:
        self._source.take_opened(opened)
        self.opened = opened
        self._patient.angles = angles_from_json(opened)
        self._publisher.rate_hz = float(opened["rate_hz"] or 0.0)
        if self._ring is None:
            curve = self.endpoint.curve
            keys = "" if curve is None else f" with CURVE, key pair {curve.key}"
            log.info("frames at %s%s; Ctrl-C ends", self.endpoint.plain, keys)
        opened["notes"] += [] if self.config.site is None else self.config.site.unused
        for note in opened["notes"]:
            self.on_note(str(note))
        frame_format = format_from_json(opened["format"])
        if self.config.site is not None and self._next_sequence == 0:
            self.config.site.check(opened, frame_format)
        if self._ring is None:
            self._use_format(frame_format)
        elif self._ring.frame_format != frame_format:
            self._change_format(frame_format)
        elif self._source.child is not None:
            send_ring(self._source.child.socket, self._ring.memory, self._ring_number)
        self._source.has_ring = True

    def _use_format(self, frame_format: FrameFormat) -> None:
        try:
            self._ring = Ring(frame_format, self.config.slots)
        except OSError as error:
            raise PipelineError(
                f"needed memory for {self.config.slots} frames of {frame_format.rows} x {frame_format.columns}, got: "
                f"{error.strerror}; use fewer --slots or smaller frames"
            ) from error
        self._ring_number += 1
        self._see_whether_the_site_fits(frame_format)
        if self._guard is None:
            self._guard = Guard(
                self._ring,
                self._clock,
                self._publish,
                self._engine.submit,
                rate_hz=self.opened["rate_hz"],
                engine_slots=ENGINE_SLOTS,
                wait_for_engine=self.config.pacing.lossless,
            )
            self._guard.on_state = self._trail.state
            self._guard.opening_beside = lambda: self._patient.opening
            self._engine.guard = self._guard
            if self.config.engine == "off":
                self._guard.engine_gone(Reason.OFF)
        else:
            self._guard.ring = self._ring
        if self._source.child is not None:
            send_ring(self._source.child.socket, self._ring.memory, self._ring_number)
        self._engine.give(self._ring.memory, self._ring_number)

    def _change_format(self, frame_format: FrameFormat) -> None:
        """The source's next frame has another size: a new ring, and an engine for it."""
        assert self._ring is not None
        assert self._guard is not None
        log.info("frames are now %d x %d", frame_format.rows, frame_format.columns)
        old = self._ring
        self._engine.replace()
        self._take_back_grants(old)
        self._retired.append(old)
        self._use_format(frame_format)

    def _see_whether_the_site_fits(self, frame_format: FrameFormat) -> None:
        """A source may change into frames that its site's record is not for: those are live only, with their text."""
        site = self.config.site
        blank = None if site is None else site.blank
        masked = blank is not None and blank.fits(frame_format)
        self._publisher.unmasked_text = self.opened["kind"] != "phantom" and not masked
        self._unfit = None if site is None else site.why_not(frame_format)
        recorded = None if site is None or site.geometry is None or self._unfit else site.geometry.spacing
        self._publisher.spacing = live_spacing(self.opened["sizes"], frame_format, recorded)
        if self._unfit is not None and self._guard is not None:
            self.on_note(f"Live only from here on: {self._unfit}.")
            self._guard.engine_gone(Reason.OUT_OF_DOMAIN)

    def _grant(self) -> None:
        """Keep the source supplied with slots to write into."""
        child = self._source.child
        if self._ring is None or child is None or not self._source.has_ring or not self._may_begin():
            return
        while self._ring.granted() < GRANTS and (self._credit is None or self._credit.allows()):
            slot = self._ring.grant()
            if slot is None:
                return
            if self._credit is not None:
                self._credit.use()
            child.send(SLOT.pack(Kind.GRANT, slot))

    def _take_back_grants(self, ring: Ring) -> None:
        """Only when their source is dead or writes into another ring now."""
        if self._credit is not None:
            self._credit.give_back(ring.granted())
        ring.revoke_grants()

    def _see_client_late(self) -> None:
        now_ns = self._clock.now_ns()
        self._client_by_ns = self._client_by_ns or now_ns + CLIENT_WITHIN_NS
        if now_ns > self._client_by_ns:
            raise PipelineError(f"no measuring client came within {CLIENT_WITHIN_NS // NS_PER_S} s")

    def _may_begin(self) -> bool:
        if not self._started:
            engine_settled = self._engine.settled or not self.config.wait_for_engine
            client_there = self._publisher.measuring > 0 or not self.config.wait_for_client
            self._started = engine_settled and client_there
            if engine_settled and not client_there:
                self._see_client_late()
        return self._started

    def _take_frame(self, packet: bytes) -> None:
        grabbed, ring_number, drops = unpack_frame(packet)
        if self._guard is None or self._ring is None:
            return
        self._due_ns = grabbed.due_ns
        self._count_due(grabbed.sequence + 1, drops)
        if ring_number != self._ring_number:
            self._count_dropped("former_ring")
            return
        self._grabbed_rate.add(grabbed.grabbed_ns)
        self._source.take_frame()
        self._ring.fill(grabbed.slot)
        repeated = self._guard.counters.repeated
        self._guard.frame_grabbed(grabbed)
        if self._credit is not None:
            self._credit.give_back(self._guard.counters.repeated - repeated)

    def _count_due(self, next_sequence: int, drops: SourceDrops) -> None:
        """Take in how far the source is, and what it has dropped on the way."""
        self._next_sequence = next_sequence
        if self._guard is not None:
            dropped = self._guard.counters.dropped
            counts = {
                "source_late": drops.late,
                "ring_full": drops.full,
                "source_lost": drops.lost,
                "source_down": drops.down,
            }
            for reason, count in counts.items():
                if count:
                    dropped[reason] = self._dropped_before.get(reason, 0) + count

    def _count_dropped(self, reason: str, frames: int = 1) -> None:
        if self._guard is not None and frames > 0:
            dropped = self._guard.counters.dropped
            dropped[reason] = dropped.get(reason, 0) + frames

    def _count_down_at_the_end(self) -> None:
        """The source process is gone or hangs as the run ends, so nobody else counts what has been due since its last frame."""
        pacing = self.config.pacing
        if self._due_ns is None or self._source_ended or pacing.lossless or not self._source.is_down:
            return
        # One period later the next frame would have been due.
        frames = due_between(self._due_ns, self._clock.now_ns(), self.opened["rate_hz"])
        if pacing.frames is not None:
            frames = min(frames, pacing.frames - self._next_sequence)
        self._next_sequence += frames
        self._count_dropped("source_down", frames)

    # The engine -----------------------------------------------------------------------------------------------

    def _ask_for_engine(self) -> None:
        if self._unfit is None:
            self._engine.ask(self._ring.memory if self._ring else None, self._ring_number)

    def _take_command(self, said: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """A command of this user's; raises what `stream.command_door.Handler` says for what is none."""
        if said["command"] != "patient" or said["do"] not in ("on", "off"):
            raise ValueError("no command that is known here")
        if said["do"] == "on":
            (descriptor,) = descriptors
            self._engine.ask_patient(descriptor, answer)
        else:
            if descriptors:
                raise ValueError("nothing comes beside this command")
            there = self._engine.patient_off()
            answer(True, "the general model draws" + ("" if there else "; there was no adaptation"))

    def _ask_first_patient(self, path: str) -> None:
        try:
            descriptor = open_patient(Path(path))
        except CalibrationError as error:
            raise EngineRefused(str(error)) from None
        self._engine.ask_patient(descriptor, self._take_first_patient)

    def _take_first_patient(self, done: bool, why: str) -> None:
        """What became of the adaptation that the run was started with: it does not go on without."""
        self._refused = None if done else why

    def _see_deaths(self, ready: set[int]) -> None:
        self._engine.see_death(ready)
        # Asked for once more, since a child started in this round may have taken over a dead one's descriptor.
        child = self._source.child
        if child is not None and child.pidfd in ready and child.has_ended():
            self._hear_source()
            if self._source.child is not None:
                self._lose_source("ended")

    @property
    def _may_restart(self) -> bool:
        """Whether the source can go on in another process: it has no end, or begins anew anyway."""
        endless = self.opened.get("frame_count", 0) is None or self.config.pacing.loop
        return self._next_sequence > 0 and endless

    def _see_hang(self) -> None:
        """A source process that does not answer is killed where another can go on, and is named in any case."""
        why = self._source.hang(opened=self._source.has_ring)
        if why is None or self._source_ended:
            return
        if self._may_restart:
            self._lose_source("no_answer", why)
        else:
            # A recording cannot go on where it was, so what may still come of it is not given up.
            self._source.why = why
            once = "a recording is not started again, so " if self.opened else ""
            self.on_note(f"{why}; {once}it is waited for, and Ctrl-C ends the run")

    def _lose_source(self, cause: str, why: str | None = None) -> None:
        """Give the source process up; what becomes of it is seen when it is dead."""
        self._source.give_up(cause, why)
        self._bury_source()

    def _bury_source(self) -> None:
        """Once the source process is dead: take its grants back, and plan another where it can go on."""
        if (status := self._source.buried()) is None:
            return
        if self._ring is not None:
            self._take_back_grants(self._ring)
        if self._guard is not None:
            self._dropped_before = dict(self._guard.counters.dropped)
        if self._source_ended:
            return
        if not self._may_restart:
            words = self._source.why or exit_words(status)
            self._source_failure = PipelineError(f"the source process ended too early ({words})")
            self._source_ended = True
            return
        self._source.plan(status)

    # Out --------------------------------------------------------------------------------------------------------

    def _publish(self, out: Outgoing) -> None:
        assert self._ring is not None
        self._publisher.publish(self._ring, out)
        now_ns = self._clock.now_ns()
        self._published_rate.add(now_ns)
        if out.state is not State.UNCHANGED:
            self.latencies.add_ns(now_ns - out.stamps_ns[Stage.DUE])
            self.histograms.add(out.stamps_ns, now_ns)

    def status(self) -> dict[str, Any]:
        """What the heartbeat and the status line say. Made anew ten times a second, not for every frame."""
        guard, ring = self._guard, self._ring
        state, reason = (guard.state, guard.reason) if guard else (State.PASSTHROUGH, Reason.STARTING)
        gpu, gpu_why = self._engine.look_at_gpu()
        return {
            "pid": os.getpid(),
            "stream": self._publisher.stream.hex(),
            "stamp_ns": self._clock.now_ns(),
            "state": state.name,
            "state_code": int(state),
            "reason": reason.name.lower(),
            "reason_code": int(reason),
            "age_ms": guard.age_ms() if guard else 0.0,
            "source": {
                key: self.opened.get(key)
                for key in ("kind", "rate_hz", "live", "frame_count", "notes", "angles_deg")
            },
            "site": self.config.site is not None,
            "faults": self._faults_said(),
            "engine": self.engine,
            "domain": guard.domain.as_dict() if guard else {},
            "adaptation": self._patient.status(),
            "engine_why": self._engine.why or self._unfit,
            "gpu": gpu,
            "gpu_why": gpu_why or None,
            "engine_restarts": self._engine.supply.restarts,
            "source_restarts": self._source.restarts,
            "source_cause": self._source.cause,
            "source_why": self._source.why,
            "fps_in": self._grabbed_rate.hz(),
            "fps_out": self._published_rate.hz(),
            "counters": {"due": self._next_sequence, "waiting": guard.waiting(), **guard.counters.as_dict()}
            if guard
            else {},
            "latency_ms": self.latencies.summary(),
            "histograms": self.histograms.as_dict(),
            "ring": ring.statistics() if ring else {},
            "clients": self._publisher.statistics(),
            "audit": self._trail.status(),
            "ended": self._source_ended,
        }

    def _faults_said(self) -> dict[str, Any] | None:
        """Which faults are injected, for the heartbeat; None in a room."""
        if self.config.fault is None:
            return None
        return {"spec": self.config.fault, "seed": self.config.fault_seed, "begun": self._faults_begun}

    def _close(self) -> None:
        """Say that it is over, then take everything down."""
        if self._guard is not None:
            self._count_down_at_the_end()
            self._guard.end()
            self.last_status = {**self.status(), "ended": True}
            self._publisher.heartbeat(self.last_status)
            self.on_status(self.last_status)
        self._source.end()
        self.gpu = self._engine.end()
        self._door.close()
        self._publisher.close()
        if self._credit is not None:
            self._credit.close()
        for ring in (*self._retired, *((self._ring,) if self._ring else ())):
            ring.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
