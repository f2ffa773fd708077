"""What the tests of the live path share: a real pipeline, and a real client in another process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECORDING_CLIENT = Path(__file__).with_name("recording_client.py")


class Recording:
    """A recording client and what it has written so far."""

    def __init__(self, endpoint: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(RECORDING_CLIENT), endpoint], stdout=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def of(self, what: str, since: int = 0) -> list[dict[str, Any]]:
        """Lines of one kind, from line number `since` on."""
        return [line for line in list(self.lines)[since:] if line["what"] == what]

    def mark(self) -> int:
        """The number of the next line."""
        return len(self.lines)

    def wait_for(
        self, found: Callable[[dict[str, Any]], bool], *, since: int = 0, within_s: float = 20.0, what: str
    ) -> dict[str, Any]:
        """The first line from `since` on for which `found` holds."""
        over = time.monotonic() + within_s
        at = since
        while time.monotonic() < over:
            while at < len(self.lines):
                if found(self.lines[at]):
                    return self.lines[at]
                at += 1
            time.sleep(0.01)
        raise AssertionError(f"waited {within_s} s for {what}; the last lines were {self.lines[-5:]}")

    def close(self) -> None:
        """End the client, however it is."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Running:
    """A pipeline in processes of its own, started by the command as a user would."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "contrastream", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def child(self, module: str) -> int:
        """The process id of the pipeline's child that runs `module`."""
        for pid in self.children():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except FileNotFoundError:
                continue
            if module.encode() in command:
                return pid
        raise AssertionError(f"no child runs {module}")

    def children(self) -> list[int]:
        """Process ids of the pipeline's children."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def end(self) -> str:
        """Ctrl-C; returns what it printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.finish()

    def finish(self, within_s: float = 15.0) -> str:
        """Wait until it ends by itself; returns what it printed."""
        printed, _ = self.process.communicate(timeout=within_s)
        return printed

    def close(self) -> None:
        """Make sure that nothing of it is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    """An endpoint of this test's own."""
    return f"ipc://{tmp_path}/stream"


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts pipelines and leaves none behind."""
    running: list[Running] = []

    def run(*arguments: str) -> Running:
        # The tests' frames are small or long, and so unlike the taught ones; the domain's own tests say --domain.
        strange = ["--no-domain"] if arguments[0] == "run" and "--domain" not in arguments else []
        running.append(Running([*arguments, *strange]))
        return running[-1]

    yield run
    for pipeline in running:
        pipeline.close()


@pytest.fixture
def record() -> Iterator[Callable[[str], Recording]]:
    """Starts recording clients and leaves none behind."""
    recordings: list[Recording] = []

    def client(address: str) -> Recording:
        recordings.append(Recording(address))
        return recordings[-1]

    yield client
    for recording in recordings:
        recording.close()


@pytest.fixture(scope="session")
def loop_frames() -> np.ndarray:
    """(40, 256, 256) uint8: a cine loop in which every frame differs."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[0:256, 0:256]
    base = 120 + 40 * np.sin(columns / 40.0) + 20 * np.cos(rows / 30.0)
    noise = random.normal(0.0, 6.0, (40, 256, 256))
    return np.clip(base + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory, loop_frames: np.ndarray) -> Path:
    """The loop as an XA cine at 30 frames per second."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = XRayAngiographicImageStorage, generate_uid()
    data.Modality, data.PatientName = "XA", "LEAKED^PATIENT"
    data.Rows, data.Columns = loop_frames.shape[1:]
    data.NumberOfFrames, data.FrameTime = len(loop_frames), 1000.0 / 30.0
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.ImagerPixelSpacing = ["0.4", "0.4"]  # and no distances: a size at the detector
    data.PixelData = loop_frames.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path_factory.mktemp("loop") / "loop.dcm"
    data.save_as(path, enforce_file_format=True)
    return path
