"""The page's own modules, called one by one inside the browser: the wire, the clock, the states."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from stream.display.marks import adaptation_words
from stream.extensions import Adaptation
from stream.frame import FrameFormat, Photometric, Plane, Reason, Spacing, SpacingPlace, State
from stream.wire import CORE, Header, Layout, pack_header, unpack

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def tab(browser, server):
    made = browser.new_page()
    made.goto(server.entry())
    yield made
    made.close()


def run(page: Any, script: str, *arguments: Any) -> Any:
    """Run the body of an async function in the page; its arguments are a, b, c."""
    names = ", ".join("abc"[: len(arguments)])
    return page.evaluate(f"async ([{names}]) => {{ {script} }}", list(arguments))


def packed(**more: Any) -> bytes:
    """A message with both planes, 8 columns wider than high, 12 bits."""
    frame_format = FrameFormat(64, 72, 12, Photometric.MONOCHROME1, 700.5, 900.0)
    layout = Layout.of(frame_format)
    slot = bytearray(layout.size)
    pixels = np.arange(64 * 72, dtype="<u2") % 4096
    slot[layout.live : layout.live + pixels.nbytes] = pixels.tobytes()
    slot[layout.synthetic : layout.synthetic + pixels.nbytes] = (4095 - pixels).astype("<u2").tobytes()
    header = Header(
        bytes(range(16)),
        2**40 + 3,
        77,
        frame_format,
        State.UNCHANGED,
        Reason.NONE,
        Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION,
        stamps_ns=(123_456_789_012, 0, 0, 0, 0),
        age_ms=1500,
        rate_hz=7.5,
        **more,
    )
    return bytes(slot[: pack_header(memoryview(slot), header, layout)])


DECODE = """
const {decode} = await import("./wire.js");
const bytes = Uint8Array.from(atob(a), (c) => c.charCodeAt(0));
try {
  const frame = decode(bytes.buffer);
  return JSON.stringify({...frame, live: Array.from(frame.live.slice(4090, 4100)),
                         synthetic: frame.synthetic && Array.from(frame.synthetic.slice(4090, 4100))});
} catch (error) {
  return `${error.constructor.name}: ${error.message}`;
}
"""


def test_the_page_reads_every_field_as_python_does(tab):
    said = json.loads(run(tab, DECODE, base64.b64encode(packed()).decode()))
    assert said == {
        "stream": bytes(range(16)).hex(),
        "sequence": 2**40 + 3,
        "publication": 77,
        "dueMs": 123456.789012,
        "rows": 64,
        "columns": 72,
        "bits": 12,
        "maxValue": 4095,
        "inverted": True,
        "state": "UNCHANGED",
        "reason": "none",
        "faultsInjected": False,
        "unmaskedText": True,
        "ageMs": 1500,
        "windowCenter": 700.5,
        "windowWidth": 900.0,
        "rateHz": 7.5,
        "spacing": None,
        "adaptation": None,
        "live": [4090, 4091, 4092, 4093, 4094, 4095, 0, 1, 2, 3],
        "synthetic": [5, 4, 3, 2, 1, 0, 4095, 4094, 4093, 4092],
    }


def test_the_page_reads_a_pixels_size_and_takes_an_unknown_place_for_none(tab):
    message = packed(spacing=Spacing(0.25, 0.5, SpacingPlace.ISOCENTRE))
    said = json.loads(run(tab, DECODE, base64.b64encode(message).decode()))
    assert said["spacing"] == {"rowMm": 0.25, "columnMm": 0.5, "place": "at the isocentre"}
    at = 192 + 24 + 16 + 8
    later = message[: at + 16] + b"\x09" + message[at + 17 :]
    assert json.loads(run(tab, DECODE, base64.b64encode(later).decode()))["spacing"] is None
    broken = message[:at] + bytes(8) + message[at + 8 :]
    assert "a pixel of 0 x 0.5 mm is not allowed" in run(tab, DECODE, base64.b64encode(broken).decode())


def test_the_page_says_which_adaptation_drew_and_why_the_general_model_did(tab):
    asked = {"why_general": "projection: the picture is unlike those it was taught on; more"}
    for angles, projection in (((-30.4, 5.0), "RAO 30 CRAN 5"), ((None, None), "projection not known")):
        message = packed(adaptation=Adaptation("0f" * 16, 615, *angles))
        words = f"patient-adapted, run of 10:15, {projection}"
        assert message_adaptation(message) == words  # the desktop window's own
        said = json.loads(run(tab, DECODE, base64.b64encode(message).decode()))
        assert said["adaptation"] == {"key": "0f" * 16, "words": words}
    script = """const {adaptationWords, syntheticMark} = await import("./states.js");
        const drawn = {state: "SYNTHETIC", synthetic: [1], adaptation: a};
        return JSON.stringify([adaptationWords(drawn, {adaptation: b})?.words, syntheticMark(drawn, 60)[0]]);"""
    adapted = json.loads(run(tab, script, {"words": "patient-adapted"}, asked))
    assert adapted == ["patient-adapted", "SYNTHETIC 60 %, patient-adapted"]
    general = json.loads(run(tab, script, None, asked))
    assert general == [
        "General model, not patient-adapted: projection: the picture is unlike those it was taught on",
        "SYNTHETIC 60 %",
    ]
    assert json.loads(run(tab, script, None, None)) == [None, "SYNTHETIC 60 %"]
    broken = bytearray(packed(adaptation=Adaptation("0f" * 16, 615)))
    struct.pack_into("<I", broken, 192 + 24 + 16 + 8 + 32, 1440)
    assert "names an adaptation that is none" in run(tab, DECODE, base64.b64encode(bytes(broken)).decode())


def message_adaptation(data: bytes) -> str:
    return adaptation_words(unpack(data), None)


def changed(at: int, value: bytes) -> bytes:
    """A message with some bytes of its header changed."""
    message = bytearray(packed())
    message[at : at + len(value)] = value
    return bytes(message)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (b"", "at least 192 bytes, got 0"),
        (packed()[: CORE.size], "header of 232 bytes with a core of 192 does not fit"),
        (packed()[:-9000], "plane 1 of 9216 bytes at 9728 does not fit"),
        (changed(0, b"X"), "no message of a stream"),
        (changed(8, b"\x02"), "version 1 of the wire, got 2; reload the page"),
        (changed(96, b"\xff\xff\xff\xff"), "a frame of 4294967295 x 72"),
        (changed(104, b"\x07"), "with 7 bits stored is not allowed"),
        (changed(106, b"\x09"), "a state or a reason that is not known"),
        (changed(108, b"\x02"), "carries the live plane"),
        (changed(128, b"\x01"), "plane 0 of 9216 bytes at 513 does not fit"),
        (changed(110, b"\xff"), "the header ends inside an extension"),
        (changed(196, b"\xff\xff"), "an extension is longer than the header"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_the_page_refuses_bytes_that_are_no_message(tab, message, sentence):
    said = run(tab, DECODE, base64.b64encode(message).decode())
    assert said.startswith("WireError: ")
    assert sentence in said


CLOCK = """
const {ClockOffset} = await import("./clock.js");
const clock = new ClockOffset();
for (const exchange of a) clock.take(...exchange);
return clock.best(b);
"""


def test_the_clock_offset_is_that_of_the_quickest_exchange(tab):
    # sent, received, server received, server sent: the true offset is 1000 ms.
    slow_answer = [0.0, 40.0, 1038.0, 1038.0]
    quick = [100.0, 102.0, 1101.0, 1101.0]
    busy_server = [200.0, 253.0, 1201.0, 1251.0]
    best = run(tab, CLOCK, [slow_answer, quick, busy_server], 260.0)
    assert best["offsetMs"] == 1000.0
    assert best["uncertaintyMs"] == pytest.approx(1.0 + 1e-4 * 158)


def test_an_offset_is_unknown_before_the_first_exchange_and_doubt_grows_after_the_last(tab):
    assert run(tab, CLOCK, [], 5.0) is None
    exchange = [[100.0, 102.0, 1101.0, 1101.0]]
    assert run(tab, CLOCK, exchange, 20_102.0)["uncertaintyMs"] == pytest.approx(3.0)


STATE = """
const {currentState} = await import("./states.js");
const link = {heardAt: a.heardAt, silent: (now) => now - a.heardAt > 700};
return currentState(10000, link, a.server, a.frame);
"""
LIVE = {"state": "SYNTHETIC", "reason": "none", "age_ms": 20, "stream": "aa", "publication": 50, "at": 9950}
FRAME = {"state": "SYNTHETIC", "reason": "none", "ageMs": 0, "stream": "aa", "publication": 50, "at": 9960}


@pytest.mark.parametrize(
    ("known", "state", "cause"),
    [
        ({}, "SYNTHETIC", "source"),
        ({"heardAt": 9200}, "NO_SIGNAL", "server"),
        ({"server": None}, "NO_SIGNAL", "server"),
        ({"server": {**LIVE, "state": "NO_SIGNAL"}}, "NO_SIGNAL", "publisher"),
        ({"server": {**LIVE, "state": "NO_SIGNAL", "ended": True}}, "NO_SIGNAL", "ended"),
        ({"frame": {**FRAME, "state": "PASSTHROUGH", "publication": 51}}, "PASSTHROUGH", "source"),
        ({"server": {**LIVE, "state": "STALE"}}, "STALE", "source"),
        ({"frame": {**FRAME, "publication": 30, "at": 9400}}, "SYNTHETIC", "source"),
        ({"frame": {**FRAME, "publication": 30, "at": 9200}}, "STALE", "viewer"),
        ({"frame": {**FRAME, "stream": "bb", "at": 9200}}, "STALE", "viewer"),
        ({"server": {**LIVE, "stream": "", "publication": -1}}, "STALE", "source"),
        ({"frame": None}, "SYNTHETIC", "waiting"),
    ],
    ids=[
        "all is well",
        "server silent",
        "server never heard",
        "publisher silent",
        "run ended",
        "frame newer than the server's word",
        "source stopped",
        "viewer a little behind",
        "viewer far behind",
        "frame of a former publisher",
        "new publisher without a frame",
        "no frame yet",
    ],
)
def test_the_state_follows_from_what_was_last_heard(tab, known, state, cause):
    said = run(tab, STATE, {"heardAt": 9950, "server": LIVE, "frame": FRAME, **known})
    assert (said["state"], said["cause"]) == (state, cause)


@pytest.mark.parametrize(
    ("why", "text"),
    [("not let in", "not let in"), ("", "Nothing is heard from the pipeline. Waiting for it")],
)
def test_why_a_publisher_is_not_heard_is_said_where_it_is_known(tab, why, text):
    server = {**LIVE, "state": "NO_SIGNAL", "why": why}
    words = (
        STATE.replace("return currentState", "const now = currentState") + "; return states.largeWords(now);"
    )
    words = words.replace("const {currentState} = ", "const states = ").replace(
        "= currentState(", "= states.currentState("
    )
    assert run(tab, words, {"heardAt": 9950, "server": server, "frame": None})[1] == text


AGE = """
const {Numbers} = await import("./numbers.js");
const numbers = new Numbers();
const clock = {best: () => a.best};
numbers.drawn({dueMs: a.due}, 5000, clock);
return numbers.age(5400, clock, a.live);
"""


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({}, "41 ms ±0.3"),
        ({"live": False}, "441 ms ±0.3"),
        ({"due": 5880.0}, "120 ms ±0.3 late"),
        ({"best": None}, "--"),
        ({"due": 0}, "--"),
        ({"due": 9000.0}, "--"),
    ],
    ids=["live", "held", "late", "no clock", "no stamp", "another host's clock"],
)
def test_an_age_is_shown_with_its_doubt_or_not_at_all(tab, known, text):
    best = {"offsetMs": 1000.0, "uncertaintyMs": 0.3}
    said = run(tab, AGE, {"due": 5959.0, "live": True, "best": best, **known})
    assert said["text"] == text


def test_a_rate_counts_intervals_and_gaps_count_as_skipped(tab):
    script = """
    const {Numbers} = await import("./numbers.js");
    const numbers = new Numbers();
    const clock = {best: () => null};
    for (const at of a) numbers.drawn({dueMs: 1}, at, clock);
    for (const [stream, publication] of b) numbers.received({stream, publication});
    return [numbers.fps(1200), numbers.skipped];
    """
    stamps = [1000.0, 1100.0, 1200.0]
    assert run(tab, script, stamps, [["a", 1], ["a", 2], ["a", 5]]) == ["10.0", 2]
    assert run(tab, script, stamps[:1], [["a", 9], ["b", 1]]) == ["--", 0]
