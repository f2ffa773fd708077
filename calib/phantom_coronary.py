"""The coronary tree: a fixed canonical tree in heart coordinates, varied a little for each patient.

The left coronary artery on the heart's surface: the anterior descending artery (LAD) in the anterior groove between
the ventricles, the circumflex (LCX) in the groove behind the left atrium, their diagonal (D) and marginal (OM)
branches over the left ventricle's free wall, the septal ones (S) inside. The courses are drawn by us after textbook
anatomy, no patient's.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float32, Float64, Int64

from calib.phantom_rendering import spline

OSTIUM = (-0.58, -0.55, 0.10)
"""Where the left main artery leaves the aorta and the catheter's tip sits, (s, q, w)."""
HEART_MM = 52.0
"""Half of a mean heart's size: turns lengths in heart coordinates into mm."""
HIDDEN = -1
"""Sheet of a branch's beginning inside its parent, which is drawn already."""
_STEP = 2.0 / HEART_MM

Place = tuple[float, float, float]


@dataclass(frozen=True)
class _Plan:
    """A branch as it is meant to be. Places are (s, angle in degrees, height): the angle about the long axis is 0
    at the anterior superior border, 90 on the right ventricle and -90 on the left one's free wall; the height
    is 1 at the surface and 0 in the heart's middle."""

    name: str
    parent: str
    at: float
    """Where on the parent, 0 to 1."""
    sheet: int
    thick_mm: float
    """Radius at the start."""
    thin_mm: float
    """And at the end."""
    course: tuple[Place, ...]
    usual: bool = True
    """Part of the canonical tree."""
    change: float = 0.0
    """How often it is otherwise in a population: lacking if usual, else there."""


_H = 0.97
"""Height of the arteries on the surface."""

_PLANS = (
    _Plan("LM", "", 0.0, 0, 2.4, 2.25, ((-0.62, 9.0, 0.84), (-0.46, 16.0, 0.94))),
    _Plan("LAD", "LM", 1.0, 0, 2.05, 0.6, (
        (-0.26, 27.0, _H), (0.02, 38.0, _H), (0.30, 41.0, _H), (0.58, 37.0, _H), (0.82, 26.0, _H), (0.96, 6.0, _H),
        (0.985, 120.0, _H), (0.92, 168.0, _H))),
    _Plan("LCX", "LM", 1.0, 1, 1.85, 0.7, (
        (-0.46, -10.0, _H), (-0.52, -42.0, _H), (-0.53, -78.0, _H), (-0.47, -112.0, _H), (-0.38, -142.0, _H))),
    _Plan("D1", "LAD", 0.15, 1, 1.25, 0.4, ((0.0, 14.0, _H), (0.20, -3.0, _H), (0.46, -15.0, _H), (0.64, -20.0, _H))),
    _Plan("D2", "LAD", 0.36, 0, 1.1, 0.38, ((0.42, 21.0, _H), (0.58, 7.0, _H), (0.76, -6.0, _H))),
    _Plan("S1", "LAD", 0.18, 1, 0.75, 0.36, ((0.02, 34.0, 0.72), (0.10, 48.0, 0.50), (0.26, 80.0, 0.36))),
    _Plan("S2", "LAD", 0.29, 0, 0.7, 0.36, ((0.24, 38.0, 0.74), (0.40, 52.0, 0.56), (0.64, 78.0, 0.46))),
    _Plan("S3", "LAD", 0.44, 1, 0.6, 0.36, ((0.54, 38.0, 0.80), (0.72, 52.0, 0.68)), change=0.4),
    _Plan("OM1", "LCX", 0.26, 0, 1.4, 0.42, ((-0.32, -50.0, _H), (-0.04, -58.0, _H), (0.26, -62.0, _H), (0.54, -62.0, _H))),
    _Plan("OM2", "LCX", 0.55, 1, 1.3, 0.4, ((-0.30, -94.0, _H), (-0.02, -101.0, _H), (0.26, -104.0, _H), (0.46, -102.0, _H)),
          change=0.2),
    _Plan("OM3", "LCX", 0.80, 0, 0.95, 0.38, ((-0.22, -132.0, _H), (0.04, -138.0, _H), (0.26, -140.0, _H)), change=0.35),
    _Plan("LA", "LCX", 0.10, 0, 0.75, 0.36, ((-0.60, -26.0, _H), (-0.76, -44.0, _H), (-0.86, -80.0, _H)), change=0.4),
    _Plan("RI", "LM", 1.0, 0, 1.2, 0.4, ((-0.26, -12.0, _H), (0.02, -32.0, _H), (0.28, -42.0, _H)), False, 0.25),
    _Plan("D3", "LAD", 0.50, 1, 0.8, 0.38, ((0.64, 24.0, _H), (0.76, 12.0, _H), (0.86, 0.0, _H)), False, 0.4),
    _Plan("PDA", "LCX", 1.0, 1, 1.0, 0.4, ((-0.26, -160.0, _H), (0.02, -178.0, _H), (0.34, -183.0, _H)), False, 0.15),
    _Plan("PL", "LCX", 0.92, 0, 0.85, 0.38, ((-0.16, -152.0, _H), (0.10, -160.0, _H), (0.30, -164.0, _H)), False, 0.2),
)  # fmt: skip
_TWIGS = (("LAD", 5), ("D1", 4), ("D2", 3), ("OM1", 5), ("OM2", 5), ("LCX", 3), ("OM3", 2))
"""Small side branches grown from these, by number; as many others stand ready for varied trees."""
_TWIG_CHANGE = 0.45

_GROOVES: tuple[tuple[float, tuple[Place, ...]], ...] = (
    # how much of their fat shows, course: the posterior groove, the right atrioventricular one, then those of the
    # anterior descending and circumflex arteries, which are drawn over the others
    (0.5, ((-0.34, -165.0, _H), (0.0, -178.0, _H), (0.34, -183.0, _H), (0.64, -184.0, _H))),
    (0.5, ((-0.50, 40.0, _H), (-0.52, 80.0, _H), (-0.48, 120.0, _H), (-0.38, 160.0, _H))),
    (1.0, ((-0.46, 16.0, _H), (-0.26, 27.0, _H), (0.02, 38.0, _H), (0.30, 41.0, _H), (0.58, 37.0, _H),
           (0.82, 26.0, _H))),
    (1.0, ((-0.46, 16.0, _H), (-0.46, -10.0, _H), (-0.52, -42.0, _H), (-0.53, -78.0, _H), (-0.47, -112.0, _H),
           (-0.38, -142.0, _H))),
)  # fmt: skip


@dataclass(frozen=True)
class CoronaryTree:
    """A tree as straight segments in heart coordinates."""

    points: Float64[np.ndarray, "n 3"]
    """(s, q, w) along the centrelines, branch after branch."""
    radii_mm: Float64[np.ndarray, " n"]
    """Radius at each point."""
    reach_mm: Float64[np.ndarray, " n"]
    """Distance from the ostium along the vessel, at each point."""
    sheets: Int64[np.ndarray, " n"]
    """The sheet each point lies in; branches of different sheets cross behind each other. `HIDDEN` is none."""
    branch_starts: Int64[np.ndarray, " b"]
    """Index of each branch's first point."""
    branch_names: tuple[str, ...]

    @property
    def segments(self) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
        """Indices of the first point of each segment that is drawn, and the sheet it lies in."""
        first = np.ones(len(self.points), bool)
        first[self.branch_starts[1:] - 1] = False  # a branch's last point starts no segment
        first[-1] = False
        first &= self.sheets != HIDDEN
        return np.flatnonzero(first), self.sheets[first]

    def branch(self, index: int) -> slice:
        """The points of one branch."""
        stop = self.branch_starts[index + 1] if index + 1 < len(self.branch_starts) else len(self.points)
        return slice(int(self.branch_starts[index]), int(stop))

    def thinned(self, stride: int) -> "CoronaryTree":
        """The same tree with every `stride`-th point of each branch, and each one's last."""
        counts = np.diff(self.branch_starts, append=len(self.points))
        place = np.arange(len(self.points)) - np.repeat(self.branch_starts, counts)
        kept = (place % stride == 0) | (place == np.repeat(counts, counts) - 1)
        return CoronaryTree(
            points=self.points[kept],
            radii_mm=self.radii_mm[kept],
            reach_mm=self.reach_mm[kept],
            sheets=self.sheets[kept],
            branch_starts=(np.cumsum(kept) - kept)[self.branch_starts],
            branch_names=self.branch_names,
        )


@cache
def grooves() -> tuple[Float64[np.ndarray, "m 3"], tuple[int, ...], tuple[float, ...]]:
    """The canonical grooves of the heart's surface, which hold fat; the same for all patients.

    Returns:
        (s, q, w) along the grooves, one after the other; where each but the first begins; and how much of each
        one's fat shows, 0 to 1, in rising order.
    """
    courses = [_on_shells(np.array([_place(place) for place in places]))[::2] for _share, places in _GROOVES]
    cuts = np.cumsum([len(course) for course in courses])[:-1]
    return np.vstack(courses), tuple(int(cut) for cut in cuts), tuple(share for share, _places in _GROOVES)


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cross products along the last axis: numpy's own takes several times as long for so few."""
    a, b, c = one[..., 0], one[..., 1], one[..., 2]
    u, v, w = other[..., 0], other[..., 1], other[..., 2]
    return np.stack([b * w - c * v, c * u - a * w, a * v - b * u], axis=-1)


def _lengths(vectors: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n"]:
    lengths: np.ndarray = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    return lengths


def _place(place: Place) -> Float64[np.ndarray, " 3"]:
    s, angle_deg, height = place
    angle, across = np.deg2rad(angle_deg), np.sqrt(1.0 - s * s)
    return height * np.array([s, -across * np.cos(angle), across * np.sin(angle)])


def _on_shells(knots: Float64[np.ndarray, "k 3"]) -> Float64[np.ndarray, "n 3"]:
    """A spline through `knots` whose height follows theirs, rather than cutting through the heart between them."""
    curve = spline(np.hstack([knots, _lengths(knots)[:, None]]), _STEP)
    points = curve[:, :3]
    shelled: np.ndarray = points * (curve[:, 3] / _lengths(points))[:, None]
    return shelled


@dataclass(frozen=True)
class _Branch:
    name: str
    sheet: int
    points: Float64[np.ndarray, "n 3"]
    radii_mm: Float64[np.ndarray, " n"]
    reach_mm: Float64[np.ndarray, " n"]
    sheets: Int64[np.ndarray, " n"]
    end: int
    """Points up to here are kept: an artery may end early."""


@dataclass(frozen=True)
class _Origin:
    """Where a branch leaves its parent."""

    sheet: int
    point: Float64[np.ndarray, " 3"]
    radius_mm: float
    reach_mm: float

    @classmethod
    def on(cls, parent: _Branch, place: int) -> "_Origin":
        return cls(
            parent.sheet, parent.points[place], float(parent.radii_mm[place]), float(parent.reach_mm[place])
        )


def grow_tree(seed: int, variation: float) -> CoronaryTree:
    """One patient's tree.

    Args:
        seed: The patient.
        variation: 0 gives the canonical tree, the same for all. 1 is a population's spread: courses bent by
            about 5 mm on average, calibres spread by a third, branches leaving elsewhere, some lacking, others
            there that are not usual, the circumflex shorter or dominant. In between all grow in proportion.
    """
    if variation == 0.0:
        return _canonical_tree()
    return _grow_tree(np.random.default_rng((seed, 0x7EE)), variation)


@dataclass(frozen=True)
class _Canon:
    """What chance has settled once for everyone: bends and twigs."""

    courses: dict[str, Float64[np.ndarray, "_ 3"]]
    branches: Float64[np.ndarray, "b 4"]
    """How each branch sways, 0 to 1."""
    twigs: dict[str, Float64[np.ndarray, "_ 10"]]
    """Where each twig of a branch leaves, its heading, length and three turns, and how it sways, 0 to 1."""


@cache
def _canon() -> _Canon:
    rng = np.random.default_rng(0xC0A0)
    return _Canon(
        courses={plan.name: np.array([_place(place) for place in plan.course]) for plan in _PLANS},
        branches=rng.random((len(_PLANS), 4)),
        twigs={name: rng.random((2 * count, 10)) for name, count in _TWIGS},
    )


@cache
def _canonical_tree() -> CoronaryTree:
    return _grow_tree(np.random.default_rng(0), 0.0)


def _grow_tree(rng: np.random.Generator, variation: float) -> CoronaryTree:
    """Grow every branch, usual or not, with the canon's own bends; keep those this patient has."""
    canon = _canon()
    bend = _Bend.draw(rng, variation)
    grown: dict[str, _Branch] = {}
    for plan, sway in zip(_PLANS, canon.branches, strict=True):
        slip = 0.04 * variation * float(np.clip(rng.normal(), -2.0, 2.0))
        otherwise = rng.random() < plan.change * variation
        short = 1.0 - 0.3 * variation * rng.random() if plan.name == "LCX" else 1.0
        course = canon.courses[plan.name]
        if not plan.parent:
            origin = _Origin(plan.sheet, np.array(OSTIUM), 0.0, 0.0)
        else:
            parent = grown[plan.parent]
            last = parent.end - 1
            usual = round(plan.at * (len(parent.points) - 1))
            place = usual
            if plan.at < 1.0:
                place = int(np.clip(usual + round(slip * len(parent.points)), 2, last))
            origin = _Origin.on(parent, min(place, last))
            # The course moves along with the take-off, less so further out.
            fade = np.linspace(0.8, 0.3, len(course))[:, None]
            course = _keep_height(course, course + fade * (origin.point - parent.points[usual]))
        if plan.usual != otherwise:
            branch = _grow(plan.name, plan.sheet, origin, course, plan.thick_mm, plan.thin_mm, sway)
            grown[plan.name] = replace(branch, end=max(4, round(short * len(branch.points))))
    branches = list(grown.values())
    for name, count in _TWIGS:
        number = np.arange(2 * count)
        changes = rng.random(2 * count) < _TWIG_CHANGE * variation
        if name in grown:
            branches += _twigs(grown[name], number[(number < count) != changes], count, canon.twigs[name])
    counts = np.array([branch.end for branch in branches])
    calibre = np.clip(rng.normal(0.0, 1.0, len(branches)), -1.5, 1.5)
    points = np.concatenate([branch.points[: branch.end] for branch in branches])
    radii_mm = np.concatenate([branch.radii_mm[: branch.end] for branch in branches])
    return CoronaryTree(
        points=bend.bent(points),
        radii_mm=radii_mm * np.exp(0.3 * variation * np.repeat(calibre, counts)),
        reach_mm=np.concatenate([branch.reach_mm[: branch.end] for branch in branches]),
        sheets=np.concatenate([branch.sheets[: branch.end] for branch in branches]),
        branch_starts=(np.cumsum(counts) - counts).astype(np.int64),
        branch_names=tuple(branch.name for branch in branches),
    )


def _keep_height(
    before: Float64[np.ndarray, "k 3"], moved: Float64[np.ndarray, "k 3"]
) -> Float64[np.ndarray, "k 3"]:
    """`moved`, as high above the heart's middle as `before` is."""
    kept: np.ndarray = moved * (_lengths(before) / _lengths(moved))[:, None]
    return kept


def _grow(
    name: str,
    sheet: int,
    origin: _Origin,
    course: Float64[np.ndarray, "k 3"],
    thick_mm: float,
    thin_mm: float,
    sway: Float64[np.ndarray, "4"],
) -> _Branch:
    """A branch from `origin` along `course`, tapering from `thick_mm` to `thin_mm`; see `_tortuous` for `sway`."""
    points, length = _tortuous(_on_shells(np.vstack([origin.point, course])), sway * (name != "LM"))
    length_mm = length * HEART_MM
    # Inside a parent of another sheet it is not drawn, else the lumen there would count twice.
    hidden = (length_mm < origin.radius_mm) & (sheet != origin.sheet)
    return _Branch(
        name=name,
        sheet=sheet,
        points=points,
        radii_mm=thin_mm + (thick_mm - thin_mm) * (1.0 - length / length[-1]) ** 1.1,
        reach_mm=origin.reach_mm + length_mm,
        sheets=np.where(hidden, HIDDEN, sheet).astype(np.int64),
        end=len(points),
    )


def _tortuous(
    points: Float64[np.ndarray, "*b n 3"], sway: Float64[np.ndarray, "*b 4"]
) -> tuple[Float64[np.ndarray, "*b n 3"], Float64[np.ndarray, "*b n"]]:
    """Courses with two waves to their sides, and the distance along them.

    Args:
        points: The courses.
        sway: 0 to 1: how quick the two waves are, and where they begin. All 0 is none.
    """
    step = np.diff(points, axis=-2, prepend=points[..., :1, :])
    length = np.cumsum(_lengths(step), axis=-1)
    aside = _cross(step, points)
    aside /= np.maximum(_lengths(aside)[..., None], 1e-9)
    quick, begin = sway[..., None, :2], 2 * np.pi * sway[..., None, 2:]
    waves = np.sin((np.array([14.0, 29.0]) + np.array([12.0, 25.0]) * quick) * length[..., None] + begin)
    # None at the origin: an artery starts where its parent is.
    grows = np.minimum(1.0, 4.0 * length / length[..., -1:]) * sway.any(axis=-1, keepdims=True)
    return points + aside * ((waves @ np.array([0.022, 0.010])) * grows)[..., None], length


def _twigs(
    parent: _Branch, numbers: Int64[np.ndarray, " t"], count: int, draws: Float64[np.ndarray, "_ 10"]
) -> list[_Branch]:
    """Small side branches, to alternating sides, bending towards their parent's direction; none past its end."""
    along = 0.25 + 0.7 * (numbers % count + 0.2 + 0.6 * draws[numbers, 0]) / count
    places = np.round(along * (len(parent.points) - 2)).astype(np.int64)
    kept = places < parent.end - 1
    numbers, places = numbers[kept], places[kept]
    if not len(numbers):
        return []
    draws = draws[numbers]
    point = parent.points[places]
    ahead = parent.points[places + 1] - point
    ahead /= _lengths(ahead)[:, None]
    aside = _cross(ahead, point)
    aside /= _lengths(aside)[:, None]
    side = np.where((numbers + numbers // count) % 2, 1.0, -1.0)
    turn = side * (0.7 + 0.4 * draws[:, 1])
    length = 0.05 + 0.05 * draws[:, 2]
    knots = [point]
    for knot in range(3):
        way = np.cos(turn)[:, None] * ahead + np.sin(turn)[:, None] * aside
        knots.append(_keep_height(knots[-1], knots[-1] + length[:, None] * way))
        turn = turn * (0.5 + 0.5 * draws[:, 3 + knot])
    course = np.stack(knots)  # (knot, twig, place): one spline for all, pieces of equal number
    curve = spline(course.reshape(4, -1), float(np.sqrt(len(numbers))) * _STEP).reshape(-1, len(numbers), 3)
    points, length = _tortuous(curve.swapaxes(0, 1), draws[:, 6:])
    thick_mm = np.minimum(0.6, 0.7 * parent.radii_mm[places])
    radii_mm = 0.35 + (thick_mm - 0.35)[:, None] * (1.0 - length / length[:, -1:]) ** 1.1
    length_mm = length * HEART_MM
    sheets = np.where(length_mm < parent.radii_mm[places, None], HIDDEN, 1 - parent.sheet)
    return [
        _Branch(
            name=f"{parent.name}-{number + 1}",
            sheet=1 - parent.sheet,
            points=points[twig],
            radii_mm=radii_mm[twig],
            reach_mm=parent.reach_mm[places[twig]] + length_mm[twig],
            sheets=sheets[twig],
            end=points.shape[1],
        )
        for twig, number in enumerate(numbers)
    ]


@dataclass(frozen=True)
class _Bend:
    """A smooth displacement of the heart's surface within itself; the ostium stays where the catheter's tip is."""

    waves: Float64[np.ndarray, "3 6"]
    phases: Float64[np.ndarray, " 6"]
    pushes: Float64[np.ndarray, "6 3"]

    @classmethod
    def draw(cls, rng: np.random.Generator, variation: float) -> "_Bend":
        waves = rng.normal(0.0, 1.6, (3, 6))
        phases = rng.uniform(0, 2 * np.pi, 6)
        return cls(waves, phases, 0.042 * variation * rng.normal(0.0, 1.0, (6, 3)))

    def bent(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        origin = np.array([OSTIUM])
        push = np.sin(points @ self.waves + self.phases) @ self.pushes
        push -= np.sin(origin @ self.waves + self.phases) @ self.pushes
        return _keep_height(points, points + push)


def taper_px(
    radii_mm: Float64[np.ndarray, " n"], first: Int64[np.ndarray, " m"], spacing_mm: float
) -> Float32[np.ndarray, "m 2"]:
    """Radii at the two ends of each segment, in pixels."""
    return (np.stack([radii_mm[first], radii_mm[first + 1]], axis=1) / spacing_mm).astype(np.float32)
