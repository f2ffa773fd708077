"""A model from elsewhere is opened only where the user trusts it, and never reads another file."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import ModelError
from engines.model import MODELS, ModelCard, file_sha256, load_model, save_card
from engines.onnx_parts import check_one_file
from engines.trust import SHIPPED, is_trusted, trust_list, trust_model

onnx = pytest.importorskip("onnx", reason="makes the models of these tests; extra train")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _nothing_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def model_bytes(*, external: str = "", in_attribute: bool = False) -> bytes:
    """A small ONNX model; with `external` its weights lie in that file."""
    weights = onnx.numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
    if external:
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=external)
    node = (
        onnx.helper.make_node("Constant", [], ["y"], value=weights)
        if in_attribute
        else onnx.helper.make_node("Identity", ["w"], ["y"])
    )
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 4])
    graph = onnx.helper.make_graph([node], "g", [], [output], [] if in_attribute else [weights])
    return onnx.helper.make_model(graph).SerializeToString()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A model from elsewhere: whole, with its card, and unknown here."""
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model_bytes())
    save_card(ModelCard("compact", 64, 0.1, True), path)
    trust_list().unlink()  # another machine made it
    return path


def test_the_shipped_models_are_known_by_their_hash() -> None:
    assert {file_sha256(path): path.stem for path in MODELS.glob("*.onnx")} == SHIPPED
    assert load_model("compact").card.sha256 in SHIPPED


def test_a_model_from_elsewhere_is_refused_with_its_hash(foreign: Path) -> None:
    with pytest.raises(ModelError, match=f"a file from elsewhere.*{file_sha256(foreign)}.*--trust-model"):
        load_model(foreign)


def test_a_trusted_model_is_remembered_by_its_hash_wherever_it_lies(foreign: Path, tmp_path: Path) -> None:
    assert file_sha256(foreign) in trust_model(foreign)
    assert trust_list().stat().st_mode & 0o777 == 0o600
    assert load_model(foreign).path == foreign
    other = tmp_path / "other.onnx"
    shutil.copy(foreign, other)
    shutil.copy(foreign.with_suffix(".json"), other.with_suffix(".json"))
    assert load_model(other).path == other
    assert str(tmp_path) not in trust_list().read_text()


def test_what_was_made_here_is_trusted_until_it_changes(foreign: Path) -> None:
    card = save_card(ModelCard("compact", 64, 0.1, True), foreign)
    assert is_trusted(card.sha256)
    load_model(foreign)
    foreign.write_bytes(foreign.read_bytes() + b"\x72\x00")
    with pytest.raises(ModelError, match="it was cut off or changed"):
        load_model(foreign)


def test_a_list_that_others_may_write_is_refused(foreign: Path) -> None:
    trust_model(foreign)
    trust_list().chmod(0o666)
    with pytest.raises(ModelError, match="must be written by you alone"):
        load_model(foreign)


@pytest.mark.parametrize("in_attribute", [False, True], ids=["initializer", "attribute"])
@pytest.mark.parametrize("external", ["/etc/passwd", "../weights.bin", "weights.bin"])
def test_weights_in_another_file_are_refused_even_if_trusted(
    foreign: Path, external: str, in_attribute: bool
) -> None:
    foreign.write_bytes(model_bytes(external=external, in_attribute=in_attribute))
    save_card(ModelCard("compact", 64, 0.1, True), foreign)
    with pytest.raises(ModelError, match="a tensor whose data lie in another file"):
        load_model(foreign)


def test_the_shipped_models_are_one_file_each() -> None:
    for path in MODELS.glob("*.onnx"):
        check_one_file(memoryview(path.read_bytes()), path.name)


WHOLE = model_bytes(external="weights.bin", in_attribute=True)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_hostile_bytes_are_refused_or_passed_but_never_crash(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        hostile = data.draw(st.binary(max_size=200))
    else:
        place = data.draw(st.integers(0, len(WHOLE) - 1))
        hostile = (
            WHOLE[:place] + data.draw(st.binary(max_size=8)) + WHOLE[place + data.draw(st.integers(0, 8)) :]
        )
    with contextlib.suppress(ModelError):
        check_one_file(memoryview(hostile), "hostile.onnx")


def test_a_graph_that_is_nested_without_end_is_refused() -> None:
    part = b""
    for _ in range(40):  # graph -> node -> attribute -> graph ...
        for key in (b"\x32", b"\x2a", b"\x0a"):
            part = key + _length(len(part)) + part
    with pytest.raises(ModelError, match="32 deep"):
        check_one_file(memoryview(b"\x3a" + _length(len(part)) + part), "deep.onnx")


def _length(number: int) -> bytes:
    said = b""
    while number > 0x7F:
        said += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return said + bytes((number,))


def test_a_file_that_claims_to_be_huge_is_not_read(foreign: Path) -> None:
    os.truncate(foreign, 5 << 30)  # sparse: no disk is used
    with pytest.raises(ModelError, match=r"at most 1024 MiB, got foreign\.onnx of 5120 MiB"):
        load_model(foreign)


CARD = (MODELS / "compact.json").read_bytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_hostile_card_is_refused_in_a_sentence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("card")
    (folder / "m.onnx").write_bytes(b"")
    json_values = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    facts = json.loads(CARD)
    facts["domain"] = None
    facts[data.draw(st.sampled_from(sorted(facts)))] = data.draw(json_values)
    hostile = data.draw(
        st.one_of(st.binary(max_size=100), st.just(json.dumps(facts).encode()), st.just(b"[" * 100_000))
    )
    (folder / "m.json").write_bytes(hostile)
    with pytest.raises(ModelError):
        load_model(folder / "m.onnx")


@pytest.mark.parametrize(
    "said",
    [[692313, 10**400], [1.0], [0.0, float("inf")], ["0", "1"]],
    ids=["endless", "one", "infinite", "words"],
)
def test_a_value_range_that_is_no_two_numbers_is_refused(said: list[Any], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "m.json").write_text(json.dumps(json.loads(CARD) | {"value_range": said}))
    with pytest.raises(ModelError, match="needs value_range as two numbers"):
        load_model(tmp_path / "m.onnx")


def test_whole_numbers_are_a_value_range(foreign: Path) -> None:
    card = foreign.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"value_range": [-1, 1]}))
    found = load_model(foreign, trusted=True).card.value_range
    assert found == (-1.0, 1.0)
    assert all(type(each) is float for each in found)


def test_the_command_says_what_it_trusts_and_runs_it_from_then_on(foreign: Path, tmp_path: Path) -> None:
    def synthesize(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "contrastream", "synthesize", "phantom", "--frames", "1", "--size", "64", "--model",
             str(foreign), "--out", str(tmp_path / "out"), "--overwrite", *more],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    shutil.copy(MODELS / "compact-s.onnx", foreign)
    with foreign.open("ab") as file:
        file.write(b"\x32\x00")  # an empty doc string: the same graph in other bytes
    save_card(load_model("compact-s").card, foreign)
    trust_list().unlink()
    refused = synthesize()
    assert refused.returncode == 2
    assert "run once with --trust-model" in refused.stderr.splitlines()[-1]
    trusted = synthesize("--trust-model")
    assert trusted.returncode == 0, trusted
    assert f"contrastream: model {file_sha256(foreign)} (compact-s) is trusted from here on" in trusted.stderr
    assert synthesize().returncode == 0
