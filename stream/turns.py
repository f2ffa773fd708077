"""Whose frame is next, where several rooms share one engine."""

from typing import Generic, TypeVar

Room = TypeVar("Room")
Work = TypeVar("Work")


class Turns(Generic[Room, Work]):
    """One waiting frame per room, served in the order in which the rooms began to wait.

    A room comes to the end of the line only when it has been served, so between two turns of one room each other
    that waits has one: none starves, however fast another sends. A newer frame of a room takes the place of its
    older one in the line.
    """

    def __init__(self) -> None:
        self._waiting: dict[Room, Work] = {}  # a dict keeps the order of first insertion, and a key's place

    def add(self, room: Room, work: Work) -> Work | None:
        """A room has a frame; returns its older one that had not been served, which is passed over."""
        older = self._waiting.get(room)
        self._waiting[room] = work
        return older

    def next(self) -> tuple[Room, Work] | None:
        """The room whose turn it is with its frame; None where nobody waits."""
        if not self._waiting:
            return None
        room = next(iter(self._waiting))
        return room, self._waiting.pop(room)

    def leave(self, room: Room) -> None:
        """A room is gone, and its frame with it."""
        self._waiting.pop(room, None)

    def __len__(self) -> int:
        """Rooms that wait."""
        return len(self._waiting)
