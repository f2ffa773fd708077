"""The adversarial half of a step, the same for every method: the generator's side persuades, then the discriminators judge."""

from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from casgan.discriminators import Discriminators, Views
from casgan.losses import REAL_LABEL, least_squares, log_form
from casgan.stage import Learner

Terms = dict[str, Float[Tensor, ""]]


def persuasion(fabric: Fabric, judges: Discriminators, seen: dict[str, Views]) -> Terms:
    """The generator's side of the adversarial terms. The discriminators pass gradients on, and keep none.

    Args:
        fabric: Of the networks' precision.
        judges: The discriminators, not wrapped.
        seen: What each is shown, with gradients to the generated pictures. D_Sem's is in log form, the others' in
            least squares.
    """
    judges.requires_grad_(False)
    terms = {}
    with fabric.autocast():
        scores = {name: judges.of[name](view.generated) for name, view in seen.items()}
    for name, score in scores.items():
        form = log_form if name == "d_sem" else least_squares
        terms[f"persuade_{name}"] = form(score.float(), 1.0, seen[name].field)
    judges.requires_grad_(True)
    return terms


def verdicts(judges: Learner, seen: dict[str, Views]) -> Terms:
    """The discriminators' side: half of each loss on real and on generated pictures."""
    found = {}
    for name, (real, generated) in judges.wrapped(seen).items():
        field = seen[name].field
        form, label = (log_form, REAL_LABEL) if name == "d_sem" else (least_squares, 1.0)
        found[name] = 0.5 * (form(real.float(), label, field) + form(generated.float(), 0.0, field))
    return found
