"""Settings that cannot be are refused with what was needed."""

import pytest

from casgan.config import LossWeights, TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"preset": "huge"}, "preset must be one of compact, .* got 'huge'", id="preset"),
        pytest.param({"steps": -1}, "steps must be 0 or above, got -1", id="steps"),
        pytest.param({"warm_steps": 0, "steps": 0}, "must not both be 0", id="nothing to do"),
        pytest.param({"batch": 0}, "batch must be 1 or above, got 0", id="batch"),
        pytest.param({"size": 100}, r"multiple of \d+, 64 or above, got 100", id="size"),
        pytest.param({"threshold": 1.0}, "threshold must be 0 to below 1, got 1.0", id="threshold"),
        pytest.param({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan", id="rate"),
        pytest.param({"first_seed": 10}, "below 1000 are for evaluation", id="evaluation's seeds"),
        pytest.param({"inlay": 1.5, "data": "site"}, "inlay must be 0 to 1, got 1.5", id="share"),
        pytest.param({"inlay": 0.5}, "inlay needs a folder of frames, got --data phantom", id="inlay"),
        pytest.param({"patients": 900}, "phantom seeds 1000 to 3699 .* 3000 to 4999", id="judge's seeds"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        pytest.param({"shift": -1.0}, "the weight shift must be 0 or above, got -1.0", id="negative"),
        pytest.param({"latent": float("nan")}, "the weight latent must be 0 or above, got nan", id="nan"),
        pytest.param({"cycle_y": 5.0}, "cycle_y must be at most 2, got 5.0", id="cycle through M"),
    ],
)
def test_bad_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossWeights(**weights)


def test_pairs_alone_may_have_patients_that_unpaired_frames_would_need() -> None:
    assert TrainConfig(patients=1900, steps=0).patients == 1900
    assert TrainConfig(first_seed=5000, patients=2000).first_seed == 5000
