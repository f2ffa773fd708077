import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.config import ReplayConfig, RunConfig
from stream.errors import PipelineError
from stream.frame import Reason, State
from stream.measure import Measured
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.session import (
    format_replay,
    parse_speed,
    pipeline_config,
    replay_report,
    source_options,
    write_json,
)
from stream.sources.options import SourceOptions
from stream.timing import NS_PER_S, Stage


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("0.5", 0.5), ("2", 2.0), ("max", math.inf)])
def test_a_speed_is_a_factor_or_max(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "fast", "", "1x"])
def test_other_speeds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--speed must be max or a factor above 0, got '{text}'"):
        parse_speed(text)


def test_what_was_asked_reaches_the_source_and_the_pipeline() -> None:
    config = RunConfig(
        "v4l2:0", rate=15.0, crop="1,2,300,400", gray=True, luma="full", slots=20, engine="off"
    )
    options = source_options(config)
    assert (options.rate_hz, options.crop, options.gray, options.luma) == (
        15.0,
        (1, 2, 300, 400),
        True,
        "full",
    )
    live = pipeline_config(config, Pacing(), measured=False)
    assert (live.source, live.slots, live.engine) == ("v4l2:0", 20, "off")
    assert not live.wait_for_engine
    assert not live.wait_for_client


def test_a_measured_replay_waits_for_its_engine_and_its_client() -> None:
    measured = pipeline_config(ReplayConfig("a.dcm"), Pacing(), measured=True)
    assert measured.wait_for_engine
    assert measured.wait_for_client


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": 0}, "--frames must be 1 or more, got 0"),
        ({"slots": 5}, "--slots must be 12 to 256, got 5"),
        ({"slots": 257}, "--slots must be 12 to 256, got 257"),
        ({"port": 0}, "--port must be 1 to 65535, got 0"),
        ({"port": 65536}, "--port must be 1 to 65535, got 65536"),
        ({"threads": 0}, "--threads must be 1 or more, got 0"),
        ({"out": Path("/nowhere/a.json")}, "--out needs an existing folder, got /nowhere"),
        ({"rate": math.nan}, "--rate must be a number"),
        ({"rate": math.inf}, "--rate must be a number"),
        ({"crop": "1,2,3"}, "--crop must be x,y,w,h"),
        ({"crop": "0,0,-1,5"}, "w and h from 1, got 0,0,-1,5"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipeline_config(RunConfig("phantom", **change), Pacing(), measured=False)


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    write_json(path, {"folder": tmp_path, "p99": None})
    assert json.loads(path.read_text()) == {"folder": str(tmp_path), "p99": None}
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(TypeError, match="keys must be"):
        write_json(path, {"stages": {(1, 2): 3}})
    assert path.read_text() == "old"


def test_nothing_is_written_when_nothing_was_asked_for() -> None:
    write_json(None, {"a": object})


# The report ---------------------------------------------------------------------------------------------------


def measured(count: int) -> Measured:
    """A client that saw frames at 20 fps, each 10 ms after it was due, the third published one missing."""
    ms = 1_000_000
    due = np.arange(1, count + 1, dtype=np.uint64) * 50 * ms
    stamps = np.stack([due + np.uint64(step * ms) for step in (0, 1, 2, 7, 9, 10)], axis=1)
    stamps[0, 2:4] = 0  # the first was not inferred
    state = np.full(count, State.SYNTHETIC, np.uint8)
    reason = np.zeros(count, np.uint8)
    state[0], reason[0] = State.PASSTHROUGH, Reason.DEADLINE
    number = np.arange(count, dtype=np.uint64)
    number[2:] += 1
    return Measured(number, number, state, reason, stamps)


def test_a_measured_run_is_summed_up_by_stage() -> None:
    summary = measured(21).summary()
    assert summary["received"] == 21
    assert summary["lost"] == 1
    assert summary["synthetic"] == 20
    assert summary["passthrough"] == {"deadline": 1}
    assert summary["fps"] == pytest.approx(20.0)
    stages: Any = summary["stages_ms"]
    assert {name: (stage["n"], stage["p50"]) for name, stage in stages.items()} == {
        "grab": (21, 1.0), "submit": (20, 1.0), "engine": (20, 5.0), "guard": (20, 2.0), "transport": (21, 1.0),
    }  # fmt: skip
    latency: Any = summary["latency_ms"]
    assert (latency["n"], latency["p50"], latency["max"], latency["p99"]) == (21, 10.0, 10.0, None)


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_of_no_interval_has_no_rate(count: int) -> None:
    whole = measured(21)
    few = Measured(whole.sequence[:count], whole.publication[:count], whole.state[:count], whole.reason[:count],
                   whole.stamps_ns[:count])  # fmt: skip
    assert few.summary()["fps"] is None
    assert few.summary()["lost"] == 0


@pytest.mark.parametrize(
    ("column", "said"),
    [
        pytest.param(Stage.GRABBED, None, id="due is a plan"),
        pytest.param(Stage.PUBLISHED, "got 1 of 21 frames where they fall, by 0.500 ms", id="published"),
        pytest.param(Stage.RECEIVED, "got 1 of 21 frames where they fall, by 0.500 ms", id="received"),
    ],
)
def test_stamps_that_fall_are_no_measurement(column: Stage, said: str | None) -> None:
    whole = measured(21)
    before = column - 1
    whole.stamps_ns[3, column] = whole.stamps_ns[3, before] - np.uint64(500_000)
    if said is None:
        whole.check_clock()
        return
    with pytest.raises(PipelineError, match=said):
        whole.check_clock()


def test_a_client_with_another_clock_is_refused(tmp_path: Path) -> None:
    before = ("unshare", "--user", "--map-root-user", "--time", "--fork", "--monotonic=-5")
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("no time namespace can be made here")
    pipeline = Pipeline(
        PipelineConfig(
            source="phantom",
            options=SourceOptions(rate_hz=60.0, size=64),
            pacing=Pacing(rate_hz=60.0, loop=True, frames=10),
            endpoint=f"clock-{os.getpid()}",
            engine="off",
            wait_for_client=True,
        )
    )
    seen = tmp_path / "seen.npz"
    command = [*before, sys.executable, "-m", "stream.measure", pipeline.endpoint.text, str(seen)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as client:
        pipeline.run()
        client.communicate(timeout=30)
    with pytest.raises(PipelineError, match=r"got (\d+) of \1 frames where they fall, by (4|5)[0-9]{3}"):
        Measured.load(seen).check_clock()


def test_a_measuring_client_that_never_comes_ends_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.pipeline.CLIENT_WITHIN_NS", NS_PER_S)
    pipeline = Pipeline(
        PipelineConfig(
            source="phantom",
            options=SourceOptions(rate_hz=60.0, size=64),
            endpoint=f"nobody-{os.getpid()}",
            engine="off",
            wait_for_client=True,
        )
    )
    with pytest.raises(PipelineError, match="no measuring client came within 1 s"):
        pipeline.run()


def test_what_a_client_measured_comes_back_from_its_file(tmp_path: Path) -> None:
    path, run = tmp_path / "m.npz", measured(5)
    np.savez(path, **{name: getattr(run, name) for name in Measured.__dataclass_fields__})
    loaded = Measured.load(path)
    for name in Measured.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(run, name))


def test_the_table_of_a_replay_says_what_the_client_saw() -> None:
    status = {
        "source": {"rate_hz": 20.0},
        "engine": {"backend": "openvino", "precision": "bf16", "inference_ms": 4.96},
        "counters": {
            "due": 22,
            "grabbed": 22,
            "published": 22,
            "synthetic": 21,
            "passthrough": {"deadline": 1},
            "unchanged": 0,
            "repeated": 0,
            "dropped": {},
        },
    }
    report = replay_report(ReplayConfig("a.dcm"), status, measured(21))
    assert report["schema"] == "contrastream.replay/1"
    text = format_replay(report)
    for part in (
        "22 grabbed, 22 published, 21 received, 1 lost; 20 SYNTHETIC, PASSTHROUGH {'deadline': 1}",
        "fps      20.0 of 20.0 intended",
        "engine   openvino bf16, one inference 5.0 ms",
    ):
        assert part in text
    rows = [line.split() for line in text.splitlines()]
    assert ["due", "to", "received", "21", "10.00", "10.00", "-", "10.00"] in rows
    assert ["engine", "20", "5.00", "5.00", "-", "5.00"] in rows


def test_the_table_of_a_replay_without_engine_or_frames_has_dashes() -> None:
    whole = measured(21)
    none = Measured(*(getattr(whole, name)[:0] for name in Measured.__dataclass_fields__))
    status = {"source": {"rate_hz": None}, "engine": {}, "counters": {}}
    text = format_replay(replay_report(ReplayConfig("a.dcm"), status, none))
    assert "0 grabbed, 0 published, 0 received" in text
    assert "fps      -\n" in text
    assert "engine   none" in text


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("phantom", "phantom"),
        ("v4l2:0", "v4l2:0"),
        ("/data/DOE^JANE/1.dcm", "recording"),
        ("1.dcm", "recording"),
        ("rtsp://doe:jane@cam/doe", "rtsp"),
    ],
)
def test_a_report_names_no_file(typed: str, said: str) -> None:
    from stream.reported import reported

    config = RunConfig(
        source=typed, more=("/data/DOE.avi",), model="/models/doe.onnx", out=Path("/tmp/doe.json")
    )
    settings = reported(config)
    assert (settings["source"], settings["more"]) == (said, ["recording"])
    assert (settings["model"], settings["out"]) == ("file", "file")
    assert "doe" not in str(settings).lower()
