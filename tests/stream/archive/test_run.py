"""An archive run: whole loops or none, nothing twice, what fails is listed, and nothing of a patient is written."""

import hashlib
import json
import resource
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.model import file_sha256
from stream.archive.run import ArchiveRun, is_archive
from stream.config import SynthesizeConfig
from stream.errors import ArchiveError, OutputError

from .conftest import PATIENTS, write_loop


def synthesized(
    source: Path, out: Path, model: str, **settings: Any
) -> tuple[int, ArchiveRun, dict[str, Any]]:
    """Run it to its end: exit status, the run, and the manifest."""
    run = ArchiveRun(
        SynthesizeConfig(sources=(str(source),), out=out, model=model, threads=1, film=False, **settings)
    )
    status = run.run()
    return status, run, json.loads((out / "manifest.json").read_text())


def check_hashes(out: Path, manifest: dict[str, Any]) -> None:
    """Every hash of the manifest holds, and there is no file that none speaks of."""
    spoken_of = {out / "manifest.json", out / ".lock"}
    for loop in manifest["loops"]:
        folder = out / loop["folder"]
        report = (folder / "synthesis.json").read_bytes()
        assert hashlib.sha256(report).hexdigest() == loop["report_sha256"]
        files = json.loads(report)["archive"]["files"]
        assert len(files) == 2 * loop["frames"] + 1  # and the preview
        for name, said in files.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == said["sha256"]
        spoken_of |= {folder / "synthesis.json", *(folder / name for name in files)}
    assert {path for path in out.rglob("*") if path.is_file()} == spoken_of


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (out / "loops").iterdir()}


def test_an_archive_is_made_once_listed_with_its_hashes_and_says_nothing_of_patients(
    lab: Path, tmp_path: Path, model: str
) -> None:
    out = tmp_path / "out"
    status, run, manifest = synthesized(lab, out, model)
    assert status == 3
    assert (run.made, run.kept, len(run.failed), run.found.passed_over) == (2, 0, 1, 1)
    assert sorted((loop["kind"], loop["frames"]) for loop in manifest["loops"]) == [
        ("cine", 40),
        ("folder", 3),
    ]
    (failed,) = manifest["failed"]
    assert failed["error"] == "the loop: the image ends too early; it is cut off, copy it again"
    assert manifest["complete"] is False
    check_hashes(out, manifest)
    for path in out.rglob("*"):
        kept = str(path.relative_to(out)).encode() + (path.read_bytes() if path.is_file() else b"")
        assert not [name for name in PATIENTS if name in kept], path

    before = inodes(out)
    status, run, again = synthesized(lab, out, model)
    assert (status, run.made, run.kept, len(run.failed)) == (3, 0, 2, 1)
    assert inodes(out) == before
    assert again["loops"] == manifest["loops"]
    assert [each["done"] for each in again["runs"]] == [2, 0]


def test_only_what_is_missing_or_has_changed_is_made(
    lab: Path, tmp_path: Path, model: str, loop_frames: np.ndarray
) -> None:
    out = tmp_path / "out"
    _, _, manifest = synthesized(lab, out, model)
    before = inodes(out)
    (cine,) = (loop["folder"] for loop in manifest["loops"] if loop["kind"] == "cine")
    (out / cine / "attention" / "frame_00007.png").unlink()
    killed = out / ".partial" / "left-by-a-killed-run"
    killed.mkdir(parents=True)
    (killed / "frame.png").write_bytes(b"half")
    (lab / "ROE^RICK" / "1.png").unlink()  # the damaged frame: now a loop of two
    write_loop(lab / "NEW^PATIENT", loop_frames[10:12])
    status, run, manifest = synthesized(lab, out, model)
    assert (status, run.made, run.kept) == (0, 3, 1)
    assert manifest["complete"] is True
    check_hashes(out, manifest)
    changed = {name for name, inode in inodes(out).items() if before.get(name) != inode}
    assert changed == set(inodes(out)) - set(before) | {Path(cine).name}


def test_another_model_or_other_settings_are_named_and_replace_nothing_unasked(
    lab: Path, tmp_path: Path, model: str, other_model: str
) -> None:
    out, source = tmp_path / "out", lab / "*ANN"
    synthesized(source, out, model)
    before = inodes(out)
    with pytest.raises(
        ArchiveError,
        match=r"an archive of the model file [0-9a-f]{8}, got file [0-9a-f]{8}; name another --out",
    ):
        synthesized(source, out, other_model)
    with pytest.raises(
        ArchiveError, match=r"was made with frames None, got 2; give the same, name another --out"
    ):
        synthesized(source, out, model, frames=2)
    assert inodes(out) == before
    status, _, manifest = synthesized(lab / "SMITH*", out, other_model, overwrite=True)
    assert (status, [loop["kind"] for loop in manifest["loops"]]) == (0, ["cine"])
    assert [loop["kind"] for loop in manifest["stale"]] == ["folder"]  # there still, and of the model before
    status, run, manifest = synthesized(source, out, other_model)
    assert (status, run.made, run.kept, manifest["stale"]) == (0, 1, 0, [])
    assert manifest["model"]["name"] == "file"  # its name may be a person's; the hash says which it is
    assert manifest["model"]["sha256"] == file_sha256(Path(other_model))
    assert not set(inodes(out).items()) & set(before.items())
    check_hashes(out, manifest)


def test_a_folder_that_is_no_archive_or_in_use_is_left_alone(lab: Path, tmp_path: Path, model: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ArchiveError, match=r"--out needs an empty folder or an archive, got other files in"):
        synthesized(lab, out, model)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    other = tmp_path / "other"
    config = SynthesizeConfig(sources=(str(lab),), out=other, model=model)
    first, second = ArchiveRun(config), ArchiveRun(config)
    first.folder.begin(first.identity, overwrite=False)
    with pytest.raises(ArchiveError, match="is being written by another run; wait for it"):
        second.run()
    first.folder.close()


def test_stopped_in_a_loop_it_leaves_whole_loops_alone_and_goes_on_from_there(
    lab: Path, tmp_path: Path, model: str
) -> None:
    out = tmp_path / "out"
    config = SynthesizeConfig(sources=(str(lab),), out=out, model=model, threads=1)
    run = ArchiveRun(config)

    def stop_in_the_cine() -> None:
        while (run.present or {"total": 0})["total"] < 40:
            time.sleep(0.001)
        run.stop()

    stopping = threading.Thread(target=stop_in_the_cine)
    stopping.start()
    status = run.run()
    stopping.join()
    assert status == 130
    assert not (out / ".partial").exists()
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["loops"]) == len(list((out / "loops").iterdir())) == run.made
    again = ArchiveRun(config)
    assert again.run() == 3
    assert (again.kept, again.made) == (run.made, 2 - run.made)


def test_a_full_disk_ends_the_run_with_a_sentence_and_whole_loops_alone(
    lab: Path, tmp_path: Path, model: str
) -> None:
    out = tmp_path / "out"
    synthesized(lab / "*ANN", out, model)
    before = inodes(out)
    run = ArchiveRun(SynthesizeConfig(sources=(str(lab),), out=out, model=model, threads=1, film=False))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk() -> None:
        # While the cine is made: from now on no file may be longer, which a frame is and the manifest is not.
        while (run.present or {"total": 0})["total"] < 40:
            time.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))

    filling = threading.Thread(target=fill_disk)
    filling.start()
    try:
        with pytest.raises(OutputError, match=r"needed to write below .*, got: File too large"):
            run.run()
    finally:
        filling.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert inodes(out) == before
    assert not (out / ".partial").exists()
    manifest = json.loads((out / "manifest.json").read_text())
    assert [each["done"] for each in manifest["runs"]] == [1, 0]
    check_hashes(out, manifest)


def test_names_are_written_where_they_are_asked_for(lab: Path, tmp_path: Path, model: str) -> None:
    _, _, manifest = synthesized(lab, tmp_path / "out", model, names=True, frames=1)
    assert {Path(each["found_at"]).name for each in manifest["loops"] + manifest["failed"]} >= {"MILLER^ANN"}


def test_one_recording_is_no_archive_and_several_are(lab: Path, tmp_path: Path) -> None:
    def archive(*sources: Path | str) -> bool:
        return is_archive(
            SynthesizeConfig(sources=tuple(str(each) for each in sources), out=tmp_path / "out")
        )

    assert not archive("phantom")
    assert not archive(lab / "SMITH^BOB.dcm")
    assert not archive(lab / "MILLER^ANN")  # a folder of frames
    assert not archive("/nowhere")  # which is said as ever
    assert archive(lab)
    assert archive(lab / "*.dcm")
    assert archive(lab / "MILLER^ANN", lab / "ROE^RICK")
    with pytest.raises(ArchiveError, match="needed a recording, a folder or a pattern, got none"):
        archive()
