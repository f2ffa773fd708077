"""Runs one case in front of all clients and says what each of them showed, when, and what was lost."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drill.cases import RATE_HZ, RECOVERED_S, Case
from drill.clients import BORDERS, Client, Plain, Seen, Window, now_ns
from drill.running import Running, Unready

from bench.witness import Witness

NS = 1_000_000_000
DEADLINE_NS = min(NS / RATE_HZ, 50_000_000)
BASELINE_S = 60.0
FAULT_WITHIN_S = 30.0
SETTLE_S = 1.0
GOES_ON_NS = 300_000_000
SIZE = 256


@dataclass
class Row:
    """What one client showed in one case."""

    fault: str
    what: str
    client: str
    expected: str
    seen: str
    detect_s: float | None
    """From the fault's begin to the first expected state."""
    within_s: float
    recover_s: float | None
    """From the fault's end to SYNTHETIC; None where it did not come."""
    lost: str = ""
    late: str = ""
    faults: tuple[str, ...] = ()
    """What did not hold, a sentence each."""


def wait_for(condition: Callable[[], Any], what: str, within_s: float) -> Any:
    """Wait for what another process does.

    Raises:
        Unready: It did not come.
    """
    over = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > over:
            raise Unready(f"waited {within_s:.0f} s for {what}")
        time.sleep(0.05)
    return found


def wait_for_steady(clients: Sequence[Client], within_s: float = BASELINE_S) -> None:
    """Wait until all clients at once have shown SYNTHETIC for a second, so that what follows is the fault's."""

    def steady() -> bool:
        newest = [client.timeline()[-1] for client in clients]
        return all(seen.state == "SYNTHETIC" and now_ns() - seen.at_ns > NS for seen in newest)

    wait_for(steady, "SYNTHETIC in every client for a second", within_s)


def wait_for_synthetic(clients: Sequence[Client], since_ns: int, within_s: float = BASELINE_S) -> None:
    """Wait until every client shows SYNTHETIC; a black window is opened anew once."""
    for client in clients:

        def shown(client: Client = client) -> bool:
            seen = client.timeline()
            return bool(seen) and seen[-1].state == "SYNTHETIC"

        try:
            wait_for(
                shown, f"SYNTHETIC in the {client.name}", within_s if not isinstance(client, Window) else 15.0
            )
        except Unready:
            if not isinstance(client, Window):
                raise
            client.again()
            wait_for(shown, f"SYNTHETIC in the {client.name}, opened twice", within_s)


def wait_for_silence(clients: Sequence[Client]) -> None:
    """Wait until no client shows the picture of the stream before, so that the next one's SYNTHETIC is its own."""
    for client in clients:

        def silent(client: Client = client) -> bool:
            seen = client.timeline()
            return not seen or seen[-1].state in ("NO_SIGNAL", "BLACK")

        wait_for(silent, f"NO SIGNAL in the {client.name}", 10.0)


class Judged:
    """A case under way.

    Args:
        case: What is broken.
        clients: Those who look; one of them is a `Plain`.
        endpoint: Where the pipeline publishes.
        witness: What the machine itself did.
    """

    def __init__(self, case: Case, clients: Sequence[Client], endpoint: str, witness: Witness) -> None:
        self._case, self._clients, self._endpoint, self._witness = case, clients, endpoint, witness
        self._plain = next(client for client in clients if isinstance(client, Plain))
        self._faults: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="drill-")
        self._mark = Path(self._folder.name) / "broken"
        self.running: Running | None = None

    def run(self) -> list[Row]:
        """All of it, and a row for each client."""
        case = self._case
        try:
            wait_for_silence(self._clients)
            start_ns = now_ns()
            self.running = self._start(faulty=True)
            if not case.from_start:
                wait_for_synthetic(self._clients, start_ns)
                if case.act is not None:  # else its frame or its inference comes when it comes
                    wait_for_steady(self._clients)
                self.running.look()
            begin_ns = self._begin(start_ns)
            end_ns = self._end(begin_ns)
            self._wait_for_recovery(begin_ns, end_ns)
            time.sleep(SETTLE_S)
            self._look_for_zombies()
            rows = [self._row(client, begin_ns, end_ns) for client in self._clients]
            self._check_frames(start_ns, begin_ns, rows)
            self._close_run(self.running, killed=False)
            for row in rows[:1]:
                row.faults += tuple(self._faults)
            return rows
        except Unready as error:
            return [
                Row(
                    case.name,
                    case.what,
                    "all",
                    " or ".join(case.expected),
                    "-",
                    None,
                    case.within_s,
                    None,
                    faults=(str(error),),
                )
            ]
        finally:
            self.close()

    def close(self) -> None:
        """Leave nothing."""
        if self.running is not None:
            self.running.close()
            self.running = None
        self._folder.cleanup()

    def _start(self, *, faulty: bool) -> Running:
        case = self._case
        fault = ["--fault", case.fault, "--fault-seed", "1"] if faulty and case.fault else []
        return Running(
            self._endpoint,
            *("--size", str(SIZE), "--rate", f"{RATE_HZ:g}", "--no-domain", *fault),
            engine_fault=case.engine if faulty else "",
            mark=self._mark,
        )

    def _begin(self, start_ns: int) -> int:
        """Wait for the fault to begin, or begin it; when that was."""
        case = self._case
        assert self.running is not None
        if case.act is not None:
            begin_ns = now_ns()
            case.act(self.running)
            return begin_ns
        if case.from_start:
            wait_for(lambda: self._plain.of("frame", start_ns), "a frame", BASELINE_S)
            return start_ns
        if case.engine:
            return int(
                wait_for(
                    lambda: self._mark.exists() and self._mark.read_text(),
                    "the engine's fault",
                    FAULT_WITHIN_S,
                )
            )
        return int(wait_for(lambda: self._told(start_ns), "the source's fault", FAULT_WITHIN_S))

    def _told(self, start_ns: int) -> int | None:
        """When the pipeline said that the injected fault began."""
        for line in reversed(self._plain.of("heartbeat", start_ns)):
            if begun := (line.get("faults") or {}).get("begun"):
                return int(begun[0]["at_ns"])
        return None

    def _end(self, begin_ns: int) -> int:
        """Wait until the fault is over, or end it; when that was."""
        case = self._case
        assert self.running is not None
        left_s = case.lasts_s - (now_ns() - begin_ns) / NS
        if left_s > 0:
            time.sleep(left_s)
        if case.undo is not None:
            case.undo(self.running)
            return now_ns()
        if case.ends:
            self._close_run(self.running, killed=case.act is not None)
            self.running.close()
            end_ns = now_ns()
            self.running = self._start(faulty=False)
            return end_ns
        return max(begin_ns + round(case.lasts_s * NS), begin_ns)

    def _wait_for_recovery(self, begin_ns: int, end_ns: int) -> None:
        def recovered() -> bool:
            if "SYNTHETIC" in self._case.expected:  # which comes and goes, and not in all clients at once
                return all(
                    any(seen.state == "SYNTHETIC" and seen.at_ns >= begin_ns for seen in client.timeline())
                    for client in self._clients
                )
            return all(
                (seen := client.timeline())
                and seen[-1].state == "SYNTHETIC"
                and (
                    self._case.from_start
                    or self._expected_at(client, seen, begin_ns) is not None
                    or now_ns() - end_ns > 5 * NS
                )
                for client in self._clients
            )

        try:
            wait_for(recovered, "SYNTHETIC again", RECOVERED_S)
        except Unready:
            self._faults.append("SYNTHETIC did not come back in every client")

    def _expected_at(self, client: Client, timeline: Sequence[Seen], begin_ns: int) -> Seen | None:
        case = self._case
        for seen, after in zip(timeline, [*timeline[1:], None], strict=True):
            said = (
                seen.state
                if isinstance(client, Window) or not seen.reason
                else f"{seen.state}({seen.reason})"
            )
            wanted = {
                each.partition("(")[0] if isinstance(client, Window) else each for each in case.expected
            }
            if said not in wanted:
                continue
            if seen.at_ns >= begin_ns:
                return seen
            # Shown already, on a loaded machine, and shown on: that is no state to wait for.
            if after is None or after.at_ns > begin_ns + GOES_ON_NS:
                return dataclasses.replace(seen, at_ns=begin_ns)
        return None

    def _row(self, client: Client, begin_ns: int, end_ns: int) -> Row:
        case = self._case
        faults: list[str] = []
        timeline = client.timeline()
        found = self._expected_at(client, timeline, begin_ns)
        states: list[str] = []
        for seen in timeline:
            said = f"{seen.state}({seen.reason})" if seen.reason else seen.state
            if seen.at_ns >= begin_ns and (not states or states[-1] != said):
                states.append(said)
        detect_s = None if found is None else (found.at_ns - begin_ns) / NS
        back = next(
            (
                seen.at_ns
                for seen in timeline
                if seen.state == "SYNTHETIC"
                and found is not None
                and seen.at_ns >= max(found.at_ns, begin_ns)
            ),
            None,
        )
        recover_s = None if back is None else max(0.0, (back - end_ns) / NS)
        if detect_s is None:
            faults.append(f"{client.name}: never shown")
        elif detect_s > case.within_s and not case.from_start:
            faults.append(f"{client.name}: after {detect_s:.2f} s")
        if found is not None and found.state in BORDERS and not found.aged:
            faults.append(f"{client.name}: without its age going on")
        if back is None:
            faults.append(f"{client.name}: not SYNTHETIC again")
        shown = " > ".join(states[:6]) + (" ..." if len(states) > 6 else "")
        return Row(
            case.name, case.what, client.name, " or ".join(case.expected), shown or "no change",
            None if case.from_start else detect_s, case.within_s, recover_s, faults=tuple(faults),
        )  # fmt: skip

    def _check_frames(self, start_ns: int, begin_ns: int, rows: list[Row]) -> None:
        """What the plain client knows of every frame: losses, mixtures, lateness."""
        frames = self._plain.of("frame", start_ns)
        beats = [line for line in self._plain.of("heartbeat", start_ns) if line["counters"]]
        gaps = 0
        for before, after in itertools.pairwise(frames):
            if before["stream"] == after["stream"]:
                gaps += after["publication"] - before["publication"] - 1
        by_stream = {beat["stream"]: sum(beat["counters"]["dropped"].values()) for beat in beats}
        dropped = sum(by_stream.values())
        plain = next(row for row in rows if row.client == Plain.name)
        plain.lost = f"{dropped} dropped and counted, {gaps} on the way"
        if gaps:
            plain.faults += (f"{gaps} messages lost on the way",)
        if mixed := [frame["sequence"] for frame in frames if not frame.get("background_exact", True)]:
            plain.faults += (f"planes of different frames at {mixed[:5]}",)
        if self._case.judges_late and frames:
            self._judge_late([frame for frame in frames if frame["due_ns"] >= begin_ns - NS], plain)

    def _judge_late(self, frames: list[dict[str, Any]], row: Row) -> None:
        # A frame of a source that was stopped or that hangs is late before the guard has it.
        base = "due_ns" if self._case.name.startswith("engine") else "grabbed_ns"
        if not frames:
            return
        late_ms = [(frame["published_ns"] - frame[base] - DEADLINE_NS) / 1e6 for frame in frames]
        window = self._witness.record().window(frames[0]["due_ns"] - NS, now_ns(), len(frames))
        gap_ms = window.longest_gap_ms
        excess = sorted((late for late in late_ms if late > gap_ms), reverse=True)
        row.late = f"latest {max(late_ms):+.0f} ms of its deadline, witness {gap_ms:.0f} ms"
        if excess:
            listed = ", ".join(f"{late:.0f}" for late in excess[:5])
            row.faults += (
                f"{len(excess)} frames later than deadline + witness ({listed} ms over the deadline)",
            )

    def _look_for_zombies(self) -> None:
        assert self.running is not None
        if dead := [pid for pid, state in self.running.children().items() if state == "Z"]:
            self._faults.append(f"zombies: {dead}")

    def _close_run(self, running: Running, *, killed: bool) -> None:
        """End a run, and see whether it ended well and left nothing."""
        running.look() if not killed else None
        status, printed = running.finish() if killed or running.process.poll() is not None else running.end()
        if not killed and status != 0:
            self._faults.append(f"exit status {status}: {printed.strip().splitlines()[-1:]}")
        if not killed and ("IS NOT" in printed or "accounts" not in printed):
            self._faults.append("the run's sum did not come out")
        if left := running.left_behind():
            self._faults.append("left behind: " + ", ".join(left))
