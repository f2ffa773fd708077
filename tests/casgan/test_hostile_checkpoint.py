"""Checkpoints and segmenters that another hand has been in: read, or refused in a sentence; nothing in them is run."""

import contextlib
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.errors import CheckpointError
from casgan.segmenter import VesselSegmenter, load_segmenter, save_segmenter

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONFIG = TrainConfig(preset="compact-s", size=64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small checkpoint's bytes."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoint.save(folder, CONFIG, {"step": 3, "weights": torch.arange(5.0), "names": ["a", "b"]})
    return (folder / checkpoint.NAME).read_bytes()


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A small segmenter's file and its card."""
    path = tmp_path_factory.mktemp("segmenter") / "s.safetensors"
    save_segmenter(VesselSegmenter(1), path, {"data": "nothing", "base": 1})
    return path.read_bytes(), path.with_suffix(".json").read_bytes()


def hostile(whole: bytes, data: st.DataObject) -> bytes:
    """Some bytes replaced, and perhaps the end cut off."""
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + data.draw(st.binary(max_size=8)) + whole[place + data.draw(st.integers(0, 8)) :]
    return changed[: data.draw(st.integers(0, len(changed)) | st.just(len(changed)))]


@QUICK
@given(data=st.data())
def test_a_mutated_checkpoint_is_read_or_refused(data: st.DataObject, saved: bytes, tmp_path: Path) -> None:
    (tmp_path / checkpoint.NAME).write_bytes(hostile(saved, data))
    with contextlib.suppress(CheckpointError):  # anything else is a fault
        config, _state = checkpoint.load(tmp_path)
        assert isinstance(config, TrainConfig)


@QUICK
@given(data=st.data())
def test_a_mutated_pickle_inside_a_whole_archive_is_read_or_refused(
    data: st.DataObject, saved: bytes, tmp_path: Path
) -> None:
    # The archive's CRC would catch it first; a hostile writer makes a right one.
    path = tmp_path / checkpoint.NAME
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = [name for name in members if name.endswith("data.pkl")]
    members[pickled] = hostile(members[pickled], data)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with contextlib.suppress(CheckpointError):
        checkpoint.load(tmp_path)


class Touch:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"config": Touch(ran)}, tmp_path / checkpoint.NAME, pickle_module=pickle)
    with pytest.raises(CheckpointError, match="must be a checkpoint of this version"):
        checkpoint.load(tmp_path)
    assert not ran.exists()


@QUICK
@given(data=st.data())
def test_a_mutated_segmenter_is_refused(
    data: st.DataObject, segmenter: tuple[bytes, bytes], tmp_path: Path
) -> None:
    weights, card = segmenter
    path = tmp_path / "s.safetensors"
    in_card = data.draw(st.booleans())
    path.write_bytes(weights if in_card else hostile(weights, data))
    path.with_suffix(".json").write_bytes(hostile(card, data) if in_card else card)
    with contextlib.suppress(CheckpointError):
        load_segmenter(path)


@pytest.mark.parametrize("said", ["[" * 100_000, '{"base": 1e999}', "null", json.dumps({"base": 2**70})])
def test_a_card_that_is_none_is_refused(said: str, segmenter: tuple[bytes, bytes], tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    path.write_bytes(segmenter[0])
    path.with_suffix(".json").write_text(said)
    with pytest.raises(CheckpointError):
        load_segmenter(path)
