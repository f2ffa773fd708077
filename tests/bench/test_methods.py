"""The protocol of methods: what it makes, that it goes on where it stopped, and the tables that follow from its files."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import EvaluationError
from bench.evaluate import evaluate
from bench.evaluate_config import RESULTS, EvaluateConfig
from bench.methods import bench_methods, result_path
from bench.methods_budget import Budget
from bench.methods_config import ANCHORED, CONTESTANTS, MethodsConfig
from bench.methods_loops import between_filled, placement
from bench.methods_measure import TestFrame, TestSet, by_patient, figures_of
from bench.methods_results import Row, read_results
from bench.methods_table import BEGIN, END, kept_section, marks_of, tables, with_section
from casgan.train import StopWish


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> MethodsConfig:
    """One method, two steps."""
    return MethodsConfig(
        methods=("cut",),
        steps=2,
        batch=2,
        patients=2,
        test_seeds=4,
        frame_size=64,
        out=tmp_path_factory.mktemp("methods"),
    )


@pytest.fixture(scope="module")
def results(told: MethodsConfig) -> Path:
    """Measured once for all tests of this file, against fewer angiograms and with fewer parity frames than always."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.phantom_evaluation.REFERENCE_SEEDS", range(700, 704))
        patch.setattr("engines.export.PARITY_FRAMES", ((96, 80, 8),))
        patch.setattr("bench.methods.TIMED_PX", 64)
        patch.setattr("bench.methods.TURNS", 1)
        patch.setattr("bench.methods_measure.RUNS", 1)
        assert bench_methods(told) == 0
    return told.results_folder


def test_each_run_leaves_a_small_file_that_says_what_it_took(results: Path, told: MethodsConfig) -> None:
    assert sorted(path.name for path in results.iterdir()) == ["cut-0.json", "references.json"]
    report = json.loads((results / "cut-0.json").read_text())
    assert report["contestant"]["method"] == "cut"
    assert (report["training"]["steps"], report["seed"]) == (2, 0)
    assert report["model"]["attention"] == "derived"
    assert report["model"]["parameters_taught"] > report["model"]["parameters"] > 0
    assert report["model"]["gmac"] > 0
    assert report["engine"]["ms_p50"] > 0
    assert set(report["figures"]["cldice"]) == {f"phantom {seed}" for seed in range(960, 964)}
    assert all(math.isfinite(one["value"]) for one in report["distances"].values())
    assert (results / "cut-0.json").stat().st_size < 20_000
    assert (told.out / "cut-0" / "drawn.png").is_file()


def test_what_is_there_is_not_made_again_and_another_protocol_is_refused(
    results: Path,
    told: MethodsConfig,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.methods.TURNS", 1)
    monkeypatch.setattr("bench.methods.TIMED_PX", 64)
    before = json.loads((results / "cut-0.json").read_text())
    assert bench_methods(told) == 0
    assert "1 runs, 1 of them there already" in capsys.readouterr().out
    after = json.loads((results / "cut-0.json").read_text())
    # Only the engine is timed again, with all the others in turns.
    assert after | {"engine": before["engine"]} == before
    with pytest.raises(EvaluationError, match=r"another protocol .*steps is 2 there, 3 here"):
        bench_methods(replace(told, steps=3))


def test_the_tables_say_what_is_there_and_what_is_not(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, page = tmp_path / "results", tmp_path / "RESULTS.md"
    folder.mkdir()
    for path in results.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    ablation = json.loads((folder / "cut-0.json").read_text())
    ablation["contestant"]["key"] = "casgan-without-vsgl"
    (folder / "casgan-without-vsgl-0.json").write_text(json.dumps(ablation))
    page.write_text("# Other\n\nkept\n")
    assert evaluate(EvaluateConfig(table=True, results=folder)) == 0
    shown, written = capsys.readouterr().out, page.read_text()
    assert written.startswith("# Other\n\nkept\n")
    assert written[written.index(BEGIN) + len(BEGIN) : written.index(END)].strip() in shown
    for part in (
        "Table I: methods",
        "| CUT ",
        "identity (x unchanged)",
        "real (true angiograms)",
        "One seed (0)",
    ):
        assert part in written
    assert "| yes yes - " in written
    for missing in ("- CAS-GAN: not run", "- MUNIT: not run", "p99 in the pipeline: not measured"):
        assert missing in written
    again = with_section(written + "\nsaid by a person\n", "new")
    assert again.endswith(f"{BEGIN}\nnew\n{END}\n\nsaid by a person\n")
    assert kept_section(again).startswith(BEGIN)


def test_broken_and_mixed_results_are_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"found 0 and no references\.json .* make them: contrastream bench"
    ):
        read_results(tmp_path)
    for path in results.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    report = json.loads((tmp_path / "cut-0.json").read_text())
    report["protocol"]["steps"] = 7
    (tmp_path / "cut-0.json").write_text(json.dumps(report))
    with pytest.raises(EvaluationError, match=r"cut-0\.json and references\.json .* different protocols"):
        read_results(tmp_path)
    (tmp_path / "cut-0.json").write_text("{")
    with pytest.raises(EvaluationError, match="must be JSON"):
        read_results(tmp_path)


def test_the_repositorys_page_is_what_its_results_say() -> None:
    page = (RESULTS.parent / "RESULTS.md").read_text()
    for folder in (RESULTS, RESULTS.with_name("results-loops")):
        results = read_results(folder)
        assert with_section(page, tables(results), marks_of(results)) == page


def report_of(cldice: list[float], frechet: list[float]) -> dict[str, Any]:
    names = [f"p{index}" for index in range(len(cldice))]
    left_out = dict(zip(names, frechet, strict=True))
    return {
        "figures": {"cldice": dict(zip(names, cldice, strict=True))},
        "distances": {"frechet": {"value": float(np.mean(frechet)), "left_out": left_out}},
    }


def test_a_lead_is_claimed_only_where_its_interval_lies_on_one_side() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.01, 12)
    far = Row("far", (report_of(list(0.5 + noise), list(1.0 + noise / 12)),))
    near = Row("near", (report_of(list(0.3 - noise), list(2.0 - noise / 12)),))
    assert far.ahead(near, "cldice").side == 1
    assert near.ahead(far, "cldice").side == -1
    assert far.nearer(near, "frechet").side == 1
    assert far.ahead(far, "cldice").side == 0
    few = Row("few", (report_of([0.5, 0.6], [1.0, 1.1]),))
    assert few.figure("cldice").low is None
    assert few.distance("frechet").side == 0
    seeds = Row("two seeds", (report_of([0.2] * 5, [1.0] * 5), report_of([0.4] * 5, [3.0] * 5)))
    assert seeds.figure("cldice").value == pytest.approx(0.3)
    assert seeds.distance("frechet").value == pytest.approx(2.0)


class Sees:
    """A judge that takes what is below 100 for a vessel."""

    def masks(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        return [picture < 100 for picture in pictures]


def framed(patient: str, run: str, truth: np.ndarray | None) -> TestFrame:
    live = np.full((64, 64), 150, np.uint8)
    angiogram = None if truth is None else np.where(truth, 130, live).astype(np.uint8)
    return TestFrame(patient, live, np.ones((64, 64), bool), angiogram, truth, run)


def test_what_is_drawn_is_where_the_picture_got_darker(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.zeros((64, 64), bool)
    truth[20:26, 10:50] = True
    test = TestSet.__new__(TestSet)
    for name, value in {"frames": [framed("a", "", truth)], "judge": Sees(), "filled": {}}.items():
        object.__setattr__(test, name, value)
    drawn = test.frames[0].live.copy()
    drawn[truth] -= 9
    drawn[40:50, 40:50] += 30  # brighter is no vessel
    found = figures_of(test, [drawn])
    assert found["dice"]["a"] == 1.0
    assert found["judge_dice"]["a"] == 0.0
    assert found["background_exact"]["a"] == pytest.approx(1.0 - 100 / (64 * 64 - 240), abs=1e-5)
    assert found["vessel_error"]["a"] == pytest.approx(11.0)


def test_placement_is_told_beside_other_patients_runs() -> None:
    band, other = np.zeros((2, 64, 64), bool)
    band[20:26], other[50:56] = True, True
    test = TestSet.__new__(TestSet)
    filled = {"a/1": [band], "b/1": [other]}
    for name, value in {"frames": [framed("a", "a/1", None)], "filled": filled}.items():
        object.__setattr__(test, name, value)
    assert placement(test, [band]) == {
        "same_dice": {"a": 1.0}, "same_cldice": {"a": 1.0}, "other_dice": {"a": 0.0}, "other_cldice": {"a": 0.0}
    }  # fmt: skip
    assert by_patient([math.nan, 0.5], ["a", "b"]) == {"b": 0.5}


def test_a_folders_ceiling_is_one_filled_frame_over_the_others_of_its_run() -> None:
    band, other = np.zeros((2, 64, 64), bool)
    band[20:26], other[50:56] = True, True
    test = TestSet.__new__(TestSet)
    filled = {"a/1": [band, band, other], "b/1": [other]}
    frames = [framed("a", "a/1", None), framed("b", "b/1", None)]
    for name, value in {"frames": frames, "filled": filled}.items():
        object.__setattr__(test, name, value)
    found = between_filled(test)
    # Each band meets one band and one other; the other meets two bands; b's only frame has none to be laid over.
    assert found["same_dice"] == {"a": pytest.approx(1 / 3, abs=1e-5)}
    assert found["other_dice"] == {"a": pytest.approx(1 / 3, abs=1e-5), "b": 0.0}
    assert found["judge_area"] == {"a": 6 / 64, "b": 6 / 64}


def test_minutes_end_a_run_and_are_told_from_a_wish() -> None:
    wish = StopWish()
    assert not Budget(wish, None).wanted()
    spent = Budget(wish, 1e-9)
    assert (spent.wanted(), spent.is_spent) == (True, True)
    asked = Budget(wish, 60.0)
    wish.count = 1
    assert (asked.wanted(), asked.is_spent) == (True, False)
    asked.patient = True
    assert wish.patient


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ("cycelgan",)}, "got 'cycelgan'; did you mean cyclegan"),
        ({"test_seeds": 3}, "--test-seeds must be 4 or more, got 3: intervals are taken over patients"),
        ({"first_test_seed": 990}, "must lie below 1000, where nothing is taught, got 990 to 1013"),
        ({"minutes": 0.0}, "--minutes must be above 0"),
        ({"overrides": Path("none.csv")}, "--overrides needs a table of decisions, found no file none.csv"),
        ({"size": 50}, "size must be a multiple of"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_taught(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MethodsConfig(**given)


def test_fourteen_contestants_differ_in_their_method_alone() -> None:
    told = MethodsConfig()
    assert len(CONTESTANTS) == 14
    plain = told.training(CONTESTANTS["casgan"], 0)
    for key, contestant in CONTESTANTS.items():
        settings = told.training(contestant, 0)
        same = replace(settings, method="casgan", without=(), out=plain.out, weights=plain.weights)
        assert same == plain, key
        assert (settings.weights.anchor > 0) == (key == ANCHORED)
    assert result_path(told, CONTESTANTS["cut"], 3).name == "cut-3.json"
