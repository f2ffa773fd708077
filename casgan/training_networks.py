# mypy: allow-subclassing-any
"""What only training needs beside the live path: E_Vess, G_BG, and one pass through everything.

The layers are our choice, since the paper's are not known: E_Vess is built like E_BG, and G_BG is E_BG's
mirror image, its blocks first and then up, so that the latents of both domains have one shape.
"""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from casgan.layers import LinearUp, Residual, ShuffleUp
from casgan.networks import BackgroundEncoder, Generator, Head, blend
from casgan.presets import PresetConfig

BLACK = -1.0
"""Grey level outside the field."""
ALWAYS = 20.0
"""An attention logit whose sigmoid is 1."""

Picture = Float[Tensor, "b 1 h w"]
Latent = Float[Tensor, "b c h2 w2"]


class VesselEncoder(BackgroundEncoder):
    """E_Vess: an angiogram's vessels, in the latent that M predicts and G_Vess draws."""


class BackgroundDecoder(nn.Module):
    """G_BG: a contrast-free picture from the anatomy's latent."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        up = ShuffleUp if preset.shuffle_up else LinearUp
        widths = preset.widths[::-1]
        self.layers = nn.Sequential(
            *(Residual(widths[0]) for _ in range(preset.background_blocks)),
            *(up(wide, narrow) for wide, narrow in itertools.pairwise(widths)),
        )
        self.head = Head(preset, bias=0.0)

    def forward(self, z: Latent) -> Picture:
        return torch.tanh(self.head(self.layers(z)))


class Batch(NamedTuple):
    """Unpaired pictures of one step, -1 to 1, and the chance that belongs to them."""

    x: Picture
    """Contrast-free."""
    x_field: Picture
    """1 where x shows something, 0 outside the field."""
    y: Picture
    """Angiograms of other moments or patients."""
    y_field: Picture
    """The same of y."""
    x_moved: Picture
    """The first pictures of x, moved by some pixels: for shift consistency. May be fewer than x."""
    hush: Float[Tensor, "b2 1 h w"]
    """Noise for y_g, then x_g, before they are encoded again: a cycle must not hide a message in them."""
    anchor: Picture
    """Phantom pictures whose vessels are known, so that what was placed stays in place. May be none."""


class Pass(NamedTuple):
    """What one pass makes of a batch. The last three are None without DRL."""

    y_g: Picture
    """VSGG(x, M(E_BG(x)))."""
    attention: Picture
    """A_g, after the clamp and inside the field."""
    x_g: Picture
    """G_BG(E_BG(y))."""
    x_rec: Picture
    """G_BG(E_BG(x))."""
    x_cycle: Picture
    """G_BG(E_BG(y_g)), with no gradient into y_g."""
    y_cycle: Picture
    """VSGG(x_g, M(E_BG(x_g))), with no gradient into x_g."""
    moved: Picture
    """VSGG of x_moved."""
    z_x: Latent
    """E_BG(x)."""
    z_y: Latent
    """E_BG(y)."""
    z_y_g: Latent
    """E_BG(y_g), with no gradient into y_g."""
    z_x_g: Latent
    """E_BG(x_g), with no gradient into x_g."""
    v_x: Latent
    """M(E_BG(x))."""
    v_y_predicted: Latent
    """M of what `predict_from` says."""
    anchor_attention: Picture
    """Logits of A for the anchor."""
    anchor_context: Picture
    """Logits of C for the anchor."""
    y_rec: Picture | None
    """VSGG(x_g, E_Vess(y))."""
    v_y: Latent | None
    """E_Vess(y)."""
    v_y_g: Latent | None
    """E_Vess(y_g)."""


class CasGan(nn.Module):
    """All networks of the generator's side. `forward` is a whole pass, so that DDP sees one module.

    The switches of the poster's Table II, as we read them:

    without DRL: no shared latents. y -> x has an encoder of its own; there is no E_Vess, no prediction and
    no latent cycle. What remains are two encoder-decoders tied by the image cycles.
    without VSGG: A = 1 everywhere, so y_g = C, a plain generated picture. The attention head is frozen
    there, and the exported graph draws so too.

    No gradient enters x_g and y_g from the second round of E_BG. In the paper's y -> x -> y cycle M must find
    y's vessels in x_g, which rewards G_BG for hiding them there; here (x_g, y) is only a pair that the live
    path learns from. In x -> y -> x faint vessels are the easiest to take away again, which rewards drawing
    none; here (y_g, x) is only a pair that G_BG and E_BG learn from.

    Args:
        preset: Widths and scales.
        threshold: t of the attention's clamp.
        drl: Disentangled latents.
        vsgg: The vessels' blend.
        predict_from: What M reads in the prediction loss: "angiogram" is E_BG(y), as in the paper, where y
            shows its vessels; "emptied" is E_BG(x_g), where G_BG has taken them away.
    """

    def __init__(
        self,
        preset: PresetConfig,
        threshold: float,
        *,
        drl: bool = True,
        vsgg: bool = True,
        predict_from: str = "emptied",
    ) -> None:
        super().__init__()
        self.generator = Generator(preset)
        self.background_decoder = BackgroundDecoder(preset)
        self.vessel_encoder = VesselEncoder(preset) if drl else None
        self.other_encoder = None if drl else BackgroundEncoder(preset)
        self.threshold = threshold
        self.predict_from = predict_from
        self.vsgg = vsgg
        self.draw_everywhere()

    def draw_everywhere(self) -> None:
        """Without VSGG: freeze the attention head at A = 1. Call it again after weights were loaded."""
        if not self.vsgg:
            head = self.generator.attention.conv
            head.requires_grad_(False)
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, ALWAYS)

    def draw(
        self, x: Picture, field: Picture, attention_logit: Picture, context_logit: Picture
    ) -> tuple[Picture, Picture]:
        """VSGG: x with what the heads say, and the attention that drew it."""
        attention = drawn_attention(torch.sigmoid(attention_logit.float()), self.threshold) * field
        return blend(x, attention, torch.tanh(context_logit.float())), attention

    def empty(self, z: Latent, field: Picture) -> Picture:
        """G_BG, black outside the field."""
        return self.background_decoder(z).float() * field + BLACK * (1.0 - field)

    def forward(self, batch: Batch) -> Pass:
        """One pass. Passes through one network are joined where nothing stands between them."""
        x, x_field, y, y_field, x_moved, hush, anchor = batch
        count, moved, anchors = len(x), len(x_moved), len(anchor)
        encode, predict = self.generator.encode, self.generator.predict

        if self.other_encoder is None:
            z = encode(torch.cat([x, x_moved, anchor, y]))
            z_x, z_moved, z_anchor, z_y = z.split([count, moved, anchors, count])
            z_back = torch.cat([z_x, z_y])
        else:
            z = encode(torch.cat([x, x_moved, anchor]))
            z_x, z_moved, z_anchor = z.split([count, moved, anchors])
            z_back = self.other_encoder(torch.cat([x, y]))
            z_y = z_back[count:]
        x_rec, x_g = self.empty(z_back, torch.cat([x_field, y_field])).split(count)
        shown = x_g.detach()

        reads_y = self.vessel_encoder is not None and self.predict_from == "angiogram"
        v = predict(torch.cat([z_x, z_moved, z_anchor, z_y] if reads_y else [z_x, z_moved, z_anchor]))
        live = count + moved + anchors
        v_x, v_y_predicted = v[:count], v[live:]
        v_y = None if self.vessel_encoder is None else self.vessel_encoder(y)
        logits = self.generator.decode(v[:live] if v_y is None else torch.cat([v[:live], v_y]))
        parts = [plane.float().split([count, moved, anchors, len(plane) - live]) for plane in logits]
        (a_x, a_moved, a_anchor, a_y), (c_x, c_moved, c_anchor, c_y) = parts
        y_g, attention = self.draw(x, x_field, a_x, c_x)

        again = [y_g.detach() + hush[:count], shown + hush[count:]]
        if self.other_encoder is None:
            z_y_g, z_x_g = encode(torch.cat(again)).split(count)
        else:
            z_y_g, z_x_g = self.other_encoder(again[0]), encode(again[1])
        v_x_g = predict(z_x_g)
        return Pass(
            y_g=y_g,
            attention=attention,
            x_g=x_g,
            x_rec=x_rec,
            x_cycle=self.empty(z_y_g, x_field),
            y_cycle=self.draw(shown, y_field, *self.generator.decode(v_x_g))[0],
            moved=self.draw(x_moved, x_field[:moved], a_moved, c_moved)[0],
            z_x=z_x,
            z_y=z_y,
            z_y_g=z_y_g,
            z_x_g=z_x_g,
            v_x=v_x,
            v_y_predicted=v_y_predicted if reads_y else v_x_g,
            anchor_attention=a_anchor,
            anchor_context=c_anchor,
            y_rec=None if v_y is None else self.draw(x_g, y_field, a_y, c_y)[0],
            v_y=v_y,
            v_y_g=None if self.vessel_encoder is None else self.vessel_encoder(y_g),
        )


def drawn_attention(attention: Float[Tensor, "*shape"], threshold: float) -> Float[Tensor, "*shape"]:
    """The clamp A <- max(0, (A - t) / (1 - t)), but its gradient passes below t as it does above.

    Our choice: with the clamp's own gradient, what is not drawn at all could never come to be drawn.
    """
    linear = (attention - threshold) / (1.0 - threshold)
    return linear + (linear.clamp(min=0.0) - linear).detach()
