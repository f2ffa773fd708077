"""The key k: a real stream, a real server and browser, a real window; what is written is read again as `calib patient` reads it."""

import http.client
import itertools
import json
import resource
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from stream.display.entrance import Entrance
from stream.display.secret_files import Secrets
from stream.display.window import DesktopWindow
from stream.endpoint import parse_endpoint
from stream.record.dicom import write_live
from stream.record.keep_settings import KeepSettings
from stream.record.keeper import Keeper, Said
from stream.subscribe import Subscriber

from .conftest import Server
from .publisher import numbered

PATIENCE_S = 60.0
"""The machine may be busy: nothing here is about how long it takes."""
ASKED = {"rows": 96, "columns": 128, "bits": 12, "rate_hz": 30.0}


def live_of(sequence: int) -> np.ndarray:
    return numbered(96, 128, 4095, sequence)[0].astype(np.uint16)


def check_file(path: Path) -> pydicom.Dataset:
    """What was written is what the publisher sent, each frame once and in order, in a file of this user's alone."""
    made = pydicom.dcmread(path)
    assert len(made.FrameTimeVector) > 5
    pixels = made.pixel_array
    first = next(number for number in range(1 << 12) if (live_of(number) == pixels[0]).all())
    steps = np.rint(np.cumsum([float(step) for step in made.FrameTimeVector]) * 30.0 / 1000.0).astype(int)
    for step, picture in zip(steps, pixels, strict=True):
        np.testing.assert_array_equal(picture, live_of(first + int(step)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "".join(each.name for each in path.parent.glob("*.partial")) == ""
    return made


class Keeping:
    """A keeper of the stream, and what it has said on the terminal."""

    def __init__(self, publisher: Any, folder: Path) -> None:
        self.notes: list[str] = []
        self.folder = folder
        settings = KeepSettings(20.0, folder, 10**9)
        self.keeper = Keeper(parse_endpoint(publisher.endpoint), settings, on_note=self.notes.append)

    def pressed(self, wait: Callable[..., Any]) -> Said:
        self.keeper.press()
        wait(lambda: not self.keeper.said.writing, "the end of writing", PATIENCE_S)
        return self.keeper.said

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@pytest.fixture
def keeping(publisher: Any, tmp_path: Path, wait: Callable[..., Any]) -> Any:
    publisher.change(**ASKED)
    subscriber = Subscriber(publisher.endpoint)
    wait(lambda: (came := subscriber.poll(100)) and came.live.dtype == np.uint16, "12 bits", PATIENCE_S)
    subscriber.close()
    made = Keeping(publisher, tmp_path)
    yield made
    made.keeper.end()


def test_a_key_press_writes_what_came_and_says_how_to_go_on(keeping, publisher, wait) -> None:
    keeper = keeping.keeper
    assert keeping.pressed(wait).words == "Nothing to write: no frame has come in the last 20 s."
    keeper.start()
    wait(lambda: keeper.held_s > 1.0, "frames", PATIENCE_S)
    assert keeping.notes[1].startswith(
        "keeping the last 20 s of live frames in memory, up to 15 MB (96 x 128, 12 bits, at 30 per second); the key k writes"
    )
    said = keeping.pressed(wait)
    (path,) = keeping.files()
    assert said.command == f"contrastream calib patient {path} --out {path.with_suffix('.safetensors')}"
    assert (
        "It shows the patient: keep it as you keep a recording. 20 s were asked for: no more came"
        in said.words
    )
    check_file(path)

    publisher.change(**{**ASKED, "rows": 64, "more": {"site": True}, "unmasked_text": True})
    wait(
        lambda: "(64 x 128" in keeping.notes[-1] and keeper.held_s > 0.5, "frames of another size", PATIENCE_S
    )
    said = keeping.pressed(wait)
    assert "Nothing older is in it, since the frames changed from 96 x 128 to 64 x 128" in said.words
    assert "Burned-in text is not masked: it may show who the patient is." in said.words
    assert said.command.endswith("--site SITE.toml")
    assert len(keeping.files()) == 2


def test_the_window_s_key_writes_while_frames_go_on_and_once_at_a_time(
    keeping, publisher, wait, monkeypatch
) -> None:
    goes_on, keeper = threading.Event(), keeping.keeper

    def on_a_slow_disk(*arguments: Any) -> None:
        assert goes_on.wait(PATIENCE_S)
        write_live(*arguments)

    monkeypatch.setattr("stream.record.keeper.write_live", on_a_slow_disk)
    keeper.start()
    subscriber = Subscriber(publisher.endpoint)
    try:
        window = DesktopWindow(subscriber, keeper=keeper)
        wait(lambda: keeper.held_s > 0.5, "frames", PATIENCE_S)
        window._key(ord("k"))
        held_s = keeper.held_s
        window._key(ord("k"))
        window._look_at(keeper, 0)
        assert window._view.notice == ("Still writing the ones before; press again when that is done.",)
        assert keeper.said.writing
        wait(lambda: keeper.held_s > held_s + 0.2, "frames that go on coming", PATIENCE_S)
        goes_on.set()
        wait(lambda: not keeper.said.writing, "the end of writing", PATIENCE_S)
        window._look_at(keeper, 0)
        assert window._view.notice == (keeper.said.words, f"Go on with: {keeper.said.command}")
        (path,) = keeping.files()
        check_file(path)
    finally:
        goes_on.set()
        subscriber.close()


def test_a_full_disk_leaves_nothing_and_the_next_press_may_do_better(keeping, wait) -> None:
    keeping.keeper.start()
    wait(lambda: keeping.keeper.held_s > 0.5, "frames", PATIENCE_S)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        said = keeping.pressed(wait)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.words.startswith("Not written: needed to write")
    assert said.words.endswith("got: File too large; free some space")
    assert keeping.files() == []
    assert keeping.pressed(wait).words.startswith("Wrote")
    check_file(keeping.files()[0])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server writes."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def keeping_server(publisher: Any, kept: Path) -> Any:
    publisher.change(**ASKED)
    made = Server(publisher.endpoint, "--keep-last", "20", "--keep-in", str(kept))
    yield made
    made.process.end(signal.SIGTERM)


def next_line(server: Any, beginning: str) -> str:
    """What the server prints next that begins so; the address, where it is one."""
    found: list[str] = []

    def read() -> None:
        found.extend(
            itertools.islice((line for line in server.process.child.stdout if line.startswith(beginning)), 1)
        )

    # A thread, since a server that says nothing would keep a reader for ever.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(PATIENCE_S)
    if not found:
        pytest.fail(f"the server has not said {beginning}")
    return found[0].split()[-1]


def cookie_of(server: Any, entry: str) -> str:
    path = entry.removeprefix(server.url)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path)
    cookie = connection.getresponse().getheader("Set-Cookie").partition(";")[0]
    connection.close()
    return str(cookie)


def open_viewer(server: Any, cookie: str) -> Any:
    return connect(
        f"ws://127.0.0.1:{server.port}/frames", origin=server.url, additional_headers={"Cookie": cookie},
        max_size=None, compression=None, proxy=None,
    )  # fmt: skip


def keep_state(socket: Any, is_it: Callable[[Any], bool]) -> Any:
    """What a state message says of the frames that are kept, once it is so."""
    over = time.monotonic() + PATIENCE_S
    while time.monotonic() < over:
        message = socket.recv(timeout=PATIENCE_S)
        if isinstance(message, str) and "keep" in (said := json.loads(message)) and is_it(said["keep"]):
            return said["keep"]
    pytest.fail("no such state message")


def test_only_who_came_by_the_first_kind_of_address_may_have_it_written(keeping_server, kept) -> None:
    watching = cookie_of(keeping_server, next_line(keeping_server, "to watch only:"))
    with open_viewer(keeping_server, watching) as socket:
        assert keep_state(socket, lambda keep: True) is None
        socket.send(json.dumps({"type": "keep"}))
        with pytest.raises(ConnectionClosedError, match="this browser may only watch"):
            keep_state(socket, lambda keep: False)
    assert list(kept.iterdir()) == []
    with open_viewer(keeping_server, keeping_server.cookie) as socket:
        keep_state(socket, lambda keep: keep["held_s"] > 0.5)
        socket.send(json.dumps({"type": "keep"}))
        said = keep_state(socket, lambda keep: keep["command"])
    (path,) = kept.iterdir()
    assert str(path) in said["words"]
    check_file(path)


@pytest.mark.browser
def test_the_page_has_a_button_and_a_key_for_it_and_says_where_the_file_is(
    publisher, make_server, tmp_path, browser
) -> None:
    publisher.change(**ASKED)
    server = make_server(publisher.endpoint, "--keep-last", "20", "--keep-in", str(tmp_path))
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    page.goto(next_line(server, "viewer at"))
    page.wait_for_function("() => !document.getElementById('keep').hidden")
    page.wait_for_function("() => document.getElementById('keep').textContent !== 'Keep 0 s'")
    page.keyboard.press("k")
    written = "() => document.getElementById('kept-command').textContent.includes('calib patient') && document.body.dataset.keeping === 'written'"
    page.wait_for_function(written)
    page.keyboard.press("?")
    words = " ".join(page.locator("#keep-help").inner_text().split())
    assert words == "k Write the last 20 s of live frames, for calib patient"
    page.keyboard.press("Escape")
    page.click("#kept-close")
    assert page.locator("#kept").is_hidden()
    page.close()
    (path,) = tmp_path.iterdir()
    check_file(path)


def test_the_right_is_in_the_signature_of_a_cookie_that_outlives_its_server() -> None:
    secrets = Secrets(session_key=b"x" * 32)
    before, after, none = (
        Entrance(1, secure=False, kept=secrets, keeping=keeping) for keeping in (True, True, False)
    )

    def scope(cookie: str) -> dict[str, Any]:
        return {"headers": [(b"cookie", cookie.encode())]}

    def enter(token: str | None) -> str:
        said = {"method": "GET", "path": "/", "query_string": f"token={token}".encode(), "headers": []}
        answer = before.admit(said)
        assert answer is not None
        return str(answer.headers["set-cookie"]).partition(";")[0]

    may, watches = enter(before.token), enter(before.watching)
    assert [each.may_keep(scope(may)) for each in (before, after, none)] == [True, True, False]
    assert [each.knows(scope(watches)) for each in (before, after, none)] == [True, True, True]
    assert not before.may_keep(scope(watches))
    head, _, signature = watches.rpartition(".")
    assert not before.knows(scope(f"{head}.keep.{signature}"))
