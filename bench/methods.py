"""`bench methods`: every method taught and measured under one protocol, one run after the other, resumable.

unpaired frames (once) -> for each method and seed: teach -> export -> draw the test's frames -> figures -> a small JSON
"""

import functools
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import EvaluationError
from bench.evaluate import NEEDED, write_report
from bench.methods_config import CONTESTANTS, Contestant, MethodsConfig

SCHEMA = "contrastream.method/1"
REFERENCES = "references.json"
TIMED_PX = 512
"""Rows and columns of the frames on which an engine is timed, whatever the test's are."""
TURNS = 8
TURN_RUNS = 10
"""Every model is timed in so many turns of so many frames, so that all of them meet the same machine."""
LIVE_HZ = 30.0
"""Frames per second of a live run."""


def bench_methods(config: MethodsConfig) -> int:
    """Teach, measure, write.

    Returns:
        0 when every run is there, 130 when it was stopped before.

    Raises:
        EvaluationError: A library is missing, or the results folder holds another protocol's.
        DataError, TrainingError, CheckpointError: As `contrastream train`.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EvaluationError(
            f"bench methods needs the libraries of teaching, found no {', '.join(missing)}; run: pip install -e '.[train]'"
        )
    import cv2
    import torch

    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    _check_protocol(config)
    config.out.mkdir(parents=True, exist_ok=True)
    config.results_folder.mkdir(parents=True, exist_ok=True)
    wanted = [(CONTESTANTS[name], seed) for seed in config.seeds for name in config.methods]
    left = [each for each in wanted if not result_path(config, *each).is_file()]
    print(f"{len(wanted)} runs, {len(wanted) - len(left)} of them there already", flush=True)
    from casgan.train import signals_as_wish

    try:
        with signals_as_wish() as stop:
            course = Course(config, stop)
            for number, (contestant, seed) in enumerate(left, 1):
                print(f"\n[{number}/{len(left)}] {contestant.title}, seed {seed}", flush=True)
                if not course.run(contestant, seed):
                    print("stopped; the same command goes on from here")
                    return 130
        time_engines(config)
        if config.live_frames:
            time_live(config)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
        return 130
    print(f"\nall runs are there; next: contrastream evaluate --table --results {config.results_folder}")
    return 0


def result_path(config: MethodsConfig, contestant: Contestant, seed: int) -> Path:
    """Of one run's small file."""
    return config.results_folder / f"{contestant.key}-{seed}.json"


def _check_protocol(config: MethodsConfig) -> None:
    """Results of two protocols never lie in one folder."""
    here = config.protocol()
    for path in sorted(config.results_folder.glob("*.json")):
        there = json.loads(path.read_text(encoding="utf-8")).get("protocol")
        if there != here:
            said = [
                f"{name} is {there.get(name)!r} there, {here[name]!r} here"
                for name in here
                if isinstance(there, dict) and there.get(name) != here[name]
            ]
            raise EvaluationError(
                f"{config.results_folder} holds results of another protocol ({path.name}: {'; '.join(said) or 'unreadable'}); "
                "give the same settings, or another --results"
            )


class Course:
    """All runs; what they share is made once."""

    def __init__(self, config: MethodsConfig, stop: Any) -> None:
        from casgan.segmenter import JUDGE

        self.config, self.stop, self.judge_path = config, stop, JUDGE
        self.say: Callable[[str], None] = functools.partial(print, flush=True)

    @functools.cached_property
    def frames(self) -> Any:
        """Unpaired frames, the same for every method."""
        from casgan.lessons import frames_of

        self.say("frames of both domains, once for all runs")
        first = self.config.training(CONTESTANTS["casgan"], self.config.seeds[0])
        return frames_of(replace(first, out=str(self.config.out)), self.say)

    @functools.cached_property
    def pairs(self) -> Any:
        """Known pairs, for `casgan-pairs` alone."""
        from casgan.lessons import pairs_of

        return pairs_of(self.config.training(CONTESTANTS["casgan"], self.config.seeds[0]), None, self.say)

    @functools.cached_property
    def segmenter(self) -> Path:
        """The semantic loss's U-Net, the same for every run that has one."""
        if self.config.segmenter is not None:
            return self.config.segmenter
        from casgan.lessons import SEGMENTER_NAME, segmenter_of
        from casgan.processes import start

        first = self.config.training(CONTESTANTS["casgan"], self.config.seeds[0])
        first = replace(first, out=str(self.config.out))
        segmenter_of(first, start(first)[0], self.say)
        return self.config.out / SEGMENTER_NAME

    @functools.cached_property
    def test(self) -> Any:
        """The test's frames; floor and ceiling are written the first time."""
        from bench.judging import Judge
        from bench.methods_measure import phantom_test_set, references

        if self.config.data != "phantom":
            from bench.methods_loops import folder_test_set

            test = folder_test_set(self.config, Judge(self.judge_path), self.say)
        else:
            self.say(f"rendering {self.config.test_seeds} patients for the test")
            test = phantom_test_set(self.config, Judge(self.judge_path))
        path = self.config.results_folder / REFERENCES
        if not path.is_file():
            write_report({"schema": SCHEMA, "protocol": self.config.protocol(), **references(test)}, path)
        return test

    def run(self, contestant: Contestant, seed: int) -> bool:
        """One method from chance to its small file; False when it was stopped before its end."""
        import torch

        from bench import machine
        from bench.methods_budget import Budget
        from casgan.segmenter import load_segmenter
        from casgan.train import Lessons, train

        settings = self.config.training(contestant, seed)
        semantic = contestant.method == "casgan" and "vsgl" not in contestant.without
        if semantic:
            settings = replace(settings, segmenter=str(self.segmenter))
        lessons = Lessons(
            self.pairs if contestant.anchored else None,
            self.frames,
            load_segmenter(self.segmenter) if semantic else None,
        )
        stop = Budget(self.stop, self.config.minutes)
        state = train(settings, lessons, self.say, stop)
        if not state["finished"] and not stop.is_spent:
            return False
        report = {
            "schema": SCHEMA,
            "protocol": self.config.protocol(),
            "contestant": {
                "key": contestant.key,
                "title": contestant.title,
                "method": contestant.method,
                "without": list(contestant.without),
                "known_pairs": contestant.anchored,
            },
            "seed": seed,
            "training": {
                "steps": state["step"],
                "seconds": round(state["seconds"], 1),
                "data_sha256": state["hashes"],
                "threads": torch.get_num_threads(),
            },
            "machine": machine.describe(),
            **self._measured(contestant, Path(settings.out)),
        }
        write_report(report, result_path(self.config, contestant, seed))
        return True

    def _measured(self, contestant: Contestant, folder: Path) -> dict[str, Any]:
        """Export, draw, judge, time."""
        from bench.drawer import open_drawer
        from bench.methods_measure import measured
        from bench.methods_pictures import write_sheet
        from engines.config import ExportConfig
        from engines.export import export_run

        model = folder / f"{contestant.key}.onnx"
        card, _ = export_run(ExportConfig(folder, model, overwrite=True))
        side = self.config.frame_size
        drawer = open_drawer(str(model), side, side, self.config.threads)
        try:
            found, drawn = measured(self.test, drawer)
            precision = f"{drawer.facts.backend} {drawer.facts.precision}"
        finally:
            drawer.close()
        write_sheet(folder / "drawn.png", self.test, drawn)
        return {
            "model": {
                "sha256": card.sha256,
                "attention": card.attention,
                "threshold": card.threshold,
                "f16_margin": card.f16_margin,
                **_sizes(folder),
            },
            "engine": {"backend": precision},
            "live": None,
            **found,
        }


def time_engines(config: MethodsConfig) -> None:
    """Time every model of the results whose file is still there, in turns, and write it into the small files."""
    import numpy as np

    from bench import machine
    from bench.drawer import open_drawer, serial_ms
    from calib.config import PhantomConfig
    from calib.phantom import Phantom

    live = Phantom(PhantomConfig(seed=0, rows=TIMED_PX, columns=TIMED_PX)).frame(0).plain
    drawers, times_ms = {}, {}
    for path, model in models_of(config).items():
        drawers[path] = open_drawer(str(model), TIMED_PX, TIMED_PX, config.threads)
        times_ms[path] = np.zeros((TURNS, TURN_RUNS))
    try:
        for turn in range(TURNS):
            for path, drawer in drawers.items():
                times_ms[path][turn] = serial_ms(drawer, live, TURN_RUNS, warm=2)
    finally:
        for drawer in drawers.values():
            drawer.close()
    load = round(os.getloadavg()[0], 2)
    for path, times in times_ms.items():
        report = json.loads(path.read_text(encoding="utf-8"))
        report["engine"] |= {
            "timed_on": f"{drawers[path].facts.backend} {drawers[path].facts.precision}",
            "machine": machine.one_line(machine.describe()).partition(", load")[0],
            "ms_p50": round(float(np.median(times)), 3),
            "runs": times.size,
            "rows": TIMED_PX,
            "threads": config.threads,
            "load": load,
        }
        write_report(report, path)


def models_of(config: MethodsConfig) -> dict[Path, Path]:
    """The results whose model is still there, and that model's file."""
    found = {}
    for path in sorted(config.results_folder.glob("*.json")):
        model = config.out / path.stem / f"{path.stem.rpartition('-')[0]}.onnx"
        if path.name != REFERENCES and model.is_file():
            found[path] = model
    return found


def time_live(config: MethodsConfig) -> None:
    """Each of those models in the whole live path, source to client, and write its latency into the small file."""
    from bench import machine
    from bench.config import LiveConfig
    from bench.live import bench_live

    for number, (path, model) in enumerate((models := models_of(config)).items(), 1):
        print(f"\n[{number}/{len(models)}] live: {path.stem}", flush=True)
        out = model.with_suffix(".live.json")
        live = LiveConfig(
            model=str(model), rate=(LIVE_HZ,), frames=config.live_frames, size=TIMED_PX, out=out
        )
        if bench_live(live) != 0:
            # Stopped: a part of the frames is no figure, and the models behind it are not begun.
            raise KeyboardInterrupt
        report = json.loads(path.read_text(encoding="utf-8"))
        report["live"] = {
            "rate_hz": LIVE_HZ,
            "frames": config.live_frames,
            "latency_ms": _latency(json.loads(out.read_text(encoding="utf-8"))),
            "machine": machine.one_line(machine.describe()),
        }
        write_report(report, path)


def _latency(report: dict[str, Any]) -> dict[str, Any]:
    """p50 and p99 from due to received."""
    from bench.summaries import parts

    (run,) = parts(report)
    figures: dict[str, Any] = run["latency_ms"]
    return {name: figures.get(name) for name in ("p50", "p99", "max")}


def _sizes(folder: Path) -> dict[str, Any]:
    """Parameters of what runs live; all numbers taught on the generator's side, norms' statistics among them; work of a frame."""
    import torch

    from casgan import checkpoint
    from casgan.networks import multiply_accumulates

    network, config, _ = checkpoint.taught_network(folder)
    _, state = checkpoint.load(folder)
    taught = state["state"]["networks"]["networks"]
    with torch.no_grad():
        work = multiply_accumulates(network.folded(), config.picture_size, config.picture_size)
    return {
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "parameters_taught": sum(v.numel() for v in taught.values() if v.is_floating_point()),
        "gmac": round(work / 1e9, 6),
    }
