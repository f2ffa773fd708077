"""A GPU that is full, when the engine is opened and while it runs: the live picture goes on, and the overlay comes back."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx")
pytestmark = pytest.mark.timeout(180)

PRETENDED = Path(__file__).with_name("pretended_gpu.py")


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that says how full the pretended GPU of every engine process is."""
    folder = tmp_path / "gpu"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import runpy, sys\nif 'stream.infer' in sys.orig_argv:\n    runpy.run_path({str(PRETENDED)!r})\n"
    )
    monkeypatch.setenv("CONTRASTREAM_PRETENDED", str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def frame(state: str, reason: str = "none") -> Any:
    return lambda line: line["what"] == "frame" and (line["state"], line["reason"]) == (state, reason)


def heartbeat(waits: bool) -> Any:
    return lambda line: line["what"] == "heartbeat" and bool(line["engine_waits"]) is waits


def test_a_full_gpu_leaves_the_live_picture_and_the_overlay_comes_when_there_is_room(
    gpu: Path, start: Any, record: Any, loop: Path, endpoint: str
) -> None:
    (gpu / "full").touch()
    running = start("run", str(loop), "--loop", "--engine", "tensorrt_rtx", "--endpoint", endpoint)
    client = record(endpoint)
    client.wait_for(frame("PASSTHROUGH", "starting"), what="the live picture")
    said = client.wait_for(heartbeat(waits=True), within_s=60, what="why there is no engine")
    assert "cudaMalloc failed: cudaErrorMemoryAllocation" in said["engine_waits"]
    assert "1000 of 8000 MB are free; the memory of the GPU is full" in said["engine_waits"]
    # Two tries more, and not one of them ends the room's picture.
    client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["engine_restarts"] >= 2, within_s=60, what="tries"
    )
    (gpu / "full").unlink()
    client.wait_for(frame("SYNTHETIC"), within_s=60, what="the overlay")
    client.wait_for(heartbeat(waits=False), since=client.mark(), what="a heartbeat without the reason")

    engine = running.child("stream.infer")
    (gpu / "busy").touch()
    since = client.mark()
    client.wait_for(frame("PASSTHROUGH", "output_invalid"), since=since, what="a frame without room for it")
    (gpu / "busy").unlink()
    client.wait_for(frame("SYNTHETIC"), since=client.mark(), what="the overlay again")
    assert running.child("stream.infer") == engine

    (gpu / "full").touch()
    os.kill(engine, signal.SIGKILL)
    since = client.mark()
    client.wait_for(frame("PASSTHROUGH", "engine_lost"), since=since, what="engine_lost")
    client.wait_for(heartbeat(waits=True), since=since, within_s=60, what="why there is no engine again")
    (gpu / "full").unlink()
    client.wait_for(frame("SYNTHETIC"), since=client.mark(), within_s=60, what="the overlay once more")

    printed = running.end()
    assert running.process.returncode == 0
    assert printed.count("live only until the engine can be opened, which is tried again and again") == 2
    assert "cannot start an inference: IExecutionContext::enqueueV3: Error Code 2: OutOfMemory" in printed


def test_a_recording_that_is_measured_ends_with_the_sentence_of_a_full_gpu(
    gpu: Path, start: Any, loop: Path, endpoint: str
) -> None:
    (gpu / "full").touch()
    running = start("replay", str(loop), "--engine", "tensorrt_rtx", "--endpoint", endpoint)
    printed = running.finish(within_s=60)
    assert running.process.returncode == 2
    assert "the memory of the GPU is full: close what else runs on it, or use a smaller model" in printed
