"""Which loops an archive run is about: from what a person names to files and folders, and the hash of what they hold.

A loop is a DICOM file, a video file, a folder's images together, or a folder's single-frame DICOM files where all are of
one series. Files are told by their content, as `open_source` tells them.
"""

import glob
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ArchiveError, SourceError
from stream.sources.cine_header import is_dicom, read_header
from stream.sources.folder import list_frames, natural_key
from stream.sources.video import is_video
from stream.synthesis import REPORT

MANIFEST = "manifest.json"
WILD = frozenset("*?[")
SCHEMES = ("phantom", "v4l2:", "igtl:", "python:")
_HEAD_BYTES = 512


@dataclass(frozen=True)
class Found:
    """What the named sources hold."""

    loops: tuple[Path, ...]
    """Absolute, each once, in the order of the sources and natural order within."""
    passed_over: int
    """Files that are no loop, such as texts, and pictures of a former synthesis."""


def has_scheme(source: str) -> bool:
    """Whether a source is named by its kind, as `phantom` is, and not by a path."""
    return source == SCHEMES[0] or source.startswith(SCHEMES[1:])


def is_pattern(source: str) -> bool:
    """Whether a source is a pattern of paths and no path itself."""
    return bool(WILD & set(source)) and not os.path.lexists(source)


def find_loops(sources: tuple[str, ...]) -> Found:
    """Look for loops.

    Args:
        sources: Files, folders (looked through to their ends, links to folders not followed) and patterns, in which
            ** stands for folders at any depth.

    Raises:
        ArchiveError: A source that is not there, a pattern without a match, a live source, or no loop in all.
    """
    loops: dict[Path, None] = {}
    passed_over = 0
    for source in sources:
        for path in _paths(source):
            found, others = _below(path) if path.is_dir() else ([path], 0)
            loops.update(dict.fromkeys(Path(os.path.realpath(each)) for each in found))
            passed_over += others
    if not loops:
        raise ArchiveError(
            f"needed DICOM files, videos or images, got none in {' '.join(sources)} ({passed_over} other files); name the "
            "folder that holds the loops"
        )
    return Found(tuple(loops), passed_over)


def _paths(source: str) -> list[Path]:
    if has_scheme(source):
        raise ArchiveError(
            f"an archive is made of recordings in files, got {source}; synthesize it by itself, into a folder of its own"
        )
    if not is_pattern(source):
        if not os.path.exists(source):
            raise ArchiveError(
                f"{source}: needed a file, a folder or a pattern, got nothing there; check the path"
            )
        return [Path(source)]
    matches = sorted(glob.glob(source, recursive=True), key=natural_key)
    if not matches:
        raise ArchiveError(f"{source}: needed a pattern that files match, got none; check it, and quote it")
    return [Path(each) for each in matches]


def _below(top: Path) -> tuple[list[Path], int]:
    loops: list[Path] = []
    passed_over = 0
    for folder, names, files in os.walk(top):
        names.sort(key=natural_key)
        if any(_is_ours(Path(folder) / name) for name in (REPORT, MANIFEST) if name in files):
            # What was drawn is never drawn upon again.
            names.clear()
            passed_over += len(files)
            continue
        names[:] = [name for name in names if not name.startswith(".")]
        found, others = _in_folder(Path(folder))
        loops += found
        passed_over += others
    return loops, passed_over


def _is_ours(file: Path) -> bool:
    try:
        said = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and str(said.get("schema")).startswith("contrastream.")


def _in_folder(folder: Path) -> tuple[list[Path], int]:
    try:
        images, dicoms, others = list_frames(folder)
    except SourceError:
        return [folder], 0  # it cannot be read, which is said when its turn comes
    loops = [folder] if images or _is_series(dicoms) else []
    if not _is_series(dicoms) or images:
        loops += dicoms
    if others:
        videos = [each for each in sorted(folder.iterdir()) if each.is_file() and _head_is_video(each)]
        loops += videos
        others -= len(videos)
    return loops, others


def _is_series(dicoms: list[Path]) -> bool:
    """Whether these are the single frames of one series; one file alone is a loop as it is."""
    series: set[str] = set()
    for file in dicoms if len(dicoms) > 1 else ():
        try:
            with file.open("rb") as opened:
                header, data = read_header(file.name, opened)
                if data is not opened:
                    data.close()
        except (OSError, SourceError):
            return False
        series.add(header.series)
        if header.frames > 1 or len(series) > 1 or not header.series:
            return False
    return bool(series)


def _head_is_video(file: Path) -> bool:
    if file.name.startswith("."):
        return False
    try:
        with file.open("rb", buffering=0) as opened:
            head = opened.read(_HEAD_BYTES) or b""
    except OSError:
        return False
    return is_video(head) and not is_dicom(head)


def content_sha256(path: Path) -> str:
    """The hash of what a loop holds: of a file its bytes', of a folder that over its frames' in their order.

    Names have no part in it, so that a loop that is moved or renamed is the same loop.

    Raises:
        SourceError: It cannot be read.
    """
    try:
        if not path.is_dir():
            return _file_sha256(path)
        images, dicoms, _ = list_frames(path)
        digest = hashlib.sha256(b"contrastream frames of a folder\n")
        for file in images or dicoms:
            digest.update(bytes.fromhex(_file_sha256(file)))
        return digest.hexdigest()
    except OSError as error:
        raise SourceError(f"{path.name}: needed to read it, got: {error.strerror}") from None


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
