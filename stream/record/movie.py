"""A recording as a film: live, synthetic and overlay beside each other, with the marks of the viewers burned in."""

from collections.abc import Callable
from pathlib import Path

from stream.display.compose import Composer, View
from stream.film import Film
from stream.frame import State
from stream.record.segment import Segment
from stream.subscribe import Shown

MAX_HELD_S = 60.0
"""A gap in the recording is shown for so long at most, so that a pause of an hour makes no film of an hour."""


def write_movie(out: Path, segment: Segment, progress: Callable[[], None]) -> list[Path]:
    """Write one .mp4 in which a second is a second: where a frame is missing the one before is held, dimmed and with its age.

    Args:
        out: The file.
        segment: The frames.
        progress: Called for each frame.

    Raises:
        StreamError: OpenCV cannot write films here, or the disk is full.
    """
    film = Film(out, segment.rate_hz, instead="record to .dcm or .npz")
    composer, view = Composer(), View(mode="side")
    times, period_ms = segment.times_ms(), 1000.0 / segment.rate_hz
    for place, frame in enumerate(segment):
        header = frame.message.header
        shown = Shown(header.state, header.reason, float(header.age_ms))
        head = f"frame {header.sequence}  {times[place] / 1000:.2f} s"
        film.write(composer.draw(frame.message, view, shown, head, None))
        if place + 1 < len(segment):
            missing = round((times[place + 1] - times[place]) / period_ms) - 1
            for step in range(1, 1 + min(missing, round(MAX_HELD_S * segment.rate_hz))):
                held = Shown(State.STALE, age_ms=step * period_ms)
                film.write(composer.draw(frame.message, view, held, head, None))
        progress()
    film.close()
    return [out]
