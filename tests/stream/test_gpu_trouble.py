"""A GPU that is full, plans that do not hold, a model that is refused: the live picture goes on, and says why.

Whole pipelines in their own processes; only the GPU is pretended (`pretended_gpu.py`), plans are built for real.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from engines.model import MODELS, load_model, save_card

pytest.importorskip("tensorrt_rtx")
pytestmark = pytest.mark.timeout(180)

PRETENDED = Path(__file__).with_name("pretended_gpu.py")


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that says how full the pretended GPU of every engine process is."""
    folder = tmp_path / "gpu"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import runpy, sys\nif {{'stream.infer', 'stream.engine_host'}} & {{*sys.orig_argv}}:\n    runpy.run_path({str(PRETENDED)!r})\n"
    )
    monkeypatch.setenv("CONTRASTREAM_PRETENDED", str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def frame(state: str, reason: str = "none") -> Any:
    return lambda line: line["what"] == "frame" and (line["state"], line["reason"]) == (state, reason)


def heartbeat(why: bool) -> Any:
    return lambda line: line["what"] == "heartbeat" and bool(line["engine_why"]) is why


def test_a_full_gpu_leaves_the_live_picture_and_the_overlay_comes_when_there_is_room(
    gpu: Path, start: Any, record: Any, loop: Path, endpoint: str
) -> None:
    (gpu / "full").touch()
    running = start("run", str(loop), "--loop", "--engine", "tensorrt_rtx", "--endpoint", endpoint)
    client = record(endpoint)
    client.wait_for(frame("PASSTHROUGH", "starting"), what="the live picture")
    said = client.wait_for(heartbeat(why=True), within_s=60, what="why there is no engine")
    assert "cudaMalloc failed: cudaErrorMemoryAllocation" in said["engine_why"]
    assert "1000 of 8000 MB are free; the memory of the GPU is full" in said["engine_why"]
    # Two tries more, and not one of them ends the room's picture.
    client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["engine_restarts"] >= 2, within_s=60, what="tries"
    )
    (gpu / "full").unlink()
    client.wait_for(frame("SYNTHETIC"), within_s=60, what="the overlay")
    client.wait_for(heartbeat(why=False), since=client.mark(), what="a heartbeat without the reason")

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
    client.wait_for(heartbeat(why=True), since=since, within_s=60, what="why there is no engine again")
    (gpu / "full").unlink()
    client.wait_for(frame("SYNTHETIC"), since=client.mark(), within_s=60, what="the overlay once more")

    printed = running.end()
    assert running.process.returncode == 0
    assert printed.count("live only until the engine can be opened, which is tried again and again") == 2
    assert "cannot start an inference: IExecutionContext::enqueueV3: Error Code 2: OutOfMemory" in printed


def test_rooms_that_share_a_full_gpu_each_go_on_live_and_each_come_back(
    gpu: Path, start: Any, record: Any, loop: Path, endpoint: str
) -> None:
    (gpu / "full").touch()
    running = start(
        "run",
        str(loop),
        str(loop),
        "--loop",
        "--rate",
        "10",
        "--engine",
        "tensorrt_rtx",
        "--endpoint",
        endpoint,
    )
    clients = [record(f"{endpoint}-{number}") for number in (1, 2)]
    for client in clients:
        said = client.wait_for(heartbeat(why=True), within_s=90, what="why there is no engine")
        assert "the memory of the GPU is full" in said["engine_why"]
        client.wait_for(frame("PASSTHROUGH", "starting"), since=client.mark(), what="the live picture")
    host = running.child("stream.engine_host")
    (gpu / "full").unlink()
    for client in clients:
        client.wait_for(frame("SYNTHETIC"), within_s=90, what="the overlay in each room")
    assert running.child("stream.engine_host") == host


def test_a_recording_that_is_measured_ends_with_the_sentence_of_a_full_gpu(
    gpu: Path, start: Any, loop: Path, endpoint: str
) -> None:
    (gpu / "full").touch()
    running = start("replay", str(loop), "--engine", "tensorrt_rtx", "--endpoint", endpoint)
    printed = running.finish(within_s=60)
    assert running.process.returncode == 2
    assert "the memory of the GPU is full: close what else runs on it, or use a smaller model" in printed


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The shipped model as a file of this test's own."""
    path = tmp_path / "mine.onnx"
    for suffix in (".onnx", ".json"):
        shutil.copy(MODELS / f"compact{suffix}", path.with_suffix(suffix))
    return path


def test_plans_that_do_not_hold_and_a_full_disk_cost_a_build_and_a_refused_model_the_overlay_but_no_frame(
    gpu: Path, model: Path, start: Any, record: Any, loop: Path, endpoint: str, tmp_path: Path
) -> None:
    running = start(
        "run", str(loop), "--loop", "--engine", "tensorrt_rtx", "--model", str(model), "--endpoint", endpoint
    )
    client = record(endpoint)
    client.wait_for(frame("SYNTHETIC"), within_s=60, what="the overlay")
    (plan,) = (tmp_path / "cache" / "contrastream" / "plans").glob("*.plan")

    def cut_off() -> None:
        plan.write_bytes(plan.read_bytes()[:1000])

    def of_another_version() -> None:
        said = json.loads(plan.with_suffix(".json").read_text())
        said["key"]["version"] = "1.2.0.54"
        plan.with_suffix(".json").write_text(json.dumps(said))

    def with_no_room_on_the_disk() -> None:
        cut_off()
        (gpu / "no room").touch()

    def restart(harm: Callable[[], None]) -> int:
        harm()
        since = client.mark()
        os.kill(running.child("stream.infer"), signal.SIGKILL)
        client.wait_for(frame("PASSTHROUGH", "engine_lost"), since=since, what="engine_lost")
        return int(client.mark())

    for harm in (cut_off, of_another_version, with_no_room_on_the_disk):
        since = restart(harm)
        client.wait_for(
            frame("SYNTHETIC"), since=since, within_s=60, what=f"the overlay with a plan {harm.__name__}"
        )

    def of_an_operation_that_gpus_have_not() -> None:
        graph = onnx.load(str(model))
        next(node for node in graph.graph.node if node.op_type == "Relu").op_type = "Celu"
        onnx.save(graph, str(model))
        save_card(load_card, model)

    load_card = load_model(model).card
    since = restart(of_an_operation_that_gpus_have_not)
    said = client.wait_for(
        heartbeat(why=True), since=since, within_s=60, what="why there is no overlay any more"
    )
    assert "Celu" in said["engine_why"]
    client.wait_for(frame("PASSTHROUGH", "engine_lost"), since=client.mark(), what="the live picture")

    printed = running.end()
    assert running.process.returncode == 0
    assert "the one in the cache was cut off or changed: " in printed
    assert "the one in the cache was built for tensorrt_rtx 1.2.0.54, here it is " in printed
    assert "could not be written" in printed
    assert "No space left on device; make room, or run: contrastream build --clear" in printed
    assert f"live only from here on: {said['engine_why']}" in printed
    frames = client.of("frame")
    numbers = [each["publication"] for each in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
