"""Two reports against each other: what may be claimed on a noisy machine, what may not, and what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import contrastream
from bench.compare import compare, differences
from bench.compare_runs import compare_series, verdict
from bench.errors import BenchError
from bench.floor import FloorSamples
from bench.live import Run
from bench.report import build_rates_report, build_report, samples_of
from bench.samples import Samples, only, save_samples
from stream.timing import NS_PER_MS

MadeUp = Callable[..., Run]


def _noisy(median: float, count: int = 2000, *, seed: int, spread: float = 0.05) -> np.ndarray:
    return median * np.random.default_rng(seed).lognormal(0.0, spread, count)


def _judged(
    before: float, after: float, floors: tuple[float, float] = (1.0, 1.0), **more: Any
) -> tuple[str, str]:
    series = _noisy(before, seed=1, **more), _noisy(after, seed=2, **more)
    floor = _noisy(floors[0], seed=3), _noisy(floors[1], seed=4)
    return verdict(compare_series(*series, 0.5, floor), (0.02, 0.03))


@pytest.mark.parametrize(
    ("before", "after", "floors", "said"),
    [
        pytest.param(10.0, 10.1, (1.0, 1.0), "same", id="one percent"),
        pytest.param(10.0, 12.0, (1.0, 1.0), "slower", id="slower"),
        pytest.param(12.0, 10.0, (1.0, 1.0), "faster", id="faster"),
        pytest.param(10.0, 12.0, (1.0, 1.2), "same", id="the machine got slower, not the program"),
        pytest.param(10.0, 10.0, (1.2, 1.0), "cannot tell", id="the machine got faster and hides it"),
        pytest.param(10.0, 10.55, (1.0, 1.0), "slower", id="just beyond the margin"),
    ],
)
def test_a_change_is_claimed_only_where_the_floor_agrees(
    before: float, after: float, floors: tuple[float, float], said: str
) -> None:
    assert _judged(before, after, floors)[0] == said


def test_wide_intervals_end_in_cannot_tell_and_not_in_the_same() -> None:
    said, why = _judged(10.0, 10.3, count=250, spread=1.0)
    assert said == "cannot tell"
    assert "more frames" in why


def test_two_runs_of_one_program_are_rarely_called_different() -> None:
    wrong = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        # A mood of the machine lasts for 50 frames and hits the figure and the floor alike.
        moods = [np.repeat(generator.lognormal(0.0, 0.15, 20), 50) for _ in range(2)]
        series = [10.0 * mood * generator.lognormal(0.0, 0.05, 1000) for mood in moods]
        floors = [mood * generator.lognormal(0.0, 0.05, 1000) for mood in moods]
        compared = compare_series(*series, 0.5, (floors[0], floors[1]))
        wrong += verdict(compared, None)[0] in ("slower", "faster")
    assert wrong <= 1


def test_a_mood_that_hits_figure_and_floor_alike_cancels() -> None:
    generator = np.random.default_rng(5)
    moods = [np.repeat(generator.lognormal(0.0, 0.3, 20), 50) for _ in range(2)]
    compared = compare_series(10.0 * moods[0], 12.0 * moods[1], 0.5, (moods[0], moods[1]))
    assert compared is not None
    assert compared.by_floor is not None
    assert compared.ratio.low is not None
    assert compared.by_floor.low is not None
    assert compared.by_floor.value == pytest.approx(1.2)
    assert compared.by_floor.low == pytest.approx(1.2)
    assert compared.ratio.high - compared.ratio.low > 0.1


def test_the_tail_is_judged_by_its_own_quantile() -> None:
    before, after = _noisy(10.0, seed=1), _noisy(10.0, seed=1)
    after[::50] += 40.0
    middle, tail = compare_series(before, after, 0.5), compare_series(before, after, 0.99)
    assert middle is not None
    assert tail is not None
    assert middle.ratio.value == pytest.approx(1.0, abs=0.02)
    assert tail.ratio.low is not None
    assert tail.ratio.low > 3.0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"floors": None}, "no floor", id="no floor"),
        pytest.param({"count": 199}, "fewer than 200 samples", id="too few"),
        pytest.param({"noise": (0.02, 0.30)}, "others took 2 % of the cores in A and 30 % in B", id="noise"),
        pytest.param({"count": 0}, "one of the runs does not have it", id="nothing"),
    ],
)
def test_what_cannot_be_told_says_why(changed: dict[str, Any], said: str) -> None:
    count = changed.get("count", 1000)
    series = _noisy(10.0, count, seed=1), _noisy(20.0, count, seed=2)
    floors = changed.get("floors", (_noisy(1.0, seed=3), _noisy(1.0, seed=4)))
    judged = verdict(compare_series(*series, 0.5, floors), changed.get("noise"))
    assert judged[0] == "cannot tell"
    assert said in judged[1]


# Whole reports -------------------------------------------------------------------------------------------------


def _write(run: Run, path: Path, *, delay_ms: float = 0.0, seed: int = 1) -> Path:
    """A report of a made-up run whose engine takes so much longer, with some noise in every stage."""
    stamps = run.measured.stamps_ns.astype(np.int64)
    noise = np.cumsum(np.random.default_rng(seed).integers(0, 20_000, (len(stamps), 5)), axis=1)
    stamps[:, 1:] += np.where(stamps[:, 1:] > 0, noise, 0)
    stamps[:, 3:] += np.where(stamps[:, 3:] > 0, round(delay_ms * NS_PER_MS), 0)
    run.measured.stamps_ns[:] = stamps
    return _written(path, build_report(run), [samples_of(run)])


def _written(path: Path, report: dict[str, Any], samples: list[Samples]) -> Path:
    """Without the page, whose pictures take longer than all of this."""
    path.write_text(json.dumps(report))
    save_samples(path.with_suffix(".npz"), samples)
    return path


@pytest.fixture(scope="module")
def reports(made_up_run: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four reports: two of the same program, one with a slower engine, one with lost frames."""
    folder = tmp_path_factory.mktemp("reports")
    holed = made_up_run(1000)
    holed.measured = only(holed.measured, ~np.isin(holed.measured.sequence, (500, 501)))
    return {
        "a": _write(made_up_run(1000), folder / "a.json"),
        "b": _write(made_up_run(1000), folder / "b.json", seed=2),
        "slow": _write(made_up_run(1000), folder / "slow.json", delay_ms=3.0, seed=3),
        "lost": _write(holed, folder / "lost.json", seed=4),
    }


def _row(comparison: dict[str, Any], figure: str, quantile: str = "p50") -> dict[str, Any]:
    return next(
        row
        for row in comparison["runs"][0]["figures"]
        if row["figure"] == figure and row["quantile"] == quantile
    )


def test_two_runs_of_one_program_are_the_same_with_exit_status_0(
    reports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(reports["a"], reports["b"], out=tmp_path / "c.json") == 0
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert comparison["verdict"] == "not slower"
    assert _row(comparison, "end to end, due to received", "p99")["verdict"] == "same"
    assert "NOT SLOWER (exit status 0)" in capsys.readouterr().out


def test_a_slower_engine_is_found_with_its_size_and_exit_status_4(
    reports: dict[str, Path], tmp_path: Path
) -> None:
    assert compare(reports["a"], reports["slow"], out=tmp_path / "c.json") == 4
    comparison = json.loads((tmp_path / "c.json").read_text())
    engine = _row(comparison, "stage engine, submitted to inferred")
    assert engine["verdict"] == "slower"
    assert engine["ratio"]["low"] <= engine["ratio"]["value"] <= engine["ratio"]["high"]
    assert engine["ratio"]["value"] == pytest.approx(1.3, abs=0.01)
    assert _row(comparison, "stage transport, published to received")["verdict"] == "same"
    assert compare(reports["slow"], reports["a"]) == 0, "the other way round it got faster"


def test_a_program_cannot_hide_behind_the_floor_that_it_slows_down_itself(
    made_up_run: MadeUp, reports: dict[str, Path], tmp_path: Path
) -> None:
    run = made_up_run(1000)
    run.floor_beside = FloorSamples(
        run.floor_beside.stamps_ns * 2
    )  # twice as long, while the floor alone is as it was
    slower = _write(run, tmp_path / "hides.json", delay_ms=3.0, seed=5)
    assert compare(reports["a"], slower, out=tmp_path / "c.json") == 4
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert _row(comparison, "the machine itself (floor)")["ratio"]["value"] == pytest.approx(1.0)


def test_pictures_that_go_out_without_a_synthesis_are_no_gain(
    made_up_run: MadeUp, reports: dict[str, Path], tmp_path: Path
) -> None:
    missing = _write(made_up_run(1000, late_ms=(0.5,) * 600), tmp_path / "missing.json", seed=6)
    assert compare(reports["a"], missing, out=tmp_path / "c.json") == 4
    comparison = json.loads((tmp_path / "c.json").read_text())
    latency = _row(comparison, "end to end, due to received")
    assert latency["ratio"]["value"] < 0.1
    assert latency["verdict"] == "cannot tell"
    assert _row(comparison, "share of frames inferred in time", "")["verdict"] == "worse"


def test_frames_lost_unexplained_are_worse_whatever_the_times_say(
    reports: dict[str, Path], tmp_path: Path
) -> None:
    assert compare(reports["a"], reports["lost"], out=tmp_path / "c.json") == 4
    row = _row(json.loads((tmp_path / "c.json").read_text()), "frames lost unexplained", "")
    assert (row["before"], row["after"], row["verdict"]) == (0, 2, "worse")


def _copied(report: Path, folder: Path, **changed: Any) -> Path:
    """The same report and samples with some keys of the JSON changed."""
    document = json.loads(report.read_text())
    for path, value in changed.items():
        *place, last = path.split("__")
        part = document
        for name in place:
            part = part[name]
        part[last] = value
    (folder / "x.json").write_text(json.dumps(document))
    (folder / "x.npz").write_bytes(report.with_suffix(".npz").read_bytes())
    return folder / "x.json"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"workload__rate_hz": 15.0}, r"rates: \[50\.0\] and \[15\.0\]", id="rate"),
        pytest.param({"workload__rows": 1024}, "rows: 512 and 1024", id="size"),
        pytest.param({"engine__backend": "torch"}, "engine: openvino and torch", id="engine"),
        pytest.param({"machine__cpu__model": "Other"}, "CPU: .* and Other", id="machine"),
        pytest.param(
            {"machine__scheduling": "SCHED_FIFO 99"}, "priority: .* and SCHED_FIFO 99", id="priority"
        ),
    ],
)
def test_other_machines_engines_sizes_and_rates_are_refused_by_name_unless_across(
    reports: dict[str, Path], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    other = _copied(reports["b"], tmp_path, **changed)
    with pytest.raises(BenchError, match=f"same machine and workload, got {said}; add --across"):
        compare(reports["a"], other)


def test_across_compares_nevertheless_and_names_the_difference(
    reports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = _copied(reports["b"], tmp_path, engine__backend="torch")
    assert compare(reports["a"], other, across=True) == 0
    assert "different: engine: openvino and torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"complete": False}, "needed a whole run, got .*stopped before its end", id="cut short"),
        pytest.param({"schema": "contrastream.bench/9"}, "got contrastream.bench/9 in .*x.json", id="schema"),
        pytest.param({"schema": None}, "without a schema", id="no report"),
    ],
)
def test_what_is_no_whole_report_of_ours_is_refused(
    reports: dict[str, Path], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(BenchError, match=said):
        compare(reports["a"], _copied(reports["b"], tmp_path, **changed))


def test_a_report_without_its_samples_is_refused_by_the_command_with_one_line_and_2(
    reports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = _copied(reports["b"], tmp_path)
    other.with_suffix(".npz").unlink()
    assert contrastream.main(["bench", "compare", str(reports["a"]), str(other)]) == 2
    said = capsys.readouterr().err
    assert "needed the samples beside the report" in said
    assert said.count("\n") == 1
    assert contrastream.main(["bench", "compare", str(reports["a"]), str(reports["b"])]) == 0


def test_reports_of_several_rates_are_compared_rate_by_rate(
    made_up_run: MadeUp, reports: dict[str, Path], tmp_path: Path
) -> None:
    runs = [made_up_run(250), made_up_run(250)]
    parts = [build_report(run) for run in runs]
    parts[0]["workload"]["rate_hz"] = 15.0
    _written(
        tmp_path / "many.json",
        build_rates_report(parts, [15.0, 50.0]),
        [samples_of(run) for run in runs],
    )
    assert differences(*(json.loads((tmp_path / "many.json").read_text()),) * 2) == []
    compare(tmp_path / "many.json", tmp_path / "many.json", out=tmp_path / "c.json")
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert [run["rate_hz"] for run in comparison["runs"]] == [15.0, 50.0]
    compare(tmp_path / "many.json", reports["a"], across=True, out=tmp_path / "c.json")
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert [run["name"] for run in comparison["runs"]] == ["512 x 512, 50 per second"]


def test_a_report_of_bench_transport_is_compared_size_by_size(made_up_run: MadeUp, tmp_path: Path) -> None:
    runs = [made_up_run(250), made_up_run(250), made_up_run(250)]
    paced = [build_report(run) for run in runs]
    paced[1]["workload"] |= {"rows": 1024, "columns": 1024}
    paced[2]["workload"] |= {"client": "memory"}
    document = {
        "schema": "contrastream.bench.transport/1",
        "complete": True,
        "machine": paced[0]["machine"],
        "rows": [{"latency_ms": each["latency_ms"], "paced": each} for each in paced],
    }
    path = _written(tmp_path / "t.json", document, [samples_of(run) for run in runs])
    compare(path, path, out=tmp_path / "c.json")
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert [run["name"] for run in comparison["runs"]] == [
        "512 x 512, 50 per second",
        "1024 x 1024, 50 per second",
        "512 x 512, 50 per second, client in memory",
    ]


@pytest.mark.parametrize(
    ("ours_ms", "pyzmq_ms", "status"),
    [
        pytest.param(18.0, 17.0, 0, id="as before"),
        pytest.param(21.0, 17.0, 4, id="slower"),
        pytest.param(21.0, 19.8, 0, id="the machine got slower for both"),
        pytest.param(18.0, 15.0, 5, id="the machine got faster, and hides what it gave"),
    ],
)
def test_runs_beside_peers_are_compared_by_the_peer_in_the_same_run(
    tmp_path: Path, ours_ms: float, pyzmq_ms: float, status: int
) -> None:
    def run(name: str, ours: float, pyzmq: float, seed: int) -> Path:
        document = {
            "schema": "contrastream.bench.peers/1",
            "complete": True,
            "workload": {"name": "peers", "source": "phantom", "rows": 512, "columns": 512, "rate_hz": 30.0},
        }
        series = {
            "contestants/ours/latency_whole_ms": _noisy(ours, 1000, seed=seed),
            "contestants/pyzmq/latency_whole_ms": _noisy(pyzmq, 1000, seed=seed + 1),
        }
        return _written(tmp_path / name, document, [Samples(series=series)])

    before, after = run("a.json", 18.0, 17.0, 1), run("b.json", ours_ms, pyzmq_ms, 11)
    assert compare(before, after, out=tmp_path / "c.json") == status
    figures = json.loads((tmp_path / "c.json").read_text())["runs"][0]["figures"]
    assert [row["figure"] for row in figures if row["decides"]] == ["contrastream, due to received"]


# pytest-benchmark ----------------------------------------------------------------------------------------------


def _micro(path: Path, pack_us: float, floor_us: float, *, data: bool = True) -> Path:
    """One part, five times a round, and the floor before each round."""
    rounds = [5e-6 * value for value in _noisy(pack_us, 400, seed=1)]
    floor = [1e-6 * value for value in _noisy(floor_us, 400, seed=2)]
    benchmark = {
        "name": "test_pack",
        "stats": {"data": rounds} if data else {"median": pack_us},
        "extra_info": {"repeats": 5, "floor_s": floor},
    }
    machine = {
        "cpu": {"brand_raw": "A CPU", "count": 2},
        "system": "Linux",
        "release": "6",
        "python_version": "3",
    }
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": [benchmark]}))
    return path


@pytest.mark.parametrize(
    ("pack_us", "floor_us", "status"),
    [
        pytest.param(20.0, 40.0, 0, id="the same"),
        pytest.param(22.0, 40.0, 0, id="less than two starts of one program differ by"),
        pytest.param(30.0, 40.0, 4, id="slower"),
        pytest.param(20.0, 30.0, 5, id="the machine got slower and the part did not"),
        pytest.param(30.0, 60.0, 0, id="the machine got slower"),
    ],
)
def test_files_of_pytest_benchmark_are_compared_as_ratios_to_their_floor(
    tmp_path: Path, pack_us: float, floor_us: float, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _micro(tmp_path / "before.json", 20.0, 40.0)
    assert compare(before, _micro(tmp_path / "after.json", pack_us, floor_us)) == status
    assert re.search(r"\* pack p50 +0\.020 ", capsys.readouterr().out), "a round is divided by its repeats"


def test_a_file_of_pytest_benchmark_without_its_rounds_is_refused(tmp_path: Path) -> None:
    whole = _micro(tmp_path / "before.json", 20.0, 40.0)
    with pytest.raises(BenchError, match="got only the summary of test_pack; add --benchmark-save-data"):
        compare(whole, _micro(tmp_path / "after.json", 20.0, 40.0, data=False))
