"""The source process's word that it lives, and for how long the read in hand has gone on: four times a second.

A driver may never return from a read. Then nothing else of the process may get a turn either, and not even this is heard;
`stream/source_side.py` is what the guard makes of both.
"""

import threading
import time

from stream.control import ALIVE, ChildSocket, Kind

BEAT_S = 0.25


class Alive:
    """Beats in a thread of its own; `with alive:` is a read.

    A read's time is counted in beats, not taken from a clock: a process that was stopped for a while has not waited.

    Args:
        guard: The socket to the guard.
        beat_s: Between two beats.
    """

    def __init__(self, guard: ChildSocket, beat_s: float = BEAT_S) -> None:
        self._guard = guard
        self._beat_s = beat_s
        self._reading = False
        self._reads = 0
        self.thread = threading.Thread(target=self._beat, name="alive", daemon=True)
        """Ends when the guard is gone."""
        self.thread.start()

    def __enter__(self) -> None:
        self._reads += 1
        self._reading = True

    def __exit__(self, *_error: object) -> None:
        self._reading = False

    def _beat(self) -> None:
        before, beats = 0, 0
        while True:
            time.sleep(self._beat_s)
            reads, reading = self._reads, self._reading
            beats = beats + 1 if reading and reads == before else 0
            before = reads
            try:
                self._guard.send(ALIVE.pack(Kind.ALIVE, round(beats * self._beat_s * 1000)))
            except OSError:
                return
