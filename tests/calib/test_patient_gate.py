"""The gate of a patient's adaptation: what it takes for the taught projection, and what it lets out of a file."""

import numpy as np
import pytest

from calib.domain import LATENT
from calib.patient_gate import PatientGate, make_gate


def beating(count: int, seed: int, *, away: float = 0.0) -> np.ndarray:
    """Features of a heart that beats: two directions in which the latent's move, a little noise, and a step in a third."""
    rng = np.random.default_rng(0)
    directions = rng.normal(0.0, 0.05, (3, LATENT))
    middle = rng.normal(0.5, 0.1, LATENT)
    now = np.random.default_rng(seed)
    turn = now.uniform(0.0, 2.0 * np.pi, count)
    moving = np.stack([np.sin(turn), np.cos(turn)], axis=1) @ directions[:2]
    latent = middle + moving + away * directions[2] + now.normal(0.0, 0.002, (count, LATENT))
    picture = np.tile([0.1, 0.2, 0.05, 0.05, 0.05, 0.01, 0.01], (count, 1))
    return np.concatenate([latent, picture], axis=1).astype(np.float32)


def test_the_same_projection_passes_and_a_step_across_the_motion_does_not() -> None:
    gate = make_gate(beating(120, 1), beating(40, 2))
    assert (gate.distances(beating(60, 3)) <= gate.limit).all()
    # As far as the motion itself goes, but elsewhere.
    assert (gate.distances(beating(60, 3, away=1.0)) > gate.limit).all()
    strange = beating(1, 3)[0]
    strange[5] = np.nan
    assert gate.distance(strange) == np.inf


@pytest.mark.parametrize("count", [3, 20])
def test_few_frames_make_a_gate_or_are_refused(count: int) -> None:
    if count < 8:
        with pytest.raises(ValueError, match="a gate needs 8 frames of each kind, got 3 and 40"):
            make_gate(beating(count, 1), beating(40, 2))
    else:
        gate = make_gate(beating(count, 1), beating(40, 2))
        assert gate.distances(beating(10, 5, away=3.0)).min() > gate.limit


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gate.axes": np.zeros((3, 70), "<f4")}, r"a gate of 71 features, got shapes \(71,\) and \(3, 70\)"),
        ({"gate.axes": np.zeros((0, 71), "<f4")}, "a gate of 71 features"),
        ({"gate.centre": np.zeros(71, "<f2")}, "a gate of 71 features"),
        ({"gate.centre": np.full(71, np.inf, "<f4")}, "finite numbers, got others"),
        ({"more": np.zeros(1, "<f4")}, "beside the weights, got 3 tensors"),
    ],
    ids=["fewer features", "no axis", "another kind", "infinite", "one too many"],
)
def test_tensors_that_are_no_gate_are_refused(change: dict[str, np.ndarray], said: str) -> None:
    whole = {"gate.centre": np.zeros(71, "<f4"), "gate.axes": np.eye(71, dtype="<f4")}
    assert PatientGate.of_tensors(whole, 1.0).limit == 1.0
    with pytest.raises(ValueError, match=said):
        PatientGate.of_tensors({**whole, **change}, 1.0)
    with pytest.raises(ValueError, match="a gate's limit above 0, got nan"):
        PatientGate.of_tensors(whole, float("nan"))
