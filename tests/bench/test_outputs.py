"""What lies beside a report: samples, table and page, and that they can be made again."""

import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import plots
from bench.config import LiveConfig
from bench.errors import BenchError
from bench.live import Run
from bench.machine import describe
from bench.markdown import markdown
from bench.outputs import Outputs, main
from bench.page import page
from bench.report import build_rates_report, build_report, samples_of
from bench.samples import Samples, only
from bench.summaries import number, summaries
from stream.latency import summarize_ms

MadeUp = Callable[..., Run]
PICTURE_BYTES = 200_000


class _Page(html.parser.HTMLParser):
    """Collects what a page would load, its ids, its references and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data") and value:
                (self.references.add(value[1:]) if value.startswith("#") else self.loads.append(value))
            if name == "id" and value:
                self.ids.append(value)
            self.references.update(re.findall(r"url\(#([^)]+)\)", value or ""))
        if tag in ("script", "iframe", "link", "img"):
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def whole(made_up_run: MadeUp) -> tuple[dict[str, Any], str]:
    """A report with everything in it, and its page; drawing one takes a second."""
    run = made_up_run(2200, late_ms=(11.0, 77.5, *np.linspace(15.0, 60.0, 900)))
    run.measured = only(run.measured, ~np.isin(run.measured.sequence, np.arange(1000, 2000, 7)))
    report = build_report(run)
    return report, page(report, [samples_of(run)])


def _pictures(text: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)


def test_the_page_loads_nothing_and_its_pictures_are_small(whole: tuple[dict[str, Any], str]) -> None:
    text = whole[1]
    found = _Page(text)
    assert found.loads == []
    assert "@import" not in text
    assert "url(http" not in text
    assert len(found.ids) == len(set(found.ids))
    assert found.references <= set(found.ids)
    pictures = _pictures(text)
    assert len(pictures) == 5
    assert max(len(picture.encode()) for picture in pictures) < PICTURE_BYTES
    # Every colour is one of the page's variables, so that dark is dark.
    assert set(re.findall(r"#[0-9a-f]{6}\b", "".join(pictures))) == set()


def test_the_machine_and_the_conditions_come_first(whole: tuple[dict[str, Any], str]) -> None:
    words = _Page(whole[1]).words
    order = ["Machine", "Conditions", "Figures, ms", "Plots", "Worst frames, ms", "Targets"]
    places = [words.index(f"\n{title}\n") for title in order]
    assert places == sorted(places)
    assert "the 20 frames of the warm-up, and the first and last 10 that were received" in words


def test_the_page_names_the_worst_frames_in_the_plot_and_the_table(whole: tuple[dict[str, Any], str]) -> None:
    picture = next(each for each in _pictures(whole[1]) if "over-time" in each)
    assert re.search(r"<text[^>]*>21</text>", picture)
    assert "<td>21</td>" in whole[1]
    assert "77.50" in whole[1]


def test_the_frames_that_never_came_are_a_curve_of_their_own(whole: tuple[dict[str, Any], str]) -> None:
    report, text = whole
    assert report["coordinated_omission"]["missing"] == 143
    assert "with the frames that never came filled in" in _pictures(text)[0]
    assert "143 missing" in _Page(text).words


@pytest.mark.parametrize(("frames", "said"), [(999, "p95"), (1000, "p99")], ids=["999", "1000"])
def test_the_waterfall_shows_p99_only_from_a_thousand_frames(
    made_up_run: MadeUp, frames: int, said: str
) -> None:
    picture = plots.waterfall(samples_of(made_up_run(frames)))
    assert picture is not None
    assert f"ms; thick: median, thin: {said}" in picture


def test_a_run_cut_short_is_marked_in_every_file_that_is_written(made_up_run: MadeUp, tmp_path: Path) -> None:
    run = made_up_run(1000)
    run.complete = False
    run.measured = only(run.measured, run.measured.sequence < 300)
    report = build_report(run)
    written = Outputs(tmp_path / "a.json").write(report, [samples_of(run)])
    assert [path.name for path in written] == ["a.npz", "a.md", "a.html", "a.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    assert report["latency_ms"]["n"] == 300 - 20 - 10
    assert report["latency_ms"]["p99"] is None
    assert "INCOMPLETE" in (tmp_path / "a.md").read_text()
    assert "INCOMPLETE" in (tmp_path / "a.html").read_text()
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(report, default=str))


def test_a_run_stopped_before_its_first_frame_still_has_its_page(tmp_path: Path) -> None:
    run = Run(LiveConfig(), 30.0, describe())
    Outputs(tmp_path / "a.json").write(build_report(run), [samples_of(run)])
    assert "INCOMPLETE" in (tmp_path / "a.html").read_text()


def test_several_rates_are_one_page_with_a_row_each(made_up_run: MadeUp, tmp_path: Path) -> None:
    runs = [made_up_run(60), made_up_run(100)]
    reports = [build_report(run) for run in runs]
    reports[0]["workload"]["rate_hz"] = 7.5
    joined = build_rates_report(reports, [7.5, 50.0])
    Outputs(tmp_path / "a.json").write(joined, [samples_of(run) for run in runs])
    text = (tmp_path / "a.html").read_text()
    found = _Page(text)
    assert len(found.ids) == len(set(found.ids))
    assert found.references <= set(found.ids)
    assert text.count("<svg") == 10
    assert "7.5 per second" in found.words
    assert "50 per second" in (tmp_path / "a.md").read_text()


def test_a_report_without_frames_shows_its_series_and_is_drawn_again_from_them(tmp_path: Path) -> None:
    values = 1.0 + np.arange(51) / 50
    report = {
        "schema": "contrastream.bench/1",
        "complete": True,
        "workload": {"name": "engine"},
        "machine": describe(),
        "saturated": {"latency_ms": summarize_ms(values)},
    }
    Outputs(tmp_path / "a.json").write(report, [Samples(series={"saturated/latency_ms": values})])
    text = (tmp_path / "a.html").read_text()
    (tmp_path / "a.html").unlink()
    assert main([str(tmp_path / "a.json")]) == 0
    assert (tmp_path / "a.html").read_text() == text
    assert "saturated/latency_ms, p50 1.5" in text
    assert "| saturated, latency | 51 | 1.50 |" in markdown(report)


def test_a_report_of_bench_transport_is_called_so_and_has_what_it_measured_saturated(
    made_up_run: MadeUp,
) -> None:
    paced = build_report(made_up_run(60))
    saturated = {"frames": 300, "fps": 995.9, "mbytes_per_s": 261.1}
    rows = [{"latency_ms": paced["latency_ms"], "saturated": saturated, "paced": paced}]
    report = {"schema": "contrastream.bench.transport/1", "machine": paced["machine"], "rows": rows}
    words = _Page(page(report, [Samples()])).words
    assert words.count("contrastream bench transport") == 2
    assert "512 x 512, 50 per second, fps995.9" in words
    assert "512 x 512, 50 per second: frames 300, fps 995.9, mbytes per s 261.1" in markdown(report)


def test_streams_are_named_by_how_many_there_were() -> None:
    rooms = [{"latency_ms": summarize_ms(np.ones(20))}]
    report = {
        "schema": "contrastream.bench.scale/1",
        "steps": [
            {
                "streams": 4,
                "keeps_up": True,
                "least_in_time_share": 1.0,
                "worst_p50_ms": 12.5,
                "rooms": rooms,
            },
            {
                "streams": 8,
                "keeps_up": False,
                "least_in_time_share": 0.25,
                "worst_p50_ms": 1.0,
                "rooms": rooms,
            },
        ],
    }
    table, shown = markdown(report), _Page(page(report, [Samples()])).words
    assert "| steps, 4 streams, rooms, 1, latency | 20 | 1.00 |" in table
    assert "| steps, 8 streams (not kept up, live pictures), rooms, 1, latency | 20 | 1.00 |" in table
    assert "steps, 4 streams, keeps upTrue" in shown
    assert "100.0 %, p50 12.5 ms" in shown
    assert "25.0 %" in shown
    assert "25.0 %, p50" not in shown  # of live pictures, which wait for nobody


def test_what_stands_in_the_table_is_what_the_report_holds(whole: tuple[dict[str, Any], str]) -> None:
    report = whole[0]
    table = markdown(report)
    p50, p99 = report["latency_ms"]["p50"], report["latency_ms"]["p99"]
    row = next(line for line in table.splitlines() if line.startswith("| end to end, due to received"))
    assert row.split(" | ")[1:3] == [str(report["latency_ms"]["n"]), f"{p50:.2f}"]
    assert f"{p99:.2f}" in row
    assert len([line for line in table.splitlines() if line.startswith("| target")]) == 1
    assert {path for path, _ in summaries(report)} >= {"latency_ms", "stages_ms/engine", "floor/floor_ms"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.12345, "0.123"), (1.2345, "1.23"), (123.45, "123.5"), (7, "7"), (True, "True")],
)
def test_a_figure_is_shown_with_three_digits_that_count(value: object, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("out", "said"),
    [
        pytest.param("report.txt", r"--out must end in \.json, got report\.txt", id="suffix"),
        pytest.param(
            "missing/report.json", "--out needs a folder that takes files, got .*missing", id="folder"
        ),
        pytest.param("folder.json", r"--out must be a file, got the folder .*folder\.json", id="is a folder"),
    ],
)
def test_an_out_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, out: str, said: str
) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(BenchError, match=said):
        Outputs(tmp_path / out)


def test_a_report_that_is_none_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text("[1, 2")
    assert main([str(tmp_path / "a.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("contrastream: needed a report in JSON")
    assert said.count("\n") == 1
