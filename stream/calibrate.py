"""The commands `calib ...`: frames of a source through the calibration's steps, into a site's record with a page beside it."""

import datetime
import importlib.metadata
import json
import logging
import sys
from pathlib import Path
from typing import Any

from calib.config import (
    CalibClockConfig,
    CalibDomainConfig,
    CalibGeometryConfig,
    CalibIntensityConfig,
    CalibPatientConfig,
    CalibPhantomConfig,
    CalibPrecisionConfig,
    CalibRunConfig,
    CalibShowConfig,
    MeasuredConfig,
    PhantomConfig,
)
from calib.errors import CalibrationError
from calib.record import (
    HEADING,
    SCHEMA,
    ModelIdentity,
    SiteRecord,
    read_record,
    with_step,
    write_files,
)
from calib.record_text import to_plain, write_toml
from calib.results import StepResult
from stream.calibration_frames import SiteFrames, describe, read_site_frames
from stream.calibration_page import page, table, table_of
from stream.calibration_steps import Measured, Walk
from stream.statusline import log_to_stderr

log = logging.getLogger("contrastream.calib")

Step = (
    CalibClockConfig
    | CalibRunConfig
    | CalibShowConfig
    | CalibGeometryConfig
    | CalibIntensityConfig
    | CalibDomainConfig
    | CalibPrecisionConfig
    | CalibPhantomConfig
    | CalibPatientConfig
)
DOMAIN_RUNS = 3
"""Loops that a site's own domain needs, so that each can be judged by the others."""
REPORT_SCHEMA = "contrastream.calibration/1"
NOTICE = "Research tool, not a medical device."
WORST_FRAME = "precision-worst"
"""Ends the name of the picture that may show a frame of the site, which is no part of the page."""


def calibrate(config: Step) -> int:
    """`contrastream calib ...`."""
    log_to_stderr()
    match config:
        case CalibShowConfig():
            return show(config.site)
        case CalibRunConfig():
            return measure(config, None, None)
        case CalibDomainConfig():
            return measure(config, ("domain",), former(config.out))
        case CalibPhantomConfig():
            return phantom(config)
        case CalibGeometryConfig():
            return measure(config, ("geometry",), former(config.out))
        case CalibIntensityConfig():
            return measure(config, ("intensity",), former(config.out))
        case CalibPrecisionConfig():
            return measure(config, ("precision",), former(config.out))
        case CalibClockConfig():
            return clock(config)
        case CalibPatientConfig():
            from stream.calibrate_patient import patient

            return patient(config)


def show(path: Path) -> int:
    """`contrastream calib show`."""
    record = read_record(path)
    print(f"{path.name}: {describe_record(record)}\n\n{table(record)}\n\n{NOTICE}")
    return 0


def clock(config: CalibClockConfig) -> int:
    """`contrastream calib clock`."""
    from stream.clock_exchange import measure_publisher_clock
    from stream.endpoint import choose_keys

    before = None if config.out is None else read_record(config.out)
    endpoint = choose_keys(config.endpoint, key=config.key, server=config.server_key)
    result = measure_publisher_clock(endpoint, exchanges=config.exchanges, interval_ms=config.interval_ms)
    return into_former("clock", result, config.out, before)


def phantom(config: CalibPhantomConfig) -> int:
    """`contrastream calib phantom`."""
    from calib.phantom_test import measure_phantom

    before = None if config.out is None else read_record(config.out)
    tested = PhantomConfig(
        rows=config.size,
        columns=config.size,
        bits_stored=config.bits,
        dose=config.dose,
        blur_mm=config.blur_mm,
    )
    result, _ = measure_phantom(tested)
    return into_former("phantom", result, config.out, before)


def into_former(name: str, result: StepResult, out: Path | None, before: SiteRecord | None) -> int:
    """Print a step that needs no source, and put it into a record where one was given."""
    print(f"{table_of({name: result})}\n\n{NOTICE}")
    if out is not None and before is not None:
        changed = with_step(before, name, result, created=now(), version=this_version())
        write_beside(out, changed, {}, kept_report(out))
        print(f"written  {out}")
    return 0


def now() -> str:
    """UTC, as a record says when it was written."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def this_version() -> str:
    """Contrastream's."""
    return importlib.metadata.version("contrastream")


def kept_report(out: Path) -> dict[str, Any]:
    """What the frames of the former steps were, from the figures beside a record; empty where they are gone."""
    try:
        said = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["measured_on"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def former(path: Path) -> SiteRecord | None:
    """The record that a single step is to become part of; None where there is none yet."""
    return read_record(path) if path.exists() else None


def describe_record(record: SiteRecord) -> str:
    """What a record is for, in a line."""
    source, model = record.source, record.model
    device = f", {source.device}" if source.device else ""
    return (
        f"{source.kind} {source.rows} x {source.columns}, {source.bits_stored} bits, {source.photometric}{device}; "
        f"model {model.name} {model.sha256[:12]}; written {record.created} by contrastream {record.version}"
    )


def sensible_steps(frames: SiteFrames) -> tuple[str, ...]:
    """What `run` walks through on these frames, in this order; the clock needs a publisher, not a source."""
    steps = ["geometry", "intensity", "domain", "precision"]
    if int(frames.runs.max()) + 1 < DOMAIN_RUNS:
        log.info(
            "a site's own domain needs %d loops or more; frames are judged by those the model was taught on",
            DOMAIN_RUNS,
        )
        steps.remove("domain")
    return (*steps, "phantom") if frames.source.kind == "phantom" else tuple(steps)


def measure(config: MeasuredConfig, steps: tuple[str, ...] | None, before: SiteRecord | None) -> int:
    """Read the frames, take the steps, write the files.

    Args:
        config: What was asked.
        steps: Which; None for all that make sense on these frames.
        before: The record that they become part of; None for a new one.

    Returns:
        0, also where a step did not pass: that is a finding, and the record says it. 2 where one of several could not be
        measured at all; the record then holds the others.

    Raises:
        CalibrationError: Nothing can be measured on these frames, or the record is for another source or model.
        SourceError: A source cannot be read.
    """
    from engines.errors import EngineError
    from engines.model import load_model

    file = load_model(config.model)
    model = ModelIdentity(file.said_name, file.card.sha256)
    if before is not None:
        before.check_fits(model_sha256=model.sha256)
    frames = _read(config)
    if before is not None:
        before.check_fits(frames.source)
    for note in frames.notes:
        log.info(note)
    steps = steps or sensible_steps(frames)
    created, version = now(), this_version()
    record = before or SiteRecord(SCHEMA, created, version, frames.source, model)
    pictures: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    with Walk(config, frames, file) as walk, _bar(len(steps), "step", "steps") as bar:
        for name in steps:
            bar.set_description(name)
            try:
                found: Measured = walk.take(name, record)
            except (CalibrationError, EngineError) as error:
                if len(steps) == 1:
                    raise
                refused[name] = str(error)
                bar.update()
                continue
            record = with_step(record, name, found.result, created=created, version=version)
            to_plain(record)  # a figure that is not finite is found here, with the step's name
            if found.picture is not None:
                pictures[name] = found.picture
            if found.worst_frame is not None:
                pictures[WORST_FRAME] = found.worst_frame
            bar.update()
    if not record.steps:
        raise CalibrationError(f"no step could be measured: {'; '.join(refused.values())}")
    write_beside(
        config.out,
        record,
        pictures,
        {**describe(frames), "not_measured": refused},
        keep_worst_frame=before is not None and "precision" not in steps,
    )
    print(f"{table(record)}\n\nwritten  {config.out}, with .json, .html and {len(pictures)} .png beside it")
    if WORST_FRAME in pictures:
        print(
            f"look at  {picture_path(config.out, WORST_FRAME)}, which may show a frame of this site: keep it as you keep the frames"
        )
    print(f"use it   contrastream run SOURCE --site {config.out}\n{NOTICE}")
    for name, why in refused.items():
        print(f"contrastream: {name} was not measured: {why}", file=sys.stderr)
    return 2 if refused else 0


def write_beside(
    out: Path,
    record: SiteRecord,
    pictures: dict[str, bytes],
    measured_on: dict[str, Any],
    *,
    keep_worst_frame: bool = True,
) -> None:
    """Write the record and what lies beside it, all or nothing.

    Args:
        out: The record's file.
        record: The record.
        pictures: PNG of each step that was taken now, and of `WORST_FRAME`; those of former steps are kept.
        measured_on: What the frames were.
        keep_worst_frame: Leave a former picture of the worst frame where it is, if there is no new one; else it is deleted,
            since it may show a frame of other loops.

    Raises:
        CalibrationError: A file cannot be written; none was replaced then.
    """
    report = {
        "schema": REPORT_SCHEMA,
        "notice": NOTICE,
        "measured_on": measured_on,
        "record": to_plain(record),
    }
    shown = {
        name: png for name in record.steps if (png := pictures.get(name) or _kept(out, name)) is not None
    }
    files = {picture_path(out, name): png for name, png in pictures.items()}
    files[out.with_suffix(".json")] = (json.dumps(report, indent=2) + "\n").encode()
    worst = picture_path(out, WORST_FRAME)
    beside = worst.name if worst in files or (keep_worst_frame and worst.exists()) else None
    files[out.with_suffix(".html")] = page(
        record, describe_record(record), shown, measured_on, worst_frame=beside
    ).encode()
    files[out] = write_toml(record, HEADING).encode()
    write_files(files)
    if beside is None:
        worst.unlink(missing_ok=True)


def picture_path(out: Path, step: str) -> Path:
    """Where a step's plot lies."""
    return out.with_name(f"{out.stem}-{step}.png")


def _kept(out: Path, step: str) -> bytes | None:
    try:
        return picture_path(out, step).read_bytes()
    except OSError:
        return None


def _read(config: MeasuredConfig) -> SiteFrames:
    """Read the frames with a bar per source."""
    bars: dict[int, Any] = {}

    def progress(source: int, done: int, total: int) -> None:
        if source not in bars:
            for bar in bars.values():
                bar.close()
            bars[source] = _bar(total or None, f"source {source + 1} of {len(config.sources)}", "frames")
        bars[source].update(done - bars[source].n)

    try:
        return read_site_frames(config, progress)
    finally:
        for bar in bars.values():
            bar.close()


def _bar(total: int | None, description: str, unit: str) -> Any:
    from tqdm import tqdm

    # disable=None: no bar where nobody watches.
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        file=sys.stderr,
        disable=None,
        leave=False,
        dynamic_ncols=True,
    )
