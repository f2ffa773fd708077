"""One loop of an archive, from its file to its place; what a worker does, in this process or on another machine."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stream.archive.find import content_sha256
from stream.archive.folder import ArchiveFolder
from stream.config import SynthesizeConfig
from stream.errors import OutputError, PipelineError, StreamError
from stream.synthesis_engine import EngineKeeper
from stream.synthesize import Synthesis

Outcome = Literal["done", "failed", "fatal", "stopped"]
UNNAMED = "the loop"


@dataclass(frozen=True)
class Task:
    """A loop to synthesize."""

    path: str
    sha256: str
    key: str
    model_sha256: str
    """The model that the run is about; a worker elsewhere may find another under its name."""


@dataclass(frozen=True)
class Result:
    """What became of a loop."""

    sha256: str
    outcome: Outcome
    """fatal: no further loop can be written either."""
    error: str = ""
    """One sentence, as for the terminal: it may name the file."""
    entry: dict[str, Any] | None = None
    """What the manifest says of it, where it is done."""


class LoopWorker:
    """Synthesizes loops one after the other and keeps its engine open between them.

    Args:
        config: The run's; sources and folder are those of each task.
        path: The archive's folder.
    """

    def __init__(self, config: SynthesizeConfig, path: Path) -> None:
        self._config = config
        self._folder = ArchiveFolder(path)
        self._engines = EngineKeeper()
        self._stop = threading.Event()
        self._now: Synthesis | None = None

    def stop(self) -> None:
        """Leave the loop that is being made; safe from a signal handler."""
        self._stop.set()
        if (now := self._now) is not None:
            now.stop()

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far the present loop is, as `Synthesis.progress`."""
        now = self._now
        return None if now is None else now.progress

    def __call__(self, task: Task) -> Result:
        """Synthesize a loop into its place; nothing of it stays where that does not come to its end."""
        from calib.errors import CalibrationError
        from engines.errors import EngineError

        result: Callable[..., Result] = lambda *said: Result(task.sha256, *said)  # noqa: E731
        try:
            if content_sha256(Path(task.path)) != task.sha256:
                return result(
                    "failed", f"{Path(task.path).name}: it has changed since it was listed; run again"
                )
            entry = self._make(task)
        except OutputError as error:
            return result("fatal", str(error))
        except (StreamError, PipelineError, EngineError, CalibrationError, ValueError) as error:
            return result("failed", str(error))
        except KeyboardInterrupt:
            return result("stopped")
        return result("stopped") if entry is None else result("done", "", entry)

    def _make(self, task: Task) -> dict[str, Any] | None:
        with self._made(task) as made:
            config = dataclasses.replace(self._config, sources=(task.path,), out=made)
            self._now = Synthesis(config, self._engines, quiet=True)
            if self._stop.is_set():
                self._now.stop()
            said = self._now.run()
            if said["model"]["sha256"] != task.model_sha256:
                raise PipelineError(
                    f"needed the model {task.model_sha256[:8]}, got {said['model']['sha256'][:8]} on this worker; put the "
                    "same file there"
                )
            if not said["complete"]:
                return None
            return self._folder.finish_loop(made, task.sha256, task.key)

    @contextlib.contextmanager
    def _made(self, task: Task) -> Iterator[Path]:
        made = self._folder.start_loop(task.sha256)
        try:
            yield made
        finally:
            self._now = None
            self._folder.drop_loop(made)  # where it is in its place there is none any more

    def close(self) -> None:
        """Close the engine."""
        self._engines.close()


def without_names(sentence: str, path: Path) -> str:
    """An error sentence for a file that is kept: paths and names of files, which may hold a patient's, are left out."""
    inside = [each.name for each in path.iterdir()] if path.is_dir() else []
    for name in sorted({str(path), path.name, *inside}, key=len, reverse=True):
        sentence = sentence.replace(name, UNNAMED)
    return sentence
