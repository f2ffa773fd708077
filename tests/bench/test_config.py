"""What the benchmark refuses."""

from pathlib import Path

import pytest

from bench.config import DoctorConfig, EngineConfig, LiveConfig, ScaleConfig


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param({"rate": (0.0,)}, r"--rate must be above 0 .*, got 0\.0", id="rate 0"),
        pytest.param({"rate": (30.0, float("nan"))}, "--rate must be above 0 .*, got nan", id="rate NaN"),
        pytest.param({"rate": (-30.0,)}, r"--rate must be above 0 .*, got -30\.0", id="negative rate"),
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
        LiveConfig(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "setting", "said"),
    [
        pytest.param(LiveConfig, {"rate": ()}, "--rate must be one rate or more, got none", id="no rate"),
        pytest.param(
            EngineConfig, {"rounds": 0}, "--rounds must be 1 to the number of frames, got 0", id="rounds"
        ),
        pytest.param(EngineConfig, {"frames": 0}, "--frames must be 1 or more, got 0", id="engine frames"),
        pytest.param(
            ScaleConfig, {"streams": ()}, "--streams must be numbers from 1 to 32, got none", id="none"
        ),
        pytest.param(
            ScaleConfig, {"streams": (1, 33)}, "--streams must be numbers from 1 to 32", id="too many"
        ),
        pytest.param(ScaleConfig, {"streams": (2, 1)}, "--streams must rise, got 2 1", id="falling"),
        pytest.param(ScaleConfig, {"rate": 0.0}, "--rate must be above 0", id="scale rate"),
    ],
)
def test_each_workload_refuses_what_it_cannot_follow(
    kind: type, setting: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**setting)


def test_a_report_that_could_not_be_written_is_found_out_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--out needs a file name, got the folder"):
        LiveConfig(out=tmp_path)


def test_the_doctor_refuses_a_report_in_a_folder_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="--out needs an existing folder, got /nowhere"):
        DoctorConfig(out=Path("/nowhere/doctor.json"))
