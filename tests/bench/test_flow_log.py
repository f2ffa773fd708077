"""The log in Holoscan's form, read by a parser written from the documented form; and trtexec's summary lines."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.flow_log import flow_log, main, trtexec_summary, write_flow_logs
from bench.live import Run
from bench.report import build_rates_report, build_report, samples_of
from bench.samples import Samples, save_samples

MadeUp = Callable[..., Run]
OPERATOR = re.compile(r"\(([^,()]+),(\d+),(\d+)\)")
ARROW = " -> "


def _read(log: str) -> dict[str, list[float]]:
    """Latencies in ms by path, as the documentation of the form says: (operator, receive us, publish us) -> ..."""
    latencies: dict[str, list[float]] = {}
    entries = log.split("\n\n")
    assert entries.pop() == ""
    for place, entry in enumerate(entries, 1):
        number, line = entry.split("\n")
        assert number == f"{place}:"
        steps = [OPERATOR.fullmatch(step) for step in line.split(ARROW)]
        assert all(steps), line
        found = [(step[1], int(step[2]), int(step[3])) for step in steps if step]
        # Nobody publishes before they received, and nobody receives before the one before has published.
        stamps = [stamp for _, receive, publish in found for stamp in (receive, publish)]
        assert stamps == sorted(stamps), line
        latencies.setdefault(ARROW.join(name for name, _, _ in found), []).append(
            (found[-1][2] - found[0][1]) / 1000.0
        )
    return latencies


def test_the_log_holds_every_frame_after_the_warm_up_with_its_end_to_end_latency(made_up_run: MadeUp) -> None:
    run = made_up_run(100)
    read = _read(flow_log(run.measured, run.warmup))
    assert list(read) == ["source -> engine -> guard -> client"]
    assert len(read["source -> engine -> guard -> client"]) == 100 + 10
    expected = build_report(run)["latency_ms"]["p50"]
    assert read["source -> engine -> guard -> client"] == pytest.approx([expected] * 110, abs=2e-3)


def test_a_frame_without_an_inference_takes_a_path_of_its_own(made_up_run: MadeUp) -> None:
    read = _read(flow_log(made_up_run(100, late_ms=(30.0, 40.0)).measured, 20))
    assert read["source -> guard -> client"] == pytest.approx([30.0, 40.0], abs=2e-3)
    assert len(read["source -> engine -> guard -> client"]) == 108


def test_no_two_operators_begin_with_the_same_three_letters(made_up_run: MadeUp) -> None:
    # analyze.py --draw-cdf shortens names so, and gives up where two of them become one.
    names = {step[0] for step in OPERATOR.findall(flow_log(made_up_run(20).measured))}
    assert len({name[:3] for name in names}) == len(names) == 4


def test_the_logs_are_written_beside_the_report_one_for_each_rate(
    made_up_run: MadeUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [made_up_run(60), made_up_run(60)]
    reports = [build_report(run) for run in runs]
    reports[0]["workload"]["rate_hz"] = 7.5
    (tmp_path / "a.json").write_text(json.dumps(build_rates_report(reports, [7.5, 50.0])))
    save_samples(tmp_path / "a.npz", [samples_of(run) for run in runs])
    written = write_flow_logs(tmp_path / "a.json")
    assert [path.name for path in written] == ["a.7_5hz.flow.log", "a.50hz.flow.log"]
    assert sum(len(times) for times in _read(written[0].read_text()).values()) == 70
    assert main([str(tmp_path / "missing.json")]) == 2
    assert capsys.readouterr().err.startswith("contrastream: needed a report, got ")


def test_a_report_in_which_no_frame_travelled_has_no_flow(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"schema": "contrastream.bench/1"}))
    save_samples(tmp_path / "a.npz", [Samples(series={"serial_ms": np.ones(3)})])
    with pytest.raises(BenchError, match="needed a run in which frames travelled"):
        write_flow_logs(tmp_path / "a.json")


TRTEXEC = re.compile(r"([a-z]+(?:\(\d+%\))?) = ([0-9.e+-]+) ms")


@pytest.mark.parametrize(("count", "has_p99"), [(999, False), (1000, True)], ids=["999", "1000"])
def test_an_engine_is_summed_up_as_trtexec_does(count: int, has_p99: bool) -> None:
    times = np.linspace(4.0, 6.0, count)
    lines = trtexec_summary(times, 5.0).splitlines()
    assert lines[0] == "[I] === Performance summary ==="
    throughput = re.fullmatch(r"\[I\] Throughput: ([0-9.]+) qps", lines[1])
    assert throughput is not None
    assert float(throughput[1]) == pytest.approx(count / 5.0)
    assert lines[2].startswith(
        "[I] Latency: min = 4 ms, max = 6 ms, mean = 5 ms, median = 5 ms, percentile(90%) = "
    )
    figures = dict(TRTEXEC.findall(lines[2]))
    assert float(figures["percentile(95%)"]) == pytest.approx(5.9)
    assert ("percentile(99%)" in figures) == has_p99
    assert lines[-1].startswith("[W] * Latency is unstable, with coefficient of variance = 11.")
    assert "[W]" not in trtexec_summary(np.full(100, 5.0), 0.5)


def test_a_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needed samples and the time they took, got 0 in 1\.0 s"):
        trtexec_summary(np.zeros(0), 1.0)
