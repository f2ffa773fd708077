"""Presets that no model is shipped of, by name, with random weights."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from casgan.presets import PRESETS, PresetConfig
from engines import untaught
from engines.engine import EngineSpec
from engines.errors import EngineError, ModelError
from engines.model import load_model
from engines.open import open_engine
from engines.untaught import find_model


@pytest.fixture(autouse=True)
def tiny(tiny_preset: PresetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small preset that no model is shipped of; returns where its model is kept."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_preset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    untaught.warn_once.cache_clear()
    return tmp_path / "contrastream" / "untaught" / "tiny.onnx"


def test_it_is_made_once_and_kept(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_model("tiny", untaught=True)
    assert (first.path, first.card.preset, first.card.taught) == (tiny, "tiny", False)
    assert tiny.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["tiny.json", "tiny.onnx"]
    with monkeypatch.context() as without:
        without.setattr(untaught, "_make", lambda *_: pytest.fail("made again"))
        assert find_model("tiny", untaught=True) == first
    tiny.unlink()
    assert find_model("tiny", untaught=True).card == first.card, "other weights than the first time"


@pytest.mark.parametrize("harm", ["cut off", "another version", "no sidecar"])
def test_one_that_does_not_hold_is_made_anew(tiny: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_model("tiny", untaught=True)
    if harm == "cut off":
        tiny.write_bytes(tiny.read_bytes()[:-1])
    elif harm == "no sidecar":
        tiny.with_suffix(".json").unlink()
    else:
        monkeypatch.setattr(untaught, "recipe", lambda: "of another")
    again = find_model("tiny", untaught=True)
    assert load_model(tiny) == again
    assert (again.card.sha256 == first.card.sha256) is (harm != "another version")


def test_it_runs_by_name_and_is_never_taught(tiny: Path) -> None:
    with pytest.raises(
        ModelError, match=r"none of the preset tiny is shipped: train one, .* or pass --untaught"
    ):
        open_engine("tiny", EngineSpec(64, 64), "openvino")
    assert not tiny.exists()
    opened = open_engine("tiny", EngineSpec(64, 64), "openvino", untaught=True)
    assert opened.engine.taught is False
    assert opened.engine.model_sha256 == load_model(tiny).card.sha256
    opened.engine.close()


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_what_makes_it_is_named_where_it_is_missing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(
        EngineError,
        match=rf'random weights is made by torch and onnx, and {package} is not .*"\.\[train\]"',
    ):
        find_model("tiny", untaught=True)


def test_a_disk_that_is_full_costs_only_the_keeping(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_whole = untaught.write_whole

    def full(path: Path, content: bytes) -> None:
        if path == tiny:
            raise OSError(28, "No space left on device")
        write_whole(path, content)

    monkeypatch.setattr(untaught, "write_whole", full)
    made = find_model("tiny", untaught=True)
    assert made.path != tiny
    assert load_model(made.path) == made
    assert list(tiny.parent.iterdir()) == []
    assert "are not kept, so every start makes them anew: " in caplog.text
    assert "No space left on device" in caplog.text
    assert find_model("tiny", untaught=True) == made


def test_no_room_anywhere_is_a_sentence(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(untaught, "write_whole", full)
    monkeypatch.setattr(untaught, "_passing_folder", lambda: tiny.parent)
    with pytest.raises(
        EngineError, match=r"needed room for the model tiny\.onnx .* No space left .*set TMPDIR"
    ):
        find_model("tiny", untaught=True)
