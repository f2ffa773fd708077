"""What each calibration step found, as a site's record keeps it. Standard library only.

Fields are floats, ints, strings, booleans, tuples of them, None and dataclasses of the same, so that `calib/record.py` can
write and check them by their annotations alone. Units end the names.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepResult:
    """What every step says beside its own figures."""

    passed: bool
    """Whether the residual is within the limit and nothing else forbids to use the result."""
    frames: int
    """Frames that were measured."""
    residual: float
    """How far the result is from what it should be, in `unit`."""
    limit: float
    """The residual above which the step does not pass."""
    unit: str
    """Unit of residual and limit."""
    says: tuple[str, ...]
    """Sentences for a person: what was found, what was refused and why. No patient data."""


@dataclass(frozen=True)
class IntensityResult(StepResult):
    """Stored pixel values to the grey levels the network was taught on (`calib/intensity.py`)."""


@dataclass(frozen=True)
class GeometryResult(StepResult):
    """Where the X-rays came through, what is burned in, and how large a pixel is (`calib/geometry.py`)."""


@dataclass(frozen=True)
class DomainResult(StepResult):
    """How unlike the taught frames a frame may be before nothing is drawn on it (`calib/domain.py`)."""


@dataclass(frozen=True)
class PrecisionResult(StepResult):
    """How far an engine is from the fp32 reference on the site's own frames (`calib/precision.py`)."""


@dataclass(frozen=True)
class ClockResult(StepResult):
    """Offset and drift between two hosts' clocks (`calib/clock.py`)."""


@dataclass(frozen=True)
class PhantomResult(StepResult):
    """What the digital phantom's own self-test found (`calib/phantom_test.py`)."""
