"""What holds for every registered search space with its default fields, checked on random rows."""

import dataclasses
import json
import math
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch

from nas.testing import (
    SPACE_CHECKS,
    check_gradients,
    check_space,
    gradients_reach_every_parameter,
    keys_are_stable,
    modules_match_their_lowering,
    onnx_equals_torch,
)
from search_spaces import counts, memory
from search_spaces import space as rows_of
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.lowering import lower
from search_spaces.precision import QuantizationPlan, quantize_segment, with_precision
from search_spaces.space import SEARCH_SPACES, ChainSpace
from search_spaces.tables import CostTables, Price

PLAN = QuantizationPlan()
QUICK, MANY, WRITTEN = 4, 1000, 5
NAMES = SEARCH_SPACES.names()
BUILDING = (modules_match_their_lowering, onnx_equals_torch, gradients_reach_every_parameter)


def default(name):
    return SEARCH_SPACES.get(name)()


def generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def check(space, row):
    """What every network of a space fulfils; raises AssertionError with the row."""
    architecture = rows_of.decode(space, row)
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture, row
    assert again.key == architecture.key == rows_of.decode(space, row).key, row
    workload = lower(architecture)
    figures = (
        counts.macs(workload),
        counts.weight_bytes(with_precision(workload, PLAN)),
        counts.activation_traffic_bytes(workload),
        memory.peak_bytes(workload),
    )
    assert all(math.isfinite(figure) and figure > 0 for figure in figures), (row, figures)
    assert workload.output.shape == (1, space.classes), row
    return architecture, workload


def check_built(space, row):
    architecture, workload = check(space, row)
    network = build(architecture).train()
    assert counts.parameters(workload) == sum(p.numel() for p in network.parameters()), row
    named = {known.name for op in workload.flat().ops for known in op.parameters}
    assert named <= network.state_dict().keys(), row
    with torch.no_grad():
        y = network(torch.rand(2, *architecture.input_shape, generator=torch.Generator().manual_seed(0)))
    assert y.shape == (2, space.classes), row
    assert torch.isfinite(y).all(), row
    check_gradients(network, architecture.input_shape)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_a_hashable_value_with_the_fields_a_run_fills_in(name):
    space = default(name)
    assert space == default(name)
    assert hash(space) == hash(default(name))
    assert {"classes", "channels", "resolutions"} <= {field.name for field in dataclasses.fields(space)}
    assert len({choice.name for choice in space.choices}) == len(space.choices)
    assert rows_of.size(space) == math.prod(len(choice.options) for choice in space.choices)


@pytest.mark.parametrize("name", NAMES)
def test_random_networks_lower_build_and_train(name):
    space = default(name)
    for row in rows_of.sample(space, QUICK, generator(name)):
        check_built(space, row)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_rows_decode(name):
    space = default(name)
    for row in (np.zeros(len(space.choices), dtype=np.int64), rows_of.num_options(space) - 1):
        check(space, row)


@pytest.mark.parametrize("name", NAMES)
def test_mutants_and_children_stay_inside(name):
    space, rng = default(name), generator(name)
    rows = rows_of.sample(space, 200, rng)
    mutants = rows_of.mutate(space, rows, rng)
    children = rows_of.crossover(rows, mutants, rng)
    for changed in (mutants, children):
        assert ((changed >= 0) & (changed < rows_of.num_options(space))).all()
    assert (mutants != rows).any(axis=1).all()
    assert rows_of.encode(space, mutants).sum() == mutants.size
    check(space, rows_of.crossover(rows[:1], mutants[:1], rng)[0])


@pytest.mark.parametrize("name", NAMES)
def test_other_classes_channels_and_sizes_are_taken(name):
    for sides in ((224,), (28, 64)):
        space = dataclasses.replace(default(name), classes=7, channels=1, resolutions=sides)
        for row in rows_of.sample(space, len(sides), generator(name)):
            architecture, workload = check(space, row)
            assert architecture.input_shape[0] == 1
            assert architecture.input_shape[1] in sides
            smallest = min(
                segment.output.shape[-1] for segment in workload.segments[:-1] if len(segment.output.shape) == 4
            )
            assert smallest > 1, (row, "a map of one pixel")


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(default(name), ChainSpace)])
def test_array_tables_equal_the_scalar_path(name):
    space = default(name)
    prices = {
        "macs": Price(counts.segment_macs),
        "parameters": Price(counts.segment_parameters),
        "weights": Price(lambda segment: counts.segment_weight_bytes(quantize_segment(segment, PLAN))),
        "peak": Price(memory.segment_peak_bytes, "max"),
    }
    rows = rows_of.sample(space, QUICK, generator(name))
    found = CostTables(space, prices)(rows)
    for number, row in enumerate(rows):
        workload = lower(rows_of.decode(space, row))
        assert found["macs"][number] == counts.macs(workload)
        assert found["parameters"][number] == counts.parameters(workload)
        assert found["weights"][number] == counts.weight_bytes(with_precision(workload, PLAN))
        assert found["peak"][number] == memory.peak_bytes(workload)


def test_keys_are_stable_across_processes():
    script = (
        "import json, numpy as np\n"
        "from search_spaces.space import SEARCH_SPACES, decode, num_options\n"
        "spaces = {name: SEARCH_SPACES.get(name)() for name in SEARCH_SPACES.names()}\n"
        "print(json.dumps({name: decode(space, num_options(space) // 2).key for name, space in spaces.items()}))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    here = {name: rows_of.decode(default(name), rows_of.num_options(default(name)) // 2).key for name in NAMES}
    assert json.loads(other.stdout) == here


@pytest.mark.parametrize("name", NAMES)
def test_every_space_passes_the_checks_of_the_conformance_kit_that_need_no_other_process(name):
    space = default(name)
    rows = rows_of.sample(space, QUICK, generator(name))
    for check_rows in SPACE_CHECKS.values():
        if check_rows is not keys_are_stable:  # test_keys_are_stable_across_processes starts one for all spaces
            check_rows(space, rows if check_rows not in BUILDING else rows[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_conformance_kit_passes_every_space(name):
    found = check_space(default(name), name=name)
    assert found.passed == tuple(SPACE_CHECKS), str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_random_networks_are_built_and_five_of_them_written(name):
    space, rng = default(name), generator(name)
    rows = rows_of.sample(space, MANY, rng)
    rows = np.concatenate([rows[: MANY // 2], rows_of.mutate(space, rows[MANY // 2 :], rng)])
    for row in rows:
        check_built(space, row)
    onnx_equals_torch(space, rows[:: MANY // WRITTEN])


@pytest.mark.parametrize(
    ("space", "rows", "networks"),
    [
        (SEARCH_SPACES.get("shufflenet_v1")(widths=(0.5, 1.0), kernels=(3,)), 270, 270),
        (SEARCH_SPACES.get("efficientnet")(resolutions=(32,), widths=(0.25, 0.5)), 90, 90),
        (SEARCH_SPACES.get("efficientnet")(resolutions=(32,), widths=(0.25,), depths=(0.85, 1.0)), 18, 9),
        (SEARCH_SPACES.get("nasbench201")(literal=True), 15625, 15625),
    ],
    ids=["shufflenet_v1", "efficientnet", "efficientnet-equal-depths", "nasbench201-literal"],
)
def test_enumerable_spaces_count_their_networks(space, rows, networks):
    assert rows_of.size(space) == sum(1 for _ in rows_of.enumerate_rows(space)) == rows
    assert rows_of.num_architectures(space) == networks
