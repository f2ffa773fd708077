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
_STEP = 2.0 / HEART_MM
_GROOVE_BRANCHES = ("LM", "LAD", "LCX")

_BRANCHES: tuple[tuple[str, str, float, int, float, float, tuple[tuple[float, float], ...]], ...] = (
    # name, parent, where on the parent (0 to 1), sheet, radius at start and end in mm, course (s, q)
    ("LM", "", 0.0, 0, 2.3, 2.1, (OSTIUM, (-0.52, -0.42), (-0.42, -0.42))),
    (
        "LAD",
        "LM",
        1.0,
        0,
        1.9,
        0.55,
        ((-0.16, -0.54), (0.16, -0.50), (0.48, -0.40), (0.78, -0.22), (0.95, 0.03), (0.86, 0.20)),
    ),
    (
        "LCX",
        "LM",
        1.0,
        1,
        1.7,
        0.65,
        ((-0.36, -0.22), (-0.46, 0.06), (-0.48, 0.36), (-0.36, 0.64), (-0.16, 0.80)),
    ),
    ("D1", "LAD", 0.16, 1, 1.15, 0.35, ((0.02, -0.66), (0.26, -0.74), (0.50, -0.66), (0.66, -0.56))),
    ("D2", "LAD", 0.40, 0, 1.0, 0.32, ((0.34, -0.34), (0.52, -0.14), (0.66, 0.06), (0.72, 0.22))),
    ("S1", "LAD", 0.22, 1, 0.7, 0.3, ((0.00, -0.34), (0.06, -0.14), (0.16, 0.02))),
    ("S2", "LAD", 0.34, 0, 0.65, 0.3, ((0.20, -0.30), (0.28, -0.10), (0.36, 0.04))),
    ("S3", "LAD", 0.55, 1, 0.55, 0.3, ((0.52, -0.24), (0.56, -0.10))),
    ("OM1", "LCX", 0.20, 0, 1.25, 0.36, ((-0.24, -0.06), (0.02, 0.12), (0.30, 0.24), (0.54, 0.36))),
    ("OM2", "LCX", 0.48, 1, 1.15, 0.34, ((-0.30, 0.30), (-0.04, 0.42), (0.20, 0.56), (0.36, 0.64))),
    ("OM3", "LCX", 0.74, 0, 0.85, 0.32, ((-0.20, 0.62), (0.02, 0.72), (0.14, 0.80))),
    ("LA", "LCX", 0.10, 0, 0.7, 0.3, ((-0.52, -0.10), (-0.66, 0.04), (-0.72, 0.20))),
)
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
    branch_starts: Int64[np.ndarray, " b"]
    """Index of each branch's first point."""
    branch_sheets: Int64[np.ndarray, " b"]
    """The sheet each branch lies in; branches of different sheets cross behind each other."""
    branch_names: tuple[str, ...]

    @property
    def segments(self) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
        """Indices of each segment's first point, and the sheet it lies in."""
        first = np.ones(len(self.points), bool)
        first[self.branch_starts[1:] - 1] = False  # a branch's last point starts no segment
        first[-1] = False
        sheets = np.repeat(self.branch_sheets, np.diff(self.branch_starts, append=len(self.points)))
        return np.flatnonzero(first), sheets[first]

    def branch(self, index: int) -> slice:
        """The points of one branch."""
        stop = self.branch_starts[index + 1] if index + 1 < len(self.branch_starts) else len(self.points)
        return slice(int(self.branch_starts[index]), int(stop))


def grow_tree(seed: int, variation: float) -> CoronaryTree:
    """One patient's tree.

    Args:
        seed: The patient.
        variation: 0 gives the canonical tree, the same for all; 1 bends its courses by up to a fifth of the
            heart and its calibres by a third. In between both grow in proportion.
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


_Branch = tuple[str, int, np.ndarray, np.ndarray, np.ndarray]


def _assemble(branches: list[_Branch]) -> CoronaryTree:
    counts = np.array([len(branch[2]) for branch in branches])
    return CoronaryTree(
        points=np.concatenate([branch[2] for branch in branches]),
        radii_mm=np.concatenate([branch[3] for branch in branches]),
        reach_mm=np.concatenate([branch[4] for branch in branches]),
        branch_starts=(np.cumsum(counts) - counts).astype(np.int64),
        branch_sheets=np.array([branch[1] for branch in branches], np.int64),
        branch_names=tuple(branch[0] for branch in branches),
    )


@cache
def _canonical_tree() -> CoronaryTree:
    rng = np.random.default_rng(0xC0A0)  # one tree for everyone: its twigs and bends are part of the canon
    grown: dict[str, _Branch] = {}
    for name, parent, at, sheet, thick_mm, thin_mm, course in _BRANCHES:
        knots = np.array(course)
        start_mm = 0.0
        if parent:
            place = round(at * (len(grown[parent][2]) - 1))
            knots = np.vstack([grown[parent][2][place], knots])
            start_mm = float(grown[parent][4][place])
        grown[name] = _branch(name, sheet, knots, thick_mm, thin_mm, start_mm, rng)
    branches = list(grown.values())
    for parent, count in _TWIGS:
        branches += _twigs(grown[parent], count, rng)
    return _assemble(branches)


def _branch(
    name: str,
    sheet: int,
    knots: np.ndarray,
    thick_mm: float,
    thin_mm: float,
    start_mm: float,
    rng: np.random.Generator,
) -> _Branch:
    """A spline through `knots` with a little tortuosity, tapering from `thick_mm` to `thin_mm`."""
    points = spline(knots, _STEP)
    step = np.diff(points, axis=0, prepend=points[:1])
    length = np.cumsum(np.linalg.norm(step, axis=1))
    along = length / length[-1]
    if name != "LM":
        # Tortuosity grows away from the origin: an artery starts where its parent is.
        normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.maximum(
            np.linalg.norm(step, axis=1, keepdims=True), 1e-9
        )
        normal[0] = normal[1]
        waves = rng.uniform(7.0, 13.0, 2) * np.array([1.0, 2.1])
        phase = rng.uniform(0, 2 * np.pi, 2)
        sway = 0.014 * np.sin(waves[0] * length * 2 + phase[0]) + 0.007 * np.sin(
            waves[1] * length * 2 + phase[1]
        )
        points = points + normal * (sway * np.minimum(1.0, along * 4))[:, None]
    radii_mm = thin_mm + (thick_mm - thin_mm) * (1.0 - along) ** 1.1
    return name, sheet, points, radii_mm, start_mm + length * HEART_MM


def _twigs(parent: _Branch, count: int, rng: np.random.Generator) -> list[_Branch]:
    """Small side branches of one branch, to alternating sides, bending towards its direction."""
    name, sheet, points, radii_mm, reach_mm = parent
    twigs: list[_Branch] = []
    for number in range(count):
        at = round((0.25 + 0.7 * (number + rng.uniform(0.2, 0.8)) / count) * (len(points) - 2))
        ahead = points[at + 1] - points[at]
        heading = np.arctan2(ahead[1], ahead[0])
        side = 1 if number % 2 else -1
        length = rng.uniform(0.14, 0.30)
        turn = side * rng.uniform(0.7, 1.1)
        knots = [points[at]]
        for _ in range(3):
            knots.append(knots[-1] + length / 3 * np.array([np.cos(heading + turn), np.sin(heading + turn)]))
            turn *= rng.uniform(0.5, 1.0)
        knots_array = np.array(knots)
        over = np.linalg.norm(knots_array, axis=1, keepdims=True)
        knots_array *= np.minimum(1.0, 0.95 / np.maximum(over, 1e-9))  # arteries lie on the heart
        thick_mm = float(min(0.6, 0.7 * radii_mm[at]))
        twigs.append(
            _branch(f"{name}-{number}", 1 - sheet, knots_array, thick_mm, 0.25, float(reach_mm[at]), rng)
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
    shift = 0.16 * variation * (displacement(tree.points) - displacement(origin[None]))
    counts = np.diff(tree.branch_starts, append=len(tree.points))
    factor = np.exp(0.3 * variation * np.clip(np.repeat(calibre, counts), -1.5, 1.5))
    return CoronaryTree(
        points=tree.points + shift,
        radii_mm=tree.radii_mm * factor,
        reach_mm=tree.reach_mm,
        branch_starts=tree.branch_starts,
        branch_sheets=tree.branch_sheets,
        branch_names=tree.branch_names,
    )


def taper_px(
    radii_mm: Float64[np.ndarray, " n"], first: Int64[np.ndarray, " m"], spacing_mm: float
) -> Float32[np.ndarray, "m 2"]:
    """Radii at the two ends of each segment, in pixels."""
    return (np.stack([radii_mm[first], radii_mm[first + 1]], axis=1) / spacing_mm).astype(np.float32)
