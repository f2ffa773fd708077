"""What Prometheus reads of a real run, by its own parser, and who may read it."""

import http.client
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from stream.display.metrics import families
from stream.display.relay import Heard
from stream.frame import Reason, State
from stream.gpu import SERIES
from stream.subscribe import Shown

DOCS = Path(__file__).parents[3] / "docs" / "prometheus"
SECRET = "0123456789abcdef0123456789abcdef"


def secret_file(folder: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


def get(server: Any, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def scrape(server: Any) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """By sample name, by labels: the value."""
    status, text = get(server, "/metrics", Authorization=f"Bearer {SECRET}")
    assert status == 200
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def summed(samples: dict[tuple[tuple[str, str], ...], float], label: str) -> dict[str, float]:
    """By one label's value."""
    sums: dict[str, float] = {}
    for labels, value in samples.items():
        sums[dict(labels)[label]] = sums.get(dict(labels)[label], 0.0) + value
    return sums


@pytest.mark.timeout(120)
def test_what_is_scraped_of_a_real_run_is_what_the_run_accounts_for(
    start: Any, endpoint: str, make_server: Any, wait: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    out = tmp_path / "run.json"
    # A source that stops: from then on nothing is counted any more, and both sides can be compared exactly.
    source = "python:stopping_source:StoppingSource"
    run = start("run", source, "--endpoint", endpoint, "--no-audit", "--out", str(out))
    server = make_server(endpoint, "--metrics-token", str(secret_file(tmp_path)))

    def stopped() -> Any:
        now = scrape(server)
        # A busy machine may be stale before, and its engine may be ready only after.
        all_due = now.get("contrastream_frames_due_total", {}).get((), 0.0) >= 90
        still = all_due and now["contrastream_state"][(("state", "STALE"),)] == 1.0
        warm = "contrastream_engine_info" in now
        return now if still and warm and not now["contrastream_frames_waiting"][()] else None

    seen = wait(stopped, "a scrape of the stopped source", 60.0)
    run.end()
    accounts = json.loads(out.read_text())["counters"]
    published = seen["contrastream_frames_published_total"]
    by_state = summed(published, "state")
    dropped = summed(seen["contrastream_frames_dropped_total"], "reason")
    assert seen["contrastream_frames_due_total"][()] == accounts["due"] == 90
    assert by_state["synthetic"] == accounts["synthetic"]
    assert by_state["passthrough"] == sum(accounts["passthrough"].values()) > 0
    assert by_state["unchanged"] == accounts["unchanged"]
    assert dropped == accounts["dropped"]
    assert dropped["source_lost"] >= 10
    assert accounts["due"] == sum(by_state.values()) + sum(dropped.values()) + accounts["repeated"]

    drawn_or_live = by_state["synthetic"] + by_state["passthrough"]
    assert seen["contrastream_published_latency_seconds_count"][()] == drawn_or_live
    stages = summed(seen["contrastream_stage_latency_seconds_count"], "stage")
    assert stages["grab"] == drawn_or_live
    assert by_state["synthetic"] <= stages["engine"] == stages["submit"] == stages["guard"] <= drawn_or_live
    total_s = seen["contrastream_published_latency_seconds_sum"][()]
    assert 0 < total_s < drawn_or_live * 600
    assert seen["contrastream_faults_injected"][()] == 0.0
    assert seen["contrastream_up"][()] == 1.0
    # This engine runs on the CPU, and whether it was ready for a frame depends on the machine.
    assert dashboard_names() - set(seen) - DOMAIN_NAMES == GPU_NAMES


def dashboard_names() -> set[str]:
    """Every metric that the dashboard asks for."""
    text = (DOCS / "grafana-dashboard.json").read_text()
    panels = json.loads(text)["panels"]
    asked = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    return set(re.findall(r"\bcontrastream_\w+", asked))


DOMAIN_NAMES = {"contrastream_domain_score", "contrastream_domain_threshold"}
GPU_NAMES = {
    "contrastream_gpu_temperature_celsius", "contrastream_gpu_power_watts", "contrastream_gpu_power_limit_watts",
    "contrastream_gpu_busy_ratio", "contrastream_gpu_throttled", "contrastream_gpu_memory_used_bytes",
    "contrastream_gpu_memory_total_bytes",
}  # fmt: skip


def told(status: dict[str, Any], state: State = State.SYNTHETIC, now_ns: int = 0) -> dict[str, float]:
    """The samples without labels of a heartbeat, and that they can be registered, which refuses two of one name."""

    class Once:
        def collect(self) -> Any:
            return families(Heard(Shown(state, Reason.NONE, 20.0), 0, None, status), 0, now_ns)

    registry = CollectorRegistry()
    registry.register(Once())
    return {s.name: s.value for family in registry.collect() for s in family.samples if not s.labels}


def test_a_gpu_s_figures_are_told_in_base_units_and_are_those_the_dashboard_asks_for() -> None:
    gpu: dict[str, Any] = {
        **dict.fromkeys(SERIES, 50),
        "power_limit_w": 300.0,
        "memory_total_mib": 80,
        "throttle": ["heat"],
    }
    seen = told({"gpu": gpu})
    assert set(seen) >= GPU_NAMES
    assert seen["contrastream_gpu_busy_ratio"] == 0.5
    assert seen["contrastream_gpu_sm_clock_hertz"] == 50e6
    assert seen["contrastream_gpu_memory_used_bytes"] == 50 * 2**20
    assert seen["contrastream_gpu_throttled"] == 1.0
    assert "contrastream_gpu_power_watts" not in told({"gpu": {**gpu, "power_w": None}})
    assert set(told({"domain": {"score": 1.0, "threshold": 2.0}})) >= DOMAIN_NAMES


@pytest.mark.parametrize(
    ("state", "now_ns"),
    [(State.NO_SIGNAL, 0), (State.SYNTHETIC, 10**9)],
    ids=["publisher silent", "reader hangs"],
)
def test_of_a_stream_that_is_not_heard_no_old_figure_is_told(state: State, now_ns: int) -> None:
    status = {"counters": {"due": 5}, "fps_in": 30.0}
    assert told(status)["contrastream_frames_due_total"] == 5
    assert told(status, state, now_ns) == {"contrastream_up": 0.0, "contrastream_viewers": 0.0}


def test_a_heartbeat_that_makes_no_sense_leaves_figures_out_and_ends_nothing() -> None:
    status = {
        "counters": {"due": 10**400, "dropped": {'x"} 1\nevil': 1, "ok": 2}, "passthrough": [1], "waiting": True},
        "histograms": {"buckets_ms": [1, "2"], "stages": {"published": {"counts": [1, 2], "sum_ms": 3}, "grab": 7}},
        "gpu": "none", "engine": {"backend": ["x"]}, "clients": 3, "fps_in": float("nan"), "domain": {"score": {}},
    }  # fmt: skip
    seen = told(status)
    assert "contrastream_frames_due_total" not in seen
    assert "contrastream_frames_waiting" not in seen
    assert seen["contrastream_up"] == 1.0


def test_the_metrics_token_opens_the_metrics_and_nothing_else(
    make_server: Any, folder: Path, tmp_path: Path
) -> None:
    server = make_server(f"ipc://{folder}/nobody", "--metrics-token", str(secret_file(tmp_path)))
    bearer = {"Authorization": f"Bearer {SECRET}"}
    assert get(server, "/metrics", **bearer)[0] == 200
    assert get(server, "/metrics", Cookie=server.cookie)[0] == 200
    for path in ("/", "/healthz", "/metrics/", "/metrics/../healthz", "/?token=" + SECRET):
        assert get(server, path, **bearer)[0] == 401
    for said in (
        "",
        SECRET,
        f"Bearer {SECRET[:-1]}",
        f"Basic {SECRET}",
        f"Bearer {SECRET}x",
        "Bearer",
        "Bearer \xff",
    ):
        assert get(server, "/metrics", Authorization=said)[0] == 401
    assert get(server, "/metrics")[0] == 401
    assert get(server, "/metrics", Host="evil.example", **bearer)[0] == 403
    assert get(make_server(f"ipc://{folder}/nobody"), "/metrics", **bearer)[0] == 401


def test_a_session_key_lets_a_browser_in_after_a_restart_and_no_other_key_does(
    make_server: Any, folder: Path, tmp_path: Path
) -> None:
    first = make_server(f"ipc://{folder}/nobody", "--session-key", str(secret_file(tmp_path)))
    assert get(first, "/healthz", Cookie=first.cookie)[0] == 200
    forged = re.sub(r"=(\d+)\.", lambda found: f"={int(found[1]) + 1}.", first.cookie)
    assert get(first, "/healthz", Cookie=forged)[0] == 401
    first.process.end(signal.SIGTERM)
    again = make_server(f"ipc://{folder}/nobody", "--session-key", str(tmp_path / "secret"), port=first.port)
    assert get(again, "/healthz", Cookie=first.cookie)[0] == 200
    again.process.end(signal.SIGTERM)
    other = make_server(
        f"ipc://{folder}/nobody", "--session-key", str(secret_file(tmp_path, SECRET[::-1])), port=first.port
    )
    assert get(other, "/healthz", Cookie=first.cookie)[0] == 401
