"""The commands `run` and `replay`: a pipeline with its status line, its viewer and its summary."""

import contextlib
import dataclasses
import math
import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from calib.whole_files import json_bytes, write_whole
from stream import accounts
from stream.audit_log import check_folder, default_folder
from stream.beside import ServerBeside
from stream.config import ReplayConfig, RunConfig
from stream.display.browser import open_page
from stream.display.secret_files import read_secrets
from stream.endpoint import choose_keys, client_here, numbered_endpoint, parse_endpoint
from stream.errors import DisplayError, StreamError
from stream.healthcheck import healthcheck
from stream.measure import Measured, MeasuringClient
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.record.keep_settings import keep_settings
from stream.reported import reported
from stream.rooms import Rooms
from stream.site import open_site
from stream.sources.faults import parse_faults
from stream.sources.options import SourceOptions, parse_crop
from stream.statusline import (
    StatusLine,
    format_rooms,
    format_rooms_summary,
    format_summary,
    log_to_stderr,
)

MAX_ROOMS = 32


@runtime_checkable
class Stoppable(Protocol):
    """What Ctrl-C ends: a pipeline, or any other work that finishes what it has begun."""

    def stop(self) -> None: ...


def source_options(config: RunConfig | ReplayConfig) -> SourceOptions:
    """What the user asked of the source."""
    return SourceOptions(
        rate_hz=config.rate,
        crop=None if config.crop is None else parse_crop(config.crop),
        gray=config.gray,
        luma=config.luma,
        width=config.width,
        height=config.height,
        bits=config.bits,
        size=config.size,
        seed=config.seed,
        contrast=config.contrast,
    )


def parse_speed(text: str) -> float:
    """Read --speed: a factor above 0, or `max`, which is infinity.

    Raises:
        ValueError: Neither.
    """
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = math.nan
    if not speed > 0 or (math.isinf(speed) and text != "max"):
        raise ValueError(f"--speed must be max or a factor above 0, got {text!r}; 1 is the loop's own pace")
    return speed


def _check_counts(config: RunConfig | ReplayConfig) -> None:
    if config.fault is not None:
        parse_faults(config.fault)
    if config.fault_seed < 0:
        raise ValueError(f"--fault-seed must be 0 or more, got {config.fault_seed}")
    if config.frames is not None and config.frames < 1:
        raise ValueError(f"--frames must be 1 or more, got {config.frames}")
    if not 12 <= config.slots <= 256:
        raise ValueError(f"--slots must be 12 to 256, got {config.slots}; 16 is enough for most")
    if not 1 <= config.port <= 65535:
        raise ValueError(f"--port must be 1 to 65535, got {config.port}")
    keep = keep_settings(config.keep_last, config.keep_in, config.keep_memory)
    if config.web:
        read_secrets(config.session_key, config.metrics_token)
        _check_port(config.port)
    elif keep is not None:
        raise ValueError("--keep-last is of the web viewer; give --web too, or give it to: contrastream view")
    elif config.session_key is not None or config.metrics_token is not None:
        raise ValueError("--session-key and --metrics-token are of the web viewer's server; give --web too")
    if config.igtl is not None:
        import stream.igtl.message  # noqa: F401 - whether its extra is installed is found out here, not in the server

        _check_port(config.igtl, "OpenIGTLink", "--igtl PORT")
    if config.threads is not None and config.threads < 1:
        raise ValueError(f"--threads must be 1 or more, got {config.threads}")
    if config.out is not None and not config.out.parent.is_dir():
        raise ValueError(f"--out needs an existing folder, got {config.out.parent}; make it first")
    if config.out is not None and config.out.is_dir():
        raise ValueError(f"--out needs a file name, got the folder {config.out}; add a name")
    if config.out is not None and not os.access(config.out.parent, os.W_OK):
        raise ValueError(f"--out needs a folder that can be written, got {config.out.parent}; choose another")


def _check_port(port: int, what: str = "the web viewer", option: str = "--port") -> None:
    """Find out before anything starts that a port cannot be served."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"{what} needs port {port} on this host, got: {error.strerror}; stop what holds it or choose another "
                f"with {option}"
            ) from error


def pipeline_config(config: RunConfig | ReplayConfig, pacing: Pacing, *, measured: bool) -> PipelineConfig:
    """What the pipeline needs of a command's settings."""
    _check_counts(config)
    options = source_options(config)
    return PipelineConfig(
        source=config.source,
        options=options,
        site=open_site(config.site, options, model=None if config.engine == "off" else config.model),
        pacing=pacing,
        endpoint=choose_keys(config.endpoint, key=config.key, curve=config.curve),
        model=config.model,
        engine=config.engine,
        untaught=config.untaught,
        threads=config.threads,
        domain=config.domain,
        slots=config.slots,
        crc=config.crc,
        fault=config.fault,
        fault_seed=config.fault_seed,
        wait_for_engine=measured,
        wait_for_client=measured,
        audit_folder=_audit_folder(config),
        patient=_patient(config),
    )


def _patient(config: RunConfig | ReplayConfig) -> str | None:
    """The file of the adaptation to begin with, found to be one of this model.

    Raises:
        CheckpointError: It is none, or of another model.
        ValueError: Nothing would draw with it.
    """
    if config.patient is None:
        return None
    if config.engine == "off":
        raise ValueError("--patient needs an engine, got --engine off; leave one out")
    from calib.patient_facts import open_patient
    from casgan.patient_weights import read_patient
    from engines.adapted import adapted_bytes
    from engines.untaught import find_model

    descriptor = open_patient(config.patient)
    try:
        found = read_patient(descriptor, config.patient.name)
    finally:
        os.close(descriptor)
    adapted_bytes(find_model(config.model, untaught=config.untaught), found, config.patient.name)
    return str(config.patient.absolute())


def _audit_folder(config: RunConfig | ReplayConfig) -> str | None:
    """Where a run's audit log goes, made and found writable; None for a replay, which measures, and with --no-audit."""
    if not isinstance(config, RunConfig):
        return None
    if not config.audit:
        if config.audit_folder is not None:
            raise ValueError("--audit-folder and --no-audit exclude each other; leave one out")
        return None
    folder = (config.audit_folder or default_folder()).absolute()
    check_folder(folder)
    return str(folder)


@contextlib.contextmanager
def stopped_by_signals(work: Stoppable) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the pipeline, not the process."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        work.stop()

    before = {
        number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def web_viewer(
    endpoint: str, work: Stoppable, port: int, *, browser: bool, more: Sequence[str] = ()
) -> ServerBeside:
    """The web viewer of a stream; passes on each address it prints.

    Args:
        endpoint: The stream it shows.
        work: What is stopped when it cannot be served.
        port: Its port on this host.
        browser: Open the first address where there is a display.
        more: More arguments of the server.
    """

    def on_line(line: str) -> None:
        nonlocal browser
        print(line, end="", flush=True)
        if browser:
            browser = False
            open_page(line.split()[-1])

    return ServerBeside("stream.display.web", endpoint, port, stop=work.stop, more=more, on_line=on_line)


def run_pipeline(pipeline: Pipeline, config: RunConfig | ReplayConfig) -> None:
    """Run a pipeline to its end with the status line and, where asked for, the web viewer.

    Raises:
        DisplayError: The web viewer could not be served; it has said why.
        StreamError: As `Pipeline.run`.
    """
    with _viewers(config, [client_here(pipeline.endpoint)], pipeline):
        line = StatusLine(lambda: pipeline.last_status)
        try:
            with stopped_by_signals(pipeline):
                pipeline.run()
        finally:
            line.close()


@contextlib.contextmanager
def _viewers(config: RunConfig | ReplayConfig, endpoints: Sequence[str], work: Stoppable) -> Iterator[None]:
    """A web viewer and an OpenIGTLink server for each stream, where they are asked for."""
    asked = {
        "--session-key": config.session_key,
        "--metrics-token": config.metrics_token,
        "--keep-last": config.keep_last,
        "--keep-in": config.keep_in,
        "--keep-memory": config.keep_memory,
    }
    more = [word for option, value in asked.items() if value is not None for word in (option, str(value))]
    viewers = [
        web_viewer(endpoint, work, config.port + place, browser=config.browser and place == 0, more=more)
        for place, endpoint in enumerate(endpoints)
        if config.web
    ]
    servers = [
        ServerBeside("stream.igtl.server", endpoint, config.igtl + place, stop=work.stop)
        for place, endpoint in enumerate(endpoints)
        if config.igtl is not None
    ]
    try:
        yield
    finally:
        for beside in (*viewers, *servers):
            beside.close()
    if any(server.failed for server in servers):
        raise DisplayError("the OpenIGTLink server could not serve; see the line above")
    if any(viewer.failed for viewer in viewers):
        raise DisplayError("the web viewer needed its port, and could not be served; see the line above")


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Write a report, whole or not at all."""
    if path is None:
        return
    try:
        write_whole({path: json_bytes(report, default=str)})
    except OSError as error:
        raise StreamError(
            f"needed to write the report to {path}, got: {error.strerror}; choose another --out"
        ) from error


def run(config: RunConfig) -> int:
    """`contrastream run`."""
    if config.healthcheck:
        return healthcheck(choose_keys(config.endpoint, key=config.key, curve=config.curve))
    if not config.source:
        raise ValueError("needed a source, got none; for example: contrastream run phantom")
    log_to_stderr()
    pacing = Pacing(rate_hz=config.rate, loop=config.loop, frames=config.frames)
    if config.more:
        return run_rooms(config, pacing)
    pipeline = Pipeline(pipeline_config(config, pacing, measured=False))
    run_pipeline(pipeline, config)
    status = pipeline.last_status or pipeline.status()
    print(format_summary(status))
    write_json(config.out, {"schema": "contrastream.run/1", "config": reported(config), **status})
    accounts.check(status["counters"])
    return 0


def run_rooms(config: RunConfig, pacing: Pacing) -> int:
    """`contrastream run` with several sources: a room each, one engine host for all."""
    rooms = room_configs(config)
    work = Rooms([pipeline_config(room, pacing, measured=False) for room in rooms])
    streams = [client_here(parse_endpoint(room.endpoint)) for room in rooms]
    line = StatusLine(lambda: work.statuses, form=format_rooms)
    try:
        with _viewers(config, streams, work), stopped_by_signals(work):
            work.run()
    finally:
        line.close()
        print(format_rooms_summary(work.statuses, work.host_restarts))
        report = {"schema": "contrastream.rooms/1", "config": reported(config), "gpu": work.gpu}
        write_json(config.out, {**report, "host_restarts": work.host_restarts, "rooms": work.statuses})
    for status in work.statuses:
        accounts.check(status["counters"] if status else {})
    return 0


def room_configs(config: RunConfig) -> list[RunConfig]:
    """The settings of each room.

    Raises:
        ValueError: Too many rooms.
    """
    sources = (config.source, *config.more)
    endpoint = choose_keys(config.endpoint, key=config.key, curve=config.curve)
    if config.patient is not None:
        raise ValueError(
            "--patient is of one room, got several sources; run them, then: contrastream patient FILE --endpoint NAME-1"
        )
    if len(sources) > MAX_ROOMS:
        raise ValueError(f"a run takes 1 to {MAX_ROOMS} sources, got {len(sources)}; start a second run")
    return [
        dataclasses.replace(
            config,
            source=source,
            more=(),
            endpoint=numbered_endpoint(endpoint, number),
            port=config.port + number - 1,
        )
        for number, source in enumerate(sources, 1)
    ]


def replay(config: ReplayConfig) -> int:
    """`contrastream replay`."""
    log_to_stderr()
    speed = parse_speed(config.speed)
    pacing = Pacing(
        rate_hz=config.rate,
        speed=speed,
        loop=config.loop,
        lossless=config.lossless,
        frames=config.frames,
    )
    pipeline = Pipeline(pipeline_config(config, pacing, measured=True))
    with tempfile.TemporaryDirectory(prefix="contrastream-") as folder:
        seen = Path(folder) / "measured.npz"
        with MeasuringClient(client_here(pipeline.endpoint), seen, credit=config.lossless) as client:
            run_pipeline(pipeline, config)
            measured = client.finish()
    status = pipeline.last_status or pipeline.status()
    report = replay_report(config, status, measured)
    print(format_replay(report))
    write_json(config.out, report)
    accounts.check(status["counters"], measured)
    return 0


def replay_report(config: ReplayConfig, status: dict[str, Any], measured: Measured) -> dict[str, Any]:
    """The figures of a replay: what the publisher did and what a client in another process saw."""
    return {
        "schema": "contrastream.replay/1",
        "config": reported(config),
        "source": status["source"],
        "engine": status["engine"],
        "publisher": status["counters"],
        "client": {
            **measured.summary(),
            "lost": accounts.client_gaps(measured, status["counters"].get("published", 0)),
        },
    }


def format_replay(report: dict[str, Any]) -> str:
    """The figures of a replay as a table."""
    client, publisher, engine = report["client"], report["publisher"], report["engine"]

    def number(value: float | None, form: str = ".1f") -> str:
        return "-" if value is None else format(value, form)

    rows = [("due to received", client["latency_ms"])]
    rows += [(f"  {name}", summary) for name, summary in client["stages_ms"].items()]
    lines = [
        f"frames   {publisher.get('grabbed', 0)} grabbed, {publisher.get('published', 0)} published, "
        f"{client['received']} received, {client['lost']} lost; {client['synthetic']} SYNTHETIC, "
        f"PASSTHROUGH {client['passthrough'] or 'none'}, {publisher.get('repeated', 0)} repeats not sent",
        f"dropped  {publisher.get('dropped') or 'none'}",
        *(
            [
                f"accounts {accounts.publisher_text(publisher)}; {publisher['published']} published = {client['received']} received + {client['lost']} gaps"
            ]
            if publisher
            else []
        ),
        f"fps      {number(client['fps'])}"
        + (f" of {number(report['source']['rate_hz'])} intended" if report["source"]["rate_hz"] else ""),
        f"engine   {engine['backend']} {engine['precision']}, one inference {engine['inference_ms']:.1f} ms"
        if engine
        else "engine   none",
        "",
        f"{'latency, ms':18}{'n':>7}" + "".join(f"{name:>9}" for name in ("p50", "p95", "p99", "max")),
    ]
    for name, summary in rows:
        figures = "".join(f"{number(summary[key], '.2f'):>9}" for key in ("p50", "p95", "p99", "max"))
        lines.append(f"{name:18}{summary['n']:>7}{figures}")
    lines.append("p99 wants 1,000 frames (--loop --frames 1000). Research tool, not a medical device.")
    return "\n".join(lines)
