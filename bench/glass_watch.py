"""Watches a camera for targets, in a process of its own: which codes does each picture show?

`python -m bench.glass_watch`; `TargetWatch` asks it.
"""

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.errors import BenchError
from bench.glass_cameras import Camera, Capture, open_camera
from bench.worker import Worker, serve
from calib.errors import CalibrationError
from calib.target import TargetPlace, TargetUnreadable, find_targets, read_code
from stream.control import become_child
from stream.errors import StreamError
from stream.timing import NS_PER_MS

TARGETS = 2
"""The viewer's copy, and the original beside it where that is seen too."""
REFUSED, ABSENT = -1, -2
"""In place of a frame number: a target whose code cannot be believed, and none."""
LOOK_AGAIN_NS = 250 * NS_PER_MS
"""A target that was not read for so long may have moved, and is looked for again."""
MARGIN = 0.05
"""Of the target's size: what is looked at around it."""
EXPECTED = (StreamError, BenchError, CalibrationError)


@dataclass(frozen=True)
class Captures:
    """Every picture of a camera, one row each.

    Args:
        began_ns: (n,) int64: the picture shows nothing from before.
        stamp_ns: (n,) int64: nor from after.
        frame: (n, 2) int64: the frame number of each target, from the left; `REFUSED` or `ABSENT` in place of one.
        time_us: (n, 2) int64: the time in the code; 0 where there is none.
    """

    began_ns: np.ndarray
    stamp_ns: np.ndarray
    frame: np.ndarray
    time_us: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Captures":
        """Read what the watching process wrote."""
        with np.load(path) as stored:
            return cls(*(stored[name] for name in cls.__dataclass_fields__))


class Watcher:
    """The process' own side.

    Args:
        camera: Owned from now on.
    """

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._places: list[TargetPlace] = []
        self._found_ns = 0
        """When every target that is there was read last, or targets were looked for."""
        # Looking takes 30 ms and more, which a live camera must not spend on every picture; a recording waits.
        self._patience_ns = LOOK_AGAIN_NS if camera.facts.this_clock else 0
        self._rows: list[tuple[int, ...]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.why = "no picture has come"
        """Why the last picture that was searched for targets had none."""
        self.fault: str | None = None
        self.ended = False

    def start(self) -> None:
        """Begin to watch, in a thread."""
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ending.is_set() and (capture := self._camera.capture()) is not None:
                self._take(capture)
        except EXPECTED as error:
            self.fault = str(error)
        finally:
            self.ended = True

    def _take(self, capture: Capture) -> None:
        codes = self._read(capture)
        if codes and all(frame >= 0 for frame, _ in codes):
            self._found_ns = capture.stamp_ns
        elif capture.stamp_ns - self._found_ns >= self._patience_ns:
            if capture.picture.shape == (self._camera.facts.rows, self._camera.facts.columns):
                codes = self._search(capture)
            else:  # a part of the picture: the next one is whole
                self._camera.look_at(None)
                self._places = []
        codes += [(ABSENT, 0)] * (TARGETS - len(codes))
        (frame, time_us), (other, other_us) = codes
        self._rows.append((capture.began_ns, capture.stamp_ns, frame, other, time_us, other_us))

    def _read(self, capture: Capture) -> list[tuple[int, int]]:
        """Number and time of each target whose place is known."""
        codes: list[tuple[int, int]] = []
        for place in self._places:
            try:
                code = read_code(capture.picture, place)
                codes.append((code.frame, code.time_us))
            except TargetUnreadable as error:
                self.why = str(error)
                codes.append((REFUSED, 0))
        return codes

    def _search(self, capture: Capture) -> list[tuple[int, int]]:
        """Look for targets anew, and read them in this very picture if it is a whole one."""
        self._found_ns = capture.stamp_ns
        try:
            places = find_targets(capture.picture)
        except TargetUnreadable as error:
            self._places, self.why = [], str(error)
            return []
        if len(places) > TARGETS:
            self._places = []
            self.why = (
                f"needed one target, or the original and its copy, found {len(places)}; hide the others"
            )
            return []
        self._places = places
        codes = self._read(capture)
        self._narrow()
        return codes

    def _narrow(self) -> None:
        """From the next picture on look at the targets only, where the camera can."""
        corners = np.concatenate([place.corners for place in self._places])
        low, high = corners.min(axis=0), corners.max(axis=0)
        margin = MARGIN * (high - low)
        left, top = (int(edge) for edge in np.floor(low - margin))
        right, bottom = (int(edge) for edge in np.ceil(high + margin))
        x, y = self._camera.look_at((left, top, right - left, bottom - top))
        self._places = [place.moved(float(x), float(y)) for place in self._places]

    def status(self) -> dict[str, Any]:
        """How it goes."""
        last = self._rows[-1] if self._rows else None
        seen = [] if last is None else [frame for frame in last[2:4] if frame >= 0]
        return {
            "captures": len(self._rows),
            "seen": seen,
            "cells_px": [round(place.cell_px, 1) for place in self._places],
            "why": self.why,
            "fault": self.fault,
            "ended": self.ended,
        }

    def stop(self) -> None:
        """Stop watching; a driver that hangs is not waited for longer than 2 s."""
        self._ending.set()
        self._thread.join(2.0)

    def finish(self, out: Path) -> None:
        """Stop and write what was seen."""
        self.stop()
        table = np.array(list(self._rows), np.int64).reshape(-1, 6)
        np.savez(out, began_ns=table[:, 0], stamp_ns=table[:, 1], frame=table[:, 2:4], time_us=table[:, 4:6])


class TargetWatch:
    """Asks the process that watches the camera.

    Args:
        spec: As `open_camera`.
        rate_hz: As `open_camera`.
        size: As `open_camera`.

    Raises:
        BenchError: The camera cannot be opened; the sentence is its own.
    """

    def __init__(
        self, spec: str, *, rate_hz: float | None = None, size: tuple[int, int] | None = None
    ) -> None:
        self._worker = Worker("bench.glass_watch")
        try:
            self.facts: dict[str, Any] = self._worker.ask("open", spec=spec, rate_hz=rate_hz, size=size)
        except BaseException:
            self._worker.close()
            raise

    def status(self) -> dict[str, Any]:
        """How many captures there are, which frames the last one shows, and why not.

        Raises:
            BenchError: The camera has failed.
        """
        said = self._worker.ask("status")
        if said["fault"] is not None:
            raise BenchError(said["fault"])
        return said

    def finish(self, out: Path) -> Captures:
        """Stop watching; everything that was seen."""
        self._worker.tell("finish", out=str(out))
        # Ctrl-C may have come between a question and its answer, which then is still on its way.
        while "finished" not in self._worker.hear():
            pass
        return Captures.load(out)

    def close(self) -> None:
        """End the process; may be called twice."""
        self._worker.close()


def main() -> None:
    """The watching process."""
    become_child()
    held: dict[str, Any] = {}

    def open_it(spec: str, rate_hz: float | None, size: list[int] | None) -> dict[str, Any]:
        camera = open_camera(spec, rate_hz=rate_hz, size=None if size is None else (size[0], size[1]))
        held["watcher"] = Watcher(camera)
        held["watcher"].start()
        return camera.facts.as_dict()

    def finish(out: str) -> dict[str, Any]:
        held["watcher"].finish(Path(out))
        return {"finished": True}

    cv2.setNumThreads(1)  # its pool would take cores from what is measured
    # Who asked may have gone, by Ctrl-C.
    with contextlib.suppress(BrokenPipeError):
        serve(
            {"open": open_it, "status": lambda: held["watcher"].status(), "finish": finish},
            expected=EXPECTED,
        )
    if "watcher" in held:
        held["watcher"].stop()
    # A driver that hangs in its thread must not keep the process, nor have OpenCV torn down beneath it.
    os._exit(0)


if __name__ == "__main__":
    main()
