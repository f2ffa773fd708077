"""A report of `bench live` as a short table for a terminal."""

from typing import Any

import numpy as np

from bench.machine import one_line
from bench.shown_report import shown_line
from stream.gpu import GPU_BACKENDS
from stream.latency import summarize_ms


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _row(name: str, summary: dict[str, Any] | None) -> str:
    summary = summary or summarize_ms(np.zeros(0))
    keys = ("p50", "p95", "p99", "max")
    return f"  {name:34}{summary['n']:>7}" + "".join(f"{_number(summary[key]):>9}" for key in keys)


def _gpu(when: str, said: dict[str, Any]) -> str:
    """What the GPU did in one part of a run, in one line."""
    gpu = said["gpu"]
    if gpu is None:
        return f"gpu      {when}: {said['why']}"
    names = {
        "sm_mhz": "MHz",
        "temperature_c": "°C",
        "power_w": "W",
        "busy_percent": "% busy",
        "memory_used_mib": "MiB",
    }
    figures = [
        f"{gpu[name]['min']:.0f} to {gpu[name]['max']:.0f} {unit}"
        for name, unit in names.items()
        if name in gpu
    ]
    slowed = [f"{word} {count}x" for word, count in gpu["throttled_readings"].items() if word != "idle"]
    return f"gpu      {when}: {', '.join(figures)} in {gpu['readings']} readings; slowed by {', '.join(slowed) or 'nothing'}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _sized(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def format_table(report: dict[str, Any]) -> str:
    """The report as a short table for a terminal."""
    work, engine, frames, floor = (report[key] for key in ("workload", "engine", "frames", "floor"))
    head = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload {work['source']} {work['rows']}x{work['columns']}, {work['bits_stored']} bits, "
        f"{work['rate_hz']:g} per second, {work['frames']} frames after {work['warmup']} to warm up",
        f"engine   {engine['backend'] or 'none'} {engine['precision'] or ''} {(engine['model_sha256'] or '')[:8]}"
        + (" (UNTAUGHT: inferred but not sent as synthetic)" if engine["taught"] is False else ""),
        *(_gpu(when, said) for when, said in report["gpu"].items() if engine["backend"] in GPU_BACKENDS),
        f"frames   {frames['due']} due, {frames['grabbed']} grabbed, {frames['published']} published, "
        f"{frames['received']} received; {frames['synthesized']} SYNTHETIC, PASSTHROUGH "
        f"{frames['passthrough'] or 'none'}, {frames['repeated']} repeats, dropped {frames['dropped'] or 'none'}; "
        f"{_number(report['fps'])} per second",
        f"stolen   {_percent(report['steal_share'])} of the cores by the host, {_percent(report['others_share'])} by "
        "other processes; "
        f"witness gap {_number(report['witness_ms'], '.1f')} ms; {report['late']['past_deadline']} pictures past the "
        f"deadline, {report['late']['count']} past {_number(report['late']['limit_ms'], '.1f')} ms",
        "",
        f"{'  ms':36}{'n':>7}" + "".join(f"{name:>9}" for name in ("p50", "p95", "p99", "max")),
        _row("end to end, due to received", report["latency_ms"]),
        _row("  of inferred frames", report["latency_inferred_ms"]),
    ]
    if "latency_shown_ms" in report:
        head.append(_row("due to shown by the web viewer", report["latency_shown_ms"]))
    body = [_row(f"  {name}", summary) for name, summary in report["stages_ms"].items()]
    for when, summary in engine["serial_ms"].items():
        body.append(_row(f"engine alone, serial, {when}", summary))
    if engine["paced_alone_ms"] is not None:
        body.append(_row("engine alone, paced", engine["paced_alone_ms"]))
    if floor is not None:
        body.append(_row("all but the engine, floor beside", floor["pipeline_ms"]))
        body.append(_row("all but the engine, no floor beside", floor["pipeline_without_floor_beside_ms"]))
        body.append(_row("floor beside the pipeline", floor["floor_ms"]))
        for name, summary in (floor["floor_stages_ms"] or {}).items():
            body.append(_row(f"  {name}", summary))
        for when, summary in floor["floor_alone_ms"].items():
            body.append(_row(f"floor alone, {when}", summary))
        if (ratio := floor["ratio"]) is not None:
            body.append(
                f"  ratio to the floor beside {_number(ratio['value'])} "
                f"(95 % interval {_number(ratio['low'])} to {_number(ratio['high'])}, {ratio['chunks']} chunks); "
                f"to the floor alone {_number((floor['ratio_to_floor_alone'] or {}).get('value'))}"
            )
    uses = [
        f"  {name:8} {_number(used['cpu_ms_per_frame'])} ms CPU per frame, "
        f"{_number(used['minor_faults_per_frame'], '.3f')} faults per frame, "
        f"{_number(used['resident_mib'], '.1f')} MiB resident, "
        f"{_number(used['resident_kib_per_1000_frames'], '+.1f')} KiB resident and "
        f"{_number(used['anonymous_kib_per_1000_frames'], '+.1f')} KiB anonymous per 1000 frames"
        for name, used in report["processes"].items()
    ]
    verdicts = [
        f"  {'?' if row['met'] is None else 'met' if row['met'] else 'MISSED':7}{row['name']}: "
        f"{_sized(row['value'])} (needed {row['needed']})"
        for row in report["targets"]
    ]
    if (shown := report.get("shown")) is not None:
        body.append(shown_line(shown))
    tail = ["p99 wants 1,000 frames, p99.9 10,000. Research tool, not a medical device."]
    return "\n".join([*head, *body, "", *uses, "", *verdicts, *tail]).lstrip("\n")


def format_rates(report: dict[str, Any]) -> str:
    """Several rates as a table: a row each."""
    first = report["runs"][0]
    work, engine = first["workload"], first["engine"]
    lines = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload {work['source']} {work['rows']}x{work['columns']}, {work['bits_stored']} bits, "
        f"{work['frames']} frames a rate after {work['warmup']} to warm up",
        f"engine   {engine['backend'] or 'none'} {engine['precision'] or ''} {(engine['model_sha256'] or '')[:8]}"
        + (" (UNTAUGHT: inferred but not sent as synthetic)" if engine["taught"] is False else ""),
        "",
        f"{'':>10}{'':>8}{'in time':>9}{'':>7}|{'pacing error, ms':^24}|{'due to received, ms':^33}|"
        f"{'engine':>8}{'the rest':>10}{'x floor':>9}|{'':>6}{'host':>7}{'gap':>8}",
        f"{'per second':>10}{'fps':>8}{'share':>9}{'drops':>7}|{'p50':>8}{'p99':>8}{'max':>8}|"
        f"{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8} |{'p50':>8}{'p50':>10}{'':>9}|{'late':>6}{'steal':>7}{'ms':>8}",
    ]
    for row in report["rows"]:
        pacing, latency = row["pacing_ms"], row["latency_ms"]
        lines.append(
            f"{row['rate_hz']:>10g}{_number(row['fps']):>8}{_percent(row['inferred_in_time_share']):>9}{row['dropped']:>7}|"
            + "".join(f"{_number(pacing[key]):>8}" for key in ("p50", "p99", "max"))
            + "|"
            + "".join(f"{_number(latency[key]):>8}" for key in ("p50", "p95", "p99", "max"))
            + f" |{_number(row['engine_ms']['p50']):>8}{_number((row['overhead_ms'] or {}).get('p50')):>10}"
            f"{_number((row['floor_ratio'] or {}).get('value')):>9}|"
            f"{row['late'] if row['late'] is not None else '-':>6}{_percent(row['steal_share']):>7}"
            f"{_number(row['witness_ms'], '.1f'):>8}"
        )
    if any("latency_shown_ms" in row for row in report["rows"]):
        lines += [
            "",
            f"{'per second':>10} due to shown by the web viewer, ms: p50, p95, p99, max; stage shown p50",
        ]
    for row, run in zip(report["rows"], report["runs"], strict=True):
        if (shown := row.get("latency_shown_ms")) is not None:
            figures = "".join(f"{_number(shown[key]):>8}" for key in ("p50", "p95", "p99", "max"))
            lines.append(
                f"{row['rate_hz']:>10g}{figures}{_number(run['stages_ms']['shown']['p50']):>8}{shown_line(run['shown'])}"
            )
    lines += [
        "",
        "pacing error: grabbed - due. the rest: due to received without the engine; x floor: times bare processes with the",
        "same hops, bytes and planes in the same run. late: past deadline + witness gap. gap: longest of the witness thread.",
        "p99 wants 1,000 frames. Research tool, not a medical device.",
    ]
    return "\n".join(lines).lstrip("\n")
