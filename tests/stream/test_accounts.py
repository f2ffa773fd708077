"""The sums at the end of a run: each broken in one place is found, and a run whose sum is broken ends with status 1."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream import accounts
from stream.errors import PipelineError
from stream.frame import Reason, State
from stream.guard import Guard
from stream.measure import Measured

COUNTERS: dict[str, Any] = {
    "due": 20,
    "published": 14,
    "synthetic": 10,
    "passthrough": {"deadline": 2, "starting": 1},
    "unchanged": 1,
    "repeated": 2,
    "dropped": {"ring_full": 3, "source_lost": 1},
}
STATES = [State.PASSTHROUGH] * 3 + [State.SYNTHETIC] * 10 + [State.UNCHANGED]


def measured(**columns: Any) -> Measured:
    """What a client saw that got all 14 messages, but for what is named."""
    fields: dict[str, Any] = {
        "sequence": np.arange(14) + 3,
        "publication": np.arange(14),
        "state": np.array(STATES),
        "reason": np.full(14, Reason.NONE),
        **columns,
    }
    rows = len(fields["sequence"])
    return Measured(
        fields["sequence"].astype(np.uint64),
        fields["publication"].astype(np.uint64),
        fields["state"][:rows].astype(np.uint8),
        fields["reason"][:rows].astype(np.uint8),
        np.zeros((rows, 6), np.uint64),
    )


def test_sums_that_come_out_are_a_line_and_no_error() -> None:
    assert accounts.publisher_text(COUNTERS) == (
        "20 due = 10 synthetic + 3 passthrough + 1 unchanged + 2 repeated + 4 dropped"
    )
    accounts.check(COUNTERS, measured())
    accounts.check({})


@pytest.mark.parametrize(
    "change",
    [{"due": 21}, {"synthetic": 9}, {"passthrough": {}}, {"unchanged": 2}, {"repeated": 1}, {"dropped": {}}],
    ids=lambda change: next(iter(change)),
)
def test_a_frame_that_is_counted_nowhere_or_twice_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match=r"accounted for, got at the publisher: .*IS NOT"):
        accounts.check({**COUNTERS, **change})


def test_frames_that_wait_in_mid_run_are_counted() -> None:
    accounts.check({**COUNTERS, "due": 22, "waiting": 2})


def test_gaps_of_a_client_are_counted_wherever_they_are() -> None:
    kept = np.array([2, 3, 5, 6, 9])
    seen = measured(sequence=kept + 3, publication=kept, state=np.array(STATES)[kept])
    assert accounts.client_gaps(seen, 14) == 9
    accounts.check(COUNTERS, seen)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"publication": np.array([*range(13), 12])}, "publication number 12 came after 12"),
        ({"sequence": np.array([*range(12), 20, 19])}, "sequence number 19 came after 20"),
        ({"publication": np.arange(14) + 1}, "message 14 came of 14 sent"),
        ({"state": np.array([State.SYNTHETIC] * 14)}, "14 SYNTHETIC frames received, 10 sent"),
    ],
    ids=["twice", "out of order", "not sent", "another state"],
)
def test_a_client_that_saw_what_was_not_sent_is_an_error(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=f"at the measuring client: {said}"):
        accounts.check(COUNTERS, measured(**columns))


def test_frames_of_which_none_was_sent_are_an_error() -> None:
    with pytest.raises(PipelineError, match="14 frames came, none was sent"):
        accounts.check({}, measured())


def test_a_run_says_its_sum_and_ends_with_1_when_it_does_not_come_out(
    start: Any, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (
        "replay",
        "phantom",
        "--size",
        "128",
        "--frames",
        "25",
        "--engine",
        "off",
        "--endpoint",
        endpoint,
    )
    printed = (whole := start(*asked)).finish(30)
    assert whole.process.returncode == 0
    assert "accounts 25 due = 0 synthetic + 25 passthrough" in printed
    assert "25 published = 25 received + 0 gaps" in printed
    # A guard that forgets one frame of each run, as a later change might.
    assert hasattr(Guard, "_count")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'contrastream' in sys.orig_argv:\n"
        "    import stream.guard\n"
        "    count = stream.guard.Guard._count\n"
        "    def forgetful(self, out):\n"
        "        if out.frame.sequence != 7: count(self, out)\n"
        "    stream.guard.Guard._count = forgetful\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    printed = (broken := start(*asked)).finish(30)
    assert broken.process.returncode == 1
    assert "needed every frame to be accounted for, got at the publisher: 25 due IS NOT" in printed
    assert "off by 1; this is a fault of ours" in printed
