"""Joins source, ring, guard, engine and publisher; the only file that knows all of them.

One loop, in the guard's process: it waits for packets of the two children, for their deaths and for the next
deadline. Nothing in it waits for anything else.
"""

import contextlib
import gc
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import zmq

from stream.adaptation import PatientSide
from stream.admission import Admission
from stream.audit_trail import AuditTrail
from stream.command_door import CommandDoor
from stream.control import (
    angles_from_json,
    format_from_json,
)
from stream.credit import Credit
from stream.endpoint import parse_endpoint
from stream.engine_side import EngineSide
from stream.engine_supply import EngineSupply, OwnEngine
from stream.errors import (
    EngineRefused,
    PipelineError,
    StreamError,
)
from stream.frame import FrameFormat, Reason, State
from stream.guard import Guard
from stream.histograms import FrameHistograms
from stream.latency import RecentLatencies, RecentRate
from stream.outgoing import Outgoing
from stream.pipeline_config import ENGINE_SLOTS, PipelineConfig, engine_config
from stream.publish import Publisher
from stream.rings import Rings
from stream.source_talk import SourceTalk
from stream.spacing import live_spacing
from stream.timing import NS_PER_MS, NS_PER_S, MonotonicClock, Stage

log = logging.getLogger("contrastream.pipeline")

HEARTBEAT_NS = 100 * NS_PER_MS
FINISH_NS = 200 * NS_PER_MS
"""So long the frames in hand may take when the run is told to end; those with a deadline are gone within 50 ms."""
CLIENT_WITHIN_NS = 30 * NS_PER_S


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
        with contextlib.ExitStack() as undo:
            self._publisher = Publisher(self.endpoint, self._clock, crc=config.crc)
            undo.callback(self._publisher.close)
            self._credit: Credit | None = None
            if config.pacing.lossless:
                self._credit = Credit(self.endpoint.credit, self.endpoint.curve)
                undo.callback(self._credit.close)
            self._trail = AuditTrail(config.audit_folder)
            self._door = CommandDoor(self.endpoint.control, lambda *asked: self._engine.take_command(*asked))
            undo.pop_all()
        self._rings = Rings(config.slots, self._credit)
        self._guard: Guard | None = None
        self._source = SourceTalk(
            config,
            self._clock,
            self._rings,
            self._credit,
            opened=self._take_opened,
            changed=self._change_format,
            note=lambda sentence: self.on_note(sentence),
        )
        self._patient = PatientSide(self._clock, self._trail.adaptation)
        self._engine = EngineSide(
            supply or OwnEngine(self._clock, engine_config(config)),
            patient=self._patient,
            wanted=config.engine != "off",
            domain=config.domain,
            may_wait=not config.wait_for_engine,
            note=lambda sentence: self.on_note(sentence),
        )
        self._unfit: str | None = None
        """Why the site's record is not for the present format, so that there is no engine; None where it is."""
        self._publisher.faults_injected = config.fault is not None
        self._stop = threading.Event()
        self._finish_by_ns = 0
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._heartbeat_ns = 0
        self._poller = zmq.Poller()
        self._polled: tuple[object, ...] = ()
        """The processes that the poller knows."""
        self._client_by_ns = 0
        self._started = not (config.wait_for_engine or config.wait_for_client)
        self._published_rate = RecentRate()
        self.latencies = RecentLatencies()
        self.histograms = FrameHistograms()
        self.last_status: dict[str, Any] | None = None
        """The last heartbeat, for other threads."""
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
                self._engine.begin_with(self.config.patient)
            self._source.side.start()
            self._ask_for_engine()
            gc.freeze()  # what was loaded so far lives as long as the pipeline
            while not self._is_over():
                ready = self._wait()
                if self._engine.supply.descriptor() in ready:
                    self._engine.supply.hear()
                if self._engine.link is not None and self._engine.link.socket.fileno() in ready:
                    self._engine.hear()
                child = self._source.side.child
                if child is not None and child.socket.fileno() in ready and not self._stop.is_set():
                    self._source.hear()
                self._engine.see_death(ready)
                self._source.see_death(ready)
                if self._engine.refused is not None:
                    raise EngineRefused(self._engine.refused)
                if self._credit is not None:
                    self._credit.hear()
                self._tick()
            if self._source.failure is not None:
                raise self._source.failure
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
            return self._source.ended and drained
        now_ns = self._clock.now_ns()
        self._finish_by_ns = self._finish_by_ns or now_ns + FINISH_NS
        return drained or now_ns >= self._finish_by_ns

    def _wait(self) -> set[int]:
        """Wait for a packet, a death or the next deadline; returns the descriptors that have something."""
        children = (self._source.side.child, self._engine.link)
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
        for child in (self._source.side.child, self._engine.link):
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
        self._source.see_hang()
        self._source.bury()
        self._source.side.start_if_due()
        child = self._source.side.child
        if child is not None and self._source.side.has_ring and self._may_begin():
            self._rings.grant(child)
        if now_ns - self._heartbeat_ns >= HEARTBEAT_NS:
            self._heartbeat_ns = now_ns
            self._publisher.see_clients()
            self._door.see_clients()
            if self._started and self.config.wait_for_client and self._publisher.measuring == 0:
                raise PipelineError("the measuring client ended before the replay did")
            self.last_status = self.status()
            self._publisher.heartbeat(self.last_status)
            self._trail.see(self.last_status, self._source.opened, self._rings.frame_format, now_ns)
            if isinstance(self._publisher.turnstile, Admission):
                self._trail.admitted(dict(self._publisher.turnstile.admitted))
            self.on_status(self.last_status)
            self._rings.drop_idle()

    # The frames' format --------------------------------------------------------------------------------------

    def _take_opened(self, opened: dict[str, Any]) -> None:
        """The source is open: publish in its format."""
        self._patient.angles = angles_from_json(opened)
        self._publisher.rate_hz = float(opened["rate_hz"] or 0.0)
        if self._rings.ring is None:
            curve = self.endpoint.curve
            keys = "" if curve is None else f" with CURVE, key pair {curve.key}"
            log.info("frames at %s%s; Ctrl-C ends", self.endpoint.plain, keys)
        opened["notes"] += [] if self.config.site is None else self.config.site.unused
        for note in opened["notes"]:
            self.on_note(str(note))
        frame_format = format_from_json(opened["format"])
        if self.config.site is not None and self._source.next_sequence == 0:
            self.config.site.check(opened, frame_format)
        if self._rings.ring is None:
            self._use_format(frame_format)
        elif self._rings.frame_format != frame_format:
            self._change_format(frame_format)
        elif self._source.side.child is not None:
            self._rings.give_to(self._source.side.child)

    def _use_format(self, frame_format: FrameFormat) -> None:
        ring = self._rings.renew(frame_format)
        self._see_whether_the_site_fits(frame_format)
        if self._guard is None:
            self._guard = Guard(
                ring,
                self._clock,
                self._publish,
                self._engine.submit,
                rate_hz=self._source.opened["rate_hz"],
                engine_slots=ENGINE_SLOTS,
                wait_for_engine=self.config.pacing.lossless,
            )
            self._guard.on_state = self._trail.state
            self._guard.opening_beside = lambda: self._patient.opening
            self._engine.guard = self._source.guard = self._guard
            if self.config.engine == "off":
                self._guard.engine_gone(Reason.OFF)
        else:
            self._guard.ring = ring
        if self._source.side.child is not None:
            self._rings.give_to(self._source.side.child)
        self._engine.give(ring.memory, self._rings.number)

    def _change_format(self, frame_format: FrameFormat) -> None:
        """The source's next frame has another size: a new ring, and an engine for it."""
        assert self._guard is not None
        log.info("frames are now %d x %d", frame_format.rows, frame_format.columns)
        self._engine.replace()
        self._use_format(frame_format)

    def _see_whether_the_site_fits(self, frame_format: FrameFormat) -> None:
        """A source may change into frames that its site's record is not for: those are live only, with their text."""
        site = self.config.site
        blank = None if site is None else site.blank
        masked = blank is not None and blank.fits(frame_format)
        self._publisher.unmasked_text = self._source.opened["kind"] != "phantom" and not masked
        self._unfit = None if site is None else site.why_not(frame_format)
        recorded = None if site is None or site.geometry is None or self._unfit else site.geometry.spacing
        self._publisher.spacing = live_spacing(self._source.opened["sizes"], frame_format, recorded)
        if self._unfit is not None and self._guard is not None:
            self.on_note(f"Live only from here on: {self._unfit}.")
            self._guard.engine_gone(Reason.OUT_OF_DOMAIN)

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

    # The engine -----------------------------------------------------------------------------------------------

    def _ask_for_engine(self) -> None:
        if self._unfit is None:
            ring = self._rings.ring
            self._engine.ask(ring.memory if ring else None, self._rings.number)

    # Out --------------------------------------------------------------------------------------------------------

    def _publish(self, out: Outgoing) -> None:
        assert self._rings.ring is not None
        self._publisher.publish(self._rings.ring, out)
        now_ns = self._clock.now_ns()
        self._published_rate.add(now_ns)
        if out.state is not State.UNCHANGED:
            self.latencies.add_ns(now_ns - out.stamps_ns[Stage.DUE])
            self.histograms.add(out.stamps_ns, now_ns)

    def status(self) -> dict[str, Any]:
        """What the heartbeat and the status line say. Made anew ten times a second, not for every frame."""
        guard, ring, source = self._guard, self._rings.ring, self._source
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
                key: source.opened.get(key)
                for key in ("kind", "rate_hz", "live", "frame_count", "notes", "angles_deg")
            },
            "site": self.config.site is not None,
            "faults": source.faults(),
            "engine": self.engine,
            "domain": guard.domain.as_dict() if guard else {},
            "adaptation": self._patient.status(),
            "engine_why": self._engine.why or self._unfit,
            "gpu": gpu,
            "gpu_why": gpu_why or None,
            "engine_restarts": self._engine.supply.restarts,
            "source_restarts": source.side.restarts,
            "source_cause": source.side.cause,
            "source_why": source.side.why,
            "fps_in": source.rate.hz(),
            "fps_out": self._published_rate.hz(),
            "counters": {"due": source.next_sequence, "waiting": guard.waiting(), **guard.counters.as_dict()}
            if guard
            else {},
            "latency_ms": self.latencies.summary(),
            "histograms": self.histograms.as_dict(),
            "ring": ring.statistics() if ring else {},
            "clients": self._publisher.statistics(),
            "audit": self._trail.status(),
            "ended": source.ended,
        }

    def _close(self) -> None:
        """Say that it is over, then take everything down."""
        if self._guard is not None:
            self._source.count_down()
            self._guard.end()
            self.last_status = {**self.status(), "ended": True}
            self._publisher.heartbeat(self.last_status)
            self.on_status(self.last_status)
        self._source.side.end()
        self.gpu = self._engine.end()
        self._door.close()
        self._publisher.close()
        if self._credit is not None:
            self._credit.close()
        self._rings.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
