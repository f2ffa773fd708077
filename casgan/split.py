"""Train and test, split by patient: never a frame, never a run of one patient in both."""

from collections.abc import Sequence
from pathlib import Path

from calib.filling import FILLED, PLAIN
from casgan.archive import Archive
from casgan.domains import Decision
from casgan.errors import DataError

TEST_SHARE = 0.2
"""Share of the patients kept for the test where nobody names them."""


def choose_test_patients(
    archive: Archive, table: Sequence[Decision], wanted: tuple[str, ...] | None
) -> frozenset[str]:
    patients = archive.patients
    if len(patients) < 2:
        raise DataError(
            f"{archive.folder}: needed two patients or more, one to test on, got {len(patients)}; add another patient's "
            "runs, each patient in a folder of their own"
        )
    has = {(row.patient, row.domain) for row in table}

    def complete(members: frozenset[str]) -> bool:
        return all(any((patient, domain) in has for patient in members) for domain in (PLAIN, FILLED))

    if wanted is None:
        test: frozenset[str] = frozenset()
        for patient in reversed(patients):
            if len(test) >= TEST_SHARE * len(patients) and complete(test):
                break
            test |= {patient}
    else:
        unknown = sorted(set(wanted) - set(patients))
        if unknown:
            raise DataError(
                f"{archive.folder}: a test patient must be one of {', '.join(patients)}, got {unknown[0]}; name folders of it"
            )
        test = frozenset(wanted)
    for name, members in (("test", test), ("training", frozenset(patients) - test)):
        if not complete(members):
            who = ", ".join(sorted(members)) or "nobody"
            raise DataError(
                f"{archive.folder}: the {name} patients need frames of both domains, got {who} with one or none; "
                "choose others with test patients of your own or add runs"
            )
    return test


def check_domains(folder: Path, table: Sequence[Decision]) -> None:
    for domain, wanted, remedy in (
        (
            PLAIN,
            "contrast-free",
            "add runs that start before the injection, or name frames in an override file",
        ),
        (FILLED, "filled", "add runs with contrast medium, or name frames in an override file"),
    ):
        if not any(row.domain == domain for row in table):
            runs = len({row.run for row in table})
            raise DataError(f"{folder}: needed {wanted} frames, got none in {runs} runs; {remedy}")
