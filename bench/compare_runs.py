"""Two series of different runs: how they compare, with an interval, and what may be said of it.

Two runs never meet the same machine. So each figure is compared twice: as it is, and divided by what bare processes of the
same hops took alone in the same run (the floor), which tells how much of a change is the machine's. A change is claimed only
where both say so; where a figure moved as its floor did, it is called the same.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from bench.stats import CHUNK, MIN_CHUNKS, resampled_quantiles

RESAMPLES = 1_000
LEVEL = 0.99
"""Of the intervals: a dozen figures are judged at once, and at 95 % one of them would cry wolf every second time."""
MARGIN = 0.05
"""Changes smaller than this are called the same: two copies of one program differ by so much on these machines."""
NOISE_SHARE = 0.10
"""By how much the share of the cores that host and other processes took may differ between the two runs."""

Verdict = Literal["faster", "slower", "same", "cannot tell"]


@dataclass(frozen=True)
class RunRatio:
    """After divided by before, with its 99 % interval; no interval where there are too few chunks of time."""

    value: float
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | None]:
        """For the report."""
        return asdict(self)


@dataclass(frozen=True)
class Compared:
    """One quantile of one series in two runs.

    Args:
        before: The quantile in the first run.
        after: In the second.
        ratio: After by before.
        machine: The same of the floors' medians; None where a run has no floor.
        by_floor: `ratio` by `machine`.
    """

    before: float
    after: float
    ratio: RunRatio
    machine: RunRatio | None
    by_floor: RunRatio | None


def _ratio(value: float, draws: np.ndarray | None) -> RunRatio:
    if draws is None:
        return RunRatio(value, None, None)
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return RunRatio(value, float(low), float(high))


def compare_series(
    before: np.ndarray,
    after: np.ndarray,
    quantile: float,
    floors: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    seed: int = 0,
) -> Compared | None:
    """Compare a quantile of a series between two runs.

    Args:
        before: (n,) of the first run, in the order of time.
        after: (m,) of the second.
        quantile: 0 to 1.
        floors: The floor's series in the first and the second run, over the same stretch of time.
        seed: Of the resampling, so that a comparison can be made again.

    Returns:
        The ratios with percentile-bootstrap intervals over chunks of time; in each run a figure and its floor are
        resampled by the same chunks, so that a mood of the machine that hit both cancels. None where a series is empty
        or not above 0.
    """
    series = [before, after, *(floors or ())]
    if any(values.size == 0 or np.median(values) <= 0 for values in series):
        return None
    generator = np.random.default_rng(seed)
    quantiles: list[float] = []
    medians: list[float] = []
    drawn: list[np.ndarray] = []
    drawn_floor: list[np.ndarray] = []
    for place, values in enumerate((before, after)):
        quantiles.append(float(np.quantile(values, quantile)))
        chunks = values.size // CHUNK
        if floors is not None:
            medians.append(float(np.median(floors[place])))
            chunks = min(chunks, floors[place].size)
        if chunks < MIN_CHUNKS:
            continue
        counts = generator.multinomial(chunks, np.full(chunks, 1 / chunks), size=RESAMPLES)
        drawn.append(resampled_quantiles(values, counts, quantile))
        if floors is not None:
            drawn_floor.append(resampled_quantiles(floors[place], counts, 0.5))
    told = len(drawn) == 2
    ratio = _ratio(quantiles[1] / quantiles[0], drawn[1] / drawn[0] if told else None)
    if floors is None:
        return Compared(quantiles[0], quantiles[1], ratio, None, None)
    moved = medians[1] / medians[0]
    machine = drawn_floor[1] / drawn_floor[0] if told else None
    return Compared(
        quantiles[0],
        quantiles[1],
        ratio,
        _ratio(moved, machine),
        _ratio(ratio.value / moved, None if machine is None else drawn[1] / drawn[0] / machine),
    )


def _says(ratio: RunRatio, margin: float) -> Verdict:
    """What one ratio says by itself."""
    if ratio.low is None or ratio.high is None:
        return "cannot tell"
    if ratio.low > 1 and ratio.value > 1 + margin:
        return "slower"
    if ratio.high < 1 and ratio.value < 1 - margin:
        return "faster"
    return "same" if ratio.low > 1 - margin and ratio.high < 1 + margin else "cannot tell"


def verdict(
    compared: Compared | None, noise: tuple[float, float] | None, margin: float = MARGIN
) -> tuple[Verdict, str]:
    """What may be said of a figure, and why.

    Args:
        compared: The comparison; None where a run lacks the figure.
        noise: Share of the cores that host and other processes took, before and after; None where unknown.
        margin: Changes smaller than this are called the same.
    """
    if compared is None:
        return "cannot tell", "one of the runs does not have it"
    if compared.ratio.low is None:
        return "cannot tell", f"fewer than {MIN_CHUNKS * CHUNK} samples in a run"
    if compared.by_floor is None or compared.machine is None:
        return "cannot tell", "no floor in both runs, so nobody knows how much of it is the machine"
    if noise is not None and abs(noise[1] - noise[0]) > NOISE_SHARE:
        return (
            "cannot tell",
            f"others took {100 * noise[0]:.0f} % of the cores in A and {100 * noise[1]:.0f} % in B; measure again",
        )
    as_is, by_floor = _says(compared.ratio, margin), _says(compared.by_floor, margin)
    if as_is == by_floor and as_is != "cannot tell":
        return as_is, {"same": f"within {100 * margin:.0f} %"}.get(as_is, "as measured and by the floor")
    moved = f"the machine itself went {compared.machine.value:.2f} times"
    if by_floor == "same" and (compared.ratio.value > 1) == (compared.machine.value > 1):
        return "same", f"by the floor; {moved}"
    if "cannot tell" in (as_is, by_floor):
        words = {as_is, by_floor} - {"cannot tell"}
        if not words:
            return "cannot tell", "the intervals are too wide; more frames would tell"
        return "cannot tell", f"{words.pop()} by one measure, undecided by the other; {moved}"
    return "cannot tell", f"{as_is} as measured, {by_floor} by the floor; {moved}"


def as_row(compared: Compared | None) -> dict[str, Any]:
    """For the report."""
    if compared is None:
        return {"before": None, "after": None, "ratio": None, "machine": None, "by_floor": None}
    return {
        "before": compared.before,
        "after": compared.after,
        "ratio": compared.ratio.as_dict(),
        "machine": None if compared.machine is None else compared.machine.as_dict(),
        "by_floor": None if compared.by_floor is None else compared.by_floor.as_dict(),
    }
