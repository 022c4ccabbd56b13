from dataclasses import dataclass

import numpy as np
import pytest

from search_spaces import counts
from search_spaces import space as rows_of
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.efficientnet import EfficientNetSpace
from search_spaces.errors import InfeasibleError
from search_spaces.hybrid import HybridSpace
from search_spaces.lowering import lower, lower_block
from search_spaces.mixed import MixedSpace
from search_spaces.restrict import restrict, unsupported_ops
from search_spaces.shufflenet_v1 import ShuffleNetV1Space
from search_spaces.space import ChainSpace, Choice
from search_spaces.tables import CostTables, Price
from search_spaces.workload import KINDS


def without(*kinds):
    return KINDS - set(kinds)


def options(space):
    return {choice.name: choice.options for choice in space.choices}


def lacking(architecture, allowed):
    return [kind for segment in lower(architecture).segments for kind in unsupported_ops(segment, allowed)]


SMALL = MixedSpace(widths=((8, 16), (16, 24)), depths=(1, 2), kernels=(3,), expansions=(2, 3))


def test_options_that_only_lead_to_forbidden_operators_go_and_the_others_stay(rng):
    allowed = without("hard_swish", "channel_shuffle")
    left = restrict(SMALL, allowed)
    for stage in (1, 2):
        assert options(left)[f"stage{stage}.activation"] == ("relu",)
        assert options(left)[f"stage{stage}.family"] == ("mobilenet",)
    changed = {name for name, known in options(SMALL).items() if options(left)[name] != known}
    assert changed == {f"stage{stage}.{name}" for stage in (1, 2) for name in ("activation", "family")}
    for row in rows_of.sample(left, 10, rng):
        assert not lacking(rows_of.decode(left, row), allowed)


def test_squeeze_excitation_goes_with_its_gate():
    assert options(restrict(SMALL, without("hard_sigmoid")))["stage1.se"] == (False,)


def test_options_stay_where_another_choice_avoids_the_operator(rng):
    """Without sums a stage must change the width: two widths are to blame together, depth 2 is alone."""
    space = MixedSpace(
        widths=((8, 24), (8, 24)),
        depths=(1, 2),
        families=("mobilenet",),
        kernels=(3,),
        expansions=(2,),
        strides=(2, 1, 1),
    )
    allowed = without("add")
    left = restrict(space, allowed)
    assert options(left) == options(space) | {"stage1.depth": (1,), "stage2.depth": (1,)}
    found = [len(lacking(rows_of.decode(left, row), allowed)) for row in rows_of.sample(left, 30, rng)]
    assert 0 in found
    assert max(found) > 0


def test_a_restricted_chain_space_has_array_tables_and_fewer_resolutions():
    space = HybridSpace(attention_stages=2, widths=((16,), (16, 24), (24, 32)), depths=(1,), resolutions=(32, 40))
    left = restrict(space, without("softmax", "layer_norm"))
    assert isinstance(left, ChainSpace)
    assert options(left)["stage3.kind"] == ("convolution", "linear_attention")
    rows = rows_of.sample(left, 4, np.random.default_rng(0))
    macs = CostTables(left, {"macs": Price(counts.segment_macs)})(rows)["macs"]
    assert [counts.macs(lower(rows_of.decode(left, row))) for row in rows] == list(macs)
    assert hash(left) == hash(restrict(space, without("softmax", "layer_norm")))


def test_choices_of_the_whole_network_are_restricted_too():
    assert options(restrict(ShuffleNetV1Space(kernels=(3,)), without("channel_shuffle")))["groups"] == (1,)
    left = restrict(EfficientNetSpace(widths=(0.25,), depths=(0.3,), resolutions=(32,)), without("silu"))
    assert options(left)["form"] == ("lite",)


@dataclass(frozen=True)
class Free:
    """A space that is no chain: the activation matters only for the second kind of block."""

    choices: tuple[Choice, ...] = (Choice("kind", ("conv", "residual")), Choice("activation", ("relu", "hard_swish")))

    def decode(self, values):
        block = Conv(width=8, activation="relu")
        if values["kind"] == "residual":
            block = InvertedResidual(width=8, hidden=16, activation=values["activation"])
        return Architecture((8, 8, 8), ((block,), (Classifier(classes=2),)))


def test_spaces_that_are_no_chains_are_restricted_alike():
    assert options(restrict(Free(), without("add"))) == {"kind": ("conv",), "activation": ("relu", "hard_swish")}
    assert restrict(Free(), without("hard_swish")) == Free()
    left = restrict(Free(), without("add"))
    assert (
        left.decode({"kind": "conv", "activation": "relu"}).key
        == Free().decode({"kind": "conv", "activation": "relu"}).key
    )


def test_a_device_that_allows_everything_changes_nothing():
    assert restrict(SMALL, ()) is SMALL
    assert restrict(SMALL, KINDS) is SMALL


def test_a_space_with_nothing_left_names_the_operators_it_needs():
    with pytest.raises(InfeasibleError, match="no network of MixedSpace was found without global_avg_pool"):
        restrict(SMALL, without("global_avg_pool"))


def test_words_that_are_no_operators_are_refused():
    with pytest.raises(ValueError, match="allow_ops must hold operator kinds, got convolution"):
        restrict(SMALL, {"convolution"})


def test_operators_are_counted_fused_and_without_reshapes():
    segment = lower_block(InvertedResidual(width=8, hidden=16, activation="hard_swish"), (8, 6, 6))
    assert unsupported_ops(segment, {"conv"}) == ("hard_swish", "hard_swish", "add")
    assert unsupported_ops(segment, {"conv", "add", "hard_swish"}) == ()
