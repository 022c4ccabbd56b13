"""FBNet's and Once-for-All's spaces against the public tables, MCUNet's against its own rules."""

from pathlib import Path

import numpy as np
import pytest

from nas.pipeline.checking import best_pairs
from search_spaces import counts
from search_spaces import space as rows_of
from search_spaces.blocks import Classifier, Conv
from search_spaces.errors import SpaceError
from search_spaces.fbnet import NAMES, FBNetSpace
from search_spaces.lowering import lower
from search_spaces.mcunet import MCUNetSpace, rank_subspaces
from search_spaces.memory import peak_bytes
from search_spaces.ofa_mobilenet_v3 import OfaMobileNetV3Space, table_values
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.tables import CostTables, Price

DATA = Path(__file__).parents[3] / "shared" / "data" / "latency"


def table(name):
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in ../shared/data/latency")
    return np.load(DATA / name)


@pytest.fixture(scope="module")
def fbnet():
    return table("fbnet_latency.npz")


def tabulated_flops(segment):
    """What the table calls FLOPs: MACs, two for each normalized element, one for some activations and the pooling.

    One for each output of a ReLU after a depthwise or a stem, skip and head convolution, but none after an expansion,
    whose ReLU module the counter saw only once; and one for each pooled input. A linear layer's bias is free.
    """
    ops = segment.ops
    total = counts.segment_macs(segment)
    alone = sum(op.kind == "relu" for op in ops) == 1
    for op in ops:
        if op.kind == "batch_norm":
            total += 2 * op.output.elements
        elif op.kind == "relu":
            is_expansion = not alone and op is next(known for known in ops if known.kind == "relu")
            total += 0 if is_expansion else op.output.elements
        elif op.kind == "global_avg_pool":
            total += op.input.elements
    return total


def test_fbnet_rows_of_the_table_have_its_parameters_and_flops(fbnet):
    space = FBNetSpace(classes=100)
    assert tuple(fbnet["op_names"]) == NAMES
    assert [choice.options for choice in space.choices] == [NAMES] * 22
    rows = fbnet["op_idx"].astype(np.int64)
    found = CostTables(space, {"parameters": Price(counts.segment_parameters), "flops": Price(tabulated_flops)})(rows)
    assert np.array_equal(found["parameters"], fbnet["zc"][:, 1])
    assert np.array_equal(found["flops"], fbnet["zc"][:, 0])


def test_fbnet_skips_leave_out_layers_that_keep_the_shape():
    space = FBNetSpace()
    architecture = rows_of.decode(space, np.full(22, NAMES.index("skip")))
    assert len(architecture.blocks) == 1 + 6 + 2
    assert all(type(block) in (Conv, Classifier) for block in architecture.blocks)


def test_fbnet_takes_the_published_strides_of_the_resolution():
    for side, left in ((32, 4), (224, 7)):
        shape = (
            lower(rows_of.decode(FBNetSpace(resolutions=(side,)), np.zeros(22, dtype=np.int64)))
            .segments[-3]
            .output.shape
        )
        assert shape == (1, 352, left, left)
    with pytest.raises(SpaceError, match="one for the stem and one for each of 7 stages"):
        FBNetSpace(strides=(1, 2))


@pytest.fixture(scope="module")
def ofa():
    return table("ofa_mbv3_latency.npz")


def test_ofa_rows_of_the_table_decode(ofa):
    space = OfaMobileNetV3Space(
        classes=1000, width=1.2, resolutions=tuple(int(side) for side in np.unique(ofa["resolution"]))
    )
    columns = [ofa[name] for name in ("kernel", "expand", "depth", "resolution")]
    rows = np.array([rows_of.row(space, table_values(*values)) for values in zip(*columns, strict=True)])
    assert rows.shape == (5000, 46)
    for number in (0, 17, 4999):
        architecture = rows_of.decode(space, rows[number])
        assert architecture.input_shape == (3, *[int(ofa["resolution"][number])] * 2)
        assert [len(stage) for stage in architecture.stages[2:-1]] == list(ofa["depth"][number])
        assert lower(architecture).output.shape == (1, 1000)


def test_ofa_blocks_beyond_the_depth_have_no_effect():
    space = OfaMobileNetV3Space()
    values = table_values([3] * 20, [3] * 20, [2] * 5, 64)
    deeper = values | {"stage2.block3.kernel": 7, "stage2.block4.expansion": 6}
    assert space.decode(values).key == space.decode(deeper).key
    assert space.decode(values).key != space.decode(values | {"stage2.block2.kernel": 7}).key


def test_ofa_refuses_rows_and_fields_that_cannot_be():
    with pytest.raises(ValueError, match="20 kernels, 20 expansions and 5 depths, got 20, 20, 4"):
        table_values([3] * 20, [3] * 20, [2] * 4, 64)
    with pytest.raises(SpaceError, match="depths must lie within 1 to 4"):
        OfaMobileNetV3Space(depths=(2, 5))
    with pytest.raises(SpaceError, match="one for the stem and one for each of 5 stages"):
        OfaMobileNetV3Space(strides=(2,))


def test_ranked_subspaces_hold_the_share_and_mean_of_the_networks_that_fit(rng):
    space = MCUNetSpace(resolutions=(48, 64), widths=(0.3, 0.6), kernels=(3, 7), expansions=(3, 6))
    limits = {"peak_limit_bytes": 40_000, "weight_limit_bytes": 400_000}
    ranked = rank_subspaces(space, **limits, plan=QuantizationPlan(), rng=np.random.default_rng(0), count=12)
    assert {(pair.resolution, pair.width) for pair in ranked} == {(48, 0.3), (48, 0.6), (64, 0.3), (64, 0.6)}
    assert [pair.mean_macs for pair in ranked] == sorted((pair.mean_macs for pair in ranked), reverse=True)
    assert 0 < sum(pair.fitting for pair in ranked) < len(ranked)

    best = ranked[0]
    rows = rows_of.sample(space, 12, np.random.default_rng(0))
    names = [choice.name for choice in space.choices]
    rows[:, names.index("resolution")] = space.resolutions.index(best.resolution)
    rows[:, names.index("width")] = space.widths.index(best.width)
    fitting = []
    for row in rows:
        raw = lower(rows_of.decode(space, row))
        shipped = with_precision(raw, QuantizationPlan())
        if (
            peak_bytes(shipped) <= limits["peak_limit_bytes"]
            and counts.weight_bytes(shipped) <= limits["weight_limit_bytes"]
        ):
            fitting.append(counts.macs(raw))
    assert best.fitting == len(fitting) / 12
    assert best.mean_macs == pytest.approx(np.mean(fitting))


def test_the_check_of_a_run_shows_the_best_pairs_under_the_limits_there_are():
    space = MCUNetSpace(resolutions=(48, 64), widths=(0.3, 0.6), kernels=(3,), expansions=(3,))
    plan = QuantizationPlan()
    wide, narrow = (best_pairs(space, {"peak_memory_bytes": limit}, "int8", plan) for limit in (10_000_000, 16_000))
    assert "in int8" in wide[0]
    assert wide[1].startswith("  64 pixels, width 0.6: ")
    assert wide[1].endswith(" 100% fit")
    assert len(wide) == 4
    assert not any(line.startswith("  64 pixels, width 0.6") for line in narrow)
    assert best_pairs(space, {"latency_ms": 1.0}, "int8", plan) == []
    assert best_pairs(space, {"weight_bytes": 10.0}, "int8", plan) == []
    assert best_pairs(OfaMobileNetV3Space(), {"peak_memory_bytes": 1e6}, "int8", plan) == []
