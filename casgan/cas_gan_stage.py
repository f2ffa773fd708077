"""The stage that gives the method its name: unpaired frames, adversarial, all terms."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from casgan.adversarial import persuasion, verdicts
from casgan.config import TrainConfig
from casgan.data import Batch as Known
from casgan.data import Pairs, augmented_batch
from casgan.discriminators import Discriminators, Views, views
from casgan.losses import (
    attention_area,
    darkening,
    image_cycle,
    latent_cycle,
    moved,
    prediction,
    reconstruction,
    shift_consistency,
    total_error,
)
from casgan.networks import LivePath
from casgan.paired_stages import networks_of
from casgan.schedule import adversarial_rate, ramp
from casgan.segmenter import VesselSegmenter, softened
from casgan.stage import (
    CLIP_UNPAIRED,
    Average,
    Learner,
    Losses,
    adam,
    checked,
    hold_norms,
    with_statistics_of,
)
from casgan.training_networks import BLACK, Batch, Pass
from casgan.unpaired import Unpaired, augmented_unpaired, plain_batch

HUSH = 0.02
"""Standard deviation of the noise on y_g and x_g before they are encoded again, of grey levels -1 to 1."""
SHIFTS = 7
"""Shift consistency moves a picture by up to this many pixels each way."""
RAMP = 0.33
"""Share of the steps over which shift consistency comes in."""

Mask = Float[Tensor, "b 1 h w"]
Segment = Callable[[Float[Tensor, "b 1 h w"], torch.Generator], Mask]
"""Where vessels are, 0 to 1, as D_Sem is to see it."""


class CasGanStage:
    """Stage 3. First the generator's side learns, then the discriminators on the same pictures.

    Args:
        fabric: Devices, processes, precision.
        config: The run.
        data: Frames of both domains.
        start: Weights of the stage before.
        segmenter: The frozen vessel U-Net; None without VSGL.
        pairs: Phantom pairs that hold the placement; None: nothing does.
    """

    name = "cas-gan"

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        data: Unpaired,
        start: dict[str, dict[str, Tensor]],
        segmenter: VesselSegmenter | None,
        pairs: Pairs | None,
    ) -> None:
        self.steps = config.steps
        self.fabric, self.config, self.data, self.pairs = fabric, config, data, pairs
        networks = networks_of(config, start).to(memory_format=torch.channels_last)
        judges = Discriminators(config.discriminator_width, semantic=segmenter is not None)
        self.networks = Learner(
            fabric, networks, adam(networks, config.gan_learning_rate, fabric), CLIP_UNPAIRED
        )
        self.judges = Learner(fabric, judges, adam(judges, config.gan_learning_rate, fabric), CLIP_UNPAIRED)
        if config.frozen_norms:
            hold_norms(networks)
        self.running = Average(networks.generator, config.gan_ema)
        self.segment: Segment | None = None
        if segmenter is not None:
            self.segment = softened_segments(segmenter.to(fabric.device), fabric)

    def step(self, index: int, draw: torch.Generator) -> Losses:
        count = self.config.batch
        x, x_field, y, y_field = augmented_unpaired(self.data, count, draw)
        down, right = (int(v) for v in torch.randint(-SHIFTS, SHIFTS + 1, (2,), generator=draw))
        hush = HUSH * torch.randn(2 * count, *x.shape[1:], generator=draw)
        some = max(1, count // 2)
        known = None if self.pairs is None else augmented_batch(self.pairs, some, draw)
        if known is not None:
            known = tuple(part.to(self.fabric.device) for part in known)
        anchor = x[:0] if known is None else known[0]
        batch = Batch(x, x_field, y, y_field, moved(x[:some], down, right), hush, anchor)
        batch = Batch(*(part.to(self.fabric.device) for part in batch))
        return self.learn(index, batch, (down, right), draw, known)

    def learn(
        self,
        index: int,
        batch: Batch,
        shift: tuple[int, int],
        draw: torch.Generator,
        known: Known | None = None,
    ) -> Losses:
        """Both halves of a step on a batch that is given, `known` being the pairs of its anchor."""
        made: Pass = self.networks.wrapped(batch)
        seen = self._seen(batch, made, draw)
        rate = adversarial_rate(index, self.steps, self.config.gan_learning_rate)

        terms = self._pictures_and_latents(batch, made, shift) | persuasion(
            self.fabric, self.judges.module, seen
        )
        if known is not None:
            logits = made.anchor_attention, made.anchor_context
            terms["anchor"] = total_error(*logits, *known, self.config.threshold)
        losses = checked(self.fabric, terms)
        weights = self._weights(index)
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        norm = self.networks.learn(total, rate, "the generator's side")
        self.running.update(self.networks.module.generator)

        judged = verdicts(self.judges, seen)
        losses |= checked(self.fabric, judged)
        doubt = torch.stack(list(judged.values())).sum()
        judges_norm = self.judges.learn(doubt, rate * self.config.discriminator_rate, "the discriminators")
        return losses | {"gradient": norm, "gradient_d": judges_norm, "rate": rate}

    def _seen(self, batch: Batch, made: Pass, draw: torch.Generator) -> dict[str, Views]:
        """What each discriminator is shown."""
        fields = batch.x_field, batch.y_field
        seen = {
            "d_x": views(batch.x, fields[0], made.x_g, fields[1], BLACK),
            "d_y": views(batch.y, fields[1], made.y_g, fields[0], BLACK),
        }
        if self.segment is not None:
            with torch.no_grad():
                real = self.segment(batch.y, draw)
            seen["d_sem"] = views(real, fields[1], self.segment(made.y_g, draw), fields[0], 0.0)
        return seen

    def _pictures_and_latents(
        self, batch: Batch, made: Pass, shift: tuple[int, int]
    ) -> dict[str, Float[Tensor, ""]]:
        """All terms but the adversarial ones."""
        x, x_field, y, y_field = batch[:4]
        layer = made.y_g[: len(made.moved)] - x[: len(made.moved)]
        terms = {
            "cycle_x": image_cycle(made.x_cycle, x, x_field),
            "cycle_y": image_cycle(made.y_cycle, y, y_field),
            "reconstruct_x": reconstruction(made.x_rec, x, x_field),
            "sparsity": attention_area(made.attention, x_field),
            "darkening": darkening(made.y_g, x, x_field),
            "shift": shift_consistency(layer, made.moved - batch.x_moved, *shift),
        }
        if made.y_rec is not None and made.v_y is not None and made.v_y_g is not None:
            terms |= {
                "reconstruct_y": reconstruction(made.y_rec, y, y_field),
                "prediction": prediction(made.v_y_predicted, made.v_y),
                "latent": latent_cycle(made.z_x, made.z_y_g, made.z_y, made.z_x_g, made.v_x, made.v_y_g),
            }
        return terms

    def _weights(self, index: int) -> dict[str, float]:
        given = self.config.weights
        weights = {
            name: getattr(given, name)
            for name in ("cycle_x", "cycle_y", "reconstruct_x", "reconstruct_y", "prediction", "latent")
        }
        weights |= {name: getattr(given, name) for name in ("sparsity", "darkening", "anchor")}
        weights["shift"] = given.shift * ramp(index, self.steps, RAMP)
        weights |= dict.fromkeys(("persuade_d_x", "persuade_d_y"), given.adversarial)
        return weights | {"persuade_d_sem": given.semantic}

    def state(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state(),
            "judges": self.judges.state(),
            "running": self.running.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.networks.load_state(state["networks"])
        self.judges.load_state(state["judges"])
        self.running.load_state(state["running"])

    def handed_on(self) -> dict[str, dict[str, Tensor]]:
        return {"generator": self.networks.module.generator.state_dict()}

    def average(self) -> LivePath:
        frames = self.data.plain
        # Frames evenly over all runs, always the same: a checkpoint must not depend on when it was asked for.
        chosen = torch.linspace(0, len(frames) - 1, 64).round().long().unique()
        pictures = (plain_batch(frames, part)[0].to(self.fabric.device) for part in chosen.split(8))
        return with_statistics_of(self.running.generator, pictures)


def softened_segments(segmenter: VesselSegmenter, fabric: Fabric) -> Segment:
    """The frozen U-Net behind blur and noise, so that only what an eye could see counts as a vessel."""
    segmenter.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def segment(picture: Mask, draw: torch.Generator) -> Mask:
        with fabric.autocast():
            logits = segmenter(softened(picture, draw))
        return torch.sigmoid(logits.float())

    return segment
