"""Ray's driver for an archive run: `python -m stream.archive.ray_driver`, started by stream/archive/cluster.py alone.

Ray Data keeps one engine per actor, gives each at most two loops at a time, and gives a loop to another actor where one is
lost. JSON lines: the cluster and the loops come in, results go out.
"""

import dataclasses
import json
import logging
import os
import queue
import re
import sys
import threading
from pathlib import Path
from typing import Any

from stream.archive.loop import LoopWorker, Result, Task
from stream.config import SynthesizeConfig

RETRIES = 3
"""How often a loop whose worker was lost is begun again. A loop that takes its worker with it each time must end."""
IN_FLIGHT = 2
"""Loops that an actor has at once: the one it makes and the next."""
STORE_BYTES = 80 << 20
"""Ray's smallest object store: no pixel goes through it, only names and results."""


class LoopActor:
    """One worker with one engine.

    Args:
        settings: The run's `SynthesizeConfig` as JSON.
    """

    def __init__(self, settings: str) -> None:
        config = config_from(json.loads(settings))
        self._worker = LoopWorker(config, config.out)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make the loop that a row names."""
        task = Task(**json.loads(row["task"]))
        try:
            result = self._worker(task)
        except Exception as error:
            # Of a foreign error only its kind: its text may hold what a header says.
            result = Result(
                task.sha256, "failed", f"{Path(task.path).name}: a fault of ours, {type(error).__name__}"
            )
        return {"result": json.dumps(dataclasses.asdict(result))}


def config_from(said: dict[str, Any]) -> SynthesizeConfig:
    """The settings again from their JSON."""
    site = None if said["site"] is None else Path(said["site"])
    return SynthesizeConfig(
        **{**said, "sources": tuple(said["sources"]), "out": Path(said["out"]), "site": site}
    )


def connect(said: dict[str, Any]) -> tuple[int, int, bool]:
    """Start or join a cluster.

    Returns:
        Workers, machines, and whether each worker gets a GPU.

    Raises:
        ConnectionError, RuntimeError: Ray finds no cluster, or one of another version.
        ValueError: The cluster has too few CPUs or GPUs.
    """
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if said["local"] is not None:
        ray.init(
            address="local",
            num_cpus=said["local"],
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _temp_dir=said["folder"],
            **quiet,
        )
    else:
        ray.init(address=said["address"], **quiet)
    has = ray.cluster_resources()
    machines = sum(1 for node in ray.nodes() if node["Alive"])
    on_gpus = has.get("GPU", 0) >= 1
    workers = said["local"] or said["config"]["workers"] or int(has["GPU"] if on_gpus else machines)
    kind = "GPU" if on_gpus and said["local"] is None else "CPU"
    if workers > has.get(kind, 0):
        raise ValueError(
            f"needed {workers} {kind}s for as many workers, the cluster has {has.get(kind, 0):.0f}; give --workers"
        )
    return workers, machines, kind == "GPU"


def in_words(error: Exception) -> str:
    """A sentence of what Ray says in many lines when a cluster is not there or has another version."""
    text = str(error)
    if isinstance(error, ConnectionError):
        return text.splitlines()[0] + "; is it Ray's own port? See, on a machine of the cluster: ray status"
    versions = re.findall(r"(Ray|Python): *(\S+)", text)
    if "ersion mismatch" not in text or len(versions) < 4:
        return text.splitlines()[0]
    there, here = (" and ".join(" ".join(each) for each in versions[at : at + 2]) for at in (0, 2))
    return (
        f"needed the same versions on both sides, the cluster has {there}, this environment {here}; install that Ray here, or start "
        "the cluster from this environment"
    )


def make(said: dict[str, Any], tasks: list[dict[str, Any]], workers: int, on_gpus: bool) -> None:
    """Have the loops made, and write what became of each."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a loop that is lost for good ends no other
    settings = said["config"]
    if said["local"] is not None and settings["threads"] is None:
        settings["threads"] = max(1, len(os.sched_getaffinity(0)) // workers)
    rows = [{"task": json.dumps(task)} for task in tasks]
    made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        LoopActor,
        fn_constructor_args=(json.dumps(settings),),
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=IN_FLIGHT),
        num_cpus=0 if on_gpus else 1,
        num_gpus=1 if on_gpus else 0,
        ray_remote_args_fn=lambda: {
            "max_restarts": -1,
            "max_task_retries": RETRIES,
            "scheduling_strategy": "SPREAD",
        },
    )
    for row in made.iter_rows():
        say({"result": json.loads(row["result"])})
    say({"end": True})


def say(said: dict[str, Any]) -> None:
    """Write a line to the run."""
    os.write(LINES, (json.dumps(said) + "\n").encode())


LINES = 1
"""Where lines go: stdout as it was when this process was started, since Ray prints there too."""


def main() -> int:
    """Entry point."""
    global LINES
    LINES = os.dup(1)
    os.set_inheritable(LINES, False)
    os.dup2(2, 1)
    said = json.loads(sys.stdin.readline() or "null")
    if said is None:
        return 0
    import ray

    given: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        given.put(sys.stdin.readline() or "null")
        sys.stdin.read()  # until the run closes it, at its end or with its death, also while no cluster answers
        if ray.is_initialized():
            ray.shutdown()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    say({"loaded": True})
    try:
        workers, machines, on_gpus = connect(said)
    except (ConnectionError, RuntimeError, ValueError) as error:
        say({"error": in_words(error)})
        return 2
    say({"workers": workers, "nodes": machines})
    tasks = json.loads(given.get())
    if tasks is None:
        return 0
    make(said, tasks["tasks"], workers, on_gpus)
    threading.Event().wait()  # for `listen`
    return 0


if __name__ == "__main__":
    sys.exit(main())
