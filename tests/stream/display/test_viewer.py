"""The page in headless Chromium, against a real publisher and a real server: pixels are read off its canvases."""

import base64
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.browser

READ = """() => {
  const canvases = {};
  for (const id of ["live", "synthetic", "overlay"]) {
    const canvas = document.getElementById(id);
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let bytes = "";
    for (let at = 0; at < data.length; at += 8192) {
      bytes += String.fromCharCode(...data.subarray(at, at + 8192));
    }
    canvases[id] = {
      rgba: btoa(bytes), rows: canvas.height, columns: canvas.width,
      sequence: Number(canvas.dataset.sequence), markRows: Number(canvas.dataset.markRows),
    };
  }
  const text = (id) => document.getElementById(id).textContent;
  return {canvases, body: {...document.body.dataset}, sequence: Number(text("sequence")), state: text("state"),
          veil: document.getElementById("veil").hidden ? "" : text("veil-title"),
          frozen: document.getElementById("frozen").hidden ? "" : text("frozen"),
          dimmed: getComputedStyle(document.getElementById("live")).filter,
          border: getComputedStyle(document.getElementById("stage"), "::after").borderTopWidth};
}"""


class Reading:
    """One look at the page; JavaScript runs one task at a time, so nothing is drawn in between."""

    def __init__(self, page: Any) -> None:
        self.said = page.evaluate(READ)
        self.body = self.said["body"]
        self.sequence = self.said["sequence"]

    def rgb(self, panel: str) -> np.ndarray:
        """(rows, columns, 3)."""
        canvas = self.said["canvases"][panel]
        data = np.frombuffer(base64.b64decode(canvas["rgba"]), np.uint8)
        return data.reshape(canvas["rows"], canvas["columns"], 4)[:, :, :3]

    def grey(self, panel: str) -> np.ndarray:
        """(rows, columns) below the mark; red, green and blue must be equal there."""
        rgb = self.rgb(panel)[self.mark_rows(panel) :]
        assert (rgb == rgb[:, :, :1]).all()
        return rgb[:, :, 0].astype(int)

    def mark_rows(self, panel: str) -> int:
        """Rows that the burned-in mark covers."""
        return int(self.said["canvases"][panel]["markRows"])

    def drawn(self, panel: str) -> int:
        """The number of the frame that this canvas holds."""
        return int(self.said["canvases"][panel]["sequence"])


def published(sequence: int, rows: int, columns: int, max_value: int) -> tuple[np.ndarray, np.ndarray]:
    """What the test publisher publishes under a number."""
    row, column = np.ogrid[:rows, :columns]
    live = (row * 3 + column * 5 + sequence * 7) % (max_value + 1)
    return live, max_value - live


def windowed(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """DICOM's linear window, 0 to 255."""
    return np.floor(np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255 + 0.5).astype(int)


def is_yellow(rgb: np.ndarray) -> np.ndarray:
    """Where the pixels have the colour that means synthetic."""
    red, green, blue = (rgb[:, :, index].astype(int) for index in range(3))
    return (red > 200) & (green > 160) & (blue < 120)


@pytest.fixture(scope="module")
def tab(browser, server):
    made = browser.new_page(viewport={"width": 1280, "height": 800})
    made.problems = []
    made.on("pageerror", lambda error: made.problems.append(str(error)))
    made.goto(server.entry())
    yield made
    made.close()


@pytest.fixture
def page(tab, publisher):
    """The page as it is when it has just been opened, and the publisher as it is by default."""
    publisher.change()
    tab.set_viewport_size({"width": 1280, "height": 800})
    tab.keyboard.press("Escape")
    if tab.evaluate("document.body.dataset.frozen") == "true":
        tab.keyboard.press("Space")
    for key in "4w":
        tab.keyboard.press(key)
    tab.locator("#opacity").fill("60")
    wait_for_state(tab, "SYNTHETIC")
    wait_for_frame(tab)
    tab.wait_for_timeout(100)
    yield tab
    assert tab.problems == []


def wait_for(page: Any, expression: str, limit_s: float = 8.0) -> None:
    """Wait for something in the page. Its policy forbids the eval of Playwright's own way of waiting."""
    end = time.monotonic() + limit_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"waited {limit_s} s for {expression}"
        page.wait_for_timeout(20)


def wait_for_state(page: Any, state: str) -> None:
    """Wait for the page's state."""
    wait_for(page, f"document.body.dataset.state === '{state}'")


def wait_for_frame(page: Any, rows: int = 96, columns: int = 128) -> None:
    """Wait for a frame of this size on the canvas."""
    wait_for(
        page,
        "Number(document.body.dataset.sequence) > 0 && "
        f"document.getElementById('live').height === {rows} && document.getElementById('live').width === {columns}",
    )


def settle(page: Any, check: Callable[["Reading"], None], limit_s: float = 4.0) -> None:
    """Repeat a check until it holds: what was changed reaches the canvas a few frames later."""
    end = time.monotonic() + limit_s
    while True:
        try:
            check(Reading(page))
        except AssertionError:
            if time.monotonic() > end:
                raise
            page.wait_for_timeout(30)
        else:
            return


FORMATS = {
    "8 bits": {},
    "odd size": {"rows": 77, "columns": 131},
    "smallest": {"rows": 64, "columns": 64},
    "10 bits": {"bits": 10},
    "12 bits, odd size": {"bits": 12, "rows": 97, "columns": 65},
    "16 bits": {"bits": 16},
    "MONOCHROME1": {"photometric": 1},
    "window of the stream": {"bits": 12, "window": [300.0, 400.0]},
}


@pytest.mark.parametrize("values", FORMATS.values(), ids=FORMATS.keys())
def test_live_and_synthetic_pixels_are_those_that_were_published(page, publisher, values):
    publisher.change(**values)
    rows, columns = values.get("rows", 96), values.get("columns", 128)
    max_value = 2 ** values.get("bits", 8) - 1
    inverted = values.get("photometric") == 1
    center, width = values.get("window") or ((max_value + 1) / 2, max_value + 1)

    def check(reading: Reading) -> None:
        live, synthetic = published(reading.sequence, rows, columns, max_value)
        for panel, plane in (("live", live), ("synthetic", synthetic)):
            expected = windowed(plane, center, width)
            expected = 255 - expected if inverted else expected
            np.testing.assert_array_equal(reading.grey(panel), expected[reading.mark_rows(panel) :])
        assert reading.mark_rows("live") == 0
        assert 0 < reading.mark_rows("synthetic") < rows // 3

    settle(page, check)


@pytest.mark.parametrize("percent", [0, 1, 25, 50, 99, 100])
def test_the_slider_blends_live_and_synthetic_of_one_frame(page, percent):
    page.locator("#opacity").fill(str(percent))

    def check(reading: Reading) -> None:
        live, synthetic = published(reading.sequence, 96, 128, 255)
        ideal = (live + percent / 100 * (synthetic - live))[reading.mark_rows("overlay") :]
        assert np.abs(reading.grey("overlay") - ideal).max() <= (0 if percent in (0, 100) else 0.75)

    settle(page, check)
    assert page.locator("#opacity-text").inner_text() == f"{percent} %"


def test_sixteen_bit_overlays_are_blended_before_the_window(page, publisher):
    publisher.change(bits=16, window=[40000.0, 2000.0])
    page.locator("#opacity").fill("30")

    def check(reading: Reading) -> None:
        live, synthetic = published(reading.sequence, 96, 128, 65535)
        ideal = windowed(live + 0.3 * (synthetic - live), 40000.0, 2000.0)[reading.mark_rows("overlay") :]
        # 0.3 is 1229 / 4096 in the page: up to 3.2 stored values of 65535, which is half a grey level here.
        assert np.abs(reading.grey("overlay") - ideal).max() <= 1

    settle(page, check)


def test_panels_and_head_line_never_mix_frames(page, publisher):
    publisher.change(rate_hz=60.0)
    seen = set()
    for _ in range(40):
        reading = Reading(page)
        seen.add(reading.sequence)
        live, synthetic = published(reading.sequence, 96, 128, 255)
        assert {reading.drawn(panel) for panel in ("live", "synthetic", "overlay")} == {reading.sequence}
        np.testing.assert_array_equal(reading.grey("live"), live)
        np.testing.assert_array_equal(reading.grey("synthetic"), synthetic[reading.mark_rows("synthetic") :])
    assert len(seen) > 5


def test_synthetic_is_burned_into_every_picture_that_shows_it(page):
    reading = Reading(page)
    assert not is_yellow(reading.rgb("live")).any()
    for panel in ("synthetic", "overlay"):
        assert is_yellow(reading.rgb(panel)[: reading.mark_rows(panel)]).sum() > 40
    page.locator("#opacity").fill("0")
    page.wait_for_timeout(100)
    reading = Reading(page)
    assert is_yellow(reading.rgb("overlay")[: reading.mark_rows("overlay")]).sum() > 40


def check_untouched(reading: Reading) -> None:
    """Live as it was published, whole range."""
    np.testing.assert_array_equal(reading.grey("live"), published(reading.sequence, 96, 128, 255)[0])


def test_dragging_changes_the_window_and_a_double_click_resets_it(page):
    box = page.locator("#live").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 200, y + 100, steps=4)
    page.mouse.up()

    def check(reading: Reading) -> None:
        live, _ = published(reading.sequence, 96, 128, 255)
        # Half a grey level a pixel: 100 narrower, 50 higher.
        np.testing.assert_array_equal(reading.grey("live"), windowed(live, 178.0, 156.0))

    settle(page, check)
    page.mouse.dblclick(x, y)
    settle(page, check_untouched)


def test_a_frozen_picture_says_so_and_the_stream_s_state_goes_on(page, publisher):
    page.keyboard.press("Space")
    page.wait_for_timeout(60)
    before = Reading(page)
    publisher.change(state="PASSTHROUGH", reason="ENGINE_LOST")
    wait_for_state(page, "PASSTHROUGH")
    after = Reading(page)

    assert before.said["frozen"].startswith("FROZEN")
    assert "Stream: AI OFF: engine lost" in after.said["frozen"]
    assert after.said["border"] == "12px"
    assert after.sequence == before.sequence
    for panel in ("live", "synthetic"):
        np.testing.assert_array_equal(after.rgb(panel), before.rgb(panel))

    page.keyboard.press("Space")
    wait_for(page, f"Number(document.body.dataset.sequence) > {before.sequence}")
    assert Reading(page).said["frozen"] == ""


def test_compare_shows_live_while_held(page):
    page.keyboard.press("2")
    page.keyboard.down("c")
    assert page.evaluate("document.body.dataset.view") == "live"
    assert page.locator("#live").is_visible()
    assert not page.locator("#synthetic").is_visible()
    page.keyboard.up("c")
    assert page.evaluate("document.body.dataset.view") == "synthetic"
    assert page.locator("#synthetic").is_visible()


@pytest.mark.parametrize(
    ("key", "visible"),
    [("1", ["live"]), ("2", ["synthetic"]), ("3", ["overlay"]), ("4", ["live", "synthetic", "overlay"])],
    ids=["live", "synthetic", "overlay", "side by side"],
)
def test_each_mode_has_its_key(page, key, visible):
    page.keyboard.press(key)
    panels = ["live", "synthetic", "overlay"]
    assert [panel for panel in panels if page.locator(f"#{panel}").is_visible()] == visible


def test_arrow_keys_move_the_opacity(page):
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowLeft")
    assert page.locator("#opacity-text").inner_text() == "64 %"


def test_the_help_names_every_key(page):
    page.keyboard.press("?")
    words = page.locator("#help").inner_text()
    for key in ("1", "2", "3", "4", "Space", "c", "w", "s", "f", "i", "?"):
        assert re.search(rf"(^|\s){re.escape(key)}\s", words), key
    assert "not a medical device" in words.lower()


def test_a_passthrough_shows_live_everywhere_with_its_reason(page, publisher):
    publisher.change(state="PASSTHROUGH", reason="DEADLINE")
    wait_for_state(page, "PASSTHROUGH")
    page.wait_for_timeout(100)
    reading = Reading(page)
    assert reading.body["reason"] == "deadline"
    assert reading.said["state"] == "AI OFF: deadline"
    live, _ = published(reading.sequence, 96, 128, 255)
    for panel in ("live", "synthetic", "overlay"):
        np.testing.assert_array_equal(reading.grey(panel), live[reading.mark_rows(panel) :])
        assert not is_yellow(reading.rgb(panel)).any()
    assert reading.mark_rows("synthetic") > 0


@pytest.mark.parametrize(
    ("values", "state", "words"),
    [
        ({"state": "UNCHANGED", "age_ms": 2400}, "UNCHANGED", r"UNCHANGED 2\.[4-9] s"),
        ({"frames": False, "status_state": "STALE"}, "STALE", r"STALE \d+\.\d s"),
    ],
    ids=["unchanged", "stale"],
)
def test_a_picture_that_is_not_live_is_changed_as_a_whole(page, publisher, values, state, words):
    bright = picture_brightness(page)
    publisher.change(**values)
    wait_for_state(page, state)
    page.wait_for_timeout(150)
    reading = Reading(page)
    assert re.fullmatch(words, reading.said["veil"])
    assert reading.said["dimmed"].startswith("brightness(0.")
    assert float(reading.said["border"].removesuffix("px")) >= 12
    assert picture_brightness(page) < 0.7 * bright

    publisher.change()
    wait_for_state(page, "SYNTHETIC")
    page.wait_for_timeout(100)
    reading = Reading(page)
    assert (reading.said["veil"], reading.said["dimmed"], reading.said["border"]) == ("", "none", "0px")


def picture_brightness(page: Any) -> float:
    """Mean brightness of the live panel as it reaches the eye."""
    shot = np.frombuffer(page.locator("#live").screenshot(), np.uint8)
    return float(cv2.imdecode(shot, cv2.IMREAD_GRAYSCALE).mean())


def test_a_killed_publisher_is_no_signal_within_a_second_and_comes_back(page, publisher):
    began_ms = page.evaluate("performance.now()")
    publisher.kill()
    wait_for_state(page, "NO_SIGNAL")
    reading = Reading(page)
    assert 500 < float(reading.body["stateAt"]) - began_ms < 1000
    assert reading.said["veil"].startswith("NO SIGNAL")
    assert reading.said["dimmed"] == "brightness(0.2)"

    publisher.start()
    wait_for_state(page, "SYNTHETIC")
    settle(page, check_untouched)


ON_GPU = {
    "backend": "tensorrt", "precision": "f16", "inference_ms": 0.9, "model_sha256": "0123456789abcdef", "skipped": [],
}  # fmt: skip
GPU = {
    "name": "GPU of a test", "driver": "580.95.05", "sm_mhz": 1755, "sm_max_mhz": 1980, "temperature_c": 63,
    "power_w": 412.5, "power_limit_w": 700.0, "busy_percent": 45, "memory_used_mib": 3174, "memory_total_mib": 24576,
    "throttle": ["power cap", "idle"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "head", "details"),
    [
        pytest.param(
            {"engine": ON_GPU, "more": {"gpu": GPU, "gpu_why": None}},
            "slowed: power cap · 45 % · 63 °C · 3.1 of 24 GiB",
            [
                "Engine tensorrt f16",
                "Model 01234567",
                "GPU GPU of a test, driver 580.95.05",
                "GPU busy 45 %, memory 3.1 of 24 GiB",
                "GPU heat 63 °C, 413 W of 700 W",
                "GPU clock 1755 MHz of 1980 MHz",
                "GPU slowed by power cap",
            ],
            id="a GPU",
        ),
        pytest.param(
            {"engine": ON_GPU, "more": {"gpu": {"name": "old", "throttle": ["idle"]}}},
            "--",
            [
                "GPU old, driver --",
                "GPU busy --, memory --",
                "GPU heat --, -- of --",
                "GPU slowed by nothing",
            ],
            id="a GPU that tells little",
        ),
        pytest.param(
            {"engine": ON_GPU, "more": {"gpu": None, "gpu_why": "the GPU is lost: it is off; look at dmesg"}},
            "not known",
            ["Engine tensorrt f16", "GPU the GPU is lost: it is off; look at dmesg"],
            id="a GPU that is lost",
        ),
        pytest.param(
            {
                "engine": {
                    **ON_GPU,
                    "backend": "openvino",
                    "skipped": [["tensorrt", "not here"], ["torch", "not here"]],
                },
                "more": {"gpu": None, "gpu_why": "the engine runs on the CPU (openvino)"},
            },
            None,
            [
                "Engine openvino f16",
                "Passed over tensorrt, torch: not here",
                "GPU the engine runs on the CPU (openvino)",
            ],
            id="a CPU",
        ),
        pytest.param(
            {
                "engine": {},
                "more": {"engine_why": "cudaMalloc failed: out of memory; close what else runs"},
            },
            None,
            ["Engine none: cudaMalloc failed: out of memory"],
            id="an engine that is not there",
        ),
        pytest.param(
            {
                "engine": {},
                "more": {"source_why": "the source has not returned from a read for 5 s"},
            },
            None,
            ["Source the source has not returned from a read for 5 s"],
            id="a source that hangs",
        ),
    ],
)
def test_engine_and_gpu_are_told_in_the_head_line_and_in_full_in_the_details(
    page, publisher, values, head, details
):
    publisher.change(**values)
    page.keyboard.press("i")
    shown = "document.getElementById('details').textContent.replace(/ +/g, ' ')"
    for line in details:
        wait_for(page, f"{shown}.split('\\n').includes({line!r})")
    assert page.locator("#gpu-figures").is_hidden() is (head is None)
    if head is not None:
        assert page.locator("#gpu").inner_text() == head
        assert (
            page.locator("#gpu-name").inner_text() == values["more"]["gpu"]["name"]
            if values["more"]["gpu"]
            else "GPU"
        )
    box = page.locator("#details").bounding_box()
    assert box["y"] > 0
    page.keyboard.press("i")


def test_a_long_reason_is_folded_below_its_first_line(page, publisher):
    why = "tensorrt_rtx runs on the compute capabilities 75, 80, 86, 89, 120, 121, this GPU is a NVIDIA H200 of 90; use torch"
    publisher.change(engine={**ON_GPU, "skipped": [["tensorrt_rtx", why]]})
    page.keyboard.press("i")
    wait_for(page, "document.getElementById('details').textContent.includes('Passed over')")
    lines = page.locator("#details").inner_text().split("\n")
    assert max(map(len, lines)) <= 24 + 72
    at = next(index for index, line in enumerate(lines) if line.startswith("Passed over"))
    assert lines[at + 1].startswith(" " * 24)
    assert " ".join(f"{lines[at][24:]} {lines[at + 1]}".split()) == f"tensorrt_rtx: {why}"
    page.keyboard.press("i")


def test_unmasked_burned_in_text_is_warned_of(page, publisher):
    assert not page.locator("#warning").is_visible()
    publisher.change(unmasked_text=True)
    page.locator("#warning").wait_for(state="visible", timeout=3000)


def test_injected_faults_are_written_over_the_page_and_into_every_picture(page, publisher):
    assert not page.locator("#test").is_visible()
    publisher.change(faults_injected=True)
    page.locator("#test").wait_for(state="visible", timeout=3000)
    assert "TEST, FAULTS INJECTED" in page.locator("#test").text_content()
    reading = Reading(page)
    for panel in ("live", "synthetic", "overlay"):
        band = reading.rgb(panel)[-10:].astype(int)
        assert ((band[:, :, 0] > 150) & (band[:, :, 1] < 130) & (band[:, :, 2] > 150)).any(), panel


def test_a_snapshot_says_what_it_is_and_nothing_of_anybody(page, tmp_path):
    page.keyboard.press("2")
    page.keyboard.press("Space")
    page.wait_for_timeout(100)
    reading = Reading(page)
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    name = waiting.value.suggested_filename
    path = tmp_path / name
    waiting.value.save_as(path)

    assert re.fullmatch(r"contrastream-\d{8}T\d{6}\.png", name)
    picture = cv2.imread(str(path))[:, :, ::-1]
    assert picture.shape == (96 + 64, 640, 3)
    left = (640 - 128) // 2
    np.testing.assert_array_equal(picture[:96, left : left + 128], reading.rgb("synthetic"))
    assert is_yellow(picture[96:]).sum() > 100
    assert png_chunks(path) <= {
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"sRGB",
        b"sBIT",
        b"gAMA",
        b"cHRM",
        b"iCCP",
        b"pHYs",
    }


def png_chunks(path: Path) -> set[bytes]:
    """The kinds of chunk in a PNG: text would be one of its own."""
    data, at, kinds = path.read_bytes(), 8, set()
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kinds.add(data[at + 4 : at + 8])
        at += 12 + length
    return kinds


def test_the_frame_age_is_known_with_its_doubt(page):
    wait_for(page, "Number(document.body.dataset.ageUncertaintyMs) > 0")
    body = Reading(page).body
    assert 0 < float(body["ageMs"]) < 500
    assert float(body["ageUncertaintyMs"]) < 50
    assert re.fullmatch(r"\d+ ms ±\d+(\.\d)?( late)?", page.locator("#age").inner_text())


def test_the_page_asks_no_other_host_for_anything(browser, publisher, server):
    publisher.change()
    made = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    made.on("request", lambda request: asked.append(request.url))
    made.on("websocket", lambda socket: asked.append(socket.url))
    made.on("console", lambda message: complaints.append(message.text))
    answer = made.goto(server.entry())
    wait_for_state(made, "SYNTHETIC")
    assert {url.split("/")[2] for url in asked} == {f"127.0.0.1:{server.port}"}
    assert any(url.startswith("ws://") for url in asked)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert made.evaluate("crossOriginIsolated")
    made.close()
    assert complaints == []


@pytest.mark.parametrize(
    "size", [(1280, 800), (1024, 768), (800, 1280)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_the_page_fits_a_tablet_and_fingers(page, size):
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(100)
    for control in page.locator("#tools button:visible, #tools input:visible").all():
        box = control.bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
        assert box["x"] >= 0 and box["x"] + box["width"] <= width  # noqa: PT018 - one thing: it is on the page
        assert box["y"] + box["height"] <= height
    footer = page.locator("footer").bounding_box()
    assert footer["y"] + footer["height"] <= height
    assert "not a medical device" in page.locator("footer").inner_text().lower()
    for panel in ("live", "synthetic", "overlay"):
        box = page.locator(f"#{panel}").bounding_box()
        assert min(box["width"], box["height"]) > 200
        assert box["width"] / box["height"] == pytest.approx(128 / 96, rel=0.02)


@pytest.mark.parametrize(
    ("fragment", "mode"), [("#live", "live"), ("#overlay", "overlay"), ("#nothing", "side")]
)
def test_the_address_says_what_is_shown_at_first(browser, server, publisher, fragment, mode):
    publisher.change()
    page = browser.new_page()
    page.goto(f"{server.entry()}{fragment}")
    wait_for(page, f"document.body.dataset.mode === '{mode}'")
    assert page.locator("#live").is_visible() == (mode != "overlay")
    page.close()


@pytest.mark.parametrize("kept", [False, True], ids=["without a key", "with a session key"])
def test_a_page_whose_server_was_started_again_says_so_or_goes_on(
    browser, publisher, make_server, tmp_path, kept
):
    publisher.change()
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "key").chmod(0o600)
    more = ("--session-key", str(tmp_path / "key")) if kept else ()
    first = make_server(publisher.endpoint, *more)
    shown = browser.new_page()
    shown.goto(first.entry())
    wait_for_state(shown, "SYNTHETIC")
    first.process.end(signal.SIGTERM)
    wait_for(shown, "document.body.dataset.cause === 'server'")
    make_server(publisher.endpoint, *more, port=first.port)
    if kept:
        wait_for_state(shown, "SYNTHETIC")
    else:
        wait_for(shown, "document.body.dataset.cause === 'stranger'")
        assert "started again and does not know this browser" in shown.locator("#veil-text").inner_text()
    shown.close()
