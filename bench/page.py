"""A report as one page: everything is in it, it asks nothing of any network, and it follows light and dark."""

import html
from typing import Any

from bench import plots, soak_plots
from bench.machine import one_line
from bench.markdown import NOTICE, met, worst_row
from bench.peers_table import HEADS, closing, settings, table_rows
from bench.samples import Samples
from bench.summaries import (
    COLUMNS,
    DRIFT_HEAD,
    condition_rows,
    drift_rows,
    flat_rows,
    frames_of_counters,
    heading,
    machine_rows,
    number,
    parts,
    summary_rows,
    workload_name,
)

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2328; --faint: #59636e; --grid: #e4e7eb; --warn: #c62828;
  --pass: #1a7f37; --series-1: #0969da; --series-2: #bc4c00; --series-3: #6639ba; --series-4: #1a7f37;
  --series-5: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e6e8eb; --faint: #9aa4ae; --grid: #2b3138;
  --warn: #ff7b72; --pass: #56d364; --series-1: #58a6ff; --series-2: #f0883e; --series-3: #bc8cff; --series-4: #56d364;
  --series-5: #e3b341; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink); }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.4rem; } h3 { margin-top: 1.8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { font-weight: 600; } td.n, th.n { text-align: right; white-space: nowrap; }
.facts th { font-weight: 400; color: var(--faint); white-space: nowrap; }
.notice { border-left: 4px solid var(--warn); padding-left: .8rem; }
.met { color: var(--pass); } .missed { color: var(--warn); font-weight: 600; }
svg { width: 100%; height: auto; display: block; margin: .6rem 0; }
small, .small { color: var(--faint); font-size: .87rem; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(document: dict[str, Any], samples: list[Samples]) -> str:
    """The machine and the conditions first, then figures, plots, worst frames and targets.

    Args:
        document: A report, or several in its `runs`.
        samples: What each of its measurements keeps, in its order.
    """
    name = workload_name(document)
    title = f"contrastream bench {name}".rstrip()
    body = [f"<h1>{html.escape(title)}</h1>"]
    if not document.get("complete", True):
        body.append(INCOMPLETE)
    if "machine" in document:
        body.append(f"<p>{html.escape(one_line(document['machine']))}</p>")
        body += ["<h2>Machine</h2>", _facts(machine_rows(document["machine"]))]
    measurements = parts(document)
    if len(measurements) > 1:
        body.append(_overview(measurements))
    if any("saturated" in row for row in document.get("rows") or []):
        named = {
            heading(report): row["saturated"]
            for report, row in zip(measurements, document["rows"], strict=True)
        }
        body += ["<h2>Saturated, no frame lost</h2>", _facts(list(flat_rows(named)))]
    for index, (report, kept) in enumerate(zip(measurements, samples, strict=True)):
        body += _measurement(report, kept, index, alone=len(measurements) == 1)
    body.append(f"<p class=small>{html.escape(NOTICE)}</p>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


INCOMPLETE = (
    "<p class=notice><b>INCOMPLETE: this run was stopped before its end.</b> "
    "Its figures hold for the frames it got to, and no more.</p>"
)


def _overview(measurements: list[dict[str, Any]]) -> str:
    rows = []
    for index, report in enumerate(measurements):
        latency, pace, frames = report["latency_ms"], report["pacing_ms"], report["frames"]
        rows.append(
            [
                f"<a href='#m{index}'>{html.escape(heading(report))}</a>",
                *(
                    number(value)
                    for value in (
                        latency["n"],
                        report["fps"],
                        latency["p50"],
                        latency["p99"],
                        latency["max"],
                        pace["p50"],
                        pace["max"],
                        sum(frames["dropped"].values()),
                        sum(frames["passthrough"].values()),
                        frames["unexplained"],
                    )
                ),
            ]
        )
    head = (
        "",
        "n",
        "fps",
        "p50 ms",
        "p99 ms",
        "max ms",
        "pacing p50",
        "pacing max",
        "dropped",
        "passthrough",
        "unexplained",
    )
    return "<h2>Overview</h2>" + _table(head, rows, escaped=True)


def _measurement(report: dict[str, Any], samples: Samples, index: int, *, alone: bool) -> list[str]:
    work = report.get("workload") or {}
    body = []
    if not alone:
        body.append(f"<h2 id=m{index}>{html.escape(heading(report))}</h2>")
        if not report.get("complete", True):
            body.append(INCOMPLETE)
    level = "h2" if alone else "h3"

    def section(title: str, content: str | None) -> None:
        if content:
            body.append(f"<{level}>{title}</{level}>\n{content}")

    section("Conditions", _facts(condition_rows(report)))
    if "contestants" in report:
        section("Contestants, ms", _table(HEADS, table_rows(report)))
        section("What was compared", "".join(f"<p>{html.escape(line)}</p>" for line in settings(report)))
        section("Readings", "".join(f"<p>{html.escape(line)}</p>" for line in closing(report)))
    section("Figures, ms", _table(("", *COLUMNS), summary_rows(report)))
    if drift := drift_rows(report):
        section("What drifts", _table(DRIFT_HEAD, drift))
    deadline_ms = (report.get("late") or {}).get("deadline_ms")
    pictures = [
        plots.tail(samples, deadline_ms),
        plots.over_time(samples, deadline_ms),
        plots.waterfall(samples),
        soak_plots.latency_through(report),
        soak_plots.memory_through(report),
        plots.streams(report.get("steps") or []),
        plots.fates(report.get("frames") or frames_of_counters(report)),
        plots.pacing(samples, work.get("rate_hz")),
        plots.bounds(samples),
    ]
    if samples.frames is None:
        pictures.append(plots.series_tails(samples))
    # Ids must be different in the whole page, and several measurements have the same plots.
    drawn = [_apart(picture, index) for picture in pictures if picture is not None]
    section("Plots", "\n".join(drawn) if drawn else None)
    section("Worst frames, ms", _worst(report.get("worst") or []))
    section("Frames that never came", _omission(report.get("coordinated_omission")))
    section("Targets", _targets(report.get("targets") or []))
    shown = {"schema", "complete", "config", "workload", "machine", "engine", "worst", "targets", "left_out"}
    shown |= {"shown"} if "shown" in report else set()
    shown |= {"camera", "display", "codes", "how"} if "camera" in report else set()
    if "usage" in report:  # a point a window is plotted, and in the JSON
        shown |= {"usage", "drift"}
        report = {**report, "client": {k: v for k, v in report["client"].items() if k != "windows"}}
    rest = {name: value for name, value in report.items() if name not in shown}
    section(
        "Everything else",
        "<details><summary>counts, shares and slopes of the report</summary>"
        + _facts(list(flat_rows(rest)))
        + "</details>",
    )
    return body


def _apart(picture: str, index: int) -> str:
    return (
        picture.replace('id="', f'id="m{index}-')
        .replace('href="#', f'href="#m{index}-')
        .replace("url(#", f"url(#m{index}-")
    )


def _facts(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table class=facts>{cells}</table>"


def _table(head: tuple[str, ...], rows: list[list[str]], *, escaped: bool = False) -> str:
    def text(cell: str) -> str:
        return cell if escaped else html.escape(cell)

    top = "".join(
        f"<th{'' if at == 0 else ' class=n'}>{html.escape(cell)}</th>" for at, cell in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{'' if at == 0 else ' class=n'}>{text(cell)}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>" if rows else "<p>none</p>"


def _worst(frames: list[dict[str, Any]]) -> str | None:
    if not frames:
        return None
    head = ("frame", "at s", "state", "latency", *frames[0]["stages_ms"])
    return _table(head, [worst_row(frame) for frame in frames]) + (
        "<p class=small>The stages add up to the latency. A stage marked - was not passed; what a picture waited in vain "
        "for its synthesis is in guard.</p>"
    )


def _omission(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    if found["missing"] is None:
        count = "cannot tell"
    else:
        count = f"{found['missing']} missing, {found['without_successor']} more after the last frame received"
    return f"<p>{html.escape(count)}. <small>{html.escape(found['how'])}</small></p>"


def _targets(targets: list[dict[str, Any]]) -> str | None:
    if not targets:
        return None
    mark = {"met": "met", "MISSED": "missed", "cannot tell": ""}
    rows = [
        [
            html.escape(each["name"]),
            html.escape(each["needed"]),
            number(each["value"]),
            f"<span class='{mark[met(each['met'])]}'>{met(each['met'])}</span>",
        ]
        for each in targets
    ]
    return _table(("target", "needed", "measured", ""), rows, escaped=True)
