"""What `contrastream synthesize` leaves in its folder: whole files or none, and only its own are ever replaced.

    synthesis.json              what was done, with which model, and the statistics of every frame
    synthetic/frame_00000.png   the synthetic frame, in the recording's own stored values and bits
    attention/frame_00000.png   A, 0 to 255; where it is 0 the synthetic frame is the live one
    preview.mp4, preview.png    live, synthetic and overlay beside each other, marked

An untaught model's frames lie in `untaught/` instead of `synthetic/`. With --dicom loop.dcm, loop-synthetic.dcm and loop-attention.dcm take
the place of both folders (stream/record/dicom.py).
"""

import json
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stream.errors import OutputError, StreamError

SCHEMA = "contrastream.synthesis/1"
REPORT = "synthesis.json"
FRAME_FOLDERS = ("synthetic", "untaught", "attention")
DICOM_FILES = ("loop.dcm", "loop-synthetic.dcm", "loop-attention.dcm")
CAPTURE = "frames.capture"
OTHER_FILES = (
    *("preview.png", "preview.png.partial", "preview.mp4", "preview.partial.mp4", CAPTURE),
    *(name + end for name in DICOM_FILES for end in ("", ".partial")),
)
PARTIAL = ".partial"
FRAME_NAME = re.compile(r"frame_\d{5,}\.png(\.partial)?")
COMPRESSION = 1
"""zlib's fastest: noise hardly shrinks further."""
_PNG_HEAD = 8 + 25
"""Bytes of the signature and of IHDR, which must come first."""


class SynthesisFolder:
    """The output folder.

    Args:
        path: The folder; made if needed.
        overwrite: Replace a former synthesis there.

    Raises:
        StreamError: It holds something that is not to be replaced, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise StreamError(f"--out needs a folder, got the file {path}; name another")
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise StreamError(
                    f"--out needs an empty folder, got files in {path}; name another, or replace a former synthesis "
                    "with --overwrite"
                )
            if not self._is_ours():
                raise StreamError(
                    f"--overwrite replaces a former synthesis, and {path} holds other files (no {REPORT}); name another "
                    "folder"
                )

    def _is_ours(self) -> bool:
        try:
            report = json.loads((self.path / REPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(report, dict) and report.get("schema") == SCHEMA

    def holds(self, source: str) -> bool:
        """Whether a source's path lies in the folder, so that clearing it would remove what is to be read."""
        path = Path(source).resolve()
        return path == self.path.resolve() or self.path.resolve() in path.parents

    def prepare(self, folders: tuple[str, ...], report: dict[str, Any]) -> None:
        """Remove a former synthesis's own files, make the folders, and leave a first report that says incomplete.

        Args:
            folders: Where pictures go.
            report: What is known so far.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_report(report)
            for name in FRAME_FOLDERS:
                folder = self.path / name
                if folder.is_dir() and not folder.is_symlink():
                    for file in folder.iterdir():
                        if FRAME_NAME.fullmatch(file.name):
                            file.unlink()
                    if not any(folder.iterdir()):
                        folder.rmdir()
            for name in OTHER_FILES:
                (self.path / name).unlink(missing_ok=True)
            for name in folders:
                (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def write_report(self, report: dict[str, Any]) -> None:
        """Write synthesis.json, whole or not at all."""
        self.write(REPORT, (json.dumps({"schema": SCHEMA, **report}, indent=2) + "\n").encode())

    def write_png(self, name: str, picture: np.ndarray, said: str) -> None:
        """Write a picture without loss.

        Args:
            name: Below the folder.
            picture: (rows, columns) uint8 or uint16, or (rows, columns, 3) blue, green, red.
            said: What the file says of itself, in a tEXt chunk; ASCII.
        """
        done, coded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION])
        if not done:
            raise StreamError(f"{name} could not be coded as PNG: {picture.shape} {picture.dtype}")
        self.write(name, _with_text(coded.tobytes(), said))

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            OutputError: The disk is full, or the folder cannot be written.
        """
        path = self.path / name
        partial = path.with_name(path.name + PARTIAL)
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"needed to write below {self.path}, got: {error.strerror}; choose another --out")


def frame_name(folder: str, index: int) -> str:
    """The file of a frame, below the output folder."""
    return f"{folder}/frame_{index:05}.png"


def _with_text(png: bytes, text: str) -> bytes:
    """A PNG with a comment after its header (PNG, third edition, 11.3.3.2: tEXt is keyword, NUL, Latin-1 text)."""
    body = b"tEXtComment\0" + text.encode("ascii")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_PNG_HEAD] + chunk + png[_PNG_HEAD:]
