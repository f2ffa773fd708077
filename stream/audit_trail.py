"""What a pipeline says to its audit log (`stream/audit_log.py`): start and stop, states, engines, clients, drops.

An entry holds counts, hashes, versions and words of ours: nothing of a patient, no name or path of a file, no address.
Beside what every entry has (`stream/audit_chain.py`):

    start     versions, pid, stream (as in each message), engine asked for, site_sha256 or null
    source    kind, rows, columns, bits_stored, rate_hz: the source is open, or its format has changed
    engine    backend, precision, model_sha256, taught: an engine is ready
    state     before, after: words as on the status line, with the reason
    adaptation  what: ready (key, adapted_sha256, ready_ms), refused, or draws (before, after, key): a patient's adaptation by its
              random key; after is off, adapted, or why the general model draws in its place
    restart   source, engine: how often each process has been started again so far; source_cause: what ended the last source
              process, "no_answer" (it hung and was killed), "ended", "malformed", or null
    clients   subscribers, in_memory, disconnected, and with CURVE denied, revoked, refused: when one of them changes
    admitted  keys{label: handshakes so far}: who came in, by the labels of `contrastream keys`
    minute    due, published, dropped{reason: n}: of the minute before
    lost      entries: so many could not be written before this one
    rotated   file, oldest_entry: a new file; entries before that one have been removed
    stop      why, due, published, dropped, model_sha256, site_sha256: the totals
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from pathlib import Path
from typing import Any

from calib.record_text import to_plain
from stream.audit_log import AuditLog
from stream.frame import FrameFormat
from stream.site import Site
from stream.timing import NS_PER_S

log = logging.getLogger("contrastream.audit_log")

MINUTE_NS = 60 * NS_PER_S
PACKAGES = ("contrastream", "numpy", "pyzmq", "openvino", "onnxruntime", "torch", "tensorrt", "tensorrt-rtx-cu13", "pydicom",
            "opencv-python")  # fmt: skip
CLIENTS = ("subscribers", "in_memory", "disconnected", "denied", "revoked", "refused")


def versions() -> dict[str, str]:
    """Of this program, Python and what is installed of the packages that a picture passes."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def record_sha256(record: dict[str, Any]) -> str:
    """The name of a site's record: the hash of its values, whatever the file's comments and order."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class AuditTrail:
    """Turns what a pipeline knows into entries; without a folder it keeps none.

    Args:
        folder: Where the log is; None for none.

    Raises:
        AuditError: The log cannot be begun.
    """

    def __init__(self, folder: str | None) -> None:
        self.log = None if folder is None else AuditLog(Path(folder))
        self._minute_ns: int | None = None
        self._counted: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._keys: dict[str, int] = {}
        self._restarts = (0, 0)
        self._source: dict[str, Any] = {}
        self._engine: dict[str, Any] = {}
        self._site_sha256: str | None = None

    def start(self, *, stream: bytes, engine: str, site: Site | None) -> None:
        """The pipeline begins.

        Args:
            stream: The publisher's random name of this stream.
            engine: The backend that was asked for.
            site: The site's record; None without one.
        """
        if self.log is None:
            return
        self._site_sha256 = None if site is None else record_sha256(to_plain(site.record))
        self.log.write(
            "start",
            versions=versions(),
            pid=os.getpid(),
            stream=stream.hex(),
            engine=engine,
            site_sha256=self._site_sha256,
        )
        log.info("audit log in %s", self.log.chain)

    def state(self, before: str, after: str) -> None:
        """The guard has entered another state."""
        if self.log is not None:
            self.log.write("state", before=before, after=after)

    def adaptation(self, what: str, facts: dict[str, Any]) -> None:
        """Something has become of a patient's adaptation; by its random key, never by its file's name."""
        if self.log is not None:
            self.log.write("adaptation", what=what, **facts)

    def see(
        self, status: dict[str, Any], opened: dict[str, Any], frame_format: FrameFormat | None, now_ns: int
    ) -> None:
        """Take in a heartbeat: source, engine, restarts, clients, and once a minute the drops.

        Args:
            status: The heartbeat.
            opened: What the source said when it opened; its kind and rate are all that is taken of it.
            frame_format: Of its frames; None before the source is open.
            now_ns: Of the frame path's clock.
        """
        if self.log is None:
            return
        if frame_format is not None:
            self._see_source(self.log, opened, frame_format)
        engine = {
            name: status["engine"].get(name) for name in ("backend", "precision", "model_sha256", "taught")
        }
        if status["engine"] and engine != self._engine:
            self._engine = engine
            self.log.write("engine", **engine)
        restarts = (status["source_restarts"], status["engine_restarts"])
        if restarts != self._restarts:
            self._restarts = restarts
            cause = status["source_cause"]
            self.log.write("restart", source=restarts[0], engine=restarts[1], source_cause=cause)
        clients = {name: status["clients"][name] for name in CLIENTS if name in status["clients"]}
        if clients != self._clients:
            self._clients = clients
            self.log.write("clients", **clients)
        if self._minute_ns is None:
            self._minute_ns = now_ns
        elif now_ns - self._minute_ns >= MINUTE_NS:
            self._minute_ns = now_ns
            self.log.write("minute", **self._since(status["counters"]))

    def admitted(self, keys: dict[str, int]) -> None:
        """Take in whose keys were let in.

        Args:
            keys: Handshakes so far, by the key's label.
        """
        if self.log is not None and keys != self._keys:
            self._keys = keys
            self.log.write("admitted", keys=keys)

    def _see_source(self, audit_log: AuditLog, opened: dict[str, Any], frame_format: FrameFormat) -> None:
        source = {
            "kind": opened.get("kind"),
            "rows": frame_format.rows,
            "columns": frame_format.columns,
            "bits_stored": frame_format.bits_stored,
            "rate_hz": opened.get("rate_hz"),
        }
        if source != self._source:
            self._source = source
            audit_log.write("source", **source)

    def _since(self, counters: dict[str, Any]) -> dict[str, Any]:
        """What was due, published and dropped since this was asked last."""
        before, self._counted = self._counted, {**counters, "dropped": dict(counters.get("dropped", {}))}
        dropped = {
            reason: count - before.get("dropped", {}).get(reason, 0)
            for reason, count in counters.get("dropped", {}).items()
        }
        return {
            "due": counters.get("due", 0) - before.get("due", 0),
            "published": counters.get("published", 0) - before.get("published", 0),
            "dropped": {reason: count for reason, count in dropped.items() if count},
        }

    def stop(self, why: str, status: dict[str, Any] | None) -> None:
        """The pipeline is over.

        Args:
            why: "asked", "source_ended", or the class of an error.
            status: The last heartbeat; None where there was none.
        """
        if self.log is None:
            return
        counters = {} if status is None else status["counters"]
        self.log.write(
            "stop",
            why=why,
            due=counters.get("due", 0),
            published=counters.get("published", 0),
            dropped=dict(counters.get("dropped", {})),
            model_sha256=self._engine.get("model_sha256"),
            site_sha256=self._site_sha256,
        )
        self.log.close()

    def status(self) -> dict[str, Any] | None:
        """For the heartbeat; None where no log is kept."""
        return None if self.log is None else self.log.status()
