"""A stretch of a capture in which nothing changes but the picture: one publisher, one size, one depth."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from stream.frame import FrameFormat, Spacing, State
from stream.record.capture import Capture, CapturedFrame, EngineSaid, Stop
from stream.timing import NS_PER_MS, Stage
from stream.wire import Header


@runtime_checkable
class Frames(Protocol):
    """Where the frames of a segment lie: `Capture`, or `stream.record.kept.Held`."""

    begun: str
    engines: list[EngineSaid]
    stops: list[Stop]
    cut_off: str | None

    def frame(self, index: int) -> CapturedFrame: ...


@dataclass(frozen=True)
class Segment:
    """Frames of a capture that go into one object.

    Args:
        capture: Where they lie.
        first: Place of the first one.
        headers: What the message of each says.
    """

    capture: Frames
    first: int
    headers: tuple[Header, ...]

    def __len__(self) -> int:
        return len(self.headers)

    def __iter__(self) -> Iterator[CapturedFrame]:
        return (self.capture.frame(self.first + place) for place in range(len(self)))

    @property
    def frame_format(self) -> FrameFormat:
        """Of every frame."""
        return self.headers[0].frame_format

    @property
    def spacing(self) -> Spacing | None:
        """How large a pixel is."""
        return self.headers[0].spacing

    @property
    def unmasked_text(self) -> bool:
        """Whether any frame may show burned-in text."""
        return any(header.unmasked_text for header in self.headers)

    @property
    def synthetic(self) -> tuple[int, ...]:
        """Places of the frames that have a synthetic plane, from 0."""
        return tuple(place for place, header in enumerate(self.headers) if header.state is State.SYNTHETIC)

    @property
    def adaptations(self) -> dict[str, int]:
        """How many of them a patient's adaptation drew, by its random key; empty where the general model drew all."""
        keys = [
            header.adaptation.key
            for header in self.headers
            if header.state is State.SYNTHETIC and header.adaptation
        ]
        return {key: keys.count(key) for key in dict.fromkeys(keys)}

    @property
    def lost(self) -> int:
        """Frames that were published and did not reach the recorder."""
        return sum(
            later.publication - before.publication - 1
            for before, later in zip(self.headers, self.headers[1:], strict=False)
        )

    @property
    def stops(self) -> list[dict[str, Any]]:
        """When the picture was not live: after which frame of the segment, as what, how old the frame was then.

        What came before the first frame of a capture is told with its first segment.
        """
        end = self.first + len(self)
        return [
            {
                "after_frame": stop.after - self.first,
                "state": stop.state.name,
                "age_ms": stop.age_ms,
            }
            for stop in self.capture.stops
            if self.first <= stop.after < end or (stop.after < 0 and self.first == 0)
        ]

    @property
    def engines(self) -> list[dict[str, Any]]:
        """Each engine that drew frames of this publisher: from which frame of the segment on, and its facts.

        A heartbeat says them ten times a second, so that "from" is as true as that.
        """
        stream = self.headers[0].stream.hex()
        found: list[dict[str, Any]] = []
        for said in self.capture.engines:
            if said.after >= self.first + len(self) or said.stream not in (None, stream):
                continue
            drew = {"from_frame": max(0, said.after + 1 - self.first), **said.facts}
            if found and all(found[-1][name] == value for name, value in said.facts.items()):
                continue
            if found and found[-1]["from_frame"] == drew["from_frame"]:
                found.pop()  # it drew none of these frames
            found.append(drew)
        if found:
            found[0]["from_frame"] = 0
        return found

    @property
    def engine_by_minute(self) -> list[dict[str, Any]]:
        """What else was said of the engine, once a minute and when it changed: frame, restarts, GPU."""
        stream, end = self.headers[0].stream.hex(), self.first + len(self)
        return [
            {"after_frame": said.after - self.first, **said.more}
            for said in self.capture.engines
            if self.first <= said.after < end and said.stream in (None, stream)
        ]

    def times_ms(self, places: tuple[int, ...] | None = None) -> list[float]:
        """When frames were due, from the first frame of the segment on, in ms and rising.

        Args:
            places: Which ones; None for all.
        """
        chosen = range(len(self)) if places is None else places
        begin = self.headers[0].stamp_ns(Stage.DUE)
        return [(self.headers[place].stamp_ns(Stage.DUE) - begin) / NS_PER_MS for place in chosen]

    @property
    def rate_hz(self) -> float:
        """The source's own rate, or what the frames' times come to where it says none."""
        if self.headers[0].rate_hz > 0:
            return self.headers[0].rate_hz
        times = self.times_ms()
        steps = sorted(later - before for before, later in itertools.pairwise(times))
        step = steps[len(steps) // 2] if steps else 0.0
        return 1000.0 / step if step > 0 else 1.0


def segments(capture: Capture) -> list[Segment]:
    """The stretches of a capture, in order. A frame that is not after the one before in time begins another."""
    found: list[tuple[int, list[Header]]] = []
    for index in range(len(capture)):
        header = capture.frame(index).message.header
        before = found[-1][1][-1] if found else None
        same = (
            before is not None
            and before.stream == header.stream
            and before.frame_format == header.frame_format
            and before.spacing == header.spacing
            and before.stamp_ns(Stage.DUE) < header.stamp_ns(Stage.DUE)
        )
        if same:
            found[-1][1].append(header)
        else:
            found.append((index, [header]))
    return [Segment(capture, first, tuple(headers)) for first, headers in found]
