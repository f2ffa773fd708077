"""The stage `shown` in a report of `bench live --shown`."""

from typing import TYPE_CHECKING, Any

from bench.samples import measured_span
from stream.display.shown import ShownFrames

if TYPE_CHECKING:
    from bench.live import Run


def shown_frames(run: "Run") -> ShownFrames | None:
    """The frames that count, of those that the web viewer drew; None where nobody asked."""
    if run.shown is None or run.measured is None:
        return None
    return run.shown.only(*measured_span(run.measured, run.warmup, run.config.frames))


def shown_facts(run: "Run", shown: ShownFrames) -> dict[str, Any]:
    """What a report says of them, besides their figures."""
    first, end = (int(shown.sequence[0]), int(shown.sequence[-1]) + 1) if shown.sequence.size else (0, 0)
    return {
        "how": "from the receipt by the web viewer's relay until the page had drawn the frame, at the end of its "
        "requestAnimationFrame; the browser's compositor, the screen and its light are not in it (bench glass sees them)",
        "browser": f"{run.browser}, headless, all three views side by side",
        "uncertainty_ms": shown.uncertainty_ms,
        "exchanges": shown.exchanges,
        "drawn": int(shown.sequence.size),
        "not_drawn": end - first - int(shown.sequence.size),
    }


def shown_line(shown: dict[str, Any]) -> str:
    """What is to be known of the stage `shown`, in one line."""
    doubt_ms = shown["uncertainty_ms"]
    return (
        f"  shown: {shown['drawn']} frames drawn, {shown['not_drawn']} not; the page's clock is known within "
        f"{'-' if doubt_ms is None else format(doubt_ms, '.3f')} ms from {shown['exchanges']} exchanges; compositor and screen "
        "are not in it"
    )
