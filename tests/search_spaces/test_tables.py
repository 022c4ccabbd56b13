import numpy as np

from search_spaces import counts, memory
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import QuantizationPlan, quantize_segment, with_precision
from search_spaces.space import decode, sample
from search_spaces.tables import CostTables, Price

PLAN = QuantizationPlan()


def test_table_costs_equal_the_scalar_path(rng):
    space = MixedSpace(resolutions=(24, 32, 64), widths=((8, 16), (16, 24), (24, 32)), depths=(1, 2))
    tables = CostTables(
        space,
        {
            "macs": Price(counts.segment_macs),
            "parameters": Price(counts.segment_parameters),
            "int8": Price(lambda segment: counts.segment_weight_bytes(quantize_segment(segment, PLAN))),
            "peak": Price(memory.segment_peak_bytes, "max"),
            "float": Price(lambda segment: 0.1 * len(segment.ops)),
        },
    )
    rows = sample(space, 300, rng)
    found = tables(rows)
    for number, row in enumerate(rows):
        workload = lower(decode(space, row))
        assert found["macs"][number] == counts.macs(workload)
        assert found["parameters"][number] == counts.parameters(workload)
        assert found["int8"][number] == counts.weight_bytes(with_precision(workload, PLAN))
        assert found["peak"][number] == memory.peak_bytes(workload)
        assert np.isclose(found["float"][number], 0.1 * len(list(workload)), rtol=1e-9)


def test_a_second_look_up_lowers_nothing(rng):
    space = MixedSpace(widths=((8, 16), (16, 24)), depths=(1,))
    asked = []
    tables = CostTables(space, {"ops": Price(lambda segment: asked.append(1) or len(segment.ops))})
    rows = sample(space, 50, rng)
    first = tables(rows)["ops"]
    count = len(asked)
    assert np.array_equal(tables(rows)["ops"], first)
    assert len(asked) == count > 0


def test_more_rows_than_a_batch_are_priced_alike(rng):
    space = MixedSpace(widths=((8, 16),), depths=(1,), kernels=(3,), expansions=(2,))
    tables = CostTables(space, {"macs": Price(counts.segment_macs)})
    rows = sample(space, 70_000, rng)
    found = tables(rows)["macs"]
    assert np.array_equal(found[65_500:65_600], tables(rows[65_500:65_600])["macs"])
