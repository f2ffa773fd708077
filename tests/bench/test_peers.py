"""`bench peers`: who takes turns when, what is refused, and the arithmetic of its table. The real run is test_peers_run.py."""

import dataclasses
import html
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import peer_pyzmq, peers
from bench.config import PeersConfig
from bench.contestant import COLUMNS, KINDS, Block, Kind, Seen, process_cpu_ns, rows_of_block, why_missing
from bench.errors import BenchError
from bench.markdown import markdown
from bench.outputs import Outputs
from bench.page import page
from bench.peer_source import BLOCKS_VARIABLE, FORMAT_VARIABLE, FRAMES_VARIABLE, BlockSource, distinct_frames
from bench.peers import Run, check_same_engine, measure_rounds, turns
from bench.peers_report import build_report, latency_ms, percentiles, samples_of, verdict
from bench.peers_table import format_peers
from bench.stats import Ratio, ratio_of_percentiles
from stream.control import format_to_json
from stream.frame import FrameFormat, Reason
from stream.sources.options import SourceOptions
from stream.sources.source import Source, SourceFrame
from stream.timing import NS_PER_MS

ENGINE = {"backend": "openvino", "precision": "f32", "model_sha256": "0" * 64, "taught": True}
MACHINE = {
    "cpu": {"model": "a CPU", "cores": 2, "flags": ["avx2"], "hypervisor": False},
    "memory_gib": 8.0,
    "gpus": [],
    "system": "Linux",
    "kernel": "6",
    "python": "3.11",
    "load_average": [0.0],
    "scheduling": "normal, nice 0",
}


def rows(latencies_ms: list[float], *, engine_ms: float = 4.0) -> np.ndarray:
    """Frames as a client stamps them, 50 ms apart; NaN for one that never came, infinite for a live picture at 40 ms."""
    made = np.zeros((len(latencies_ms), len(COLUMNS)), np.int64)
    for index, latency in enumerate(latencies_ms):
        if np.isnan(latency):
            continue
        due = 1e9 + index * 50 * NS_PER_MS
        whole = np.isfinite(latency)
        received = due + (latency if whole else 40.0) * NS_PER_MS
        submitted, inferred = (due + NS_PER_MS, due + (1 + engine_ms) * NS_PER_MS) if whole else (0, 0)
        made[index] = (
            index,
            due,
            due + 0.5 * NS_PER_MS,
            submitted,
            inferred,
            received,
            received,
            0 if whole else Reason.DEADLINE,
        )
    return made


class Played:
    """A contestant that has been measured already, and writes down its turns."""

    def __init__(self, name: str, latencies_ms: list[float], log: list[str], fails_in: int = -1) -> None:
        self.kind = next(kind for kind in KINDS if kind.name == name)
        self.seen = Seen()
        self.said: dict[str, Any] = {"engine": ENGINE, "versions": {name: "1"}, "settings": "its best"}
        self._latencies, self._log, self._fails_in = latencies_ms, log, fails_in
        self.closed = False

    def open(self) -> None:
        raise AssertionError("it is open")

    def run(self, block: Block, *, measured: bool) -> None:
        turn = len(self.seen.rows)
        self._log.append(f"{self.kind.name}{turn}")
        if turn == self._fails_in:
            raise BenchError("its process ended")
        first = sum(len(before) for before in self.seen.rows)
        frames = block.frames - block.lead_in
        self.seen.rows.append(rows(self._latencies[first : first + frames]))
        self.seen.blocks.append(block)
        self.seen.cpu_ns.append(
            {"main": block.frames * 3 * NS_PER_MS, "client": block.frames * 2 * NS_PER_MS}
        )
        self.seen.planes_sha256.append(f"block {turn}")

    def close(self) -> None:
        self.closed = True


class NoWitness:
    """In place of the process that watches the machine."""

    def record(self) -> None:
        return None

    def close(self) -> None:
        """Nothing to close."""


def played_run(
    monkeypatch: pytest.MonkeyPatch, latencies_ms: dict[str, list[float]], *, rounds: int = 4, **fails_in: int
) -> tuple[Run, list[str]]:
    monkeypatch.setattr(peers, "Witness", NoWitness)
    log: list[str] = []
    frames = len(next(iter(latencies_ms.values())))
    run = Run(PeersConfig(frames=frames, rounds=rounds, rate=20.0), MACHINE)
    run.source = {
        "kind": "phantom",
        "frames": 8,
        "format": {"rows": 64, "columns": 64, "bits_stored": 8},
    }
    run.contestants = [Played(name, row, log, fails_in.get(name, -1)) for name, row in latencies_ms.items()]
    measure_rounds(run)
    run.complete = True
    return run, log


# Settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param({"rate": 0.0}, r"--rate must be above 0 .*, got 0\.0", id="rate 0"),
        pytest.param({"rate": float("nan")}, "--rate must be above 0 .*, got nan", id="rate NaN"),
        pytest.param({"frames": 0}, "--frames must be 1 or more, got 0", id="no frames"),
        pytest.param({"rounds": 0}, "--rounds must be 1 to the number of frames, got 0", id="no rounds"),
        pytest.param(
            {"frames": 3, "rounds": 4}, "--rounds must be 1 to the number of frames, got 4", id="empty rounds"
        ),
        pytest.param({"size": 32}, "--size must be 64 to 2048 pixels a side, got 32", id="too small"),
        pytest.param(
            {"out": Path("/nowhere/r.json")}, "needs an existing folder, got /nowhere", id="no folder"
        ),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PeersConfig(**setting)


def test_a_report_that_could_not_be_written_is_found_out_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--out needs a file name, got the folder"):
        PeersConfig(out=tmp_path)


# Turns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "rounds", "expected"), [(1000, 5, [200] * 5), (7, 3, [3, 2, 2]), (1, 1, [1])]
)
def test_the_rounds_hold_all_frames_evenly(frames: int, rounds: int, expected: list[int]) -> None:
    assert turns(frames, rounds) == expected


def test_contestants_take_turns_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    run, log = played_run(monkeypatch, {"loop": [9.0] * 6, "pyzmq": [9.0] * 6, "ours": [9.0] * 6}, rounds=3)
    assert log == [f"{name}{turn}" for turn in range(3) for name in ("loop", "pyzmq", "ours")]
    for contestant in run.contestants:
        blocks = contestant.seen.blocks
        assert [block.frames - block.lead_in for block in blocks] == [2, 2, 2]
        assert {block.lead_in for block in blocks} == {peers.LEAD_IN}
        assert {block.period_ns for block in blocks} == {50.0 * NS_PER_MS}


def test_a_peer_that_fails_is_left_out_with_its_reason_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, log = played_run(monkeypatch, {"loop": [9.0] * 8, "ours": [9.0] * 8}, loop=1)
    assert log == ["loop0", "ours0", "loop1", "ours1", "ours2", "ours3"]
    report = build_report(run)
    assert report["skipped"] == {"loop": "failed in round 2: its process ended"}
    assert list(report["contestants"]) == ["ours"]
    assert "left out: failed in round 2: its process ended" in format_peers(report)
    assert "left out: failed in round 2: its process ended" in markdown(report)


def test_our_own_failure_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="its process ended"):
        played_run(monkeypatch, {"loop": [9.0] * 8, "ours": [9.0] * 8}, ours=2)


def test_different_engines_are_not_compared() -> None:
    one, other = Played("loop", [], []), Played("ours", [], [])
    check_same_engine([one, other])
    other.said["engine"] = {**ENGINE, "precision": "bf16"}
    with pytest.raises(
        BenchError, match=r'needed the same engine for each contestant, got .*"bf16".*name one'
    ):
        check_same_engine([one, other])


def test_a_peer_that_is_not_installed_is_named_with_what_to_install() -> None:
    missing = Kind("gstreamer", "GStreamer", "no.module", "no.module", "no_such_package_of_gstreamer")
    assert why_missing(missing) == (
        "no_such_package_of_gstreamer is not installed; run: pip install -e '.[peers]'"
    )
    assert why_missing(dataclasses.replace(missing, needs=None)) is None


# Frames --------------------------------------------------------------------------------------------------------


def test_a_frame_that_never_came_keeps_its_place() -> None:
    came = rows([5.0, 6.0, 7.0, 8.0])
    came[:, 0] += 100
    filled = rows_of_block(came[[0, 3, 1]], 100, 4)
    assert filled[:, 0].tolist() == [100, 101, 0, 103]
    assert latency_ms(filled).tolist() == [5.0, 6.0, np.inf, 8.0]


@pytest.mark.parametrize("sequence", [[100, 100], [99], [104]], ids=["twice", "before", "after"])
def test_frames_that_are_not_of_the_block_are_an_error(sequence: list[int]) -> None:
    came = rows([5.0] * len(sequence))
    came[:, 0] = sequence
    with pytest.raises(BenchError, match="frames of block 100 to 103 came twice or from another block"):
        rows_of_block(came, 100, 4)


class Recording(Source):
    """Frames of one grey value each."""

    kind = "cine"
    format = FrameFormat(64, 64)

    def __init__(self, values: list[int], *, live: bool = False) -> None:
        self._values, self.live, self.frame_count = iter(values), live, len(values)

    def read(self, out: np.ndarray) -> SourceFrame | None:
        if (value := next(self._values, None)) is None:
            return None
        out[:] = value
        return SourceFrame()


def test_repeats_are_left_out_since_the_pipeline_would_not_infer_them_again() -> None:
    frames = distinct_frames(Recording([1, 1, 2, 3, 3, 3, 4, 1]))
    assert frames[:, 0, 0].tolist() == [1, 2, 3, 4]


def test_a_loop_longer_than_the_memory_is_cut() -> None:
    assert len(distinct_frames(Recording(list(range(20))), max_bytes=5 * 64 * 64)) == 5


def test_a_still_image_and_a_live_device_are_refused() -> None:
    with pytest.raises(BenchError, match="needed a loop of two frames or more that differ, got 1"):
        distinct_frames(Recording([7, 7, 7]))
    with pytest.raises(BenchError, match="needed phantom or a recorded loop, got a live device"):
        distinct_frames(Recording([1, 2], live=True))


def test_the_pipelines_source_plays_the_same_frames_at_the_blocks_own_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 64, 64), np.uint8)
    np.save(tmp_path / "frames.npy", stored)
    os.mkfifo(tmp_path / "blocks")
    monkeypatch.setenv(FRAMES_VARIABLE, str(tmp_path / "frames.npy"))
    monkeypatch.setenv(BLOCKS_VARIABLE, str(tmp_path / "blocks"))
    monkeypatch.setenv(FORMAT_VARIABLE, json.dumps(format_to_json(FrameFormat(64, 64))))
    told = os.open(tmp_path / "blocks", os.O_RDWR)
    os.write(told, b"1000 2 10.5\n900000 2 10.5\n")
    source = BlockSource(SourceOptions(rate_hz=20.0))
    seen = []
    out = np.zeros((64, 64), np.uint8)
    for _ in range(4):
        got = source.read(out)
        assert got is not None
        seen.append((int(out[0, 0]), got.stamp_ns))
    source.close()
    os.close(told)
    assert seen == [(0, 1000), (1, 1010), (2, 900000), (0, 900010)]


def test_the_cpu_time_of_a_process_grows_as_it_works() -> None:
    before = process_cpu_ns(os.getpid())
    sum(range(300_000))
    assert process_cpu_ns(os.getpid()) > before > 0
    assert process_cpu_ns(2**22 + 1) == 0  # beyond the kernel's largest process id


def test_a_client_that_never_connects_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_pyzmq, "CONNECT_MS", 20)
    with pytest.raises(BenchError, match="the client did not subscribe within"):
        peer_pyzmq.PyzmqSender(f"ipc://{tmp_path / 'nobody'}")


# Arithmetic ----------------------------------------------------------------------------------------------------


def test_lost_and_live_only_frames_count_as_later_than_any_other() -> None:
    latencies = latency_ms(rows([10.0, np.nan, 12.0, np.inf]))
    assert latencies.tolist() == [10.0, np.inf, 12.0, np.inf]
    assert percentiles(np.array([10.0, 11.0, 12.0, np.inf]))["p50"] == 11.0
    assert percentiles(np.array([10.0, np.inf, np.inf, np.inf]))["p50"] == "lost"
    assert percentiles(np.full(19, 1.0))["p95"] is None
    assert percentiles(np.full(999, 1.0))["p99"] is None
    assert percentiles(np.array([1.0] * 980 + [np.inf] * 20))["p99"] == "lost"
    assert percentiles(np.array([1.0] * 991 + [np.inf] * 9))["p99"] == 1.0


@pytest.mark.parametrize(
    ("ratio", "limit", "said"),
    [
        (Ratio(1.2, 1.1, 1.3, 9), 1.0, "slower"),
        (Ratio(0.8, 0.7, 0.9, 9), 1.0, "faster"),
        (Ratio(1.2, 0.9, 1.3, 9), 1.0, "cannot tell"),
        (Ratio(1.2, 1.0, 1.3, 9), 1.0, "cannot tell"),
        (Ratio(1.05, 1.02, 1.08, 9), 1.1, "faster"),
        (Ratio(1.2, None, None, 2), 1.0, "cannot tell"),
        (None, 1.0, "cannot tell"),
    ],
)
def test_a_verdict_is_given_only_where_the_interval_leaves_no_doubt(
    ratio: Ratio | None, limit: float, said: str
) -> None:
    assert verdict(ratio, limit) == said


def test_a_ratio_of_p99s_follows_the_tail_and_not_the_middle() -> None:
    calm = np.tile(np.r_[np.full(95, 10.0), np.full(5, 12.0)], 20)
    spiky = np.tile(np.r_[np.full(95, 10.0), np.full(5, 36.0)], 20)
    ratio = ratio_of_percentiles(spiky, calm, 99.0)
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == (3.0, 3.0, 3.0)
    middle = ratio_of_percentiles(spiky, calm, 50.0)
    assert middle is not None
    assert middle.value == 1.0


def test_a_ratio_with_too_many_lost_frames_has_no_value_and_with_some_no_interval() -> None:
    whole = np.full(400, 10.0)
    mostly_lost = np.where(np.arange(400) % 3 == 0, 10.0, np.inf)
    assert ratio_of_percentiles(mostly_lost, whole, 50.0) is None
    assert ratio_of_percentiles(whole, mostly_lost, 50.0) is None
    nearly_half = np.where(np.arange(400) < 190, np.inf, 10.0)
    ratio = ratio_of_percentiles(nearly_half, whole, 50.0)
    assert ratio is not None
    assert (ratio.value, ratio.low) == (1.0, None)


def test_the_table_gives_each_its_figures_and_the_ratio_to_the_plain_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 400
    ours = [12.0] * count
    ours[5], ours[6] = np.inf, np.nan
    run, _ = played_run(monkeypatch, {"loop": [10.0] * count, "pyzmq": [8.0] * count, "ours": ours})
    run.skipped["holoscan"] = "holoscan is not installed; run: pip install -e '.[peers]'"
    report = json.loads(json.dumps(build_report(run)))
    seen = report["contestants"]
    assert report["baseline"] == "loop"
    assert seen["loop"]["p50_ratio"] is None
    assert seen["pyzmq"]["p50_ratio"] == {
        "value": 0.8,
        "low": 0.8,
        "high": 0.8,
        "chunks": 8,
        "verdict": "faster",
    }
    assert seen["ours"]["p50_ratio"]["verdict"] == "slower"
    assert seen["ours"]["lost"] == 1
    assert seen["ours"]["live_only"] == 1
    assert seen["ours"]["live_only_reasons"] == {"deadline": 1}
    assert seen["ours"]["engine_ms"]["p50"] == pytest.approx(4.0)
    assert seen["ours"]["outside_engine_ms"]["p50"] == pytest.approx(8.0)
    assert seen["ours"]["cpu_ms_per_frame"] == pytest.approx(5.0)
    assert seen["ours"]["p99_ratio"] is None  # 400 frames are no p99
    assert seen["ours"]["cpu_ms_per_frame_by_process"] == pytest.approx({"main": 3.0, "client": 2.0})
    stages = {name: stage["p50"] for name, stage in seen["ours"]["stages_ms"].items()}
    assert stages == pytest.approx(
        {"grab": 0.5, "submit": 0.5, "engine": 4.0, "publish": 7.0, "transport": 0.0}
    )
    assert report["isolation"]["p50_ms"] == pytest.approx(4.0)
    assert report["same_planes"] is True
    judged = {row["name"]: row for row in report["targets"]}
    assert judged["end to end p50, times that of loop"]["met"] is False
    holoscan = judged["end to end p50, times that of holoscan"]
    assert holoscan["met"] is None
    assert "not installed" in holoscan["why_not_measured"]
    printed, document = format_peers(report), markdown(report)
    for text in (printed, document, html.unescape(page(report, [samples_of(run)]))):
        assert "left out: holoscan is not installed; run: pip install -e '.[peers]'" in text
        assert "1.20 (1.20 to 1.20)" in text
        assert "MISSED: end to end p50, times that of loop <= 1.1, got 1.20" in text
        assert "ours: 1 frames live only: deadline 1" in text
        assert "not a medical device" in text
    table = [line for line in document.splitlines() if line.startswith("| ")]
    assert len(table) == 1 + len(KINDS)
    assert len({line.count("|") for line in table}) == 1


def test_what_is_kept_beside_the_report_draws_its_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, _ = played_run(monkeypatch, {"loop": [10.0] * 40, "ours": [12.0] * 38 + [np.inf, np.nan]})
    kept = samples_of(run)
    assert kept.series["contestants/ours/latency_whole_ms"].tolist() == pytest.approx([12.0] * 38)
    written = Outputs(tmp_path / "peers.json").write(build_report(run), [kept])
    assert sorted(path.suffix for path in written) == [".html", ".json", ".md", ".npz"]
    assert "contestants/ours/latency_whole_ms" in (tmp_path / "peers.html").read_text()


def test_without_the_plain_loop_the_measure_is_named_and_the_missing_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = played_run(monkeypatch, {"pyzmq": [8.0] * 200, "ours": [8.0] * 200})
    run.skipped["loop"] = "imagezmq is not installed; run: pip install -e '.[peers]'"
    report = build_report(run)
    assert report["baseline"] == "pyzmq"
    assert report["contestants"]["ours"]["p50_ratio"]["verdict"] == "cannot tell"
    assert "imagezmq is not installed" in format_peers(report)


def test_other_bytes_at_a_client_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = played_run(monkeypatch, {"pyzmq": [8.0] * 8, "ours": [8.0] * 8})
    run.contestants[0].seen.planes_sha256[2] = "others"
    report = build_report(run)
    assert report["same_planes"] is False
    assert "same bytes received: NO" in format_peers(report)


def test_a_run_that_was_stopped_in_a_round_reports_the_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = played_run(monkeypatch, {"loop": [10.0] * 400, "ours": [10.0] * 400})
    run.rounds, run.complete = 3, False
    run.contestants[1].seen.rows.pop()
    report = build_report(run)
    assert {seen["frames"] for seen in report["contestants"].values()} == {300}
    assert "300 measured of each in 3 of 4 rounds" in format_peers(report)
    assert format_peers(report).startswith("INCOMPLETE")


def test_a_run_that_was_stopped_before_its_first_round_is_reported_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = played_run(monkeypatch, {"loop": [10.0] * 8, "ours": [10.0] * 8})
    run.rounds, run.complete = 0, False
    run.contestants[1].seen = Seen()
    report = json.loads(json.dumps(build_report(run)))
    assert report["contestants"]["ours"]["latency_ms"]["p50"] is None
    assert "0 measured of each in 0 of 4 rounds" in format_peers(report)
    assert "not reached" in markdown(report)


def test_a_recordings_name_does_not_reach_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = played_run(monkeypatch, {"loop": [10.0] * 8, "ours": [10.0] * 8})
    run.config = dataclasses.replace(run.config, source="/data/DOE^JANE.dcm", out=None)
    report = build_report(run)
    assert "DOE" not in json.dumps(report)
    assert "DOE" not in markdown(report)
