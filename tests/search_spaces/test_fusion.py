import pytest
import torch
from torch import nn

from search_spaces.fusion import activation_of, fuse, fuse_segment
from search_spaces.layers import ConvNorm, channel_shuffle
from search_spaces.lowering import lower, lower_block, record
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.shuffle_blocks import ShuffleUnit


def test_mobilenet_v2_fuses_to_the_operators_a_runtime_executes():
    fused = list(fuse(lower(mobilenet_v2())))
    kinds = [op.kind for op in fused]
    assert kinds.count("conv") == 52
    assert kinds.count("add") == 10
    assert kinds.count("global_avg_pool") == kinds.count("linear") == 1
    assert len(fused) == 64
    assert sum(activation_of(op) == "clip" for op in fused) == 35


def test_fusing_twice_changes_nothing():
    segment = lower_block(ShuffleUnit(width=16, hidden=8, se=8), (16, 8, 8))
    once = fuse_segment(segment)
    assert fuse_segment(once) == once


def test_folded_convolution_keeps_the_parameters_of_both():
    (op,) = fuse(record(ConvNorm(3, 8, 3), (3, 8, 8)))
    assert [known.role for known in op.parameters] == [
        "weight",
        "norm_weight",
        "norm_bias",
        "norm_mean",
        "norm_var",
    ]
    assert op.number("norm_eps") == 1e-5
    assert (activation_of(op), op.number("activation_min"), op.number("activation_max")) == ("clip", 0.0, 6.0)


def test_value_that_two_read_is_not_merged_away():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y.relu() + y

    assert [op.kind for op in fuse(record(Branch(), (4, 8, 8)))] == ["conv", "relu", "add"]


def test_output_of_a_segment_is_not_merged_away():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            y.relu()
            return y

    assert [activation_of(op) for op in fuse(record(Both(), (4, 8, 8)))] == [""]


@pytest.mark.parametrize("groups", [2, 4])
def test_shuffle_is_one_operator(groups):
    class Shuffle(nn.Module):
        def forward(self, x):
            return channel_shuffle(x, groups)

    (op,) = fuse(record(Shuffle(), (8, 4, 4)))
    assert (op.kind, op.integer("groups")) == ("channel_shuffle", groups)


def test_other_transposes_are_no_shuffle():
    class Transposed(nn.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            return x.view(n, 2, c // 2, h, w).transpose(2, 3).reshape(n, c, h, w)

    assert "channel_shuffle" not in [op.kind for op in fuse(record(Transposed(), (8, 4, 4)))]


def test_the_last_activation_of_two_stays_alone():
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Sigmoid())
    first, second = fuse(record(module, (4, 8, 8)))
    assert (activation_of(first), second.kind) == ("relu", "sigmoid")
    assert second.output.shape == tuple(module(torch.zeros(1, 4, 8, 8)).shape)
