"""Errors of the live path that come from the outside world: files, cards, sockets, peers."""


class StreamError(Exception):
    """Base of this package's errors. The message says what was needed, what came and what to do."""


class SourceError(StreamError):
    """A source could not be opened or read: missing, hostile, unsupported, or of another kind."""


class SourceGone(SourceError):
    """The source is not there now and may come back: the guard opens it again, with waits between."""


class WireError(StreamError):
    """Bytes that are no message of ours, or a message of another major version."""


class EndpointError(StreamError):
    """An address that cannot be bound or connected: in use, not allowed, not an address."""


class OutputError(StreamError):
    """A folder that cannot be written: the disk is full, gone, or not ours."""


class ArchiveError(StreamError):
    """An archive of syntheses that cannot be begun: nothing to do, another model's, or in use."""


class ClusterError(StreamError):
    """A Ray cluster that is not there, or that gives no worker."""


class RecordError(StreamError):
    """A recording that cannot be written, or a capture that cannot be read."""


class KeyFileError(StreamError):
    """A CURVE key that is missing, open to others, no key, or of a label that is taken."""


class DisplayError(StreamError):
    """A display that is not there."""


class EngineRefused(StreamError):
    """The engine process could not open the model; the message is the engine's own."""


class PipelineError(StreamError):
    """A process of the pipeline failed in a way that is our fault and that starting it again cannot mend."""


class AuditError(StreamError):
    """An audit log, or its key, that cannot be written or read."""
