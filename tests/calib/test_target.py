"""The target's bar code through what a camera does to it: read right, or refused; never read wrong."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.target import (
    TargetCode,
    TargetUnreadable,
    draw_target,
    find_targets,
    read_code,
    read_target,
    write_print,
)

CODE = TargetCode(1234567, 987_654_321_012)
BEHIND, SEEN = (720, 1280), 1.2


def photograph(
    target: np.ndarray,
    *,
    width_px: int = 700,
    tilt: float = 0.0,
    turn_deg: float = 0.0,
    blur_px: float = 0.7,
    noise: float = 3.0,
    black: float = 40.0,
    white: float = 210.0,
    shade: float = 0.0,
    quality: int = 80,
    seed: int = 0,
) -> np.ndarray:
    """What a camera makes of a screen: perspective, vignetting, blur, noise, JPEG."""
    rows, columns = target.shape
    scale = width_px / columns
    centre = np.array([BEHIND[1] / 2, BEHIND[0] / 2])
    corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float64)
    seen = (corners - [columns / 2, rows / 2]) * scale
    turn = np.deg2rad(turn_deg)
    seen = seen @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    # A tilted screen: its right side is further away.
    seen /= 1.0 + tilt * seen[:, :1] / width_px
    to_picture = cv2.getPerspectiveTransform(corners.astype(np.float32), (seen + centre).astype(np.float32))
    sharp = cv2.GaussianBlur(target, (0, 0), max(0.01, 0.4 / scale))
    picture = cv2.warpPerspective(sharp, to_picture, BEHIND[::-1], flags=cv2.INTER_LINEAR, borderValue=150)
    picture = picture.astype(np.float64) / 255.0 * (white - black) + black
    picture *= 1.0 - shade * np.linspace(0, 1, BEHIND[1])
    if blur_px:
        picture = cv2.GaussianBlur(picture, (0, 0), blur_px)
    picture += np.random.default_rng(seed).normal(0.0, noise, BEHIND)
    grey = np.clip(picture, 0, 255).astype(np.uint8)
    done, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(
    "camera",
    [
        pytest.param({}, id="from the front"),
        pytest.param({"tilt": 0.35}, id="at an angle"),
        pytest.param({"turn_deg": 17.0, "tilt": -0.2}, id="turned"),
        pytest.param({"turn_deg": 180.0}, id="upside down"),
        pytest.param({"blur_px": 3.0}, id="blurred"),
        pytest.param({"noise": 18.0}, id="noisy"),
        pytest.param({"black": 70.0, "white": 130.0}, id="dim"),
        pytest.param({"shade": 0.5}, id="unevenly lit"),
        pytest.param({"quality": 25}, id="hard compressed"),
        pytest.param({"width_px": 260, "blur_px": 0.5}, id="far away"),
        pytest.param({"width_px": 1150}, id="filling the picture"),
    ],
)
def test_the_code_is_read_through_a_camera(camera: dict[str, float]) -> None:
    assert read_target(photograph(draw_target(CODE), **camera)) == CODE  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(frame=st.integers(0, 2**24 - 1), time_us=st.integers(0, 2**40 - 1))
def test_every_code_is_read_back(frame: int, time_us: int) -> None:
    code = TargetCode(frame, time_us)
    assert read_target(draw_target(code, 432)) == code


def following(code: TargetCode, frames: int = 1) -> TargetCode:
    return TargetCode(code.frame + frames, code.time_us + 16_667 * frames)


def test_a_picture_torn_between_two_frames_is_refused_or_one_of_them() -> None:
    """At every height a rolling shutter or a scan-out may tear: where it goes through the code it must be refused."""
    refused = 0
    for seed in range(2):
        first = TargetCode(1000 + 4097 * seed, 5_000_000_000 + seed)
        upper, lower = draw_target(first), draw_target(following(first))
        for tear in range(190, 450, 10):
            torn = np.vstack([upper[:tear], lower[tear:]])
            try:
                code = read_target(photograph(torn, seed=seed))
            except TargetUnreadable:
                refused += 1
                continue
            assert code in (first, following(first)), (seed, tear)
            # The code's rows lie from 224 to 416, 64 high each: a third of a cell may be of the other frame.
            assert tear <= 247 or tear >= 393, "a code torn in the middle was believed"
    assert refused >= 2 * 14


@pytest.mark.parametrize("share", [0.35, 0.5, 0.65])
def test_two_frames_in_one_exposure_are_refused(share: float) -> None:
    mixed = cv2.addWeighted(draw_target(CODE), share, draw_target(following(CODE)), 1.0 - share, 0.0)
    with pytest.raises(TargetUnreadable, match=r"\d+ of row \d are neither; .* two frames are mixed in it"):
        read_target(photograph(mixed))


def test_a_frame_that_filled_most_of_the_exposure_is_that_one() -> None:
    mixed = cv2.addWeighted(draw_target(CODE), 0.9, draw_target(following(CODE)), 0.1, 0.0)
    assert read_target(photograph(mixed)) == CODE


def test_nothing_is_ever_misread() -> None:
    """Pictures from good to hopeless: each is read right or refused."""
    rng = np.random.default_rng(7)
    read = refused = 0
    for seed in range(32):
        code = TargetCode(int(rng.integers(2**24)), int(rng.integers(2**40)))
        black = float(rng.uniform(20, 90))
        picture = photograph(
            draw_target(code),
            width_px=int(rng.integers(250, 1100)),
            tilt=float(rng.uniform(-0.5, 0.5)),
            turn_deg=float(rng.uniform(-30, 30)),
            blur_px=float(rng.uniform(0.0, 5.0)),
            noise=float(rng.uniform(0, 25)),
            black=black,
            white=float(rng.uniform(black + 30, 250)),
            quality=int(rng.integers(10, 95)),
            seed=seed,
        )
        try:
            assert read_target(picture) == code
            read += 1
        except TargetUnreadable:
            refused += 1
    assert read >= 6
    assert refused >= 6


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_cells_that_changed_are_found_by_the_sum(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for _ in range(10):
        picture = draw_target(CODE, 720)
        unit = 20
        for cell in rng.choice(96, bits, replace=False).tolist():
            row, column = divmod(cell, 32)
            place = np.s_[
                (7 + 2 * row) * unit : (9 + 2 * row) * unit, (2 + column) * unit : (3 + column) * unit
            ]
            picture[place] = 255 - picture[place]
        with pytest.raises(TargetUnreadable, match="sum does not fit"):
            read_target(picture)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        pytest.param(
            np.full((480, 640), 128, np.uint8), "4 markers once each, found none", id="nothing there"
        ),
        pytest.param(draw_target(CODE)[:, :600], r"4 markers once each, found \[0, 3\]", id="cut off"),
        pytest.param(
            photograph(draw_target(CODE), blur_px=0.3, width_px=100),
            "markers once each|pixels wide or more",
            id="tiny",
        ),
        pytest.param(
            photograph(draw_target(CODE), black=100, white=118, noise=1.0),
            "levels of 255 between black and white|markers once each",
            id="no contrast",
        ),
    ],
)
def test_what_cannot_be_read_says_why(picture: np.ndarray, sentence: str) -> None:
    with pytest.raises(TargetUnreadable, match=sentence):
        read_target(picture)


def test_two_targets_in_one_picture_are_refused() -> None:
    with pytest.raises(TargetUnreadable, match="once each"):
        read_target(np.hstack([draw_target(CODE), draw_target(following(CODE))]))


def test_a_photodiode_sees_every_frame_change() -> None:
    patches = []
    for frame in range(4):
        picture = draw_target(TargetCode(frame, 0), 720)
        patches.append((picture[60:100, 170:330].mean(), picture[60:100, 390:550].mean()))
    assert patches == [(0.0, 255.0), (255.0, 0.0)] * 2


def test_codes_are_modulo_what_they_hold() -> None:
    code = TargetCode.of(2**24 + 5, (2**40 + 7) * 1000 + 999)
    assert (code.frame, code.time_us) == (5, 7)
    assert code.age_ms((2**40 + 7) * 1000 + 42_000_000) == 42.0
    assert TargetCode.of(0, (2**40 - 1000) * 1000).age_ms(2**40 * 1000 + 1_000_000) == 2.0
    with pytest.raises(ValueError, match=r"frame must be 0 to below 2\^24, got 16777216"):
        TargetCode(2**24, 0)


def test_a_print_has_its_true_size_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "target.png"
    rows, columns = write_print(path, CODE, width_mm=150.0, dpi=200)
    png = path.read_bytes()
    at = png.index(b"pHYs")
    across, down, unit = struct.unpack(">IIB", png[at + 4 : at + 13])
    assert (across, unit) == (down, 1)
    assert columns / across * 1000 == pytest.approx(150.0, abs=0.05)
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (rows, columns)
    assert read_target(picture) == CODE


def test_bad_arguments_are_a_sentence() -> None:
    with pytest.raises(ValueError, match="at least 216 pixels wide, got 100"):
        draw_target(CODE, 100)


def test_two_targets_in_one_picture_are_found_and_read_each() -> None:
    scene = np.full((600, 1300), 150, np.uint8)
    other = TargetCode(1234560, CODE.time_us - 133_000)
    small, large = draw_target(other, 432), draw_target(CODE, 720)
    scene[40 : 40 + large.shape[0], 520 : 520 + large.shape[1]] = large
    scene[300 : 300 + small.shape[0], 30 : 30 + small.shape[1]] = small
    places = find_targets(photograph_of(scene))
    assert [read_code(photograph_of(scene), place) for place in places] == [other, CODE]
    assert places[1].corners == pytest.approx(
        np.array([[520, 40], [1240, 40], [1240, 440], [520, 440]]), abs=3.0
    )
    moved = places[1].moved(500.0, 20.0)
    assert read_code(photograph_of(scene)[20:, 500:], moved) == CODE


def photograph_of(scene: np.ndarray) -> np.ndarray:
    """A scene as a camera sees it from the front."""
    noise = np.random.default_rng(3).normal(0.0, 4.0, scene.shape)
    return np.clip(cv2.GaussianBlur(scene, (0, 0), 0.8) * 0.7 + 30.0 + noise, 0, 255).astype(np.uint8)


def test_a_target_seen_too_obliquely_says_how_large_it_must_be() -> None:
    with pytest.raises(
        TargetUnreadable, match=r"3 pixels wide or more, so the target 108, got a cell of \d\.\d"
    ):
        read_target(photograph(draw_target(CODE), width_px=150, tilt=0.7, blur_px=0.2, noise=0.5))
