"""The page of pictures beside an evaluation: one file, everything in it, nothing loaded from elsewhere."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from bench.errors import EvaluationError
from bench.evaluation_table import ROW_NAMES, describe, interval, number
from bench.judging import Case, Judge, Mask, layer
from casgan.vessel_metrics import dice

SHOWN = 8
"""Cases on the page: from the best to the worst, evenly."""
SIDE_PX = 288
LAYER_GAIN = 4.0
"""How much the layer's grey levels are stretched to be seen."""
LABEL_PX = 26
HIT, FALSE, MISSED = (255, 255, 255), (255, 80, 160), (70, 200, 120)
"""Red, green, blue: drawn and true, drawn only, true only."""


@dataclass(frozen=True)
class Panel:
    """One case as the page shows it."""

    title: str
    pictures: tuple[tuple[str, np.ndarray], ...]
    """(caption, grey or RGB picture)."""


def panels_of(cases: list[Case], judge: Judge, real: Any = None) -> list[Panel]:
    """What the page shows, chosen from best to worst where there is a truth, else evenly.

    Args:
        cases: All of them.
        judge: Finds the nearest real angiogram where there is no truth.
        real: Real angiograms with `pictures` and `patients`; None on the phantom.
    """
    scores = [dice(case.drawn, case.mask) if case.mask is not None else 0.0 for case in cases]
    order = sorted(range(len(cases)), key=lambda index: (-scores[index], index))
    chosen = [order[round(at)] for at in np.linspace(0, len(order) - 1, min(SHOWN, len(order)))]
    nearest = [None] * len(chosen) if real is None else _nearest(cases, chosen, judge, real)
    return [
        _panel(cases[index], scores[index], picture) for index, picture in zip(chosen, nearest, strict=True)
    ]


def _nearest(cases: list[Case], chosen: list[int], judge: Judge, real: Any) -> list[Any]:
    there = judge.features(real.pictures)
    here = judge.features([cases[index].synthetic for index in chosen])
    spread = there.std(axis=0) + 1e-9
    away = (((here[:, None] - there[None]) / spread) ** 2).sum(axis=2)
    return [
        (f"nearest real angiogram: {real.runs[index]}", real.pictures[index]) for index in away.argmin(axis=1)
    ]


def _panel(case: Case, score: float, nearest: Any) -> Panel:
    # One grey scale for x, y_g and y, so that they compare: the 1st and 99th percentile of x inside the field.
    low, high = np.percentile(case.live[case.field], (1, 99)) if case.field.any() else (0.0, 255.0)

    def stretched(picture: np.ndarray) -> np.ndarray:
        scale = 225.0 / max(1.0, high - low)
        shown: np.ndarray = np.clip((picture.astype(np.float32) - low) * scale + 15.0, 0, 255).astype(
            np.uint8
        )
        return shown

    added = np.clip(128.0 + LAYER_GAIN * layer(case.live, case.synthetic), 0, 255).astype(np.uint8)
    pictures = [
        ("x, live", stretched(case.live)),
        ("A, attention", case.attention),
        (f"layer y_g - x, {LAYER_GAIN:.0f} times", added),
        ("y_g, synthetic", stretched(case.synthetic)),
    ]
    if case.angiogram is not None and case.mask is not None:
        pictures += [
            ("y, the truth", stretched(case.angiogram)),
            ("agreement", overlay(case.drawn, case.mask)),
        ]
        title = f"{case.patient}: Dice {score:.2f}"
    else:
        if nearest is not None:
            pictures.append(nearest)
        title = case.patient
    return Panel(title, tuple(pictures))


def overlay(drawn: Mask, truth: Mask) -> UInt8[np.ndarray, "h w 3"]:
    """White where drawn and true, magenta where only drawn, green where only true."""
    picture = np.full((*drawn.shape, 3), 24, np.uint8)
    picture[drawn & truth] = HIT
    picture[drawn & ~truth] = FALSE
    picture[truth & ~drawn] = MISSED
    return picture


def write_gallery(report: dict[str, Any], panels: list[Panel], out: Path) -> tuple[Path, Path]:
    """Write the page and the contact sheet beside the report.

    Args:
        report: The figures.
        panels: The pictures.
        out: The report's file; the two get its name.

    Returns:
        The page and the sheet.

    Raises:
        EvaluationError: They cannot be written.
    """
    page, sheet = out.with_suffix(".html"), out.with_suffix(".png")
    try:
        page.write_text(_page(report, panels), encoding="utf-8")
        sheet.write_bytes(_encoded(contact_sheet(panels), ".png"))
    except OSError as error:
        raise EvaluationError(f"the pictures cannot be written: {error}; choose another --out") from error
    return page, sheet


def contact_sheet(panels: list[Panel]) -> UInt8[np.ndarray, "h w 3"]:
    """All panels in one picture, a row each, with captions."""
    columns = max(len(panel.pictures) for panel in panels)
    gap = 6
    width = columns * (SIDE_PX + gap) + gap
    height = len(panels) * (SIDE_PX + LABEL_PX + gap) + gap
    sheet = np.full((height, width, 3), 24, np.uint8)
    for row, panel in enumerate(panels):
        top = gap + row * (SIDE_PX + LABEL_PX + gap)
        for column, (caption, picture) in enumerate(panel.pictures):
            left = gap + column * (SIDE_PX + gap)
            text = f"{panel.title}   {caption}" if column == 0 else caption
            place = (left + 2, top + LABEL_PX - 9)
            cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (210, 210, 210), 1, cv2.LINE_AA)
            sheet[top + LABEL_PX : top + LABEL_PX + SIDE_PX, left : left + SIDE_PX] = _shown(picture)
    return sheet


def _shown(picture: np.ndarray) -> UInt8[np.ndarray, "s s 3"]:
    """A picture at the page's size, RGB, aspect kept."""
    coloured = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    scale = SIDE_PX / max(coloured.shape[:2])
    rows, columns = (max(1, round(side * scale)) for side in coloured.shape[:2])
    small = cv2.resize(coloured, (columns, rows), interpolation=cv2.INTER_AREA)
    boxed = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    top, left = (SIDE_PX - rows) // 2, (SIDE_PX - columns) // 2
    boxed[top : top + rows, left : left + columns] = small
    return boxed


def _encoded(picture: np.ndarray, kind: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if kind == ".jpg" else []
    done, data = cv2.imencode(kind, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise EvaluationError(f"a picture could not be encoded as {kind}")
    return bytes(data)


STYLE = """
:root { color-scheme: dark; }
body { margin: 0 auto; max-width: 1840px; padding: 24px 32px 64px; background: #14171a; color: #d9dee3;
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; font-weight: 600; margin: 0 0 4px; }
h2 { font-size: 16px; font-weight: 600; margin: 36px 0 10px; color: #eef2f5; }
p { margin: 4px 0; max-width: 110ch; } .quiet { color: #8f9aa5; }
.tables { display: flex; flex-wrap: wrap; gap: 12px 56px; align-items: flex-start; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: left; border-bottom: 1px solid #262c32; white-space: nowrap; }
th { font-weight: 500; color: #8f9aa5; } td.n, th.n { text-align: right; }
tr.own td { color: #fff; font-weight: 600; }
.met { color: #6fce93; } .missed { color: #ff9a7a; }
.case { margin: 0 0 22px; } .case h3 { font-size: 14px; font-weight: 500; margin: 0 0 6px; }
.key { margin-bottom: 14px; }
.row { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 288px); gap: 8px; }
figure { margin: 0; } img { width: 100%; display: block; border-radius: 3px; background: #000; }
figcaption { font-size: 12.5px; color: #8f9aa5; margin-top: 3px; }
.key span { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 14px; }
"""


def _page(report: dict[str, Any], panels: list[Panel]) -> str:
    model, engine = report["model"], report["engine"]
    title = f"{model['name']}: what it draws"
    cases = "\n".join(_case(panel) for panel in panels)
    untaught = "" if model["taught"] else '<p class="missed">UNTAUGHT: the weights are random.</p>'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>{untaught}
<p class="quiet">{html.escape(model["preset"])}, network {model["network_size"]} px, SHA-256 {model["sha256"][:16]};
{html.escape(engine["backend"])} {html.escape(engine["precision"])}, {engine["ms"]:.1f} ms per frame of
{engine["rows"]}x{engine["columns"]}. Research tool, not a medical device: where a vessel is drawn says nothing about where this
patient's vessels are.</p>
<p class="quiet">{html.escape(describe(report["data"]))}</p>
<h2>Figures</h2><div class="tables">{_targets(report)}{_vessels(report)}{_distances(report)}</div>
<h2>Pictures</h2>
{_key(report)}
{cases}
</body></html>
"""


def _cells(cells: list[str], tag: str = "td", own: bool = False) -> str:
    first, *rest = cells
    marked = "".join(f'<{tag} class="n">{html.escape(cell)}</{tag}>' for cell in rest)
    return f"<tr{' class=own' if own else ''}><{tag}>{html.escape(first)}</{tag}>{marked}</tr>"


def _targets(report: dict[str, Any]) -> str:
    rows = [_cells(["aim", "found", "needed", ""], "th")]
    for row in report["targets"]:
        verdict = {None: ("", "?"), True: ("met", "met"), False: ("missed", "missed")}[row["met"]]
        rows.append(
            f"<tr><td>{html.escape(row['name'])}</td><td class=n>{number(row['value'])}</td>"
            f"<td class=n>{html.escape(row['needed'])}</td><td class={verdict[0] or 'quiet'}>{verdict[1]}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _vessels(report: dict[str, Any]) -> str:
    if report["vessel"] is None:
        rows = [_cells(["vessels as the judge sees them", "whole", "area", "on the border"], "th")]
        names = {"judge": "model", "identity_judge": "unchanged picture", "real_judge": "real angiograms"}
        for key, name in names.items():
            area = report["vessel_area"][key]
            rows.append(
                _cells(
                    [
                        name,
                        number(report["connectivity"][key], ".2f"),
                        "-" if area is None else f"{100 * area:.2f} %",
                        number(report["border"][key]),
                    ],
                    own=key == "judge",
                )
            )
        return f"<table>{''.join(rows)}</table>"
    rows = [_cells(["vessels against the truth", "Dice", "95 %", "clDice", "95 %", "lines, px"], "th")]
    every = {"model": report["vessel"], **report["baseline"]}
    for key, one in every.items():
        cells = [ROW_NAMES.get(key, "model, what it draws"), number(one["dice"]), interval(one, "dice")]
        cells += [number(one["cldice"]), interval(one, "cldice"), number(one["centreline_px"], ".1f")]
        rows.append(_cells(cells, own=key == "model"))
    for name, one in report["variations"].items():
        cells = [f"model at variation {name}", number(one["dice"]), interval(one, "dice")]
        cells += [number(one["cldice"]), interval(one, "cldice"), number(one["centreline_px"], ".1f")]
        rows.append(_cells(cells))
    return f"<table>{''.join(rows)}</table>"


def _distances(report: dict[str, Any]) -> str:
    frechet, mmd = report["frechet"], report["mmd"]
    rows = [_cells(["distance to real angiograms", "model", "unchanged", "real", "real halves"], "th")]

    def halves(one: dict[str, Any]) -> str:
        return "-" if one["mean"] is None else f"{one['mean']:.3f} ± {one['sd']:.3f}"

    rows.append(
        _cells(
            [
                "Fréchet, judge's features",
                number(frechet["value"]),
                number(frechet["identity"]),
                number(frechet.get("real")),
                halves(frechet["real_halves"]),
            ]
        )
    )
    for kind, name in (("rbf", "MMD², RBF"), ("polynomial", "MMD², polynomial")):
        others = mmd[f"others_{kind}"]
        cells = [name, number(mmd[kind]), number(others["identity"]), number(others.get("real"))]
        rows.append(_cells([*cells, halves(mmd[f"real_halves_{kind}"])]))
    return f"<table>{''.join(rows)}</table>"


def _key(report: dict[str, Any]) -> str:
    if report["vessel"] is None:
        return (
            '<p class="quiet key">x and y_g share one grey scale. The nearest real angiogram, of the test patients, is '
            "near by the judge's features only: it is no truth.</p>"
        )

    def swatch(colour: tuple[int, int, int], text: str) -> str:
        return f'<span style="background: rgb{colour}"></span>{text}'

    return (
        '<p class="quiet">From the best case to the worst, evenly. x, y_g and y share one grey scale.</p>'
        f'<p class="quiet key">Agreement: {swatch(HIT, "drawn and true")}{swatch(FALSE, "drawn only")}'
        f"{swatch(MISSED, 'true only')}</p>"
    )


def _case(panel: Panel) -> str:
    figures = []
    for caption, picture in panel.pictures:
        data = base64.b64encode(_encoded(_shown(picture), ".jpg")).decode()
        figures.append(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f'<div class="case"><h3>{html.escape(panel.title)}</h3><div class="row">{"".join(figures)}</div></div>'
