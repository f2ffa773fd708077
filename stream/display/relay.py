"""One stream to many viewers: a thread takes the newest frame, each viewer has credit for one.

Nothing is queued anywhere: a viewer that has drawn its frame asks for the next and gets the newest there is.
A slow viewer skips frames and slows nobody else; how many it skipped it sees in the publication numbers.
"""

import asyncio
import dataclasses
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from stream.display.shown import ShownLog
from stream.errors import StreamError
from stream.frame import Reason, State
from stream.gpu import GPU_BACKENDS
from stream.record.keeper import Keeper
from stream.statusline import grouped
from stream.subscribe import NO_SIGNAL_AFTER_NS, Shown, Subscriber
from stream.timing import NS_PER_MS, NS_PER_S, Clock, MonotonicClock
from stream.wire import Message

POLL_MS = 50
TICK_S = 0.1
"""A viewer hears a state message this often, frame or no frame."""
RATE_OVER_NS = 2 * NS_PER_S
MAX_VIEWERS = 16


@dataclass(frozen=True)
class Heard:
    """What the reader thread last knew; replaced as a whole, never changed."""

    shown: Shown
    stamp_ns: int
    message: Message | None = None
    status: dict[str, Any] = field(default_factory=dict)
    received_hz: float | None = None


class Reader(threading.Thread):
    """Owns the subscriber: the newest message and the state, by the clock.

    Args:
        subscriber: Made by the caller, used and closed by this thread alone.
        on_news: Called in this thread when a frame has come or the state has changed; the latter as a flag.
        clock: The clock of stamps and ages.
        log: Where to note when each frame came, for the stage `shown`; None notes nothing.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        on_news: Callable[[bool], None],
        clock: Clock | None = None,
        log: ShownLog | None = None,
    ) -> None:
        super().__init__(name="viewer-reader", daemon=True)
        self._subscriber = subscriber
        self._on_news = on_news
        self._clock = clock or MonotonicClock()
        self._log = log
        self._ending = threading.Event()
        self._arrivals: deque[int] = deque(maxlen=256)
        self.heard = Heard(Shown(State.NO_SIGNAL), self._clock.now_ns())
        self.fault: BaseException | None = None
        """What ended this thread, if anything did."""

    def run(self) -> None:
        message: Message | None = None
        try:
            while not self._ending.is_set():
                came = self._subscriber.poll(POLL_MS)
                now_ns = self._clock.now_ns()
                shown = self._subscriber.shown_state(now_ns)
                if came is not None:
                    message = came
                    self._arrivals.append(now_ns)
                    if self._log is not None:
                        self._log.received(came.header, self._subscriber.received_ns)
                elif shown.state is State.NO_SIGNAL:
                    # Nothing is kept for a viewer that comes after the publisher has gone.
                    message = None
                before = self.heard.shown
                changed = (before.state, before.reason) != (shown.state, shown.reason)
                self.heard = Heard(
                    shown, now_ns, message, self._subscriber.status or {}, self._received_hz(now_ns)
                )
                if came is not None or changed:
                    self._on_news(changed)
        except BaseException as error:  # the server asks for it and ends; a thread cannot raise to it
            self.fault = error
        finally:
            self._subscriber.close()

    def _received_hz(self, now_ns: int) -> float | None:
        arrivals = self._arrivals
        while arrivals and now_ns - arrivals[0] > RATE_OVER_NS:
            arrivals.popleft()
        if len(arrivals) < 3:
            return None
        return (len(arrivals) - 1) * NS_PER_S / (arrivals[-1] - arrivals[0])

    def end(self, timeout_s: float = 0.5) -> None:
        """Ask the thread to end and wait for it."""
        self._ending.set()
        if self.is_alive():
            self.join(timeout_s)


class Viewer:
    """One WebSocket's side of the relay: what it may be sent next.

    Args:
        log: Where to note when its page draws; None asks no page for that.
        keeper: What its page may have written; None where it may only watch.
    """

    def __init__(self, log: ShownLog | None = None, keeper: Keeper | None = None) -> None:
        self._log = log
        self._keeper = keeper
        self._page = 0 if log is None else log.new_page()
        self._due = asyncio.Event()
        self._credit = False
        self._state_due = True
        self._pongs: deque[dict[str, Any]] = deque(maxlen=8)
        self._sent: tuple[bytes, int] | None = None

    def frame_came(self) -> None:
        """There is a new frame; of use only to a viewer that has asked."""
        if self._credit:
            self._due.set()

    def state_due(self) -> None:
        """It is time for a state message."""
        self._state_due = True
        self._due.set()

    def asked(self, text: str, now_ns: int) -> None:
        """Take in what the page sent.

        Raises:
            ValueError: Not what a page of ours sends.
        """
        said = json.loads(text)
        if not isinstance(said, dict):
            raise ValueError(f"a viewer sends JSON objects, got {text[:40]!r}")
        if said.get("type") == "next":
            self._credit = True
        elif said.get("type") == "ping" and isinstance(said.get("sent_ms"), int | float):
            self._pongs.append({"type": "pong", "sent_ms": said["sent_ms"], "received_ns": now_ns})
        elif said.get("type") == "keep":
            if self._keeper is None:
                raise ValueError("this browser may only watch")
            self._keeper.press()
            self._state_due = True
        else:
            raise ValueError(f"a viewer sends next, ping or keep, got {text[:40]!r}")
        if self._log is not None:
            self._log.take(self._page, said)
        self._due.set()

    async def serve(
        self,
        relay: "Relay",
        send_text: Callable[[str], Awaitable[None]],
        send_bytes: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Send what is due, one thing at a time, for as long as the connection lives."""
        if self._log is not None:
            await send_text(json.dumps({"type": "measure"}))
        while True:
            await self._due.wait()
            self._due.clear()
            while self._pongs:
                pong = self._pongs.popleft()
                replied_ns = relay.clock.now_ns()
                if self._log is not None:
                    self._log.ponged(self._page, float(pong["sent_ms"]), pong["received_ns"], replied_ns)
                await send_text(json.dumps({**pong, "replied_ns": replied_ns}))
            if self._state_due:
                self._state_due = False
                await send_text(relay.state_text(self._keeper))
            message = relay.reader.heard.message
            if self._credit and message is not None:
                name = (message.header.stream, message.header.publication)
                if name != self._sent:
                    self._credit, self._sent = False, name
                    await send_bytes(message.raw)


class Relay:
    """The viewers of one stream.

    Args:
        subscriber: The stream; handed to the reader thread.
        loop: The event loop in which the viewers live.
        clock: The clock of stamps and ages.
        log: Where to note when frames came and pages drew them; None notes nothing, and asks no page for anything.
        keeper: What viewers who may do so can have written; started and ended by the caller.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        loop: asyncio.AbstractEventLoop,
        clock: Clock | None = None,
        log: ShownLog | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.clock = clock or MonotonicClock()
        self.log = log
        self._keeper = keeper
        self._loop = loop
        self._viewers: set[Viewer] = set()
        self.reader = Reader(subscriber, self._news_came, self.clock, log)

    @property
    def viewers(self) -> int:
        """How many viewers are connected."""
        return len(self._viewers)

    def enter(self, *, may_keep: bool = False) -> Viewer:
        """A place for one more viewer.

        Args:
            may_keep: Whether it may have the frames that are kept written.

        Raises:
            StreamError: There are `MAX_VIEWERS` already.
        """
        if len(self._viewers) >= MAX_VIEWERS:
            raise StreamError(f"this server has {MAX_VIEWERS} viewers, its most; close one")
        viewer = Viewer(self.log, self._keeper if may_keep else None)
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """A viewer is gone."""
        self._viewers.discard(viewer)

    def _news_came(self, changed: bool) -> None:
        try:
            self._loop.call_soon_threadsafe(self._tell_viewers, changed)
        except RuntimeError:
            return  # the loop has closed; the thread is told to end next

    def _tell_viewers(self, changed: bool) -> None:
        for viewer in self._viewers:
            if changed:
                viewer.state_due()
            viewer.frame_came()

    async def tick(self) -> None:
        """Tell every viewer the state, several times a second, for ever.

        Raises:
            BaseException: Whatever ended the reader thread or the keeper.
        """
        while self.reader.fault is None:
            if self._keeper is not None:
                self._keeper.check()
            for viewer in self._viewers:
                viewer.state_due()
            await asyncio.sleep(TICK_S)
        raise self.reader.fault

    def state_text(self, keeper: Keeper | None = None) -> str:
        """The state message: what to show now, and the figures of the head line.

        Args:
            keeper: What the viewer may have written; None tells it nothing of that.
        """
        heard = self.reader.heard
        shown = heard.shown
        now_ns = self.clock.now_ns()
        quiet_ns = now_ns - heard.stamp_ns
        if quiet_ns > NO_SIGNAL_AFTER_NS:
            # The reader hangs: whatever it last knew says nothing of now.
            shown = Shown(State.NO_SIGNAL)
        header = heard.message.header if heard.message is not None else None
        return json.dumps(
            {
                "type": "state",
                "state": shown.state.name,
                "reason": Reason(shown.reason).name.lower(),
                "why": shown.why,
                "age_ms": round(shown.age_ms + quiet_ns / NS_PER_MS, 1),
                "stream": header.stream.hex() if header is not None else "",
                "publication": header.publication if header is not None else -1,
                "publisher": shown.state is not State.NO_SIGNAL,
                "publisher_pid": header.publisher_pid if header is not None else None,
                "received_hz": heard.received_hz,
                "viewers": self.viewers,
                "keep": None if keeper is None else _keeping(keeper),
                **heartbeat_figures(heard.status),
            }
        )


def heartbeat_figures(status: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a heartbeat (`Pipeline.status`); None where the heartbeat does not say."""
    engine, source, counters = (_table(status, name) for name in ("engine", "source", "counters"))
    gpu = _table(status, "gpu")
    skipped = [
        [f"{pair[0]}", f"{pair[1]}"]
        for pair in _list(engine, "skipped")
        if isinstance(pair, list) and len(pair) == 2
    ]
    return {
        "engine": f"{engine['backend']} {engine.get('precision', '')}".strip()
        if engine.get("backend")
        else None,
        "adaptation": _adaptation(_table(status, "adaptation")),
        "engine_why": status.get("engine_why"),
        "source_why": status.get("source_why"),
        "model": str(engine["model_sha256"])[:8] if engine.get("model_sha256") else None,
        "passed_over": [[", ".join(names), why] for why, names in grouped(skipped).items()],
        "on_gpu": engine.get("backend") in GPU_BACKENDS,
        "gpu": gpu or None,
        "gpu_why": status.get("gpu_why"),
        "inference_ms": engine.get("inference_ms"),
        "engine_restarts": status.get("engine_restarts"),
        "drops": _table(counters, "dropped") if counters else None,
        "passthrough": _table(counters, "passthrough"),
        "synthetic": counters.get("synthetic"),
        "published": counters.get("published"),
        "grabbed_hz": status.get("fps_in"),
        "published_hz": status.get("fps_out"),
        "ended": bool(status.get("ended")),
        "notes": [f"{note}" for note in _list(source, "notes")],
    }


def _keeping(keeper: Keeper) -> dict[str, Any]:
    """What the page shows of the frames that are kept, and of what became of the last key press."""
    return {"seconds": keeper.seconds, "held_s": round(keeper.held_s, 1), **dataclasses.asdict(keeper.said)}


def _adaptation(said: dict[str, Any]) -> dict[str, Any] | None:
    """What the page shows of a patient's adaptation; None where none is asked for."""
    if not said:
        return None
    words = {name: said.get(name) for name in ("words", "why_general", "failure")}
    numbers = {name: said.get(name) for name in ("ready_ms", "distance", "limit")}
    if not all(value is None or isinstance(value, str) for value in words.values()):
        return None
    if not all(value is None or isinstance(value, int | float) for value in numbers.values()):
        return None
    return {**words, **numbers}


def _table(status: dict[str, Any], name: str) -> dict[str, Any]:
    found = status.get(name)
    return found if isinstance(found, dict) else {}


def _list(status: dict[str, Any], name: str) -> list[Any]:
    found = status.get(name)
    return found if isinstance(found, list) else []
