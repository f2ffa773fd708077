"""Exchanges of stamps over real sockets: with a clock in another process, with hostile bytes, and with nobody there."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from calib.clock import estimate_clock
from stream import clock_exchange
from stream.clock_exchange import (
    MAGIC,
    REPLY,
    REQUEST,
    ClockFollower,
    ClockResponder,
    exchange_clocks,
    measure_publisher_clock,
)
from stream.endpoint import parse_endpoint
from stream.errors import EndpointError, StreamError
from stream.publish import Publisher
from stream.subscribe import Subscriber
from stream.timing import MonotonicClock

OFFSET_NS = 123_456_789_012
DRIFT_PPM = 300.0


@contextmanager
def clock_elsewhere(address: str, there_ms: float, back_ms: float, seed: int) -> Iterator[int]:
    """A skewed clock behind a bad network; gives when, here, its rate began to differ."""
    child = subprocess.Popen(
        [
            *(sys.executable, str(Path(__file__).with_name("clock_child.py")), address, str(OFFSET_NS)),
            *(str(DRIFT_PPM), str(there_ms), str(back_ms), str(seed)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield int(child.stdout.readline())
    finally:
        child.stdin.close()
        child.wait(timeout=20)
        child.stdout.close()


@pytest.mark.parametrize(
    ("there_ms", "back_ms"),
    [
        pytest.param(4.0, 0.2, id="slow there"),
        pytest.param(0.2, 4.0, id="slow back"),
        pytest.param(2.0, 2.0, id="slow both ways"),
    ],
)
def test_a_clock_in_another_process_is_found_within_the_uncertainty(
    tmp_path: Path, there_ms: float, back_ms: float
) -> None:
    address = f"ipc://{tmp_path}/clock"
    with clock_elsewhere(address, there_ms, back_ms, seed=5) as began_ns:
        stamps, lost = exchange_clocks(address, exchanges=80, interval_ms=12)
    assert (len(stamps), lost) == (80, 0)
    found = estimate_clock(stamps)
    true_ns = OFFSET_NS + 1e-6 * DRIFT_PPM * (found.reference_ns - began_ns)
    # The child's rate began to differ a little before it said so.
    assert abs(found.offset_ns - true_ns) <= found.uncertainty_ns + 1e-6 * DRIFT_PPM * 1e9
    assert found.uncertainty_ns < 5e6
    assert abs(found.drift_ppm - DRIFT_PPM) <= found.drift_uncertainty_ppm


def test_a_publisher_answers_beside_its_frames_and_a_subscriber_follows(tmp_path: Path) -> None:
    endpoint = parse_endpoint(f"ipc://{tmp_path}/main")
    publisher = Publisher(endpoint, MonotonicClock())
    subscriber = Subscriber(endpoint, follow_clock=True)
    assert subscriber.clock is not None
    over = time.monotonic() + 30
    while subscriber.clock.estimate() is None:
        assert time.monotonic() < over
        assert subscriber.poll(50) is None
    found = subscriber.clock.estimate()
    result = measure_publisher_clock(endpoint, exchanges=20, interval_ms=5, limit_ms=1000.0)
    subscriber.close()
    publisher.close()
    assert found is not None
    # One host has one clock: what is found must not exclude 0.
    assert abs(found.offset_ns) <= found.uncertainty_ns
    assert result.passed
    assert result.offset_ms is not None
    assert abs(result.offset_ms) <= result.uncertainty_ms
    assert (result.exchanges, result.lost) == (20, 0)
    assert not (tmp_path / "main.clock").exists()


def test_a_subscriber_that_follows_no_clock_knows_no_latency_across_hosts(tmp_path: Path) -> None:
    subscriber = Subscriber(f"ipc://{tmp_path}/main")
    assert subscriber.clock is None
    subscriber.close()


@pytest.fixture
def responder(tmp_path: Path) -> Iterator[ClockResponder]:
    made = ClockResponder(f"ipc://{tmp_path}/clock", MonotonicClock())
    yield made
    made.close()


def until_refused(responder: ClockResponder, count: int) -> None:
    over = time.monotonic() + 30
    while responder.refused < count:
        assert time.monotonic() < over, (responder.refused, count)
        time.sleep(0.002)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b""], id="empty"),
        pytest.param([b"CSCLOCK2" + bytes(16)], id="another magic"),
        pytest.param([MAGIC + bytes(15)], id="too short"),
        pytest.param([REQUEST.pack(MAGIC, 0, 0), b"more"], id="two parts"),
    ],
)
def test_what_is_no_request_is_dropped_and_the_next_one_answered(
    tmp_path: Path, responder: ClockResponder, parts: list[bytes]
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(f"ipc://{tmp_path}/clock")
    dealer.send_multipart(parts)
    until_refused(responder, 1)
    assert dealer.poll(50) == 0
    dealer.send(REQUEST.pack(MAGIC, 7, 42))
    assert dealer.poll(10_000)
    magic, number, sent_ns, there_in_ns, there_out_ns = REPLY.unpack(dealer.recv())
    assert (magic, number, sent_ns) == (MAGIC, 7, 42)
    assert there_in_ns <= there_out_ns <= MonotonicClock().now_ns()
    dealer.close()
    context.term()


def test_a_message_too_large_ends_its_connection_and_no_other(
    tmp_path: Path, responder: ClockResponder
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    hostile = context.socket(zmq.DEALER)
    hostile.linger = 0
    hostile.connect(f"ipc://{tmp_path}/clock")
    hostile.send(bytes(1 << 20))
    stamps, lost = exchange_clocks(f"ipc://{tmp_path}/clock", exchanges=9, interval_ms=1)
    assert (len(stamps), lost) == (9, 0)
    assert responder.answered == 9
    hostile.close()
    context.term()


def test_whoever_asks_too_often_is_not_answered(
    tmp_path: Path, responder: ClockResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_exchange, "MAX_ANSWERS_PER_S", 0)
    with pytest.raises(
        StreamError, match=r"needed an answer of the publisher's clock, got none from .* within 0.3 s"
    ):
        exchange_clocks(f"ipc://{tmp_path}/clock", wait_ms=300)
    assert (responder.answered, responder.refused) == (0, 1)


def test_answers_that_were_not_asked_for_are_not_believed(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/clock"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    liar = context.socket(zmq.ROUTER)
    liar.linger = 0
    liar.bind(address)
    follower = ClockFollower(address, MonotonicClock(), context)
    over = time.monotonic() + 30
    while not follower.sent:
        assert time.monotonic() < over
        follower.ask()
    client, request = liar.recv_multipart()
    _, number, sent_ns = REQUEST.unpack(request)
    for answer in (
        REPLY.pack(MAGIC, number + 1, sent_ns, 1, 2),
        REPLY.pack(MAGIC, number, sent_ns + 1, 1, 2),
        b"short",
        REPLY.pack(MAGIC, number, sent_ns, 1, 2),
        REPLY.pack(MAGIC, number, sent_ns, 3, 4),
    ):
        liar.send_multipart([client, answer])
    while not follower.answered:
        assert time.monotonic() < over
        follower.hear()
    follower.socket.poll(100)
    follower.hear()
    assert follower.stamps_ns[:, 1:3].tolist() == [[1, 2]]
    follower.close()
    liar.close()
    context.term()


def test_a_clock_that_was_set_is_forgotten_and_found_anew(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    follower = ClockFollower(f"ipc://{tmp_path}/clock", MonotonicClock(), context)
    for index in range(20):
        jump_ns = 10**9 if index >= 10 else 0
        base = index * 10**7
        follower._stamps.append((base, base + 10**5 + jump_ns, base + 10**5 + jump_ns, base + 2 * 10**5))
        follower.answered += 1
    assert follower.estimate() is None
    assert "a clock was set" in follower.contradiction
    for index in range(20, 32):
        base = index * 10**7
        follower._stamps.append((base, base + 10**5 + 10**9, base + 10**5 + 10**9, base + 2 * 10**5))
        follower.answered += 1
    found = follower.estimate()
    assert found is not None
    assert found.offset_ns == pytest.approx(1e9, abs=2e5)
    follower.close()
    context.term()


def test_nobody_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        StreamError, match=r"got none from ipc://.*; is `contrastream run` of this version running there"
    ):
        exchange_clocks(f"ipc://{tmp_path}/none", wait_ms=100)


def test_an_address_in_use_is_refused_and_nothing_is_left_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EndpointError, match=r"needed a free address, got tcp://127\.0\.0\.1:"):
            ClockResponder(f"tcp://127.0.0.1:{taken.getsockname()[1]}", MonotonicClock())
