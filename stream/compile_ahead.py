"""Compiles an adapted model in a process of its own that leaves the cores to whoever wants them: frames go on meanwhile.

Compiled in the engine's own process it took both cores of a small machine for half a second, and the overlay was gone for as long
and for the second that the guard then waits. Here it takes longer and nobody notices. What it leaves is OpenVINO's own cache, in the
private folder of the adapted model; the engine's process reads that in a tenth of the time.
"""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.control import PARENT_VARIABLE, die_with_parent

if TYPE_CHECKING:
    from engines.engine import Engine
    from engines.model import ModelFile

log = logging.getLogger("contrastream.engine")

NICE = 10
WITHIN_S = 300.0


def compile_ahead(config: dict[str, Any], general: "Engine", model: "ModelFile") -> None:
    """Have the adapted model compiled, where its runtime keeps what it compiles; elsewhere nothing is done.

    One that fails costs frames their overlay for a moment, since the engine's process then compiles itself, and says so.

    Args:
        config: The guard's first packet to the engine.
        general: The general engine.
        model: The adapted model, with a cache of its own.
    """
    if general.backend != "openvino" or model.cache is None:
        return
    told = {
        "model": str(config["model"]),
        "untaught": bool(config["untaught"]),
        "path": str(model.path),
        "sha256": model.card.sha256,
        "cache": str(model.cache),
        "spec": dataclasses.asdict(general.spec),
        "threads": config["threads"],
        "precision": None if general.precision == "int8" else general.precision,
    }
    try:
        status = subprocess.run(
            [sys.executable, "-m", "stream.compile_ahead"],
            input=json.dumps(told).encode(),
            env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=WITHIN_S,
        ).returncode
    except (subprocess.TimeoutExpired, OSError):
        status = 1
    if status != 0:
        log.warning("the adapted model is compiled beside the frames, which may go without overlay meanwhile")


def main() -> int:
    """Entry point: `python -m stream.compile_ahead`, what to compile on its standard input."""
    die_with_parent()
    # Of a run with real-time priority too: under it, a compiler would not leave the cores.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(NICE)
    told = json.loads(sys.stdin.buffer.read())
    from engines.engine import EngineSpec
    from engines.model import ModelFile
    from engines.open import open_engine
    from engines.untaught import find_model

    general = find_model(told["model"], untaught=told["untaught"])
    card = dataclasses.replace(general.card, sha256=told["sha256"])
    model = ModelFile(Path(told["path"]), card, kept=False, cache=Path(told["cache"]))
    spec = EngineSpec(**told["spec"])
    open_engine(model, spec, "openvino", threads=told["threads"], precision=told["precision"]).engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
