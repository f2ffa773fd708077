"""Tables I and II of the poster, of our own runs: as text that is Markdown too."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import one_line
from bench.methods_config import ANCHORED, CONTESTANTS
from bench.methods_measure import DARKER
from bench.methods_results import LEAST_PATIENTS, Figure, Results, Row, read_results
from casgan.methods.names import METHODS, PARTS

BEGIN, END = "<!-- methods -->", "<!-- end of methods -->"
LOOPS_BEGIN, LOOPS_END = "<!-- methods on real loops -->", "<!-- end of methods on real loops -->"
"""Results of a folder have a section of their own."""
PAGE = "RESULTS.md"
RIVALS = tuple(name for name in METHODS if name != "casgan")
ABLATIONS = tuple(key for key, one in CONTESTANTS.items() if one.method == "casgan" and not one.anchored)


def write_table(folder: Path) -> str:
    """Print-ready tables; they are also written into the page beside the folder, between its marks.

    Raises:
        EvaluationError: As `read_results`.
    """
    results = read_results(folder)
    text = tables(results)
    page = folder.resolve().parent / PAGE
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    page.write_text(with_section(before, text, marks_of(results)), "utf-8")
    return text


def marks_of(results: Results) -> tuple[str, str]:
    """Between which marks of the page they stand."""
    return (BEGIN, END) if results.on_phantom else (LOOPS_BEGIN, LOOPS_END)


def with_section(page: str, text: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with the tables between its marks; at its end where it has none."""
    begin, end = marks
    section = f"{begin}\n{text}\n{end}"
    if begin in page and end in page:
        return page[: page.index(begin)] + section + page[page.index(end) + len(end) :]
    return f"{page.rstrip()}\n\n{section}\n".lstrip()


def kept_section(page: str) -> str:
    """What stands from the tables on, for who writes the page's other part anew; empty where there are none."""
    return page[page.index(BEGIN) :] if BEGIN in page else ""


def tables(results: Results) -> str:
    """All of it: protocol, Table I, what it cost, Table II, what follows, what is missing."""
    on_phantom = results.on_phantom
    compared = results.of(("casgan", *RIVALS, ANCHORED))
    fixed = [results.identity, *([results.real] if results.real is not None else [])]
    columns = PHANTOM_COLUMNS if on_phantom else FOLDER_COLUMNS
    parts = [
        "## Methods under one protocol" + ("" if on_phantom else ", on real loops"),
        _protocol(results),
        "### Table I: methods",
        _table("method", [*compared, *fixed], columns, lambda row: row.title),
        _notes(results),
    ]
    if compared:
        costs = _table("method", compared, COSTS, lambda row: row.title)
        parts += ["### What they cost", costs, _load(results)]
    ablations = results.of(ABLATIONS)
    if ablations:
        parts += [
            "### Table II: CAS-GAN's parts",
            _table("DRL VSGG VSGL", ablations, [*columns, *COSTS[1:3]], _switches),
        ]
    parts += ["### What follows", _findings(results), "### Not measured", _missing(results)]
    return "\n\n".join(parts)


def _switches(row: Row) -> str:
    assert row.contestant is not None
    return " ".join("-" if part in row.contestant.without else "yes" for part in PARTS)


def _protocol(results: Results) -> str:
    told, reference = results.protocol, results.references["reference"]
    machines = {
        one_line(report["machine"]).partition(", load")[0]
        for row in results.rows.values()
        for report in row.reports
    }
    seeds = sorted({report["seed"] for row in results.rows.values() for report in row.reports})
    where = (
        f"phantom patients {told['test_seeds'][0]} to {told['test_seeds'][1]}"
        if "test_seeds" in told
        else f"test patients of {told['data']}"
    )
    taught_on = (
        f"phantom, {told['patients']} patients a domain" if told["data"] == "phantom" else told["data"]
    )
    budget = "" if told["minutes"] is None else f", {told['minutes']:g} minutes at most"
    return (
        f"Preset {told['preset']} at {told['size']} px, {told['steps']} steps of {told['batch']} pictures of each domain{budget}, from chance; "
        f"unpaired frames of {taught_on}, the same for all, as are augmentation, schedule, "
        f"discriminators' layers, clip and running average. {'One seed' if len(seeds) == 1 else f'{len(seeds)} seeds'} "
        f"({', '.join(map(str, seeds))}). Measured on {reference['tested']} frames of {where}, {told['frame_size']} px, as exported and drawn by the "
        f"engine; {'; '.join(sorted(machines))}. Written by `contrastream evaluate --table` from the files of `bench methods`: no figure was typed."
    )


def _load(results: Results) -> str:
    """Under what the seconds and the engines' times were taken."""
    machines = [report["machine"] for row in results.rows.values() for report in row.reports]
    loads = [machine["load_average"][0] for machine in machines]
    cores = machines[0]["cpu"]["cores"]
    how = ", ".join(sorted({str(machine["scheduling"]) for machine in machines}))
    said = f"Teaching is wall clock, at a load of {min(loads):.1f} to {max(loads):.1f} on {cores} cores, priority {how}"
    if max(loads) > cores + 1:
        said += ": others had the cores too, so these seconds do not compare methods, and steps do"
    return (
        f"{said}. Engine: median of one frame after the other, those on one machine in turns in one go, {results.rows_timed}; a load above the cores makes these times no comparison of methods either. Parameters live, and all numbers "
        f"taught on the generator's side, norms' statistics among them.{_live_conditions(results)}"
    )


def _live_conditions(results: Results) -> str:
    """On what machine, and under what load, p99 was taken."""
    found = [report["live"] for row in results.rows.values() for report in row.reports if report.get("live")]
    if not found:
        return ""
    where = "; ".join(sorted({each["machine"].partition(", load")[0] for each in found}))
    return (
        f" Live: p99 from due to received of {found[0]['frames']} frames of 512 x 512 px, {found[0]['rate_hz']:g} per second, through source, engine, ZeroMQ "
        f"and client, one method after the other; {where}."
    )


def _notes(results: Results) -> str:
    reference, halves = results.references["reference"], results.references["real_halves"]
    split = (
        f"Real against real, halves by patient of {halves['frechet']['n'][0]}: Frechet {halves['frechet']['mean']:.2f} +- "
        f"{halves['frechet']['sd']:.2f}, MMD RBF {halves['mmd_rbf']['mean']:.3f} +- {halves['mmd_rbf']['sd']:.3f}, polynomial "
        f"{halves['mmd_polynomial']['mean']:.3f} +- {halves['mmd_polynomial']['sd']:.3f}. "
        if halves
        else ""
    )
    if results.on_phantom:
        vessels = (
            f"Vessels against the phantom's truth: drawn is where y_g is {DARKER:.0f} grey levels of 255 or more darker than x, for every method alike; "
            "seen is what an independent vessel U-Net finds in y_g. "
        )
    else:
        vessels = (
            "Vessels that an independent U-Net sees in drawn contrast-free frames, over those it sees in filled frames of the same run and of other "
            "patients' runs. Heartbeat, breath, the U-Net's own errors and catheters, which it sees too, confound both; the row of the unchanged picture "
            "shows how much. The last row is one filled frame over the others of its run, the most that a tree drawn at another moment can reach. "
        )
    size, frame = results.protocol["size"], results.protocol["frame_size"]
    coarse = (
        f"The networks work at {size} px and the frames have {frame}: a method that makes a whole picture loses what is finer, a blend keeps it. That is in "
        "every column, and no property of the methods at the frames' own size. "
        if size < frame
        else ""
    )
    return (
        f"{vessels}{coarse}Distances are to {reference['pictures']} true angiograms on features of that U-Net ({reference['features']}), and compare with nothing "
        f"else. {split}Background: outside vessels, inside the field. Flicker: change of the drawn layer from frame to frame over its strength (in grey "
        "levels, in brackets); 0 to 2. Intervals 95 %, over patients: resampled, for distances by leaving one out."
    )


def _findings(results: Results) -> str:
    ours = results.rows.get("casgan")
    if ours is None:
        return "CAS-GAN itself is not among the results, so nothing is compared."
    lines = [_against_identity(results)]
    vessels = "cldice" if results.on_phantom else "same_cldice"
    for title, rows in (
        ("rival", results.of(RIVALS)),
        ("ablation", results.of([key for key in ABLATIONS if key != "casgan"])),
    ):
        for name, word, compare in (
            (vessels, "vessel clDice", ours.ahead),
            ("frechet", "Frechet distance", ours.nearer),
        ):
            found = [(row, compare(row, name)) for row in rows]
            if not found:
                continue
            verdicts = {1: "ahead of", 0: "not told apart from", -1: "behind"}
            counted = ", ".join(
                f"{verdict} {sum(figure.side == side for _, figure in found)}"
                for side, verdict in verdicts.items()
            )
            each = "; ".join(f"{row.title} {_signed(figure)}" for row, figure in found)
            whom = f"{len(found)} {title}s" if len(found) > 1 else f"one {title}"
            lines.append(f"- {word}, CAS-GAN against {whom}: {counted}. By how much: {each}.")
    return "\n".join(lines)


def _against_identity(results: Results) -> str:
    """Whether anybody drew something that the judge takes for vessels at the right place, or for an angiogram."""
    name = "judge_cldice" if results.on_phantom else "same_cldice"
    every, floor = list(results.rows.values()), results.identity
    sides_of = {
        "the judge's clDice": {row.title: row.ahead(floor, name).side for row in every},
        "Frechet distance": {row.title: row.nearer(floor, "frechet").side for row in every},
    }
    found = []
    for word, sides in sides_of.items():
        better = [title for title, side in sides.items() if side > 0]
        worse = sum(side < 0 for side in sides.values())
        found.append(
            f"in {word} better than it: {', '.join(better) or 'none'}; worse {worse}; the other {len(sides) - len(better) - worse} not told apart"
        )
    return f"- All {len(every)} against the unchanged picture: {'. '.join(found)}."


def _signed(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:+.3f}"
    return f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"


def _missing(results: Results) -> str:
    lines = [f"- {one.title}: not run" for key, one in CONTESTANTS.items() if key not in results.rows]
    short = [
        f"- {row.title}: {int(min(row.training('steps')))} of {results.protocol['steps']} steps, its minutes were over"
        for row in results.rows.values()
        if min(row.training("steps")) < results.protocol["steps"]
    ]
    lines += short
    patients = len(results.identity.per_patient("background_exact"))
    if patients < LEAST_PATIENTS:
        lines.append(f"- intervals: they need {LEAST_PATIENTS} test patients or more, got {patients}")
    seeds = {report["seed"] for row in results.rows.values() for report in row.reports}
    if len(seeds) < 3:
        lines.append(
            f"- {'one seed' if len(seeds) == 1 else 'two seeds'}: intervals are over patients, and say nothing of another start"
        )
    if not any(report.get("live") for row in results.rows.values() for report in row.reports):
        lines.append(
            "- p99 in the pipeline: not measured (`--live-frames 1000`, on a quiet machine); the engine's median is"
        )
    unmeasured = [
        row.title for row in results.rows.values() if not any(each.get("live") for each in row.reports)
    ]
    if 0 < len(unmeasured) < len(results.rows):
        lines.append(f"- p99 in the pipeline: not of {', '.join(unmeasured)}")
    if results.on_phantom:
        lines.append("- real loops: a table of their own (`--data FOLDER`)")
    lines.append("- Inception features: not run, nobody brought the weights")
    return "\n".join(lines)


Column = tuple[str, Callable[[Row], str]]


def _interval(figure: Figure, digits: int = 3) -> str:
    if figure.value is None:
        return "-"
    text = f"{figure.value:.{digits}f}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def _value(name: str, digits: int, scale: float = 1.0) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.figure(name).value
        return _number(None if value is None else scale * value, digits)

    return cell


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _psnr(row: Row) -> str:
    error = row.figure("background_error").value
    return "-" if error is None else "exact" if error == 0.0 else f"{10.0 * math.log10(255.0**2 / error):.1f}"


def _flicker(row: Row) -> str:
    ratio, layer = row.figure("flicker").value, row.figure("layer").value
    return "-" if ratio is None or layer is None else f"{ratio:.2f} ({layer:.0f})"


def _figure(name: str) -> Callable[[Row], str]:
    return lambda row: _interval(row.figure(name))


def _distance(name: str, digits: int) -> Callable[[Row], str]:
    return lambda row: _interval(row.distance(name), digits)


SHARED: list[Column] = [
    ("Frechet (95 %)", _distance("frechet", 2)),
    ("MMD RBF (95 %)", _distance("mmd_rbf", 3)),
    ("MMD poly", lambda row: _number(row.distance("mmd_polynomial").value, 3)),
    ("background PSNR dB", _psnr),
    ("unchanged %", _value("background_exact", 1, 100.0)),
    ("flicker", _flicker),
]
PHANTOM_COLUMNS: list[Column] = [
    ("drawn clDice (95 %)", _figure("cldice")),
    ("drawn Dice", _value("dice", 3)),
    ("lines px", _value("centreline_px", 1)),
    ("area %", _value("area", 1, 100.0)),
    ("seen clDice (95 %)", _figure("judge_cldice")),
    *SHARED,
]
FOLDER_COLUMNS: list[Column] = [
    ("same run clDice (95 %)", _figure("same_cldice")),
    ("other patients' clDice", _value("other_cldice", 3)),
    ("same run Dice", _value("same_dice", 3)),
    ("seen area %", _value("judge_area", 1, 100.0)),
    *SHARED,
]


def _model(name: str, digits: int, scale: float) -> Callable[[Row], str]:
    return lambda row: f"{row.reports[0]['model'][name] * scale:.{digits}f}"


def _engine(row: Row) -> str:
    times = [report["engine"]["ms_p50"] for report in row.reports]
    engine = row.reports[0]["engine"]
    return f"{sum(times) / len(times):.1f} ({engine['backend']})"


def _live(row: Row) -> str:
    found: list[dict[str, Any]] = [report["live"] for report in row.reports if report.get("live")]
    p99 = [each["latency_ms"]["p99"] for each in found if each["latency_ms"]["p99"] is not None]
    return f"{sum(p99) / len(p99):.1f}" if p99 else "-"


def _many(name: str, digits: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        return ", ".join(f"{value:.{digits}f}" for value in row.training(name))

    return cell


COSTS: list[Column] = [
    ("attention", lambda row: str(row.reports[0]["model"]["attention"])),
    ("steps", _many("steps", 0)),
    ("teaching s", _many("seconds", 0)),
    (
        "parameters live / taught, M",
        lambda r: f"{_model('parameters', 2, 1e-6)(r)} / {_model('parameters_taught', 2, 1e-6)(r)}",
    ),
    ("GMAC a frame", _model("gmac", 3, 1.0)),
    ("engine ms at 512 px", _engine),
    ("live p99 ms", _live),
]


def _table(head: str, rows: list[Row], columns: list[Column], name: Callable[[Row], str]) -> str:
    cells = [[head, *(title for title, _ in columns)]]
    cells += [[name(row), *(cell(row) for _, cell in columns)] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
