"""The stage `shown` is proved as the others are (tests/stream/test_stages.py): 20 ms put into the browser's draw show there alone."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.display.shown import read_shown
from stream.measure import STAGES, Measured, MeasuringClient
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.sources.options import SourceOptions

pytestmark = pytest.mark.browser
DELAY_MS = 20.0
FRAMES = 24
DRAWS_LATE = f"""
const put = CanvasRenderingContext2D.prototype.putImageData;
CanvasRenderingContext2D.prototype.putImageData = function (...given) {{
  if (this.canvas.id === "live") {{
    const until = performance.now() + {DELAY_MS};
    while (performance.now() < until) {{}}
  }}
  return put.apply(this, given);
}};
"""


def quick(
    folder: Path, browser: Any, make_server: Callable[..., Any], wait: Callable[..., Any], script: str
) -> dict[str, float]:
    """Each stage of a real run that a real page shows, at the 10th percentile: what the machine does besides only adds to it."""
    out = folder / "shown.npz"
    config = PipelineConfig(
        "phantom",
        SourceOptions(size=64, rate_hz=8.0),
        Pacing(rate_hz=8.0, loop=True, frames=FRAMES, lossless=True),
        endpoint=f"ipc://{folder}/stream",
        model="compact-s",
        domain=False,
        wait_for_engine=True,
        wait_for_client=True,
    )
    pipeline = Pipeline(config)
    server = make_server(pipeline.endpoint.text, "--shown", str(out))
    page = browser.new_page()
    page.add_init_script(script)
    page.goto(server.entry())
    wait(lambda: server.health()["viewers"] == 1, "the page to connect")
    with MeasuringClient(pipeline.endpoint.text, folder / "seen.npz", credit=True) as client:
        pipeline.run()
        measured: Measured = client.finish()
    # The page's last message is on its way; then the server writes.
    page.wait_for_timeout(200)
    assert server.process.end(signal.SIGTERM)[0] == 0
    page.close()
    assert measured.sequence.size == FRAMES
    shown = read_shown(out)
    assert shown.sequence.size > FRAMES / 2
    assert shown.uncertainty_ms is not None
    assert shown.uncertainty_ms < DELAY_MS / 4
    assert (shown.stage_ms() > -shown.uncertainty_ms).all()
    found = {name: float(np.quantile(measured.stage_ms(*ends), 0.1)) for name, ends in STAGES.items()}
    return found | {"shown": float(np.quantile(shown.stage_ms(), 0.1))}


@pytest.mark.slow
def test_a_delay_in_the_draw_shows_in_its_own_stage_alone(
    tmp_path: Path, browser: Any, make_server: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    found = []
    for name, script in (("plain", ""), ("late", DRAWS_LATE)):
        (tmp_path / name).mkdir()
        found.append(quick(tmp_path / name, browser, make_server, wait, script))
    more = {name: found[1][name] - found[0][name] for name in found[0]}
    assert more.pop("shown") > 0.8 * DELAY_MS, found
    assert max(more.values()) < 0.5 * DELAY_MS, more


def sent_by(page: Any, url: str, wait: Callable[..., Any]) -> list[dict[str, Any]]:
    """What a page sends to its server over some frames."""
    sent: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda text: sent.append(text)))
    page.goto(url)
    wait(lambda: page.wait_for_timeout(50) or sum('"next"' in text for text in sent) > 12, "a dozen frames")
    return [json.loads(text) for text in sent]


def test_a_page_says_when_it_drew_only_where_its_server_asks(
    tmp_path: Path, browser: Any, publisher: Any, make_server: Callable[..., Any], wait: Callable[..., Any]
) -> None:
    publisher.change()
    plain, asked = browser.new_page(), browser.new_page()
    silent = sent_by(plain, make_server(publisher.endpoint).entry(), wait)
    assert all(said == {"type": "next"} for said in silent if said["type"] == "next")
    assert all(set(said) == {"type", "sent_ms"} for said in silent if said["type"] == "ping")
    telling = sent_by(
        asked, make_server(publisher.endpoint, "--shown", str(tmp_path / "a.npz")).entry(), wait
    )
    stamped = [said for said in telling if "shown_ms" in said]
    assert len(stamped) >= 10
    assert np.all(np.diff([said["publication"] for said in stamped]) > 0)
    assert any("back" in said for said in telling)
    # It rides on the credit for the next frame: no message more for a frame than without.
    assert all(said["type"] == "next" for said in stamped)
    plain.close()
    asked.close()


def test_a_file_that_cannot_be_written_is_found_out_at_once(make_process: Callable[..., Any]) -> None:
    ended = make_process(
        "-m", "stream.display.web", "--port", "0", "--shown", "/nowhere/a.npz", first_line=False
    )
    ended.child.wait(20)
    status, stderr = ended.end()
    assert status == 2
    assert stderr.startswith("--shown needs a file that can be written, got /nowhere/a.npz")
    assert stderr.count("\n") == 1
