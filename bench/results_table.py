"""Tables of the committed reports for the READMEs: `python -m bench.results_table [--check]`.

What stands between `<!-- figures NAME -->` and `<!-- end of figures -->` in README.md and bench/README.md is made from the
reports in bench/results/, so that no figure there was typed by hand. NAME is `live`, the table of a run of one rate, `glass` and
`shown`, those of what comes after a client, or `all`, a row for every report.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.machine import one_line
from bench.markdown import met
from bench.outputs import read_report, write_text
from bench.summaries import number, workload_name

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAGES = (ROOT / "README.md", Path(__file__).parent / "README.md")
BLOCK = re.compile(r"(<!-- figures (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
QUANTILES = ("p50", "p95", "p99", "max")


def live_table(reports: dict[str, dict[str, Any]]) -> list[str]:
    """End to end, the engine, the rest and the floor, in ms, and under what they were measured.

    Args:
        reports: Every report by its file's name; the one measured here is `live.json`.

    Raises:
        BenchError: It is not there.
    """
    if (report := reports.get("live.json")) is None:
        raise BenchError(
            f"needed {RESULTS / 'live.json'}, got none; run: contrastream bench live --rate 30 --frames 18000 --out it"
        )
    work, engine, frames, floor = (report[key] for key in ("workload", "engine", "frames", "floor"))
    rows = [
        ("end to end: frame due until a client in another process holds it", report["latency_ms"]),
        (f"of that, the engine ({engine['backend']} {engine['precision']})", engine["in_pipeline_ms"]),
        ("everything but the engine", floor["pipeline_ms"]),
        (
            "a floor of bare processes with the same hops, bytes and planes, in the same run",
            floor["floor_ms"],
        ),
    ]
    minutes = work["frames"] / work["rate_hz"] / 60
    lines = [*HEAD]
    lines += [
        f"| {name} | {' | '.join(number(summary[key]) for key in QUANTILES)} |" for name, summary in rows
    ]
    lines += [
        "",
        f"{minutes:.1f} minutes of the {work['source']} at {work['rows']} x {work['columns']}, {work['bits_stored']} bits, paced at "
        f"{work['rate_hz']:g} per second, {work['frames']:,} frames after {work['warmup']} to warm up, model {engine['model_sha256'][:8]}, on "
        f"{one_line(report['machine'])}. Host steal {_percent(report['steal_share'])}, other processes "
        f"{_percent(report['others_share'])}, longest stall of a process that only sleeps {number(report['witness_ms'])} ms. Of "
        f"{frames['due']:,} frames {frames['synthesized']:,} went out SYNTHETIC, {report['late']['count']} came after their deadline, "
        f"{frames['unexplained']} were lost unexplained.",
        "",
        *(
            f"- {met(row['met'])}: {row['name']}: {number(row['value'])} (needed {row['needed']})"
            for row in report["targets"]
            if not row["met"]
        ),
        f"- met: the other {sum(bool(row['met']) for row in report['targets'])} aims; [the whole report](bench/results/live.md) lists them",
    ]
    return lines


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


HEAD = ("| ms | p50 | p95 | p99 | max |", "|---|---|---|---|---|")
DISPLAYS = {"window": "desktop window", "web": "web viewer"}
GLASS_ROWS = {
    "seen_ms": "due to seen",
    "at_least_ms": "due to seen, at least",
    "display_ms": "of that: received to seen",
}
SHOWN_ROWS = {
    "latency_ms": "due to received by a client",
    "stages_ms/shown": "stage shown: received by the viewer's relay to drawn",
    "latency_shown_ms": "due to shown",
}


def glass_table(reports: dict[str, dict[str, Any]]) -> list[str]:
    """What `bench glass` saw of the desktop window and the web viewer, in ms, and under what.

    Args:
        reports: Every report by its file's name; those shown here begin with `glass-`.

    Raises:
        BenchError: There is none.
    """
    found = [report for name, report in reports.items() if name.startswith("glass-") and "seen_ms" in report]
    if not found:
        raise BenchError(
            f"needed {RESULTS}/glass-*.json, got none; run: contrastream bench glass screen --out it"
        )
    rows, under = [], []
    for report in found:
        name, work, codes = report["display"]["name"], report["workload"], report["codes"]
        kind = DISPLAYS.get(report["display"]["kind"], name)
        rows += _rows(report, {path: f"{kind}: {label}" for path, label in GLASS_ROWS.items()})
        under.append(
            f"- {name}: target {work['columns']} x {work['rows']} at {work['rate_hz']:g} per second, engine "
            f"{report['engine']['backend'] or 'off'}, seen by {report['camera']['name']} of {report['camera']['columns']} x "
            f"{report['camera']['rows']} every {number(report['capture_interval_ms']['p50'])} ms; {codes['seen']} of {codes['due']} frames "
            f"seen, {codes['refused']} of {codes['captures']} captures refused; {_beside(report)}"
        )
    return [*HEAD, *rows, "", *under]


def shown_table(reports: dict[str, dict[str, Any]]) -> list[str]:
    """What `bench live --shown` measured, in ms, and under what.

    Args:
        reports: Every report by its file's name; the one shown here is `live-shown.json`.

    Raises:
        BenchError: It is not there.
    """
    if (report := reports.get("live-shown.json")) is None:
        raise BenchError(
            f"needed {RESULTS / 'live-shown.json'}, got none; run: contrastream bench live --rate 30 --shown --out it"
        )
    work, frames, shown = report["workload"], report["frames"], report["shown"]
    return [
        *HEAD,
        *_rows(report, SHOWN_ROWS),
        "",
        f"{_of(work, report['engine'])} at {work['rate_hz']:g} per second, {work['frames']:,} frames after {work['warmup']} to warm up; "
        f"{shown['browser']}; {frames['synthesized']:,} of {frames['due']:,} frames SYNTHETIC, {shown['not_drawn']} not drawn; the page's clock "
        f"known within {number(shown['uncertainty_ms'])} ms from {shown['exchanges']} exchanges; {_beside(report)}",
    ]


def _rows(report: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """Some of a report's figures, each by its place in it."""
    lines = []
    for path, label in labels.items():
        summary = report
        for step in path.split("/"):
            summary = summary[step]
        lines.append(f"| {label} | {' | '.join(number(summary[key]) for key in QUANTILES)} |")
    return lines


def _beside(report: dict[str, Any]) -> str:
    return (
        f"{_machine(report['machine'])}; other processes (X server and browser among them) held {_percent(report['others_share'])} of the cores, longest stall of a "
        f"process that only sleeps {number(report['witness_ms'])} ms"
    )


def all_table(reports: dict[str, dict[str, Any]]) -> list[str]:
    """A row for every report: what was measured, what came out, and where the whole of it is."""
    lines = ["| report | what | figures | machine |", "|---|---|---|---|"]
    for name, report in sorted(reports.items()):
        said = SAYINGS.get(workload_name(report))
        if said is None:
            raise BenchError(
                f"needed a report of {', '.join(SAYINGS)}, got {workload_name(report)} in {name}"
            )
        what, figures = said(report)
        if not report.get("complete", True):
            what = f"INCOMPLETE: {what}"
        lines.append(
            f"| [{name.removesuffix('.json')}](results/{name.replace('.json', '.md')}) | {what} | {figures} | "
            f"{_machine(report['machine'])} |"
        )
    return lines


def _machine(machine: dict[str, Any]) -> str:
    line = one_line(machine)
    return line.replace("no GPU seen, ", "")


def _of(work: dict[str, Any], engine: dict[str, Any]) -> str:
    size = (
        f" {work['rows']} x {work['columns']}"
        if work.get("rows")
        else f" {work['size']}"
        if work.get("size")
        else ""
    )
    named = (
        f", {engine['backend']} {engine['precision']} {(engine.get('model_sha256') or '')[:8]}"
        if engine.get("backend")
        else ""
    )
    return f"{work['source']}{size}{named}"


def _say_live(report: dict[str, Any]) -> tuple[str, str]:
    runs = report.get("runs") or [report]
    what = f"live path, {_of(runs[0]['workload'], runs[0]['engine'])}, {runs[0]['workload']['frames']} frames a rate"
    said = []
    for run in runs:
        latency, ratio = run["latency_ms"], (run["floor"] or {}).get("ratio") or {}
        said.append(
            f"{run['workload']['rate_hz']:g}/s: p50 {number(latency['p50'])}, p99 {number(latency['p99'])} ms, "
            f"{_percent(run['frames']['inferred_in_time_share'])} in time, rest {number(ratio.get('value'))} x floor"
        )
    return what, "; ".join(said)


def _say_engine(report: dict[str, Any]) -> tuple[str, str]:
    serial = report["serial_ms"]
    return (
        f"engine alone, {_of(report['workload'], report['engine'])}",
        f"serial p50 {number(serial['p50'])}, p99 {number(serial['p99'])} ms; saturated {number(report['saturated_fps'])}/s; "
        f"serial {number(report['serial_median_times_least'])} x what these cores need at least in fp32",
    )


def _say_transport(report: dict[str, Any]) -> tuple[str, str]:
    rows = report["rows"]
    said = []
    for row in rows:
        ratio = row["floor_ratio"] or {}
        said.append(
            f"{row['rows']} {row['client']}: p50 {number(row['latency_ms']['p50'])}, p99 {number(row['latency_ms']['p99'])} ms, "
            f"{number(ratio.get('value'))} x floor, saturated {row['saturated']['fps']:.0f}/s"
        )
    return f"no engine, {rows[0]['rate_hz']:g}/s, client on the wire or in memory", "; ".join(said)


def _say_scale(report: dict[str, Any]) -> tuple[str, str]:
    work = report["workload"]
    said = [
        # A step that does not keep up sends live pictures, whose latency is no figure of the drawing.
        f"{step['streams']}: {_percent(step['least_in_time_share'])} in time"
        + (f", p50 {number(step['worst_p50_ms'])} ms" if step["keeps_up"] else "")
        for step in report["steps"]
    ]
    limit = "" if report["limit_found"] else " (limit not found)"
    return (
        f"streams at {work['rate_hz']:g}/s on one engine, {_of(work, report['engine'])}",
        f"{report['streams_kept_up']} kept up{limit}; " + "; ".join(said),
    )


def _say_soak(report: dict[str, Any]) -> tuple[str, str]:
    work, client = report["workload"], report["client"]
    verdicts = [row["verdict"] for row in report["drift"]]
    rising = [row["name"] for row in report["drift"] if row["verdict"] == "RISES"]
    return (
        f"soak, {_of(work, report['engine'])}, "
        + ("time compressed, lossless" if work["compressed"] else f"{work['rate_hz']:g}/s"),
        f"{client['frames']:,} frames, {client['lost']} lost, {report['unaccounted']} unaccounted for; "
        f"p50 {number(client['latency_ms'].get('p50'))} ms from {work['latency_from'].partition(':')[0]}; {verdicts.count('flat')} of "
        f"{len(verdicts)} figures flat, rising: {', '.join(rising) or 'none'}",
    )


def _say_peers(report: dict[str, Any]) -> tuple[str, str]:
    work = report["workload"]
    said = [
        f"{name} p50 {number(each['latency_ms']['p50'])} ms" for name, each in report["contestants"].items()
    ]
    for name, ratio in report["ours_to_others"].items():
        p50 = ratio["p50"]
        if p50["value"] is not None and p50["low"] is not None:
            said.append(f"ours to {name} {p50['value']:.2f} ({p50['low']:.2f} to {p50['high']:.2f})")
    return (
        f"peers at {work['rate_hz']:g}/s, {_of(work, report['engine'])}, {work['rounds_measured']} rounds in turns",
        "; ".join(said),
    )


def _say_glass(report: dict[str, Any]) -> tuple[str, str]:
    what = f"glass: {report['display']['name']}, seen by {report['camera']['kind']}"
    said = []
    if (seen := report.get("seen_ms")) is not None:
        codes = report["codes"]
        said.append(
            f"due to seen p50 {number(seen['p50'])}, p99 {number(seen['p99'])}, max {number(seen['max'])} ms, each known within "
            f"{number(report['uncertainty_ms']['p50'])} ms (p50); {codes['seen']} of {codes['due']} frames seen"
        )
    if (difference := report.get("difference_ms")) is not None:
        said.append(f"original to copy {number(difference['mean'])} ms (mean of {difference['n']})")
    return what, "; ".join(said)


def _say_patient_swap(report: dict[str, Any]) -> tuple[str, str]:
    engine, making = report["engine"], report["phases"]["being made ready"]
    without = making["frames"] - making["states"].get("SYNTHETIC", 0)
    return (
        f"a stream takes a patient's adaptation over and gives it up, {report['rate_hz']:g}/s, {engine['backend']} {engine['precision']} "
        f"{engine['model_sha256'][:8]}",
        f"{report['client']['received']:,} frames received, {report['client']['lost']} lost; ready in "
        f"{number(report['adaptation']['ready_ms'] / 1000)} s, {without} of {making['frames']} frames without overlay meanwhile",
    )


SAYINGS: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "live": _say_live,
    "engine": _say_engine,
    "transport": _say_transport,
    "scale": _say_scale,
    "soak": _say_soak,
    "peers": _say_peers,
    "glass": _say_glass,
    "patient-swap": _say_patient_swap,
}
TABLES: dict[str, Callable[[dict[str, dict[str, Any]]], list[str]]] = {
    "live": live_table,
    "glass": glass_table,
    "shown": shown_table,
    "all": all_table,
}


def filled(text: str, reports: dict[str, dict[str, Any]]) -> str:
    """A page with its blocks made anew.

    Raises:
        BenchError: A block has a name that there is no table for, or a report is missing.
    """

    def fill(block: re.Match[str]) -> str:
        if block[2] not in TABLES:
            raise BenchError(f"needed a block named {' or '.join(TABLES)}, got {block[2]}")
        return block[1] + "\n".join(TABLES[block[2]](reports)) + "\n" + block[3]

    return BLOCK.sub(fill, text)


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Every report of a folder by its file's name."""
    return {path.name: read_report(path) for path in sorted(folder.glob("*.json"))}


def main(arguments: list[str]) -> int:
    """Entry point: 0, 1 where `--check` finds a page that is not what the reports say, 2 for a report that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m bench.results_table", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 where a page would change"
    )
    check = parser.parse_args(arguments).check
    stale = []
    try:
        reports = read_results()
        for page in PAGES:
            before = page.read_text(encoding="utf-8")
            after = filled(before, reports)
            if after != before:
                stale.append(page)
                if not check:
                    write_text(page, after)
    except BenchError as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 2
    for page in stale:
        print(f"{page}: {'is not what bench/results says' if check else 'made anew'}", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
