"""A network is brought to a file only where what the file costs keeps to the limits."""

import numpy as np
import pytest

from latency_models.backends.memory import Memory
from latency_models.device import Device, MemoryRegion
from nas.pipeline.exact import file_figures, within_limits
from nas.search.objectives import Budget, RowCosts
from nas.search.study import Entry
from search_spaces.measurement import Measurement
from search_spaces.mixed import MixedSpace
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.space import decode, sample

DEVICE = Device(name="board", backend=Memory(), precisions=("int8",))


def entry(architecture, accuracy=0.5):
    return Entry(
        key=architecture.key,
        architecture=architecture,
        values={},
        precision="int8",
        figures={},
        objective=1.0,
        metric=Measurement(value=accuracy, unit="1", origin="measured"),
        rung=0,
        seconds=0.0,
        failed="",
    )


@pytest.fixture(scope="module")
def networks():
    space = MixedSpace(depths=(1,))
    return [decode(space, row) for row in sample(space, 6, np.random.default_rng(0))]


@pytest.mark.parametrize("name", ["weight_bytes", "peak_memory_bytes"])
def test_only_networks_whose_files_fit_are_kept_in_their_order(networks, name):
    sizes = [file_figures(network, "int8", DEVICE, {})[name].value for network in networks]
    limit = float(np.median(sizes))
    kept = [
        found.architecture for found in within_limits([entry(network) for network in networks], DEVICE, {name: limit})
    ]
    assert kept == [network for network, size in zip(networks, sizes, strict=True) if size <= limit]
    assert 0 < len(kept) < len(networks)


def test_a_network_that_fits_by_the_sum_over_blocks_alone_is_skipped(networks):
    costs = RowCosts(MixedSpace(depths=(1,)), DEVICE, {}, Budget(precision="int8"))
    network = networks[0]
    summed = float(costs.of([network]).figures["weight_bytes"][0])
    stored = file_figures(network, "int8", DEVICE, {})["weight_bytes"].value
    assert summed < stored
    budget = Budget(precision="int8", weight_bytes=int(summed + stored) // 2)
    judged = RowCosts(costs.space, DEVICE, {}, budget)
    assert judged.of([network]).feasible[0]
    assert not list(within_limits([entry(network)], DEVICE, judged.limits()))


def test_latency_is_no_count_and_nothing_is_counted_before_it_is_asked_for(networks):
    assert (
        next(within_limits([entry(networks[0]), "never looked at"], DEVICE, {"latency_ms": 1e-9})).key
        == networks[0].key
    )


def test_patches_make_room_for_a_network_that_does_not_fit():
    network = mobilenet_v2(width=0.35, classes=10, input_shape=(3, 96, 96))
    plain = file_figures(network, "int8", DEVICE, {})
    arena = int(0.8 * plain["peak_memory_bytes"].value)
    boards = [
        Device(
            name="board",
            backend=Memory(),
            precisions=("int8",),
            ram=(MemoryRegion(name="SRAM", num_bytes=arena),),
            patches=patches,
        )
        for patches in (False, True)
    ]
    costs = [RowCosts(MixedSpace(), board, {}, Budget(precision="int8")) for board in boards]
    judged = [known.of([network]) for known in costs]
    assert [bool(known.feasible[0]) for known in judged] == [False, True]
    assert judged[1].objective[0] > judged[0].objective[0] == plain["macs"].value
    found = [file_figures(network, "int8", board, known.limits()) for board, known in zip(boards, costs, strict=True)]
    assert found[0] == plain
    assert found[1]["peak_memory_bytes"].value == judged[1].figures["peak_memory_bytes"][0] <= arena
    assert found[1]["macs"].value == judged[1].figures["macs"][0] == judged[1].objective[0]
    assert "patches" in found[1]["peak_memory_bytes"].source
    assert found[1]["weight_bytes"] == plain["weight_bytes"]


def test_a_network_that_fits_runs_without_patches(networks):
    board = Device(
        name="board",
        backend=Memory(),
        precisions=("int8",),
        ram=(MemoryRegion(name="SRAM", num_bytes=2**24),),
        patches=True,
    )
    limits = RowCosts(MixedSpace(), board, {}, Budget(precision="int8")).limits()
    assert file_figures(networks[0], "int8", board, limits) == file_figures(networks[0], "int8", DEVICE, {})


def test_rows_are_priced_as_networks_are_on_a_device_with_patches():
    space = MixedSpace(depths=(1,))
    rows = sample(space, 6, np.random.default_rng(1))
    plain = RowCosts(space, DEVICE, {}, Budget(precision="int8"))(rows).figures["peak_memory_bytes"]
    arena = MemoryRegion(name="SRAM", num_bytes=int(np.median(plain)))
    board = Device(name="board", backend=Memory(), precisions=("int8",), ram=(arena,), patches=True)
    costs = RowCosts(space, board, {}, Budget(precision="int8"))
    judged, alone = costs(rows), costs.of([decode(space, row) for row in rows])
    for name, values in judged.figures.items():
        assert np.array_equal(values, alone.figures[name])
    assert (judged.figures["peak_memory_bytes"] <= plain).all()
    assert (judged.figures["peak_memory_bytes"] < plain).any()
