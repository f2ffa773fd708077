"""A report as a Markdown table, for a change, a README or an issue."""

from typing import Any

from bench.machine import one_line
from bench.peers_table import peers_markdown
from bench.summaries import (
    COLUMNS,
    DRIFT_HEAD,
    condition_rows,
    drift_rows,
    flat_rows,
    heading,
    number,
    parts,
    summary_rows,
    workload_name,
)

NOTICE = 'p99 wants 1,000 frames, p99.9 wants 10,000; "-" stands where there are fewer. Research tool, not a medical device.'


def markdown(document: dict[str, Any]) -> str:
    """The machine and the conditions, then the figures in ms, the worst frames and the targets.

    Args:
        document: A report, or several in its `runs`.
    """
    if "contestants" in document:
        return peers_markdown(document)
    name = workload_name(document)
    lines = [f"# contrastream bench {name}".rstrip(), ""]
    if not document.get("complete", True):
        lines += ["**INCOMPLETE: stopped before its end.**", ""]
    if "machine" in document:
        lines += [f"Machine: {one_line(document['machine'])}", ""]
    for report in parts(document):
        lines += _measurement(report, alone=report is document)
    for row in document.get("rows") or []:
        if "saturated" in row:
            figures = ", ".join(f"{name} {value}" for name, value in flat_rows(row["saturated"]))
            lines += [f"Saturated, no frame lost, {heading(row['paced'])}: {figures}", ""]
    return "\n".join([*lines, NOTICE, ""])


def _measurement(report: dict[str, Any], *, alone: bool) -> list[str]:
    lines: list[str] = []
    if not alone:
        lines += [f"## {heading(report)}", ""]
        if not report.get("complete", True):
            lines += ["**INCOMPLETE: stopped before its end.**", ""]
    lines += [f"- {name}: {_cell(value)}" for name, value in condition_rows(report)]
    if (frames := report.get("frames")) and "due" in frames:
        lines.append(
            f"- frames: {frames['due']} due, {frames['grabbed']} grabbed, {frames['published']} published, "
            f"{frames['received']} received; {frames['synthesized']} SYNTHETIC, PASSTHROUGH "
            f"{_counts(frames['passthrough'])}, {frames['repeated']} repeats, dropped {_counts(frames['dropped'])}, "
            f"{frames['unexplained']} lost unexplained; {number(report.get('fps'))} per second"
        )
    lines += ["", _row(["ms", *COLUMNS]), _row(["---", *(["---:"] * len(COLUMNS))])]
    lines += [_row(row) for row in summary_rows(report)]
    if drift := drift_rows(report):
        lines += ["", _row([*DRIFT_HEAD]), _row(["---", "---:", "---:", "---:", "---"]), *map(_row, drift)]
    if worst := report.get("worst"):
        stages = list(worst[0]["stages_ms"])
        lines += ["", "Worst frames, ms:", "", _row(["frame", "at s", "state", "latency", *stages])]
        lines.append(_row(["---:", "---:", "---", "---:", *(["---:"] * len(stages))]))
        lines += [_row(worst_row(each)) for each in worst]
    if targets := report.get("targets"):
        lines += ["", _row(["target", "needed", "measured", "met"]), _row(["---", "---", "---:", "---"])]
        lines += [
            _row([each["name"], each["needed"], number(each["value"]), met(each["met"])]) for each in targets
        ]
    return [*lines, ""]


def worst_row(frame: dict[str, Any]) -> list[str]:
    """One of the worst frames as a table's row."""
    state = frame["state"].upper() + (f" ({frame['reason']})" if frame["reason"] != "none" else "")
    return [
        str(frame["sequence"]),
        f"{frame['at_s']:.2f}",
        state,
        number(frame["latency_ms"]),
        *(number(value) for value in frame["stages_ms"].values()),
    ]


def met(value: bool | None) -> str:
    """Whether a target was met."""
    return "cannot tell" if value is None else "met" if value else "MISSED"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"
