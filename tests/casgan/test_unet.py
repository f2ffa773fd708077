"""The U-Net beside the one it follows: another implementation of the same, from MONAI."""

import pytest
import torch
from torch import nn

from casgan.unet import UNet

FEATURES = (4, 4, 8, 16, 32, 4)


@pytest.mark.parametrize("size", [(64, 48), (41, 51)], ids=["even", "odd"])
def test_it_is_monais_network_bit_for_bit_before_and_after_a_step(size: tuple[int, int]) -> None:
    basic_unet = pytest.importorskip("monai.networks.nets.basic_unet")
    torch.manual_seed(5)
    ours = UNet(FEATURES)
    torch.manual_seed(5)
    theirs = basic_unet.BasicUNet(
        spatial_dims=2, in_channels=1, out_channels=1, features=FEATURES, norm="batch"
    )
    picture = torch.randn(2, 1, *size)

    def learnt(network: nn.Module) -> list[torch.Tensor]:
        """The output of teaching, every weight and statistic after a step, and the output of use."""
        taught = network.train()(picture)
        taught.square().mean().backward()
        torch.optim.SGD(network.parameters(), 0.1).step()
        with torch.no_grad():
            return [taught.detach(), *network.state_dict().values(), network.eval()(picture)]

    assert list(ours.state_dict()) == list(theirs.state_dict())
    for number, (found, expected) in enumerate(zip(learnt(ours), learnt(theirs), strict=True)):
        assert torch.equal(found, expected), number
