"""A site's record in the live path and in `synthesize`: used where it fits, refused where it does not."""

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from calib.field import whole_box
from calib.intensity import REFERENCE_PERCENTS, default_tables
from calib.record import SCHEMA, ModelIdentity, SiteRecord, SourceIdentity, write_record
from calib.results import (
    Box,
    EngineDifference,
    GeometryResult,
    IntensityResult,
    PixelSpacing,
    PrecisionResult,
)
from contrastream import main
from engines.model import load_model
from stream.config import SynthesizeConfig
from stream.frame import FrameFormat, Photometric, SpacingPlace
from stream.site import Site, identity_of
from stream.site_engine import grey_tables, precision_for
from stream.sources.options import SourceOptions
from stream.synthesize import Synthesis

TEXT = Box(8, 4, 100, 20)
"""A burned-in line, left, top, right, bottom."""


def geometry(*, passed: bool = True, rows: int = 256, columns: int = 256) -> GeometryResult:
    """A field that leaves out the left half of the picture."""
    half = columns / 2.0
    return GeometryResult(
        passed=passed,
        frames=9,
        residual=0.5,
        limit=4.0,
        unit="px",
        says=(),
        rows=rows,
        columns=columns,
        shape="rectangle",
        corners=((half, 0.0), (float(columns), 0.0), (float(columns), float(rows)), (half, float(rows))),
        circle=None,
        field_share=0.5,
        letterbox=whole_box(rows, columns),
        burned_in=(TEXT,),
        table_shift_px=0.0,
        spacing=None,
    )


def intensity(*, passed: bool = True, bits: int = 8) -> IntensityResult:
    """The default table."""
    table, inverse = default_tables(bits, window=(128.0, 180.0))
    levels = tuple(float(level) for level in np.linspace(0.2, 0.8, len(REFERENCE_PERCENTS)))
    return IntensityResult(
        passed=passed,
        frames=9,
        residual=0.001,
        limit=0.01,
        unit="grey levels of 1",
        says=(),
        bits_stored=bits,
        table=tuple(map(float, table)),
        inverse=tuple(map(float, inverse)),
        percents=REFERENCE_PERCENTS,
        landmarks=tuple(255.0 * level for level in levels),
        reference=levels,
        reference_from="model",
        inverted=False,
        polarity_said="MONOCHROME2",
        polarity_seen="dark",
        polarity_score=0.5,
        response="linear",
        response_slope=1.0,
        clipped_low=0.0,
        clipped_high=0.0,
        plateau_low=None,
        plateau_high=None,
        filled_frames=(),
        moved_frames=(),
        shift_percent=0.0,
    )


def site_record(**changes: Any) -> SiteRecord:
    """A record of the cine loop and the shipped model."""
    model = ModelIdentity("compact", load_model("compact").card.sha256)
    source = SourceIdentity("cine", 256, 256, 8, "MONOCHROME2")
    record = SiteRecord(SCHEMA, "2026-01-02T03:04:05+00:00", "0.1.0", source, model, geometry(), intensity())
    return dataclasses.replace(record, **changes)


def blanked(frames: np.ndarray) -> np.ndarray:
    """The frames as they may be seen."""
    frames = frames.copy()
    frames[:, TEXT.top : TEXT.bottom, TEXT.left : TEXT.right] = 0
    return frames


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., str]:
    """Writes records; returns their file's path."""

    def write(**changes: Any) -> str:
        write_record(site_record(**changes), tmp_path / "site.toml")
        return str(tmp_path / "site.toml")

    return write


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process; returns the one line of its refusal with status 2."""
    for module in ("session", "synthesize"):  # a handler of its own would outlive the test
        monkeypatch.setattr(f"stream.{module}.log_to_stderr", lambda: None)

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = [each for each in said.err.splitlines() if each.startswith("contrastream: ")]
        return line

    return run


# What it is for -----------------------------------------------------------------------------------------------


def test_a_source_is_identified_by_what_changes_its_pictures() -> None:
    frame_format = FrameFormat(300, 400, 12, Photometric.MONOCHROME1)
    options = SourceOptions(crop=(1, 2, 400, 300), luma="full")
    assert identity_of({"kind": "device", "device": "card"}, frame_format, options) == SourceIdentity(
        "device", 300, 400, 12, "MONOCHROME1", "card, crop 1,2,400,300, luma full"
    )


def test_a_format_into_which_a_source_changes_is_told_from_the_records() -> None:
    used = Site(site_record(), SourceOptions())
    assert used.why_not(FrameFormat(256, 256)) is None
    assert used.why_not(FrameFormat(256, 256, window_center=3.0, window_width=9.0)) is None
    assert used.why_not(FrameFormat(300, 400)) == (
        "the site's record needs frames of 256 x 256, got 300 x 400"
    )


def test_a_step_that_did_not_pass_is_not_used_and_said() -> None:
    used = Site(
        site_record(geometry=geometry(passed=False), intensity=intensity(passed=False)), SourceOptions()
    )
    assert used.blank is None
    assert used.engine_settings()["geometry"] is None
    assert used.engine_settings()["intensity"] is None
    assert any("geometry step did not pass and is not used" in sentence for sentence in used.unused)
    assert any(
        "intensity step did not pass and is not used: the grey levels are the default" in s
        for s in used.unused
    )
    assert any("has no domain step" in sentence for sentence in used.unused)


def test_a_precision_that_did_not_pass_runs_all_the_same_and_is_said() -> None:
    refused = PrecisionResult(False, 9, 0.0, 1.0, "grey levels of 255", (), "torch f32", "bf16", (), "")
    used = Site(site_record(precision=refused), SourceOptions())
    assert any("precision step did not pass: bf16 differs from the fp32 reference" in s for s in used.unused)
    fine = dataclasses.replace(refused, passed=True)
    assert not any("precision" in s for s in Site(site_record(precision=fine), SourceOptions()).unused)


def test_the_first_packet_of_the_engine_has_room_for_the_record() -> None:
    used = Site(site_record(), SourceOptions())
    assert len(json.dumps(used.engine_settings())) < 30_000


def test_the_table_reaches_the_engine_as_it_stands_in_the_record() -> None:
    settings = Site(site_record(), SourceOptions()).engine_settings()
    expected = default_tables(8, window=(128.0, 180.0))
    for got, wanted in zip(grey_tables(FrameFormat(256, 256), settings["intensity"]), expected, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ValueError, match="the site's grey table is for 8 bits stored, got 12"):
        grey_tables(FrameFormat(256, 256, 12), settings["intensity"])


# Refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "replay", "synthesize"])
def test_a_record_for_another_model_is_refused_before_anything_starts(
    site: Callable[..., str], refused: Callable[..., str], command: str, tmp_path: Path
) -> None:
    path = site(model=ModelIdentity("mine", "ab" * 32))
    out = ("--out", str(tmp_path / "out")) if command == "synthesize" else ()
    line = refused(command, "/nowhere.dcm", "--site", path, *out)
    assert "the site's record is for another model: needed model mine abababababab, got" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 512, "columns": 512}, "needed frames of 512 x 512, got 256 x 256"),
        ({"bits_stored": 10}, "needed 10 bits stored, got 8"),
        ({"kind": "device", "device": "a card"}, "needed kind device, got cine; device a card, got unknown"),
    ],
)
@pytest.mark.parametrize("command", ["run", "synthesize"])
def test_a_record_for_another_source_is_refused_with_the_difference(
    site: Callable[..., str],
    refused: Callable[..., str],
    loop: Path,
    command: str,
    change: dict[str, Any],
    said: str,
    tmp_path: Path,
) -> None:
    path = site(source=dataclasses.replace(site_record().source, **change))
    out = tmp_path / "out"
    more = (
        ("--out", str(out))
        if command == "synthesize"
        else ("--endpoint", f"ipc://{tmp_path}/s", "--engine", "off")
    )
    assert said in refused(command, str(loop), "--site", path, *more)
    assert not out.exists() or not any(out.iterdir())


def test_a_record_that_was_edited_is_refused_with_key_and_line(
    site: Callable[..., str], refused: Callable[..., str]
) -> None:
    path = Path(site())
    path.write_text(path.read_text().replace("field_share = 0.5", 'field_share = "half"'))
    line = refused("run", "phantom", "--site", str(path))
    assert "site.toml, line" in line
    assert "key geometry.field_share: needed a number, got 'half'" in line


# Used ---------------------------------------------------------------------------------------------------------


def test_burned_in_text_never_leaves_the_source_and_the_viewers_stop_warning(
    start: Any, record: Any, loop: Path, loop_frames: np.ndarray, endpoint: str, site: Callable[..., str]
) -> None:
    measured = PixelSpacing(0.25, 0.26, "isocentre", "a grid of 10 mm", None, 0.001)
    record_file = site(geometry=dataclasses.replace(geometry(), spacing=measured))
    start("run", str(loop), "--loop", "--endpoint", endpoint, "--site", record_file)
    client = record(endpoint)
    heartbeat = client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["engine"],
        what="an engine that has taken the site's settings",
    )
    frames = client.of("frame")
    assert len(frames) > 5
    crcs = [zlib.crc32(np.ascontiguousarray(frame).data) for frame in blanked(loop_frames)]
    assert [f["live_crc"] for f in frames] == [crcs[f["sequence"] % len(crcs)] for f in frames]
    assert not any(frame["unmasked_text"] for frame in frames)
    assert all(frame.get("background_exact", True) for frame in frames)
    assert all(frame["spacing"] == [0.25, 0.26, SpacingPlace.ISOCENTRE] for frame in frames)
    assert any("has no domain step" in note for note in heartbeat["source"]["notes"])


def test_frames_of_a_size_that_the_record_is_not_for_are_live_only(
    start: Any, record: Any, endpoint: str, site: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    path = site(source=SourceIdentity("device", 256, 256, 8, "MONOCHROME2"))
    running = start("run", "python:growing_source:GrowingSource", "--endpoint", endpoint, "--site", path)
    client = record(endpoint)
    larger = client.wait_for(
        lambda line: line["what"] == "frame" and line["columns"] == 400 and line["reason"] == "out_of_domain",
        what="a larger frame, live only",
    )
    assert larger["state"] == "PASSTHROUGH"
    assert larger["unmasked_text"]
    small = [frame for frame in client.of("frame") if frame["columns"] == 256]
    assert small
    assert not any(frame["unmasked_text"] for frame in small)
    printed = running.end()
    assert "Live only from here on: the site's record needs frames of 256 x 256, got 300 x 400" in printed
    assert not any(f["state"] == "SYNTHETIC" for f in client.of("frame") if f["columns"] == 400)


def test_synthesize_draws_inside_the_sites_field_alone(
    loop: Path, loop_frames: np.ndarray, site: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = Synthesis(
        SynthesizeConfig(sources=(str(loop),), out=out, frames=4, site=Path(site()), film=False, threads=1)
    ).run()
    attention = np.stack(
        [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((out / "attention").iterdir())]
    )
    synthetic = np.stack(
        [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((out / "synthetic").iterdir())]
    )
    assert attention[:, :, 128:].any()
    assert not attention[:, :, :128].any()  # where the network alone would draw too
    untouched = attention == 0
    np.testing.assert_array_equal(synthetic[untouched], blanked(loop_frames[:4])[untouched])
    assert said["site"]["passed"] == {"geometry": True, "intensity": True}


@pytest.mark.parametrize(
    ("backend", "usable", "runs"),
    [
        ("auto", ("openvino", "onnxruntime"), True),
        ("openvino", ("tensorrt", "openvino"), True),
        ("auto", ("tensorrt", "openvino"), False),
        ("onnxruntime", ("openvino", "onnxruntime"), False),
    ],
    ids=["first usable", "by name", "a GPU has come", "another by name"],
)
def test_the_precision_that_the_site_wants_runs_where_openvino_would_anyway(
    monkeypatch: pytest.MonkeyPatch, backend: str, usable: tuple[str, ...], runs: bool
) -> None:
    monkeypatch.setattr("engines.open.probe", lambda name: (name in usable, ""))
    nothing = (None, "")
    int8 = {"precision": "int8", "int8_frames_sha256": "ab"}
    assert precision_for(backend, int8) == (("int8", "ab") if runs else nothing)
    full = {"precision": "f32", "int8_frames_sha256": ""}
    assert precision_for(backend, full) == (("f32", "") if runs else nothing)
    assert precision_for(backend, {"precision": "", "int8_frames_sha256": ""}) == nothing
    assert precision_for(backend, None) == nothing


def engine_found(precision: str, passed: bool) -> EngineDifference:
    return EngineDifference(
        "openvino", precision, passed, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.98, None, None, True, 0, 9.0
    )


def test_f32_runs_only_where_bf16_was_measured_and_refused() -> None:
    def wanted(*engines: EngineDifference, passed: bool = True, chosen: str = "f32") -> str:
        found = PrecisionResult(
            passed, 9, 0.0, 1.0, "grey levels of 255", (), "torch f32", chosen, engines, ""
        )
        return str(Site(site_record(precision=found), SourceOptions()).engine_settings()["precision"])

    refused, fine = engine_found("bf16", False), engine_found("f32", True)
    assert wanted(refused, fine) == "f32"
    assert wanted(fine) == ""  # measured where bf16 does not run: another machine may have it
    assert wanted(refused, passed=False, chosen="bf16") == ""
    assert wanted(engine_found("bf16", True), chosen="bf16") == ""
