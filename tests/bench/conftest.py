"""A run that was made up, so that every figure of its report is known."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.config import LiveConfig
from bench.floor import FloorSamples
from bench.live import Run, plan_blocks
from bench.machine import describe
from bench.samples import EDGE_FRAMES
from bench.witness import WitnessRecord
from stream.frame import FrameFormat, Reason, State
from stream.measure import Measured
from stream.timing import NS_PER_MS, NS_PER_S

WARM_UP = 20
SERIAL_MS, ENGINE_MS, OVERHEAD_MS = 9.0, 10.0, 1.2


def make_run(frames: int, *, late_ms: tuple[float, ...] = (), untaught: bool = False) -> Run:
    """A run at 50 frames per second, each 11.2 ms from due to received, a floor of 1 ms beside it."""
    config = LiveConfig(rate=(50.0,), frames=frames, warmup=WARM_UP)
    count = WARM_UP + frames + EDGE_FRAMES
    period_ns = NS_PER_S // 50
    due = np.arange(1, count + 1, dtype=np.int64) * period_ns
    steps_ms = np.cumsum([0.0, 0.2, 0.2, ENGINE_MS, 0.2, OVERHEAD_MS - 0.6])
    stamps = due[:, None] + np.round(steps_ms * NS_PER_MS).astype(np.int64)
    state = np.full(count, State.PASSTHROUGH if untaught else State.SYNTHETIC, np.uint8)
    reason = np.full(count, Reason.UNTAUGHT if untaught else Reason.NONE, np.uint8)
    for step, value in enumerate(late_ms):
        row = WARM_UP + step
        stamps[row, 2:4] = 0
        stamps[row, 5] = due[row] + round(value * NS_PER_MS)
        state[row], reason[row] = State.PASSTHROUGH, Reason.DEADLINE
    numbers = np.arange(count, dtype=np.uint64)
    run = Run(config, 50.0, describe(), warmup=WARM_UP, frame_format=FrameFormat(512, 512))
    run.engine = {
        "backend": "openvino",
        "precision": "bf16",
        "model_sha256": "ab" * 32,
        "taught": not untaught,
    }
    run.serial_ms = {"before": np.full(200, SERIAL_MS), "after": np.full(200, SERIAL_MS)}
    run.measured = Measured(numbers, numbers, state, reason, stamps.astype(np.uint64))
    run.status = {
        "counters": {
            "due": count,
            "grabbed": count,
            "published": count,
            "synthetic": count,
            "passthrough": {},
            "unchanged": 0,
            "repeated": 0,
            "dropped": {},
        },
        "source": {"kind": "phantom"},
    }
    run.blocks = plan_blocks(WARM_UP, frames)
    beside = np.arange(frames // 2, dtype=np.int64)[:, None] * period_ns
    floor_steps = np.round(np.cumsum([0.0, 0.2, 0.2, 0.1, 0.2, 0.4]) * NS_PER_MS).astype(np.int64)
    run.floor_beside = FloorSamples(beside + floor_steps)
    run.floor_alone = {"before": run.floor_beside, "after": run.floor_beside}
    run.witness = WitnessRecord(
        np.array([[due[WARM_UP] + NS_PER_MS, 5 * NS_PER_MS]]),
        [
            {
                "at_ns": int(at),
                "longest_ns": NS_PER_MS,
                "steal_ms": 0.0,
                "busy_ms": 0.0,
                "ours_ms": 0.0,
                "processes": {"guard": [1, 0, 1 << 20, 1 << 19, 0.0]},
            }
            for at in due[:: max(1, count // 20)]
        ],
    )
    run.complete = True
    return run


@pytest.fixture(scope="session")
def made_up_run() -> Callable[..., Run]:
    """Makes one: `made_up_run(frames, late_ms=(...), untaught=False)`."""
    return make_run
