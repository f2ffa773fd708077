"""A patient's adaptation in a running pipeline: taken over and given up while a client counts every frame."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import contrastream
from calib.intensity import default_tables
from calib.patient_facts import PatientFacts, levels_name, new_key
from calib.patient_gate import make_gate
from casgan.patient_file import adapted_names, save_patient
from engines.model import load_model
from engines.reference import load_reference
from engines.taught_domain import features_of

pytestmark = pytest.mark.timeout(300)

MODEL = "compact-s"
LONG_S = 120.0
"""The machine may be busy: nothing here is about how long it takes."""


def made(path: Path, gate: Any, table: np.ndarray) -> str:
    """An adaptation that changes weights by chance; returns its key."""
    model = load_model(MODEL)
    general = load_reference(model).network
    adapted, random = copy.deepcopy(general), torch.Generator().manual_seed(0)
    weights = adapted.state_dict()
    for name in adapted_names(general):
        weights[name] = weights[name] + 0.003 * torch.randn(weights[name].shape, generator=random)
    adapted.load_state_dict(weights)
    facts = PatientFacts(model.card.sha256, new_key(), levels_name(table), "10:15", 90, 4.0, 0.8, 0.6)
    save_patient(path, general, adapted, gate, facts)
    return facts.key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, loop_frames: np.ndarray) -> dict[str, tuple[str, str]]:
    """By name the path and key of adaptations for the loop: two that fit, one for other grey levels, one for another projection."""
    folder = tmp_path_factory.mktemp("patients")
    own = features_of(MODEL, ((256, frame) for frame in loop_frames), threads=1)
    turned = features_of(MODEL, ((256, np.ascontiguousarray(frame.T)) for frame in loop_frames), threads=1)
    gate, elsewhere = (make_gate(some[:28], some[28:]) for some in (own, turned))
    levels = default_tables(8)[0]
    kinds = {
        "first": (gate, levels),
        "second": (gate, levels),
        "greys": (gate, np.asarray(levels**2, np.float32)),
        "elsewhere": (elsewhere, levels),
    }
    found = {}
    for name, (its_gate, table) in kinds.items():
        path = folder / f"{name}.safetensors"
        found[name] = (str(path), made(path, its_gate, table))
    return found


def drawn_by(key: str | None) -> Any:
    def found(line: dict[str, Any]) -> bool:
        return line["what"] == "frame" and line["state"] == "SYNTHETIC" and line["adaptation"] == key

    return found


def test_a_running_stream_takes_adaptations_over_without_losing_a_frame(
    files: dict[str, tuple[str, str]],
    start: Any,
    record: Any,
    loop: Path,
    endpoint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (first, first_key), (second, second_key) = files["first"], files["second"]
    running = start(
        "run",
        str(loop),
        "--loop",
        "--rate",
        "6",
        "--model",
        MODEL,
        "--patient",
        first,
        "--endpoint",
        endpoint,
    )
    client = record(endpoint)
    client.wait_for(drawn_by(first_key), within_s=LONG_S, what="a frame of the first adaptation")
    engine = running.child("stream.infer")

    def patient(what: str) -> int:
        return contrastream.main(["patient", what, "--endpoint", endpoint])

    assert patient(second) == 0
    assert "patient-adapted, run of 10:15, projection not known: ready in" in capsys.readouterr().out
    client.wait_for(drawn_by(second_key), since=client.mark(), within_s=LONG_S, what="a frame of the second")
    assert patient(files["greys"][0]) == 2
    assert (
        "needed an adaptation that was taught with the grey levels of this stream" in capsys.readouterr().err
    )
    client.wait_for(drawn_by(second_key), since=client.mark(), within_s=LONG_S, what="the second still")
    assert patient("off") == 0
    client.wait_for(drawn_by(None), since=client.mark(), within_s=LONG_S, what="the general model")
    assert patient(files["elsewhere"][0]) == 0

    def is_refused(line: dict[str, Any]) -> bool:
        said = line["what"] == "heartbeat" and line["adaptation"]
        return bool(said) and str(said["why_general"]).startswith("projection: the picture is unlike")

    client.wait_for(is_refused, within_s=LONG_S, what="the gate's word")
    client.wait_for(drawn_by(None), since=client.mark(), within_s=LONG_S, what="the general model again")

    frames = client.of("frame")
    numbers = [frame["publication"] for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    sequences = [frame["sequence"] for frame in frames]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert client.of("heartbeat")[-1]["counters"]["dropped"] == {}
    assert running.child("stream.infer") == engine, "the swap took another engine process"
    assert all(frame["adaptation"] is None for frame in frames if frame["state"] != "SYNTHETIC")
    printed = running.end()
    assert running.process.returncode == 0
    assert "safetensors" not in printed + str(client.lines), "a file's name may be a patient's"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("first", r"must be for the model in use, e882970877e9, got one for 3cb3c13746b6; teach it again"),
        (
            "broken",
            r"broken.safetensors must be an adaptation's safetensors file, got something else or a damaged one",
        ),
        ("none", r"needed an adaptation, none.safetensors cannot be read: No such file"),
    ],
    ids=["another model's", "broken", "none"],
)
@pytest.mark.parametrize("command", ["run", "replay"])
def test_a_file_that_does_not_fit_ends_the_command_before_anything_starts(
    files: dict[str, tuple[str, str]],
    name: str,
    said: str,
    command: str,
    tmp_path: Path,
    loop: Path,
    endpoint: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = Path(files[name][0]) if name in files else tmp_path / f"{name}.safetensors"
    if name == "broken":
        path.write_bytes(Path(files["first"][0]).read_bytes()[:-7])
    assert contrastream.main([command, str(loop), "--patient", str(path), "--endpoint", endpoint]) == 2
    error = capfd.readouterr().err
    assert re.search(said, error), error
    assert not Path(endpoint.removeprefix("ipc://") + ".control").exists()
