import numpy as np
import pytest

from latency_models.features import AMOUNTS, features, kernel_kind, matrix, segment_features
from search_spaces import counts
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.fusion import fuse
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.shuffle_blocks import ShuffleUnit
from search_spaces.space import decode, sample
from search_spaces.vit_blocks import PatchEmbedding


def chain(*blocks, shape=(3, 16, 16)):
    return lower(Architecture(shape, (tuple(blocks),)))


def group(found, name):
    return tuple(found.get(f"{name}:{amount}", 0.0) for amount in AMOUNTS)


@pytest.fixture(scope="module")
def networks():
    space = MixedSpace()
    return [lower(decode(space, row)) for row in sample(space, 20, np.random.default_rng(0))]


def test_a_convolution_counted_by_hand():
    found = features(chain(Conv(width=8, stride=2, activation="relu")), lanes=8)
    macs = 8 * 8 * 8 * 3 * 9
    amounts = (1.0, macs, macs * 8 / 3, 3 * 16 * 16 + 8 * 8 * 8, 8 * 3 * 9)
    groups = ("dense.k3", "dense.s2", "activation.relu", "dense.lanes.part.full", "dense.size3")
    assert {name.rpartition(":")[0] for name in found} == set(groups)
    assert [group(found, name) for name in groups] == [pytest.approx(amounts)] * len(groups)


def test_a_depthwise_convolution_rounds_its_channels_up_once():
    found = features(chain(InvertedResidual(width=12, hidden=12, expand=False, kernel=5), shape=(12, 6, 6)), lanes=8)
    macs = 6 * 6 * 12 * 25
    assert group(found, "depthwise.k5")[:3] == pytest.approx((1.0, macs, macs * 16 / 12))
    assert group(found, "pointwise")[:3] == pytest.approx((1.0, 36 * 144, 36 * 256))


def test_the_kinds_of_kernels_are_told_apart():
    blocks = (
        Conv(width=8),
        Conv(width=8, kernel=1),
        Conv(width=16, kernel=3, groups=4),
        InvertedResidual(width=16, hidden=32, se=8),
        Classifier(classes=5),
    )
    kinds = [kernel_kind(op) for op in fuse(chain(*blocks)) if op.kind in ("conv", "linear")]
    assert kinds == [
        "dense",
        "pointwise",
        "grouped",
        "pointwise",
        "depthwise",
        "vector",
        "vector",
        "pointwise",
        "linear",
    ]


def test_a_network_is_the_sum_of_its_segments(networks):
    for workload in networks:
        found = features(workload, lanes=16)
        parts = [segment_features(segment, 16) for segment in workload.segments]
        assert found == {
            name: pytest.approx(sum(part.get(name, 0.0) for part in parts)) for name in set().union(*parts)
        }


def test_every_multiply_accumulate_is_in_just_one_kind(networks):
    for workload in networks:
        found = features(workload, lanes=8)
        kinds = ("pointwise", "vector", "linear", "dense.k3", "depthwise.k3", "depthwise.k5")
        assert sum(found.get(f"{kind}:macs", 0.0) for kind in kinds) == counts.macs(workload)


@pytest.mark.parametrize("lanes", [1, 4, 8, 16, 32])
def test_padding_never_takes_work_away_and_is_none_on_a_scalar_unit(networks, lanes):
    for workload in networks:
        found = features(workload, lanes=lanes)
        for name in [name.removesuffix(":macs") for name in found if name.endswith(":macs")]:
            assert found[f"{name}:padded_macs"] >= found[f"{name}:macs"]
            if lanes == 1:
                assert found[f"{name}:padded_macs"] == found[f"{name}:macs"]


def test_channels_that_fill_the_lanes_pad_nothing():
    aligned = features(chain(Conv(width=16, kernel=1), shape=(8, 4, 4)), lanes=8)
    assert aligned["pointwise:macs"] == aligned["pointwise:padded_macs"]
    assert "pointwise.lanes.full.full:count" in aligned
    ragged = features(chain(Conv(width=17, kernel=1), shape=(8, 4, 4)), lanes=8)
    assert ragged["pointwise:padded_macs"] == 16 * 8 * 24
    assert "pointwise.lanes.full.part:count" in ragged


def test_a_wider_network_between_two_alignments_costs_more_features_but_no_padded_work():
    narrow, wide = (features(chain(Conv(width=width, kernel=1), shape=(8, 4, 4)), lanes=8) for width in (17, 23))
    assert narrow["pointwise:macs"] < wide["pointwise:macs"]
    assert narrow["pointwise:padded_macs"] == wide["pointwise:padded_macs"]


def test_reshapes_are_free_and_movement_is_not():
    patches = features(chain(PatchEmbedding(width=12, patch=4), shape=(3, 8, 8)), lanes=8)
    assert not any(name.startswith("reshape") for name in patches)
    assert "transpose:elements" in patches
    found = features(chain(ShuffleUnit(width=16, hidden=8), shape=(16, 8, 8)), lanes=8)
    assert not any(name.startswith("reshape") for name in found)
    assert any(name.startswith(("channel_shuffle", "concat")) for name in found)


def test_eight_bit_workloads_have_the_same_work(networks):
    for workload in networks[:5]:
        quantized = features(with_precision(workload, QuantizationPlan()), lanes=8)
        plain = features(workload, lanes=8)
        assert {name: value for name, value in quantized.items() if name.endswith("macs")} == {
            name: value for name, value in plain.items() if name.endswith("macs")
        }


def test_the_matrix_has_a_zero_where_a_network_lacks_a_feature():
    assert matrix([{"a": 1.0}, {"b": 2.0, "c": 9.0}], ["b", "a"]).tolist() == [[0.0, 1.0], [2.0, 0.0]]
