"""`contrastream audit`: is an audit log whole, and is every line as it was written? And the log for people.

`stream/audit_chain.py` says what verifying finds and what it cannot.
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.audit_chain import FIRST_PREVIOUS, MAX_LINE, read_key, unpack_entry
from stream.audit_log import chain_files, default_folder, key_path
from stream.config import AuditShowConfig, AuditVerifyConfig
from stream.errors import AuditError


@dataclass
class Found:
    """What a chain holds, and the first things that are wrong with it."""

    entries: int = 0
    first: int = 0
    """Number of its first entry; above 1 where older files have been rotated away."""
    head: str = FIRST_PREVIOUS
    last: dict[str, Any] = field(default_factory=dict)
    heads: set[str] = field(default_factory=set)
    """Of the heads that were asked for, those that are in it."""
    wrong: list[str] = field(default_factory=list)
    """A sentence each, with file and line."""


def verify_files(
    files: list[Path], key: bytes, heads: frozenset[str] = frozenset(), *, alone: bool = False
) -> Found:
    """Check a chain from its first line to its last.

    Args:
        files: Of one chain, oldest first.
        key: The log's key.
        heads: Heads to look for.
        alone: The files may begin in the middle of a chain: one of several was given.

    Raises:
        AuditError: A file cannot be read.
    """
    found = Found()
    oldest: int | None = None
    expected: str | None = None
    number = 0
    for path in files:
        try:
            stream = path.open("rb")
        except OSError as error:
            raise AuditError(f"needed an audit log to read, got {path}: {error.strerror}") from error
        with stream:
            place = 0
            while line := stream.readline(MAX_LINE):
                place += 1
                where = f"{path.parent.name}/{path.name}, line {place}"
                try:
                    entry = unpack_entry(key, line)
                except ValueError as error:
                    found.wrong.append(f"{where}: {error}")
                    # What follows can only be judged among itself.
                    expected, number = None, 0
                    continue
                n, mac = int(entry["n"]), str(entry["mac"])
                if (said := _place_in_chain(entry, expected, number, first=found.entries == 0)) is not None:
                    found.wrong.append(f"{where}: {said}")
                found.first = found.first or n
                expected, number = mac, n
                found.entries += 1
                found.head, found.last = mac, entry
                if mac in heads:
                    found.heads.add(mac)
                if entry.get("event") == "rotated":
                    oldest = int(entry.get("oldest_entry", 0))
    if not alone and found.first > 1 and (oldest is None or found.first > oldest):
        kept = "no rotation is on record" if oldest is None else f"rotation kept those from {oldest} on"
        found.wrong.insert(0, f"{_range(1, found.first - 1)} missing: {kept}")
    return found


def _place_in_chain(entry: dict[str, Any], expected: str | None, number: int, *, first: bool) -> str | None:
    """What is wrong with where an entry stands; None where it follows the one before."""
    if expected is None:
        return None  # the first, or after a line that is wrong itself
    if entry["previous"] == expected and entry["n"] == number + 1:
        return None
    if entry["n"] == 1 and entry["previous"] == FIRST_PREVIOUS:
        return "the chain begins anew here"
    if entry["n"] > number + 1:
        return f"{_range(number + 1, entry['n'] - 1)} missing before it"
    return f"it is entry {entry['n']} and does not follow entry {number}"


def _range(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def audit(config: AuditVerifyConfig | AuditShowConfig) -> int:
    """`contrastream audit ...`."""
    return audit_show(config) if isinstance(config, AuditShowConfig) else audit_verify(config)


def audit_show(config: AuditShowConfig) -> int:
    """`contrastream audit show`.

    Raises:
        AuditError: No such log.
    """
    for files, _alone in _chains(config.file or default_folder()):
        for path in files:
            for place, line in enumerate(path.read_bytes().splitlines(), 1):
                try:
                    entry = json.loads(line)
                    facts = {
                        name: fact
                        for name, fact in entry.items()
                        if name not in ("previous", "mac", "monotonic_ns")
                    }
                    said = " ".join(_words(facts.pop(name)) for name in ("n", "time", "event"))
                except (ValueError, RecursionError, KeyError, AttributeError):
                    print(f"{path.parent.name}/{path.name}, line {place}: no entry of an audit log")
                    continue
                print(
                    f"{path.parent.name}  {said}  "
                    + ", ".join(f"{name} {_words(fact)}" for name, fact in facts.items())
                )
    return 0


def _words(fact: object) -> str:
    if isinstance(fact, str):
        return fact if fact.isprintable() else repr(fact)
    return json.dumps(fact)


def audit_verify(config: AuditVerifyConfig) -> int:
    """`contrastream audit verify`.

    Returns:
        0 where every chain is whole, 1 where something is wrong; each is named on stdout.

    Raises:
        AuditError: No such log or key, or a head that is none.
    """
    heads = frozenset(head.lower() for head in config.head)
    for head in heads:
        if not re.fullmatch(r"[0-9a-f]{64}", head):
            raise AuditError(
                f"--head must be 64 hexadecimal digits, as a heartbeat's audit.head has them, got {head!r}"
            )
    chains = _chains(config.file or default_folder())
    key = read_key(config.key or key_path())
    wrong: list[str] = []
    seen: set[str] = set()
    for files, alone in chains:
        found = verify_files(files, key, heads, alone=alone)
        print(_sentence(files, found))
        wrong += found.wrong
        seen |= found.heads
    wrong += [
        f"the head {head[:16]}... is in none of these files: entries at the end are missing"
        for head in heads - seen
    ]
    for sentence in wrong:
        print(f"WRONG  {sentence}")
    if not wrong:
        print(
            "whole: no line was changed, removed or cut off"
            + ("" if heads else "; what may be missing at the very end only --head can tell")
        )
    return 1 if wrong else 0


def _chains(place: Path) -> list[tuple[list[Path], bool]]:
    """The files of each chain at a place that a user named, and whether they may begin in a chain's middle."""
    if place.is_file():
        return [([place], True)]
    if not place.is_dir() or not os.access(place, os.R_OK | os.X_OK):
        raise AuditError(
            f"needed an audit log, a file or a folder, got {place}, where there is none that can be read; "
            "contrastream run writes one and says where"
        )
    if files := chain_files(place):
        return [(files, False)]
    folders = sorted(
        (path for path in place.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    chains = [(files, False) for folder in folders if (files := chain_files(folder))]
    if not chains:
        raise AuditError(
            f"needed an audit log, got the folder {place}, which holds none; contrastream run writes one"
        )
    return chains


def _sentence(files: list[Path], found: Found) -> str:
    last = found.last
    end = f", the last at {last['time']}: {last['event']}" if last else ""
    begin = f" (from entry {found.first} on)" if found.first > 1 else ""
    return f"{files[0].parent.name}: {found.entries} entries in {len(files)} file{'s' * (len(files) > 1)}{begin}{end}; head {found.head}"
