import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces import counts
from search_spaces import space as rows_of
from search_spaces.build import build
from search_spaces.errors import SpaceError
from search_spaces.lowering import lower, lower_block
from search_spaces.nasbench201 import NasBench201Space
from search_spaces.nasbench201_blocks import (
    EDGES,
    OPERATORS,
    NasBench201Cell,
    NasBench201Reduction,
    canonical_cell,
    without_dead_edges,
)

TABLES = Path(__file__).parents[3] / "shared" / "data" / "latency"
CELLS = tuple(itertools.product(OPERATORS, repeat=6))
N, S, C1, C3, P = OPERATORS


@pytest.fixture(scope="module")
def tables():
    if not (TABLES / "nb201_latency.npz").exists():
        pytest.skip("the public NAS-Bench-201 tables are not in ../shared/data/latency")
    latency, accuracy = np.load(TABLES / "nb201_latency.npz"), np.load(TABLES / "nb201_accuracy.npz")
    return {
        "rows": latency["ops"].astype(np.int64),
        "macs": latency["macs"],
        "parameters": latency["params"],
        "names": tuple(latency["op_names"]),
        "graph_id": accuracy["graph_id"],
        "same": bool((latency["arch_str"] == accuracy["arch_str"]).all()),
    }


@pytest.fixture(scope="module")
def cells(tables):
    assert tables["same"]
    assert tables["names"] == OPERATORS
    return [tuple(OPERATORS[number] for number in row) for row in tables["rows"]]


def prices():
    """MACs and parameters of one operator of each kind, summed over the three stages, and those of all the rest."""
    shapes = ((16, 32, 32), (32, 16, 16), (64, 8, 8))

    def of(operators):
        segments = [lower_block(NasBench201Cell(operators=operators), shape) for shape in shapes]
        return np.array([5 * sum(map(count, segments)) for count in (counts.segment_macs, counts.segment_parameters)])

    by_name = {name: of((N, N, N, name, N, N)) for name in OPERATORS}
    empty = lower(rows_of.decode(NasBench201Space(), np.zeros(6, dtype=np.int64)))
    return by_name, np.array([counts.macs(empty), counts.parameters(empty)])


def test_all_cells_of_the_tables_cost_what_the_tables_say(tables, cells):
    by_name, rest = prices()
    found = np.array([rest + sum(by_name[name] for name in operators) for operators in cells])
    assert np.array_equal(found[:, 0], tables["macs"])
    assert np.array_equal(found[:, 1], tables["parameters"])


def test_literal_networks_lower_to_the_counts_of_the_tables(tables):
    space = NasBench201Space(literal=True)
    for number in np.random.default_rng(0).choice(len(tables["rows"]), 12, replace=False):
        workload = lower(rows_of.decode(space, tables["rows"][number]))
        assert counts.macs(workload) == tables["macs"][number]
        assert counts.parameters(workload) == tables["parameters"][number]


@pytest.mark.slow
def test_every_literal_network_lowers_to_the_counts_of_the_tables(tables):
    space = NasBench201Space(literal=True)
    for row, macs, parameters in zip(tables["rows"], tables["macs"], tables["parameters"], strict=True):
        workload = lower(rows_of.decode(space, row))
        assert (counts.macs(workload), counts.parameters(workload)) == (macs, parameters)


def test_merged_networks_lack_exactly_the_dead_operators_of_the_tables(tables, cells):
    by_name, rest = prices()
    for operators, macs, parameters in zip(cells, tables["macs"], tables["parameters"], strict=True):
        alive = without_dead_edges(operators)
        dead = [name for name, kept in zip(operators, alive, strict=True) if kept == N]
        merged = rest + sum(by_name[name] for name in canonical_cell(operators))
        missing = sum((by_name[name] for name in dead), np.zeros(2))
        assert np.array_equal(merged + missing, (macs, parameters)), operators


def published_string(operators):
    """Return the benchmark's own name of a cell's graph: nested sums, "#" for zeros, as its authors describe it."""
    nodes = {0: "0"}
    for target in (1, 2, 3):
        terms = []
        for (source, _), name in zip(
            [edge for edge in EDGES if edge[1] == target],
            [name for edge, name in zip(EDGES, operators, strict=True) if edge[1] == target],
            strict=True,
        ):
            if name == N or nodes[source] == "#":
                terms.append("#")
            else:
                terms.append(nodes[source] if name == S else f"({nodes[source]})@{name}")
        nodes[target] = "+".join(sorted(terms))
    return nodes[3]


def tree(operators):
    """Return the same with sums flattened and zeros left out: a cell as an expression, in which nothing is shared."""
    nodes = {0: ("x",), 1: (), 2: (), 3: ()}
    for (source, target), name in zip(EDGES, operators, strict=True):
        if name == S:
            nodes[target] += nodes[source]
        elif name != N and nodes[source]:
            nodes[target] += (f"{name}({'+'.join(sorted(nodes[source]))})",)
    return tuple(sorted(nodes[3]))


def test_the_published_rule_gives_the_published_classes(tables, cells):
    named = defaultdict(set)
    for operators, graph_id in zip(cells, tables["graph_id"], strict=True):
        named[published_string(operators)].add(graph_id)
    assert len(named) == len(set(tables["graph_id"])) == 6466
    assert all(len(ids) == 1 for ids in named.values())


def test_cells_are_one_network_exactly_when_expression_and_operators_agree():
    """5,425 classes: an expression (4,930 of them) says all but whether equal terms are one operator or several."""
    found = defaultdict(set)
    for operators in CELLS:
        executed = sorted(name for name in without_dead_edges(operators) if name not in (N, S))
        found[tree(operators), tuple(executed)].add(canonical_cell(operators))
    assert len(found) == len({cell for merged in found.values() for cell in merged}) == 5425
    assert all(len(merged) == 1 for merged in found.values())
    assert len({expression for expression, _ in found}) == 4930


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ((C3, N, N, N, N, N), (N,) * 6, True),
        ((N, N, C1, S, C3, N), (N, N, N, S, N, N), True),
        ((C3, C1, N, N, P, S), (C1, C3, N, N, S, P), True),
        ((S, N, C3, N, N, S), (N, C3, N, N, N, S), True),
        ((S, N, C3, N, N, S), (N, N, N, C3, N, N), True),
        ((C3, N, S, N, S, S), (C3, C3, N, N, S, S), False),
        ((C3, N, N, S, S, N), (C3, N, N, N, S, N), False),
        ((S, N, N, S, S, N), (N, N, N, S, N, N), False),
    ],
    ids=["no output", "zeros", "relabelled", "skip before", "skip around", "shared or not", "term", "doubled"],
)
def test_cells_are_merged_exactly_when_their_graphs_are_equal(first, second, equal):
    assert (canonical_cell(first) == canonical_cell(second)) is equal


def test_a_canonical_cell_stands_for_itself():
    for operators in CELLS[::37]:
        assert canonical_cell(canonical_cell(operators)) == canonical_cell(operators)


def test_merged_cells_compute_what_their_literal_forms_compute():
    """With equal weights, where no convolution is dead; one would add the constant that its normalization learned."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, 6, generator=generator)
    for operators in ((C3, S, P, N, S, C1), (P, N, N, S, C3, P), (S, S, S, C1, N, P)):
        literal = NasBench201Cell(operators=operators, literal=True).build((4, 6, 6)).eval()
        merged = NasBench201Cell(operators=operators).build((4, 6, 6)).eval()
        merged.load_state_dict(literal.state_dict())
        with torch.no_grad():
            assert torch.allclose(merged(x), literal(x))


def test_the_space_counts_its_networks_without_lowering_them():
    before = lower_block.cache_info().misses
    assert rows_of.num_architectures(NasBench201Space(cells=1)) == 5425
    assert lower_block.cache_info().misses == before
    assert rows_of.size(NasBench201Space()) == 15625


def test_published_network_of_all_spatial_convolutions_runs():
    architecture = NasBench201Space().decode({f"edge{source}{target}": C3 for source, target in EDGES})
    assert counts.macs(lower(architecture)) == 220_119_680
    assert counts.parameters(lower(architecture)) == 1_531_546
    with torch.no_grad():
        assert build(architecture).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a cell is 6 of none, skip_connect"):
        NasBench201Cell(operators=("none",) * 5)
    with pytest.raises(ValueError, match="sides must be even, got 7 x 7"):
        NasBench201Reduction(width=8).build((4, 7, 7))
    with pytest.raises(SpaceError, match="multiples of 4"):
        NasBench201Space(resolutions=(30,))
