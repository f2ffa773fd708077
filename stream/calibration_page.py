"""A site's record for people: the table in the terminal, and the one page beside the record that loads nothing."""

import base64
import html
import textwrap
from collections.abc import Mapping
from typing import Any

from calib.record import SiteRecord
from calib.results import StepResult

SAYS_WIDTH = 110
WHAT = {
    "geometry": "collimated field, burned-in text, pixel size",
    "intensity": "stored values to the taught grey levels",
    "domain": "how unlike the taught frames a frame may be",
    "precision": "the engine against the fp32 reference",
    "clock": "offset between two hosts' clocks",
    "phantom": "the digital phantom's own self-test",
}
"""What each step measures."""


def figure(value: float) -> str:
    """A figure as the table shows it: three digits, or all of a large number's."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict(result: StepResult) -> str:
    """Passed or not."""
    return "pass" if result.passed else "NOT PASSED"


def table(record: SiteRecord) -> str:
    """The steps, what each measured, its residual and limit, and what it has to say."""
    return table_of(record.steps)


def table_of(steps: Mapping[str, StepResult]) -> str:
    """The same of steps that are in no record."""
    if not steps:
        return "no step was taken"
    lines = [f"{'step':10} {'measured':46} {'frames':>6} {'residual':>10} {'limit':>8}  {'unit':18} result"]
    for name, result in steps.items():
        lines.append(
            f"{name:10} {WHAT[name]:46} {result.frames:>6} {figure(result.residual):>10} {figure(result.limit):>8}  "
            f"{result.unit:18} {verdict(result)}"
        )
    for name, result in steps.items():
        for sentence in result.says:
            wrapped = textwrap.wrap(sentence, SAYS_WIDTH - 11) or [""]
            lines += (
                ["", f"{name:10} {wrapped[0]}"] if sentence is result.says[0] else [f"{'':10} {wrapped[0]}"]
            )
            lines += [f"{'':10} {line}" for line in wrapped[1:]]
    return "\n".join(lines)


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td.n, th.n { text-align: right; }
.pass { color: #1a7f37; font-weight: 600; } .not { color: #c62828; font-weight: 600; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.notice { border-left: 4px solid #c62828; padding-left: .8rem; }
small { opacity: .75; }
"""


def page(
    record: SiteRecord,
    described: str,
    pictures: dict[str, bytes],
    measured_on: dict[str, Any],
    *,
    worst_frame: str | None = None,
) -> str:
    """One page with everything in it.

    Args:
        record: The record.
        described: What it is for, in a line.
        pictures: PNG of each step that has one.
        measured_on: What the frames were.
        worst_frame: Name of the file beside the page that shows the engines' worst frames; None where there is none.
    """
    not_measured = measured_on.get("not_measured", {})
    rows = "".join(
        f"<tr><td><a href='#{name}'>{name}</a></td><td>{html.escape(WHAT[name])}</td><td class=n>{result.frames}</td>"
        f"<td class=n>{figure(result.residual)}</td><td class=n>{figure(result.limit)}</td>"
        f"<td>{html.escape(result.unit)}</td><td>{_mark(result)}</td></tr>"
        for name, result in record.steps.items()
    )
    rows += "".join(
        f"<tr><td><a href='#{name}'>{name}</a></td><td>{html.escape(WHAT[name])}</td><td><td><td><td>"
        "<td><span class=not>NOT MEASURED</span></td></tr>"
        for name in not_measured
    )
    sections = "".join(
        _section(name, result, pictures.get(name), worst_frame if name == "precision" else None)
        for name, result in record.steps.items()
    )
    refused = "".join(
        f"<h2 id={name}>{html.escape(name)} <span class=not>NOT MEASURED</span></h2><p>{html.escape(why)}</p>"
        for name, why in not_measured.items()
    )
    notes = "".join(f"<li>{html.escape(str(note))}</li>" for note in measured_on.get("notes", ()))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Calibration of a site</title><style>{STYLE}</style>
<h1>Calibration of a site</h1>
<p class="notice"><b>Research tool, not a medical device.</b> What did not pass is not used, and the viewer then shows
what it would show without this record; an engine of which no precision passed runs all the same.</p>
<p>{html.escape(described)}</p>
<table><tr><th>step<th>measured<th class=n>frames<th class=n>residual<th class=n>limit<th>unit<th>result</tr>
{rows}</table>
{sections}{refused}
<h2>Frames of the last steps</h2><ul>{notes}</ul>
</html>
"""


def _mark(result: StepResult) -> str:
    return f"<span class={'pass' if result.passed else 'not'}>{verdict(result)}</span>"


def _section(name: str, result: StepResult, picture: bytes | None, worst_frame: str | None) -> str:
    says = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in result.says)
    image = ""
    if picture is not None:
        data = base64.b64encode(picture).decode()
        image = f"<p><img alt='plot of the step {name}' src='data:image/png;base64,{data}'></p>"
    if worst_frame is not None:
        image += (
            f"<p>Each engine's worst frame is in <a href='{html.escape(worst_frame, quote=True)}'>{html.escape(worst_frame)}</a> "
            "beside this page, and no part of it. It may show a frame of this site at full size, black outside the field and over "
            "burned-in text that was found: keep it as you keep the frames.</p>"
        )
    return f"<h2 id={name}>{name} {_mark(result)}</h2><p>{html.escape(WHAT[name])}</p><ul>{says}</ul>{image}"
