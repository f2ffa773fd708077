"""What a video path over the network adds: from the instant a target's frame was due until a source has read it, on one host.

    python -m bench.video_delay send --size 720 --rate 30 | ffmpeg -f rawvideo -pix_fmt gray -s 720x400 -r 30 -i - \\
        -c:v libx264 -tune zerolatency -pix_fmt yuv420p -f mpegts "tcp://127.0.0.1:5000?listen=1"
    python -m bench.video_delay read tcp://127.0.0.1:5000 --frames 600

`send` writes raw 8-bit gray frames of the glass-to-glass target (`calib/target.py`), each when it is due. `read` opens any source that
shows the target and prints how old each frame is when the source hands it out: sender's encoder, network and our decoder together. A
sender of your own, such as an encoder box that films the target on a screen, has its light's way in it too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.machine import describe, one_line
from calib.target import TargetPlace, TargetUnreadable, find_targets, read_code
from stream.errors import StreamError
from stream.latency import summarize_ms
from stream.sources.open import open_source
from stream.sources.options import SourceOptions
from stream.sources.source import Source
from stream.sources.target import TargetSource
from stream.timing import NS_PER_MS, Clock, MonotonicClock

WARMUP = 30
COLUMNS = ("n", "p50", "p90", "p95", "p99", "max", "sd")


def send(options: SourceOptions, frames: int | None = None) -> None:
    """Write the target's frames to standard output, each when it is due, until nobody reads them or `frames` are out."""
    source = TargetSource(options)
    out = np.empty((source.format.rows, source.format.columns), np.uint8)
    print(f"frames of {source.format.columns}x{source.format.rows}, gray", file=sys.stderr)
    sent = 0
    while frames is None or sent < frames:
        source.read(out)
        sys.stdout.buffer.write(out.tobytes())
        sys.stdout.buffer.flush()
        sent += 1


def measure(source: Source, frames: int, clock: Clock | None = None) -> dict[str, Any]:
    """Read frames and tell how old each is.

    Args:
        source: Open, and showing the target of a sender on this host.
        frames: How many, after `WARMUP` more.
        clock: This host's.

    Returns:
        `delay_ms`, from due to handed out, and `late_ms`, by how much each frame was held up over the least of the last seconds, as
        `summarize_ms`; `frames` with read, lost (passed over by the source) and unreadable.

    Raises:
        BenchError: No frame shows a target that can be read.
        StreamError: As the source.
    """
    clock = clock or MonotonicClock()
    out = np.empty((source.format.rows, source.format.columns), source.format.dtype)
    place: TargetPlace | None = None
    delays_ms, late_ms, lost, unreadable = [], [], 0, 0
    for number in range(WARMUP + frames):
        frame = source.read(out)
        now_ns = clock.now_ns()
        if frame is None:
            break
        lost += frame.lost if number >= WARMUP else 0
        try:
            place = place or find_targets(out)[0]
            delay_ms = read_code(out, place).age_ms(now_ns)
        except TargetUnreadable:
            place, unreadable = None, unreadable + 1
            continue
        if number >= WARMUP:
            delays_ms.append(delay_ms)
            late_ms.append((now_ns - (frame.stamp_ns or now_ns)) / NS_PER_MS)
    if not delays_ms:
        raise BenchError(
            f"needed frames that show the target, got {unreadable} without; send it with: python -m bench.video_delay send"
        )
    return {
        "delay_ms": summarize_ms(np.array(delays_ms)),
        "late_ms": summarize_ms(np.array(late_ms)),
        "frames": {"read": len(delays_ms), "lost": lost, "unreadable": unreadable},
    }


def _row(name: str, summary: dict[str, Any]) -> str:
    values = [summary[column] for column in COLUMNS]
    cells = [f"{values[0]:>7}", *("      -" if value is None else f"{value:7.2f}" for value in values[1:])]
    return f"{name:<34}" + "".join(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m bench.video_delay`: exit status 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.video_delay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", required=True)
    sending = steps.add_parser("send", help="write raw frames of the target to standard output")
    sending.add_argument("--size", type=int, default=720, help="columns (default: %(default)s)")
    sending.add_argument("--rate", type=float, default=30.0, help="frames per second (default: %(default)s)")
    sending.add_argument("--frames", type=int, help="end after so many")
    reading = steps.add_parser("read", help="read a source that shows the target")
    reading.add_argument("source", help="rtsp://host/path, tcp://host:port or any other")
    reading.add_argument("--frames", type=int, default=300, help="after 30 to warm up (default: %(default)s)")
    reading.add_argument("--gray", action="store_true", help="take the luma of a stream in colour")
    reading.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.step == "send":
            send(SourceOptions(size=options.size, rate_hz=options.rate), options.frames)
            return 0
        source = open_source(options.source, SourceOptions(gray=options.gray))
        try:
            found = measure(source, options.frames)
        finally:
            source.close()
    except BrokenPipeError:
        return 0  # who read the frames is gone
    except KeyboardInterrupt:
        return 0
    except (StreamError, BenchError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    machine = describe()
    rows, columns = source.format.rows, source.format.columns
    print(f"{columns}x{rows}, {found['frames']['read']} frames read, {found['frames']['lost']} passed over, "
          f"{found['frames']['unreadable']} unreadable; {one_line(machine)}")  # fmt: skip
    print(f"{'ms':<34}" + "".join(f"{column:>7}" for column in COLUMNS))
    print(_row("due at the sender to handed out", found["delay_ms"]))
    print(_row("of that, over the least of 10 s", found["late_ms"]))
    if options.out is not None:
        options.out.write_text(
            json.dumps({"schema": "contrastream.video_delay/1", "machine": machine, **found}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
