"""Nothing of a patient leaves: markers in every place of a file, and every output of every command searched for them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage

ROOT = Path(__file__).resolve().parents[1]
MARKS = (
    "ZQXNAME",
    "ZQXID",
    "19470811",
    "ZQXOVERLAY",
    "ZQXCURVE",
    "ZQXPRIVATE",
    "ZQXFILE",
    "ZQXFOLDER",
    "987654321",
)
"""Name, ids, dates, overlay, curve, private tag, file, folder, and a part of every UID."""
UID = "1.2.826.0.1.987654321.7"


@pytest.fixture(scope="module")
def cine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cine loop of 24 frames with a mark in every place, in a folder and a file named after the patient."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = XRayAngiographicImageStorage, UID + ".1"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (
        UID + ".2",
        UID + ".3",
        UID + ".4",
    )
    data.Modality, data.Manufacturer = "XA", "Maker"
    data.PatientName, data.OtherPatientNames, data.OperatorsName = (
        "ZQXNAME^PAT",
        "ZQXNAME^OTHER",
        "ZQXNAME^OP",
    )
    data.ReferringPhysicianName, data.InstitutionName, data.StationName = (
        "ZQXNAME^DR",
        "ZQXNAME hospital",
        "ZQXNAME",
    )
    data.PatientID, data.AccessionNumber, data.StudyID, data.DeviceSerialNumber = ("ZQXID",) * 4
    data.PatientAddress = data.ImageComments = data.StudyDescription = data.SeriesDescription = "ZQXNAME here"
    data.PatientBirthDate = data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = (
        "19470811"
    )
    data.AcquisitionDateTime = "19470811101112"
    data.Rows = data.Columns = 192
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[0:192, 0:192]
    base = 120 + 40 * np.sin(columns / 20.0) + 20 * np.cos(rows / 30.0)
    frames = np.clip(base + random.normal(0, 6, (24, 192, 192)), 0, 255).astype(np.uint8)
    data.NumberOfFrames, data.FrameTime = 24, 1000.0 / 30.0
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.add_new(0x00091001, "LO", "ZQXPRIVATE")
    data.add_new(0x00090010, "LO", "ZQXPRIVATE creator")
    data.add_new(0x60000022, "LO", "ZQXOVERLAY")
    data.add_new(0x60003000, "OB", b"ZQXOVERLAY" * 20)
    data.add_new(0x60001500, "LO", "ZQXOVERLAY label")
    data.add_new(0x50003000, "OB", b"ZQXCURVE" * 20)
    data.PixelData = frames.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder = tmp_path_factory.mktemp("source") / "ZQXFOLDER"
    folder.mkdir()
    path = folder / "ZQXFILE.dcm"
    data.save_as(path, enforce_file_format=True)
    stored = path.read_bytes()
    assert [mark for mark in MARKS[:6] if mark.encode() not in stored] == []
    return path


class Place:
    """Where a command runs and all that it may write.

    Args:
        folder: Of this test.
        cache: Of all of them, so that a model is compiled once.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        # Short names, since a socket's path has at most 107 bytes.
        for name, place in (
            ("STATE_HOME", "s"),
            ("RUNTIME_DIR", "r"),
            ("TMPDIR", "t"),
            ("HOME", "h"),
        ):
            (folder / place).mkdir(mode=0o700)
            self.env[name if name in ("TMPDIR", "HOME") else f"XDG_{name}"] = str(folder / place)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "contrastream", *arguments],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> bytes:
        """Run a command to its end; what it printed."""
        process = self.start(*arguments)
        try:
            printed, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert process.returncode in (0, 2), printed.decode()
        return printed

    def leaks(self, printed: bytes = b"") -> list[str]:
        """Every mark, and where it was found: in what was printed, in a file, or in a file's name."""
        found = [f"printed: {mark}" for mark in MARKS if mark.encode() in printed]
        for path in (*self.folder.rglob("*"), *self.cache.rglob("*")):
            found += [f"the name {path}" for mark in MARKS if mark in path.name]
            if path.is_file():
                data = path.read_bytes()
                found += [f"{path}: {mark}" for mark in MARKS if mark.encode() in data]
        return found

    def files(self) -> set[str]:
        return {path.name for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(cache: Path) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="csp-") as folder:
        yield Place(Path(folder), cache)


def test_run_with_its_report_and_its_audit_log_says_nothing_of_the_patient(place: Place, cine: Path) -> None:
    out = place.folder / "run.json"
    printed = place.run("run", str(cine), "--engine", "off", "--out", str(out), "--endpoint", "e")
    assert {"run.json", "000001.jsonl", "audit.key"} <= place.files()
    assert place.leaks(printed) == []


def test_replay_and_its_report_say_nothing_of_the_patient(place: Place, cine: Path) -> None:
    out = place.folder / "replay.json"
    printed = place.run("replay", str(cine), "--out", str(out), "--endpoint", "e", "--model", "compact-s")
    assert "replay.json" in place.files()
    assert place.leaks(printed) == []


def test_synthesize_writes_nothing_of_the_patient(place: Place, cine: Path) -> None:
    out = place.folder / "out"
    printed = place.run("synthesize", str(cine), "--out", str(out), "--frames", "4", "--model", "compact-s")
    assert {"synthesis.json", "preview.png", "preview.mp4"} <= place.files()
    assert place.leaks(printed) == []


def test_an_archive_says_nothing_of_the_patient(place: Place, cine: Path) -> None:
    out = place.folder / "out"
    printed = place.run(
        "synthesize", str(cine.parent), "--out", str(out), "--frames", "4", "--model", "compact-s"
    )
    assert {"manifest.json", "synthesis.json", "preview.png", "preview.mp4"} <= place.files()
    assert place.leaks(printed) == []


def test_recordings_of_every_kind_hold_nothing_of_the_patient(place: Place, cine: Path) -> None:
    capture = place.folder / "kept.npz.capture"
    recorder = place.start("record", "e", str(capture.with_suffix("")))
    stream = place.start("run", str(cine), "--loop", "--endpoint", "e", "--model", "compact-s", "--no-domain")
    try:
        # All that a recorder can hold: a capture with an engine, and frames before and after it.
        _wait_for(lambda: capture.is_file() and b"model_sha256" in capture.read_bytes())
        size = capture.stat().st_size
        _wait_for(lambda: capture.stat().st_size > size + 10 * 3 * 192 * 192)
        recorder.kill()
        stream.send_signal(signal.SIGTERM)
        printed = stream.communicate(timeout=20)[0] + recorder.communicate(timeout=20)[0]
    finally:
        for process in (recorder, stream):
            process.kill()
            process.communicate()
    for kind in ("dcm", "mp4", "npz"):
        printed += place.run("record", str(capture), str(place.folder / f"kept.{kind}"))
        (place.folder / "kept.json").rename(place.folder / f"of-{kind}.json")
    assert {
        "kept.dcm",
        "kept-synthetic.dcm",
        "kept-attention.dcm",
        "kept.mp4",
        "kept.npz",
        "of-dcm.json",
    } <= place.files()
    assert place.leaks(printed) == []


def test_calib_writes_nothing_of_the_patient(place: Place, cine: Path) -> None:
    out = place.folder / "site.toml"
    printed = place.run("calib", "geometry", str(cine), "--out", str(out), "--model", "compact-s")
    assert {"site.toml", "site.json", "site.html"} <= place.files(), printed.decode()
    assert place.leaks(printed) == []


def test_bench_writes_nothing_of_the_patient(place: Place, cine: Path) -> None:
    out = place.folder / "bench.json"
    printed = place.run(
        "bench",
        "engine",
        str(cine),
        "--frames",
        "60",
        "--rounds",
        "1",
        "--model",
        "compact-s",
        "--out",
        str(out),
    )
    assert "bench.json" in place.files(), printed.decode()
    assert place.leaks(printed) == []


@pytest.mark.parametrize("module", ["stream.grab", "stream.infer"])
def test_a_process_that_crashes_leaves_nothing_of_the_patient(place: Place, cine: Path, module: str) -> None:
    process = place.start(
        "run", str(cine), "--loop", "--endpoint", "e", "--model", "compact-s", "--no-domain"
    )
    try:
        log = place.folder / "s/contrastream/audit/1/000001.jsonl"
        _wait_for(lambda: log.is_file() and b"SYNTHETIC" in log.read_bytes())
        pid = _child(process.pid, module)
        assert pid is not None
        os.kill(pid, signal.SIGSEGV)
        _wait_for(lambda: b'"restart"' in log.read_bytes())
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert b"ended (signal SIGSEGV)" in printed
    assert place.leaks(printed) == []


def test_a_broken_file_leaves_nothing_of_its_header_in_the_trace(
    place: Place, cine: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.dcm"
    data = cine.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    printed = place.run("run", str(broken), "--engine", "off", "--endpoint", "e")
    broken.unlink()
    assert place.leaks(printed) == []


# Nobody is called ---------------------------------------------------------------------------------------------


def test_no_command_makes_a_connection_beyond_this_host(place: Place) -> None:
    arguments = ("run", "phantom", "--size", "64", "--frames", "90", "--rate", "30", "--endpoint", "tcp://127.0.0.1:25570",
                 "--web", "--port", "25580", "--no-browser")  # fmt: skip
    process = place.start(*arguments)
    seen: set[str] = set()
    listening: set[str] = set()
    try:
        while process.poll() is None:
            for pid in _family(process.pid):
                for local, remote, state in _sockets(pid):
                    (listening if state == "0A" else seen).add(local if state == "0A" else remote)
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert any(address.endswith(":25570") for address in listening), listening
    assert {address for address in seen | listening if not _is_local(address)} == set()


@pytest.mark.parametrize("code", ["from engines.openvino_engine import load_openvino; load_openvino()",
                                  "import engines.quantize; engines.quantize.load_openvino(); import nncf"])  # fmt: skip
def test_the_libraries_own_telemetry_is_never_loaded(code: str, place: Place) -> None:
    if "nncf" in code:
        pytest.importorskip("nncf", reason="extra int8")
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\nimport sys, json; print(json.dumps([name for name, module in "
         "sys.modules.items() if name.startswith('openvino_telemetry') and module is not None]))"],
        cwd=ROOT, env=place.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout.splitlines()[-1]) == []


def _family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))


def _child(pid: int, module: str) -> int | None:
    for each in _family(pid):
        with contextlib.suppress(OSError):
            if module.encode() in Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0"):
                return each
    return None


def _wait_for(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    over = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < over
        time.sleep(0.02)


def _sockets(pid: int) -> Iterator[tuple[str, str, str]]:
    """A process's own TCP and UDP sockets: local and remote address, and the state as the kernel codes it."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(entry)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    for table in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in inodes:
                    yield _address(fields[1]), _address(fields[2]), fields[3]


def _address(text: str) -> str:
    """`0100007F:1F90` as 127.0.0.1:8080; IPv6 stays hexadecimal."""
    host, port = text.split(":")
    if len(host) == 8:
        host = ".".join(str(byte) for byte in reversed(bytes.fromhex(host)))
    return f"{host}:{int(port, 16)}"


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host.startswith("127.") or host in (
        "0.0.0.0" if address.endswith(":0") else "",  # not connected
        "0" * 32 if address.endswith(":0") else "",
        "00000000000000000000000001000000",
        "0000000000000000FFFF00000100007F",
    )
