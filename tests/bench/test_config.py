"""What the benchmark refuses."""

from pathlib import Path

import pytest

from bench.config import BenchConfig, DoctorConfig


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param({"rate": 0.0}, r"--rate must be above 0 .*, got 0\.0", id="rate 0"),
        pytest.param({"rate": float("nan")}, "--rate must be above 0 .*, got nan", id="rate NaN"),
        pytest.param({"rate": -30.0}, r"--rate must be above 0 .*, got -30\.0", id="negative rate"),
        pytest.param({"frames": 0}, "--frames must be 1 or more, got 0", id="no frames"),
        pytest.param({"warmup": 3}, "--warmup must be 10 or more, got 3", id="no warm-up"),
        pytest.param({"size": 32}, "--size must be 64 to 2048 pixels a side, got 32", id="too small"),
        pytest.param({"threads": 0}, "--threads must be 1 or more, got 0", id="no threads"),
        pytest.param(
            {"out": Path("/nowhere/report.json")},
            "--out needs an existing folder, got /nowhere",
            id="no folder",
        ),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused(setting: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BenchConfig(**setting)  # type: ignore[arg-type]


def test_the_doctor_refuses_a_report_in_a_folder_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="--out needs an existing folder, got /nowhere"):
        DoctorConfig(out=Path("/nowhere/doctor.json"))
