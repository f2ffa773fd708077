"""A site's record on the disk, and for what it may be used."""

import dataclasses
import os
from pathlib import Path

import pytest

from calib.errors import CalibrationError
from calib.record import (
    SCHEMA,
    STEPS,
    ModelIdentity,
    SiteRecord,
    SourceIdentity,
    differences,
    read_record,
    with_step,
    write_files,
    write_record,
)
from calib.results import EngineDifference, PrecisionResult, StepResult

SOURCE = SourceIdentity("cine", 512, 512, 8, "MONOCHROME2", "DICOM device 0123456789ab")
MODEL = ModelIdentity("compact", "ab" * 32)
ENGINE = EngineDifference(
    "openvino", "bf16", True, 0.1, 1.0, 4.0, 0.1, 1.0, 9.0, 0.99, None, None, True, 3, 10.5
)  # fmt: skip
PRECISION = PrecisionResult(
    True, 40, 1.0, 2.0, "grey levels", ("All is well.",), "openvino f32", "bf16", (ENGINE,), ""
)
RECORD = SiteRecord(SCHEMA, "2026-01-02T03:04:05+00:00", "0.1.0", SOURCE, MODEL, precision=PRECISION)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    write_record(RECORD, path)
    assert read_record(path) == RECORD
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.toml"]
    assert path.read_text().startswith("# A site's calibration by `contrastream calib`.")


def test_every_step_of_a_record_is_a_step_result_and_has_its_place() -> None:
    import typing

    hints = typing.get_type_hints(SiteRecord)
    for name in STEPS:
        kind = next(each for each in typing.get_args(hints[name]) if each is not type(None))
        assert issubclass(kind, StepResult)
    steps = {name for name, hint in hints.items() if any(_is_step(each) for each in typing.get_args(hint))}
    assert steps == set(STEPS)
    assert list(RECORD.steps) == ["precision"]


def _is_step(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, StepResult)


def test_a_step_takes_the_place_of_the_former_one_and_of_nothing_else() -> None:
    later = dataclasses.replace(PRECISION, residual=1.5)
    changed = with_step(RECORD, "precision", later, created="2027-01-01", version="0.2.0")
    assert changed.precision == later
    assert (changed.created, changed.version, changed.source) == ("2027-01-01", "0.2.0", SOURCE)
    with pytest.raises(ValueError, match="a step is one of geometry, intensity"):
        with_step(RECORD, "source", later, created="", version="")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 1024, "columns": 1024}, r"needed frames of 512 x 512, got 1024 x 1024"),
        ({"bits_stored": 10}, r"needed 8 bits stored, got 10"),
        ({"photometric": "MONOCHROME1"}, r"needed photometric MONOCHROME2, got MONOCHROME1"),
        ({"kind": "device"}, r"needed kind cine, got device"),
        ({"device": ""}, r"needed device DICOM device 0123456789ab, got unknown"),
    ],
)
def test_a_record_for_another_source_is_refused_with_the_difference(
    change: dict[str, object], said: str
) -> None:
    RECORD.check_fits(SOURCE, MODEL.sha256)
    with pytest.raises(CalibrationError, match=said + r".*; calibrate this one: contrastream calib run"):
        RECORD.check_fits(dataclasses.replace(SOURCE, **change))  # type: ignore[arg-type]


def test_a_record_for_another_model_is_refused_with_both_named() -> None:
    with pytest.raises(
        CalibrationError, match=r"another model: needed model compact abababababab, got cdcdcdcdcdcd"
    ):
        RECORD.check_fits(model_sha256="cd" * 32)


def test_all_differences_are_named_at_once() -> None:
    other = SourceIdentity("device", 480, 640, 10, "MONOCHROME1", "card")
    assert len(differences(SOURCE, other)) == 5


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("rows = 512", 'rows = "512"', r"site.toml, line \d+, key source.rows: needed a whole number, got '512'", id="type"),
        pytest.param("rows = 512", "rows = 5", r"key source: rows must be 64 to 2048, got 5", id="range"),
        pytest.param("rows = 512", "rows = 512\nsize = 3", r"key source.size: no such key", id="unknown key"),
        pytest.param("passed = true", "passed = 1", r"key precision.passed: needed true or false", id="passed"),
        pytest.param(MODEL.sha256, "abc", r"line \d+, key model: sha256 must be 64 hexadecimal digits", id="hash"),
        pytest.param(SCHEMA, "contrastream.site/9", r"needed a record of the schema contrastream.site/1, got", id="schema"),
        pytest.param('unit = "grey levels"\n', "", r"key precision.unit: this key is missing", id="missing"),
        pytest.param("[source]", "[sources]", r"line \d+, key sources: no such key", id="unknown table"),
    ],
)  # fmt: skip
def test_a_record_that_was_edited_is_refused_with_key_and_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "site.toml"
    write_record(RECORD, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CalibrationError, match=said):
        read_record(path)


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"got .*No such file.*make one: contrastream calib run"):
        read_record(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CalibrationError, match=r"bytes.toml must be TOML in UTF-8"):
        read_record(tmp_path / "bytes.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 19))
    with pytest.raises(CalibrationError, match=r"at most 262144 bytes"):
        read_record(tmp_path / "large.toml")
    with pytest.raises(CalibrationError, match=r"Is a directory"):
        read_record(tmp_path)


def test_files_are_replaced_all_or_none(tmp_path: Path) -> None:
    old, new = tmp_path / "a", tmp_path / "nowhere" / "b"
    old.write_bytes(b"old")
    with pytest.raises(CalibrationError, match=r"needed to write .*nowhere/b, got: No such file"):
        write_files({old: b"new", new: b"new"})
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]
    write_files({old: b"new"})
    assert old.read_bytes() == b"new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_files({pipe: b"said"})
        assert os.read(reader, 16) == b"said"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
