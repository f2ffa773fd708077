"""Whose frame is next."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.turns import Turns


def test_rooms_are_served_in_the_order_in_which_they_began_to_wait() -> None:
    turns: Turns[str, int] = Turns()
    for room, work in (("a", 1), ("b", 2), ("c", 3)):
        assert turns.add(room, work) is None
    assert [turns.next() for _ in range(4)] == [("a", 1), ("b", 2), ("c", 3), None]


def test_a_newer_frame_takes_the_place_of_its_rooms_older_one() -> None:
    turns: Turns[str, int] = Turns()
    turns.add("a", 1)
    turns.add("b", 2)
    assert turns.add("a", 3) == 1
    assert [turns.next() for _ in range(2)] == [("a", 3), ("b", 2)]


def test_a_room_that_left_has_no_turn() -> None:
    turns: Turns[str, int] = Turns()
    turns.add("a", 1)
    turns.add("b", 2)
    turns.leave("a")
    turns.leave("never there")
    assert len(turns) == 1
    assert turns.next() == ("b", 2)


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 4), st.just(None)), max_size=200))
def test_between_two_turns_of_a_room_every_other_that_waits_has_one(steps: list[int | None]) -> None:
    """A number is a frame of that room, None is a turn."""
    turns: Turns[int, int] = Turns()
    waits: dict[int, int] = {}
    """For each room that waits, the turns of others since it began."""
    newest: dict[int, int] = {}
    for time, step in enumerate(steps):
        if step is not None:
            turns.add(step, time)
            newest[step] = time
            waits.setdefault(step, 0)
        elif (turn := turns.next()) is not None:
            room, work = turn
            assert work == newest[room]
            assert waits.pop(room) <= 4
            waits = {other: count + 1 for other, count in waits.items()}
        else:
            assert not waits
