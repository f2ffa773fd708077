"""The client that keeps what it sees: `contrastream record`, read off its capture while that grows."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from drill.clients import BORDERS, Seen, end

from stream.errors import WireError
from stream.record.capture import FRAME, HEAD, RECORD, STOP
from stream.wire import unpack


class Recorder:
    """A recorder, and another when that one has ended with its stream or has heard none for 10 s.

    Args:
        endpoint: The stream.
    """

    name = "recorder"

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._folder = Path(tempfile.mkdtemp(prefix="drill-recorder-"))
        self._seen: list[Seen] = []
        self._number = 0
        self._start()

    def _start(self) -> None:
        self._number += 1
        self._capture = self._folder / f"{self._number}.npz.capture"
        self._file = -1
        self._at = 0
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "contrastream",
                "record",
                self._endpoint,
                str(self._capture.with_suffix("")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def timeline(self) -> list[Seen]:
        ended = self._process.poll() is not None
        self._read()
        if ended:
            self._forget()
            self._start()
        return list(self._seen)

    def _read(self) -> None:
        """Take in what the capture has more of; it stays open when the recorder has removed it."""
        if self._file < 0:
            with contextlib.suppress(FileNotFoundError):
                self._file = os.open(self._capture, os.O_RDONLY)
            if self._file < 0:
                return
        if self._at == 0 and len(head := os.pread(self._file, HEAD.size, 0)) == HEAD.size:
            self._at = HEAD.size + HEAD.unpack(head)[1]
        while self._at and len(head := os.pread(self._file, RECORD.size, self._at)) == RECORD.size:
            mark, length, _crc, at_ns = RECORD.unpack(head)
            body = os.pread(self._file, length, self._at + RECORD.size)
            if len(body) < length:
                return
            self._at += RECORD.size + length
            with contextlib.suppress(WireError):
                self._take(mark, body, at_ns)

    def _take(self, mark: bytes, body: bytes, at_ns: int) -> None:
        if mark == FRAME:
            header = unpack(body).header
            reason = header.reason.name.lower() if header.state.name == "PASSTHROUGH" else ""
            now = Seen(at_ns, header.state.name, reason)
        elif mark == STOP:
            said = json.loads(body)
            now = Seen(at_ns, said["state"], aged=said["state"] not in BORDERS or said["age_ms"] > 0)
        else:
            return
        if not self._seen or (self._seen[-1].state, self._seen[-1].reason) != (now.state, now.reason):
            self._seen.append(now)

    def _forget(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        for path in self._folder.iterdir():
            path.unlink()

    def close(self) -> None:
        end(self._process)
        self._forget()
        shutil.rmtree(self._folder, ignore_errors=True)
