"""A source with injected faults: wraps any other one. For tests and for `make drill`, never for a room."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from stream.errors import SourceError, SourceGone
from stream.frame import FrameFormat, Photometric
from stream.sources.faults import ENDING, FOR_EVER, Fault, parse_faults
from stream.sources.source import FormatChanged, Source, SourceFrame
from stream.timing import NS_PER_S, MonotonicClock

FOR_EVER_S = 1e9


class FaultySource(Source):
    """Another source, with faults at fixed frame numbers and others drawn from a seed.

    The draws of a frame depend on the seed and the frame's number alone, so a source process that was started again goes
    on with the same ones.

    Args:
        inner: The source; closed with this one.
        spec: As `parse_faults` takes it.
        seed: Of the draws.
        rate_hz: At which its frames come, for durations.
        first: The number of its first frame; above 0 where another source process came before.
        begun: Which faults have begun before, by their place in `spec`, each with when it ends in ns of CLOCK_MONOTONIC.
        tell: Called with a fault's place, and when it ends, as it begins.

    Raises:
        SourceGone: It is unplugged still.
        SourceError: A fault lasts some time and nothing says how many frames that is.
    """

    def __init__(
        self,
        inner: Source,
        spec: str,
        seed: int,
        *,
        rate_hz: float | None,
        first: int = 0,
        begun: Sequence[tuple[int, int]] = (),
        tell: Callable[[int, int], None] = lambda _place, _ends_ns: None,
    ) -> None:
        self._inner = inner
        self._faults = parse_faults(spec)
        self._clock = MonotonicClock()
        self._see_plug(dict(begun))
        self._seed, self._rate_hz, self._tell = seed, rate_hz, tell
        self._number = first
        self._begun = {place for place, _ends_ns in begun}
        self._drop = sum(fault.probability for fault in self._faults)
        self._jitter_ns = sum(
            round(fault.duration_s * NS_PER_S) for fault in self._faults if fault.kind == "jitter"
        )
        self._held: np.ndarray | None = None
        self._hold_until = self._black_until = self._freeze_until = -1
        self._lost = 0
        self._over = False
        self._size: tuple[int, int] | None = None
        for place, fault in enumerate(self._faults):
            if fault.kind == "size" and place in self._begun:
                self._size = (fault.rows, fault.columns)
        self.kind, self.live, self.rate_hz = inner.kind, inner.live, inner.rate_hz
        self.frame_count, self.sizes, self.device = inner.frame_count, inner.sizes, inner.device
        self.angles_deg = inner.angles_deg
        self.read_within_s = inner.read_within_s
        self.notes = (*inner.notes, f"faults are injected: {spec} (seed {seed}); this is a test")
        self._use_format()
        for fault in self._faults:
            if fault.kind != "jitter" and 0.0 < fault.duration_s < FOR_EVER and fault.kind not in ENDING:
                self._frames_in(fault)

    def _see_plug(self, begun: dict[int, int]) -> None:
        for place, fault in enumerate(self._faults):
            left_ns = begun.get(place, 0) - self._clock.now_ns()
            if fault.kind == "unplug" and left_ns > 0:
                self._inner.close()
                raise SourceGone(
                    f"the source is unplugged for {max(left_ns / NS_PER_S, 0.1):.1f} s more (--fault)"
                )

    def _use_format(self) -> None:
        inner = self._inner.format
        rows, columns = self._size or (inner.rows, inner.columns)
        self.format = FrameFormat(
            rows, columns, inner.bits_stored, inner.photometric, inner.window_center, inner.window_width
        )
        self._scratch = np.empty((inner.rows, inner.columns), inner.dtype)
        self._held = None

    def _frames_in(self, fault: Fault) -> int:
        if self._rate_hz is None:
            raise SourceError(
                f"--fault {fault.text} needed the source's frames per second, got none; give --rate"
            )
        return max(1, round(fault.duration_s * self._rate_hz))

    # What goes wrong ------------------------------------------------------------------------------------------

    def _begin_due(self) -> None:
        """Begin the faults of this frame, in the order they were asked for.

        Raises:
            SourceGone: It is unplugged.
            FormatChanged: The frame has another size from here on.
        """
        for place, fault in enumerate(self._faults):
            if fault.at == 0 or place in self._begun or fault.at > self._number:
                continue
            self._begun.add(place)
            lasts_ns = 0 if fault.duration_s == FOR_EVER else round(fault.duration_s * NS_PER_S)
            self._tell(place, self._clock.now_ns() + lasts_ns)
            self._begin(fault)

    def _begin(self, fault: Fault) -> None:
        match fault.kind:
            case "freeze":
                self._freeze_until = self._number + self._frames_in(fault)
            case "hold":
                self._hold_until = self._number + self._frames_in(fault)
            case "black":
                self._black_until = self._number + (self._frames_in(fault) if fault.duration_s else 1)
            case "size":
                self._size = (fault.rows, fault.columns)
                self._use_format()
                raise FormatChanged(f"{self.kind}: another size (--fault {fault.text})")
            case "unplug":
                raise SourceGone(f"the source was unplugged (--fault {fault.text})")
            case "hang":
                time.sleep(min(fault.duration_s, FOR_EVER_S))
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "end":
                self._over = True

    def _draw(self, what: int) -> float:
        """0 to 1, the same for the same seed, frame and `what`."""
        return random.Random((self._seed << 40) + 2 * self._number + what).random()

    def _is_lost(self) -> bool:
        return self._number < self._freeze_until or (self._drop > 0 and self._draw(0) < self._drop)

    # The source -----------------------------------------------------------------------------------------------

    def read(self, out: np.ndarray) -> SourceFrame | None:
        while True:
            self._begin_due()
            if self._over:
                return None
            if not self._is_lost():
                break
            if not self._pass_over():
                return None
            self._lost += 1
        try:
            got = self._inner.read(self._scratch)
        except FormatChanged:
            self._use_format()
            raise
        if got is None:
            return None
        self._write(out)
        late_ns = round(self._jitter_ns * self._draw(1)) if self._jitter_ns else 0
        lost, self._lost = self._lost, 0
        self._number += 1
        return SourceFrame(got.stamp_ns, got.contrast, lost=lost, late_ns=late_ns)

    def _write(self, out: np.ndarray) -> None:
        """What is seen of the frame that was read."""
        if self._number < self._black_until:
            dark = self.format.max_value if self.format.photometric is Photometric.MONOCHROME1 else 0
            out.fill(dark)
            return
        held = self._number < self._hold_until
        if not held or self._held is None:
            if out.shape == self._scratch.shape:
                np.copyto(out, self._scratch)
            else:
                cv2.resize(self._scratch, out.shape[::-1], dst=out, interpolation=cv2.INTER_NEAREST)
            if self._hold_until >= 0 or any(fault.kind == "hold" for fault in self._faults):
                self._held = out.copy()
            return
        np.copyto(out, self._held)

    def _pass_over(self) -> bool:
        """The inner source's next frame is lost; False at the end."""
        if type(self._inner).skip is Source.skip:
            there = self._inner.read(self._scratch) is not None
        else:
            there = self._inner.skip()
        self._number += there
        return there

    def skip(self) -> bool:
        return not self._over and self._pass_over()

    def interval_ms(self, index: int) -> float | None:
        return self._inner.interval_ms(index)

    def warnings(self) -> tuple[str, ...]:
        return self._inner.warnings()

    def rewind(self) -> None:
        self._inner.rewind()

    def close(self) -> None:
        self._inner.close()
