"""Finds what every report holds, whatever was measured: summaries in ms, machine, conditions. No numpy, no drawing."""

from collections.abc import Iterator
from typing import Any

SUMMARY_KEYS = {"n", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"}
"""What makes a summary; one out of a histogram has no sd."""
COLUMNS = ("n", "p50", "p90", "p95", "p99", "p99.9", "max", "sd")
NAMES = {
    "seen_ms": "due to seen, the stamp of the first capture that shows it",
    "at_least_ms": "due to seen, at least",
    "at_most_ms": "due to seen, at most",
    "uncertainty_ms": "due to seen, known within",
    "difference_ms": "original to copy in one picture, no clock needed",
    "latency_ms": "end to end, due to received",
    "display_ms": "received by another client to seen",
    "capture_interval_ms": "from capture to capture",
    "latency_shown_ms": "due to shown by the web viewer",
    "latency_inferred_ms": "end to end, frames inferred in time",
    "coordinated_omission/latency_ms": "end to end, frames that never came filled in",
    "pacing_ms": "pacing error, due to grabbed",
    "stages_ms/grab": "stage grab, due to grabbed",
    "stages_ms/submit": "stage submit, grabbed to submitted",
    "stages_ms/engine": "stage engine, submitted to inferred",
    "stages_ms/guard": "stage guard, inferred to published",
    "stages_ms/transport": "stage transport, published to received",
    "stages_ms/shown": "stage shown, received by the web viewer's relay to drawn by its page",
    "engine/serial_ms": "engine alone, serial",
    "engine/serial_ms/before": "engine alone, serial, before",
    "engine/serial_ms/after": "engine alone, serial, after",
    "engine/paced_alone_ms": "engine alone, paced",
    "engine/in_pipeline_ms": "engine in the pipeline",
    "floor/pipeline_ms": "all but the engine, floor beside",
    "floor/pipeline_without_floor_beside_ms": "all but the engine, no floor beside",
    "floor/floor_ms": "floor beside the pipeline",
    "contestants/ours/latency_whole_ms": "contrastream, due to received",
    "contestants/loop/latency_whole_ms": "plain loop, due to received",
    "contestants/holoscan/latency_whole_ms": "Holoscan, due to received",
}
"""Of the figures that people read most; another is called by its place in the report."""


def label(path: str) -> str:
    """A figure's name for people; a place in a list counts from 1."""
    steps = [str(int(step) + 1) if step.isdigit() else step for step in path.split("/")]
    return NAMES.get(path) or ", ".join(steps).replace("_ms", "").replace("_", " ")


def parts(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The measurements of a report: itself, the `runs` that it joins, or the `paced` one of each of its rows."""
    runs = document.get("runs")
    if runs is None and (rows := document.get("rows")):
        runs = [row.get("paced") for row in rows]
    if isinstance(runs, list) and runs and all(isinstance(run, dict) for run in runs):
        return list(runs)
    return [document]


def heading(report: dict[str, Any]) -> str:
    """What one measurement of several is called."""
    work = report.get("workload") or {}
    client = ", client in memory" if work.get("client") == "memory" else ""
    return f"{work.get('rows')} x {work.get('columns')}, {work.get('rate_hz') or 0:g} per second{client}"


def workload_name(document: dict[str, Any]) -> str:
    """What was measured, as `contrastream bench` calls it."""
    # "contrastream.bench.transport/1": a report of several measurements is named by its schema, if by anything.
    family = str(document.get("schema", "")).rpartition("/")[0].removeprefix("contrastream.bench.")
    joined = family if family in ("transport", "scale", "engine", "soak", "peers", "patient-swap") else ""
    return joined or str((parts(document)[0].get("workload") or {}).get("name", ""))


def _item(index: int, value: Any) -> str:
    """What an item of a list is called: by how many streams it was measured with, else by its place."""
    if not isinstance(value, dict) or "streams" not in value:
        return str(index)
    # Live pictures wait for nobody, so their latency is small, and none of the drawing.
    return f"{value['streams']} streams" + (
        "" if value.get("keeps_up", True) else " (not kept up, live pictures)"
    )


def summaries(report: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every summary in a report with its place ("stages_ms/engine"), in its order; empty ones too."""
    if isinstance(report, dict):
        if report.keys() >= SUMMARY_KEYS:
            yield path, report
            return
        for name, value in report.items():
            if name not in ("runs", "windows"):  # a run's own tables; a soak's windows are plotted
                yield from summaries(value, f"{path}/{name}" if path else str(name))
    elif isinstance(report, list):
        for index, value in enumerate(report):
            yield from summaries(value, f"{path}/{_item(index, value)}")


def number(value: Any) -> str:
    """A figure of a table: "-" for none, counts whole, ms with three digits that count."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def summary_rows(report: dict[str, Any]) -> list[list[str]]:
    """The rows of the figures' table: name and `COLUMNS`, what people ask for first; empty summaries are left out."""
    first = list(NAMES)
    found = [(path, summary) for path, summary in summaries(report) if summary["n"]]
    found.sort(key=lambda each: first.index(each[0]) if each[0] in first else len(first))
    return [[label(path), *(number(summary.get(key)) for key in COLUMNS)] for path, summary in found]


def machine_rows(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """The machine block, for a table."""
    cpu = machine.get("cpu", {})
    gpus = ", ".join(f"{gpu['name']} (driver {gpu['driver']})" for gpu in machine.get("gpus") or [])
    load = machine.get("load_average") or []
    return [
        (
            "CPU",
            f"{cpu.get('cores')} cores of {cpu.get('model')}, {' '.join(cpu.get('flags', [])) or 'no AVX2'}",
        ),
        ("virtual", "yes" if cpu.get("hypervisor") else "no"),
        ("frequency governor", str(cpu.get("governor") or "not shown by this machine")),
        (
            "memory",
            f"{machine.get('memory_gib')} GiB, {machine.get('memory_available_gib')} GiB free before the run",
        ),
        ("GPU", gpus or f"none seen: {machine.get('why_no_gpu')}"),
        ("system", f"{machine.get('system')} {machine.get('kernel')}, Python {machine.get('python')}"),
        ("priority", str(machine.get("scheduling"))),
        ("load before the run", ", ".join(str(each) for each in load) + " (1, 5, 15 minutes)"),
        (
            "packages",
            ", ".join(f"{name} {version}" for name, version in (machine.get("packages") or {}).items()),
        ),
    ]


def condition_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Under what a report was measured: workload, engine, what the machine did meanwhile. What is absent is left out."""
    work, engine = report.get("workload") or {}, report.get("engine") or {}
    rows: list[tuple[str, Any]] = [("workload", work.get("name")), ("source", work.get("source"))]
    if work.get("rows"):
        bits = f", {work['bits_stored']} bits" if work.get("bits_stored") else ""
        rows.append(("frame", f"{work['rows']} x {work['columns']}{bits}"))
    if work.get("compressed"):
        rows.append(("rate", "as fast as they go without a loss"))
    elif work.get("rate_hz"):
        rows.append(("rate", f"{work['rate_hz']:g} per second; {work.get('pacing', '')}".rstrip("; ")))
    rows.append(("latency from", work.get("latency_from")))
    if work.get("client"):
        rows.append(("client", {"wire": "over ZeroMQ", "memory": "in shared memory"}[work["client"]]))
    if work.get("frames"):
        warmed = f" measured after {work['warmup']} to warm up" if "warmup" in work else ""
        rows.append(("frames", f"{work['frames']}{warmed}"))
    rows.append(("left out", (report.get("left_out") or {}).get("how")))
    if engine.get("backend"):
        taught = " (UNTAUGHT: inferred but not sent as synthetic)" if engine.get("taught") is False else ""
        named = (
            f"{engine['backend']}, {engine.get('precision')}, model {(engine.get('model_sha256') or '')[:12]}"
        )
        rows.append(("engine", named + taught))
        rows += [("passed over", f"{name}: {why}") for name, why in engine.get("skipped") or []]
    if (shown := report.get("shown")) is not None:
        known = f"the page's clock known within {number(shown['uncertainty_ms'])} ms from {shown['exchanges']} exchanges"
        rows += [
            ("shown by", shown["browser"]),
            ("stage shown", f"{shown['how']}; {known}"),
            ("frames shown", f"{shown['drawn']} drawn, {shown['not_drawn']} not"),
        ]
    rows += glass_rows(report)
    others = report.get("others_share")
    if report.get("steal_share") is not None:
        rows.append(
            (
                "cores taken",
                f"{100 * report['steal_share']:.1f} % by the host"
                + (f", {100 * others:.1f} % by other processes" if others is not None else ""),
            )
        )
    if report.get("witness_ms") is not None:
        rows.append(("longest stall", f"{report['witness_ms']:.1f} ms, of a process that only sleeps"))
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def glass_rows(report: dict[str, Any]) -> list[tuple[str, Any]]:
    """With what `bench glass` looked at what, and what became of the codes; nothing for other reports."""
    camera, display = report.get("camera"), report.get("display") or {}
    if camera is None:
        return []
    period_ms = report.get("difference_period_ms")
    return [
        ("display", display.get("name")),
        ("camera", f"{camera['kind']}: {camera['name']}, {camera['columns']} x {camera['rows']}"),
        ("its stamps", camera["stamps"]),
        ("not in it", camera["not_in_it"]),
        ("measured", report.get("how")),
        ("codes", codes_line(report.get("codes") or {})),
        (
            "original to copy",
            None if period_ms is None else f"whole periods of {period_ms:.1f} ms; their mean is the latency",
        ),
        *(("note", note) for note in camera["notes"]),
    ]


def codes_line(codes: dict[str, Any]) -> str:
    """What became of the codes of `bench glass`, in words."""
    if not codes:
        return "none"
    refused = f"{codes['captures']} captures, {codes['refused']} refused (torn, mixed or blurred)"
    if "both_read" in codes:
        return f"{refused}, both codes read in {codes['both_read']}"
    line = f"{codes['due']} due, {codes['seen']} seen, {codes['never_seen']} never seen; {refused}"
    if codes.get("never_seen_but_received"):
        line += f"; {codes['never_seen_but_received']} were never seen though another client received them"
    return line


DRIFT_HEAD = ("drift, per 1,000 frames", "slope", "95 % interval", "limit", "verdict")


def drift_rows(report: dict[str, Any]) -> list[list[str]]:
    """What `bench soak` says of each figure that must stay flat; nothing for other reports."""
    return [
        [
            row["name"],
            number(row["slope"]),
            "-" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}",
            f"{number(row['limit'])} {row['unit']}",
            row["verdict"],
        ]
        for row in report.get("drift") or []
    ]


def frames_of_counters(report: dict[str, Any]) -> dict[str, Any]:
    """What became of a soak's frames, as the reports of `bench live` have it in `frames`; empty for other reports."""
    if "unaccounted" not in report or not (counters := report.get("counters")):
        return {}
    return {
        "due": counters["due"],
        "synthesized": counters["synthetic"],
        "passthrough": counters["passthrough"],
        "repeated": counters["repeated"],
        "dropped": counters["dropped"],
        "unexplained": report["unaccounted"],
    }


def flat_rows(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Numbers and words of a nested mapping that no other table shows, one a row."""
    for name, value in values.items():
        here = f"{path}, {name}" if path else str(name)
        if isinstance(value, dict):
            if not value.keys() >= SUMMARY_KEYS:
                yield from flat_rows(value, here)
        elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from flat_rows(item, f"{here}, {_item(index + 1, item)}")
        elif isinstance(value, int | float | str) or value is None:
            yield here.replace("_", " "), number(value)
