"""The rings of one pipeline: the present format's, whose slots the source is granted, and former ones until nobody holds them."""

from stream.children import Child
from stream.control import SLOT, Kind, send_ring
from stream.credit import Credit
from stream.errors import PipelineError
from stream.frame import FrameFormat
from stream.ring import Ring

GRANTS = 3
"""Slots the source may write at once: as far as it may decode ahead."""


class Rings:
    """The ring that frames lie in, whichever it is at the moment.

    Args:
        slots: Of each ring.
        credit: Of a lossless replay's measuring client, who is not given more than it can take; None for none.
    """

    def __init__(self, slots: int, credit: Credit | None) -> None:
        self.ring: Ring | None = None
        """None before the first format is known."""
        self.number = 0
        """Of the present ring, by which a frame says where it lies; 1 for the first."""
        self._slots, self._credit = slots, credit
        self._former: list[Ring] = []

    @property
    def frame_format(self) -> FrameFormat | None:
        """Of the frames that come now."""
        return None if self.ring is None else self.ring.frame_format

    def renew(self, frame_format: FrameFormat) -> Ring:
        """Make the ring that frames lie in from now on. The former one is granted from no more.

        Raises:
            PipelineError: The machine has not that much memory left.
        """
        try:
            ring = Ring(frame_format, self._slots)
        except OSError as error:
            raise PipelineError(
                f"needed memory for {self._slots} frames of {frame_format.rows} x {frame_format.columns}, got: "
                f"{error.strerror}; use fewer --slots or smaller frames"
            ) from error
        if self.ring is not None:
            self.take_back()
            self._former.append(self.ring)
        self.ring = ring
        self.number += 1
        return ring

    def give_to(self, source: Child) -> None:
        """Hand the source the present ring, to write frames into."""
        assert self.ring is not None
        send_ring(source.socket, self.ring.memory, self.number)

    def grant(self, source: Child) -> None:
        """Keep the source supplied with slots to write into."""
        ring, credit = self.ring, self._credit
        if ring is None:
            return
        while ring.granted() < GRANTS and (credit is None or credit.allows()):
            slot = ring.grant()
            if slot is None:
                return
            if credit is not None:
                credit.use()
            source.send(SLOT.pack(Kind.GRANT, slot))

    def take_back(self) -> None:
        """Take the source's grants back: only when it is dead, or writes into another ring from here on."""
        if self.ring is None:
            return
        if self._credit is not None:
            self._credit.give_back(self.ring.granted())
        self.ring.revoke_grants()

    def drop_idle(self) -> None:
        """Let go of former rings that nobody holds a slot of."""
        for ring in [each for each in self._former if each.idle()]:
            self._former.remove(ring)
            ring.close()

    def close(self) -> None:
        """The pipeline is over."""
        for ring in (*self._former, *((self.ring,) if self.ring else ())):
            ring.close()
