"""From a method's name to its networks: for training, and the path that runs live."""

from collections.abc import Callable

from lightning_fabric import Fabric
from torch import Tensor

from casgan.config import TrainConfig
from casgan.methods.attentiongan import AttentionGan, AttentionGenerator
from casgan.methods.blocks import ResNetGenerator
from casgan.methods.cut import Cut, TappedGenerator
from casgan.methods.cyclegan import CycleGan
from casgan.methods.derived import DerivedGenerator
from casgan.methods.method import Method
from casgan.methods.munit import Munit, MunitPath
from casgan.methods.names import METHODS, attention_of
from casgan.methods.stage import MethodStage
from casgan.methods.unit import Unit, UnitPath
from casgan.networks import Generator, LivePath
from casgan.presets import PresetConfig
from casgan.unpaired import Unpaired

RIVALS: dict[str, type[Method]] = {
    "cyclegan": CycleGan,
    "unit": Unit,
    "munit": Munit,
    "cut": Cut,
    "attentiongan": AttentionGan,
}
PATHS: dict[str, Callable[[PresetConfig], LivePath]] = {
    "casgan": Generator,
    "cyclegan": ResNetGenerator,
    "unit": UnitPath,
    "munit": MunitPath,
    "cut": TappedGenerator,
    "attentiongan": AttentionGenerator,
}


def rival_stage(
    fabric: Fabric, config: TrainConfig, data: Unpaired, start: dict[str, Tensor] | None
) -> MethodStage:
    """The one stage of a rival.

    Args:
        fabric: Devices, processes, precision.
        config: The run; its method is a rival's.
        data: Frames of both domains.
        start: Weights of its live path to begin with; None for chance.
    """
    method = RIVALS[config.method](config.network)
    return MethodStage(fabric, config, data, method, METHODS[config.method].learning_share, start)


def live_path(preset: PresetConfig, method: str, without: tuple[str, ...] = ()) -> LivePath:
    """The network that runs live, with weights of chance.

    Args:
        preset: Widths and scales.
        method: As `names.METHODS` has it.
        without: What CAS-GAN was taught without; without VSGG its attention is derived.
    """
    if method == "casgan" and attention_of(method, without) == "derived":
        return DerivedGenerator(preset)
    return PATHS[method](preset)
