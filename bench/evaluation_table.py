"""An evaluation as a table for a terminal."""

from typing import Any

from bench.machine import one_line

ROW_NAMES = {
    "as_judge_sees_it": "model, as the judge sees it",
    "identity": "unchanged picture (judge)",
    "mean_tree": "mean tree in the true outline",
    "same_pose": "oracle: canonical tree, true pose",
    "ceiling": "ceiling: judge on true angiograms",
}


def number(value: float | None, form: str = ".3f") -> str:
    """A figure, or - where it does not exist."""
    return "-" if value is None or value != value else format(value, form)


def _percent(share: float | None) -> str:
    return "-" if share is None or share != share else f"{100 * share:.2f} %"


def interval(figures: dict[str, Any], name: str, form: str = ".2f") -> str:
    """A figure's 95 % interval, or nothing."""
    low, high = figures["interval"][name]
    return "" if low is None else f"{low:{form}} to {high:{form}}"


def format_evaluation(report: dict[str, Any]) -> str:
    """The report, from what it is of to what it lacks."""
    model, data, engine = report["model"], report["data"], report["engine"]
    lines = [
        f"model    {model['name']} {model['sha256'][:8]} ({model['preset']}, network {model['network_size']} px)"
        + ("" if model["taught"] else "  UNTAUGHT: random weights"),
        f"data     {describe(data)}",
        f"judge    vessel U-Net {report['judge']['sha256'][:8]}, taught on {report['judge'].get('data', 'unknown data')}",
        f"engine   {engine['backend']} {engine['precision']}, {engine['ms']:.1f} ms per {engine['rows']}x"
        f"{engine['columns']} frame (serial median of {engine['runs']})",
        f"machine  {one_line(report['machine'])}",
        "",
    ]
    lines += _vessel_lines(report) if report["vessel"] is not None else _judged_lines(report)
    lines += ["", *_other_lines(report), *_second_lines(report), ""]
    lines += [
        f"  {'?' if row['met'] is None else 'met' if row['met'] else 'MISSED':7}{row['name']}: "
        f"{number(row['value'])} (needed {row['needed']})"
        for row in report["targets"]
    ]
    lines.append("Intervals: 95 %, bootstrap by patient. Research tool, not a medical device.")
    return "\n".join(lines)


def describe(data: dict[str, Any]) -> str:
    """What was tested on, in a line."""
    if data["kind"] == "phantom":
        return (
            f"digital phantom, seeds {data['seeds'][0]} to {data['seeds'][1]}, variation {data['variation']:g}, "
            f"{data['frames']} frames of {data['patients']} patients, {data['rows']}x{data['columns']} px"
        )
    return (
        f"real frames of {data['test_patients']} test patients: {data['frames']} contrast-free and "
        f"{data['real_frames']} filled frames, {data['rows']}x{data['columns']} px"
    )


def _vessel_lines(report: dict[str, Any]) -> list[str]:
    head = f"{'vessels against the truth':36}{'Dice':>7}{'95 %':>14}{'clDice':>8}{'95 %':>14}{'lines px':>9}{'whole':>7}{'area':>8}"
    rows = [_row("model, what it draws (A > 0.3)", report["vessel"], _shape(report, "drawn"))]
    rows += [_row(ROW_NAMES[key], one, one["shape"]) for key, one in report["baseline"].items()]
    variations = "   ".join(
        f"{name}: {number(one['dice'])} / {number(one['cldice'])}"
        for name, one in report["variations"].items()
    )
    truth = _shape(report, "truth")
    return [
        head,
        *rows,
        f"{'  the truth itself':36}{'':>52}{number(truth['connectivity'], '.2f'):>7}{100 * truth['area']:>6.1f} %",
        f"  Dice / clDice at variation {variations}",
    ]


def _second_lines(report: dict[str, Any]) -> list[str]:
    if (second := report.get("second_judge")) is None:
        return []
    shown = ", ".join(
        f"{name} {number(second[name]['dice'], '.2f')}" for name in ("synthetic", "real") if name in second
    )
    return [f"second judge {second['judge']['sha256'][:8]}: Dice with the first on {shown}"]


def _shape(report: dict[str, Any], name: str) -> dict[str, Any]:
    return {"connectivity": report["connectivity"][name], "area": report["vessel_area"][name]}


def _row(name: str, one: dict[str, Any], shape: dict[str, Any]) -> str:
    area = shape["area"]
    return (
        f"  {name:34}{number(one['dice']):>7}{interval(one, 'dice'):>14}{number(one['cldice']):>8}"
        f"{interval(one, 'cldice'):>14}{number(one['centreline_px'], '.1f'):>9}"
        f"{number(shape['connectivity'], '.2f'):>7}"
        + (f"{100 * area:>6.1f} %" if area is not None else f"{'-':>8}")
    )


def _judged_lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{'vessels as the judge sees them':36}{'whole':>7}{'area':>9}{'on border':>11}"]
    names = {"judge": "model", "identity_judge": "unchanged picture", "real_judge": "real angiograms"}
    for key, name in names.items():
        area = report["vessel_area"][key]
        lines.append(
            f"  {name:34}{number(report['connectivity'][key], '.2f'):>7}"
            f"{number(None if area is None else 100 * area, '.2f'):>7} %{number(report['border'][key], '.3f'):>11}"
        )
    return lines


def _other_lines(report: dict[str, Any]) -> list[str]:
    frechet, mmd, shift, flicker = (report[name] for name in ("frechet", "mmd", "shift", "flicker"))
    back, picture, lattice = report["background"], report["picture"], report["lattice"]

    def halves(one: dict[str, Any]) -> str:
        return "-" if one["mean"] is None else f"{one['mean']:.3f} +- {one['sd']:.3f}"

    changes = " ".join(number(value, ".2f") for value in shift["change"].values())
    dark = f"vessels darker by {number(picture['darkening_drawn'], '.1f')} grey levels of 255 where drawn"
    if "darkening_true" in picture:
        dark += (
            f"; in true vessels {number(picture['darkening'], '.1f')} (truth {number(picture['darkening_true'], '.1f')}), "
            f"error {number(picture['vessel_error'], '.1f')} (unchanged {number(picture['identity_error'], '.1f')})"
        )
    still = flicker.get("noise_ratio")
    return [
        f"background  exactly unchanged {100 * back['exact_of_field']:.1f} % of the field, "
        f"{100 * back['exact_fraction']:.1f} % outside vessels; PSNR there {number(back['psnr'], '.1f')} dB",
        f"picture     {dark}",
        f"steadiness  shift by 1 to 7 network px, change of the layer: {changes}; worst {number(shift['worst'], '.2f')} "
        f"of a layer of {shift['strength']:.1f} grey levels on {100 * shift['drawn']:.1f} % of the picture",
        f"            frame to frame: {number(flicker['ratio'], '.2f')} of the layer"
        + (
            f" (truth {number(flicker['truth_ratio'], '.2f')})"
            if flicker.get("truth_ratio") is not None
            else ""
        )
        + (f"; same pose, new noise: {number(still, '.2f')}" if still is not None else "")
        + f"; drawn on {100 * flicker['drawn']:.1f} %",
        "lattice     "
        + ", ".join(
            f"{period}: {number(ratio, '.2f')} of the power beside it ({_percent(lattice['amplitude'][period])} of what is drawn)"
            for period, ratio in lattice["ratio"].items()
        )
        + "; 1 is none",
        f"border      {number(report['border']['drawn'], '.3f')} of what is drawn lies on the field's border"
        + (f" (truth {number(report['border']['truth'], '.3f')})" if "truth" in report["border"] else ""),
        f"{'distances':12}{'model':>9}{'unchanged':>11}{'real':>9}   {'real halves':18} n {frechet['n'][0]} to {frechet['n'][1]}",
        f"  {'Frechet':10}{frechet['value']:>9.3f}{frechet['identity']:>11.3f}{number(frechet.get('real')):>9}   "
        f"{halves(frechet['real_halves'])}",
        *(
            f"  {'MMD ' + short:10}{mmd[kind]:>9.3f}{mmd[f'others_{kind}']['identity']:>11.3f}"
            f"{number(mmd[f'others_{kind}'].get('real')):>9}   {halves(mmd[f'real_halves_{kind}'])}"
            for kind, short in (("rbf", "RBF"), ("polynomial", "poly"))
        ),
        "            on the judge's own features; neither proves a picture good, nor compares with publications",
    ]
