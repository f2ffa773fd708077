"""Errors of the measurements."""


class BenchError(Exception):
    """A measurement that cannot be made here. Says what was needed, what came and what to do."""


class EvaluationError(BenchError):
    """A model or data that cannot be evaluated. Says what was needed, what came and what to do."""
