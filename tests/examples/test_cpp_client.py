"""The C++ client, built and run: what it says of messages that this test makes, and of a running stream."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stream.endpoint import parse_endpoint
from stream.frame import ALL_PLANES, FrameFormat, Photometric, Plane, Reason, State
from stream.outgoing import Grabbed, Outgoing
from stream.publish import Publisher
from stream.ring import Ring, RingMemory
from stream.timing import MonotonicClock
from stream.wire import Header, pack_header

SOURCE = Path(__file__).parents[2] / "examples" / "client.cpp"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built client."""
    if shutil.which("g++") is None or not Path("/usr/include/zmq.hpp").exists():
        pytest.skip("g++, libzmq3-dev and cppzmq-dev are not all installed")
    out = tmp_path_factory.mktemp("cpp") / "client"
    command = [
        "g++",
        "-std=c++17",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        str(SOURCE),
        "-lzmq",
        "-o",
        str(out),
    ]
    subprocess.run(command, check=True, timeout=100)
    return out


def message_of(frame_format: FrameFormat, planes: Plane) -> tuple[bytes, list[int]]:
    """A message with random planes, and the sum of each plane that it carries."""
    memory = RingMemory.create(frame_format, 1)
    slot = memory.slots[0]
    random = np.random.default_rng(frame_format.columns)
    slot.live[:] = random.integers(0, frame_format.max_value + 1, slot.live.shape)
    slot.synthetic[:] = random.integers(0, frame_format.max_value + 1, slot.live.shape)
    slot.attention[:] = random.integers(0, 256, slot.live.shape)
    drawn = Plane.SYNTHETIC in planes
    header = Header(
        stream=bytes(range(16)),
        sequence=2**40 + 7,
        publication=3,
        frame_format=frame_format,
        state=State.SYNTHETIC if drawn else State.PASSTHROUGH,
        reason=Reason.NONE if drawn else Reason.DEADLINE,
        planes=planes,
        rate_hz=7.5,
    )
    length = pack_header(slot.bytes, header, memory.layout)
    sums = [int(plane.sum(dtype=np.uint64)) for plane in (slot.live, slot.synthetic, slot.attention)]
    data = bytes(slot.bytes[:length])
    memory.close()
    return data, sums


def said(client: Path, data: bytes, folder: Path) -> "subprocess.CompletedProcess[str]":
    path = folder / "message.bin"
    path.write_bytes(data)
    return subprocess.run([str(client), "--file", str(path)], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    "frame_format",
    [
        pytest.param(FrameFormat(64, 64), id="8 bits"),
        pytest.param(FrameFormat(65, 67), id="odd"),
        pytest.param(FrameFormat(96, 128, 12, window_center=100.0, window_width=50.0), id="12 bits, window"),
        pytest.param(FrameFormat(70, 66, 16, Photometric.MONOCHROME1), id="16 bits, inverted"),
    ],
)
@pytest.mark.parametrize(
    "planes", [pytest.param(ALL_PLANES, id="synthetic"), pytest.param(Plane.LIVE, id="live only")]
)
def test_it_reads_what_this_side_writes(
    client: Path, tmp_path: Path, frame_format: FrameFormat, planes: Plane
) -> None:
    data, sums = message_of(frame_format, planes)
    done = said(client, data, tmp_path)
    state, reason = (1, 0) if Plane.SYNTHETIC in planes else (2, 2)
    facts = f"{2**40 + 7} 3 {state} {reason} {frame_format.rows} {frame_format.columns} {frame_format.bits_stored}"
    words = [facts, str(int(frame_format.photometric)), "7.5", f"live={sums[0]}"]
    if Plane.SYNTHETIC in planes:
        words += [f"synthetic={sums[1]}", f"attention={sums[2]}"]
    assert (done.returncode, done.stdout) == (0, " ".join(words) + "\n"), done.stderr


def test_it_skips_an_extension_and_a_longer_core_of_a_later_version(client: Path, tmp_path: Path) -> None:
    data, _ = message_of(FrameFormat(64, 64), Plane.LIVE)
    header = struct.unpack_from("<H", data, 14)[0]
    # A core 8 bytes longer, and an extension that nobody knows before the rate.
    extra = bytes(8) + struct.pack("<HHI5s3x", 999, 0, 5, b"hello")
    grown = bytearray(data)
    grown[192:512] = (extra + data[192:512])[:320]
    struct.pack_into("<3H", grown, 10, 7, 200, header + len(extra))
    struct.pack_into("<H", grown, 110, struct.unpack_from("<H", data, 110)[0] + 1)
    plain, later = said(client, data, tmp_path), said(client, bytes(grown), tmp_path)
    assert later.returncode == 0, later.stderr
    assert later.stdout == plain.stdout


@pytest.mark.parametrize(
    ("at", "form", "value", "why"),
    [
        pytest.param(0, "8s", b"SOMETHIN", "no message of this format", id="magic"),
        pytest.param(8, "H", 2, "another major version", id="major version"),
        pytest.param(14, "H", 60000, "header lengths do not fit", id="header length"),
        pytest.param(96, "I", 100_000, "a value that is not allowed", id="rows"),
        pytest.param(104, "B", 32, "a value that is not allowed", id="bits"),
        pytest.param(110, "H", 50, "inside an extension", id="extensions"),
        pytest.param(128, "Q", 2**63, "a plane does not fit", id="plane's offset"),
        pytest.param(136, "Q", 2**63, "a plane does not fit", id="plane's length"),
    ],
)
def test_it_refuses_what_does_not_fit(
    client: Path, tmp_path: Path, at: int, form: str, value: int | bytes, why: str
) -> None:
    data = bytearray(message_of(FrameFormat(64, 64), ALL_PLANES)[0])
    struct.pack_into(f"<{form}", data, at, value)
    done = said(client, bytes(data), tmp_path)
    assert done.returncode == 2
    assert why in done.stderr


def test_it_refuses_a_message_cut_off_anywhere(client: Path, tmp_path: Path) -> None:
    data, _ = message_of(FrameFormat(64, 64), ALL_PLANES)
    for size in (0, 7, 100, 191, 200, 512, len(data) - 1):
        done = said(client, data[:size], tmp_path)
        assert done.returncode == 2, size


def test_it_follows_a_running_stream(client: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    endpoint = parse_endpoint(f"ipc://{tmp_path_factory.mktemp('c')}/c")
    clock = MonotonicClock()
    publisher, ring = Publisher(endpoint, clock), Ring(FrameFormat(64, 64), 8)
    running = subprocess.Popen([str(client), endpoint.frames, "5"], stdout=subprocess.PIPE, text=True)
    sequence = 0
    while running.poll() is None:
        publisher.see_clients()
        slot = ring.grant()
        if slot is not None:
            ring.slots[slot].live[:] = sequence % 256
            ring.fill(slot)
            publisher.publish(ring, Outgoing(Grabbed(slot, sequence, clock.now_ns(), clock.now_ns()), None))
            ring.release(slot)
            sequence += 1
    assert running.stdout is not None
    lines = [line.split() for line in running.stdout.read().splitlines()]
    running.stdout.close()
    publisher.close()
    ring.close()
    assert len(lines) == 5
    for line in lines:
        assert line[9] == f"live={int(line[0]) % 256 * 4096}"
