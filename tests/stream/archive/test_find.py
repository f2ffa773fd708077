"""Which files and folders are loops, and what makes two of them the same."""

from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from stream.archive.find import content_sha256, find_loops
from stream.errors import ArchiveError


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, loop: Path, loop_frames: np.ndarray) -> Path:
    """A folder with every kind of loop, and what is none."""
    top = tmp_path_factory.mktemp("archive")
    for name in ("stills", "series", "mixed", "frames/a", "out/synthetic", ".hidden"):
        (top / name).mkdir(parents=True)
    (top / "cine10.dcm").write_bytes(loop.read_bytes())
    (top / "cine9.dcm").write_bytes(loop.read_bytes())
    for folder, series in (("stills", None), ("series", generate_uid()), ("mixed", generate_uid())):
        for number in range(2):
            data = pydicom.dcmread(loop)
            data.SeriesInstanceUID = series or generate_uid()
            data.NumberOfFrames, data.PixelData = 1, loop_frames[number].tobytes()
            data.save_as(top / folder / f"{number}.dcm")
    (top / "mixed" / "cine.dcm").write_bytes(loop.read_bytes())
    for folder in ("frames/a", "out/synthetic", ".hidden"):
        for number in (10, 9):
            assert cv2.imwrite(str(top / folder / f"{number}.png"), loop_frames[number])
    (top / "out" / "synthesis.json").write_text('{"schema": "contrastream.synthesis/1"}')
    (top / "manifest.json").write_text('{"schema": "another program\'s"}')
    film = cv2.VideoWriter(str(top / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 15, (256, 256))
    film.write(cv2.cvtColor(loop_frames[0], cv2.COLOR_GRAY2BGR))
    film.release()
    (top / "README.md").write_text("none")
    return top


def names(archive: Path, *sources: str) -> list[str]:
    found = find_loops(tuple(str(archive / source) for source in sources))
    return [str(path.relative_to(archive.resolve())) for path in found.loops]


def test_a_folder_is_looked_through_for_loops_and_what_was_synthesized_is_none(archive: Path) -> None:
    assert names(archive, "") == [
        "cine9.dcm", "cine10.dcm", "film.avi", "frames/a", "mixed/0.dcm", "mixed/1.dcm", "mixed/cine.dcm", "series",
        "stills/0.dcm", "stills/1.dcm",
    ]  # fmt: skip
    assert find_loops((str(archive),)).passed_over == 3  # README.md, manifest.json and synthesis.json


def test_patterns_and_files_are_taken_once_each(archive: Path) -> None:
    assert names(archive, "**/cine*.dcm", "cine9.dcm") == ["cine9.dcm", "cine10.dcm", "mixed/cine.dcm"]


def test_content_alone_makes_a_loop_what_it_is(archive: Path, tmp_path: Path) -> None:
    assert content_sha256(archive / "cine9.dcm") == content_sha256(archive / "cine10.dcm")
    renamed = tmp_path / "elsewhere"
    renamed.mkdir()
    for old, new in (("9", "1"), ("10", "2")):
        (renamed / f"{new}.png").write_bytes((archive / "frames/a" / f"{old}.png").read_bytes())
    assert content_sha256(renamed) == content_sha256(archive / "frames/a")
    (renamed / "1.png").rename(renamed / "3.png")  # now the other way round
    assert content_sha256(renamed) != content_sha256(archive / "frames/a")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "nowhere: needed a file, a folder or a pattern, got nothing there; check the path"),
        ("*.nothing", r"\*\.nothing: needed a pattern that files match, got none; check it, and quote it"),
        (".hidden/../out", "needed DICOM files, videos or images, got none in .*; name the folder that holds the loops"),
    ],
    ids=["missing", "pattern", "no loop"],
)  # fmt: skip
def test_what_holds_no_loop_is_refused(archive: Path, source: str, said: str) -> None:
    with pytest.raises(ArchiveError, match=said):
        find_loops((str(archive / source),))


@pytest.mark.parametrize("source", ["phantom", "v4l2:0", "igtl://host:18944/Device"])
def test_what_is_no_file_is_no_part_of_an_archive(archive: Path, source: str) -> None:
    with pytest.raises(ArchiveError, match=f"an archive is made of recordings in files, got {source}"):
        find_loops((str(archive), source))
