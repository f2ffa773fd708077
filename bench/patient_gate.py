"""The gate of a patient's adaptation, where the truth is known: which frames of phantom patients it refuses.

    python -m bench.patient_gate --seeds 960 961 962 963 --out gate.json

Nothing is taught. The contrast-free frames of a recording make the gate, as in `contrastream calib patient`; then the same patient later,
as in `python -m bench.patient`: the taught projection, breaths deeper than any in the recording, vessels filled, the table moved, the C-arm turned.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.patient import AFTER_S, BEFORE_S, LASTS_S, MOVED_FRAMES, NEW_FRAMES, scenes, told
from calib.patient_gate import ROOM, SHRINKAGE, PatientGate, make_gate
from casgan.patient_phantom import PhantomPatient, moments

SCHEMA = "contrastream.patient-gate/1"
DEEP = (1.5, 2.0)
"""Of a breath, times the patient's own; the recording has 0.7 to 1.3."""


@dataclass(frozen=True)
class GateEvaluation:
    """Measure which frames of phantom patients the gate refuses."""

    out: Path
    """The figures, JSON."""
    seeds: tuple[int, ...] = (960, 961, 962, 963)
    """Phantom patients, below 1000: no model was taught on them. The gate's form was chosen on 960 to 963."""
    model: str = "compact"
    """Whose E_BG looks."""
    threads: int = 1
    """CPU threads."""


def main() -> int:
    """The command."""
    import tyro

    config = tyro.cli(GateEvaluation, prog="python -m bench.patient_gate")
    patients = []
    for seed in config.seeds:
        patients.append(one_patient(seed, config))
        print(f"{seed}: {patients[-1]['scenes']}", file=sys.stderr)
        report = {
            "schema": SCHEMA,
            "settings": asdict(config) | {"out": config.out.name, "room": ROOM, "shrinkage": SHRINKAGE},
            "machine": machine.describe(),
            "patients": patients,
        }
        config.out.write_text(json.dumps(report, indent=1, default=float) + "\n", encoding="utf-8")
    return 0


def one_patient(seed: int, config: GateEvaluation) -> dict[str, Any]:
    """Make the gate of one recording, and ask it of all that comes later."""
    from casgan.patient_lessons import held_out

    patient = PhantomPatient(seed)
    frames, _, _ = patient.recording(np.random.default_rng((seed, 0xADA)), BEFORE_S, LASTS_S, AFTER_S)
    bolus, heart = told(frames)
    free = np.flatnonzero(bolus.free)
    looked, held = looked_at(frames[free], config), held_out(len(free), heart)
    gate = make_gate(looked[~held], looked[held])
    found = {"held-out frames": refused(looked[held], gate)}
    for scene in scenes(patient, seed):
        found[scene.name] = refused(looked_at(scene.plain, config), gate)
    rng = np.random.default_rng((seed, 0xDEEF))
    at = moments(5 * MOVED_FRAMES, rng, DEEP)
    deep = [patient.picture(patient.pose(at, i), rng)[0] for i in range(0, 5 * MOVED_FRAMES, 5)]
    found["deeper breaths"] = refused(looked_at(np.stack(deep), config), gate)
    at = moments(NEW_FRAMES, rng)
    filled = [patient.picture(patient.pose(at, i), rng)[1] for i in range(0, NEW_FRAMES, 3)]
    found["vessels filled"] = refused(looked_at(np.stack(filled), config), gate)
    return {"seed": seed, "frames": len(free), "limit": gate.limit, "scenes": found}


def looked_at(frames: np.ndarray, config: GateEvaluation) -> np.ndarray:
    """What the live graph says of frames: (n, 71) features."""
    from engines.taught_domain import features_of

    size = frames.shape[1]
    return np.asarray(features_of(config.model, ((size, frame) for frame in frames), threads=config.threads))


def refused(features: np.ndarray, gate: PatientGate) -> dict[str, Any]:
    """How many frames are refused, and how far away they are, in limits."""
    far = gate.distances(features) / gate.limit
    return {
        "frames": len(far),
        "refused": int((far > 1.0).sum()),
        "nearest": float(far.min()),
        "farthest": float(far.max()),
    }


if __name__ == "__main__":
    sys.exit(main())
