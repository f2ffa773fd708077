"""The small files of `bench methods` read back and put together: seeds pooled, intervals and differences over patients."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import EvaluationError
from bench.methods_config import CONTESTANTS, Contestant
from bench.stats import mean_interval

SCHEMA = "contrastream.method/1"
REFERENCES = "references.json"
LEAST_PATIENTS = 4
"""Below this there is no interval."""
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; None where it does not exist."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def side(self) -> int:
        """1 where all of the interval lies above 0, -1 where below, 0 where 0 lies in it or there is none."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0.0) - int(self.high < 0.0)


@dataclass(frozen=True)
class Row:
    """One method, its seeds pooled; or a floor or ceiling."""

    title: str
    reports: tuple[dict[str, Any], ...]
    contestant: Contestant | None = None

    def per_patient(self, name: str) -> dict[str, float]:
        """A figure by patient, mean over seeds."""
        pooled: dict[str, list[float]] = {}
        for report in self.reports:
            for patient, value in report["figures"].get(name, {}).items():
                pooled.setdefault(patient, []).append(value)
        return {patient: float(np.mean(values)) for patient, values in pooled.items()}

    def figure(self, name: str) -> Figure:
        """Mean over patients, resampled by patient."""
        return _mean(self.per_patient(name))

    def distance(self, name: str) -> Figure:
        """A distance of the whole set, its interval by leaving out one patient at a time (jackknife)."""
        if not all(report["distances"] for report in self.reports):
            return Figure(None)
        values = [report["distances"][name]["value"] for report in self.reports]
        return _jackknifed(float(np.mean(values)), self._left_out(name))

    def _left_out(self, name: str) -> dict[str, float]:
        parts = [report["distances"][name]["left_out"] for report in self.reports]
        return {patient: float(np.mean([part[patient] for part in parts])) for patient in parts[0]}

    def ahead(self, other: "Row", name: str) -> Figure:
        """This row's figure less the other's, patient by patient."""
        ours, theirs = self.per_patient(name), other.per_patient(name)
        return _mean({patient: ours[patient] - theirs[patient] for patient in ours if patient in theirs})

    def nearer(self, other: "Row", name: str) -> Figure:
        """The other's distance less this row's: above 0 where this one is nearer to true angiograms."""
        ours, theirs = self._left_out(name), other._left_out(name)
        values = [
            float(np.mean([report["distances"][name]["value"] for report in row.reports]))
            for row in (other, self)
        ]
        return _jackknifed(values[0] - values[1], {p: theirs[p] - ours[p] for p in ours if p in theirs})

    def training(self, name: str) -> list[float]:
        """Of every seed."""
        return [float(report["training"][name]) for report in self.reports]


def _mean(values: dict[str, float]) -> Figure:
    if not values:
        return Figure(None)
    return Figure(*mean_interval(np.array(list(values.values())), list(values)))


def _jackknifed(value: float, left_out: dict[str, float]) -> Figure:
    count = len(left_out)
    if count < LEAST_PATIENTS:
        return Figure(value)
    parts = np.array(list(left_out.values()))
    error = math.sqrt((count - 1) / count * float(((parts - parts.mean()) ** 2).sum()))
    return Figure(value, value - NORMAL_95 * error, value + NORMAL_95 * error)


@dataclass(frozen=True)
class Results:
    """Everything in one folder."""

    rows: dict[str, Row]
    """By contestant."""
    references: dict[str, Any]
    protocol: dict[str, Any]

    @property
    def rows_timed(self) -> str:
        """Under what load the engines were timed."""
        loads = sorted({report["engine"]["load"] for row in self.rows.values() for report in row.reports})
        return f"at a load of {loads[0]:.1f}" + (f" to {loads[-1]:.1f}" if len(loads) > 1 else "")

    @property
    def identity(self) -> Row:
        """The floor: the picture unchanged."""
        return Row("identity (x unchanged)", (self.references["identity"],))

    @property
    def on_phantom(self) -> bool:
        """Whether the truth is known; else they are of a folder of recordings."""
        return bool(self.protocol["data"] == "phantom")

    @property
    def real(self) -> Row | None:
        """The ceiling: true angiograms of the same patients; in a folder of the same run, one against the others."""
        found = self.references.get("real")
        title = "real (true angiograms)" if self.on_phantom else "real (filled, same run)"
        return None if found is None else Row(title, (found,))

    def of(self, keys: Iterable[str]) -> list[Row]:
        """The rows of some contestants that are there, in this order."""
        return [self.rows[key] for key in keys if key in self.rows]


def read_results(folder: Path) -> Results:
    """All results of a folder.

    Raises:
        EvaluationError: There are none, a file is not ours or broken, or they are of several protocols.
    """
    paths = sorted(folder.glob("*.json"))
    reports = {path: _read(path) for path in paths}
    references = reports.pop(folder / REFERENCES, None)
    if references is None or not reports:
        raise EvaluationError(
            f"needed results of methods, found {len(reports)} and {'no ' if references is None else ''}{REFERENCES} in "
            f"{folder}; make them: contrastream bench methods --results {folder}"
        )
    for path, report in reports.items():
        if report["protocol"] != references["protocol"]:
            raise EvaluationError(
                f"{path.name} and {REFERENCES} in {folder} are of different protocols; give each protocol a folder of its own"
            )
    rows = {}
    for key, contestant in CONTESTANTS.items():
        found = [report for report in reports.values() if report["contestant"]["key"] == key]
        if found:
            rows[key] = Row(contestant.title, tuple(found), contestant)
    return Results(rows, references, references["protocol"])


def _read(path: Path) -> dict[str, Any]:
    needed = {"protocol", "figures", "distances", "contestant", "training", "model", "engine"}
    if path.name == REFERENCES:
        needed = {"protocol", "identity", "real_halves", "reference"}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path} must be JSON, got: {error}; make it anew with bench methods"
        ) from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or not needed <= report.keys():
        raise EvaluationError(
            f"{path} must be a result of the form {SCHEMA}; make it anew with contrastream bench methods"
        )
    return report
