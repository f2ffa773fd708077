"""Each stage of the stamps is proved: 20 ms put into one stage show in that stage and in no other."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stream.engine_supply
import stream.source_side
from stream.children import Child
from stream.measure import STAGES, Measured, MeasuringClient
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.sources.options import SourceOptions

DELAY_MS = 20.0
FRAMES = 24
STANDS_IN = {"grab": "stream.grab", "submit": "stream.infer", "engine": "stream.infer"}
"""By stage, the child in which the delay is; the guard's and the transport's are in this process."""


def medians(endpoint: str, out: Path, stage: str | None, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The median of each stage of a real run with 20 ms more in one of them, or in none."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    if stage in STANDS_IN:
        monkeypatch.setenv("DELAYED_STAGE", stage)
        monkeypatch.setenv("DELAYED_MODULE", STANDS_IN[stage])

    def child(module: str, *arguments: Any, **named: Any) -> Child:
        return Child("delayed_child" if module == STANDS_IN.get(stage or "") else module, *arguments, **named)

    monkeypatch.setattr(stream.source_side, "Child", child)
    monkeypatch.setattr(stream.engine_supply, "Child", child)
    config = PipelineConfig(
        "phantom",
        SourceOptions(size=64, rate_hz=8.0),
        # Lossless, so that a machine that is slow today draws every frame all the same: stages are judged, not speed.
        Pacing(rate_hz=8.0, loop=True, frames=FRAMES, lossless=True),
        endpoint=endpoint,
        model="compact-s",
        domain=False,
        wait_for_engine=True,
        wait_for_client=True,
    )
    pipeline = Pipeline(config)
    publisher = pipeline._publisher
    if stage == "guard":
        late(publisher, "publish", monkeypatch)
    elif stage == "transport":
        late(publisher.frames, "send", monkeypatch)
    with MeasuringClient(pipeline.endpoint.text, out, credit=True) as client:
        pipeline.run()
        measured: Measured = client.finish()
    assert measured.sequence.size == FRAMES
    return {name: float(np.median(measured.stage_ms(*ends))) for name, ends in STAGES.items()}


def late(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a call of this process wait before it does its work."""
    call = getattr(owner, name)

    def delayed(*arguments: Any, **named: Any) -> Any:
        time.sleep(DELAY_MS / 1e3)
        return call(*arguments, **named)

    monkeypatch.setattr(owner, name, delayed)


@pytest.fixture(scope="module")
def undelayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The stages of a run with nothing put in."""
    folder = tmp_path_factory.mktemp("undelayed")
    with pytest.MonkeyPatch.context() as patch:
        return medians(f"ipc://{folder}/stream", folder / "seen.npz", None, patch)


@pytest.mark.parametrize("stage", ["grab", "submit", "engine", "guard", "transport"])
def test_a_delay_shows_in_its_own_stage_alone(
    stage: str, undelayed: dict[str, float], endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = medians(endpoint, tmp_path / "seen.npz", stage, monkeypatch)
    more = {name: seen[name] - undelayed[name] for name in STAGES}
    assert more.pop(stage) > 0.8 * DELAY_MS
    assert max(more.values()) < 0.5 * DELAY_MS, more
