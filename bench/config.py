"""The settings of the measuring commands, one frozen dataclass each; the string below a field is its help."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

# What a dataclass cannot express: an argument without a flag, its name, and a command below a command.
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand

from bench.methods_config import MethodsConfig

EngineName = Literal["auto", "off", "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime"]
Backend = Literal["auto", "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime"]
Client = Literal["wire", "memory"]
RATES_HZ = (7.5, 10.0, 15.0, 25.0, 30.0, 60.0)
"""The rates of the field."""


@dataclass(frozen=True)
class WorkloadConfig:
    """What every measurement is told."""

    source: Annotated[Positional[str], arg(metavar="LOOP")] = "phantom"
    """phantom, or a recorded cine loop (looped)."""
    size: Annotated[int, arg(metavar="PIXELS")] = 512
    """Rows and columns of the phantom."""
    model: Annotated[str, arg(metavar="MODEL")] = "compact"
    """A shipped model's name, an ONNX file, or a preset's name: one that no model is shipped of gets random weights."""
    trust_model: FlagCreatePairsOff[bool] = False
    """Trust MODEL, a file from elsewhere, from here on; what contrastream export made on this machine needs none."""
    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads of a CPU engine."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the report as JSON."""

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 2048:
            raise ValueError(f"--size must be 64 to 2048 pixels a side, got {self.size}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be 1 or more, got {self.threads}")
        check_out(self.out)


def check_out(out: Path | None) -> None:
    """Find out before a run that its report could not be written.

    Raises:
        ValueError: It could not; the sentence says what to do.
    """
    if out is None:
        return
    if not out.parent.is_dir():
        raise ValueError(f"--out needs an existing folder, got {out.parent}; make it first")
    if out.is_dir():
        raise ValueError(f"--out needs a file name, got the folder {out}; add a name")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise ValueError(f"--out needs a place that can be written, got {out}; choose another")


def _check_rate(rate: float) -> None:
    if not (math.isfinite(rate) and 0 < rate <= 240):
        raise ValueError(f"--rate must be above 0 and at most 240 frames per second, got {rate}")


def _check_frames(frames: int) -> None:
    if frames < 1:
        raise ValueError(f"--frames must be 1 or more, got {frames}; p99 wants 1000")


@dataclass(frozen=True)
class LiveConfig(WorkloadConfig):
    """The whole path, paced, beside a floor of the same hops in the same run: a row for each rate.

    Source, ring, guard, engine, publisher and a client in a process of its own. Latency runs from the instant a frame
    was due, so a stall does not hide the frames behind it. All six rates at 1,000 frames take about ten minutes;
    --rate 30 --frames 18000 is ten minutes of one.
    """

    rate: Annotated[tuple[float, ...], arg(metavar="HZ")] = RATES_HZ
    """Frames per second, one or several; those of the field by default."""
    frames: Annotated[int, arg(metavar="N")] = 1000
    """Frames measured at each rate, after the warm-up."""
    warmup: Annotated[int | None, arg(metavar="N")] = None
    """Frames before the measured ones; by default 100, or one whole loop of the source where that is longer."""
    engine: EngineName = "auto"
    """The runtime; off measures the path without an engine, beside a floor without one."""
    client: Client = "wire"
    """How the measuring client gets the frames: over ZeroMQ, or out of shared memory."""
    shown: bool = False
    """Open the web viewer in a headless Chromium too, and measure until it has drawn each frame; it takes its share of the cores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate:
            raise ValueError("--rate must be one rate or more, got none; for example --rate 15 30")
        for rate in self.rate:
            _check_rate(rate)
        _check_frames(self.frames)
        if self.warmup is not None and self.warmup < 10:
            raise ValueError(
                f"--warmup must be 10 or more, got {self.warmup}; a cold machine measures itself"
            )


@dataclass(frozen=True)
class EngineConfig(WorkloadConfig):
    """The engine with nothing around it: serial, where each inference waits for the one before, and saturated, where
    every slot is full. Beside them what this machine's cores can do at most, measured in the same run.
    """

    frames: Annotated[int, arg(metavar="N")] = 1000
    """Inferences of each kind, over all rounds."""
    rounds: Annotated[int, arg(metavar="N")] = 5
    """Serial and saturated take turns so often."""
    engine: Backend = "auto"
    """The runtime."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_frames(self.frames)
        if not 1 <= self.rounds <= self.frames:
            raise ValueError(f"--rounds must be 1 to the number of frames, got {self.rounds}")


@dataclass(frozen=True)
class TransportConfig:
    """Ring and wire without an engine: paced beside a floor of bare processes, and as fast as they go without a loss."""

    source: Annotated[Positional[str], arg(metavar="LOOP")] = "phantom"
    """phantom, or a recorded cine loop (looped), at its own size."""
    size: Annotated[tuple[int, ...], arg(metavar="PIXELS")] = (512, 1024)
    """Rows and columns of the phantom's frames, one size or several; a recorded loop has its own."""
    rate: Annotated[float, arg(metavar="HZ")] = 30.0
    """Frames per second of the paced part."""
    frames: Annotated[int, arg(metavar="N")] = 1000
    """Frames of each part, after the warm-up."""
    client: Annotated[tuple[Client, ...], arg(metavar="{wire,memory}")] = ("wire", "memory")
    """How the client gets the frames: over ZeroMQ, out of shared memory, or each in turn."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the report as JSON."""

    def __post_init__(self) -> None:
        if not self.client:
            raise ValueError("--client must be wire, memory or both, got none")
        if not self.size or any(not 64 <= side <= 2048 for side in self.size):
            raise ValueError(f"--size must be 64 to 2048 pixels a side, got {self.size or 'none'}")
        _check_rate(self.rate)
        _check_frames(self.frames)
        check_out(self.out)


@dataclass(frozen=True)
class ScaleConfig(WorkloadConfig):
    """How many streams one engine keeps up with: 1, 2, 4 ... rooms until frames miss their deadline."""

    rate: Annotated[float, arg(metavar="HZ")] = 15.0
    """Frames per second of each stream."""
    streams: Annotated[tuple[int, ...], arg(metavar="N")] = (1, 2, 4, 8)
    """How many streams to try, one after the other; the first that misses is the last."""
    frames: Annotated[int, arg(metavar="N")] = 300
    """Frames of each stream, after the warm-up."""
    engine: Backend = "auto"
    """The runtime."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rate(self.rate)
        _check_frames(self.frames)
        if not self.streams or any(not 1 <= count <= 32 for count in self.streams):
            raise ValueError(f"--streams must be numbers from 1 to 32, got {self.streams or 'none'}")
        if list(self.streams) != sorted(set(self.streams)):
            raise ValueError(f"--streams must rise, got {' '.join(map(str, self.streams))}")


@dataclass(frozen=True)
class SoakConfig(WorkloadConfig):
    """Hours of it in constant memory: does latency, memory or anything else drift? Ctrl-C gives the report so far."""

    rate: Annotated[float, arg(metavar="HZ")] = 30.0
    """Frames per second."""
    hours: Annotated[float | None, arg(metavar="HOURS")] = None
    """How long, at that rate; instead of --frames."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """How many frames; 100,000 where neither this nor --hours is given."""
    compressed: bool = False
    """Let frames go as fast as the machine does without a loss, instead of at the rate."""
    engine: EngineName = "auto"
    """The runtime; off shows live pictures only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rate(self.rate)
        if self.hours is not None and self.frames is not None:
            raise ValueError("--hours and --frames say the same in two ways; give one of them")
        if self.hours is not None and not (math.isfinite(self.hours) and 0.0 < self.hours <= 1000.0):
            raise ValueError(f"--hours must be above 0 and at most 1000, got {self.hours}")
        if self.total_frames < 1000:
            raise ValueError(
                f"a soak needs 1000 frames or more, got {self.total_frames}; bench live measures fewer"
            )

    @property
    def total_frames(self) -> int:
        """Frames of the whole run."""
        if self.hours is not None:
            return round(3600.0 * self.hours * self.rate)
        return 100_000 if self.frames is None else self.frames


@dataclass(frozen=True)
class PeersConfig(WorkloadConfig):
    """The same work done by what people use instead, in turns in one run: a plain Python loop, Holoscan, raw pyzmq, and ours.

    Same frames, engine, threads, schedule and bytes to a client in another process. Those that are not installed
    (pip install -e '.[peers]') are left out, and the report says why.
    """

    rate: Annotated[float, arg(metavar="HZ")] = 30.0
    """Frames per second, the same for each."""
    frames: Annotated[int, arg(metavar="N")] = 1000
    """Frames measured of each, over all rounds; p99 wants 1000."""
    rounds: Annotated[int, arg(metavar="N")] = 20
    """Turns of each, so that all of them meet the same machine; long turns meet different ones."""
    engine: Backend = "auto"
    """The runtime, the same for each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rate(self.rate)
        _check_frames(self.frames)
        if not 1 <= self.rounds <= self.frames:
            raise ValueError(f"--rounds must be 1 to the number of frames, got {self.rounds}")


@dataclass(frozen=True)
class GlassConfig:
    """How late the viewer's screen is: a target whose bar code says when it was due, seen by a camera or read off the display.

    The live path runs on the target and a display client shows it, while CAMERA looks. Latency runs from when a frame was due to
    the first capture that shows its number; what is not known of it is said. Where the original is seen beside the viewer's
    copy, the difference of the two codes is a latency that needs no clock; a recorded video can only give that one.
    """

    camera: Annotated[Positional[str], arg(metavar="CAMERA")]
    """screen (this host's X display, pixels without light), v4l2:0 (a camera), or a recorded video of two targets."""
    display: Literal["window", "web", "none"] = "window"
    """What shows the target: the desktop window, the web viewer, or nothing of ours: the camera looks at what is there."""
    rate: Annotated[float, arg(metavar="HZ")] = 30.0
    """Frames per second of the target."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """Frames measured, after 30 to warm up; 1,050 where neither this nor --seconds is given: p99 wants 1,000 that were seen."""
    seconds: Annotated[float | None, arg(metavar="S")] = None
    """How long, instead of --frames."""
    size: Annotated[int, arg(metavar="PIXELS")] = 720
    """Columns of the target, 216 to 2048; a camera wants each of its 36 units 3 pixels wide or more."""
    within: Annotated[float, arg(metavar="S")] = 30.0
    """How long the camera may see no target: enough to point it at the screen."""
    camera_rate: Annotated[float | None, arg(metavar="HZ")] = None
    """Pictures per second asked of a V4L2 device; the more, the less is uncertain."""
    camera_size: Annotated[tuple[int, int] | None, arg(metavar="PIXELS")] = None
    """Columns and rows asked of a V4L2 device."""
    engine: EngineName = "off"
    """The runtime; off shows the live picture as it comes, any other lets it wait for its synthesis."""
    model: Annotated[str, arg(metavar="MODEL")] = "compact"
    """With an engine: a shipped model's name, an ONNX file, or a preset's name."""
    trust_model: FlagCreatePairsOff[bool] = False
    """Trust MODEL, a file from elsewhere, from here on; what contrastream export made on this machine needs none."""
    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads of a CPU engine."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the report as JSON."""

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if self.seconds is not None and self.frames is not None:
            raise ValueError("--seconds and --frames say the same in two ways; give one of them")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0.0):
            raise ValueError(f"--seconds must be above 0, got {self.seconds}")
        _check_frames(self.total_frames)
        if not 216 <= self.size <= 2048:
            raise ValueError(f"--size must be 216 to 2048 columns, got {self.size}")
        if not (math.isfinite(self.within) and self.within > 0.0):
            raise ValueError(f"--within must be above 0 seconds, got {self.within}")
        if self.camera_rate is not None and not (math.isfinite(self.camera_rate) and self.camera_rate > 0.0):
            raise ValueError(f"--camera-rate must be above 0 pictures per second, got {self.camera_rate}")
        if self.camera_size is not None and min(self.camera_size) < 1:
            raise ValueError(f"--camera-size must be columns and rows from 1, got {self.camera_size}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be 1 or more, got {self.threads}")
        check_out(self.out)

    @property
    def total_frames(self) -> int:
        """Frames that are measured."""
        if self.seconds is not None:
            return max(1, round(self.seconds * self.rate))
        return 1050 if self.frames is None else self.frames


@dataclass(frozen=True)
class CompareConfig:
    """Did it get slower? Two reports of the same machine and workload, figure by figure, with 99 % intervals.

    A change is claimed only where it shows as measured and divided by the floor of the same run. Exit status: 0 nothing is
    slower, 4 something is, 5 nothing is but of a figure that decides nobody can tell. Also for two files of
    pytest-benchmark (make micro).
    """

    before: Annotated[Positional[Path], arg(metavar="A.json")]
    """The first report; its .npz must lie beside it."""
    after: Annotated[Positional[Path], arg(metavar="B.json")]
    """The second."""
    across: bool = False
    """Compare also other machines, engines, sizes and rates; the differences are named."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the comparison as JSON."""

    def __post_init__(self) -> None:
        check_out(self.out)


@dataclass(frozen=True)
class BenchConfig:
    """Measure this machine: frames per second and latency, always beside what they are to be compared with."""

    workload: (
        Annotated[LiveConfig, subcommand("live")]
        | Annotated[EngineConfig, subcommand("engine")]
        | Annotated[TransportConfig, subcommand("transport")]
        | Annotated[ScaleConfig, subcommand("scale")]
        | Annotated[SoakConfig, subcommand("soak")]
        | Annotated[PeersConfig, subcommand("peers")]
        | Annotated[GlassConfig, subcommand("glass")]
        | Annotated[MethodsConfig, subcommand("methods")]
        | Annotated[CompareConfig, subcommand("compare")]
    )


@dataclass(frozen=True)
class DoctorConfig:
    """Tell what works on this machine and how to mend the rest."""

    out: Path | None = None
    """Write it as JSON too."""

    def __post_init__(self) -> None:
        check_out(self.out)
