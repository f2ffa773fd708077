"""Frames of real senders over the network, FFmpeg's and GStreamer's, and addresses where nobody sends."""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib.target import find_targets, read_code
from stream.errors import SourceError, SourceGone
from stream.sources import network
from stream.sources.open import open_source
from stream.sources.transit import Transit

ROOT = Path(__file__).parents[3]
SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"
COLUMNS, ROWS, RATE = 360, 200, 30
MS = 10**6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sender:
    """The target's frames, each when it is due, into a program that sends them."""

    def __init__(self, command: list[str]) -> None:
        feed = [
            sys.executable,
            "-m",
            "bench.video_delay",
            "send",
            "--size",
            str(COLUMNS),
            "--rate",
            str(RATE),
        ]
        self._feed = subprocess.Popen(feed, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.program = subprocess.Popen(
            command, stdin=self._feed.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._feed.stdout is not None
        self._feed.stdout.close()

    def end(self) -> None:
        """SIGKILL for both."""
        for process in (self.program, self._feed):
            process.kill()
            process.wait()
        assert self.program.stdout is not None
        self.program.stdout.close()


@pytest.fixture
def senders() -> Iterator[Callable[[list[str]], Sender]]:
    """Starts senders and leaves none behind."""
    made: list[Sender] = []

    def start(command: list[str]) -> Sender:
        made.append(Sender(command))
        return made[-1]

    yield start
    for sender in made:
        sender.end()


@pytest.fixture
def serve_rtsp(senders: Callable[[list[str]], Sender]) -> Callable[..., Sender]:
    """Starts an RTSP server of GStreamer, which listens when this returns."""
    needs = "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('GstApp', '1.0')"
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", needs], capture_output=True).returncode
    ):
        pytest.skip(
            "needs GStreamer's RTSP server; install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-ugly"
        )

    def serve(port: int, codec: str) -> Sender:
        sender = senders([SYSTEM_PYTHON, str(SERVER), str(port), codec, str(COLUMNS), str(ROWS), str(RATE)])
        assert sender.program.stdout is not None
        assert sender.program.stdout.readline() == "ready\n"
        return sender

    return serve


def opened(address: str, limit_s: float = 20.0) -> Any:
    """The source at an address, once its sender is there."""
    end = time.monotonic() + limit_s
    while True:
        try:
            return open_source(address)
        except SourceGone:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def read(source: Any, frames: int) -> Iterator[tuple[Any, int]]:
    """Frames, each with the number that its picture says."""
    out = np.empty((source.format.rows, source.format.columns), source.format.dtype)
    place = None
    for _ in range(frames):
        frame = source.read(out)
        place = place or find_targets(out)[0]
        yield frame, read_code(out, place).frame


def check_in_order(seen: list[tuple[Any, int]]) -> None:
    """Every frame is newer than the one before, and so is its time."""
    assert np.diff([number for _, number in seen]).min() > 0
    assert np.diff([frame.stamp_ns for frame, _ in seen]).min() > 0


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_an_rtsp_stream_is_read_frame_by_frame_until_its_server_dies(
    serve_rtsp: Callable[..., Sender], codec: str
) -> None:
    port = free_port()
    server = serve_rtsp(port, codec)
    source = opened(f"rtsp://user:secret@127.0.0.1:{port}/live?x=hidden")
    assert (source.kind, source.live, source.format.rows, source.format.columns) == (
        "network",
        True,
        ROWS,
        COLUMNS,
    )
    assert source.device == f"rtsp://127.0.0.1:{port}/live"
    check_in_order(list(read(source, 30)))
    server.end()
    with pytest.raises(SourceGone, match=f"rtsp://127.0.0.1:{port}/live: the stream has ended") as gone:
        for _ in read(source, 1000):
            pass
    assert "secret" not in str(gone.value)
    source.close()
    with pytest.raises(
        SourceGone, match=f"needed an RTSP server at 127.0.0.1:{port}, got: Connection refused"
    ):
        open_source(f"rtsp://127.0.0.1:{port}/live")


def test_a_stream_of_another_name_is_a_sentence(serve_rtsp: Callable[..., Sender]) -> None:
    port = free_port()
    serve_rtsp(port, "mjpeg")
    with pytest.raises(
        SourceError, match=r"/other, the server says it has none of that name \(404\); check the path"
    ):
        open_source(f"rtsp://127.0.0.1:{port}/other")


def test_a_run_goes_on_when_its_rtsp_server_comes_back(
    serve_rtsp: Callable[..., Sender], start: Any, record: Any, endpoint: str
) -> None:
    port = free_port()
    server = serve_rtsp(port, "mjpeg")
    client = record(endpoint)
    run = start(
        "run", f"rtsp://127.0.0.1:{port}/live", "--engine", "off", "--endpoint", endpoint, "--no-audit"
    )
    client.wait_for(lambda line: line["what"] == "frame", what="a frame", within_s=60.0)
    server.end()
    client.wait_for(lambda line: line.get("state") == "STALE", what="STALE", within_s=60.0)
    mark = client.mark()
    serve_rtsp(port, "mjpeg")
    client.wait_for(
        lambda line: line["what"] == "frame", since=mark, what="a frame of the new server", within_s=60.0
    )
    assert "0 repeats not sent" in run.end()


class Held:
    """A TCP relay that can be stopped and let go: a network that holds frames up and delivers them all at once."""

    def __init__(self, port: int) -> None:
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        threading.Thread(target=self._relay, args=(port,), daemon=True).start()

    def _relay(self, port: int) -> None:
        with contextlib.suppress(OSError):
            reader, _ = self._listener.accept()
            sender = socket.create_connection(("127.0.0.1", port))
            self._sockets += [reader, sender]
            while data := sender.recv(1 << 16):
                self._flows.wait()
                reader.sendall(data)

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long, from now on."""
        self._flows.clear()
        threading.Timer(seconds, self._flows.set).start()

    def close(self) -> None:
        self._flows.set()
        for each in self._sockets:
            each.close()


def test_of_frames_that_were_held_up_the_newest_wins_and_the_others_are_counted(
    senders: Callable[[list[str]], Sender],
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the command ffmpeg; install the ffmpeg package")
    port = free_port()
    command = (
        f"ffmpeg -v error -f rawvideo -pix_fmt gray -s {COLUMNS}x{ROWS} -r {RATE} -i - -c:v libx264 -preset ultrafast -tune zerolatency "
        f"-threads 1 -g 15 -pix_fmt yuv420p -fps_mode passthrough -f mpegts tcp://127.0.0.1:{port}?listen=1"
    ).split()
    senders(command)
    wait_for_listener(port)
    relay = Held(port)
    source = open_source(f"tcp://127.0.0.1:{relay.port}")
    seen = list(read(source, 20))
    relay.hold(1.5)
    lost = 0
    for frame, number in read(source, 600):
        seen.append((frame, number))
        lost += frame.lost
        if lost and frame.lost == 0 and len(seen) > 60:
            break
    assert lost > 0
    check_in_order(seen)
    missing = seen[-1][1] - seen[0][1] + 1 - len(seen)
    assert missing >= lost  # the sender leaves frames out too where its machine is busy
    source.close()
    relay.close()


def wait_for_listener(port: int, limit_s: float = 20.0) -> None:
    """Until somebody listens, told by the kernel: a connection would be taken for the reader's."""
    end = time.monotonic() + limit_s
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    while wanted not in Path("/proc/net/tcp").read_text():
        assert time.monotonic() < end, f"nobody listens at {port}"
        time.sleep(0.05)


@pytest.fixture
def says() -> Iterator[Callable[[bytes | None], int]]:
    """A server that answers each client with these bytes, or with nothing at all; its port."""
    closing: list[socket.socket] = []
    answering: list[threading.Thread] = []

    def serve(data: bytes | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        closing.append(listener)

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    if data is None:
                        closing.append(connection)
                        continue
                    with connection:
                        connection.recv(4096)
                        connection.sendall(data)

        answering.append(threading.Thread(target=answer, daemon=True))
        answering[-1].start()
        return int(listener.getsockname()[1])

    yield serve
    for each in closing[:]:
        with contextlib.suppress(OSError):  # which wakes who accepts
            each.shutdown(socket.SHUT_RDWR)
    for thread in answering:
        thread.join()
    for each in closing:
        each.close()


@pytest.mark.parametrize("scheme", ["rtsp", "tcp"])
def test_an_address_that_never_answers_is_given_up(
    says: Callable[[bytes | None], int], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    assert network.OPEN_WITHIN_S == 5.0
    monkeypatch.setattr(network, "OPEN_WITHIN_S", 0.5)
    with pytest.raises(
        SourceGone, match=r"got no answer within 0.5 s; is the sender on|needed a sender of MPEG-TS"
    ):
        open_source(f"{scheme}://127.0.0.1:{says(None)}")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(
            b"HTTP/1.1 400 Bad Request\r\n\r\n", "an answer that is none of RTSP; check the port", id="HTTP"
        ),
        pytest.param(
            b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n", "wants a user and a password, got none", id="401"
        ),
        pytest.param(b"RTSP/1.0 503 Busy\r\nCSeq: 1\r\n\r\n", "the server says 503", id="503"),
        pytest.param(b"\0" * 100, "an answer that is none of RTSP", id="noise"),
        pytest.param(b"", "an answer that is none of RTSP", id="hung up"),
        pytest.param(
            b"RTSP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "does not open: it is not offered",
            id="no SDP",
        ),
    ],
)
def test_what_is_no_stream_is_one_sentence(
    says: Callable[[bytes | None], int], answer: bytes, said: str
) -> None:
    port = says(answer)
    with pytest.raises(SourceError, match=said):
        open_source(f"rtsp://127.0.0.1:{port}/live")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("udp://239.0.0.1:5004", "got udp://, which is not read: over UDP lost packets leave made-up pixels"),
        ("rtsps://a/b", "got rtsps://, which is not read"),
        ("tcp://127.0.0.1", "an address without host or port"),
        ("rtsp://:554/x", "an address without host or port"),
        ("rtsp://a:99999/x", "an address without host or port"),
        ("rtsp://a/b c", "an address without host or port"),
        ("tcp://127.0.0.1:5000/live", "a stream over tcp:// has no name"),
        (
            "gst:videotestsrc",
            "an OpenCV that was built with GStreamer .* got OpenCV .* without; or let GStreamer send",
        ),
    ],
)
def test_what_is_no_address_is_one_sentence(spec: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        open_source(spec)


def test_lateness_is_told_from_the_sender_s_stamps() -> None:
    transit = Transit()
    assert transit.late_ns(1000 * MS, 5020 * MS) == 0  # the first: nothing to compare with
    assert transit.late_ns(1033 * MS, 5063 * MS) == 10 * MS
    assert transit.late_ns(1066 * MS, 5076 * MS) == 0  # quicker than any before
    assert transit.late_ns(1100 * MS, 7110 * MS) == 2000 * MS  # held up
    assert transit.step_ns == 34 * MS
    assert transit.late_ns(1133 * MS, 7111 * MS) == 1968 * MS
    assert transit.late_ns(100 * MS, 7140 * MS) == 0  # the sender began again
    assert transit.late_ns(133 * MS, 7180 * MS) == 7 * MS


def test_a_clock_that_drifts_makes_no_frame_late_for_long() -> None:
    transit, worst = Transit(), 0
    for number in range(30 * 600):  # ten minutes, the sender's clock 200 ppm slow
        worst = max(worst, transit.late_ns(round(number * 33 * MS * (1 - 200e-6)), number * 33 * MS))
    assert worst < 3 * MS
