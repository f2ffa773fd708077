"""Two hosts' clocks: offset and drift from repeated exchanges, with an uncertainty that is a bound and not a guess.

    here:  t1 sent ------------------------> t4 received
    there:          t2 received -- t3 answered

With offset(t) = there's clock minus here's at the instant when here reads t, and no packet arriving before it is sent,
    offset(t1) <= t2 - t1        offset(t4) >= t3 - t4
whatever either way took, however unlike the two are. Clocks that keep their rate make offset(t) a straight line, so all
exchanges together leave a polygon of (offset, drift): the answer is its middle, the uncertainty its half width. Only
the exchanges with the least delay of either way touch it, which is the minimum-delay filter of NTP (RFC 5905, section 10)
without choosing a window; intersecting intervals is Marzullo's and Owicki's (1983), the envelope over time that of Zhang, Liu
and Xia, "Clock synchronization algorithms for network measurements" (INFOCOM 2002). A single exchange gives NTP's own bound,
half the round trip.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from calib.errors import CalibrationError
from calib.results import ClockResult

MIN_EXCHANGES = 8
MAX_DRIFT_PPM = 500.0
"""Clocks whose rates differ by more are broken: the largest that NTP corrects (RFC 5905, frequency tolerance)."""
WANDER_PPM = 1.0
"""How far a rate may change around its mean within a measurement; temperature and NTP's slewing do. Our choice."""
LIMIT_MS = 1.0
"""Above it the offset is not shown. Our choice: a fifth of what this tool adds to a picture's age."""
NS_PER_MS = 1e6
NS_PER_S = 1e9


@dataclass(frozen=True)
class ClockEstimate:
    """There's clock against here's."""

    reference_ns: int
    """Here's clock, at the middle of the measurement."""
    base_ns: int
    """A whole part of the offset, so that the rest is small enough for a float."""
    rest_ns: float
    uncertainty_ns: float
    """The true offset at `reference_ns` is within this of `base_ns + rest_ns`."""
    drift_ppm: float
    drift_uncertainty_ppm: float

    @property
    def offset_ns(self) -> float:
        """There's clock minus here's at `reference_ns`."""
        return self.base_ns + self.rest_ns

    def offset_at(self, here_ns: int) -> tuple[float, float]:
        """Offset and uncertainty when here's clock reads `here_ns`; the uncertainty grows with the time from the measurement."""
        away_s = (here_ns - self.reference_ns) / NS_PER_S
        offset = self.base_ns + (self.rest_ns + 1e3 * self.drift_ppm * away_s)
        return offset, self.uncertainty_ns + 1e3 * (self.drift_uncertainty_ppm + WANDER_PPM) * abs(away_s)

    def one_way(self, sent_there_ns: int, received_here_ns: int) -> "OneWay":
        """How long something took from there to here."""
        away_s = (received_here_ns - self.reference_ns) / NS_PER_S
        # Whole numbers first: two clocks may be a century apart, and a float holds no nanoseconds of that.
        taken_ns = float(received_here_ns - sent_there_ns + self.base_ns)
        taken_ns += self.rest_ns + 1e3 * self.drift_ppm * away_s
        return OneWay(taken_ns / NS_PER_MS, self.offset_at(received_here_ns)[1] / NS_PER_MS)


@dataclass(frozen=True)
class OneWay:
    """A latency across two clocks."""

    measured_ms: float
    uncertainty_ms: float

    @property
    def shown_ms(self) -> float | None:
        """The latency, or None where its uncertainty is larger than itself: then it is no number to show."""
        return self.measured_ms if self.uncertainty_ms <= self.measured_ms else None


def estimate_clock(stamps_ns: Int64[np.ndarray, "n 4"]) -> ClockEstimate:
    """Offset and drift from exchanges.

    Args:
        stamps_ns: t1, t2, t3, t4 of each answered exchange, in any order: here's, there's, there's and here's clock.

    Raises:
        CalibrationError: Too few exchanges, stamps that contradict themselves, or clocks that did not keep their rate.
    """
    if stamps_ns.ndim != 2 or stamps_ns.shape[1] != 4 or len(stamps_ns) < MIN_EXCHANGES:
        raise CalibrationError(
            f"a clock needs at least {MIN_EXCHANGES} answered exchanges of 4 stamps, got {stamps_ns.shape}; ask for more"
        )
    sent, there_in, there_out, back = stamps_ns.T
    if (back < sent).any() or (there_out < there_in).any():
        raise CalibrationError(
            "an exchange must end after it began on either clock, got one that does not; this is no answer of ours"
        )
    reference = int(sent.min()) + (int(back.max()) - int(sent.min())) // 2
    base = int(np.median(there_in - sent))
    # Here's time in s from the reference, offsets in ns from the base.
    when = np.concatenate([sent - reference, back - reference]) / NS_PER_S
    slack = 1e3 * WANDER_PPM * np.abs(when)
    count = len(stamps_ns)
    upper = _Lines(when[:count], (there_in - sent - base).astype(np.float64) + slack[:count])
    lower = _Lines(when[count:], (there_out - back - base).astype(np.float64) - slack[count:])

    def room(drift: float) -> float:
        return upper.least(drift) - lower.most(drift)

    most = 1e3 * MAX_DRIFT_PPM  # ns per s
    best = _peak(room, -most, most)
    if room(best) < 0.0:
        raise CalibrationError(
            f"the exchanges of {np.ptp(when):.1f} s contradict each other by {-room(best) / 1e3:.1f} us: a clock was set, or "
            "one of the hosts slept; measure again"
        )
    slowest, fastest = _edge(room, best, -most), _edge(room, best, most)
    highest = upper.least(_peak(upper.least, slowest, fastest))
    lowest = lower.most(_peak(lambda drift: -lower.most(drift), slowest, fastest))
    return ClockEstimate(
        reference_ns=reference,
        base_ns=base,
        rest_ns=0.5 * (highest + lowest),
        uncertainty_ns=0.5 * (highest - lowest) + 1.0,  # stamps are whole nanoseconds
        drift_ppm=0.5 * (fastest + slowest) / 1e3,
        drift_uncertainty_ppm=0.5 * (fastest - slowest) / 1e3,
    )


@dataclass(frozen=True)
class _Lines:
    """Bounds on the offset at several times."""

    when_s: Float64[np.ndarray, " n"]
    bound_ns: Float64[np.ndarray, " n"]

    def least(self, drift: float) -> float:
        """The largest offset at the reference that stays below every bound; concave in the drift (ns per s)."""
        return float((self.bound_ns - drift * self.when_s).min())

    def most(self, drift: float) -> float:
        """The smallest offset at the reference that stays above every bound; convex in the drift."""
        return float((self.bound_ns - drift * self.when_s).max())


def _peak(concave: Callable[[float], float], low: float, high: float) -> float:
    """Where a concave function is largest, by ternary search."""
    for _ in range(90):
        third = (high - low) / 3.0
        if concave(low + third) < concave(high - third):
            low += third
        else:
            high -= third
    return 0.5 * (low + high)


def _edge(concave: Callable[[float], float], inside: float, end: float) -> float:
    """How far from `inside` towards `end` a concave function stays at or above 0; rounded outwards."""
    if concave(end) >= 0.0:
        return end
    for _ in range(60):
        middle = 0.5 * (inside + end)
        inside, end = (middle, end) if concave(middle) >= 0.0 else (inside, middle)
    return end


def measure_clock(
    stamps_ns: Int64[np.ndarray, "n 4"], lost: int = 0, limit_ms: float = LIMIT_MS
) -> ClockResult:
    """What a record keeps of exchanges with another host.

    Args:
        stamps_ns: As `estimate_clock` takes them.
        lost: Exchanges that were not answered.
        limit_ms: The uncertainty above which no offset is given.

    Raises:
        CalibrationError: As `estimate_clock`.
    """
    estimate = estimate_clock(stamps_ns)
    round_trips = ((stamps_ns[:, 3] - stamps_ns[:, 0]) - (stamps_ns[:, 2] - stamps_ns[:, 1])) / NS_PER_MS
    uncertainty_ms = estimate.uncertainty_ns / NS_PER_MS
    passed = uncertainty_ms <= limit_ms
    drift_known = passed and estimate.drift_uncertainty_ppm <= abs(estimate.drift_ppm)
    offset_ms = estimate.offset_ns / NS_PER_MS
    if not passed:
        said = (
            f"the offset is uncertain by {uncertainty_ms:.3f} ms, more than {limit_ms:g} ms, so none is given"
        )
    else:
        said = (
            f"the publisher's clock is {offset_ms:+.3f} ms from this host's, within {uncertainty_ms:.3f} ms"
        )
    rate = (
        f"it runs {estimate.drift_ppm:+.2f} ppm faster, within {estimate.drift_uncertainty_ppm:.2f}"
        if drift_known
        else f"its drift is not told apart from none (uncertain by {estimate.drift_uncertainty_ppm:.2f} ppm)"
    )
    return ClockResult(
        passed=passed,
        frames=0,
        residual=uncertainty_ms,
        limit=limit_ms,
        unit="ms",
        says=(said, rate),
        offset_ms=offset_ms if passed else None,
        uncertainty_ms=uncertainty_ms,
        drift_ppm=estimate.drift_ppm if drift_known else None,
        drift_uncertainty_ppm=estimate.drift_uncertainty_ppm,
        reference_ns=estimate.reference_ns,
        span_s=float(stamps_ns[:, 3].max() - stamps_ns[:, 0].min()) / NS_PER_S,
        exchanges=len(stamps_ns),
        lost=lost,
        round_trip_min_ms=float(round_trips.min()),
        round_trip_median_ms=float(np.median(round_trips)),
        round_trip_max_ms=float(round_trips.max()),
    )
