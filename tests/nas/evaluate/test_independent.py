import numpy as np
import pytest
import torch
from torch import nn

from nas.evaluate.independent import count_with_fvcore
from search_spaces import counts
from search_spaces.build import build
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.space import decode, sample
from tests.nas.train.tiny import tiny, varied

SPACE = MixedSpace(resolutions=(32,))


def test_a_network_counted_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 5))
    found = count_with_fvcore(network.eval(), (3, 8, 8))
    assert found["macs"].value == 4 * 4 * 8 * 3 * 9 + 8 * 16 * 5
    assert found["parameters"].value == 8 * 3 * 9 + 8 * 16 * 5 + 5
    assert {known.origin for known in found.values()} == {"counted"}
    assert {known.source for known in found.values()} == {"fvcore"}
    assert (found["macs"].unit, found["parameters"].unit) == ("MAC", "parameters")


@pytest.mark.parametrize(
    "architecture",
    [tiny(), varied(), *(decode(SPACE, row) for row in sample(SPACE, 6, np.random.default_rng(0)))],
    ids=["tiny", "varied", *(f"random {number}" for number in range(6))],
)
def test_fvcore_and_our_counts_agree_to_the_unit(architecture):
    found = count_with_fvcore(build(architecture).eval(), architecture.input_shape)
    assert found["macs"].value == counts.macs(lower(architecture))
    assert found["parameters"].value == counts.parameters(lower(architecture))


def test_products_of_two_activations_are_left_out():
    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(2)
            return flat @ flat.transpose(1, 2)

    assert count_with_fvcore(Product(), (3, 4, 4))["macs"].value == 0
