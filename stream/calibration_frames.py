"""The frames that a site is calibrated on, read in the source process: a share of what recordings or a live source deliver."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.config import FramesConfig
from calib.errors import CalibrationError
from calib.record import SourceIdentity, differences
from stream.errors import SourceError
from stream.frame import FrameFormat
from stream.recording import GRANTS, Recording
from stream.site import identity_of
from stream.sources.open import LIVE
from stream.sources.options import SourceOptions, parse_crop

MAX_KEPT_BYTES = 1 << 30
"""Frames kept in memory at once."""
PHANTOM_RATE_HZ = 15.0


@dataclass(frozen=True)
class SiteFrames:
    """What was read."""

    frames: np.ndarray
    """(frame, row, column) stored pixel values, run after run in time."""
    runs: np.ndarray
    """(frame,) which source each frame is of, from 0."""
    frame_format: FrameFormat
    source: SourceIdentity
    rate_hz: float | None
    sizes: dict[str, float | tuple[float, ...]]
    """What all headers say of sizes and distances alike, by the names of `calib.spacing.HeaderGeometry`."""
    notes: tuple[str, ...]
    """What the sources say of themselves, and how many frames there were."""


class Thinned:
    """Keeps at most so many frames of a run whose length is not known, evenly spread over it.

    When it is full every second one is let go and from then on half as many are taken.

    Args:
        most: Frames to keep at most, at least 2.
        count: Frames that will come, where that is known: then exactly as many are kept as may be.
    """

    def __init__(self, most: int, count: int = 0) -> None:
        self._most = most
        self._wanted = (
            set(np.linspace(0, count - 1, most).round().astype(int).tolist()) if count > most else None
        )
        self._stride = 1
        self._seen = 0
        self.kept: list[np.ndarray] = []

    def offer(self, frame: np.ndarray) -> None:
        """Take a copy of a frame, or pass over it."""
        if self._wanted is not None:
            if self._seen in self._wanted:
                self.kept.append(frame.copy())
        elif self._seen % self._stride == 0:
            if len(self.kept) == self._most:
                del self.kept[1::2]
                self._stride *= 2
            if self._seen % self._stride == 0:
                self.kept.append(frame.copy())
        self._seen += 1

    @property
    def seen(self) -> int:
        """Frames offered."""
        return self._seen


def options_of(config: FramesConfig) -> SourceOptions:
    """What is asked of each source."""
    return SourceOptions(
        rate_hz=config.rate,
        crop=None if config.crop is None else parse_crop(config.crop),
        gray=config.gray,
        luma=config.luma,
        width=config.width,
        height=config.height,
        bits=config.bits,
        size=config.size,
        seed=config.seed,
        contrast=config.contrast,
        untimed=True,
    )


def read_site_frames(
    config: FramesConfig, progress: Callable[[int, int, int], object] = lambda source, done, total: None
) -> SiteFrames:
    """Read the sources, each in a process of its own, one after the other.

    Args:
        config: Which, and how many frames.
        progress: Called with the source's number from 0, frames read of it, and how many it has (0 where unknown).

    Raises:
        SourceError: One cannot be read.
        CalibrationError: They are not of one room, or hold too few frames for anything.
        PipelineError: A source process failed.
    """
    options = options_of(config)
    kept: list[np.ndarray] = []
    runs: list[int] = []
    notes: list[str] = []
    sizes: list[dict[str, float | tuple[float, ...]]] = []
    first: Recording | None = None
    identity: SourceIdentity | None = None
    for number, source in enumerate(config.sources):
        share = config.frames // len(config.sources) + (number < config.frames % len(config.sources))
        recording, frames, seen = _read_one(source, options, config, max(2, share), number, progress)
        said = identity_of({"kind": recording.kind, "device": recording.device}, recording.format, options)
        if first is None or identity is None:
            first, identity = recording, said
        elif differing := differences(identity, said):
            raise CalibrationError(
                f"needed sources of one room, and source {number + 1} differs from the first: needed "
                f"{'; '.join(differing)}; calibrate each by itself"
            )
        sizes.append(recording.sizes)
        notes += [note for note in recording.notes if note not in notes]
        notes.append(f"Source {number + 1}: {len(frames)} of {seen} frames are measured.")
        kept += frames
        runs += [number] * len(frames)
    assert first is not None  # FramesConfig has at least one source
    assert identity is not None
    if len(kept) < 2:
        raise CalibrationError(
            f"needed at least 2 frames, got {len(kept)}; give a longer recording or more of them"
        )
    alike = {name: size for name, size in sizes[0].items() if all(each.get(name) == size for each in sizes)}
    return SiteFrames(
        np.stack(kept), np.array(runs), first.format, identity, first.rate_hz, alike, tuple(notes)
    )


def _read_one(
    source: str,
    options: SourceOptions,
    config: FramesConfig,
    most: int,
    number: int,
    progress: Callable[[int, int, int], object],
) -> tuple[Recording, list[np.ndarray], int]:
    endless = source == "phantom"
    until_s = time.monotonic() + config.seconds
    live = source.startswith(LIVE)
    frames = round(config.seconds * (config.rate or PHANTOM_RATE_HZ)) if endless else None
    frames = None if frames is None else min(max(2, frames), most)
    with Recording(
        source,
        options,
        frames=frames,
        slots=GRANTS + 2,
        stopped=lambda: live and time.monotonic() > until_s,
        live=live,
    ) as recording:
        frame_bytes = recording.format.pixels * recording.format.sample_bytes
        thinned = Thinned(
            max(2, min(most, MAX_KEPT_BYTES // len(config.sources) // frame_bytes)), recording.frame_count
        )
        while (frame := recording.read()) is not None:
            thinned.offer(frame.view.live)
            recording.give_back(frame)
            progress(number, thinned.seen, recording.frame_count)
    if not thinned.kept:
        raise SourceError(f"source {number + 1}: needed frames, got none; give another recording")
    return recording, thinned.kept, thinned.seen


def describe(frames: SiteFrames) -> dict[str, Any]:
    """What was measured on, for the JSON beside a record."""
    return {
        **dataclasses.asdict(frames.source),
        "sources": int(frames.runs.max()) + 1,
        "frames": len(frames.frames),
        "rate_hz": frames.rate_hz,
        "notes": list(frames.notes),
    }
