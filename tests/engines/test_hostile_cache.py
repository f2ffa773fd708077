"""A cache that another hand has been in: a plan is used as it was written, or built anew. Nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.plan import LayerCount
from engines.plan_cache import cached_plan, read_blob, write_blob
from engines.plan_facts import PlanKey
from engines.plan_room import kept_plans
from engines.plan_table import format_list

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEY = PlanKey(
    "ab" * 32, "tensorrt", "10.16.1", "NVIDIA H200 SM90", 512, 512, 1, "f16", "0123456789ab", "compact"
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


class Made:
    """What a build hands over, without a build."""

    plan = bytes(range(256)) * 4
    layers = (LayerCount("CONVOLUTION", "HALF", 31),)
    activation_bytes = 13_000_000
    weights_bytes = None
    warnings = ("slow",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plans' folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contrastream" / "plans"


def changed(said: dict[str, Any], data: st.DataObject) -> bytes:
    """A sidecar with one value replaced, or cut off, or no JSON at all."""
    inside = data.draw(st.sampled_from([said, said["key"]]))
    inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(VALUES)
    whole = json.dumps(said).encode()
    return data.draw(
        st.just(whole) | st.binary(max_size=40) | st.integers(0, 2000).map(lambda cut: whole[:cut])
        | st.just(b"[" * 5000)
    )  # fmt: skip


@QUICK
@given(data=st.data())
def test_a_hostile_sidecar_never_gives_another_plan(data: st.DataObject, folder: Path) -> None:
    cached_plan(KEY, Made)
    sidecar = folder / f"{KEY.name}.json"
    sidecar.write_bytes(changed(json.loads(sidecar.read_text()), data))
    format_list(kept_plans(folder), folder, 10**18)
    assert cached_plan(KEY, Made).plan == Made.plan


@QUICK
@given(place=st.integers(0, len(Made.plan) - 1), value=st.integers(0, 255), cut=st.integers(0, 3))
def test_a_changed_plan_is_built_anew(folder: Path, place: int, value: int, cut: int) -> None:
    cached_plan(KEY, Made)
    path = folder / f"{KEY.name}.plan"
    data = bytearray(path.read_bytes())
    data[place] = value
    path.write_bytes(data[: len(data) - cut])
    assert cached_plan(KEY, Made).plan == Made.plan


@QUICK
@given(data=st.binary(max_size=80), flip=st.integers(0, 255))
def test_a_changed_blob_is_none_or_what_was_written(folder: Path, data: bytes, flip: int) -> None:
    assert write_blob(KEY, "timing", b"what a library wants to see again")
    (path,) = folder.glob("*.timing")
    whole = bytearray(path.read_bytes())
    whole[flip % len(whole)] ^= flip
    for hostile in (bytes(whole), data):
        path.write_bytes(hostile)
        assert read_blob(KEY, "timing") in (None, b"what a library wants to see again")
