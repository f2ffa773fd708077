import os
import stat
from pathlib import Path

import pytest

from stream.endpoint import (
    MAX_IPC_PATH,
    Curve,
    Endpoint,
    EndpointLock,
    choose_keys,
    numbered_endpoint,
    parse_endpoint,
    runtime_folder,
)
from stream.errors import EndpointError


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder of this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "contrastream"


def test_the_default_endpoint_lies_in_a_folder_that_is_yours_alone(runtime: Path) -> None:
    endpoint = parse_endpoint()
    assert endpoint == Endpoint(
        f"ipc://{runtime}/main.frames",
        f"ipc://{runtime}/main.status",
        f"ipc://{runtime}/main.credit",
        f"ipc://{runtime}/main.clock",
        runtime / "main.memory",
        runtime / "main.lock",
    )
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700


def test_a_name_is_another_stream_of_this_host(runtime: Path) -> None:
    assert parse_endpoint("room-2").frames == f"ipc://{runtime}/room-2.frames"


@pytest.mark.parametrize(
    "text", [None, "room-2", "ipc:///tmp/a/b", "ipc:///tmp/x.frames", "tcp://127.0.0.1:5555"]
)
def test_the_text_of_an_endpoint_leads_back_to_it(runtime: Path, text: str | None) -> None:
    endpoint = parse_endpoint(text)
    assert parse_endpoint(endpoint.text) == endpoint


@pytest.mark.parametrize(
    ("text", "frames", "status"),
    [
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"),
        ("tcp://localhost:1024", "tcp://localhost:1024", "tcp://localhost:1025"),
        ("tcp://[::1]:65532", "tcp://[::1]:65532", "tcp://[::1]:65533"),
    ],
)
def test_a_tcp_endpoint_has_its_heartbeat_on_the_next_port(text: str, frames: str, status: str) -> None:
    endpoint = parse_endpoint(text)
    assert (endpoint.frames, endpoint.status, endpoint.lock) == (frames, status, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "[::]", "host", "127.0.0.2", "localhost.example"])
def test_an_address_beyond_this_host_has_curve_whatever_is_said(host: str) -> None:
    endpoint = parse_endpoint(f"tcp://{host}:5555")
    assert endpoint.curve == Curve("main", None)
    assert endpoint.plain == f"tcp://{host}:5555"
    assert parse_endpoint(endpoint.text) == endpoint


def test_keys_travel_in_the_text_of_an_endpoint() -> None:
    text = choose_keys("tcp://127.0.0.1:5555", key="a", server="/tmp/a b&c?.key")
    endpoint = parse_endpoint(text)
    assert endpoint.curve == Curve("a", "/tmp/a b&c?.key")
    assert parse_endpoint(endpoint.text) == endpoint
    assert choose_keys(text, key=None, curve=True) == text
    assert choose_keys("room", key=None) == "room"
    assert numbered_endpoint("tcp://0.0.0.0:5555?key=a", 2) == "tcp://0.0.0.0:5565?key=a"


def test_keys_for_an_ipc_endpoint_are_refused() -> None:
    with pytest.raises(
        EndpointError, match="keys are for tcp://ADDRESS:PORT, got ipc:///tmp/a, which is for this user"
    ):
        choose_keys("ipc:///tmp/a", key="main")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp://127.0.0.1", "PORT 1024 to 65532"),
        ("tcp://127.0.0.1:80", "PORT 1024 to 65532"),
        ("tcp://127.0.0.1:65533", "PORT 1024 to 65532"),
        ("tcp://127.0.0.1:99999", "PORT 1024 to 65532"),
        ("tcp://127.0.0.1:x", "PORT 1024 to 65532"),
        ("tcp://*:5555", "PORT 1024 to 65532"),
        ("tcp://0.0.0.0:5555?secret=x", "only .key=LABEL&server=KEY may follow"),
        ("tcp://0.0.0.0:5555/x", "only .key=LABEL&server=KEY may follow"),
        ("tcp://", "PORT 1024 to 65532"),
        ("ipc://relative/path", "ipc:///absolute/path, got ipc://relative/path"),
        ("udp://127.0.0.1:5555", "a name, ipc:///path or tcp"),
        ("a/b", "a name, ipc:///path or tcp"),
        ("..", "a name, ipc:///path or tcp"),
        ("two words", "a name, ipc:///path or tcp"),
        ("x" * 41, "a name, ipc:///path or tcp"),
        ("ipc:///" + "x" * MAX_IPC_PATH, f"at most {MAX_IPC_PATH} bytes long, got {MAX_IPC_PATH + 1}"),
        ("ipc:///" + "ä" * 50, "at most 99 bytes long, got 101"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(EndpointError, match=said):
        parse_endpoint(text)


def test_a_folder_that_others_can_enter_is_refused(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o755)
    with pytest.raises(EndpointError, match=r"mode 0700.*mode 0755; run: chmod 700"):
        runtime_folder()


def test_a_link_in_the_place_of_the_folder_is_refused(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EndpointError, match="must be yours alone"):
        runtime_folder()


def test_a_file_in_the_place_of_the_folder_is_refused(runtime: Path) -> None:
    runtime.touch(mode=0o600)
    with pytest.raises(EndpointError, match=r"needed a folder for sockets, got .*File exists"):
        runtime_folder()


# The lock -----------------------------------------------------------------------------------------------------


def test_a_second_publisher_is_told_who_holds_the_endpoint(tmp_path: Path) -> None:
    endpoint = parse_endpoint(f"ipc://{tmp_path}/s")
    lock = EndpointLock(endpoint)
    try:
        with pytest.raises(
            EndpointError,
            match=f"needed a free endpoint, got ipc://{tmp_path}/s in use by process {os.getpid()}",
        ):
            EndpointLock(endpoint)
    finally:
        lock.close()


def test_a_lock_is_free_again_when_closed_and_may_be_closed_twice(tmp_path: Path) -> None:
    endpoint = parse_endpoint(f"ipc://{tmp_path}/s")
    first = EndpointLock(endpoint)
    first.close()
    first.close()
    EndpointLock(endpoint).close()


def test_a_lock_file_left_by_a_longer_process_number_is_overwritten(tmp_path: Path) -> None:
    endpoint = parse_endpoint(f"ipc://{tmp_path}/s")
    assert endpoint.lock is not None
    endpoint.lock.write_text("99999999999")
    lock = EndpointLock(endpoint)
    assert endpoint.lock.read_text() == str(os.getpid())
    lock.close()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    endpoint = parse_endpoint(f"ipc://{tmp_path}/s")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    assert endpoint.lock is not None
    endpoint.lock.symlink_to(victim)
    with pytest.raises(EndpointError, match="writable folder for sockets"):
        EndpointLock(endpoint)
    assert victim.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EndpointError, match="needed a writable folder for sockets, got "):
        EndpointLock(parse_endpoint(f"ipc://{tmp_path}/file/s"))
