import time

import pytest

from stream.timing import NS_PER_S, WIRE_STAGES, FakeClock, MonotonicClock, Stage, sleep_until_ns


def test_the_clock_is_the_one_that_every_process_of_this_host_reads() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = MonotonicClock().now_ns()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert before <= now <= after


def test_a_fake_clock_moves_only_when_told_to() -> None:
    clock = FakeClock()
    assert clock.now_ns() == clock.now_ns() == NS_PER_S
    clock.advance_ms(33.4)
    assert clock.now_ns() == NS_PER_S + 33_400_000


def test_a_fake_clock_never_steps_back() -> None:
    with pytest.raises(ValueError, match=r"moves forward, got -1.0 ms"):
        FakeClock().advance_ms(-1.0)


def test_the_stages_on_the_wire_are_the_first_five_in_their_order() -> None:
    assert [stage.name for stage in WIRE_STAGES] == ["DUE", "GRABBED", "SUBMITTED", "INFERRED", "PUBLISHED"]
    assert [int(stage) for stage in Stage] == list(range(7))


def test_sleeping_ends_at_the_deadline_and_not_before() -> None:
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + 2_000_000
    sleep_until_ns(deadline_ns, clock)
    assert clock.now_ns() >= deadline_ns


def test_a_deadline_that_has_passed_is_not_waited_for() -> None:
    clock = FakeClock()  # it would never arrive
    sleep_until_ns(clock.now_ns(), clock)
    sleep_until_ns(clock.now_ns() - NS_PER_S, clock)
