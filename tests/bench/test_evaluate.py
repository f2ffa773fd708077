"""The command `evaluate`: its report on the phantom and on real frames, and what it refuses."""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from bench import phantom_evaluation
from bench.errors import EvaluationError
from bench.evaluate import evaluate, measured, targets
from bench.evaluate_config import EvaluateConfig
from bench.evaluation_table import format_evaluation
from casgan.segmenter import VesselSegmenter, save_segmenter

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "angiodata_cine"


@pytest.fixture(scope="module", autouse=True)
def _few_patients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The whole command, on fewer patients; compiled models go elsewhere than the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr(phantom_evaluation, "BASELINE_SEEDS", range(1000, 1004))
        patch.setattr(phantom_evaluation, "REFERENCE_SEEDS", range(700, 704))
        patch.setattr(phantom_evaluation, "OTHER_PATIENTS", 2)
        patch.setattr(phantom_evaluation, "SHIFT_PATIENTS", 1)
        patch.setattr(phantom_evaluation, "RUNS", 1)
        patch.setattr(phantom_evaluation, "RUN_FRAMES", 3)
        patch.setattr(phantom_evaluation, "VARIATIONS", (0.0, 1.0))
        patch.setattr("bench.drawer.SERIAL_RUNS", 3)
        yield


def config(folder: Path, **changes: Any) -> EvaluateConfig:
    settings: dict[str, Any] = {"patients": 2, "size": 128, "threads": 1, "out": folder / "eval.json"}
    return EvaluateConfig(**{"model": "compact", **settings, **changes})


@dataclass(frozen=True)
class Evaluated:
    """What the command left, and what it said."""

    folder: Path
    said: str

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / "eval.json").read_text())
        return report


@pytest.fixture(scope="module")
def evaluated(_few_patients: None, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The command's run on the phantom, once for all tests of this file."""
    folder, said = tmp_path_factory.mktemp("evaluated"), io.StringIO()
    with contextlib.redirect_stdout(said):
        assert evaluate(config(folder)) == 0
    return Evaluated(folder, said.getvalue())


def test_the_report_on_the_phantom_holds_every_figure_and_its_page_needs_nothing_else(
    evaluated: Evaluated,
) -> None:
    report = evaluated.report
    assert report["schema"] == "contrastream.evaluation/1"
    assert report["data"]["seeds"] == [960, 961]
    for part, names in {
        "vessel": ("dice", "cldice", "centreline_px"),
        "background": ("exact_fraction", "exact_of_field", "psnr"),
        "flicker": ("ratio", "truth_ratio", "drawn"),
        "shift": ("worst", "strength", "drawn"),
        "frechet": ("features", "n", "value", "identity", "real"),
        "mmd": ("rbf", "polynomial"),
        "engine": ("ms", "backend", "precision"),
    }.items():
        assert all(report[part][name] is not None for name in names), part
    # The order that must hold whatever is taught: nothing, the mean tree, the right tree of another variation.
    base = report["baseline"]
    assert base["identity"]["dice"] < base["mean_tree"]["dice"] < base["same_pose"]["dice"] < 1.0
    assert base["identity"]["dice"] < base["ceiling"]["dice"]
    assert report["vessel"]["dice"] <= report["variations"]["0"]["dice"] + 0.2
    assert len(report["model"]["sha256"]) == 64

    assert "mean tree in the true outline" in evaluated.said
    assert "not a medical device" in evaluated.said
    page = (evaluated.folder / "eval.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 * 6
    assert not [part for part in ("http:", "https:", "<script", "<link", "url(") if part in page]
    sheet = cv2.imread(str(evaluated.folder / "eval.png"))
    assert sheet is not None
    assert sheet.shape[1] > sheet.shape[0] * 0.7


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(evaluated: Evaluated, tmp_path: Path) -> None:
    first = evaluated.report
    again, panels = measured(config(tmp_path))
    second = json.loads(json.dumps(again, default=str))
    for part in ("vessel", "baseline", "background", "shift", "lattice", "flicker", "frechet", "mmd"):
        assert first[part] == second[part], part
    assert len(panels) == 4
    # Fewer than four patients: figures, but no intervals, and the table says so by leaving them out.
    assert first["vessel"]["interval"]["dice"] == [None, None]
    assert "what it draws" in format_evaluation(again)


def test_aims_are_met_missed_or_unknown() -> None:
    report: dict[str, Any] = {
        "vessel": {"dice": 0.62, "cldice": 0.55},
        "baseline": {"mean_tree": {"dice": 0.50, "cldice": 0.47}},
        "variations": {"0": {"dice": 0.7}, "0.5": {"dice": 0.5}, "1": {"dice": 0.3}},
        "border": {"drawn": 0.01, "truth": 0.0},
        "background": {"exact_of_field": 0.69},
        "shift": {"worst": None},
        "lattice": {
            "ratio": {"1/8": 1.2, "1/4": 9.0},
            "amplitude": {"1/8": 0.2, "1/4": 0.05},
        },
    }
    verdicts = {row["name"]: row["met"] for row in targets(report)}
    assert verdicts == {
        "vessel Dice": True,
        "vessel clDice": False,
        "Dice above the mean tree": True,
        "clDice above the mean tree": False,
        "Dice lost from variation 0 to 1": True,
        "share of vessels on the border": True,
        "background exactly unchanged, of the field": False,
        "shift test, worst of 1 to 7 px": None,
        "lattice at 1/8 cycles per pixel": True,
        "lattice at 1/4 cycles per pixel": False,
    }
    report["variations"]["1"]["dice"] = 0.6
    report["lattice"]["amplitude"]["1/4"] = 0.005
    verdicts = {row["name"]: row["met"] for row in targets(report)}
    assert verdicts["Dice lost from variation 0 to 1"] is False
    assert verdicts["lattice at 1/4 cycles per pixel"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"size": 200}, "multiple of 16 from 128 to 1024 pixels, got 200", id="size"),
        pytest.param({"patients": 1}, "--patients must be 2 or more, got 1", id="patients"),
        pytest.param({"variation": float("nan")}, "--variation must be 0 to 1, got nan", id="variation"),
        pytest.param({"out": Path("eval.txt")}, r"--out must end in \.json, got eval\.txt", id="suffix"),
        pytest.param(
            {"out": Path("no/such/eval.json")}, "--out needs an existing folder, got no/such", id="folder"
        ),
        pytest.param({"threads": 0}, "--threads must be 1 or more, got 0", id="threads"),
        pytest.param({"seed": -1}, "--seed must be 0 or above, got -1", id="seed"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


def test_data_and_models_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match="must be phantom or a folder of frames, found no folder nowhere"
    ):
        evaluate(config(tmp_path, data="nowhere"))
    with pytest.raises(
        EvaluationError, match=r"needed a shipped model's name, an \.onnx file or the folder .* got a\.pt"
    ):
        evaluate(config(tmp_path, model="a.pt"))
    assert not (tmp_path / "eval.json").exists()


@pytest.mark.real
def test_real_frames_are_judged_beside_the_unchanged_picture_and_real_angiograms(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real runs at {REAL}")
    # Three patients with few frames each, so that the test is quick; the last one is tested on.
    for patient, run, most in (
        ("Patient_1", "Coro_1", 20),
        ("Patient_3", "Coro_4", 40),
        ("Patient_7", "Coro_1", 48),
    ):
        frames = tmp_path / "data" / patient / run / "frames"
        frames.mkdir(parents=True)
        for path in sorted((REAL / patient / run / "frames").glob("*.jpg"))[:most]:
            shutil.copy(path, frames)
    torch.manual_seed(0)
    save_segmenter(VesselSegmenter(4), tmp_path / "other.safetensors", {"data": "nothing"})
    report, panels = measured(
        config(tmp_path, data=str(tmp_path / "data"), size=256, second_judge=tmp_path / "other.safetensors")
    )
    assert report["data"]["test_patients"] == 1
    assert report["vessel"] is None
    assert report["vessel_area"]["real_judge"] > report["vessel_area"]["identity_judge"]
    assert report["frechet"]["value"] > 0
    assert set(report["second_judge"]) == {"judge", "synthetic", "real"}
    captions = [caption for caption, _ in panels[0].pictures]
    assert captions[-1] == "nearest real angiogram: patient 1, run 1"
    assert "real frames of 1 test patients: " in format_evaluation(report)
    # No name of a folder or a file is in a report, since it may be a patient's.
    said = json.dumps([report, captions], default=str)
    assert [name for name in ("Patient_", "Coro_", "other.safetensors", tmp_path.name) if name in said] == []
    assert (report["settings"]["data"], report["settings"]["second_judge"]) == ("folder", "file")
    shown = [picture for _, picture in panels[0].pictures]
    assert all(np.asarray(picture).shape[:2] == (256, 256) for picture in shown)
