"""Errors of this room that come from the outside world."""


class CalibrationError(Exception):
    """Base of this package's errors. The message says what was needed, what came and what to do."""


class DomainError(CalibrationError):
    """Frames that the domain's statistics or threshold cannot be taken from, or statistics that are broken."""
