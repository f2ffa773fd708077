"""What a report says of its machine."""

import json
import os
import sys

from bench import machine


def test_the_machine_block_names_what_a_figure_depends_on() -> None:
    facts = machine.describe()
    assert facts["cpu"]["cores"] == len(os.sched_getaffinity(0))
    assert facts["cpu"]["model"]
    assert set(facts["cpu"]["flags"]) <= set(machine.FAST_CPU_FLAGS)
    assert facts["python"] == sys.version.split()[0]
    assert facts["packages"]["numpy"]
    assert 0 < facts["memory_available_gib"] <= facts["memory_gib"]
    assert bool(facts["gpus"]) == (facts["why_no_gpu"] is None)
    assert json.loads(json.dumps(facts)) == facts


def test_time_of_the_cores_only_grows() -> None:
    before_busy, before_steal = machine.busy_ms(), machine.steal_ms()
    sum(range(2_000_000))
    assert machine.busy_ms() >= before_busy > 0
    after_steal = machine.steal_ms()
    assert before_steal is not None
    assert after_steal is not None
    assert after_steal >= before_steal


def test_one_line_says_which_instructions_the_cpu_has() -> None:
    facts = machine.describe()
    facts["cpu"]["flags"] = ["avx2", "avx512_bf16", "amx_bf16"]
    assert "AMX bf16" in machine.one_line(facts)
    facts["cpu"]["flags"] = ["avx2"]
    assert "AVX2" in machine.one_line(facts)
    facts["cpu"]["flags"] = []
    assert "no AVX2" in machine.one_line(facts)


def test_one_line_names_the_gpus_with_their_driver() -> None:
    facts = machine.describe()
    facts["gpus"] = [{"name": "GPU of a test", "driver": "580.95.05"}]
    assert ", GPU of a test (driver 580.95.05), " in machine.one_line(facts)
    facts["gpus"] = []
    assert ", no GPU seen, " in machine.one_line(facts)
