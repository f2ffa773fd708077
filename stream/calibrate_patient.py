"""The command `calib patient`: one patient's recording into an adaptation of the model, with a picture of what it learned.

recordings -> contrast-free | filled, heartbeat, breath -> pairs -> teaching -> out.safetensors, out.png
"""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from calib.bolus import Bolus, tell_bolus
from calib.config import CalibPatientConfig
from calib.errors import CalibrationError
from calib.filling import connected_line_share, dark_line_share
from calib.heart_phase import CLEAR, HeartPhase, heart_phase
from calib.patient_facts import PatientFacts, new_key
from calib.patient_gate import make_gate
from calib.record import write_files
from stream.patient_look import GraphLook
from stream.patient_recording import PatientRecording, read_patient_recordings
from stream.site import open_site
from stream.sources.options import SourceOptions, parse_crop

if TYPE_CHECKING:
    from casgan.adapt import Taught
    from casgan.networks import Generator
    from casgan.patient_lessons import PatientLessons

NOTICE = "Research tool, not a medical device."
SHOWN = 5
"""Held-out frames in the picture."""
STATE_COLOURS = {
    "before": "tab:green",
    "filling": "tab:orange",
    "filled": "tab:red",
    "washing out": "tab:purple",
}


def patient(config: CalibPatientConfig) -> int:
    """`contrastream calib patient`.

    Raises:
        CalibrationError: No injection in the recordings, or too little of them.
        DataError: Too few heartbeats.
        SourceError: A recording cannot be read.
        CheckpointError: The segmenter or the output file cannot be used.
    """
    import cv2
    import torch

    from casgan.adapt import AdaptSettings, adapt, held_dice
    from casgan.device import best_device
    from casgan.patient_file import save_patient
    from casgan.patient_lessons import held_out, patient_lessons
    from casgan.patient_masks import recording_masks
    from casgan.phantom_moments import COMPANY
    from casgan.segmenter import MOMENTS, load_segmenter
    from engines.model import load_model
    from engines.reference import load_reference

    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    began = time.monotonic()
    file = load_model(config.model)
    reference = load_reference(file)
    general = reference.network
    segmenter = load_segmenter(config.segmenter or MOMENTS, (1, COMPANY)).to(best_device())
    size = file.card.network_size
    options = _options(config)
    site = open_site(config.site, options, model=config.model)
    look = GraphLook(file, site, config.threads)
    try:
        with _bar(None, "reading", "frames") as bar:
            recording = read_patient_recordings(
                config.recordings,
                options,
                size,
                look,
                None if site is None else site.blank_json,
                lambda done, total: bar.update(done - bar.n),
            )
    finally:
        look.close()
    bolus, heart = told(recording)
    print(bolus.describe())
    print(
        f"{heart.beats:.1f} heartbeats of {heart.frames_per_beat:.1f} frames, seen with clearness {heart.clear:.2f}"
    )
    if heart.clear < CLEAR:
        raise CalibrationError(
            f"needed a heartbeat that can be seen (clearness {CLEAR} or more), got {heart.clear:.2f}; record longer, with "
            "the heart in the field and the table still"
        )

    def masks_of(filled: np.ndarray, beside: np.ndarray) -> np.ndarray:
        return np.asarray(recording_masks(segmenter, recording.clear, filled, beside) & recording.field)

    lessons = patient_lessons(recording.grey, bolus, heart, masks_of)
    settings = AdaptSettings(steps=config.steps, seconds=config.seconds)
    with _bar(settings.steps, "teaching", "steps") as bar:

        def progress(step: int, steps: int, dice: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix_str(f"held-out Dice {dice:.3f}", refresh=False)

        taught = adapt(general, lessons.learn, lessons.held, settings, file.card.threshold, progress)
    before = held_dice(general, lessons.held)
    after = held_dice(taught.generator, lessons.held)
    if after <= before:
        raise CalibrationError(
            f"needed an adaptation that draws the held-out heartbeat better than the general model (Dice {before:.3f}), got "
            f"{after:.3f}; nothing was written: record a longer run, or give a --segmenter that knows these vessels"
        )
    free = np.flatnonzero(bolus.free)
    held = held_out(len(free), heart)
    gate = make_gate(recording.features[free[~held]], recording.features[free[held]])
    facts = PatientFacts(
        model_sha256=file.card.sha256,
        key=new_key(),
        levels_sha256=recording.levels_sha256,
        taught_at=time.strftime("%H:%M"),
        steps=taught.steps,
        beats=lessons.beats,
        held_dice=after,
        general_dice=before,
        **dict(zip(("primary_deg", "secondary_deg"), recording.angles_deg or (None, None), strict=True)),
    )
    picture = config.out.with_suffix(".png")
    write_files({picture: plot(recording, bolus, heart, lessons, general, taught)}, private=True)
    size_bytes = save_patient(config.out, general, taught.generator, gate, facts)
    print(
        f"taught on {len(lessons.learn)} pairs of {lessons.beats:.1f} filled heartbeats, {taught.steps} steps in "
        f"{taught.seconds:.0f} s ({time.monotonic() - began:.0f} s with reading)\n"
        f"held-out heartbeat, Dice against its segmented vessels: general model {before:.3f}, adapted {after:.3f}; it also "
        "said when to stop, so frames that it has not seen will be a little worse\n"
        f"{facts.describe()}\n"
        f"written  {config.out} ({size_bytes / 1e6:.1f} MB; no picture, name or date of the patient is in it, but weights that were taught on them)\n"
        f"use it   contrastream run SOURCE --patient {config.out}; in a run that goes on: contrastream patient {config.out}\n"
        f"look at  {picture}, which shows frames of the patient: keep it as you keep the recording\n{NOTICE}"
    )
    return 0


def told(recording: PatientRecording) -> tuple[Bolus, HeartPhase]:
    """When contrast medium is in the recording, and heartbeat and breath of each frame."""
    areas = [dark_line_share(frame, recording.field) for frame in recording.clear]
    trees = [connected_line_share(frame, recording.field) for frame in recording.clear]
    bolus = tell_bolus(areas, trees)
    return bolus, heart_phase(recording.clear, recording.field, recording.rate_hz)


def _options(config: CalibPatientConfig) -> SourceOptions:
    return SourceOptions(
        rate_hz=config.rate,
        crop=None if config.crop is None else parse_crop(config.crop),
        gray=config.gray,
        bits=config.bits,
        untimed=True,
    )


def plot(
    recording: PatientRecording,
    bolus: Bolus,
    heart: HeartPhase,
    lessons: "PatientLessons",
    general: "Generator",
    taught: "Taught",
) -> bytes:
    """What was told apart and what was learned, as a PNG; it shows frames of the patient."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from casgan.adapt import drawn
    from casgan.vessel_metrics import DRAWN

    figure, axes = plt.subplots(4, SHOWN, figsize=(15, 13), layout="constrained")
    for row in axes[:1].flat:
        row.remove()
    over = figure.add_subplot(axes[0, 0].get_gridspec()[0, :])
    over.plot(100.0 * bolus.areas, "k-", label="vessel area, %")
    for number, state in enumerate(bolus.states):
        over.axvspan(number - 0.5, number + 0.5, color=STATE_COLOURS.get(state, "tab:blue"), alpha=0.25, lw=0)
    over.set(
        xlabel="frame (green before, orange filling, red filled, purple washing out, blue after)",
        ylabel="% of the picture",
    )
    other = over.twinx()
    other.plot(heart.phase, ":", color="tab:blue", label="heartbeat")
    other.plot(0.5 + 0.15 * heart.breath, "-", color="tab:brown", label="breath")
    other.set_yticks([])
    over.legend(*_lines_of(over, other), loc="upper left")
    held = lessons.held
    chosen = np.linspace(0, len(held) - 1, SHOWN).round().astype(int)
    rows = {
        "vessels of that moment": held.masks[chosen],
        "general model": drawn(general, held.plain[chosen]) > DRAWN,
        "adapted": drawn(taught.generator, held.plain[chosen]) > DRAWN,
    }
    for line, (name, masks) in zip(axes[1:], rows.items(), strict=True):
        for place, number, mask in zip(line, chosen, masks, strict=True):
            place.imshow(held.plain[number], cmap="gray", vmin=0, vmax=255)
            place.contour(mask, [0.5], colors="red", linewidths=0.8)
            place.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    best_step, best_dice = max(taught.history, key=lambda look: look[1])
    figure.suptitle(
        f"held-out contrast-free frames: Dice {taught.history[0][1]:.2f} before, {best_dice:.2f} at step {best_step} of {taught.steps}"
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    plt.close(figure)
    return content.getvalue()


def _lines_of(*axes: Any) -> tuple[list[Any], list[str]]:
    """What a legend of several axes shows."""
    lines = [line for each in axes for line in each.get_lines()]
    return lines, [line.get_label() for line in lines]


@contextmanager
def _bar(total: int | None, description: str, unit: str) -> Iterator[Any]:
    from tqdm import tqdm

    # disable=None: no bar where nobody watches.
    with tqdm(
        total=total, desc=description, unit=f" {unit}", file=sys.stderr, disable=None, leave=False
    ) as bar:
        yield bar
