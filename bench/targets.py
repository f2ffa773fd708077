"""The targets of the design, each beside what a run measured."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.live import Run

OVERHEAD_MS = 2.0
FLOOR_RATIO = 1.3
SYNTHETIC_SHARE = 0.98
FAULTS_PER_FRAME = 1.0
"""A buffer of a 512 x 512 frame made anew each time faults in 64 pages."""
GROWTH_KIB = 64.0
"""Per 1,000 frames: a quarter of one 512 x 512 frame."""
SMALL_FRAME_BYTES = 128 * 1024


def _target(name: str, needed: str, value: Any, met: Any) -> dict[str, Any]:
    # numpy's own booleans are no JSON.
    return {"name": name, "needed": needed, "value": value, "met": None if met is None else bool(met)}


def targets(report: dict[str, Any], run: "Run") -> list[dict[str, Any]]:
    """Each target of the design with what was measured; `met` is None where there is nothing to judge by."""
    rows = []
    p50, serial = report["latency_inferred_ms"]["p50"], report["engine"]["serial_median_ms"]
    over = None if p50 is None or serial is None else p50 - serial
    rows.append(
        _target(
            "end to end p50 of inferred frames, over the engine's serial median, ms",
            f"<= {OVERHEAD_MS:g}",
            over,
            None if over is None else over <= OVERHEAD_MS,
        )
    )
    ratio = (report["floor"] or {}).get("ratio")
    rows.append(
        _target(
            "everything but the engine, times the floor",
            f"<= {FLOOR_RATIO:g}",
            None if ratio is None else ratio["value"],
            None if ratio is None else ratio["value"] <= FLOOR_RATIO,
        )
    )
    share = report["frames"]["inferred_in_time_share"] if run.config.engine != "off" else None
    rows.append(
        _target(
            "share of frames inferred in time (judge it beside steal and witness)",
            f">= {SYNTHETIC_SHARE:g}",
            share,
            None if share is None else share >= SYNTHETIC_SHARE,
        )
    )
    late = report["late"]["count"]
    rows.append(
        _target(
            "live pictures later than deadline + witness gap", "0", late, None if late is None else late == 0
        )
    )
    lost = report["frames"]["unexplained"] if run.status is not None else None
    rows.append(_target("frames lost unexplained", "0", lost, None if lost is None else lost == 0))
    for name, used in report["processes"].items():
        faults, growth = used["minor_faults_per_frame"], used["anonymous_kib_per_1000_frames"]
        rows.append(
            _target(
                f"{name}: minor page faults per frame",
                f"<= {FAULTS_PER_FRAME:g}",
                faults,
                None if faults is None else faults <= FAULTS_PER_FRAME,
            )
        )
        rows.append(
            _target(
                f"{name}: growth of anonymous memory, KiB per 1000 frames",
                f"<= {GROWTH_KIB:g}",
                growth,
                None if growth is None else growth <= GROWTH_KIB,
            )
        )
    if run.frame_format is not None:
        frame_bytes = run.frame_format.pixels * run.frame_format.sample_bytes
        for name, seen in report["allocations"].items():
            peak = seen["peak_bytes"]
            rows.append(
                _target(
                    f"{name}: tracemalloc peak over {seen['frames']} frames, bytes",
                    f"< {frame_bytes} (one frame)",
                    peak,
                    # Beside a small frame everything else that is made and dropped looks large.
                    None if frame_bytes <= peak < SMALL_FRAME_BYTES else peak < frame_bytes,
                )
            )
    return rows
