"""The relay's rules that need no network: credit, and a state that never outlives the thread that knew it."""

import asyncio
import json

import pytest

from stream.display.relay import Heard, Relay, Viewer, heartbeat_figures
from stream.frame import Reason, State
from stream.subscribe import Shown, Subscriber
from stream.timing import FakeClock


@pytest.fixture
def relay(tmp_path):
    clock = FakeClock()
    loop = asyncio.new_event_loop()
    subscriber = Subscriber(f"ipc://{tmp_path}/nobody")
    made = Relay(subscriber, loop, clock)
    yield made
    subscriber.close()
    loop.close()


def test_a_state_ages_between_the_reader_s_looks(relay):
    relay.reader.heard = Heard(Shown(State.STALE, Reason.NONE, 500.0), relay.clock.now_ns())
    relay.clock.advance_ms(40.0)
    said = json.loads(relay.state_text())
    assert (said["state"], said["age_ms"]) == ("STALE", 540.0)


def test_a_reader_that_hangs_is_no_signal(relay):
    relay.reader.heard = Heard(Shown(State.SYNTHETIC), relay.clock.now_ns())
    relay.clock.advance_ms(690.0)
    assert json.loads(relay.state_text())["state"] == "SYNTHETIC"
    relay.clock.advance_ms(20.0)
    said = json.loads(relay.state_text())
    assert (said["state"], said["publisher"], said["age_ms"]) == ("NO_SIGNAL", False, 710.0)


def test_what_ends_the_reader_ends_the_server(relay):
    relay.reader.fault = ValueError("a fault of ours")
    with pytest.raises(ValueError, match="a fault of ours"):
        relay.tick().send(None)  # no event loop is needed for its first step


@pytest.mark.parametrize("said", ["{", "1", '{"type": "next"'], ids=["cut", "number", "open"])
def test_a_viewer_takes_only_what_a_page_sends(said):
    with pytest.raises(ValueError, match=r"Expecting|JSON objects"):
        Viewer().asked(said, 0)


def test_the_figures_of_a_heartbeat_are_those_of_the_head_line():
    figures = heartbeat_figures(
        {
            "engine": {
                "backend": "openvino",
                "precision": "bf16",
                "model_sha256": "0123456789abcdef",
                "skipped": [["tensorrt", "not installed"], ["tensorrt_rtx", "no GPU"], ["torch", "no GPU"]],
            },
            "engine_why": "the GPU is full; close what else runs on it",
            "gpu_why": "the engine runs on the CPU (openvino)",
            "source": {"notes": ["15 fps from the file"]},
            "counters": {"dropped": {"ring_full": 2}, "synthetic": 5, "published": 7},
            "fps_in": 15.0,
        }
    )
    assert figures["engine"] == "openvino bf16"
    assert figures["drops"] == {"ring_full": 2}
    assert figures["notes"] == ["15 fps from the file"]
    assert figures["passed_over"] == [["tensorrt", "not installed"], ["tensorrt_rtx, torch", "no GPU"]]
    assert (figures["model"], figures["on_gpu"], figures["gpu"]) == ("01234567", False, None)
    assert figures["engine_why"] == "the GPU is full; close what else runs on it"
    assert figures["gpu_why"] == "the engine runs on the CPU (openvino)"
    assert (figures["synthetic"], figures["published"], figures["grabbed_hz"]) == (5, 7, 15.0)


@pytest.mark.parametrize(
    "status",
    [{}, {"engine": None, "counters": 3}, {"engine": {}, "source": []}],
    ids=["empty", "odd", "bare"],
)
def test_a_heartbeat_that_says_nothing_shows_nothing(status):
    figures = heartbeat_figures(status)
    assert figures["engine"] is None
    assert figures["gpu"] is None
    assert figures["on_gpu"] is False
    assert figures["passed_over"] == []
    assert figures["drops"] is None
    assert figures["notes"] == []
