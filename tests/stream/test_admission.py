"""Who gets in over CURVE: those who are allowed and nobody else, on all four sockets, also under a flood."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from contrastream import main
from stream.admission import Admission, authenticate, client_keys
from stream.clock_exchange import exchange_clocks
from stream.connections import MAX_CONNECTIONS
from stream.credit import Credit
from stream.endpoint import Curve, choose_keys, client_here, parse_endpoint
from stream.errors import EndpointError, StreamError
from stream.frame import State
from stream.handshake import NO_KEY, NOT_ALLOWED, NOT_ITS_KEY
from stream.keys import allow, load_pair, new_pair, revoke
from stream.publish import Publisher
from stream.subscribe import Subscriber
from stream.timing import MonotonicClock

WAIT_S = 8.0


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The publisher's pair `main`, the allowed client `viewer`, and `stranger`; public key files by label."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = {label: str(new_pair(label)) for label in ("main", "viewer", "stranger")}
    allow("viewer", made["viewer"])
    return made


def free_port() -> int:
    """The first of four ports in a row that were free a moment ago."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for place in range(1, 4):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + place))
            except (OSError, OverflowError):
                continue
            return port


class Beating:
    """A publisher whose heartbeat a test drives."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        text = choose_keys(f"tcp://{host}:{free_port()}", key=None, curve=True)
        self.publisher = Publisher(parse_endpoint(text), MonotonicClock())
        self.plain = self.publisher.endpoint.plain

    def beat(self) -> None:
        """What the live loop does ten times a second."""
        self.publisher.heartbeat({"alive": True})
        self.publisher.frames.send(b"not a frame, but read by nobody who does not belong")
        self.publisher.see_clients()

    def until(self, condition: Callable[[], Any], *, limit_s: float = WAIT_S) -> bool:
        """Beat until something is so; False where it never is."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self.beat()
            if condition():
                return True
            time.sleep(0.03)
        return False

    def hears(self, client: Subscriber) -> Callable[[], bool]:
        """Whether a client hears both sockets: the heartbeat, and frames (which it refuses, since they are none)."""

        def heard() -> bool:
            for _ in range(4):
                client.poll(0)
            return client.status is not None and client.statistics()["refused"] > 0

        return heard


@pytest.fixture
def beating() -> Iterator[Beating]:
    """A publisher with CURVE on loopback."""
    made = Beating()
    yield made
    made.publisher.close()


@pytest.fixture
def connect(keys: dict[str, str]) -> Iterator[Callable[..., Subscriber]]:
    """Clients of a test's own."""
    with contextlib.ExitStack() as closing:

        def make(address: str, key: str = "viewer", server: str = "main", **options: Any) -> Subscriber:
            made = Subscriber(address, key=key, server_key=keys.get(server, server), **options)
            return closing.enter_context(contextlib.closing(made))

        yield make


def test_an_allowed_client_hears_frames_and_heartbeat(beating: Beating, connect: Any) -> None:
    assert beating.until(beating.hears(connect(beating.plain)))


def test_the_publisher_s_own_user_gets_in_without_being_allowed(beating: Beating) -> None:
    with contextlib.closing(Subscriber(client_here(beating.publisher.endpoint))) as client:
        assert beating.until(beating.hears(client))


@pytest.mark.parametrize("who", ["stranger", "without CURVE", "wrong server key"])
def test_nobody_else_hears_anything(beating: Beating, connect: Any, who: str) -> None:
    belongs = connect(beating.plain)
    if who == "stranger":
        client = connect(beating.plain, key="stranger")
    elif who == "wrong server key":
        client = connect(beating.plain, server="stranger")
    else:
        client = connect_plainly(beating.plain)
    assert beating.until(beating.hears(belongs))
    assert not beating.until(
        lambda: client.poll(0) or client.status or client.statistics()["refused"], limit_s=1.0
    )
    if who == "stranger":
        assert beating.publisher.statistics()["denied"] > 0
    said = {"stranger": NOT_ALLOWED, "without CURVE": NO_KEY, "wrong server key": NOT_ITS_KEY}[who]
    assert beating.until(lambda: client.poll(0) or client.shown_state().why == said)
    assert client.shown_state().state is State.NO_SIGNAL
    assert belongs.shown_state().why not in (NOT_ALLOWED, NO_KEY, NOT_ITS_KEY)
    client.close()


def connect_plainly(address: str) -> Subscriber:
    """A client that knows nothing of CURVE."""
    endpoint = parse_endpoint(address)
    assert endpoint.curve is None
    return Subscriber(endpoint)


def test_a_client_that_is_allowed_later_gets_in_by_itself(beating: Beating, connect: Any, keys: Any) -> None:
    client = connect(beating.plain, key="stranger")
    assert beating.until(lambda: beating.publisher.statistics()["denied"] > 0)
    assert beating.until(lambda: client.poll(0) or client.shown_state().why == NOT_ALLOWED)
    allow("late", keys["stranger"])
    assert beating.until(beating.hears(client))
    assert client.shown_state().why not in (NOT_ALLOWED, NO_KEY, NOT_ITS_KEY)


def test_revoking_ends_live_sessions_within_a_second_and_nobody_else_s(
    beating: Beating, connect: Any, keys: Any
) -> None:
    allow("other", keys["stranger"])
    gone, stays = connect(beating.plain), connect(beating.plain, key="stranger", newest_only=False)
    assert beating.until(beating.hears(gone))
    assert beating.until(beating.hears(stays))
    lost_before = beating.publisher.disconnected
    revoke("viewer")
    time.sleep(1.0)
    while gone.poll(0) or gone.has_more():
        pass
    gone.status = None
    before, kept = gone.statistics()["refused"], stays.statistics()["refused"]
    assert not beating.until(
        lambda: gone.poll(0) or gone.status or gone.statistics()["refused"] != before, limit_s=1.0
    )
    assert beating.until(lambda: stays.poll(0) or stays.statistics()["refused"] > kept + 20)
    assert beating.publisher.statistics()["revoked"] == 2  # frames and heartbeat
    assert beating.publisher.disconnected == lost_before
    allow("viewer", keys["viewer"])
    assert beating.until(beating.hears(gone))


def test_a_session_that_had_subscribed_to_nothing_gets_nothing_after_revoking(
    beating: Beating, keys: Any
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = context.socket(zmq.SUB)
    client.linger = 0
    authenticate(client, client_keys(Curve("viewer", keys["main"])))
    monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    client.connect(beating.plain)
    assert monitor.poll(5000)
    revoke("viewer")
    time.sleep(1.0)
    client.subscribe(b"")
    assert not beating.until(lambda: client.poll(0), limit_s=1.0)
    client.disable_monitor()
    monitor.close()
    client.close()
    context.term()


def test_the_clock_answers_only_those_who_belong(beating: Beating, keys: Any) -> None:
    address = beating.publisher.endpoint.clock
    own = client_keys(Curve("viewer", keys["main"]))
    stamps, lost = exchange_clocks(address, exchanges=8, interval_ms=1, keys=own)
    assert (len(stamps), lost) == (8, 0)
    for refused in (client_keys(Curve("stranger", keys["main"])), None):
        with pytest.raises(StreamError, match="needed an answer"):
            exchange_clocks(address, exchanges=8, wait_ms=300, keys=refused)
    revoke("viewer")
    time.sleep(0.6)
    with pytest.raises(StreamError, match="needed an answer"):
        exchange_clocks(address, exchanges=8, wait_ms=300, keys=own)


def test_credit_is_taken_only_from_those_who_belong(keys: Any) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with contextlib.closing(Credit(address, Curve())) as credit:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        for own in (
            client_keys(Curve("stranger", keys["main"])),
            None,
            client_keys(Curve("viewer", keys["main"])),
        ):
            client = context.socket(zmq.PUSH)
            client.linger = 0
            authenticate(client, own)
            client.connect(address)
            client.send((3).to_bytes(4, "little"))
            belongs = own is not None and own[0] == load_pair("viewer")
            assert bool(credit.socket.poll(5000 if belongs else 400)) is belongs
            for _ in range(4):
                credit.use()
            assert not credit.allows()
            credit.hear()
            assert credit.allows() is belongs
            client.close()
            credit.give_back(4)
            if not belongs:
                assert credit.allows()
        context.term()


def test_nobody_gets_in_while_nobody_answers_zap(keys: Any) -> None:
    class Dead(Admission):
        def _hear(self, ear: Any) -> None:
            raise zmq.ContextTerminated  # its thread ends, and its socket with it

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    admission = Dead(context, Curve())
    server = context.socket(zmq.XPUB)
    server.linger = 0
    admission.protect(server)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    with contextlib.closing(Subscriber(f"tcp://127.0.0.1:{port}", key="viewer", server_key=keys["main"])):
        assert not server.poll(1500)
    server.close()
    context.term()
    admission.join()


def test_a_folder_that_others_can_enter_lets_nobody_in(
    beating: Beating, connect: Any, tmp_path: Path
) -> None:
    client = connect(beating.plain)
    assert beating.until(beating.hears(client))
    (tmp_path / "config/contrastream/keys/allowed").chmod(0o777)
    time.sleep(1.0)
    client.poll(0)
    client.status = None
    assert not beating.until(lambda: client.poll(0) or client.status, limit_s=0.7)


def test_a_window_without_the_publisher_s_key_is_told_so_before_a_display_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    assert main(["view", "tcp://192.0.2.7:5570"]) == 2
    assert "needs the publisher's public key, got none" in capsys.readouterr().err


def test_a_client_without_the_publisher_s_key_is_told_so() -> None:
    with pytest.raises(EndpointError, match=r"needs the publisher's public key, got none.*--server-key"):
        Subscriber("tcp://192.0.2.7:5570")


# Floods ---------------------------------------------------------------------------------------------------


def resident_kib() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE" + b"\0" * 15 + b"\0" * 32,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff\0\0\0\0\0\0\0\1\x7f\3\1NULL" + b"\0" * 16 + b"\0" * 32,
        b"\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE" + b"\0" * 15 + b"\0" * 32 + b"\x06" + b"\x7f" * 8 + b"\0" * 4096,
        b"\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE" + b"\0" * 15 + b"\0" * 32 + b"\4\xc8\5HELLO\1\0" + b"\0" * 192,
    ],
    ids=["silent", "half a handshake", "HTTP", "no CURVE", "a giant command", "a forged HELLO"],
)
def test_a_flood_of_strangers_costs_bounded_memory_and_ends_no_session(
    beating: Beating, connect: Any, sent: bytes
) -> None:
    client = connect(beating.plain, newest_only=False)
    assert beating.until(beating.hears(client))
    parts = beating.plain.rpartition(":")
    at = ("127.0.0.1", int(parts[2]))
    open_before, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    memory: list[int] = []
    for _round in range(4):
        held = []
        for place in range(400):
            stranger = socket.create_connection(at, timeout=5)
            held.append(stranger)
            with contextlib.suppress(OSError):
                stranger.sendall(sent)
            if place % 50 == 0:
                beating.beat()
        assert beating.until(
            lambda: (
                len(beating.publisher._connections.held) <= MAX_CONNECTIONS
                and len(os.listdir("/proc/self/fd")) <= open_before + 400 + MAX_CONNECTIONS + 8
            )
        )
        for stranger in held:
            stranger.close()
        assert beating.until(lambda: len(os.listdir("/proc/self/fd")) <= open_before + MAX_CONNECTIONS + 8)
        memory.append(resident_kib())
    assert memory[3] - memory[1] < 6 * 1024, memory  # the first round makes what is made once
    assert len(os.listdir("/proc/self/task")) == threads
    heard = client.statistics()["refused"]
    assert beating.until(lambda: client.poll(0) or client.statistics()["refused"] > heard + 5)
    assert beating.publisher.statistics()["revoked"] == 0
    assert beating.until(beating.hears(connect(beating.plain)))  # and who belongs still gets in


def test_a_half_open_session_is_ended_by_the_publisher(beating: Beating) -> None:
    with socket.create_connection(("127.0.0.1", int(beating.plain.rpartition(":")[2]))) as half:
        half.sendall(b"\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE" + b"\0" * 15 + b"\0" * 32)
        half.settimeout(8)
        began = time.monotonic()
        while half.recv(4096):
            pass
        assert time.monotonic() - began < 5


# Over a real network ----------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, str]]:
    """Another network namespace behind a veth pair: the namespace and this side's address."""
    name, inside = f"cs{os.getpid()}", f"cv{os.getpid()}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {inside} type veth peer name peer0 netns {name}",
        f"ip addr add 198.51.100.1/30 dev {inside}",
        f"ip link set {inside} up",
        f"ip -n {name} addr add 198.51.100.2/30 dev peer0",
        f"ip -n {name} link set peer0 up",
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"needs a network namespace, got {done.stderr.strip()} from: {command}")
        yield name, "198.51.100.1"
    except FileNotFoundError:
        pytest.skip("needs the command ip (iproute2)")
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            subprocess.run(["ip", "link", "del", inside], capture_output=True)


@pytest.mark.timeout(90)
def test_another_host_gets_in_with_its_key_and_not_without(elsewhere: tuple[str, str], keys: Any) -> None:
    namespace, address = elsewhere
    here = Beating(address)
    code = (
        "import sys, time\n"
        "from stream.subscribe import Subscriber\n"
        "client = Subscriber(sys.argv[1], key=sys.argv[2], server_key=sys.argv[3], newest_only=False)\n"
        "end = time.monotonic() + float(sys.argv[4])\n"
        "while time.monotonic() < end and not (client.status and client.statistics()['refused']):\n"
        "    client.poll(50)\n"
        "print(bool(client.status), client.statistics()['refused'] > 0)\n"
        "client.close()\n"
    )
    try:
        for label, limit, said in (("viewer", "20", "True True"), ("stranger", "2", "False False")):
            child = subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    namespace,
                    sys.executable,
                    "-c",
                    code,
                    here.plain,
                    label,
                    keys["main"],
                    limit,
                ],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parents[2],
            )
            assert here.until(lambda child=child: child.poll() is not None, limit_s=40)
            assert child.communicate()[0].strip() == said
    finally:
        here.publisher.close()
