"""What the machine can do at most, and what a network asks."""

import pytest

from bench.machine_limits import least_ms, machine_limits, network_work
from engines.model import load_model


def test_the_machine_multiplies_and_copies() -> None:
    limits = machine_limits()
    assert 1.0 < limits["gflops"] < 1e5
    assert 0.1 < limits["gbytes_per_s"] < 1e4


def test_a_network_s_work_is_that_of_its_convolutions() -> None:
    torch = pytest.importorskip("torch")
    from casgan.networks import Generator, multiply_accumulates
    from casgan.presets import PRESETS

    network = Generator(PRESETS["compact-s"])
    with torch.no_grad():
        expected = multiply_accumulates(network, 256, 256)
    work = network_work(load_model("compact-s").path, 512, 512, 1)
    assert work is not None
    # The graph's fixed blurs are convolutions too; what is learned is all in there.
    assert expected <= work["gmac"] * 1e9 < 1.2 * expected


def test_larger_frames_ask_for_the_same_network_and_more_bytes() -> None:
    small, large = (network_work(load_model("compact-s").path, side, side, 2) for side in (256, 1024))
    assert small is not None
    assert large is not None
    assert small["gmac"] == large["gmac"]
    assert large["mbytes"] - small["mbytes"] == pytest.approx((1024**2 - 256**2) * 6 / 1e6)


def test_the_least_time_is_the_larger_of_both_limits() -> None:
    least = least_ms({"gmac": 1.0, "mbytes": 10.0}, {"gflops": 100.0, "gbytes_per_s": 10.0})
    assert least == {
        "by_flop": pytest.approx(20.0),
        "by_bytes": pytest.approx(1.0),
        "larger": pytest.approx(20.0),
    }
    assert least_ms(None, {"gflops": 1.0, "gbytes_per_s": 1.0}) is None
