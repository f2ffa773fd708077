"""A patient's adaptation as the guard knows it: asked for, ready, which frames it draws, and why not the others.

    asked for (a command, --patient) -> the engine makes it ready -> its serial number goes with each lease -> the engine says who drew
    projection no longer the same: by the source's angles, or 3 of the last 10 frames beyond the gate's limit -> the general model
    off -> the general model, from the next frame that is leased on

The file is only a descriptor in here: its name may be a patient's, and its bytes are read in the engine's process.
"""

import contextlib
import logging
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from calib.patient_facts import PatientFacts, checked_facts, projection
from stream.control import Angles, Kind, pack_json
from stream.domain_watch import DomainRule, DomainWatch
from stream.engine_supply import EngineLink
from stream.extensions import Adaptation
from stream.timing import NS_PER_S, Clock

log = logging.getLogger("contrastream.pipeline")

ANGLE_DEG = 2.5
"""From the taught projection, of either angle: 3 degrees were seen to draw worse than the general model (casgan/RESULTS.md)."""
Answer = Callable[[bool, str], object]
"""Takes what became of a command: whether it was done, and a sentence."""


@dataclass(frozen=True)
class Ready:
    """An adaptation that the engine has warm."""

    serial: int
    facts: PatientFacts
    sha256: str
    """Of the adapted model's bytes."""
    ready_ms: float
    """From the file's first byte to the last frame of the warm-up."""

    @property
    def name(self) -> Adaptation:
        """As a message names it."""
        hours, minutes = self.facts.taught_at.split(":")
        return Adaptation(
            self.facts.key, 60 * int(hours) + int(minutes), self.facts.primary_deg, self.facts.secondary_deg
        )


@dataclass(frozen=True)
class File:
    """An adaptation's file, and the number it was asked for under."""

    serial: int
    descriptor: int


class PatientSide:
    """One pipeline's adaptation.

    Args:
        clock: The clock of the frame path.
        audit: Takes each event, with its facts.
    """

    def __init__(self, clock: Clock, audit: Callable[[str, dict[str, Any]], object]) -> None:
        self._clock, self._audit = clock, audit
        self._last = 0
        """The serial number that was given out last."""
        self._file: File | None = None
        """Of the adaptation that is ready, or was before the engine was lost."""
        self._next: File | None = None
        """Of the one that is being made ready; what drew before goes on drawing meanwhile."""
        self._answer: Answer | None = None
        self._asked_ns = 0
        self._names: dict[int, Adaptation] = {}
        """By serial number: a frame in hand when it was switched off was drawn by it all the same."""
        self.ready: Ready | None = None
        self.failure: str | None = None
        """Why the one that was asked for last cannot be had."""
        self.watch = DomainWatch()
        self.angles: Angles | None = None
        """Of the source, where its header says them."""
        self._before = "off"

    # Asked for ------------------------------------------------------------------------------------------------

    def ask(
        self, descriptor: int, link: EngineLink | None, answer: Answer = lambda done, words: None
    ) -> None:
        """Have an adaptation made ready; until it is, frames go on as they did.

        Args:
            descriptor: Of its file; owned from here on.
            link: The engine, warm; None while there is none, which gets it when it is there.
            answer: Called once, when it is ready or cannot be had.
        """
        self._drop_next("another adaptation was asked for before this one was ready")
        self._last += 1
        self._next, self._answer = File(self._last, descriptor), answer
        self.failure = None
        if link is not None:
            self.give(link)
        self._see()

    def give(self, link: EngineLink) -> None:
        """Hand the engine the file; one that was started again gets it anew."""
        file = self._next or self._file
        if file is None:
            return
        self._asked_ns = self._clock.now_ns()
        packet = pack_json(Kind.PATIENT, {"serial": file.serial})
        with contextlib.suppress(OSError):  # a dead engine's successor gets it
            socket.send_fds(link.socket, [packet], [file.descriptor])

    def off(self, link: EngineLink | None) -> bool:
        """Back to the general model, with the next frame that is leased; returns whether there was anything to end."""
        there = self.asked
        self._drop_next("the adaptation was switched off before it was ready")
        self._drop_file()
        self.ready, self.failure, self.watch = None, None, DomainWatch()
        if link is not None:
            link.send(bytes((Kind.PATIENT_OFF,)))
        self._see()
        return there

    def _drop_file(self) -> None:
        if self._file is not None:
            os.close(self._file.descriptor)
            self._file = None

    def _drop_next(self, why: str) -> None:
        if self._next is not None:
            os.close(self._next.descriptor)
            self._next = None
        self._tell(False, why)

    def _tell(self, done: bool, sentence: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(done, sentence)

    # What the engine says -------------------------------------------------------------------------------------

    def take_ready(self, said: dict[str, Any]) -> None:
        """It is warm.

        Raises:
            ValueError, KeyError, TypeError: Not as the engine says it.
        """
        serial = int(said["serial"])
        file = self._next or self._file
        if file is None or file.serial != serial:
            return  # switched off, or another asked for, meanwhile
        facts = checked_facts(said["facts"])
        rule = DomainRule(float(said["limit"]))
        ready = Ready(serial, facts, str(said["sha256"]), float(said["ready_ms"]))
        if self._next is not None:
            self._drop_file()
            self._file, self._next = self._next, None
        self.ready, self.watch, self._names[serial] = ready, DomainWatch(rule), ready.name
        waited_s = (self._clock.now_ns() - self._asked_ns) / NS_PER_S
        self._audit(
            "ready", {"key": facts.key, "adapted_sha256": ready.sha256, "ready_ms": round(ready.ready_ms)}
        )
        log.info("%s: ready in %.2f s", facts.describe(), waited_s)
        self._tell(True, f"{facts.describe()}: ready in {waited_s:.2f} s")
        self._see()

    def take_refused(self, said: dict[str, Any]) -> None:
        """It cannot be had; what drew before goes on.

        Raises:
            ValueError, KeyError, TypeError: Not as the engine says it.
        """
        serial, message = int(said["serial"]), str(said["message"])
        if self._next is not None and self._next.serial == serial:
            self._tell(False, message)
            self._drop_next("")
        elif self._file is not None and self._file.serial == serial:
            self._drop_file()  # it was ready in an engine that was lost
            self.ready = None
        else:
            return
        self.failure = message
        log.warning("no adaptation: %s", message)
        self._audit("refused", {})
        self._see()

    def engine_gone(self) -> None:
        """The engine is lost, and what it had ready with it; the next one gets the file again."""
        self.ready, self.watch = None, DomainWatch()

    # Which frames it draws ------------------------------------------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether there is an adaptation that should draw."""
        return self._file is not None or self._next is not None

    @property
    def opening(self) -> bool:
        """Whether one is being made ready."""
        return self._next is not None or (self._file is not None and self.ready is None)

    @property
    def serial(self) -> int:
        """What draws the next frame: the adaptation's serial number, 0 for the general model."""
        return self.ready.serial if self.ready is not None and self.why_general() is None else 0

    def drew(self, serial: int) -> Adaptation | None:
        """What a message says of a frame that was drawn by this serial number."""
        return self._names.get(serial)

    def judge(self, distance: float) -> None:
        """Take in how far a frame is from the taught projection; NaN is none."""
        if math.isfinite(distance):
            self.watch.judge(distance, self._clock.now_ns())
            self._see()

    def turned(self) -> str | None:
        """Why the source's angles are not those of the adaptation; None where they are, or one of them is not known."""
        if self.ready is None or self.angles is None:
            return None
        facts = self.ready.facts
        if facts.primary_deg is None or facts.secondary_deg is None:
            return None
        apart = max(abs(facts.primary_deg - self.angles[0]), abs(facts.secondary_deg - self.angles[1]))
        if apart <= ANGLE_DEG:
            return None
        return f"projection: the source is at {projection(*self.angles)}, it was taught at {projection(facts.primary_deg, facts.secondary_deg)}"

    def why_general(self) -> str | None:
        """Why the general model draws although an adaptation is asked for; None where it does not, or none is."""
        if not self.asked:
            return None
        if self.ready is None:
            return "it is being made ready"
        if (turned := self.turned()) is not None:
            return turned
        if self.watch.out:
            return "projection: the picture is unlike those it was taught on"
        return None

    # What is said of it ---------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for."""
        return not self.asked or self.ready is not None

    def _see(self) -> None:
        """Note each change between adapted and general, with its reason."""
        now = "off" if not self.asked else self.why_general() or "adapted"
        if now == self._before:
            return
        log.info("patient adaptation: %s -> %s", self._before, now)
        key = None if self.ready is None else self.ready.facts.key
        # The words of a projection say angles, which are of the room and not of the patient.
        self._audit("draws", {"before": self._before, "after": now, "key": key})
        self._before = now

    def status(self) -> dict[str, Any] | None:
        """For the heartbeat; None where none is asked for and none failed."""
        if not self.asked and self.failure is None:
            return None
        ready = self.ready
        return {
            "words": None if ready is None else ready.facts.describe(),
            "key": None if ready is None else ready.facts.key,
            "adapted_sha256": None if ready is None else ready.sha256,
            "ready_ms": None if ready is None else ready.ready_ms,
            "next": self._next is not None and ready is not None,
            "draws": self.serial != 0,
            "why_general": self.why_general(),
            "failure": self.failure,
            "distance": self.watch.score,
            "limit": None if self.watch.rule is None else self.watch.rule.threshold,
        }

    def end(self) -> None:
        """The pipeline is over."""
        self._drop_next("the stream has ended")
        self._drop_file()
