"""Errors of the engines."""


class EngineError(Exception):
    """A model or a runtime that cannot be used. Says what was needed, what came and what to do."""


class ModelError(EngineError):
    """A model file that is missing, hostile, of another kind, or has other inputs than the graph's."""
