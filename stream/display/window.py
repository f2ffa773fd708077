"""The desktop window: the newest frame through OpenCV HighGUI, an ordinary client of the stream.

`python -m stream.display.window [ENDPOINT]`. HighGUI aborts the whole process where there is no display, so a
child process tries one first.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import get_args

import cv2

from stream.admission import client_keys
from stream.control import die_with_parent
from stream.display import marks
from stream.display.compose import Composer, Frozen, Mode, View
from stream.endpoint import parse_endpoint
from stream.errors import DisplayError, StreamError
from stream.record.keep_settings import KeepSettings
from stream.record.keeper import Keeper
from stream.subscribe import Shown, Subscriber
from stream.timing import NS_PER_MS, NS_PER_S, Clock, MonotonicClock, Stage
from stream.wire import Message

TITLE = "Contrastream"
PROBE_LIMIT_S = 10.0
POLL_MS = 15
REDRAW_NS = 100 * NS_PER_MS
"""A picture is drawn again this often without a new frame, so that its age goes on."""
RATE_OVER_NS = 2 * NS_PER_S
NOTICE_NS = 15 * NS_PER_S
"""So long what became of a key press stands over the lower end of the pictures; a key takes it away."""
ESCAPE = 27
MODE_KEYS = {"1": "live", "2": "synthetic", "3": "overlay", "4": "side"}
# What waitKeyEx gives for the arrow keys: X11 key symbols, with GTK's and Qt's Windows codes beside them.
LESS_KEYS = {65361, 65364, 2424832, 2621440}
MORE_KEYS = {65363, 65362, 2555904, 2490368}
_PROBE = (
    "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
)


def check_display() -> None:
    """Make sure that a window can be opened, in a child process that may abort in our place.

    Raises:
        DisplayError: There is no display, or it does not answer.
    """
    name = os.environ.get("DISPLAY", "")
    if sys.platform == "linux" and not name:
        raise DisplayError(
            "the desktop window needs an X display, got no DISPLAY in the environment; "
            "start it in a desktop session, or use the web viewer: contrastream view --web"
        )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        problem = f"no answer within {PROBE_LIMIT_S:.0f} s"
    else:
        if done.returncode == 0:
            return
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        problem = lines[0] if lines else f"exit status {done.returncode}"
    raise DisplayError(
        f"the desktop window needs a display that answers, got DISPLAY={name} ({problem}); "
        "start it in a desktop session, or use the web viewer: contrastream view --web"
    )


def _quiet_qt() -> None:
    """Keep Qt's remarks on fonts and themes off the terminal; what matters ends in our own sentences."""
    os.environ.setdefault("QT_LOGGING_RULES", "*.debug=false;*.info=false;*.warning=false")


class DesktopWindow:
    """The window: what came, what the user did, and when to draw.

    Args:
        subscriber: The stream; closed by the caller.
        clock: The clock of ages; the publisher's own, since both are on this host.
        mode: What it shows at first.
        keeper: What the key k writes; None where nothing is kept. Started and ended by the caller.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        clock: Clock | None = None,
        mode: Mode = "side",
        keeper: Keeper | None = None,
    ) -> None:
        self._subscriber = subscriber
        self._clock = clock or MonotonicClock()
        self._composer = Composer()
        self._view = View(mode)
        self._keeper = keeper
        if keeper is not None:
            self._view.more_help = f"k: write the last {keeper.seconds:g} s of live frames, for calib patient"
        self._said = 0
        self._notice_ns = 0
        self._newest: Message | None = None
        self._frozen: Frozen | None = None
        self._drawn_ns = 0
        self._shown_stamps: deque[int] = deque(maxlen=256)
        self._age_ms: float | None = None
        self._dirty = True
        self._frame_size: tuple[int, ...] | None = None
        self._drag: tuple[int, int, tuple[float, float]] | None = None
        self._ending = False
        self.on_note: Callable[[str], None] = lambda text: print(text, flush=True)

    def run(self) -> None:
        """Show the stream until the user closes the window, or `end` is called."""
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.setMouseCallback(TITLE, self._mouse)
        try:
            while not self._ending:
                self._step()
                if cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
                    return
        finally:
            cv2.destroyAllWindows()

    def end(self) -> None:
        """End `run` soon; safe from a signal handler."""
        self._ending = True

    def _step(self) -> None:
        message = self._subscriber.poll(POLL_MS)
        if message is not None:
            if self._newest is not None and _other_format(self._newest, message):
                self._view.window = None
            self._newest = message
        now_ns = self._clock.now_ns()
        if self._keeper is not None:
            self._look_at(self._keeper, now_ns)
        fresh = message is not None and self._frozen is None
        if fresh or self._dirty or now_ns - self._drawn_ns > REDRAW_NS:
            self._draw(now_ns, fresh)
        self._key(cv2.waitKeyEx(1))

    def _look_at(self, keeper: Keeper, now_ns: int) -> None:
        """Show what became of a key press."""
        keeper.check()
        said = keeper.said
        if said.serial != self._said:
            self._said, self._notice_ns, self._dirty = said.serial, now_ns, True
            go_on = (f"Go on with: {said.command}",) if said.command else ()
            self._view.notice = (said.words, *go_on)
        elif self._view.notice and not said.writing and now_ns - self._notice_ns > NOTICE_NS:
            self._view.notice = ()

    def _draw(self, now_ns: int, fresh: bool) -> None:
        self._dirty, self._drawn_ns = False, now_ns
        shown = self._subscriber.shown_state(now_ns)
        message, frozen = self._newest, None
        if self._frozen is not None:
            message = self._frozen.message
            frozen = ((now_ns - self._frozen.since_ns) / NS_PER_S, self._frozen.label)
        adaptation = marks.adaptation_words(message, (self._subscriber.status or {}).get("adaptation"))
        image = self._composer.draw(
            message, self._view, shown, self._head(message, shown, now_ns), frozen, adaptation
        )
        frame_size = None if message is None else message.live.shape
        if frame_size != self._frame_size:
            # Only for frames of another size: what the user has made of the window stays, whatever the mode.
            self._frame_size = frame_size
            cv2.resizeWindow(TITLE, image.shape[1], image.shape[0])
        cv2.imshow(TITLE, image)
        if fresh and message is not None:
            shown_ns = self._clock.now_ns()
            self._shown_stamps.append(shown_ns)
            self._age_ms = (shown_ns - message.header.stamp_ns(Stage.DUE)) / NS_PER_MS

    def _head(self, message: Message | None, shown: Shown, now_ns: int) -> str:
        if message is None:
            return "waiting for the first frame"
        age_ms = self._age_ms
        if self._frozen is not None or shown.state in marks.NOT_LIVE:
            age_ms = (now_ns - message.header.stamp_ns(Stage.DUE)) / NS_PER_MS
        stamps = self._shown_stamps
        while stamps and now_ns - stamps[0] > RATE_OVER_NS:
            stamps.popleft()
        span_ns = stamps[-1] - stamps[0] if len(stamps) > 2 else 0
        rate = f"{(len(stamps) - 1) * NS_PER_S / span_ns:.1f}" if span_ns else "--"
        dropped = ((self._subscriber.status or {}).get("counters") or {}).get("dropped") or {}
        age = "--" if age_ms is None else f"{age_ms:.0f} ms"
        keep = "" if self._keeper is None else f"   k keep {self._keeper.held_s:.0f} s"
        return (
            f"age {age}   {rate} fps   dropped {sum(dropped.values())}   frame {message.header.sequence}"
            f"   ? help{keep}"
        )

    def _key(self, code: int) -> None:
        if code < 0:
            return
        self._dirty = True
        view = self._view
        view.notice = ()
        character = chr(code & 0xFF) if code < 0x10000 and code & 0xFF else ""
        if code in LESS_KEYS | MORE_KEYS:
            view.opacity = min(max(view.opacity + (5 if code in MORE_KEYS else -5), 0), 100)
        elif character == "q" or code == ESCAPE:
            self.end()
        elif character in MODE_KEYS:
            view.mode = MODE_KEYS[character]  # type: ignore[assignment]
        elif character == " ":
            self._freeze()
        elif character == "c":
            view.comparing = not view.comparing
        elif character == "w":
            view.window = None
        elif character == "s":
            self._snapshot()
        elif character == "k":
            self._keep()
        elif character == "f":
            full = cv2.getWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN) == cv2.WINDOW_FULLSCREEN
            wanted = cv2.WINDOW_NORMAL if full else cv2.WINDOW_FULLSCREEN
            cv2.setWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN, wanted)
        elif character in "?h":
            view.help = not view.help

    def _freeze(self) -> None:
        if self._frozen is None and self._newest is not None:
            self._frozen = Frozen(self._newest, self._clock.now_ns(), time.strftime("%H:%M:%S"))
        else:
            self._frozen = None

    def _snapshot(self) -> None:
        name = time.strftime("contrastream-%Y%m%dT%H%M%S.png")
        if cv2.imwrite(name, self._composer.image):
            self.on_note(f"snapshot {name}")
        else:
            self.on_note(f"the snapshot needs a folder that can be written to, got {os.getcwd()}")

    def _keep(self) -> None:
        if self._keeper is not None:
            self._keeper.press()
            return
        words = "Nothing is kept: start the viewer with --keep-last SECONDS --keep-in DIR."
        self._view.notice = (words,)
        self.on_note(words)

    def _mouse(self, event: int, x: int, y: int, flags: int, _data: object) -> None:
        message = self._frozen.message if self._frozen is not None else self._newest
        if message is None:
            return
        if event == cv2.EVENT_LBUTTONDOWN:
            self._drag = x, y, self._view.window or marks.initial_window(message.header)
        elif event == cv2.EVENT_LBUTTONUP:
            self._drag = None
        elif event == cv2.EVENT_LBUTTONDBLCLK:
            self._drag, self._view.window, self._dirty = None, None, True
        elif event == cv2.EVENT_MOUSEMOVE and self._drag is not None and flags & cv2.EVENT_FLAG_LBUTTON:
            from_x, from_y, (center, width) = self._drag
            frame_format = message.header.frame_format
            step = (frame_format.max_value + 1) / 512
            width = min(max(width + (x - from_x) * step, 2.0), 2.0 * (frame_format.max_value + 1))
            center = min(max(center + (y - from_y) * step, 0.0), float(frame_format.max_value))
            self._view.window, self._dirty = (center, width), True


def _other_format(before: Message, now: Message) -> bool:
    """A window dragged for one depth, or for one source, means nothing for another."""
    return before.header.stream != now.header.stream or (
        before.header.frame_format.bits_stored,
        before.header.frame_format.photometric,
    ) != (now.header.frame_format.bits_stored, now.header.frame_format.photometric)


def show(
    endpoint: str | None = None,
    mode: Mode = "side",
    *,
    memory: bool = False,
    keep: KeepSettings | None = None,
) -> None:
    """Show a stream in a window until it is closed, or SIGTERM or SIGINT. Runs in the main thread.

    Args:
        endpoint: The stream, as `parse_endpoint` takes it; None for this host's default one.
        mode: What it shows at first.
        memory: Read its frames in shared memory instead of on the wire.
        keep: What the key k writes, and where; None keeps nothing.

    Raises:
        DisplayError: There is no display, or it does not answer.
        EndpointError: `endpoint` is none, or the publisher's public key is missing.
        KeyFileError: A CURVE key is not there or not as it must be.
    """
    parsed = parse_endpoint(endpoint)
    client_keys(parsed.curve)  # what is missing of them is said first: a display does not mend it
    check_display()
    _quiet_qt()
    subscriber = Subscriber(parsed, newest_only=True, memory=memory)
    keeper = None if keep is None else Keeper(parsed, keep, memory=memory)
    window = DesktopWindow(subscriber, mode=mode, keeper=keeper)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: window.end())
    try:
        if keeper is not None:
            keeper.start()
        window.run()
    finally:
        if keeper is not None:
            keeper.end()
        for number, handler in before.items():
            signal.signal(number, handler)
        subscriber.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m stream.display.window`: exit status 0 when closed, 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m stream.display.window", description=__doc__)
    parser.add_argument("endpoint", nargs="?", help="the stream (default: this host's)")
    parser.add_argument(
        "--mode", choices=get_args(Mode), default="side", help="what it shows at first (default: %(default)s)"
    )
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when the process that started it ends"
    )
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        die_with_parent()
    try:
        show(options.endpoint, options.mode)
    except StreamError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
