"""A frame on its way out: what the source and the engine say of it, what became of it, and the count of all of them."""

import math
from dataclasses import dataclass, field

from stream.extensions import Adaptation
from stream.frame import ALL_PLANES, Plane, Reason, State


@dataclass(frozen=True)
class Grabbed:
    """A frame that the source has written into a slot."""

    slot: int
    sequence: int
    due_ns: int
    grabbed_ns: int
    repeated: bool = False
    """The same image as the frame before."""
    discontinuity: bool = False
    """The source's time has a gap before this frame."""


@dataclass(frozen=True)
class Inferred:
    """What the engine says of a frame it was given."""

    slot: int
    epoch: int
    submitted_ns: int
    inferred_ns: int
    valid: bool
    """The output is finite and has the right size."""
    domain: float = math.nan
    """How unlike the taught frames the frame is; NaN where that is not known."""
    adaptation: Adaptation | None = None
    """Which patient's adaptation drew it; None for the general model."""


@dataclass
class Outgoing:
    """A frame on its way out, and what became of it."""

    frame: Grabbed
    deadline_ns: int | None
    """None where a frame may wait as long as the engine lives (lossless replay)."""
    epoch: int = 0
    leased_ns: int = 0
    result: Inferred | None = None
    failed: bool = False
    passed_over: bool = False
    """Its lease came back unused: a newer frame of this room took its turn at an engine that others use too."""
    state: State = State.PASSTHROUGH
    reason: Reason = Reason.NONE
    age_ms: int = 0
    planes: Plane = Plane.LIVE
    gone: bool = False
    """Sent; a result that comes now is late."""

    @property
    def made_it(self) -> bool:
        """Whether its inference ended before its deadline."""
        return self.result is not None and (
            self.deadline_ns is None or self.result.inferred_ns <= self.deadline_ns
        )

    @property
    def adaptation(self) -> Adaptation | None:
        """Which patient's adaptation drew what goes out; None for the general model, or where nothing drawn goes out."""
        return self.result.adaptation if self.result is not None and self.planes == ALL_PLANES else None

    @property
    def stamps_ns(self) -> tuple[int, int, int, int]:
        """Due, grabbed, submitted, inferred; the last two only where the inference was in time."""
        if self.result is None or not self.made_it:
            return self.frame.due_ns, self.frame.grabbed_ns, 0, 0
        return (
            self.frame.due_ns,
            self.frame.grabbed_ns,
            self.result.submitted_ns,
            self.result.inferred_ns,
        )


@dataclass
class Counters:
    """What became of every frame: due = synthetic + passthrough + unchanged + repeated + dropped."""

    grabbed: int = 0
    synthetic: int = 0
    passthrough: dict[str, int] = field(default_factory=dict)
    unchanged: int = 0
    """Repeats that were published, marked UNCHANGED."""
    repeated: int = 0
    """Repeats that were not published, since the picture is already there."""
    dropped: dict[str, int] = field(default_factory=dict)
    late_results: int = 0
    """Inferences that came after their frame had gone out without them."""
    passed_over: int = 0
    """Frames whose turn at a shared engine a newer frame of this stream took."""

    @property
    def published(self) -> int:
        """Messages sent."""
        return self.synthetic + sum(self.passthrough.values()) + self.unchanged

    def as_dict(self) -> dict[str, object]:
        """For reports and the heartbeat."""
        return {
            "grabbed": self.grabbed,
            "published": self.published,
            "synthetic": self.synthetic,
            "passthrough": dict(self.passthrough),
            "unchanged": self.unchanged,
            "repeated": self.repeated,
            "dropped": dict(self.dropped),
            "late_results": self.late_results,
            "passed_over": self.passed_over,
        }
