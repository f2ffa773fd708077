"""The engine of a patient's adaptation, beside the general one in the engine's process.

    the file's descriptor -> read, checked -> adapted graph compiled, run warm    in a thread of its own, while frames go on
    frames ask for it by its serial number                                        slots switch between two frames

The general engine stays open all the time, so that a frame can go back to it at once.
"""

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stream.control import Kind, unpack_json
from stream.drawer import Drawer
from stream.ring import RingMemory
from stream.timing import NS_PER_MS, MonotonicClock

if TYPE_CHECKING:
    from calib.patient_gate import PatientGate
    from engines.engine import Opened

BESIDE_S = 0.05
"""Between two frames of the warm-up, for the frames that go on."""
FILE = "the adaptation's file"
"""What it is called here: its name may be a patient's."""


class AdaptedSide:
    """Makes adaptations ready and gives the frames to the one that is.

    Args:
        say: Sends a packet with a JSON body to the guard; called from other threads too.
        memory: The ring.
        config: The guard's first packet.
        general: The general engine.
    """

    def __init__(
        self,
        say: Callable[[Kind, dict[str, Any]], object],
        memory: RingMemory,
        config: dict[str, Any],
        general: "Opened",
    ) -> None:
        self._say, self._memory, self._config, self._general = say, memory, config, general
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._wanted = 0
        """The serial number of the adaptation that is asked for; 0 for none."""
        self._present: Drawer | None = None
        self._former: list[Drawer] = []
        """Retired, and perhaps not given back yet."""
        self.gate: PatientGate | None = None
        """Of the adaptation that is ready."""

    def take(self, packet: bytes, descriptors: list[int]) -> None:
        """Take in PATIENT or PATIENT_OFF.

        Raises:
            ValueError, KeyError, TypeError, IndexError: Not as the guard sends them.
        """
        if packet[0] == Kind.PATIENT_OFF:
            self.off()
            return
        serial, descriptor = int(unpack_json(packet)["serial"]), descriptors[0]
        with self._lock:
            self._wanted = serial
        threading.Thread(
            target=self._open, args=(serial, descriptor), name="open-adapted", daemon=True
        ).start()

    def drawer(self, serial: int) -> Drawer | None:
        """What draws for an adaptation; None where it is not ready, or no longer."""
        present = self._present
        return present if present is not None and present.serial == serial else None

    def off(self) -> None:
        """Give the adaptation up."""
        with self._lock:
            self._wanted = 0
            former, self._present, self.gate = self._present, None, None
        self._retire(former)

    def close(self) -> None:
        """Give up what there is, and wait until no engine of here has the ring's memory any more."""
        self.off()
        with self._one_at_a_time:  # what is being opened is given up too
            pass
        for drawer in self._former:
            drawer.ended.wait()

    def _retire(self, drawer: Drawer | None) -> None:
        if drawer is not None:
            self._former = [each for each in self._former if not each.ended.is_set()] + [drawer]
            drawer.retire()

    def _open(self, serial: int, descriptor: int) -> None:
        try:
            with self._one_at_a_time:
                self._open_if_wanted(serial, descriptor)
        finally:
            os.close(descriptor)

    def _open_if_wanted(self, serial: int, descriptor: int) -> None:
        from stream.infer import refusal

        if self._wanted != serial:
            return
        try:
            drawer, gate, said = self._opened(serial, descriptor)
        except Exception as error:
            self._say(Kind.NOT_ADAPTED, {"serial": serial, "message": refusal(error)["message"]})
            return
        with self._lock:
            wanted = self._wanted == serial
            former = self._present if wanted else drawer
            if wanted:
                self._present, self.gate = drawer, gate
        self._retire(former)
        if wanted:
            self._say(Kind.ADAPTED, said)

    def _opened(self, serial: int, descriptor: int) -> "tuple[Drawer, PatientGate, dict[str, Any]]":
        """The adapted engine, warm, with its gate and the body of the ADAPTED packet.

        Raises:
            CheckpointError: The file is no adaptation of this model, or was taught with other grey levels.
            EngineError, ValueError: It cannot be opened.
        """
        from casgan.patient_weights import read_patient
        from engines.adapted import adapted_model
        from engines.untaught import find_model
        from stream.compile_ahead import compile_ahead
        from stream.infer import open_adapted, warm_up

        clock = MonotonicClock()
        start_ns = clock.now_ns()
        frame_format = self._memory.frame_format
        patient = read_patient(descriptor, FILE)
        general = find_model(self._config["model"], untaught=bool(self._config["untaught"]))
        with adapted_model(general, patient, FILE) as model:
            compile_ahead(self._config, self._general.engine, model)
            engine = open_adapted(
                frame_format, self._config, self._general.engine, model, patient.facts
            ).engine
        try:
            slots = list(engine.slots(int(self._config["slots"])))
            inference_ns = max(warm_up(slot, frame_format, BESIDE_S) for slot in slots)
            drawer = Drawer(slots, self._memory, serial=serial, close=engine.close)
        except BaseException:
            engine.close()
            raise
        said = {
            "serial": serial,
            "facts": dict(patient.facts.__dict__),
            "limit": patient.gate.limit,
            "sha256": engine.model_sha256,
            "precision": engine.precision,
            "inference_ms": inference_ns / NS_PER_MS,
            "ready_ms": (clock.now_ns() - start_ns) / NS_PER_MS,
        }
        return drawer, patient.gate, said
