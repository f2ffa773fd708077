"""`bench peers` for people: a table for a terminal, one in Markdown, and the page's. No numpy, no measuring."""

from typing import Any

from bench.contestant import KINDS
from bench.machine import one_line

HEADS = (
    "contestant",
    "n",
    "p50",
    "p95",
    "p99",
    "engine p50",
    "rest p50",
    "CPU ms/frame",
    "lost",
    "live only",
    "p50 ratio (95 %)",
    "verdict",
)


def _number(value: Any, form: str = ".2f") -> str:
    return "-" if value is None else value if isinstance(value, str) else format(value, form)


def _ratio_text(ratio: dict[str, Any] | None) -> str:
    if ratio is None or ratio["value"] is None:
        return "-"
    interval = "" if ratio["low"] is None else f" ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return f"{ratio['value']:.2f}{interval}"


def table_rows(report: dict[str, Any]) -> list[list[str]]:
    """The table's cells, a row for each contestant in the order of their turns, the missing ones with a reason."""
    rows = []
    for kind in KINDS:
        seen = report["contestants"].get(kind.name)
        if seen is None:
            reason = report["skipped"].get(kind.name, "not reached")
            rows.append([kind.title, f"left out: {reason}"])
            continue
        ratio = seen["p50_ratio"]
        is_baseline = kind.name == report["baseline"]
        rows.append(
            [
                kind.title,
                str(seen["frames"]),
                *(_number(seen["latency_ms"][name]) for name in ("p50", "p95", "p99")),
                _number(seen["engine_ms"]["p50"]),
                _number(seen["outside_engine_ms"]["p50"]),
                _number(seen["cpu_ms_per_frame"]),
                str(seen["lost"]),
                str(seen["live_only"]),
                "1 (the others' measure)" if is_baseline else _ratio_text(ratio),
                "-" if is_baseline else "cannot tell" if ratio is None else ratio["verdict"],
            ]
        )
    return rows


def _conditions(report: dict[str, Any]) -> list[str]:
    work, engine = report["workload"], report["engine"] or {}
    return [
        f"machine: {one_line(report['machine'])}",
        f"frames: {work['source']} {work['rows']} x {work['columns']}, {work['bits_stored']} bits, "
        f"{work['distinct_frames']} distinct in a loop, {work['rate_hz']:g} per second, {work['frames_measured']} measured of each in "
        f"{work['rounds_measured']} of {work['rounds']} rounds",
        f"engine: {engine.get('backend')} {engine.get('precision')} {(engine.get('model_sha256') or '')[:8]}, "
        f"{'taught' if engine.get('taught') else 'untaught (planes are inferred but not sent, by nobody)'}, "
        f"threads {work['threads'] or 'as the runtime chooses'}, the same for each; same bytes received: "
        f"{ {True: 'yes', False: 'NO', None: 'not compared'}[report['same_planes']] }",
        f"machine during the rounds: {_percent(report['steal_share'])} stolen by the host, "
        f"{_percent(report['others_share'])} used by anything but the contestant whose turn it was; longest stall of a witness "
        f"{_number(report['witness_ms'], '.1f')} ms",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def settings(report: dict[str, Any]) -> list[str]:
    """How each contestant was set, with its versions."""
    return [
        f"{name}: {seen['settings']} ({', '.join(f'{key} {value}' for key, value in seen['versions'].items())})"
        for name, seen in report["contestants"].items()
    ]


def closing(report: dict[str, Any]) -> list[str]:
    """What the figures say, a sentence each."""
    lines = []
    for name, ratios in report["ours_to_others"].items():
        p50, p99 = ratios["p50"], ratios["p99"]
        told = "" if p99 is None else f"; p99 {_ratio_text(p99)}, {p99['verdict']}"
        lines.append(f"contrastream to {name}: p50 {_ratio_text(p50)}, {p50['verdict']}{told}")
    if (price := report["isolation"]) is not None:
        lines.append(
            f"price of isolation (contrastream minus raw pyzmq): p50 {_number(price['p50_ms'], '+.2f')} ms, of it "
            f"{_number(price['outside_engine_p50_ms'], '+.2f')} outside the engine and "
            f"{_number(price['engine_p50_ms'], '+.2f')} in it; CPU {_number(price['cpu_ms_per_frame'], '+.2f')} ms per frame"
        )
    for name, seen in report["contestants"].items():
        if seen["live_only"]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in seen["live_only_reasons"].items())
            lines.append(f"{name}: {seen['live_only']} frames live only: {reasons}")
    for row in report["targets"]:
        met = {True: "met", False: "MISSED", None: "cannot tell"}[row["met"]]
        why = f" ({row['why_not_measured']})" if row["why_not_measured"] else ""
        lines.append(f"{met}: {row['name']} {row['needed']}, got {_number(row['value'])}{why}")
    return lines


NOTES = (
    "ms; lost and live-only frames count as later than any other. p99 wants 1,000 frames. Live only: the live picture was "
    "sent at its deadline, without synthesis; only contrastream has a deadline. CPU: all processes of a contestant, its "
    "client included. Intervals resample stretches of 50 frames; turns are not at the same time, so few and long ones "
    "(200 frames in 5 rounds) make them too narrow. Research tool, not a medical device."
)


def format_peers(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    rows = [list(HEADS), *table_rows(report)]
    widths = [max(len(row[column]) for row in rows if len(row) > 2) for column in range(len(HEADS))]
    widths[0] = max(len(row[0]) for row in rows)

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if column in (0, len(HEADS) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        return "  ".join([row[0].ljust(widths[0]), row[1]] if len(row) == 2 else cells).rstrip()

    return "\n".join(
        [
            *([] if report["complete"] else ["INCOMPLETE: stopped before its end"]),
            *_conditions(report),
            "",
            *(line(row) for row in rows),
            "",
            *settings(report),
            "",
            *closing(report),
            NOTES,
        ]
    )


def peers_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    rows = [row + [""] * (len(HEADS) - len(row)) for row in table_rows(report)]
    return "\n".join(
        [
            "# The same work done by what people use instead",
            "",
            *([] if report["complete"] else ["INCOMPLETE: stopped before its end", ""]),
            *(f"- {line}" for line in _conditions(report)),
            "",
            f"| {' | '.join(HEADS)} |",
            f"|{'---|' * len(HEADS)}",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(f"- {line}" for line in (*settings(report), *closing(report))),
            "",
            NOTES,
            "",
        ]
    )
