"""The device decides what is found: another cost structure, or no latency model at all, gives another front."""

import numpy as np
import pytest

from nas.run import RunDirectory
from nas.search.feasible import survey
from nas.search.objectives import Budget, RowCosts
from nas.search.study import SearchOptions, search
from tests.nas.search import simulated

BUDGET = Budget(parameters=60_000)
DEVICES = {
    "launches": {"per_op": 0.004, "per_mac": 1e-10, "per_depthwise_mac": 1e-10},
    "arithmetic": {"per_op": 0.0002, "per_mac": 2e-8, "per_depthwise_mac": 2e-8},
    "no model": None,
}


def costs_of(name):
    rates = DEVICES[name]
    if rates is None:
        return RowCosts(simulated.SPACE, simulated.device(), {}, BUDGET)
    return simulated.costs(BUDGET, simulated.device(name, **rates))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    results = {}
    for name in DEVICES:
        costs = costs_of(name)
        with RunDirectory.open(tmp_path_factory.mktemp("run") / "run", {"device": name}) as run:
            results[name] = search(
                simulated.SPACE,
                costs,
                SearchOptions(trials=60, batch=6, startup=12),
                feasible=survey(simulated.SPACE, costs, seed=0).rows,
                run=run,
                train=simulated.train,
                seed=0,
            )
    return results


def winner(result, accuracy):
    """Return the network with the least objective among those of at least this accuracy."""
    return min((entry for entry in result.front() if entry.metric.value >= accuracy), key=lambda entry: entry.objective)


@pytest.mark.parametrize(("one", "other"), [("launches", "arithmetic"), ("arithmetic", "launches")])
def test_winner_of_each_device_beats_the_others_on_its_own_model(found, one, other):
    reached = winner(found[other], 0.5 * min(max(e.metric.value for e in r.front()) for r in found.values()))
    own = winner(found[one], reached.metric.value)
    assert own.metric.value >= reached.metric.value
    mine, theirs = costs_of(one).of([own.architecture, reached.architecture]).objective
    assert mine < theirs


def test_fronts_of_two_devices_differ(found):
    launches = {entry.key for entry in found["launches"].front()}
    arithmetic = {entry.key for entry in found["arithmetic"].front()}
    assert launches != arithmetic
    assert len(launches & arithmetic) < min(len(launches), len(arithmetic)) / 2


def test_macs_instead_of_the_predictor_give_another_front_that_is_worse_on_the_device(found):
    aware, blind = found["launches"].front(), found["no model"].front()
    assert {entry.key for entry in aware} != {entry.key for entry in blind}
    costs = costs_of("launches")
    level = np.median([entry.metric.value for entry in blind])
    own = winner(found["launches"], level)
    other = winner(found["no model"], level)
    mine, theirs = costs.of([own.architecture, other.architecture]).objective
    assert mine < theirs


def test_without_a_model_the_objective_is_macs_and_has_no_milliseconds(found):
    entry = found["no model"].front()[0]
    assert entry.objective == entry.figures["macs"]
    assert "latency_ms" not in entry.figures
