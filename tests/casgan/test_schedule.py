"""Rates and ramps at the steps where they are known."""

import pytest

from casgan.schedule import adversarial_rate, averaging, paired_rate, ramp, step_seed


def test_the_paired_rate_rises_then_falls_to_zero() -> None:
    rates = [paired_rate(step, 1000, 2e-3) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-3 / 30, rel=1e-3)
    assert max(rates) == pytest.approx(2e-3, rel=0.01)
    assert rates[500] == pytest.approx(1e-3)
    assert rates[1000] == 0


def test_the_adversarial_rate_is_constant_until_the_last_two_fifths() -> None:
    assert adversarial_rate(0, 1000, 2e-4) == 2e-4
    assert adversarial_rate(600, 1000, 2e-4) == 2e-4
    assert adversarial_rate(800, 1000, 2e-4) == pytest.approx(1e-4)
    assert adversarial_rate(999, 1000, 2e-4) == pytest.approx(5e-7)


def test_a_ramp_reaches_one_at_its_share_of_the_steps() -> None:
    assert [ramp(step, 300, 1 / 3) for step in (0, 50, 100, 299)] == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_an_average_forgets_its_start_quickly() -> None:
    assert averaging(0, 0.998) == pytest.approx(0.1)
    assert averaging(10_000, 0.998) == 0.998


def test_no_two_steps_stages_or_processes_share_their_chance() -> None:
    seeds = {
        step_seed(seed, stage, step, rank)
        for seed in range(3)
        for stage in range(3)
        for step in range(50)
        for rank in range(8)
    }
    assert len(seeds) == 3 * 3 * 50 * 8
