"""The audit log: every way of changing it is found, and no disk holds a stream up."""

import contextlib
import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.audit_chain import FIRST_PREVIOUS, open_key, pack_entry, read_key, unpack_entry
from stream.audit_log import AuditLog, chain_files, key_path
from stream.audit_trail import AuditTrail
from stream.audit_verify import audit_show, audit_verify, verify_files
from stream.config import AuditShowConfig, AuditVerifyConfig
from stream.errors import AuditError
from stream.timing import NS_PER_S

KEY = bytes(range(32))


def written(folder: Path, events: int = 6, **sizes: int) -> AuditLog:
    """A log with so many entries, closed."""
    log = AuditLog(folder, **sizes)
    for number in range(events):
        log.write("state", before=f"state {number}", after=f"state {number + 1}")
    log.close()
    return log


def wrong_in(chain: Path, *heads: str) -> list[str]:
    return verify_files(chain_files(chain), read_key(key_path()), frozenset(heads)).wrong


def test_entries_are_chained_from_run_to_run(tmp_path: Path) -> None:
    first = written(tmp_path)
    second = written(tmp_path)
    (file,) = chain_files(first.chain)
    entries = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [entry["n"] for entry in entries] == list(range(1, 13))
    assert [entry["previous"] for entry in entries] == [
        FIRST_PREVIOUS,
        *(entry["mac"] for entry in entries[:-1]),
    ]
    assert (second.entries, second.head) == (12, entries[-1]["mac"])
    assert wrong_in(first.chain) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda lines: [*lines[:2], *lines[3:]], "line 3: entry 3 is missing before it", id="removed"),
        pytest.param(lambda lines: [lines[0], *lines[4:]], "line 2: entries 2 to 4 are missing", id="several removed"),
        pytest.param(lambda lines: lines[1:], "entry 1 is missing: no rotation is on record", id="first removed"),
        pytest.param(lambda lines: [*lines[:2], lines[2].replace(b"state 2", b"state 9"), *lines[3:]],
                     "line 3: it was changed", id="edited"),
        pytest.param(lambda lines: [*lines[:5], lines[5][:-20]], "line 6: it is cut off", id="cut off"),
        pytest.param(lambda lines: [*lines[:5], lines[5][:-1]], "line 6: it is cut off", id="its newline cut off"),
        pytest.param(lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "line 3: entry 3 is missing", id="swapped"),
        pytest.param(lambda lines: [*lines[:3], lines[1], *lines[3:]], "line 4: it is entry 2 and does not follow entry 3",
                     id="repeated"),
        pytest.param(lambda lines: [*lines[:3], b"\n", *lines[3:]], "line 4: it is cut off", id="blank line"),
    ],
)  # fmt: skip
def test_a_changed_log_is_found_with_its_line(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    log = written(tmp_path)
    (file,) = chain_files(log.chain)
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    wrong = wrong_in(log.chain)
    assert said in wrong[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_that_is_changed_is_found(tmp_path: Path, data: st.DataObject) -> None:
    log = tmp_path / "log.jsonl"
    lines, previous = [], FIRST_PREVIOUS
    for number in range(1, 5):
        line, previous = pack_entry(KEY, previous, {"n": number, "event": "state", "after": "STALE"})
        lines.append(line)
    whole = b"".join(lines)
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    log.write_bytes(whole[:place] + bytes((byte,)) + whole[place + 1 :])
    assert verify_files([log], KEY).wrong


def test_a_log_written_anew_without_the_key_is_found(tmp_path: Path) -> None:
    log = written(tmp_path)
    (file,) = chain_files(log.chain)
    line, _ = pack_entry(bytes(32), FIRST_PREVIOUS, {"n": 1, "event": "stop"})
    file.write_bytes(line)
    assert "line 1: it was changed, or written under another key" in wrong_in(log.chain)[0]


def test_entries_missing_at_the_end_are_found_by_a_head_seen_before(tmp_path: Path) -> None:
    log = written(tmp_path)
    (file,) = chain_files(log.chain)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:4]))
    assert wrong_in(log.chain) == []  # nothing in the file itself can tell
    config = AuditVerifyConfig(file=log.chain, head=(log.head,))
    assert audit_verify(config) == 1


def test_an_older_head_is_still_in_a_longer_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path)
    written(tmp_path)
    assert audit_verify(AuditVerifyConfig(file=tmp_path, head=(log.head,))) == 0
    assert "1: 12 entries in 1 file" in capsys.readouterr().out


def test_the_chain_goes_on_from_file_to_file_and_the_oldest_go(tmp_path: Path) -> None:
    log = written(tmp_path, events=60, file_bytes=1500, files_kept=3)
    files = chain_files(log.chain)
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) < 3 * 2500
    assert json.loads(files[0].read_bytes().splitlines()[0])["event"] == "rotated"
    assert wrong_in(log.chain) == []
    files[0].unlink()
    assert "missing: rotation kept those from" in wrong_in(log.chain)[0]


def test_a_file_missing_in_the_middle_is_found(tmp_path: Path) -> None:
    log = written(tmp_path, events=40, file_bytes=1500, files_kept=30)
    chain_files(log.chain)[2].unlink()
    assert "are missing before it" in wrong_in(log.chain)[0]


def test_a_second_stream_takes_a_chain_of_its_own(tmp_path: Path) -> None:
    first = AuditLog(tmp_path)
    second = AuditLog(tmp_path)
    try:
        assert (first.chain.name, second.chain.name) == ("1", "2")
    finally:
        first.close()
        second.close()


def test_a_damaged_end_is_left_as_it_is_and_a_new_chain_begun(tmp_path: Path) -> None:
    log = written(tmp_path)
    (file,) = chain_files(log.chain)
    cut = file.read_bytes()[:-30]
    file.write_bytes(cut)
    written(tmp_path, events=1)
    assert file.read_bytes() == cut
    assert json.loads(chain_files(log.chain)[1].read_bytes().splitlines()[0])["event"] == "begun_anew"
    assert "000001.jsonl, line 6: it is cut off" in wrong_in(log.chain)[0]


def test_a_disk_that_is_full_is_counted_said_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stream.audit_log.AGAIN_S", 0.01)
    real, full = os.write, [True]

    def write(descriptor: int, data: bytes) -> int:
        if full[0] and b'"event"' in data:
            real(descriptor, data[:7])  # a disk takes what still fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    log = AuditLog(tmp_path)
    monkeypatch.setattr(os, "write", write)
    for _ in range(1500):
        log.write("state", before="a", after="b")
    assert log.lost >= 400
    over = time.monotonic() + 5.0
    while log.why is None and time.monotonic() < over:
        time.sleep(0.005)
    assert log.status()["why"] == "No space left on device"
    full[0] = False
    while log.why is not None and time.monotonic() < over:
        time.sleep(0.005)
    log.close()
    assert wrong_in(log.chain) == []
    entries = [json.loads(line) for line in chain_files(log.chain)[0].read_bytes().splitlines()]
    assert sum(entry["event"] == "state" for entry in entries) + log.lost == 1500
    assert sum(entry["entries"] for entry in entries if entry["event"] == "lost") == log.lost


def test_a_disk_that_stays_full_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    log = AuditLog(tmp_path)
    monkeypatch.setattr(os, "write", no_room)
    log.write("state", before="a", after="b")
    log.write("stop", why="asked")
    log.close()
    assert not log._thread.is_alive()
    assert (log.lost, log.why) == (2, "Read-only file system")


def test_the_key_is_for_this_user_alone_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made" / "audit.key"
    key = open_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_key(path) == key
    path.chmod(0o640)
    with pytest.raises(AuditError, match=r"mode 0600\), got .* mode 0640; run: chmod 600"):
        open_key(path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(AuditError, match="must be 64 hexadecimal digits"):
        open_key(path)


@settings(deadline=None)
@given(line=st.binary(max_size=300))
def test_bytes_that_are_no_entry_are_refused_with_a_reason(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it "):
        unpack_entry(KEY, line)


def test_the_log_is_shown_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path, events=1)
    with chain_files(log.chain)[0].open("ab") as file:
        file.write(b"rubbish\n")
    assert audit_show(AuditShowConfig(log.chain)) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "state  before state 0, after state 1" in first
    assert "line 2: no entry of an audit log" in second


def status(**changes: Any) -> dict[str, Any]:
    plain = {
        "engine": {},
        "source_restarts": 0,
        "source_cause": None,
        "engine_restarts": 0,
        "clients": {"subscribers": 0, "in_memory": 0, "disconnected": 0, "published": 5},
        "counters": {"due": 10, "published": 8, "dropped": {"ring_full": 2}},
    }
    return {**plain, **changes}


def test_drops_are_told_by_the_minute_and_clients_when_they_change(tmp_path: Path) -> None:
    trail = AuditTrail(str(tmp_path))
    assert trail.log is not None
    trail.see(status(), {}, None, 0)
    trail.see(status(), {}, None, 61 * NS_PER_S)
    later = {"due": 1010, "published": 1005, "dropped": {"ring_full": 5}}
    trail.see(status(counters=later), {}, None, 122 * NS_PER_S)
    trail.see(status(clients={"subscribers": 2, "in_memory": 1, "disconnected": 0}), {}, None, 123 * NS_PER_S)
    trail.stop("asked", status(counters=later))
    entries = [json.loads(line) for line in chain_files(trail.log.chain)[0].read_bytes().splitlines()]
    assert [entry["event"] for entry in entries] == ["clients", "minute", "minute", "clients", "stop"]
    assert [(e["due"], e["published"], e["dropped"]) for e in entries if e["event"] == "minute"] == [
        (10, 8, {"ring_full": 2}),
        (1000, 997, {"ring_full": 3}),
    ]
    assert entries[3]["subscribers"] == 2


def test_a_run_keeps_a_log_whose_head_its_heartbeat_shows(
    tmp_path: Path, endpoint: str, start: Callable[..., Any]
) -> None:
    from stream.subscribe import Subscriber

    folder = tmp_path / "audit"
    run = start(
        "run",
        "phantom",
        "--engine",
        "off",
        "--size",
        "64",
        "--endpoint",
        endpoint,
        "--audit-folder",
        str(folder),
    )
    heads: set[str] = set()
    over = time.monotonic() + 30.0
    with contextlib.closing(Subscriber(endpoint)) as subscriber:
        while len(heads) < 2 and time.monotonic() < over:
            subscriber.poll(100)
            status = subscriber.status
            said = status["audit"] if status and status["counters"].get("published", 0) > 3 else None
            if said:
                if not heads:
                    os.kill(run.child("stream.grab"), signal.SIGKILL)
                heads.add(said["head"])
    printed = run.end()
    assert f"audit log in {folder}/1" in printed
    entries = [json.loads(line) for line in chain_files(folder / "1")[0].read_bytes().splitlines()]
    events = [entry["event"] for entry in entries]
    assert events[0] == "start"
    assert events[-1] == "stop"
    assert {"source", "state", "clients", "restart"} <= set(events)
    assert entries[-1]["why"] == "asked"
    assert entries[0]["versions"]["contrastream"]
    assert len(heads) == 2
    assert wrong_in(folder / "1", *heads) == []
    assert heads <= {entry["mac"] for entry in entries}
