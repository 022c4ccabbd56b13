"""Before finalists are chosen the best trained networks are timed, and what was measured counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest

from latency_models.backends.local import Local
from latency_models.device import Device
from latency_models.failures import UnsupportedOperator, all_timed
from latency_models.prediction import LATENCY_MODELS, Sample
from latency_models.profile import Probed, Profile, Refused
from latency_models.timing import BACKENDS, Timing
from nas.config import load_config
from nas.pipeline.confirming import confirm, ranked, refitted_costs, with_preferred
from nas.pipeline.finalists import _first
from nas.pipeline.preparing import prepare
from nas.protocols import quiet
from nas.search.objectives import Budget, RowCosts
from nas.search.study import Entry, SearchResult
from search_spaces.counts import macs
from search_spaces.errors import MeasurementError
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.mixed import MixedSpace
from search_spaces.precision import with_precision
from search_spaces.space import decode, sample
from tests.nas.pipeline.small import SMALL

SPACE = MixedSpace(depths=(1,))


def entry(architecture, accuracy, objective=1.0, rung=0):
    return Entry(
        key=architecture.key,
        architecture=architecture,
        values={},
        precision="float32",
        figures={},
        objective=objective,
        metric=Measurement(value=accuracy, unit="1", origin="measured"),
        rung=rung,
        seconds=0.0,
        failed="",
    )


def searched(entries):
    return SearchResult(entries=tuple(entries), skipped=(), duplicates=0, complete=True, seconds=1.0)


def timed(architecture, precision, ms, level=1.0):
    return Probed(
        architecture=architecture, precision=precision, timing=Timing("file", (np.array([ms]),)), purpose="confirmed",
        level=level,
    )  # fmt: skip


def profile(*networks):
    found = Profile(device="board", fingerprint={}, probes="", seconds=0.0, networks=())
    return found.with_networks(networks)


def true_ms(architecture):
    return 0.02 + 1e-8 * macs(lower(architecture))


@pytest.fixture(scope="module")
def networks():
    return [decode(SPACE, row) for row in sample(SPACE, 40, np.random.default_rng(0))]


@pytest.fixture(scope="module")
def costs(networks):
    device = Device(name="board", backend=Local())
    model = LATENCY_MODELS.get("additive")()
    samples = {
        precision: [
            Sample(with_precision(lower(item), device.plan if precision == "int8" else None), factor * true_ms(item))
            for item in networks
        ]
        for precision, factor in (("float32", 1.0), ("int8", 0.8))
    }
    predictors = {precision: model.fit(device, known) for precision, known in samples.items()}
    limit = float(np.median([true_ms(item) for item in networks]))
    return RowCosts(SPACE, device, predictors, Budget(latency_ms=limit))


@pytest.fixture(scope="module")
def fitting(networks, costs):
    """Five networks that fit by prediction, the most accurate and slowest first."""
    fits = costs.of(networks).feasible
    chosen = sorted((item for item, fit in zip(networks, fits, strict=True) if fit), key=true_ms, reverse=True)[:5]
    return [entry(item, 0.9 - 0.1 * place, true_ms(item)) for place, item in enumerate(chosen)]


def test_without_timings_the_models_decide(networks, costs, fitting):
    slow = entry(max(networks, key=true_ms), 0.99)
    order = ranked(searched([slow, *fitting]), costs, profile())
    assert [item.key for item in order] == [item.key for item in fitting]
    assert {item.precision for item in order} == {"int8"}


def test_a_network_that_was_timed_above_the_budget_is_out(costs, fitting):
    limit = costs.budget.latency_ms
    over = [timed(fitting[0].architecture, name, 1.01 * limit) for name in ("float32", "int8")]
    assert [item.key for item in ranked(searched(fitting), costs, profile(*over))] == [item.key for item in fitting[1:]]


def test_a_network_that_was_timed_within_the_budget_is_in_whatever_was_predicted(networks, costs):
    slow = entry(max(networks, key=true_ms), 0.99)
    known = [timed(slow.architecture, "float32", 0.9 * costs.budget.latency_ms)]
    assert [item.key for item in ranked(searched([slow]), costs, profile(*known))] == [slow.key]
    assert ranked(searched([slow]), costs, profile()) == []


def test_the_budget_is_held_against_what_was_measured_and_networks_are_compared_at_the_profiles_level(costs, fitting):
    limit = costs.budget.latency_ms
    slowed = timed(fitting[0].architecture, "int8", 1.05 * limit, level=1.2)
    assert fitting[0].key not in {item.key for item in ranked(searched(fitting), costs, profile(slowed))}
    first = timed(fitting[0].architecture, "int8", 0.9 * limit, level=0.9)
    found = next(item for item in ranked(searched(fitting), costs, profile(first)) if item.key == fitting[0].key)
    assert found.objective == pytest.approx(limit)


def test_a_network_that_the_device_refuses_in_one_precision_ships_in_the_other_and_else_not_at_all(costs, fitting):
    architecture = fitting[0].architecture
    refused = [
        Refused(architecture=architecture, precision=name, kind="unsupported", reason="no such operator")
        for name in ("int8", "float32")
    ]
    keys = [item.key for item in fitting]
    assert [item.key for item in ranked(searched(fitting), costs, profile(*refused))] == keys[1:]
    known = profile(refused[0], timed(architecture, "float32", 0.9 * costs.budget.latency_ms))
    first = ranked(searched(fitting), costs, known)[0]
    assert (first.key, first.precision) == (keys[0], "float32")


def test_a_network_ships_in_the_precision_that_was_timed_faster(costs, fitting):
    pair = [timed(fitting[0].architecture, name, ms) for name, ms in (("int8", 0.03), ("float32", 0.02))]
    assert ranked(searched(fitting), costs, profile(*pair))[0].precision == "float32"


def test_a_network_that_turned_out_slower_than_a_better_one_leaves_the_front(costs, fitting):
    second = timed(fitting[1].architecture, "int8", 0.999 * costs.budget.latency_ms)
    order = ranked(searched(fitting), costs, profile(second))
    assert [item.key for item in order] == [fitting[place].key for place in (0, 2, 3, 4, 1)]


def test_where_nothing_fits_the_front_stands(networks, costs):
    slow = entry(max(networks, key=true_ms), 0.99)
    assert _first(searched([slow]), costs, profile(), 2) == [slow]


# -- timing them


@BACKENDS.register("cliff_for_tests")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cliff:
    """A board on which files beyond the fast part of its flash take three times as long, and some are refused.

    Files with so many nodes that it is divisible by `refuses` are; a board that is `away` times nothing.
    """

    edge: int
    away: bool = False
    refuses: int = 1_000_000

    live: ClassVar[bool] = True

    def fingerprint(self) -> Mapping[str, str]:
        return {"backend": "cliff", "machine": "x86_64", "instruction_sets": "avx512_vnni", "edge": str(self.edge)}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        if self.away:
            raise MeasurementError("the board is away")

        def ms(path):
            size = path.stat().st_size
            return (0.05 + 0.002 * len(onnx.load(path).graph.node)) * (3.0 if size > self.edge else 1.0)

        return all_timed([
            UnsupportedOperator("no such operator", file=path.name)
            if len(onnx.load(path).graph.node) % self.refuses == 0
            else Timing(path.name, (np.array([ms(path)]),))
            for path in artefacts
        ])  # fmt: skip


@pytest.fixture
def prepared(tmp_path):
    """A prepared run whose board has a cliff in the midst of the space, which no additive model can express."""
    path = tmp_path / "run.toml"
    start = SMALL.index("backend = {")
    backend = 'backend = { type = "cliff_for_tests", edge = 28_000 }\nprecisions = ["float32"]'
    text = SMALL[:start] + backend + SMALL[SMALL.index("\n", start) :]
    text = text[: text.index('[[stages]]\ntype = "quantize"')] + text[text.index("[pipeline]") :]
    path.write_text(text.replace("LATENCY", "0.3").replace("weight_bytes = 400_000", "level = 0.5"))
    return prepare(load_config(path), tmp_path, store=tmp_path / "devices")


@pytest.fixture
def found(prepared):
    rows = prepared.survey.rows[:40]
    networks = {known.key: known for known in (decode(prepared.space, row) for row in rows)}.values()
    order = sorted(networks, key=lambda item: -macs(lower(item)))
    return searched(entry(item, 0.9 - 0.001 * place) for place, item in enumerate(order))


def test_finalists_have_been_timed_and_those_above_the_budget_are_none(prepared, found, tmp_path):
    tried = confirm(prepared, found, tmp_path, quiet)
    measured = {item.architecture.key: item.timing.latency_ms for item in tried.networks}
    assert 5 <= len(measured) <= prepared.config.pipeline.timed
    assert max(measured.values()) > 0.3, "the cliff misled nobody, so this test shows nothing"
    first = ranked(found, refitted_costs(prepared, tried.networks), tried)[0]
    assert measured[first.key] <= 0.3


def test_what_was_timed_is_kept_and_not_timed_again(prepared, found, tmp_path):
    known = confirm(prepared, found, tmp_path, quiet).networks
    away = replace(prepared.config.device, backend=replace(prepared.config.device.backend, away=True))
    prepared.config = replace(prepared.config, device=away)
    again = confirm(prepared, found, tmp_path, quiet).networks
    assert [item.architecture for item in again] == [item.architecture for item in known]
    assert [item.timing.latency_ms for item in again] == pytest.approx([item.timing.latency_ms for item in known])
    assert Profile.load(tmp_path / "confirmed.json").networks[0].purpose == "confirmed"


def test_networks_that_the_board_refuses_are_no_finalists_and_not_tried_again(prepared, found, tmp_path):
    picky = replace(prepared.config.device, backend=replace(prepared.config.device.backend, refuses=2))
    prepared.config = replace(prepared.config, device=picky)
    tried = confirm(prepared, found, tmp_path, quiet)
    refused = {item.architecture.key for item in tried.refused}
    assert refused, "no network was refused, so this test shows nothing"
    assert tried.networks
    order = ranked(found, refitted_costs(prepared, tried.networks), tried)
    assert not refused & {item.key for item in order}
    again = confirm(prepared, found, tmp_path, quiet)
    assert len(again.refused) == len(tried.refused)


@pytest.mark.parametrize("without", ["latency limit", "timing"])
def test_nothing_is_timed_without(prepared, found, tmp_path, without):
    if without == "timing":
        pipeline = replace(prepared.config.pipeline, timed=0)
        prepared.config = replace(prepared.config, pipeline=pipeline)
    else:
        prepared.config = replace(prepared.config, budget=Budget())
    assert confirm(prepared, found, tmp_path, quiet).networks == ()
    assert not (tmp_path / "confirmed.json").exists()


def test_the_report_hears_what_the_searchs_own_models_had_said(prepared, found, tmp_path):
    known = confirm(prepared, found, tmp_path, quiet).networks
    (fit,) = with_preferred(prepared.fits, known, prepared.costs)
    workloads = [with_precision(lower(item.architecture), None) for item in known]
    assert fit.preferred_predicted_ms == pytest.approx(
        prepared.costs.predictors["float32"].predict(workloads).mean_ms.tolist()
    )
    assert fit.preferred_measured_ms == pytest.approx([item.timing.latency_ms / item.level for item in known])
