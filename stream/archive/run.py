"""An archive run: find the loops, leave out what is done, have the rest made here or by a cluster, keep the manifest true."""

import hashlib
import importlib.metadata
import os
import threading
import time
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.archive.find import Found, content_sha256, find_loops, has_scheme, is_pattern
from stream.archive.folder import ArchiveFolder, Identity
from stream.archive.loop import LoopWorker, Result, Task, without_names
from stream.archive.report import format_archive, format_progress
from stream.config import SynthesizeConfig
from stream.errors import ArchiveError, OutputError, SourceError
from stream.session import stopped_by_signals
from stream.statusline import StatusLine

if TYPE_CHECKING:
    from stream.archive.cluster import Cluster

CHANGING = ("untaught", "frames", "rate", "crop", "gray", "bits", "film", "dicom", "engine")
"""Settings that change what a loop's folder holds."""
MANIFEST_EVERY_S = 1.0
"""How often the manifest is written at most while loops are done; what it lacks then is in the loops' own reports."""
SOME_FAILED = 3


def is_archive(config: SynthesizeConfig) -> bool:
    """Whether a command is about an archive and not about one recording.

    Raises:
        ArchiveError: It names no source.
    """
    if not config.sources:
        raise ArchiveError("needed a recording, a folder or a pattern, got none; for example loop.dcm")
    source = config.sources[0]
    if len(config.sources) > 1 or config.ray is not None or ArchiveFolder.is_archive(config.out):
        return True
    if has_scheme(source) or not (is_pattern(source) or os.path.isdir(source)):
        return False
    # A folder is one recording where its frames are all there is.
    return find_loops(config.sources).loops != (Path(os.path.realpath(source)),)


class ArchiveRun:
    """One run of `contrastream synthesize` over an archive.

    Args:
        config: What to synthesize.

    Raises:
        ArchiveError: A source is not there, there is no loop, or the folder is another's.
        ModelError, CalibrationError: The model or the site's record cannot be used.
    """

    def __init__(self, config: SynthesizeConfig) -> None:
        if config.workers is not None and config.ray is None:
            raise ArchiveError("--workers is for --ray, got none; for example --ray local:2")
        self.config = config
        self.stopped = threading.Event()
        self._cluster = None if config.ray is None else _cluster(config, self.stopped)
        self.identity = _identity(config)
        self.found: Found = find_loops(config.sources)
        self.folder = ArchiveFolder(config.out)
        self.read = 0
        """Loops whose content is known."""
        self.hashes: dict[str, Path] = {}
        """Where each loop was found first, by its hash."""
        self.entries: dict[str, dict[str, Any]] = {}
        """What the manifest says of the loops that are done, by hash."""
        self.stale: dict[str, dict[str, Any]] = {}
        """As `entries`, of those that another model, site's record or other settings made and this run has not replaced."""
        self.failed: dict[str, tuple[Path, str]] = {}
        """The sentence for each that is not, by its hash, or by its path where it could not be read."""
        self.kept = self.made = self.frames = self.todo = self.lost = 0
        self.workers = 1
        self.where = "this process"
        self._now: LoopWorker | None = None
        self._begun = datetime.now(UTC)
        self._started_s = 0.0
        self._ended_s: float | None = None
        self._written_s = 0.0
        self._before: dict[str, Any] = {}

    def stop(self) -> None:
        """End soon; the loop that is being made is left out. Safe from a signal handler."""
        self.stopped.set()
        if (now := self._now) is not None:
            now.stop()

    @property
    def seconds(self) -> float:
        """Since the first loop was begun."""
        return (self._ended_s or time.monotonic()) - self._started_s if self._started_s else 0.0

    @property
    def present(self) -> dict[str, Any] | None:
        """How far the loop is that this process makes."""
        return None if self._now is None else self._now.progress

    def run(self) -> int:
        """Synthesize what is missing.

        Returns:
            The exit status: 0 all done, 3 some failed, 130 stopped.

        Raises:
            ArchiveError: The folder is another's.
            OutputError: The disk is full; what is done is kept.
            ClusterError: There is no such cluster.
        """
        self._before = self.folder.begin(self.identity, overwrite=self.config.overwrite)
        with closing(self.folder):
            tasks = self._tasks()
            self.todo = len(tasks)
            ended = False
            try:
                if tasks and not self.stopped.is_set():
                    self._work(tasks)
                ended = True
            finally:
                self._ended_s = time.monotonic()
                self.lost = self.folder.clear_unfinished()
                if ended or self._before or self.entries:
                    self._write_manifest()
                else:
                    self.folder.remove_empty()
        if self.stopped.is_set():
            return 130
        return SOME_FAILED if self.failed else 0

    def _tasks(self) -> list[Task]:
        """What is to be made: each loop that is not there as it would be made now."""
        for entry in [*self._before.get("loops", []), *self._before.get("stale", [])]:
            # Loops of earlier runs stay in the manifest while they are there and whole.
            sha256, key = str(entry["sha256"]), str(entry["key"])
            if (found := self.folder.done(sha256, key)) is not None:
                (self.entries if key == self.identity.key(sha256) else self.stale)[sha256] = found
        tasks = []
        for path in self.found.loops:
            if self.stopped.is_set():
                break
            try:
                sha256 = content_sha256(path)
            except SourceError as error:
                self.failed[str(path)] = (path, str(error))
                continue
            finally:
                self.read += 1
            if sha256 in self.hashes:
                continue
            self.hashes[sha256] = path
            key = self.identity.key(sha256)
            if (found := self.folder.done(sha256, key)) is not None:
                self.entries[sha256] = found
                self.kept += 1
            else:
                # Where a loop lies that another made, it is replaced.
                tasks.append(Task(str(path), sha256, key, self.identity.model_sha256))
        return tasks

    def _work(self, tasks: list[Task]) -> None:
        self._started_s = time.monotonic()
        with closing(
            self._here(tasks) if self._cluster is None else self._over_ray(self._cluster, tasks)
        ) as results:
            for result in results:
                self._take(result)

    def _here(self, tasks: list[Task]) -> Generator[Result, None, None]:
        with closing(LoopWorker(self.config, self.folder.path)) as worker:
            self._now = worker
            try:
                for task in tasks:
                    if self.stopped.is_set():
                        return
                    yield worker(task)
            finally:
                self._now = None

    def _over_ray(self, cluster: "Cluster", tasks: list[Task]) -> Generator[Result, None, None]:
        with cluster:
            self.workers, self.where = cluster.workers, cluster.where
            self._started_s = time.monotonic()  # a cluster that is started for this is not the loops' time
            yield from cluster.synthesize(tasks)

    def _take(self, result: Result) -> None:
        if result.outcome == "fatal":
            raise OutputError(result.error)
        if result.outcome == "failed":
            self.failed[result.sha256] = (self.hashes[result.sha256], result.error)
        elif result.entry is not None:
            self.entries[result.sha256] = result.entry
            self.stale.pop(result.sha256, None)
            self.made += 1
            self.frames += result.entry["frames"]
        if time.monotonic() - self._written_s >= MANIFEST_EVERY_S:
            self._write_manifest()

    def _write_manifest(self) -> None:
        self._written_s = time.monotonic()
        self.folder.write_manifest(self.identity, self.manifest())

    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds beside the identity."""
        loops = sorted(self.entries.values(), key=lambda entry: str(entry["sha256"]))
        if self.config.names:
            loops = [
                {**entry, "found_at": str(self.hashes[entry["sha256"]])}
                if entry["sha256"] in self.hashes
                else entry
                for entry in loops
            ]
        runs = list(self._before.get("runs", []))
        if self.todo:
            runs.append(self._said_of_this_run())
        return {
            "version": importlib.metadata.version("contrastream"),
            "complete": not self.failed
            and self.made + self.kept == len(self.hashes)
            and self.read == len(self.found.loops),
            "loops": loops,
            "stale": sorted(self.stale.values(), key=lambda entry: str(entry["sha256"])),
            "failed": [self._failure(sha256, *said) for sha256, said in self.failed.items()],
            "runs": runs,
        }

    def _failure(self, sha256: str, path: Path, error: str) -> dict[str, Any]:
        named = {"found_at": str(path)} if self.config.names else {}
        known = sha256 if sha256 in self.hashes else None
        return {"sha256": known, "error": error if self.config.names else without_names(error, path), **named}

    def _said_of_this_run(self) -> dict[str, Any]:
        seconds = self.seconds
        return {
            "begun": self._begun.isoformat(timespec="seconds"),
            "where": self.where,
            "workers": self.workers,
            "done": self.made,
            "already_there": self.kept,
            "failed": len(self.failed),
            "lost_with_their_worker": self.lost,
            "frames": self.frames,
            "seconds": round(seconds, 3),
            "loops_per_hour": round(3600 * self.made / seconds, 1) if self.made and seconds else None,
        }


def _cluster(config: SynthesizeConfig, stopped: threading.Event) -> "Cluster":
    from stream.archive.cluster import Cluster

    assert config.ray is not None
    return Cluster(config.ray, config, stopped)


def _identity(config: SynthesizeConfig) -> Identity:
    """What makes the pictures of a run; opens model and site, so that what is wrong with them is said at once."""
    from engines.untaught import find_model
    from stream.site import open_site
    from stream.synthesize import source_options

    file = find_model(config.model, untaught=config.untaught)
    site = None
    if config.site is not None:
        open_site(config.site, source_options(config), model=config.model)
        site = hashlib.sha256(config.site.read_bytes()).hexdigest()
    settings = {name: getattr(config, name) for name in CHANGING}
    return Identity(file.said_name, file.card.sha256, settings, site)


def synthesize_archive(config: SynthesizeConfig) -> int:
    """`contrastream synthesize` of more than one recording."""
    run = ArchiveRun(config)
    line = StatusLine(lambda: run, form=format_progress)
    try:
        with stopped_by_signals(run):
            status = run.run()
    finally:
        line.close()
    print(format_archive(run, config.out))
    return status
