"""Every rule of the guard, with a real ring and a clock that moves only when a test says so."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stream.domain_watch import DomainRule
from stream.frame import FrameFormat, Plane, Reason, State
from stream.guard import Guard
from stream.outgoing import Grabbed, Inferred, Outgoing
from stream.ring import Ring
from stream.timing import NS_PER_MS, FakeClock

FORMAT = FrameFormat(64, 64)
ALL = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION
PERIOD_MS = 1000.0 / 30.0


@dataclass(frozen=True)
class Sent:
    """What went out, as it was when it went out."""

    sequence: int
    state: State
    reason: Reason
    planes: Plane
    age_ms: int
    at_ms: float
    """Since its frame was due."""
    epoch: int
    """Of the result whose planes it carries; 0 for none."""
    stamps_ns: tuple[int, int, int, int]


class Desk:
    """A guard at work, and everything it said."""

    def __init__(
        self,
        *,
        rate_hz: float | None = 30.0,
        slots: int = 16,
        wait_for_engine: bool = False,
        ready: bool = True,
        taught: bool = True,
        domain: DomainRule | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.ring = Ring(FORMAT, slots)
        self.sent: list[Sent] = []
        self.leases: list[tuple[int, int]] = []
        """Slot and epoch of every submission."""
        self.sequence_of: dict[int, int] = {}
        """The frame that was in the slot when its epoch was given."""
        self._in_slot: dict[int, int] = {}
        self.sequence = -1
        self.guard = Guard(
            self.ring,
            self.clock,
            self._publish,
            self._submit,
            rate_hz=rate_hz,
            wait_for_engine=wait_for_engine,
        )
        if ready:
            self.guard.engine_ready(taught=taught, inference_ns=5 * NS_PER_MS, domain=domain)

    def _publish(self, out: Outgoing) -> None:
        self.sent.append(
            Sent(
                out.frame.sequence,
                out.state,
                out.reason,
                out.planes,
                out.age_ms,
                (self.clock.now_ns() - out.frame.due_ns) / NS_PER_MS,
                out.result.epoch if out.result is not None and out.planes == ALL else 0,
                out.stamps_ns,
            )
        )

    def _submit(self, slot: int, epoch: int) -> None:
        self.leases.append((slot, epoch))
        self.sequence_of[epoch] = self._in_slot[slot]

    def grab(self, *, repeated: bool = False, late_ms: float = 0.0) -> int:
        """The source fills a slot, `late_ms` after its frame was due; returns the slot."""
        slot = self.ring.grant()
        assert slot is not None
        self.ring.fill(slot)
        self.sequence += 1
        self._in_slot[slot] = self.sequence
        now_ns = self.clock.now_ns()
        self.guard.frame_grabbed(
            Grabbed(slot, self.sequence, now_ns - round(late_ms * NS_PER_MS), now_ns, repeated)
        )
        return slot

    def infer(
        self,
        lease: int = -1,
        *,
        valid: bool = True,
        ended_ms_ago: float = 0.0,
        domain: float = math.nan,
    ) -> None:
        """The engine returns a lease, the last one given unless another is named."""
        slot, epoch = self.leases[lease]
        now_ns = self.clock.now_ns()
        ended_ns = now_ns - round(ended_ms_ago * NS_PER_MS)
        self.guard.frame_inferred(Inferred(slot, epoch, ended_ns, ended_ns, valid, domain))

    def pass_over(self, lease: int = -1) -> None:
        """The engine returns a lease unused, since a newer frame took its turn."""
        self.guard.frame_passed_over(*self.leases[lease])

    def wait_ms(self, duration_ms: float) -> None:
        """Time passes; the loop looks at the end of it."""
        self.clock.advance_ms(duration_ms)
        self.guard.tick()

    def in_time(self, count: int = 1, period_ms: float = PERIOD_MS, *, domain: float = math.nan) -> None:
        """Frames whose synthesis comes 5 ms after each."""
        for _ in range(count):
            self.grab()
            self.wait_ms(5.0)
            self.infer(domain=domain)
            self.wait_ms(period_ms - 5.0)

    def missed(self, count: int = 1) -> None:
        """Frames whose synthesis comes 1 ms after their deadline."""
        for _ in range(count):
            self.grab()
            self.wait_ms(PERIOD_MS)
            self.wait_ms(1.0)
            self.infer()

    @property
    def last(self) -> Sent:
        return self.sent[-1]

    def drain(self) -> None:
        """The engine dies, so that nothing may be held any more."""
        self.guard.engine_gone(Reason.ENGINE_LOST)
        assert self.guard.drained()
        assert self.ring.idle()


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    """Makes desks; each must end with every slot free and every frame accounted for."""
    desks: list[Desk] = []

    def make(**options: object) -> Desk:
        desks.append(Desk(**options))  # type: ignore[arg-type]
        return desks[-1]

    yield make
    for each in desks:
        each.drain()
        counters = each.guard.counters
        assert counters.grabbed == counters.published + counters.repeated
        assert counters.published == len(each.sent)
        each.ring.close()


# The deadline -------------------------------------------------------------------------------------------------


def test_a_frame_whose_synthesis_is_in_time_carries_all_planes(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab()
    assert d.sent == []
    d.wait_ms(10.0)
    d.infer()
    assert (d.last.state, d.last.reason, d.last.planes) == (State.SYNTHETIC, Reason.NONE, ALL)
    assert d.last.at_ms == 10.0
    assert d.last.stamps_ns[2] > 0
    assert d.guard.counters.synthetic == 1


@pytest.mark.parametrize(
    ("rate_hz", "deadline_ms"),
    [
        (60.0, 1000 / 60),
        (30.0, 1000 / 30),
        (25.0, 40.0),
        (15.0, 50.0),
        (10.0, 50.0),
        (7.5, 50.0),
        (None, 50.0),
    ],
)
def test_the_deadline_is_one_period_and_at_most_50_ms_after_due(
    desk: Callable[..., Desk], rate_hz: float | None, deadline_ms: float
) -> None:
    d = desk(rate_hz=rate_hz)
    due_ns = d.clock.now_ns()
    d.grab()
    deadline_ns = d.guard.next_deadline_ns()
    assert deadline_ns is not None
    assert (deadline_ns - due_ns) / NS_PER_MS == pytest.approx(deadline_ms, abs=1e-3)
    d.wait_ms(deadline_ms - 0.01)
    assert d.sent == []
    d.wait_ms(0.02)
    assert (d.last.state, d.last.reason, d.last.planes) == (State.PASSTHROUGH, Reason.DEADLINE, Plane.LIVE)
    assert d.last.stamps_ns[2:] == (0, 0)


def test_the_deadline_counts_from_due_and_not_from_when_the_frame_came(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab(late_ms=30.0)
    d.wait_ms(3.4)
    assert d.last.reason is Reason.DEADLINE


def test_a_frame_that_comes_after_its_own_deadline_leaves_at_once(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab(late_ms=100.0)
    assert (d.last.reason, d.last.planes) == (Reason.DEADLINE, Plane.LIVE)


def test_an_inference_that_ended_in_time_counts_though_the_guard_hears_of_it_late(
    desk: Callable[..., Desk],
) -> None:
    d = desk()
    d.grab()
    d.clock.advance_ms(PERIOD_MS + 4.0)
    d.infer(ended_ms_ago=5.0)
    assert d.last.state is State.SYNTHETIC


def test_an_inference_that_ended_late_is_not_used_though_the_frame_still_waits(
    desk: Callable[..., Desk],
) -> None:
    d = desk()
    d.grab()
    d.clock.advance_ms(PERIOD_MS + 4.0)
    d.infer(ended_ms_ago=1.0)
    assert (d.last.state, d.last.reason, d.last.planes) == (State.PASSTHROUGH, Reason.DEADLINE, Plane.LIVE)


def test_a_lossless_replay_waits_as_long_as_the_engine_lives(desk: Callable[..., Desk]) -> None:
    d = desk(wait_for_engine=True)
    d.grab()
    assert d.guard.next_deadline_ns() is None
    d.wait_ms(60_000.0)
    assert d.sent == []
    d.infer()
    assert d.last.state is State.SYNTHETIC


def test_a_lossless_replay_gives_the_engine_every_frame_in_order(desk: Callable[..., Desk]) -> None:
    d = desk(wait_for_engine=True)
    for _ in range(5):
        d.grab()
        d.wait_ms(1.0)
    for done in range(5):
        d.infer(done)
    assert [sent.sequence for sent in d.sent] == [0, 1, 2, 3, 4]
    assert {sent.state for sent in d.sent} == {State.SYNTHETIC}


# Order --------------------------------------------------------------------------------------------------------


def test_frames_leave_in_order_when_results_come_out_of_order(desk: Callable[..., Desk]) -> None:
    d = desk(rate_hz=15.0)
    d.grab()
    d.wait_ms(5.0)
    d.grab()
    d.infer(1)
    assert d.sent == []
    d.infer(0)
    assert [(sent.sequence, sent.state) for sent in d.sent] == [(0, State.SYNTHETIC), (1, State.SYNTHETIC)]


def test_a_frame_whose_result_is_there_waits_for_the_one_before_until_that_ones_deadline(
    desk: Callable[..., Desk],
) -> None:
    d = desk(rate_hz=15.0)
    d.grab()
    d.wait_ms(20.0)
    d.grab()
    d.infer(1)
    d.wait_ms(30.0)
    assert [(sent.sequence, sent.state) for sent in d.sent] == [(0, State.PASSTHROUGH), (1, State.SYNTHETIC)]


def test_the_newest_frame_wins_when_the_engine_is_behind(desk: Callable[..., Desk]) -> None:
    d = desk(rate_hz=15.0)
    for _ in range(5):
        d.grab()
        d.wait_ms(1.0)
    assert [d.sequence_of[epoch] for _, epoch in d.leases] == [0, 1]
    d.infer(0)
    assert d.sequence_of[d.leases[-1][1]] == 4
    d.infer(1)
    d.infer(2)
    d.wait_ms(50.0)
    assert [(sent.sequence, sent.state) for sent in d.sent] == [
        (0, State.SYNTHETIC),
        (1, State.SYNTHETIC),
        (2, State.PASSTHROUGH),
        (3, State.PASSTHROUGH),
        (4, State.SYNTHETIC),
    ]


def test_the_engine_never_has_more_frames_than_it_has_slots(desk: Callable[..., Desk]) -> None:
    d = desk()
    for _ in range(8):
        d.grab()
        d.wait_ms(PERIOD_MS)
        assert d.ring.statistics()["leased"] <= 2
    assert len(d.leases) == 2


# The domain ---------------------------------------------------------------------------------------------------

RULE = DomainRule(1.2, strange=3, of=10)
LIKE, STRANGE = 0.9, 1.3


def test_frames_like_the_taught_ones_are_drawn_on(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.in_time(20, domain=LIKE)
    assert {sent.state for sent in d.sent} == {State.SYNTHETIC}
    assert d.guard.domain.as_dict() == {"score": LIKE, "threshold": 1.2, "out": False}


def test_the_third_strange_frame_of_ten_ends_the_synthesis(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.in_time(8, domain=LIKE)
    for _ in range(2):
        d.in_time(1, domain=STRANGE)
        d.in_time(2, domain=LIKE)
    assert {sent.state for sent in d.sent} == {State.SYNTHETIC}
    d.in_time(1, domain=STRANGE)
    assert (d.last.state, d.last.reason, d.last.planes) == (
        State.PASSTHROUGH,
        Reason.OUT_OF_DOMAIN,
        Plane.LIVE,
    )
    assert d.guard.counters.passthrough == {"out_of_domain": 1}


def test_two_strange_frames_of_ten_do_not_flicker(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.in_time(1, domain=LIKE)
    for _ in range(10):
        d.in_time(2, domain=STRANGE)
        d.in_time(8, domain=LIKE)
    assert {sent.state for sent in d.sent} == {State.SYNTHETIC}


def test_a_stream_that_begins_strange_never_shows_a_synthetic_frame(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.in_time(5, domain=math.inf)
    assert {(sent.state, sent.reason) for sent in d.sent} == {(State.PASSTHROUGH, Reason.OUT_OF_DOMAIN)}


def test_while_out_of_domain_frames_go_out_at_once_and_are_still_judged(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.in_time(1, domain=STRANGE)
    d.grab()
    assert (d.last.at_ms, d.last.reason) == (0.0, Reason.OUT_OF_DOMAIN)
    assert len(d.leases) == 2
    d.infer(domain=2.0)
    assert d.guard.domain.score == 2.0
    assert d.ring.idle()


def test_the_synthesis_comes_back_when_no_frame_of_ten_is_strange_and_a_second_is_over(
    desk: Callable[..., Desk],
) -> None:
    d = desk(domain=RULE)
    d.in_time(10, domain=STRANGE)
    d.in_time(19, domain=LIKE)  # more than ten, but the second is not over yet
    assert d.last.reason is Reason.OUT_OF_DOMAIN
    d.in_time(4, domain=LIKE)
    assert d.last.state is State.SYNTHETIC


def test_a_strange_frame_now_and_then_keeps_the_synthesis_away(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.in_time(3, domain=STRANGE)
    for _ in range(12):
        d.in_time(8, domain=LIKE)
        d.in_time(1, domain=STRANGE)
    assert {sent.reason for sent in d.sent} == {Reason.OUT_OF_DOMAIN}
    d.in_time(11, domain=LIKE)
    assert d.last.state is State.SYNTHETIC


def test_frames_whose_domain_nobody_knows_are_drawn_on(desk: Callable[..., Desk]) -> None:
    for limits in (None, RULE):
        d = desk(domain=limits)
        d.in_time(20)
        assert {sent.state for sent in d.sent} == {State.SYNTHETIC}


def test_without_a_rule_the_score_is_told_and_nothing_follows_from_it(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.in_time(20, domain=99.0)
    assert {sent.state for sent in d.sent} == {State.SYNTHETIC}
    assert d.guard.domain.as_dict() == {"score": 99.0, "threshold": None, "out": False}


def test_a_broken_output_is_called_invalid_and_says_nothing_of_the_domain(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.grab()
    d.infer(valid=False, domain=math.inf)
    assert d.last.reason is Reason.OUTPUT_INVALID
    assert d.guard.domain.score is None


def test_a_lossless_replay_judges_every_frame_before_it_goes(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE, wait_for_engine=True)
    d.in_time(40, domain=STRANGE)
    d.grab()
    d.wait_ms(1000.0)
    assert len(d.sent) == 40
    d.infer(domain=LIKE)
    assert len(d.sent) == 41
    d.in_time(9, domain=LIKE)
    assert [sent.state for sent in d.sent[-2:]] == [State.PASSTHROUGH, State.SYNTHETIC]


def test_an_engine_that_is_ready_again_judges_anew(desk: Callable[..., Desk]) -> None:
    d = desk(domain=RULE)
    d.in_time(5, domain=STRANGE)
    d.guard.engine_gone(Reason.ENGINE_LOST)
    d.guard.engine_ready(taught=True, inference_ns=5 * NS_PER_MS, domain=RULE)
    d.in_time(1, domain=LIKE)
    assert d.last.state is State.SYNTHETIC


@pytest.mark.parametrize(
    ("threshold", "strange", "of", "reason"),
    [
        (0.0, 3, 10, "threshold must be above 0, got 0"),
        (math.nan, 3, 10, "threshold must be above 0, got nan"),
        (1.0, 0, 10, "1 <= strange <= of, got 0 of 10"),
        (1.0, 11, 10, "1 <= strange <= of, got 11 of 10"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(threshold: float, strange: int, of: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DomainRule(threshold, strange, of)


# Late results -------------------------------------------------------------------------------------------------


def test_a_late_result_gives_its_slot_back_and_is_counted(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed()
    assert d.guard.counters.late_results == 1
    assert d.guard.counters.passthrough == {"deadline": 1}
    assert d.ring.idle()


def test_the_planes_of_a_late_result_are_never_used(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab()
    d.wait_ms(PERIOD_MS)
    d.grab()
    d.infer(0)
    assert len(d.sent) == 1
    d.infer(1)
    assert [(sent.sequence, sent.epoch) for sent in d.sent] == [(0, 0), (1, d.leases[1][1])]


def test_a_slot_under_lease_is_not_granted_though_its_frame_is_gone(desk: Callable[..., Desk]) -> None:
    d = desk(slots=2)
    slot = d.grab()
    d.wait_ms(PERIOD_MS)
    assert d.last.sequence == 0
    assert d.ring.grant() == 1 - slot
    assert d.ring.grant() is None
    d.infer()
    assert d.ring.grant() == slot
    d.ring.revoke_grants()


def test_a_result_of_an_engine_that_died_is_ignored(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab()
    d.guard.engine_gone(Reason.ENGINE_LOST)
    d.guard.engine_ready(taught=True, inference_ns=NS_PER_MS)
    d.infer(0)
    assert [sent.state for sent in d.sent] == [State.PASSTHROUGH]
    assert d.guard.counters.late_results == 0


def test_a_result_of_the_former_epoch_of_the_same_slot_is_ignored(desk: Callable[..., Desk]) -> None:
    d = desk(slots=1)
    d.grab()
    d.guard.engine_gone(Reason.ENGINE_LOST)
    d.guard.engine_ready(taught=True, inference_ns=NS_PER_MS)
    d.grab()
    assert d.leases[0][0] == d.leases[1][0]
    d.infer(0)
    assert len(d.sent) == 1
    d.infer(1)
    assert (d.last.state, d.last.epoch) == (State.SYNTHETIC, d.leases[1][1])


# The latch ----------------------------------------------------------------------------------------------------


def is_latched(d: Desk) -> bool:
    """Whether a new frame leaves at once with the reason deadline."""
    before = len(d.sent)
    d.grab()
    latched = len(d.sent) > before and d.last.reason is Reason.DEADLINE
    d.infer()
    d.wait_ms(PERIOD_MS)
    return latched


def test_two_misses_of_ten_do_not_latch(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed(2)
    assert not is_latched(d)


def test_three_misses_of_ten_latch(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.in_time(4)
    d.missed()
    d.in_time(3)
    d.missed(2)
    assert is_latched(d)


def test_three_misses_of_more_than_ten_do_not_latch(desk: Callable[..., Desk]) -> None:
    d = desk()
    for _ in range(4):
        d.missed()
        d.in_time(5)
    assert not is_latched(d)


def test_one_late_frame_is_one_miss_though_its_result_came_before_the_guard_looked(
    desk: Callable[..., Desk],
) -> None:
    d = desk()
    for _ in range(2):
        d.grab()
        d.clock.advance_ms(PERIOD_MS + 1.0)
        d.infer()
        assert d.last.reason is Reason.DEADLINE
    assert not is_latched(d)


def test_while_latched_frames_leave_at_once_and_are_still_inferred(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed(3)
    submitted = len(d.leases)
    for _ in range(5):
        d.grab()
        assert (d.last.state, d.last.reason, d.last.at_ms) == (State.PASSTHROUGH, Reason.DEADLINE, 0.0)
        d.wait_ms(5.0)
        d.infer()
        d.wait_ms(PERIOD_MS - 5.0)
    assert len(d.leases) == submitted + 5


def test_a_latch_lasts_a_second_though_the_engine_recovers_at_once(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed(3)
    start_ns = d.clock.now_ns()
    before = len(d.sent)
    d.in_time(60)
    first = next(index for index, sent in enumerate(d.sent[before:]) if sent.state is State.SYNTHETIC)
    assert first * PERIOD_MS == pytest.approx(1000.0, abs=2 * PERIOD_MS)
    assert {sent.state for sent in d.sent[before + first :]} == {State.SYNTHETIC}
    assert d.clock.now_ns() - start_ns > 1_900 * NS_PER_MS


def test_a_latch_stays_while_the_engine_is_too_slow(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed(3)
    before = len(d.sent)
    d.missed(90)
    assert {sent.state for sent in d.sent[before:]} == {State.PASSTHROUGH}
    d.in_time(12)
    assert d.last.state is State.SYNTHETIC


def test_after_a_latch_the_count_of_misses_begins_anew(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed(3)
    d.in_time(45)
    assert d.last.state is State.SYNTHETIC
    d.missed(2)
    assert not is_latched(d)


def test_an_engine_that_was_restarted_is_not_latched(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed(3)
    d.guard.engine_gone(Reason.ENGINE_LOST)
    d.guard.engine_ready(taught=True, inference_ns=NS_PER_MS)
    d.in_time()
    assert d.last.state is State.SYNTHETIC


# The engine's life --------------------------------------------------------------------------------------------


def test_before_the_engine_is_ready_frames_leave_at_once(desk: Callable[..., Desk]) -> None:
    d = desk(ready=False)
    d.grab()
    assert (d.last.state, d.last.reason, d.last.at_ms) == (State.PASSTHROUGH, Reason.STARTING, 0.0)
    assert d.leases == []


@pytest.mark.parametrize("reason", [Reason.ENGINE_LOST, Reason.OFF, Reason.STARTING])
def test_an_engine_that_goes_lets_every_waiting_frame_out_and_holds_no_slot(
    desk: Callable[..., Desk], reason: Reason
) -> None:
    d = desk(rate_hz=15.0)
    for _ in range(4):
        d.grab()
    assert d.sent == []
    d.guard.engine_gone(reason)
    assert [sent.sequence for sent in d.sent] == [0, 1, 2, 3]
    assert {(sent.reason, sent.planes, sent.at_ms) for sent in d.sent} == {(reason, Plane.LIVE, 0.0)}
    assert d.ring.idle()
    d.grab()
    assert (d.last.sequence, d.last.reason) == (4, reason)


def test_an_untaught_engine_is_fed_and_never_shown(desk: Callable[..., Desk]) -> None:
    d = desk(taught=False)
    d.in_time(20)
    assert len(d.leases) == 20
    assert {(sent.state, sent.reason, sent.planes) for sent in d.sent} == {
        (State.PASSTHROUGH, Reason.UNTAUGHT, Plane.LIVE)
    }
    assert d.last.stamps_ns[3] > 0


def test_an_invalid_output_is_not_shown(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab()
    d.infer(valid=False)
    assert (d.last.state, d.last.reason, d.last.planes) == (
        State.PASSTHROUGH,
        Reason.OUTPUT_INVALID,
        Plane.LIVE,
    )
    d.in_time()
    assert d.last.state is State.SYNTHETIC


def test_what_a_dead_engine_had_neither_hangs_nor_takes_the_place_of_its_successor(
    desk: Callable[..., Desk],
) -> None:
    d = desk()
    d.grab()
    d.grab()
    d.guard.engine_gone(Reason.ENGINE_LOST)
    d.wait_ms(1_000.0)
    assert d.guard.hung_since_ns() is None
    d.guard.engine_ready(taught=True, inference_ns=NS_PER_MS)
    d.in_time()
    assert d.last.state is State.SYNTHETIC


@pytest.mark.parametrize(
    ("inference_ms", "hang_ms"), [(5, 500), (125, 500), (300, 1200)], ids=["fast", "at the edge", "slow"]
)
def test_an_engine_hangs_after_half_a_second_or_four_inferences(
    desk: Callable[..., Desk], inference_ms: int, hang_ms: int
) -> None:
    d = desk()
    d.guard.engine_ready(taught=True, inference_ns=inference_ms * NS_PER_MS)
    given_ns = d.clock.now_ns()
    d.grab()
    d.wait_ms(hang_ms - 0.01)
    assert d.guard.hung_since_ns() is None
    d.wait_ms(0.01)
    assert d.guard.hung_since_ns() == given_ns


def test_the_oldest_lease_decides_whether_the_engine_hangs(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab()
    d.wait_ms(400.0)
    d.grab()
    d.infer(0)
    d.wait_ms(400.0)
    assert d.guard.hung_since_ns() is None
    d.wait_ms(100.0)
    assert d.guard.hung_since_ns() is not None


def test_an_idle_engine_does_not_hang(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.in_time()
    d.wait_ms(10_000.0)
    assert d.guard.hung_since_ns() is None


# Repeats ------------------------------------------------------------------------------------------------------


def hold(d: Desk, duration_ms: float, period_ms: float = PERIOD_MS) -> None:
    """The source repeats its image for so long."""
    for _ in range(round(duration_ms / period_ms)):
        d.grab(repeated=True)
        d.wait_ms(period_ms)


def test_repeats_are_neither_inferred_nor_sent(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.in_time()
    hold(d, 400.0)
    assert len(d.sent) == len(d.leases) == 1
    assert d.guard.counters.repeated == 12


def test_a_60_hz_grabber_on_a_15_hz_room_gives_each_image_once_and_is_never_unchanged(
    desk: Callable[..., Desk],
) -> None:
    d = desk(rate_hz=60.0)
    for _ in range(30):
        d.in_time(period_ms=1000.0 / 60.0)
        hold(d, 3000.0 / 60.0, 1000.0 / 60.0)
    assert [sent.state for sent in d.sent] == [State.SYNTHETIC] * 30
    assert [sent.sequence for sent in d.sent] == list(range(0, 120, 4))
    assert (d.guard.counters.grabbed, d.guard.counters.repeated) == (120, 90)


def test_an_image_held_for_half_a_second_is_unchanged_with_its_age(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.in_time()
    hold(d, 600.0)
    unchanged = d.sent[1]
    assert (unchanged.state, unchanged.reason, unchanged.planes) == (
        State.UNCHANGED,
        Reason.NONE,
        Plane.LIVE,
    )
    assert 500 <= unchanged.age_ms <= 534
    assert d.guard.state is State.UNCHANGED


def test_a_held_image_is_sent_four_times_a_second_at_most(desk: Callable[..., Desk]) -> None:
    d = desk(rate_hz=60.0)
    d.in_time(period_ms=1000 / 60)
    hold(d, 10_500.0, 1000 / 60)
    unchanged = [sent for sent in d.sent if sent.state is State.UNCHANGED]
    assert 35 <= len(unchanged) <= 41  # ten seconds of it, both ends counted
    ages = [sent.age_ms for sent in unchanged]
    assert all(later - earlier >= 249 for earlier, later in itertools.pairwise(ages))
    assert d.guard.counters.unchanged == len(unchanged)


def test_the_age_of_a_held_image_is_how_long_it_has_been_held(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.in_time()
    hold(d, 3_000.0)
    assert d.guard.age_ms() == pytest.approx(3_033.0, abs=40.0)


def test_a_new_image_ends_a_hold(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.in_time()
    hold(d, 1_000.0)
    d.in_time()
    assert (d.last.state, d.guard.state) == (State.SYNTHETIC, State.SYNTHETIC)


def test_a_repeat_does_not_overtake_the_frame_that_still_waits(desk: Callable[..., Desk]) -> None:
    d = desk(wait_for_engine=True)
    d.grab()
    d.wait_ms(600.0)
    d.grab(repeated=True)
    assert d.sent == []
    d.infer()
    assert [(sent.sequence, sent.state) for sent in d.sent] == [(0, State.SYNTHETIC), (1, State.UNCHANGED)]


def test_the_first_frame_is_shown_even_when_it_is_called_a_repeat(desk: Callable[..., Desk]) -> None:
    d = desk(ready=False)
    d.grab(repeated=True)
    assert d.last.state is State.PASSTHROUGH


# A source that stops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate_hz", "limit_ms"), [(60.0, 500.0), (30.0, 500.0), (7.5, 500.0), (4.0, 750.0)])
def test_a_source_that_stops_is_stale_after_half_a_second_or_three_periods(
    desk: Callable[..., Desk], rate_hz: float, limit_ms: float
) -> None:
    d = desk(rate_hz=rate_hz)
    d.in_time(period_ms=5.0)
    d.wait_ms(limit_ms - 5.0)
    assert d.guard.state is State.SYNTHETIC
    d.wait_ms(1.0)
    assert d.guard.state is State.STALE
    assert d.guard.age_ms() == pytest.approx(limit_ms + 1.0)
    d.in_time()
    assert d.guard.state is State.SYNTHETIC


def test_a_source_that_never_began_is_not_stale(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.wait_ms(10_000.0)
    assert (d.guard.state, d.guard.reason, d.guard.age_ms()) == (State.PASSTHROUGH, Reason.STARTING, 0.0)


def test_entering_and_leaving_a_state_is_logged_with_its_reason(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="contrastream.guard")
    d = desk()
    d.in_time(3)
    d.guard.engine_gone(Reason.ENGINE_LOST)
    d.grab()
    d.grab()
    d.wait_ms(1_000.0)
    assert [record.message for record in caplog.records] == [
        "PASSTHROUGH(starting) -> SYNTHETIC",
        "SYNTHETIC -> PASSTHROUGH(engine_lost)",
        "PASSTHROUGH(engine_lost) -> STALE",
    ]


# Any order of events ------------------------------------------------------------------------------------------


# An engine that serves other rooms too -----------------------------------------------------------------------


def test_a_frame_that_lost_its_turn_leaves_at_once_and_is_a_miss(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab()
    d.wait_ms(10.0)
    d.grab()
    d.pass_over(0)
    assert [(sent.sequence, sent.state, sent.reason) for sent in d.sent] == [
        (0, State.PASSTHROUGH, Reason.DEADLINE)
    ]
    d.infer(1)
    assert d.last.state is State.SYNTHETIC
    assert d.guard.counters.passed_over == 1


def test_a_lost_turn_makes_room_for_the_next_frame(desk: Callable[..., Desk]) -> None:
    d = desk()
    for _ in range(3):
        d.grab()
    assert len(d.leases) == 2
    d.pass_over(0)
    assert [d.sequence_of[epoch] for _, epoch in d.leases] == [0, 1, 2]


def test_three_lost_turns_latch(desk: Callable[..., Desk]) -> None:
    d = desk()
    for _ in range(3):
        d.grab()
        d.pass_over()
    assert is_latched(d)


def test_while_latched_lost_turns_keep_the_latch(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.missed(3)
    for _ in range(60):
        d.grab()
        d.pass_over()
        d.wait_ms(PERIOD_MS)
    assert is_latched(d)


def test_a_lost_turn_of_an_engine_that_died_is_ignored(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.grab()
    d.guard.engine_gone(Reason.ENGINE_LOST)
    d.pass_over()
    assert d.guard.counters.passed_over == 0
    assert len(d.sent) == 1


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, what went out is right and no slot is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(slots=8)
        self.outstanding: list[int] = []
        """Leases, by their place in `desk.leases`, that the living engine has not returned."""
        self.returned_valid: set[int] = set()
        self.untaught: set[int] = set()
        """Epochs of an engine that was not taught."""
        self.seen = 0
        self.alive, self.taught = True, True

    def note_leases(self) -> None:
        new = range(self.seen, len(self.desk.leases))
        self.seen = len(self.desk.leases)
        self.outstanding += new
        if not self.taught:
            self.untaught |= {self.desk.leases[lease][1] for lease in new}

    @precondition(lambda self: self.desk.ring.free() > 0)
    @rule(repeated=st.booleans(), late_ms=st.sampled_from([0.0, 5.0, 60.0]))
    def grab(self, repeated: bool, late_ms: float) -> None:
        self.desk.grab(repeated=repeated, late_ms=late_ms)
        self.note_leases()

    @precondition(lambda self: self.outstanding)
    @rule(
        which=st.integers(0, 1), valid=st.booleans() | st.just(True), ended_ms_ago=st.sampled_from([0.0, 8.0])
    )
    def infer(self, which: int, valid: bool, ended_ms_ago: float) -> None:
        lease = self.outstanding.pop(which % len(self.outstanding))
        if valid:
            self.returned_valid.add(self.desk.leases[lease][1])
        self.desk.infer(lease, valid=valid, ended_ms_ago=ended_ms_ago)
        self.note_leases()

    @precondition(lambda self: self.outstanding)
    @rule(which=st.integers(0, 1))
    def pass_over(self, which: int) -> None:
        self.desk.pass_over(self.outstanding.pop(which % len(self.outstanding)))
        self.note_leases()

    @precondition(lambda self: self.desk.leases)
    @rule(which=st.integers(0, 1000))
    def stale_result(self, which: int) -> None:
        """A result that was heard before, or of an engine that is dead."""
        lease = which % len(self.desk.leases)
        if lease not in self.outstanding:
            self.desk.infer(lease)

    @rule(duration_ms=st.sampled_from([0.5, 5.0, 17.0, 34.0, 300.0]))
    def wait(self, duration_ms: float) -> None:
        self.desk.wait_ms(duration_ms)

    @rule(reason=st.sampled_from([Reason.ENGINE_LOST, Reason.STARTING]))
    def engine_dies(self, reason: Reason) -> None:
        self.desk.guard.engine_gone(reason)
        self.outstanding.clear()
        self.alive = False

    @precondition(lambda self: not self.alive)
    @rule(taught=st.booleans() | st.just(True))
    def engine_comes_back(self, taught: bool) -> None:
        self.desk.guard.engine_ready(taught=taught, inference_ns=NS_PER_MS)
        self.alive, self.taught = True, taught

    @invariant()
    def frames_leave_once_and_in_order(self) -> None:
        sequences = [sent.sequence for sent in self.desk.sent]
        assert sequences == sorted(set(sequences))

    @invariant()
    def every_frame_is_sent_or_counted_or_waits(self) -> None:
        guard, stats = self.desk.guard, self.desk.ring.statistics()
        waiting = guard.counters.grabbed - guard.counters.published - guard.counters.repeated
        assert stats["waiting"] == waiting
        assert stats["leased"] == len(self.outstanding) <= 2
        assert stats["granted"] == 0

    @invariant()
    def only_a_frames_own_valid_result_makes_it_synthetic(self) -> None:
        for sent in self.desk.sent:
            if sent.state is State.SYNTHETIC:
                assert self.desk.sequence_of[sent.epoch] == sent.sequence
                assert sent.epoch in self.returned_valid - self.untaught
                assert sent.planes == ALL
            else:
                assert sent.planes == Plane.LIVE

    @invariant()
    def no_frame_waits_beyond_its_deadline_once_the_guard_has_looked(self) -> None:
        self.desk.guard.tick()
        deadline_ns = self.desk.guard.next_deadline_ns()
        assert deadline_ns is None or deadline_ns > self.desk.clock.now_ns()

    @invariant()
    def nothing_waits_for_a_dead_engine(self) -> None:
        if not self.alive:
            assert self.desk.guard.drained()

    def teardown(self) -> None:
        self.desk.drain()
        self.desk.ring.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(derandomize=True, deadline=None, max_examples=60, stateful_step_count=60)
