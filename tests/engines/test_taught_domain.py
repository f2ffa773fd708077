"""The shipped models know digital patients they have not seen, and nothing that is none."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.domain_site import changed_frames
from calib.errors import DomainError
from calib.phantom import Phantom
from engines.engine import Engine, EngineSpec
from engines.model import load_model
from engines.open import open_engine
from engines.taught_domain import HELD_SEEDS, LATER_SEEDS, measure_taught_domain, phantom_frames

SIDE = 256
UNSEEN = (0, 1, 2)
"""Patients of neither `LATER_SEEDS` nor `HELD_SEEDS`."""


@pytest.fixture(scope="module", params=["compact", "compact-s"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    opened = open_engine(request.param, EngineSpec(SIDE, SIDE, slots=1), "openvino", threads=1).engine
    yield opened
    opened.close()


def excess(engine: Engine, frame: np.ndarray) -> float:
    """The frame's score over the model's threshold."""
    (slot,) = engine.slots(1)
    slot.bind(frame, np.empty_like(frame), np.empty_like(frame))
    slot.submit()
    assert engine.domain is not None
    return slot.wait().domain / engine.domain.threshold


def bars() -> np.ndarray:
    luma = np.array([235, 210, 170, 145, 106, 81, 41, 16], np.uint8)
    return np.ascontiguousarray(np.tile(np.repeat(luma, SIDE // 8), (SIDE, 1)))


def chart() -> np.ndarray:
    row, column = np.mgrid[:SIDE, :SIDE]
    return np.where((row // 16 + column // 16) % 2, 230, 25).astype(np.uint8)


def test_frames_of_patients_it_has_not_seen_are_like_the_taught_ones(engine: Engine) -> None:
    assert not {*UNSEEN} & {*LATER_SEEDS, *HELD_SEEDS}
    for seed in UNSEEN:
        frame = Phantom(PhantomConfig(seed=seed, rows=SIDE, columns=SIDE)).frame(7)
        assert excess(engine, frame.plain) < 1.0
        assert excess(engine, frame.angiogram) < 1.0


def test_frames_that_no_patient_gives_are_strange(engine: Engine) -> None:
    frame = Phantom(PhantomConfig(seed=UNSEEN[0], rows=SIDE, columns=SIDE)).frame(7).plain
    strange = {**dict(changed_frames(frame, 255)), "bars": bars(), "chart": chart()}
    strange["half as bright"] = frame // 2
    strange["blurred"] = cv2.GaussianBlur(frame, (0, 0), 4.0)
    found = {name: excess(engine, each) for name, each in strange.items()}
    assert min(found.values()) > 1.0, found


def test_the_cards_say_what_the_statistics_were_measured_on() -> None:
    for name in ("compact", "compact-s"):
        card = load_model(name).card.domain
        assert card is not None
        assert (card["data"], card["patients"], card["held_out_patients"]) == ("phantom", 1250, 400)


def test_the_same_patients_give_the_same_frames() -> None:
    first, again = (list(phantom_frames((5000, 5003), (64, 96))) for _ in range(2))
    assert [side for side, _ in first] == [64, 96]
    for (_, frame), (_, same) in zip(first, again, strict=True):
        np.testing.assert_array_equal(frame, same)


def test_a_few_patients_make_no_statistics() -> None:
    with pytest.raises(DomainError, match="needed 284 taught frames for 71 features, got 2"):
        measure_taught_domain(load_model("compact-s"), seeds=(5000, 5005), held_seeds=(300,), threads=1)
