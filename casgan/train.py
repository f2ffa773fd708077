"""Teaching, one loop read top to bottom: stages of steps, each step logged, kept now and then.

    contrastream train --data phantom --preset compact --out out/train
    torchrun --nproc-per-node 2 -m contrastream train ...

Ctrl-C leaves a checkpoint; the same command goes on from it.
"""

import dataclasses
import functools
import hashlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from casgan import checkpoint
from casgan.cas_gan_stage import CasGanStage
from casgan.config import TrainConfig
from casgan.data import Pairs, batch_of
from casgan.errors import CheckpointError, TrainingError
from casgan.lessons import Report, frames_of, pairs_of, segmenter_of
from casgan.methods.names import title_of
from casgan.methods.registry import rival_stage
from casgan.paired_stages import Companions, Warm
from casgan.processes import start
from casgan.sample_grid import sample_grid, write_png
from casgan.schedule import step_seed
from casgan.segmenter import VesselSegmenter
from casgan.stage import Stage
from casgan.training_log import JudgeWatch, Progress, Table
from casgan.unpaired import Unpaired, plain_batch, reference_greys

SAMPLES = 4
"""Frames in a picture of how far the run is."""


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What to learn from; what is None is made from the settings when a stage needs it."""

    pairs: Pairs | None = None
    unpaired: Unpaired | None = None
    segmenter: VesselSegmenter | None = None


class StopWish:
    """Whether somebody wants the run to end."""

    def __init__(self) -> None:
        self.count = 0
        self.patient = False
        """While steps are made: the wish can wait for the end of a step. Elsewhere nothing is lost by ending."""

    def wanted(self) -> bool:
        """Asked once after every step."""
        return self.count > 0


def stage_names(config: TrainConfig) -> list[str]:
    """The stages of a run, in order."""
    if not config.paired:
        return ["unpaired"]
    steps = {
        "warm": config.warm_steps,
        "companions": config.companion_steps if config.steps else 0,
        "cas-gan": config.steps,
    }
    return [name for name, count in steps.items() if count]


def train(
    config: TrainConfig,
    lessons: Lessons | None = None,
    report: Report = print,
    stop: StopWish | None = None,
) -> dict[str, Any]:
    """Teach a network, or go on teaching it.

    Args:
        config: The run.
        lessons: What to learn from, where it is not to be made from the settings.
        report: Takes lines of text.
        stop: Asked after each step whether to keep what there is and end.

    Returns:
        The final state, as in the checkpoint; `finished` says whether all steps were done.

    Raises:
        CheckpointError: The folder holds another run, or the disk does not take a checkpoint.
        DataError: The folder of frames cannot be learned from.
        TrainingError: A loss is not finite, or memory does not suffice.
    """
    torch.set_num_threads(config.threads)
    fabric, precision = start(config)
    say: Report = report if fabric.is_global_zero else (lambda _line: None)
    lessons = lessons or Lessons()
    saved = checkpoint.load_to_resume(config)
    names = stage_names(config)
    run = Run(config, fabric, say, stop or StopWish())
    if saved is not None:
        say(f"going on from step {saved['step']} of {saved['stage']}")
        run.continued(saved)
        precision.load_state_dict(saved["precision"])
    run.precision = precision

    if config.data != "phantom" and (config.steps or config.inlay) and lessons.unpaired is None:
        # A folder that cannot be learned from is refused now, not after the hour that the phantom takes.
        lessons = dataclasses.replace(lessons, unpaired=frames_of(config, say))
    if config.paired and config.steps and lessons.segmenter is None:
        # So is a segmenter that knows no vessel.
        lessons = dataclasses.replace(lessons, segmenter=segmenter_of(config, fabric, say))

    @functools.cache
    def known_pairs() -> Pairs:
        pairs = lessons.pairs or pairs_of(config, lessons.unpaired, say)
        run.knows("pairs", pairs.sha256())
        return pairs

    handed = {} if saved is not None else _start_of(config, run)
    stage: Stage
    state: dict[str, Any] = saved or {}
    for number, name in enumerate(names):
        if saved is not None and number < names.index(saved["stage"]):
            continue
        # The weights' start follows from the seed and the stage alone.
        torch.manual_seed(step_seed(config.seed, number, 0, 0))
        if name in ("cas-gan", "unpaired"):
            frames = lessons.unpaired or frames_of(config, say)
            run.knows("unpaired", frames.sha256())
            run.reference = [list(pair) for pair in reference_greys(frames.plain)]
            if name == "unpaired":
                stage = rival_stage(fabric, config, frames, handed.get("generator"))
            else:
                pairs = known_pairs() if config.weights.anchor else None
                stage = CasGanStage(fabric, config, frames, handed, lessons.segmenter, pairs)
            samples = _samples_of_frames(frames)
        else:
            pairs = known_pairs()
            if name == "warm":
                stage = Warm(fabric, config, pairs, handed)
            else:
                stage = Companions(fabric, config, pairs, handed)
            samples = _samples_of_pairs(pairs)
        first = 0
        if saved is not None and name == saved["stage"]:
            stage.load_state(saved["state"])
            first = int(saved["step"])
        state = run.through(stage, number, first, samples)
        if not state["finished"]:
            return state
        handed = stage.handed_on()
    return state


class Run:
    """One run's course through its stages: the loop, the log, the checkpoints."""

    def __init__(self, config: TrainConfig, fabric: Fabric, report: Report, stop: StopWish) -> None:
        self.config, self.fabric, self.report, self.stop = config, fabric, report, stop
        self.folder = Path(config.out)
        self.hashes: dict[str, str] = {}
        self.former: list[dict[str, Any]] = []
        self.reference: list[list[float]] = []
        self.watch = JudgeWatch()
        self.kept: str | None = None
        self.began = time.monotonic()
        self.precision: Any = None

    def continued(self, saved: dict[str, Any]) -> None:
        """Take up what an earlier part of the run knew."""
        self.began -= float(saved["seconds"])
        self.kept = f"{saved['stage']}, step {saved['step']}"
        self.hashes = dict(saved["hashes"])
        self.former = saved.get("former", [])
        self.reference = saved.get("reference_greys", [])
        self.watch.load_state(saved["watch"])

    def knows(self, what: str, sha256: str) -> None:
        """Note what is learned from.

        Raises:
            CheckpointError: The run learned from something else before.
        """
        if self.hashes.setdefault(what, sha256) != sha256:
            raise CheckpointError(
                f"{self.folder} holds a run that learned from other data: {what} {self.hashes[what][:12]} there, "
                f"{sha256[:12]} here; choose another --out, or bring the data back"
            )

    def through(
        self, stage: Stage, number: int, first: int, samples: tuple[Tensor, Tensor, Tensor]
    ) -> dict[str, Any]:
        """All steps of a stage from `first` on, or as many as are wanted."""
        main = self.fabric.is_global_zero
        progress = Progress(stage.name, stage.steps, first, self.report, main)
        table = Table(self.folder / f"losses-{stage.name}.csv", first) if main else None
        done, pictured = first, time.monotonic()
        state: dict[str, Any] | None = None
        self.stop.patient = True
        try:
            while done < stage.steps:
                draw = torch.Generator().manual_seed(
                    step_seed(self.config.seed, number, done, self.fabric.global_rank)
                )
                losses = stage.step(done, draw)
                done += 1
                progress.advance(losses)
                if table is not None:
                    table.add(done, losses)
                for line in self.watch.warnings(losses):
                    progress.say(line)
                stopped = self._anyone_stops()
                if stopped or done % self.config.save_every == 0 or done == stage.steps:
                    state = self._kept(stage, done)
                    if table is not None:
                        table.flush()
                due = 0 < self.config.sample_minutes * 60.0 <= time.monotonic() - pictured
                if main and (due or stopped or done == stage.steps):
                    self._picture(stage, done, samples)
                    pictured = time.monotonic()
                over = done == stage.steps and stage.name == stage_names(self.config)[-1]
                if stopped and not over and state is not None:
                    progress.say(
                        f"stopped; step {done} of {stage.steps} of {stage.name} is kept in {self.folder}; the same "
                        "command goes on from it"
                    )
                    return {**state, "finished": False}
        except TrainingError as error:
            raise TrainingError(
                f"{error} in step {done + 1} of {stage.name}; {self._kept_words()}; lower the learning rate or "
                "look at the data, and teach anew from an --out of its own"
            ) from error
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory in step {done + 1} of {stage.name}: {_what_to_lower(self.config, stage.name)}; "
                f"{self._kept_words()}"
            ) from error
        except OSError as error:
            raise TrainingError(
                f"{self.folder} cannot be written: {error.strerror}; {self._kept_words()}; make room and give "
                "the same command again"
            ) from error
        finally:
            self.stop.patient = False
            progress.close()
            if table is not None:
                table.close()
        return {**(state or self._state(stage, done)), "finished": True}

    def _anyone_stops(self) -> bool:
        """Whether this process or another was asked to stop: all of them end after the same step."""
        asked = self.stop.wanted()
        if self.fabric.world_size == 1:
            return asked
        wishes = torch.tensor(float(asked), device=self.fabric.device)
        self.fabric.all_reduce(wishes, reduce_op="sum")
        return bool(wishes > 0)

    def _state(self, stage: Stage, done: int) -> dict[str, Any]:
        state = {
            "stage": stage.name,
            "step": done,
            "seconds": time.monotonic() - self.began,
            "hashes": self.hashes,
            "former": self.former,
            "reference_greys": self.reference,
            "data_sha256": hashlib.sha256("".join(self.hashes.values()).encode()).hexdigest(),
            "watch": self.watch.state(),
            "precision": self.precision.state_dict(),
            "state": stage.state(),
        }
        if self.fabric.is_global_zero:
            state["average"] = stage.average().state_dict()
        return state

    def _kept(self, stage: Stage, done: int) -> dict[str, Any]:
        state = self._state(stage, done)
        if self.fabric.is_global_zero:
            checkpoint.save(self.folder, self.config, state)
        self.kept = f"{stage.name}, step {done}"
        return state

    def _kept_words(self) -> str:
        if self.kept is None:
            return "there is no checkpoint yet"
        return f"the checkpoint in {self.folder} is whole ({self.kept})"

    def _picture(self, stage: Stage, done: int, samples: tuple[Tensor, Tensor, Tensor]) -> None:
        generator = stage.average()
        x, field, y = (part.to(self.fabric.device) for part in samples)
        sheet = sample_grid(generator, x, field, y, self.config.drawn_above)
        write_png(self.folder / "samples" / f"{stage.name}-{done:06d}.png", sheet)


def _start_of(config: TrainConfig, run: Run) -> dict[str, dict[str, Tensor]]:
    """Weights of the run to start from, by network; none where the run starts from chance."""
    if not config.start_from:
        return {}
    network, former, facts = checkpoint.taught_network(Path(config.start_from))
    there, here = (title_of(run.method, run.without) for run in (former, config))
    if former.method != config.method:
        raise CheckpointError(
            f"--start-from needs a run of {here}, got {config.start_from} of {there}; give --method {former.method}, or "
            "another run"
        )
    if former.preset != config.preset:
        raise CheckpointError(
            f"--start-from needs a run of preset {config.preset}, got {config.start_from} of preset {former.preset}; "
            f"give --preset {former.preset}, or another run"
        )
    weights = network.state_dict()
    run.former = [*facts["former"], checkpoint.former_run(former, facts)]
    run.report(f"starting from step {facts['step']} of {facts['stage']} in {config.start_from}")
    run.knows("start", _sha256(weights))
    return {"generator": weights}


def _sha256(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in weights.values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _samples_of_pairs(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    plain, angiogram, _, _ = batch_of(pairs, _evenly(len(pairs)))
    return plain, torch.ones_like(plain), angiogram


def _samples_of_frames(frames: Unpaired) -> tuple[Tensor, Tensor, Tensor]:
    x, field = plain_batch(frames.plain, _evenly(len(frames.plain)))
    y, _ = plain_batch(frames.filled, _evenly(len(frames.filled)))
    count = min(len(x), len(y))
    return x[:count], field[:count], y[:count]


def _evenly(count: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, SAMPLES)).round().long()


def _is_out_of_memory(error: BaseException) -> bool:
    # A GPU has its own error for it; the CPU's allocator has only its words.
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(w in str(error) for w in words)


def _what_to_lower(config: TrainConfig, stage: str) -> str:
    name = "batch" if stage in ("cas-gan", "unpaired") else "warm_batch"
    count = getattr(config, name)
    if count > 1:
        flag = name.replace("_", "-")
        return f"lower --{flag} (now {count}), or else --size (now {config.picture_size})"
    return f"lower --size (now {config.picture_size}), or take a smaller --preset (now {config.preset})"


@contextmanager
def signals_as_wish() -> Iterator[StopWish]:
    """Ctrl-C and SIGTERM as a wish that the loop asks for between steps; a second one ends at once."""
    stop = StopWish()

    def note(_signal: int, _frame: FrameType | None) -> None:
        stop.count += 1
        if stop.count > 1 or not stop.patient:
            raise KeyboardInterrupt

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def train_command(config: TrainConfig) -> int:
    """The command `contrastream train`.

    Returns:
        0 when all steps are done, 130 when it was stopped before.
    """
    try:
        with signals_as_wish() as stop:
            state = train(config, report=lambda line: print(line, flush=True), stop=stop)
    except KeyboardInterrupt:
        return 130
    if not state["finished"]:
        return 130
    print(
        f"all steps are done; the averaged network is in {config.out}: contrastream export {config.out} --out model.onnx"
    )
    return 0
