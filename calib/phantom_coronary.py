"""The coronary tree: a fixed canonical tree in heart coordinates, bent a little for each patient.

Heart coordinates: s runs along the heart's long axis from the base (-1) to the apex (+1), q across it from the
upper border (-1) to the lower (+1); the visible outline is the unit circle. The view is a right anterior oblique
one of the left coronary artery. The courses are drawn by us after textbook anatomy, no patient's.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Float64, Int64

from calib.phantom_rendering import spline

OSTIUM = (-0.62, -0.36)
"""Where the left main artery leaves the aorta and the catheter's tip sits, (s, q)."""
HEART_MM = 58.0
"""Half of a mean heart's size: turns lengths in heart coordinates into mm."""
HIDDEN = -1
"""Sheet of a branch's beginning inside its parent, which is drawn already."""
_STEP = 2.0 / HEART_MM
_GROOVE_BRANCHES = ("LM", "LAD", "LCX")

# fmt: off
_BRANCHES: tuple[tuple[str, str, float, int, float, float, tuple[tuple[float, float], ...]], ...] = (
    # name, parent, where on it (0 to 1), sheet, radius at start and end in mm, course (s, q)
    ("LM", "", 0.0, 0, 2.4, 2.25, (OSTIUM, (-0.52, -0.42), (-0.42, -0.42))),
    ("LAD", "LM", 1.0, 0, 2.05, 0.6,
     ((-0.16, -0.54), (0.16, -0.50), (0.48, -0.40), (0.78, -0.22), (0.94, 0.02), (0.92, 0.14))),
    ("LCX", "LM", 1.0, 1, 1.85, 0.7,
     ((-0.36, -0.22), (-0.46, 0.06), (-0.48, 0.36), (-0.36, 0.64), (-0.16, 0.80))),
    ("D1", "LAD", 0.16, 1, 1.25, 0.4, ((0.02, -0.66), (0.26, -0.74), (0.50, -0.66), (0.66, -0.56))),
    ("D2", "LAD", 0.40, 0, 1.1, 0.36, ((0.34, -0.34), (0.52, -0.14), (0.66, 0.06), (0.72, 0.22))),
    ("S1", "LAD", 0.22, 1, 0.75, 0.32, ((0.00, -0.34), (0.06, -0.14), (0.16, 0.02))),
    ("S2", "LAD", 0.34, 0, 0.7, 0.32, ((0.20, -0.30), (0.28, -0.10), (0.36, 0.04))),
    ("S3", "LAD", 0.55, 1, 0.6, 0.32, ((0.52, -0.24), (0.56, -0.10))),
    ("OM1", "LCX", 0.20, 0, 1.4, 0.42, ((-0.24, -0.06), (0.02, 0.12), (0.30, 0.24), (0.54, 0.36))),
    ("OM2", "LCX", 0.48, 1, 1.3, 0.4, ((-0.30, 0.30), (-0.04, 0.42), (0.20, 0.56), (0.36, 0.64))),
    ("OM3", "LCX", 0.74, 0, 0.95, 0.36, ((-0.20, 0.62), (0.02, 0.72), (0.14, 0.80))),
    ("LA", "LCX", 0.10, 0, 0.75, 0.32, ((-0.52, -0.10), (-0.66, 0.04), (-0.72, 0.20))),
)
# fmt: on
_TWIGS = (("LAD", 5), ("D1", 4), ("D2", 4), ("OM1", 5), ("OM2", 5), ("LCX", 3), ("S1", 2))
"""Small side branches grown from these, by number."""


@dataclass(frozen=True)
class CoronaryTree:
    """A tree as straight segments in heart coordinates. Later views may add a depth column to `points`."""

    points: Float64[np.ndarray, "n 2"]
    """(s, q) along the centrelines, branch after branch."""
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


def grow_tree(seed: int, variation: float) -> CoronaryTree:
    """One patient's tree.

    Args:
        seed: The patient.
        variation: 0 gives the canonical tree, the same for all; 1 moves its courses by about 5 mm on
            average and spreads its calibres by a third. In between both grow in proportion.
    """
    return _bend(_canonical_tree(), np.random.default_rng((seed, 0x7EE)), variation)


def grooves() -> tuple[Float64[np.ndarray, "m 2"], Float64[np.ndarray, "m 2"]]:
    """The great vessels' canonical course, where the heart's grooves hold fat; the same for all patients.

    Returns:
        Start and end (s, q) of straight pieces.
    """
    tree = _canonical_tree()
    courses = [
        tree.points[tree.branch(index)][::2]
        for index, name in enumerate(tree.branch_names)
        if name in _GROOVE_BRANCHES
    ]
    return np.vstack([course[:-1] for course in courses]), np.vstack([course[1:] for course in courses])


@dataclass(frozen=True)
class _Branch:
    name: str
    sheet: int
    points: Float64[np.ndarray, "n 2"]
    radii_mm: Float64[np.ndarray, " n"]
    reach_mm: Float64[np.ndarray, " n"]
    sheets: Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class _Origin:
    """Where a branch leaves its parent."""

    sheet: int
    point: Float64[np.ndarray, " 2"]
    radius_mm: float
    reach_mm: float

    @classmethod
    def on(cls, parent: _Branch, place: int) -> "_Origin":
        return cls(
            parent.sheet, parent.points[place], float(parent.radii_mm[place]), float(parent.reach_mm[place])
        )


@cache
def _canonical_tree() -> CoronaryTree:
    rng = np.random.default_rng(0xC0A0)  # one tree for everyone: its twigs and bends are part of the canon
    grown: dict[str, _Branch] = {}
    for name, parent, at, sheet, thick_mm, thin_mm, course in _BRANCHES:
        if parent:
            origin = _Origin.on(grown[parent], round(at * (len(grown[parent].points) - 1)))
            grown[name] = _grow(name, sheet, origin, np.array(course), thick_mm, thin_mm, rng)
        else:
            origin = _Origin(sheet, np.array(course[0]), 0.0, 0.0)
            grown[name] = _grow(name, sheet, origin, np.array(course[1:]), thick_mm, thin_mm, rng)
    branches = list(grown.values())
    for parent, count in _TWIGS:
        branches += _twigs(grown[parent], count, rng)
    counts = np.array([len(branch.points) for branch in branches])
    return CoronaryTree(
        points=np.concatenate([branch.points for branch in branches]),
        radii_mm=np.concatenate([branch.radii_mm for branch in branches]),
        reach_mm=np.concatenate([branch.reach_mm for branch in branches]),
        sheets=np.concatenate([branch.sheets for branch in branches]),
        branch_starts=(np.cumsum(counts) - counts).astype(np.int64),
        branch_names=tuple(branch.name for branch in branches),
    )


def _grow(
    name: str,
    sheet: int,
    origin: _Origin,
    course: Float64[np.ndarray, "k 2"],
    thick_mm: float,
    thin_mm: float,
    rng: np.random.Generator,
) -> _Branch:
    """A spline from `origin` along `course`, a little tortuous, tapering from `thick_mm` to `thin_mm`."""
    points = spline(np.vstack([origin.point, course]), _STEP)
    step = np.diff(points, axis=0, prepend=points[:1])
    length = np.cumsum(np.linalg.norm(step, axis=1))
    along = length / length[-1]
    waves = rng.uniform(7.0, 13.0, 2) * np.array([2.0, 4.2])
    phases = rng.uniform(0, 2 * np.pi, 2)
    if name != "LM":
        normal = np.stack([-step[:, 1], step[:, 0]], axis=1)
        normal /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
        sway = 0.018 * np.sin(waves[0] * length + phases[0]) + 0.008 * np.sin(waves[1] * length + phases[1])
        # None at the origin: an artery starts where its parent is.
        points = points + normal * (sway * np.minimum(1.0, along * 4))[:, None]
    length_mm = length * HEART_MM
    # Inside a parent of another sheet it is not drawn, else the lumen there would count twice.
    hidden = (length_mm < origin.radius_mm) & (sheet != origin.sheet)
    return _Branch(
        name=name,
        sheet=sheet,
        points=points,
        radii_mm=thin_mm + (thick_mm - thin_mm) * (1.0 - along) ** 1.1,
        reach_mm=origin.reach_mm + length_mm,
        sheets=np.where(hidden, HIDDEN, sheet).astype(np.int64),
    )


def _twigs(parent: _Branch, count: int, rng: np.random.Generator) -> list[_Branch]:
    """Small side branches of one branch, to alternating sides, bending towards its direction."""
    twigs: list[_Branch] = []
    for number in range(count):
        place = round((0.25 + 0.7 * (number + rng.uniform(0.2, 0.8)) / count) * (len(parent.points) - 2))
        ahead = parent.points[place + 1] - parent.points[place]
        heading = np.arctan2(ahead[1], ahead[0])
        turn = (1 if number % 2 else -1) * rng.uniform(0.7, 1.1)
        length = rng.uniform(0.14, 0.30)
        point = parent.points[place]
        course = []
        for _ in range(3):
            point = point + length / 3 * np.array([np.cos(heading + turn), np.sin(heading + turn)])
            course.append(point * min(1.0, 0.95 / np.linalg.norm(point)))  # arteries lie on the heart
            turn *= rng.uniform(0.5, 1.0)
        thick_mm = float(min(0.62, 0.7 * parent.radii_mm[place]))
        origin = _Origin.on(parent, place)
        twigs.append(
            _grow(f"{parent.name}-{number}", 1 - parent.sheet, origin, np.array(course), thick_mm, 0.25, rng)
        )
    return twigs


def _bend(tree: CoronaryTree, rng: np.random.Generator, variation: float) -> CoronaryTree:
    """Bend a tree by a smooth displacement of the heart's plane, and vary its calibres."""
    waves = rng.normal(0.0, 1.7, (6, 2))
    phases = rng.uniform(0, 2 * np.pi, 6)
    pushes = rng.normal(0.0, 1.0, (6, 2)) / np.sqrt(6)
    calibre = rng.normal(0.0, 1.0, len(tree.branch_names))
    origin = np.array(OSTIUM)

    def displacement(points: np.ndarray) -> np.ndarray:
        moved: np.ndarray = np.sin(points @ waves.T + phases) @ pushes
        return moved

    # The ostium stays where the catheter's tip is.
    shift = 0.10 * variation * (displacement(tree.points) - displacement(origin[None]))
    counts = np.diff(tree.branch_starts, append=len(tree.points))
    factor = np.exp(0.3 * variation * np.clip(np.repeat(calibre, counts), -1.5, 1.5))
    return CoronaryTree(
        points=tree.points + shift,
        radii_mm=tree.radii_mm * factor,
        reach_mm=tree.reach_mm,
        sheets=tree.sheets,
        branch_starts=tree.branch_starts,
        branch_names=tree.branch_names,
    )


def taper_px(
    radii_mm: Float64[np.ndarray, " n"], first: Int64[np.ndarray, " m"], spacing_mm: float
) -> Float32[np.ndarray, "m 2"]:
    """Radii at the two ends of each segment, in pixels."""
    return (np.stack([radii_mm[first], radii_mm[first + 1]], axis=1) / spacing_mm).astype(np.float32)
