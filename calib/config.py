"""Settings of the calibration room. Standard library only."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

# The marks a dataclass cannot express: an argument without a flag, a command's name, what stands for a value in the help.
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand

Backend = Literal["auto", "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime"]

DEFAULT_OUT = {".toml": "site.toml", ".safetensors": "patient.safetensors"}
MIN_SIDE = 64
MAX_SIDE = 2048


@dataclass(frozen=True)
class PhantomConfig:
    """One digital patient in front of the camera, and how the picture is taken.

    The same settings give the same bytes, always.

    Raises:
        ValueError: A setting is outside its range.
    """

    seed: int = 0
    """Which patient, 0 or above."""
    rows: int = 512
    """Rows of a frame, 64 to 2048."""
    columns: int = 512
    """Columns of a frame, 64 to 2048."""
    bits_stored: int = 8
    """Bits stored per sample, 8 to 16; 8 is uint8, more is uint16."""
    rate_hz: float = 15.0
    """Frames per second, above 0 and at most 120."""
    heart_rate_bpm: float = 72.0
    """Heartbeats per minute, 20 to 240; adjusted by a few per cent so that the loop closes."""
    breaths_per_min: float = 14.0
    """Breaths per minute, 4 to 60; adjusted as the heart rate is."""
    variation: float = 0.2
    """How far this patient's coronary tree departs from what heart outline and pose tell, 0 to 1; 1 is a population's spread: 5 mm on average, other branches."""
    primary_angle_deg: float | None = None
    """DICOM's Positioner Primary Angle of the C-arm, -60 (RAO) to 60 (LAO); left out, near -30 and the patient's own."""
    secondary_angle_deg: float | None = None
    """Positioner Secondary Angle, -40 (caudal) to 40 (cranial); left out, near -10 and the patient's own."""
    dose: float = 1.0
    """Detector dose relative to a cine frame (50,000 quanta per square millimetre at white), 0.01 to 100."""
    contrast: bool = False
    """Whether the live picture shows contrast medium in the coronary arteries."""
    bolus: bool = False
    """Whether the contrast medium comes and goes once per loop; without it the tree is always full."""
    collimated: bool = True
    """Whether collimator blades show at the border."""
    noise: str = "shared"
    """Whether a frame's two pictures, with and without contrast, share one noise realisation."""
    scatter: float = 0.2
    """Scattered radiation relative to the primary beam, 0 to 2: a veil that lowers contrast."""
    devices: bool = True
    """Whether some patients have sternal wires, a pacemaker, ECG cables or a guidewire in the catheter, as their seed tells."""
    blur_mm: float = 0.30
    """Blur of focal spot and detector together, 0 to 3 mm: its standard deviation at the heart; 0.45 pixels at least."""
    lag: float = 0.02
    """Share of the signal that the detector keeps from one frame to the next, 0 to 0.9."""
    electronic_noise: float = 0.001
    """Standard deviation of the electronics' noise at dose 1, in grey levels (1 is white), 0 to 0.2; it goes with 1 / dose."""
    saturation: float = 1.0
    """Grey level at which the detector saturates, 0.3 to 1."""
    field_mm: float = 145.0
    """The shorter side of the frame in millimetres at the heart, 100 to 400."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or above, got {self.seed}; any whole number names a patient")
        for name, side in (("rows", self.rows), ("columns", self.columns)):
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise ValueError(
                    f"{name} must be {MIN_SIDE} to {MAX_SIDE} pixels, got {side}; choose another size"
                )
        if not 8 <= self.bits_stored <= 16:
            raise ValueError(f"bits_stored must be 8 to 16, got {self.bits_stored}")
        if self.noise not in ("shared", "independent"):
            raise ValueError(f"noise must be 'shared' or 'independent', got {self.noise!r}")
        ranges: tuple[tuple[str, float, float, str], ...] = (
            ("rate_hz", 0.1, 120.0, "frames per second"),
            ("heart_rate_bpm", 20.0, 240.0, "beats per minute"),
            ("breaths_per_min", 4.0, 60.0, "breaths per minute"),
            ("variation", 0.0, 1.0, "(0 follows the heart's outline wholly)"),
            ("dose", 0.01, 100.0, "times the dose of a cine frame"),
            ("scatter", 0.0, 2.0, "times the primary beam"),
            ("field_mm", 100.0, 400.0, "mm"),
            ("blur_mm", 0.0, 3.0, "mm"),
            ("lag", 0.0, 0.9, "of the frame before"),
            ("electronic_noise", 0.0, 0.2, "grey levels"),
            ("saturation", 0.3, 1.0, "(1 is white)"),
            ("primary_angle_deg", -60.0, 60.0, "degrees (RAO is negative, LAO positive)"),
            ("secondary_angle_deg", -40.0, 40.0, "degrees (caudal is negative, cranial positive)"),
        )
        for name, low, high, unit in ranges:
            value = getattr(self, name)
            if value is None and name.endswith("_angle_deg"):
                continue
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name} must be {low:g} to {high:g} {unit}, got {value}")

    @property
    def max_value(self) -> int:
        """The largest stored pixel value."""
        return (1 << self.bits_stored) - 1

    @property
    def spacing_mm(self) -> float:
        """Size of a pixel at the heart, in millimetres."""
        return self.field_mm / min(self.rows, self.columns)


@dataclass(frozen=True)
class FramesConfig:
    """Where a calibration's frames come from."""

    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="SOURCE")]
    """phantom, v4l2:0, or recordings of one room: DICOM cine loops, video files, folders of frames. Without contrast medium."""
    frames: Annotated[int, arg(metavar="N")] = 480
    """Most frames to measure, spread evenly over all that come; of each recording as many as of the others."""
    seconds: Annotated[float, arg(metavar="S")] = 120.0
    """How long to look at a live source, or at the phantom."""
    rate: Annotated[float | None, arg(metavar="HZ")] = None
    """The rate asked of a device or of the phantom."""
    crop: Annotated[str | None, arg(metavar="X,Y,W,H")] = None
    """x,y,w,h in pixels: the region of the picture that is the X-ray; the same as in `run`."""
    gray: bool = False
    """Convert the colour of a video or image file instead of refusing it."""
    luma: Literal["auto", "limited", "full"] = "auto"
    """Range of a device's luma: 16 to 235, 0 to 255, or as its pixel format has it."""
    width: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Columns asked of a device."""
    height: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Rows asked of a device."""
    size: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Rows and columns of the phantom."""
    bits: Annotated[int | None, arg(metavar="8..16")] = None
    """Bits stored: of the phantom, and of 16-bit images, which do not say."""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """The phantom's patient."""
    contrast: bool = False
    """Contrast medium in the phantom's vessels, to see what is refused then."""
    contrast_free: bool = False
    """Take every frame for contrast-free, whatever it looks like: for a person who knows."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(
                "needed a SOURCE, got none; for example: contrastream calib run cine.dcm --out site.toml"
            )
        if not 2 <= self.frames <= 2000:
            raise ValueError(f"--frames must be 2 to 2000, got {self.frames}; 480 is enough for most")
        if not (math.isfinite(self.seconds) and 0.1 <= self.seconds <= 3600.0):
            raise ValueError(f"--seconds must be 0.1 to 3600 s, got {self.seconds}; 120 is enough for most")


@dataclass(frozen=True)
class SiteConfig:
    """The record, and what it is measured with."""

    out: Annotated[Path, arg(metavar="FILE")] = Path("site.toml")
    """The record; the figures as .json, the plots as .png and one page with everything as .html are written beside it."""
    model: Annotated[str, arg(metavar="MODEL")] = "compact"
    """A shipped model's name, or an ONNX file: the record is for this one."""
    trust_model: FlagCreatePairsOff[bool] = False
    """Trust MODEL, a file from elsewhere, from here on; what contrastream export made on this machine needs none."""
    engine: Backend = "auto"
    """The runtime that is measured; auto takes all that are usable here for `precision`, and the first of them else."""
    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads of a CPU engine."""

    def __post_init__(self) -> None:
        check_out(self.out)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be 1 or more, got {self.threads}")


@dataclass(frozen=True)
class MeasuredConfig(SiteConfig, FramesConfig):
    """What every step that looks at frames is told."""

    def __post_init__(self) -> None:
        FramesConfig.__post_init__(self)
        SiteConfig.__post_init__(self)


@dataclass(frozen=True)
class PicturedConfig(MeasuredConfig):
    """What the steps are told that compare engines."""

    worst_frame: bool = True
    """Save the frame on which each engine differs most as FILE-precision-worst.png: at full size, black outside the field and over burned-in text, where the geometry passed, else reduced until no text can be read."""


@dataclass(frozen=True)
class CalibRunConfig(PicturedConfig):
    """Every step that makes sense for the source, into a new record, from frames without contrast medium."""

    overwrite: bool = False
    """Replace a former record of that name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.exists() and not self.overwrite:
            raise ValueError(
                f"--out {self.out} is there already; choose another, replace it with --overwrite, or update one step of "
                "it: contrastream calib {geometry, intensity, domain, precision, phantom}"
            )


@dataclass(frozen=True)
class CalibGeometryConfig(MeasuredConfig):
    """Collimated field, burned-in text and pixel size, into a record of that name."""

    grid_mm: Annotated[float | None, arg(metavar="MM")] = None
    """The frames show a grid whose lines lie so far apart: measure a pixel's size on it. A record that has a geometry keeps its field and text, and gets this size alone."""
    wedge_mm: Annotated[float | None, arg(metavar="MM")] = None
    """The same of a step wedge, from one step to the next."""
    phantom_at: Literal["object", "isocentre", "detector"] = "object"
    """Where the grid or wedge lay: that is where the size holds."""
    phantom_box: Annotated[str | None, arg(metavar="X,Y,W,H")] = None
    """The part of the picture that shows it, in pixels; the inside of the field when none is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid_mm is not None and self.wedge_mm is not None:
            raise ValueError("needed one of --grid-mm and --wedge-mm, got both; measure one after the other")
        for name, pitch in (("--grid-mm", self.grid_mm), ("--wedge-mm", self.wedge_mm)):
            if pitch is not None and not 0.1 <= pitch <= 200.0:
                raise ValueError(f"{name} must be 0.1 to 200 mm, got {pitch}; for example 10")
        if not self.on_phantom and (self.phantom_at != "object" or self.phantom_box is not None):
            raise ValueError(
                "--phantom-at and --phantom-box need --grid-mm or --wedge-mm, got neither; add the pitch of what lay there"
            )
        if self.phantom_box is not None:
            parse_box(self.phantom_box)

    @property
    def on_phantom(self) -> bool:
        """Whether the frames show a grid or wedge."""
        return self.grid_mm is not None or self.wedge_mm is not None


@dataclass(frozen=True)
class CalibIntensityConfig(MeasuredConfig):
    """Stored pixel values to the grey levels the network was taught on, into a record of that name."""


@dataclass(frozen=True)
class CalibDomainConfig(MeasuredConfig):
    """How unlike the taught frames a frame may be before nothing is drawn on it, into a record of that name."""


@dataclass(frozen=True)
class CalibPrecisionConfig(PicturedConfig):
    """How far an engine is from the fp32 reference on these frames, into a record of that name."""


@dataclass(frozen=True)
class CalibPhantomConfig:
    """The digital phantom's own self-test: noise against Poisson, an edge's sharpness, a step wedge's linearity."""

    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """A record to put it into, which must be there already."""
    size: Annotated[int, arg(metavar="PIXELS")] = 512
    """Rows and columns of a frame."""
    bits: Annotated[int, arg(metavar="8..16")] = 12
    """Bits stored."""
    dose: float = 1.0
    """Detector dose relative to a cine frame."""
    blur_mm: Annotated[float, arg(metavar="MM")] = 0.30
    """Standard deviation of the blur at the heart."""

    def __post_init__(self) -> None:
        if self.out is not None:
            check_out(self.out)
        PhantomConfig(
            rows=self.size, columns=self.size, bits_stored=self.bits, dose=self.dose, blur_mm=self.blur_mm
        )


@dataclass(frozen=True)
class CalibClockConfig:
    """Offset and drift of a publisher's clock against this host's, by repeated exchanges with it; prints what is known."""

    endpoint: Annotated[Positional[str | None], arg(metavar="ENDPOINT")] = None
    """A running stream: a name, ipc:///path or tcp://ADDRESS:PORT; this host's default stream when none is given."""
    server_key: Annotated[str | None, arg(metavar="KEY")] = None
    """The publisher's public key, 40 characters or its LABEL.key file, for an address with CURVE."""
    key: Annotated[str | None, arg(metavar="LABEL")] = None
    """Your own CURVE key pair there; main when none is given."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """A record to put it into, which must be there already."""
    exchanges: Annotated[int, arg(metavar="N")] = 64
    """How many exchanges, 8 to 240."""
    interval_ms: Annotated[int, arg(metavar="MS")] = 50
    """From one exchange to the next; drift shows only over a long time."""

    def __post_init__(self) -> None:
        if self.out is not None:
            check_out(self.out)
        if not 8 <= self.exchanges <= 240:
            raise ValueError(f"--exchanges must be 8 to 240, got {self.exchanges}")
        if not 1 <= self.interval_ms <= 60_000:
            raise ValueError(f"--interval-ms must be 1 to 60000 ms, got {self.interval_ms}")


@dataclass(frozen=True)
class CalibShowConfig:
    """Print a record, and check it: who edited it by hand is told the key and the line."""

    site: Annotated[Positional[Path], arg(metavar="FILE")] = Path("site.toml")
    """The record."""


@dataclass(frozen=True)
class CalibPatientConfig:
    """Teach the model one patient's vessels, from one injection: contrast-free frames, and filled ones of the same moments.

    The recordings are of one patient, one projection and a still table, in the order in which they were taken: ten heartbeats or
    more without contrast medium, then the injection, held for two heartbeats or more. All may be one file.
    """

    recordings: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """DICOM cine loops, video files, folders of frames, or what the key k of a viewer wrote (view --keep-last)."""
    out: Annotated[Path, arg(metavar="FILE")] = Path("patient.safetensors")
    """The adaptation; a picture of what was learned is written beside it as .png, and shows the patient."""
    model: Annotated[str, arg(metavar="MODEL")] = "compact"
    """The general model: a shipped one's name, or an ONNX file."""
    trust_model: FlagCreatePairsOff[bool] = False
    """Trust MODEL, a file from elsewhere, from here on."""
    site: Annotated[Path | None, arg(metavar="FILE")] = None
    """The site's record that the run has too: its grey levels are those that are taught with."""
    segmenter: Annotated[Path | None, arg(metavar="FILE")] = None
    """A vessel segmenter (python -m casgan.segmenter, --data moments or a folder); the shipped one knows the digital phantom, and real vessels less well."""
    steps: Annotated[int, arg(metavar="N")] = 1500
    """Steps of teaching at most, which a GPU does in a minute; it ends earlier where the held-out heartbeat gets no better."""
    seconds: Annotated[float, arg(metavar="S")] = 240.0
    """Seconds of teaching at most."""
    threads: Annotated[int, arg(metavar="N")] = 2
    """CPU threads."""
    rate: Annotated[float | None, arg(metavar="HZ")] = None
    """Frames per second, where the recordings do not say."""
    crop: Annotated[str | None, arg(metavar="X,Y,W,H")] = None
    """x,y,w,h in pixels: the region of the picture that is the X-ray; the same as in `run`."""
    gray: bool = False
    """Convert the colour of a video or image file instead of refusing it."""
    bits: Annotated[int | None, arg(metavar="8..16")] = None
    """Bits stored of 16-bit images, which do not say."""
    overwrite: bool = False
    """Replace a former file of that name."""

    def __post_init__(self) -> None:
        if not self.recordings:
            raise ValueError(
                "needed a RUN with one injection, got none; for example: contrastream calib patient run.dcm --out patient.safetensors"
            )
        if any(source == "phantom" or source.startswith(("v4l2:", "igtl:")) for source in self.recordings):
            raise ValueError(
                "needed recordings, got a source without an end; record it first, or write its last minute: contrastream view --keep-last 60 "
                "--keep-in DIR"
            )
        check_file(self.out, ".safetensors")
        if self.out.exists() and not self.overwrite:
            raise ValueError(
                f"--out {self.out} is there already; choose another, or replace it with --overwrite"
            )
        if min(self.steps, self.threads) < 1 or not 1.0 <= self.seconds <= 36000.0:
            raise ValueError(
                f"--steps and --threads must be 1 or more and --seconds 1 to 36000, got {self.steps}, {self.threads} and "
                f"{self.seconds}"
            )


@dataclass(frozen=True)
class CalibConfig:
    """What the numbers of a site mean, before any synthesis is trusted.

    `calib run SOURCE... --out site.toml` measures a site in one go, prints a table and writes one record with plots and
    a page beside it; `contrastream run SOURCE --site site.toml` uses it. The other commands do one step each and
    change its part of a record alone. `calib patient` teaches the model one patient's vessels; it is no part of a record.
    """

    step: (
        Annotated[CalibRunConfig, subcommand("run")]
        | Annotated[CalibShowConfig, subcommand("show")]
        | Annotated[CalibGeometryConfig, subcommand("geometry")]
        | Annotated[CalibIntensityConfig, subcommand("intensity")]
        | Annotated[CalibDomainConfig, subcommand("domain")]
        | Annotated[CalibPrecisionConfig, subcommand("precision")]
        | Annotated[CalibClockConfig, subcommand("clock")]
        | Annotated[CalibPhantomConfig, subcommand("phantom")]
        | Annotated[CalibPatientConfig, subcommand("patient")]
    )


def parse_box(text: str) -> tuple[int, int, int, int]:
    """Read `--phantom-box`: left, top, width and height in pixels.

    Raises:
        ValueError: Not four whole numbers, or less than 64 pixels a side.
    """
    try:
        left, top, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--phantom-box must be x,y,w,h in pixels, got {text!r}; for example 100,80,300,300"
        ) from None
    if min(left, top) < 0 or min(width, height) < MIN_SIDE:
        raise ValueError(
            f"--phantom-box needs x and y from 0, and w and h of {MIN_SIDE} pixels or more, got {text}; for example "
            "100,80,300,300"
        )
    return left, top, width, height


def check_out(path: Path) -> None:
    """Find out before the work that a record could not be written.

    Raises:
        ValueError: It could not; the sentence says what to do.
    """
    check_file(path, ".toml")


def check_file(path: Path, suffix: str) -> None:
    """The same for a file of any kind.

    Raises:
        ValueError: It could not be written, or does not end in `suffix`.
    """
    if path.suffix != suffix:
        raise ValueError(f"--out must end in {suffix}, got {path.name}; for example {DEFAULT_OUT[suffix]}")
    if not path.parent.is_dir():
        raise ValueError(f"--out needs an existing folder, got {path.parent}; make it first")
    if path.is_dir():
        raise ValueError(f"--out needs a file name, got the folder {path}; add a name")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"--out needs a file that can be written, got {path}; choose another")
