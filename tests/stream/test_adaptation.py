"""Which frames a patient's adaptation draws: asked for, ready, another projection, off. With an engine that only listens."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calib.patient_facts import PatientFacts, new_key
from stream.adaptation import PatientSide
from stream.command_door import CommandDoor, command
from stream.control import Kind, unpack_json
from stream.errors import EndpointError
from stream.timing import FakeClock

FACTS = PatientFacts("a" * 64, new_key(), "b" * 64, "10:15", 90, 4.0, 0.8, 0.6, -30.0, 20.0)


class Listening:
    """An engine's link that keeps what it is sent."""

    def __init__(self) -> None:
        self.pidfd, self.at_end = -1, False
        self.socket, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send(self, packet: bytes) -> bool:
        self.socket.send(packet)
        return True

    def receive(self) -> bytes | None:
        return None

    def has_ended(self) -> bool:
        return False

    def end_soon(self) -> None: ...

    def kill(self) -> int | None:
        return None

    def heard(self) -> tuple[bytes, bytes]:
        """A packet, and the content of the file beside it."""
        packet, descriptors, _, _ = socket.recv_fds(self.other, 4096, 1)
        content = b""
        for descriptor in descriptors:
            content = os.pread(descriptor, 100, 0)
            os.close(descriptor)
        return packet, content


@pytest.fixture
def engine() -> Iterator[Any]:
    link = Listening()
    yield link
    link.socket.close()
    link.other.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "patient.safetensors"
    path.write_bytes(b"weights")
    return path


def asked(side: PatientSide, engine: Any, file: Path) -> tuple[int, list[tuple[bool, str]]]:
    """Ask for an adaptation; the serial number that the engine got, and the answers so far."""
    answers: list[tuple[bool, str]] = []
    side.ask(os.open(file, os.O_RDONLY), engine, lambda done, words: answers.append((done, words)))
    packet, content = engine.heard()
    assert (packet[0], content) == (Kind.PATIENT, b"weights")
    return int(unpack_json(packet)["serial"]), answers


def ready(serial: int, facts: PatientFacts = FACTS) -> dict[str, Any]:
    return {"serial": serial, "facts": facts.__dict__, "limit": 2.0, "sha256": "c" * 64, "ready_ms": 5.0}


def test_it_draws_from_ready_to_off_and_a_frame_in_hand_says_who_drew_it(engine: Any, file: Path) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    side = PatientSide(FakeClock(), lambda what, facts: events.append((what, facts)))
    serial, answers = asked(side, engine, file)
    assert (side.serial, side.why_general()) == (0, "it is being made ready")
    side.take_ready(ready(serial))
    assert answers == [(True, "patient-adapted, run of 10:15, RAO 30 CRAN 20: ready in 0.00 s")]
    assert side.serial == serial
    name = side.drew(serial)
    assert name is not None
    assert (name.key, name.describe()) == (FACTS.key, FACTS.describe())
    assert side.drew(0) is None
    assert side.off(engine)
    assert engine.heard()[0][0] == Kind.PATIENT_OFF
    assert side.serial == 0
    assert side.drew(serial) == name, "what was in the engine when it was switched off was drawn by it"
    assert side.status() is None
    side.take_ready(ready(serial))
    assert side.serial == 0, "an engine that was slow to hear switched it on again"
    said = [facts["after"] for what, facts in events if what == "draws"]
    assert said == ["it is being made ready", "adapted", "off"]
    side.end()


def test_three_strange_frames_of_ten_bring_the_general_model_and_ten_usual_ones_the_adaptation(
    engine: Any, file: Path
) -> None:
    clock = FakeClock()
    side = PatientSide(clock, lambda *_: None)
    serial, _ = asked(side, engine, file)
    side.take_ready(ready(serial))
    for distance in (1.0, 1.0, 1.0, 2.5, 2.5):
        side.judge(distance)
    assert side.serial == serial
    side.judge(2.5)
    assert side.serial == 0
    status = side.status()
    assert status is not None
    assert (status["draws"], status["distance"]) == (False, 2.5)
    assert status["why_general"] == "projection: the picture is unlike those it was taught on"
    clock.advance_ms(2000.0)
    for _ in range(9):
        side.judge(0.5)
    assert side.serial == 0
    side.judge(0.5)
    assert side.serial == serial
    side.end()


@pytest.mark.parametrize(
    ("angles", "draws"),
    [((-29.0, 21.0), True), ((-30.0, 23.0), False), ((30.0, 20.0), False), (None, True)],
    ids=["a degree", "tilted", "the other side", "not known"],
)
def test_a_source_whose_header_says_another_projection_has_the_general_model(
    engine: Any, file: Path, angles: tuple[float, float] | None, draws: bool
) -> None:
    side = PatientSide(FakeClock(), lambda *_: None)
    side.angles = angles
    serial, _ = asked(side, engine, file)
    side.take_ready(ready(serial))
    assert (side.serial == serial) is draws
    if not draws:
        assert str(side.why_general()).endswith("it was taught at RAO 30 CRAN 20")
        assert str(side.why_general()).startswith("projection: the source is at ")
    side.end()


def test_one_that_cannot_be_had_leaves_the_one_before_and_says_why(engine: Any, file: Path) -> None:
    side = PatientSide(FakeClock(), lambda *_: None)
    first, _ = asked(side, engine, file)
    side.take_ready(ready(first))
    second, answers = asked(side, engine, file)
    assert side.serial == first, "the former one draws while the next is made ready"
    side.take_refused({"serial": second, "message": "it is of another model"})
    assert answers == [(False, "it is of another model")]
    assert side.serial == first
    side.engine_gone()
    assert side.serial == 0
    side.give(engine)
    packet, content = engine.heard()
    assert (unpack_json(packet)["serial"], content) == (first, b"weights"), "the next engine gets it again"
    side.take_ready(ready(first))
    assert side.serial == first
    side.end()


def test_commands_reach_the_pipeline_of_the_same_user_and_nonsense_is_answered(
    tmp_path: Path, file: Path
) -> None:
    path = tmp_path / "stream.control"
    taken: list[bytes] = []

    def handle(said: dict[str, Any], descriptors: list[int], answer: Any) -> None:
        (descriptor,) = descriptors
        taken.append(os.pread(descriptor, 100, 0) + said["do"].encode())
        os.close(descriptor)
        answer(True, "done")

    before = len(os.listdir("/proc/self/fd"))
    door = CommandDoor(path, handle)
    assert path.stat().st_mode & 0o077 == 0
    try:
        for packet, expected in ((b"[]", False), (b"{", False), (b'{"do": "on"}', True)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client, file.open("rb") as held:
                client.connect(str(path))
                socket.send_fds(client, [packet], [held.fileno()])
                door.see_clients()
                assert json.loads(client.recv(4096))["done"] is expected
    finally:
        door.close()
    assert taken == [b"weightson"]
    assert len(os.listdir("/proc/self/fd")) == before, "a file beside nonsense stayed open"
    with pytest.raises(
        EndpointError, match=r"needed a running pipeline of yours on this host, got stream\.control"
    ):
        command(path, {})
