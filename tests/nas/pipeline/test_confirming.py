"""Before finalists are chosen the best trained networks are timed, and what was measured counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest

from latency_models.backends.local import Local
from latency_models.device import Device
from latency_models.prediction import LATENCY_MODELS, Sample
from latency_models.profile import Probed, Profile
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
    order = ranked(searched([slow, *fitting]), costs, ())
    assert [item.key for item in order] == [item.key for item in fitting]
    assert {item.precision for item in order} == {"int8"}


def test_a_network_that_was_timed_above_the_budget_is_out(costs, fitting):
    limit = costs.budget.latency_ms
    over = [timed(fitting[0].architecture, name, 1.01 * limit) for name in ("float32", "int8")]
    assert [item.key for item in ranked(searched(fitting), costs, over)] == [item.key for item in fitting[1:]]


def test_a_network_that_was_timed_within_the_budget_is_in_whatever_was_predicted(networks, costs):
    slow = entry(max(networks, key=true_ms), 0.99)
    known = [timed(slow.architecture, "float32", 0.9 * costs.budget.latency_ms)]
    assert [item.key for item in ranked(searched([slow]), costs, known)] == [slow.key]
    assert ranked(searched([slow]), costs, ()) == []


def test_the_budget_is_held_against_what_was_measured_and_networks_are_compared_at_the_profiles_level(costs, fitting):
    limit = costs.budget.latency_ms
    slowed = timed(fitting[0].architecture, "int8", 1.05 * limit, level=1.2)
    assert fitting[0].key not in {item.key for item in ranked(searched(fitting), costs, [slowed])}
    first = timed(fitting[0].architecture, "int8", 0.9 * limit, level=0.9)
    found = next(item for item in ranked(searched(fitting), costs, [first]) if item.key == fitting[0].key)
    assert found.objective == pytest.approx(limit)


def test_a_network_ships_in_the_precision_that_was_timed_faster(costs, fitting):
    pair = [timed(fitting[0].architecture, name, ms) for name, ms in (("int8", 0.03), ("float32", 0.02))]
    assert ranked(searched(fitting), costs, pair)[0].precision == "float32"


def test_a_network_that_turned_out_slower_than_a_better_one_leaves_the_front(costs, fitting):
    second = timed(fitting[1].architecture, "int8", 0.999 * costs.budget.latency_ms)
    order = ranked(searched(fitting), costs, [second])
    assert [item.key for item in order] == [fitting[place].key for place in (0, 2, 3, 4, 1)]


def test_where_nothing_fits_the_front_stands(networks, costs):
    slow = entry(max(networks, key=true_ms), 0.99)
    assert _first(searched([slow]), costs, (), 2) == [slow]


# -- timing them


@BACKENDS.register("cliff_for_tests")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cliff:
    """A board on which files beyond the fast part of its flash take three times as long; `away` refuses to time."""

    edge: int
    away: bool = False

    live: ClassVar[bool] = True

    def fingerprint(self) -> Mapping[str, str]:
        return {"backend": "cliff", "machine": "x86_64", "instruction_sets": "avx512_vnni", "edge": str(self.edge)}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        if self.away:
            raise MeasurementError("the board is away")

        def ms(path):
            size = path.stat().st_size
            return (0.05 + 0.002 * len(onnx.load(path).graph.node)) * (3.0 if size > self.edge else 1.0)

        return [Timing(path.name, (np.array([ms(path)]),)) for path in artefacts]


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
    known = confirm(prepared, found, tmp_path, quiet)
    measured = {item.architecture.key: item.timing.latency_ms for item in known}
    assert 5 <= len(measured) <= prepared.config.pipeline.timed
    assert max(measured.values()) > 0.3, "the cliff misled nobody, so this test shows nothing"
    first = ranked(found, refitted_costs(prepared, known), known)[0]
    assert measured[first.key] <= 0.3


def test_what_was_timed_is_kept_and_not_timed_again(prepared, found, tmp_path):
    known = confirm(prepared, found, tmp_path, quiet)
    away = replace(prepared.config.device, backend=replace(prepared.config.device.backend, away=True))
    prepared.config = replace(prepared.config, device=away)
    again = confirm(prepared, found, tmp_path, quiet)
    assert [item.architecture for item in again] == [item.architecture for item in known]
    assert [item.timing.latency_ms for item in again] == pytest.approx([item.timing.latency_ms for item in known])
    assert Profile.load(tmp_path / "confirmed.json").networks[0].purpose == "confirmed"


@pytest.mark.parametrize("without", ["latency limit", "timing"])
def test_nothing_is_timed_without(prepared, found, tmp_path, without):
    if without == "timing":
        pipeline = replace(prepared.config.pipeline, timed=0)
        prepared.config = replace(prepared.config, pipeline=pipeline)
    else:
        prepared.config = replace(prepared.config, budget=Budget())
    assert confirm(prepared, found, tmp_path, quiet) == ()
    assert not (tmp_path / "confirmed.json").exists()


def test_the_report_hears_what_the_searchs_own_models_had_said(prepared, found, tmp_path):
    known = confirm(prepared, found, tmp_path, quiet)
    (fit,) = with_preferred(prepared.fits, known, prepared.costs)
    workloads = [with_precision(lower(item.architecture), None) for item in known]
    assert fit.preferred_predicted_ms == pytest.approx(
        prepared.costs.predictors["float32"].predict(workloads).mean_ms.tolist()
    )
    assert fit.preferred_measured_ms == pytest.approx([item.timing.latency_ms / item.level for item in known])
