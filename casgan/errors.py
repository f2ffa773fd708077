"""Errors of the network's files."""


class CheckpointError(Exception):
    """A checkpoint that cannot be used. Says what was needed, what came and what to do."""


class DataError(Exception):
    """Pictures that cannot be learned from. Says what was needed, what came and what to do."""


class TrainingError(Exception):
    """A run that cannot go on. Says what happened, what is kept and what to do."""
