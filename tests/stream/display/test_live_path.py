"""The page on the real live path: what a person sees when the engine or the publisher is killed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def state_of(page: Any) -> str:
    return str(page.evaluate("document.body.dataset.state"))


@pytest.fixture
def page(browser: Any, start: Any, loop: Path, endpoint: str, make_server: Any, wait: Any) -> Any:
    """A page that shows synthetic frames of a real pipeline; its `pipeline` and `endpoint` are beside it."""
    pipeline = start("run", str(loop), "--loop", "--endpoint", endpoint)
    server = make_server(endpoint)
    made = browser.new_page(viewport={"width": 1280, "height": 800})
    made.goto(server.entry())
    wait(lambda: state_of(made) == "SYNTHETIC", "SYNTHETIC on the page", 30.0)
    yield made, pipeline
    made.close()


def test_a_killed_engine_is_shown_and_synthetic_frames_return(page: Any, wait: Any) -> None:
    shown, pipeline = page
    # Watched inside the page, since the state may be gone again before a test process has asked twice.
    shown.evaluate(
        """() => { window.seen = [];
          new MutationObserver(() => seen.push([document.body.dataset.state, document.body.dataset.reason].join(" ")))
            .observe(document.body, {attributes: true, attributeFilter: ["data-state", "data-reason"]}); }"""
    )
    os.kill(pipeline.child("stream.infer"), signal.SIGKILL)
    lost = "window.seen.some((said) => said.includes('engine_lost'))"
    wait(lambda: shown.evaluate(lost), "engine_lost on the page")
    wait(lambda: state_of(shown) == "SYNTHETIC", "SYNTHETIC on the page again", 30.0)


def test_a_killed_publisher_is_no_signal_within_a_second_and_comes_back(
    page: Any, start: Any, loop: Path, endpoint: str, wait: Any
) -> None:
    shown, pipeline = page
    shown.evaluate(
        """() => { window.silentAt = null;
          new MutationObserver(() => {
            if (document.body.dataset.state === "NO_SIGNAL" && silentAt === null) { window.silentAt = Date.now(); }
          }).observe(document.body, {attributes: true}); }"""
    )
    killed_ms = shown.evaluate("Date.now()")
    pipeline.process.kill()
    wait(lambda: shown.evaluate("window.silentAt") is not None, "NO SIGNAL on the page")
    assert shown.evaluate("window.silentAt") - killed_ms < 1000
    start("run", str(loop), "--loop", "--endpoint", endpoint)
    wait(lambda: state_of(shown) == "SYNTHETIC", "SYNTHETIC on the page again", 30.0)
