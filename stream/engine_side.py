"""The guard's engine: from asking for one to its READY, its answers, its death and the next one.

`stream/engine_supply.py` knows where an engine comes from; here is what the pipeline makes of it.
"""

import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calib.errors import CalibrationError
from calib.patient_facts import open_patient
from stream.adaptation import Answer, PatientSide
from stream.control import DONE, LEASE, Kind, send_ring, unpack_json
from stream.domain_watch import DomainRule
from stream.engine_supply import EngineLink, EngineSupply, GpuReport
from stream.errors import EngineRefused
from stream.frame import Reason
from stream.guard import Guard
from stream.outgoing import Inferred
from stream.ring import Ring, RingMemory
from stream.timing import NS_PER_MS

log = logging.getLogger("contrastream.pipeline")

MALFORMED = (ValueError, KeyError, TypeError, IndexError, OverflowError, struct.error)
"""What reading a packet raises that a child in its right mind does not send."""


class EngineSide:
    """One pipeline's engine, whichever process it is at the moment.

    Args:
        supply: Where engines come from.
        wanted: False for a pipeline that shows live pictures only.
        domain: Whether frames that are unlike the taught ones stay live.
        may_wait: Whether the live picture goes on while an engine cannot be opened; a recording that waits for its
            engine has none that could.
        note: Takes a sentence for a person.
        patient: The adaptation to one patient, where one is asked for.
    """

    def __init__(
        self,
        supply: EngineSupply,
        *,
        patient: PatientSide,
        wanted: bool,
        domain: bool,
        may_wait: bool,
        note: Callable[[str], None],
    ) -> None:
        self.supply = supply
        self.patient = patient
        self.link: EngineLink | None = None
        self._warm = False
        """Whether this engine process has said that it is ready."""
        self._dying: tuple[EngineLink, Ring | None] | None = None
        """An engine that was killed and is not dead yet, and the ring that it may still write into."""
        self._replaced = False
        """Whether that one was given up for another format, and not lost."""
        self.guard: Guard | None = None
        """Set once there is one."""
        self.ready: dict[str, Any] = {}
        """What the engine said when it was ready."""
        self.why: str | None = None
        """Why no engine runs now where it has said so, for the heartbeat."""
        self.refused: str | None = None
        """Why the adaptation that the run was started with cannot be had; the run does not go on without."""
        self._wanted, self._domain, self._may_wait, self._note = wanted, domain, may_wait, note
        self._failure: str | None = None
        self._retries = False
        """Whether this engine process has said that it may work later: the GPU is full."""
        self._told_no_domain = False
        self._gpu: GpuReport | None = None
        self._gpu_of: tuple[str, str | None] | None = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for: it has been ready, or none is wanted."""
        return (bool(self.ready) and self.patient.settled) or not self._wanted

    # Given and taken ------------------------------------------------------------------------------------------

    def ask(self, memory: RingMemory | None, ring_number: int) -> None:
        """Take an engine where there is none and one is to be had; it opens for the ring that it is given first.

        Args:
            memory: The ring; None before there is one.
            ring_number: Its number.
        """
        if self.link is not None or self._dying is not None or not self._wanted:
            return
        self.link = self.supply.due()
        self._warm = False
        if self.link is not None:
            self._failure, self._retries = None, False
            if memory is not None:
                self.give(memory, ring_number)

    def give(self, memory: RingMemory, ring_number: int) -> None:
        """Hand the engine its ring."""
        if self.link is not None:
            send_ring(self.link.socket, memory, ring_number)

    def submit(self, slot: int, epoch: int) -> None:
        """Let the engine write a slot's planes under a lease."""
        if self.link is not None:
            self.link.send(LEASE.pack(Kind.LEASE, slot, epoch, self.patient.serial))

    def ask_patient(self, descriptor: int, answer: Answer) -> None:
        """Have an adaptation made ready; arguments as `PatientSide.ask` takes them."""
        if not self._wanted:
            os.close(descriptor)
            answer(
                False,
                "needed a stream with an engine, got one that shows live pictures only; run it without --engine off",
            )
            return
        self.patient.ask(descriptor, self.link if self._warm else None, answer)

    def begin_with(self, path: str) -> None:
        """Ask for the adaptation that the run is started with; `refused` says it where it cannot be had.

        Args:
            path: Its file.

        Raises:
            EngineRefused: There is no such file, or it is no adaptation.
        """
        try:
            descriptor = open_patient(Path(path))
        except CalibrationError as error:
            raise EngineRefused(str(error)) from None
        self.ask_patient(descriptor, self._take_first_patient)

    def _take_first_patient(self, done: bool, why: str) -> None:
        self.refused = None if done else why

    def take_command(self, said: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """A command of this user's; raises what `stream.command_door.Handler` says for what is none."""
        if said["command"] != "patient" or said["do"] not in ("on", "off"):
            raise ValueError("no command that is known here")
        if said["do"] == "on":
            (descriptor,) = descriptors
            self.ask_patient(descriptor, answer)
        else:
            if descriptors:
                raise ValueError("nothing comes beside this command")
            there = self.patient_off()
            answer(True, "the general model draws" + ("" if there else "; there was no adaptation"))

    def patient_off(self) -> bool:
        """Back to the general model; returns whether an adaptation was asked for."""
        return self.patient.off(self.link if self._warm else None)

    def replace(self) -> None:
        """Give this engine up, for frames of another format; the next one is asked for anew.

        The frames do not wait for its death: 51 ms were seen. Its ring is not closed before that.
        """
        if self.link is None:
            return
        link, self.link = self.link, None
        self.patient.engine_gone()
        self._replaced = self.supply.replace(link)
        if not self._replaced:
            if self.guard is not None:
                self.guard.engine_gone(Reason.STARTING)
            return
        if self.guard is not None:
            self.guard.engine_dying(Reason.STARTING)
        self._dying = link, None if self.guard is None else self.guard.ring

    # What it says ---------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Take in its packets."""
        while self.link is not None and (packet := self.link.receive()):
            try:
                self._take(packet)
            except MALFORMED as error:
                log.warning("the engine process sent what it must not (%s); killing it", type(error).__name__)
                self.lose()

    def _take(self, packet: bytes) -> None:
        kind = packet[0]
        if kind == Kind.DONE and self.guard is not None:
            _, slot, epoch, submitted_ns, inferred_ns, valid, *_, domain, away, serial = DONE.unpack(packet)
            if valid:
                self.patient.judge(away)
            drew = self.patient.drew(serial)
            self.guard.frame_inferred(
                Inferred(slot, epoch, submitted_ns, inferred_ns, bool(valid), domain, drew)
            )
        elif kind == Kind.PASSED_OVER and self.guard is not None:
            _, slot, epoch, _ = LEASE.unpack(packet)
            self.guard.frame_passed_over(slot, epoch)
        elif kind == Kind.READY and self.guard is not None:
            self._take_ready(self.guard, unpack_json(packet))
        elif kind == Kind.ADAPTED:
            self.patient.take_ready(unpack_json(packet))
        elif kind == Kind.NOT_ADAPTED:
            self.patient.take_refused(unpack_json(packet))
        elif kind == Kind.NOTE:
            self._note(str(unpack_json(packet)["message"]))
        elif kind == Kind.ERROR:
            said = unpack_json(packet)
            if said.get("retry") and (self.ready or self._may_wait):
                self._wait_for_room(str(said["message"]))
            else:
                self._failure = str(said["message"])

    def _wait_for_room(self, why: str) -> None:
        """The engine found the GPU full and ends now; its restart is planned as that of any that died."""
        if self.why is None:
            log.warning("live only until the engine can be opened, which is tried again and again: %s", why)
        self._retries, self.why = True, why

    def _take_ready(self, guard: Guard, said: dict[str, Any]) -> None:
        self.ready = said
        self.why = None
        self.supply.healthy()
        self.watch_gpu(str(said["backend"]), said.get("gpu_bus_id"))
        # Where others have their turns between, an answer takes as long as a round of all.
        round_ms = said["inference_ms"] * said.get("rooms", 1)
        guard.engine_ready(
            taught=said["taught"], inference_ns=round(round_ms * NS_PER_MS), domain=self._domain_rule(said)
        )
        self._warm = True
        if self.link is not None:
            self.patient.give(self.link)
        log.info(
            "engine ready: %s %s, one inference %.1f ms, opened in %.0f ms",
            said["backend"],
            said["precision"],
            said["inference_ms"],
            said["open_ms"],
        )

    def _domain_rule(self, said: dict[str, Any]) -> DomainRule | None:
        """When frames are too unlike the taught ones; said once where nothing guards against such frames."""
        rule = said.get("domain")
        if rule is not None and self._domain:
            return DomainRule(float(rule["threshold"]), int(rule["strange"]), int(rule["of"]))
        if said["taught"] and not self._told_no_domain:
            self._told_no_domain = True
            why = (
                "as asked" if rule is not None else "nobody has measured which frames the model was taught on"
            )
            self._note(f"vessels are drawn on any frame, however unlike the taught ones: {why}")
        return None

    # Its death ------------------------------------------------------------------------------------------------

    def see_death(self, ready: set[int]) -> None:
        """Take in its last words and its end, where `ready` holds a sign of it."""
        if self._dying is not None and self._dying[0].has_ended():
            self._bury()
        # Asked for once more, since a child started in this round may have taken over a dead one's descriptor.
        link = self.link
        if link is not None and (link.pidfd in ready or link.at_end) and link.has_ended():
            self.hear()
            if self.link is not None:
                self.lose()

    def lose(self) -> None:
        """Give the engine up and kill it; its leases are taken back and another is planned when it is dead.

        The frames do not wait for that: a process that was stopped took 0.8 s to die on a busy machine.

        Raises:
            EngineRefused: It cannot be opened for this model and format, and never was.
        """
        assert self.link is not None
        link, self.link = self.link, None
        self.patient.engine_gone()
        link.end_soon()
        if self.guard is not None:
            self.guard.engine_dying(Reason.ENGINE_LOST if self.ready else Reason.STARTING)
        self._dying = link, None if self.guard is None else self.guard.ring
        if link.has_ended():
            self._bury()

    def _bury(self) -> None:
        """The engine that was lost is dead now: its leases are over, and another may be planned."""
        assert self._dying is not None
        (link, ring), self._dying = self._dying, None
        status = link.kill()
        if ring is not None:
            ring.revoke_leases()
        if self._replaced:
            self._replaced = False
            return
        if self._failure is not None:
            if not self.ready:
                raise EngineRefused(self._failure)
            # It has run before, so the room's picture goes on; trying the same again would change nothing.
            log.error("live only from here on: %s", self._failure)
            self.why = self._failure
            self.supply.refused()
            return
        self.supply.lost(link, status, said=self._retries)
        if not self._retries:
            self.why = None

    def end(self) -> dict[str, Any]:
        """The pipeline is over; what the GPU did over the run."""
        self.patient.end()
        if self._dying is not None:
            self._dying[0].kill()
            self._dying = None
        if self.link is not None:
            self.supply.end(self.link)
            self.link = None
        if self._gpu is None:
            return {"gpu": None, "why": "no engine has been opened"}
        report = self._gpu.report()
        self._gpu.close()
        return report

    # Its GPU --------------------------------------------------------------------------------------------------

    def watch_gpu(self, backend: str, bus_id: str | None) -> None:
        """Have the engine's GPU watched; an engine that is started again finds its watch still there."""
        if self._gpu_of == (backend, bus_id):
            return
        if self._gpu is not None:
            self._gpu.close()
        self._gpu, self._gpu_of = self.supply.watch_gpu(backend, bus_id), (backend, bus_id)

    def look_at_gpu(self) -> tuple[dict[str, Any] | None, str]:
        """What was read of the GPU last, or None and why."""
        return self._gpu.look() if self._gpu else (None, "no engine has been opened")
