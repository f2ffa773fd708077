"""One of several rooms: a pipeline in a process of its own, whose engine is a share of the engine host's."""

import contextlib
import dataclasses
import socket
import sys
from typing import Any

from calib.record import SiteRecord
from calib.record_text import from_plain, to_plain
from stream.control import MAX_PACKET, Kind, become_child, pack_json, unpack_json
from stream.engine_supply import SharedEngine
from stream.errors import PipelineError, SourceGone, StreamError
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig, engine_config
from stream.site import Site
from stream.sources.options import SourceOptions
from stream.statusline import log_to_stderr
from stream.timing import MonotonicClock


def room_to_json(config: PipelineConfig, number: int) -> dict[str, Any]:
    """A room's first packet."""
    site = None if config.site is None else to_plain(config.site.record)
    fields = dataclasses.asdict(dataclasses.replace(config, site=None))
    return {"number": number, "pipeline": {**fields, "site": site}}


def room_from_json(body: dict[str, Any]) -> tuple[PipelineConfig, int]:
    """The inverse of `room_to_json`."""
    fields = dict(body["pipeline"])
    options = dict(fields["options"])
    if options["crop"] is not None:
        options["crop"] = tuple(options["crop"])
    fields["options"], fields["pacing"] = SourceOptions(**options), Pacing(**fields["pacing"])
    if fields["site"] is not None:
        fields["site"] = Site(from_plain(SiteRecord, fields["site"]), fields["options"])
    return PipelineConfig(**fields), int(body["number"])


def run_room(supervisor: socket.socket) -> int:
    """Run a room until its source ends or the supervisor stops it; says its status and its failure to the supervisor."""

    def say(kind: Kind, body: dict[str, Any]) -> None:
        # A supervisor that is busy does without this heartbeat; the next comes soon.
        with contextlib.suppress(OSError):
            supervisor.send(pack_json(kind, body), socket.MSG_DONTWAIT)

    config, number = room_from_json(unpack_json(supervisor.recv(MAX_PACKET)))
    log_to_stderr(f"room {number}: ")
    try:
        supply = SharedEngine(supervisor, engine_config(config), lambda: pipeline.stop(), MonotonicClock())
        pipeline = Pipeline(config, supply)
        pipeline.on_status = lambda status: say(Kind.STATUS, status)
        pipeline.run()
    except StreamError as error:
        fault = isinstance(error, PipelineError)
        say(Kind.ERROR, {"message": str(error), "input": not fault, "gone": isinstance(error, SourceGone)})
        return 1 if fault else 2
    say(Kind.END, {})
    return 0


def main() -> int:
    """Entry point of a room: `python -m stream.room DESCRIPTOR`."""
    become_child()
    with socket.socket(fileno=int(sys.argv[1])) as supervisor:
        return run_room(supervisor)


if __name__ == "__main__":
    sys.exit(main())
