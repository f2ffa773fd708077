import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from stream.sources.phantom import PhantomSource

SMALL = PhantomConfig(rows=128, columns=160, rate_hz=30.0)


def buffer_for(source: PhantomSource) -> np.ndarray:
    return np.empty((source.format.rows, source.format.columns), source.format.dtype)


def next_frame(source: PhantomSource) -> np.ndarray:
    out = buffer_for(source)
    source.read(out)
    return out


def test_two_sources_of_the_same_settings_deliver_the_same_bytes() -> None:
    one, other = PhantomSource(SMALL), PhantomSource(SMALL)
    for _ in range(5):
        assert np.array_equal(next_frame(one), next_frame(other))


def test_a_pixels_size_is_that_of_the_patient_at_the_heart() -> None:
    assert PhantomSource(SMALL).sizes == {"pixel_spacing_mm": (145.0 / 128, 145.0 / 128)}


def test_another_seed_delivers_another_patient() -> None:
    one, other = PhantomSource(SMALL), PhantomSource(replace(SMALL, seed=1))
    difference = next_frame(one).astype(float) - next_frame(other)
    assert np.abs(difference).mean() > 4


def test_consecutive_frames_differ_also_where_nothing_moves() -> None:
    # One frame per heartbeat at the end of expiration: the picture nearly stands still, the noise does not.
    source = PhantomSource(SMALL)
    before = next_frame(source)
    for _ in range(2 * source.phantom.loop.frames):
        after = next_frame(source)
        assert (before != after)[:8].mean() > 0.3
        before = after


def test_the_second_pass_shows_the_same_motion_with_other_noise() -> None:
    source = PhantomSource(replace(SMALL, rate_hz=7.5, bits_stored=16, dose=100.0))
    frames = source.phantom.loop.frames
    first = [next_frame(source) for _ in range(frames)]
    second = [next_frame(source) for _ in range(frames)]
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        assert not np.array_equal(one, other)
        apart = np.abs(one.astype(float) - other).mean()
        assert apart < 200, index  # of 65535: noise alone


@pytest.mark.parametrize("contrast", [False, True], ids=["plain", "contrast"])
@pytest.mark.parametrize(
    ("rows", "columns", "bits"),
    [(64, 64, 8), (465, 511, 8), (128, 96, 10), (96, 128, 12), (128, 128, 16)],
    ids=["64x64-8", "465x511-8", "128x96-10", "96x128-12", "128x128-16"],
)
def test_a_frame_is_the_phantoms_picture_with_noise(
    rows: int, columns: int, bits: int, contrast: bool
) -> None:
    config = PhantomConfig(rows=rows, columns=columns, bits_stored=bits, contrast=contrast)
    source, phantom = PhantomSource(config), Phantom(config)
    next_frame(source)
    clean = phantom.seen(1)
    expected = (clean.angiogram if contrast else clean.plain) * config.max_value
    frame = next_frame(source)
    assert frame.dtype == source.format.dtype
    rounding = 1 / 12
    deviation = (frame - expected) / np.sqrt(expected * config.max_value / phantom.quanta + rounding)
    assert np.abs(np.mean(deviation)) < 0.1
    assert np.std(deviation) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("contrast", [False, True], ids=["plain", "contrast"])
def test_a_frame_says_whether_it_shows_contrast(contrast: bool) -> None:
    source = PhantomSource(replace(SMALL, contrast=contrast))
    assert source.read(buffer_for(source)).contrast is contrast


def test_with_a_bolus_contrast_comes_and_goes() -> None:
    source = PhantomSource(replace(SMALL, contrast=True, bolus=True, rate_hz=7.5))
    shown = [source.read(buffer_for(source)).contrast for _ in range(source.phantom.loop.frames)]
    assert not shown[0]
    assert sum(bool(one) for one in shown) > len(shown) // 2


def test_skipped_frames_are_passed_over_without_rendering() -> None:
    straight, skipping = PhantomSource(SMALL), PhantomSource(SMALL)
    for _ in range(4):
        next_frame(straight)
        assert skipping.skip()
    assert np.array_equal(next_frame(straight), next_frame(skipping))
    assert skipping._rendered.sum() == 1


def test_a_rewound_source_starts_again() -> None:
    source = PhantomSource(SMALL)
    first = next_frame(source)
    next_frame(source)
    source.rewind()
    assert np.array_equal(next_frame(source), first)


def test_it_is_an_endless_recording_at_the_rate_asked_for() -> None:
    source = PhantomSource(SMALL)
    assert source.kind == "phantom"
    assert source.frame_count is None
    assert not source.live
    assert source.rate_hz == 30.0
    assert source.interval_ms(3) == pytest.approx(1000 / 30)
    source.close()
    source.close()


def test_notes_give_the_rates_of_the_loop() -> None:
    (motion,) = PhantomSource(SMALL).notes
    assert "a loop of 129 frames with 69.8 heartbeats and 14.0 breaths per minute" in motion


def test_notes_say_when_the_loop_cannot_have_the_breath_asked_for() -> None:
    notes = PhantomSource(PhantomConfig(rows=64, columns=64, rate_hz=0.1, breaths_per_min=60.0)).notes
    assert "60 breaths per minute were asked for" in notes[1]


@pytest.mark.parametrize("bits", [8, 12])
def test_the_steady_loop_allocates_nothing_of_a_frames_size(bits: int) -> None:
    source = PhantomSource(PhantomConfig(rows=512, columns=512, bits_stored=bits, contrast=True))
    out = buffer_for(source)
    for _ in range(6):
        source.read(out)
    source.rewind()
    tracemalloc.start()
    try:
        for _ in range(6):
            source.read(out)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 512 * 512 // 4


def test_the_buffer_is_wholly_overwritten() -> None:
    source = PhantomSource(SMALL)
    expected = next_frame(source)
    source.rewind()
    out = np.full_like(expected, 255)
    source.read(out)
    assert np.array_equal(out, expected)
