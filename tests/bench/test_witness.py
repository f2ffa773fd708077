"""What the witness says of a run."""

import mmap
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from bench.witness import Witness, WitnessRecord, family, sample_process
from stream.timing import NS_PER_MS, NS_PER_S

MIB = 2**20


def _sample(second: int, *, guard_pid: int = 7, faults: int = 0, resident: int = MIB) -> dict[str, Any]:
    return {
        "at_ns": second * NS_PER_S,
        "longest_ns": NS_PER_MS // 2,
        "steal_ms": 20.0 * second,
        "busy_ms": 900.0 * second,
        "ours_ms": 400.0 * second,
        "processes": {"guard": [guard_pid, faults, resident, resident // 2, 60.0 * second]},
    }


def test_a_window_holds_the_longest_gap_inside_it_only() -> None:
    gaps = np.array([[1 * NS_PER_S, 90 * NS_PER_MS], [5 * NS_PER_S, 7 * NS_PER_MS]])
    record = WitnessRecord(gaps, [_sample(second) for second in range(3, 9)])
    window = record.window(3 * NS_PER_S, 8 * NS_PER_S, 150)
    assert (window.longest_gap_ms, window.gaps_over_2_ms) == (7.0, 1)


def test_time_of_the_cores_is_told_apart_by_who_took_it() -> None:
    record = WitnessRecord(np.zeros((0, 2), np.int64), [_sample(second) for second in range(6)])
    window = record.window(0, 5 * NS_PER_S, 150)
    cores = os.cpu_count() or 1
    assert window.steal_ms == pytest.approx(100.0)
    assert window.steal_share == pytest.approx(0.02 / cores)
    assert window.others_share == pytest.approx(0.5 / cores)
    assert window.longest_gap_ms == pytest.approx(0.5)


def test_growth_and_page_faults_are_per_frame() -> None:
    samples = [_sample(second, faults=60 * second, resident=MIB * (10 + second)) for second in range(6)]
    used = WitnessRecord(np.zeros((0, 2), np.int64), samples).window(0, 5 * NS_PER_S, 150).processes["guard"]
    assert used["minor_faults_per_frame"] == pytest.approx(2.0)
    assert used["cpu_ms_per_frame"] == pytest.approx(2.0)
    assert used["resident_kib_per_1000_frames"] == pytest.approx(1024 * 1000 / 30)
    assert used["anonymous_kib_per_1000_frames"] == pytest.approx(512 * 1000 / 30)


def test_a_process_that_was_started_again_is_measured_over_its_last_life() -> None:
    samples = [_sample(second, faults=9000, guard_pid=7) for second in range(3)]
    samples += [_sample(second, faults=0, guard_pid=8) for second in range(3, 7)]
    used = WitnessRecord(np.zeros((0, 2), np.int64), samples).window(0, 6 * NS_PER_S, 180).processes["guard"]
    assert used["minor_faults_per_frame"] == 0.0


def test_a_new_page_that_is_touched_is_a_minor_fault() -> None:
    before = sample_process(os.getpid())
    # A mapping of its own: memory that the process holds already would not fault again.
    with mmap.mmap(-1, 4 * MIB) as fresh:
        fresh.write(b"\1" * (4 * MIB))
        after = sample_process(os.getpid())
    assert before is not None
    assert after is not None
    assert after.minor_faults > before.minor_faults
    assert after.cpu_ms >= before.cpu_ms


def test_a_process_that_is_gone_has_no_sample() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert sample_process(process.pid) is None


def test_the_witness_sees_the_guard_and_its_family() -> None:
    witness = Witness()
    try:
        over = time.monotonic() + 20.0
        while not (record := witness.record()).samples:
            assert time.monotonic() < over
        assert record.samples[0]["processes"]["guard"][0] == os.getpid()
        assert len(family(os.getpid())) >= 2
    finally:
        witness.close()
