"""What every latency model must do: fit samples, say how sure it is, know its limits, and survive being saved."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from latency_models.prediction import (
    LATENCY_MODELS,
    AdditivePredictor,
    LatencyModel,
    Prediction,
    Predictor,
    Sample,
    read_predictor,
)
from nas.testing.contract import ContractError, kept, told
from nas.testing.options import check_options
from nas.testing.small_devices import DEVICE, blocks, huge_network, networks, strange_network, timed
from search_spaces.errors import MeasurementError
from search_spaces.workload import Workload

LEVEL = 0.8
"""Of the intervals whose coverage is checked."""

COVERAGE_TOLERANCE = 0.15
"""Greatest difference of the coverage, over `SPLITS` fits, from `LEVEL`.

Left-out errors of 40 exchangeable networks cover 0.80 of new ones with a standard deviation of 0.07 between fits, so
four fits of a calibrated model stray by a quarter of the tolerance. Intervals half as wide as they should be cover
0.48, twice as wide 0.99.
"""

SPLITS = 4
FITTED = 40
"""Networks of one fit; the others of `small_devices.networks` are new to it."""

_LEVELS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
_EQUAL = 1e-9
"""Greatest relative difference of what is computed twice."""
_SAVED = 1e-6
"""The same of a predictor that was written and read: some are fitted anew from what they kept."""


class LatencyModelContract:
    """Tests every latency model passes; a subclass defines the fixture `model`.

    The device is made up (`small_devices`): the kit fits 40 of its networks, and 40 single blocks besides where the
    class says `uses_blocks`. Fits are kept from one test to the next, so a model must be hashable.
    """

    def test_options_are_a_value(self, model: LatencyModel) -> None:
        """Its settings can be written in a run file."""
        check_options(model, LATENCY_MODELS, LatencyModel)

    def test_predictions_are_positive(self, model: LatencyModel) -> None:
        """Every network has a latency, a spread and a flag."""
        predictor = _fitted(model)
        with told("networks cannot be predicted"):
            prediction = predictor.predict(networks())
        _check_shapes(prediction, len(networks()))

    def test_quantiles_rise_around_the_mean(self, model: LatencyModel) -> None:
        """More certainty costs a higher bound."""
        _check_quantiles(_fitted(model).predict(networks()))

    def test_intervals_cover_what_they_say(self, model: LatencyModel) -> None:
        """New networks lie in their interval as often as its level says."""
        coverage = float(np.mean([_coverage(model, split) for split in range(SPLITS)]))
        if abs(coverage - LEVEL) > COVERAGE_TOLERANCE:
            kind = "too narrow" if coverage < LEVEL else "too wide"
            raise ContractError(
                f"the {LEVEL:.0%} interval holds {coverage:.0%} of new networks, expected {LEVEL:.0%} within "
                f"{COVERAGE_TOLERANCE:.0%}: intervals are {kind}"
            )

    def test_networks_unlike_the_timed_ones_are_out_of_range(self, model: LatencyModel) -> None:
        """It says what it cannot know."""
        _check_range(_fitted(model), needs_samples=_needs_samples(model))

    def test_the_same_samples_give_the_same_predictions(self, model: LatencyModel) -> None:
        """A fit depends on its arguments alone, a prediction on one network alone."""
        _check_repeatable(model)

    def test_a_saved_predictor_predicts_the_same(self, model: LatencyModel) -> None:
        """JSON gives an equal predictor."""
        _check_saved(_fitted(model))

    def test_prices_of_segments_add_up(self, model: LatencyModel) -> None:
        """What a table of blocks adds up is what the predictor says; nothing is asked of one that is not additive."""
        predictor = _fitted(model)
        if isinstance(predictor, AdditivePredictor):
            _check_additive(predictor)

    def test_samples_that_cannot_be_fitted_are_refused(self, model: LatencyModel) -> None:
        """Mixed origins, latencies that are none and too few samples raise MeasurementError."""
        _check_refusals(model)


# -- what is fitted


def _samples(model: LatencyModel, workloads: Sequence[Workload], *, seed: int) -> list[Sample]:
    alone = timed(blocks(), seed=1000 + seed) if getattr(model, "uses_blocks", False) else []
    return [*alone, *timed(workloads, seed=seed)]


@kept
def _fitted(model: LatencyModel) -> Predictor:
    """Return the model fitted to the first networks."""
    with told("samples of one device cannot be fitted"):
        return model.fit(DEVICE, _samples(model, networks()[:FITTED], seed=0))


def _needs_samples(model: LatencyModel) -> bool:
    return bool(getattr(model, "needs_samples", True))


# -- predictions


def _check_shapes(prediction: Prediction, count: int) -> None:
    for name in ("mean_ms", "spread"):
        values = np.asarray(getattr(prediction, name))
        if values.shape != (count,):
            raise ContractError(f"{name} has shape {values.shape}, expected ({count},): one for each network")
        if not (np.isfinite(values) & (values > 0)).all():
            raise ContractError(f"{name} holds {_first(values)!r}, expected finite numbers above 0")
    flags = np.asarray(prediction.in_range)
    if flags.shape != (count,) or flags.dtype != np.bool_:
        raise ContractError(f"in_range is {flags.dtype} {flags.shape}, expected bool ({count},)")
    residuals = np.asarray(prediction.residuals)
    if not len(residuals) or not np.isfinite(residuals).all() or (np.diff(residuals) < 0).any():
        raise ContractError("residuals must be finite and sorted, at least one")


def _first(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:  # Any: of any shape
    """Return the first value that is no finite number above 0."""
    return float(values[~(np.isfinite(values) & (values > 0))][0])


def _check_quantiles(prediction: Prediction) -> None:
    found = np.array([prediction.quantile_ms(level) for level in _LEVELS])
    if not (np.isfinite(found) & (found > 0)).all():
        raise ContractError(f"a quantile is {_first(found)!r} ms, expected finite numbers above 0")
    falling = (np.diff(found, axis=0) < 0).any(axis=1)
    if falling.any():
        place = int(falling.argmax())
        raise ContractError(f"the quantile at {_LEVELS[place + 1]} lies below that at {_LEVELS[place]}")
    below, above = found[0] <= prediction.mean_ms, found[-1] >= prediction.mean_ms
    if not (below & above).all():
        place = int((~(below & above)).argmax())
        raise ContractError(
            f"the mean {prediction.mean_ms[place]:.4g} ms lies outside its own interval from {found[0][place]:.4g} to "
            f"{found[-1][place]:.4g} ms ({_LEVELS[0]} to {_LEVELS[-1]})"
        )


def _coverage(model: LatencyModel, split: int) -> float:
    """Return which share of networks new to a fit lie in their interval."""
    order = np.random.default_rng([7, split]).permutation(len(networks()))
    shuffled = [networks()[number] for number in order]
    samples = timed(shuffled, seed=split)
    alone = _samples(model, (), seed=split)
    predictor = model.fit(DEVICE, [*alone, *samples[:FITTED]])
    new = samples[FITTED:]
    prediction = predictor.predict([sample.workload for sample in new])
    truth = np.array([sample.latency_ms for sample in new])
    low, high = prediction.quantile_ms((1 - LEVEL) / 2), prediction.quantile_ms((1 + LEVEL) / 2)
    return float(((low <= truth) & (truth <= high)).mean())


# -- limits


def _check_range(predictor: Predictor, *, needs_samples: bool) -> None:
    known = networks()[:FITTED]
    for workload, covered in zip(known, predictor.predict(known).in_range, strict=True):
        if unseen := predictor.unseen(workload):
            raise ContractError(f"a timed network holds {', '.join(unseen)}, which it calls unseen")
        if not covered:
            raise ContractError("a timed network is out of range")
    strange, huge = predictor.predict([strange_network(), huge_network()]).in_range
    unseen = predictor.unseen(strange_network())
    if unseen and strange:
        raise ContractError(f"a network is in range though no sample held {', '.join(unseen)}")
    if needs_samples and not unseen:
        raise ContractError(
            "no sample held a depthwise convolution of 7 x 7, yet nothing is unseen in a network of them; a model "
            "that needs no samples says `needs_samples: ClassVar[bool] = False`"
        )
    if needs_samples and huge:
        raise ContractError("a network that takes 50 times as long as any timed one is in range")


# -- the same again


def _check_repeatable(model: LatencyModel) -> None:
    samples = _samples(model, networks()[:FITTED], seed=0)
    given = list(samples)
    state = np.random.get_state()
    try:
        np.random.seed(1)
        again = model.fit(DEVICE, samples)
    finally:
        np.random.set_state(state)
    if samples != given:
        raise ContractError("fitting changes the list of samples")
    new = networks()[FITTED:]
    _require_equal(_fitted(model).predict(new), again.predict(new), _EQUAL, "fitting the same samples twice")
    alone = [again.predict([workload]) for workload in new[:5]]
    together = again.predict(new)
    for number, prediction in enumerate(alone):
        if not np.allclose(prediction.mean_ms[0], together.mean_ms[number], rtol=_EQUAL):
            raise ContractError("a network by itself has another latency than among others")


def _check_saved(predictor: Predictor) -> None:
    with told("the predictor has no JSON form"):
        record = json.loads(json.dumps(predictor.to_dict(), allow_nan=False))
    for name in ("type", "schema"):
        if name not in record:
            raise ContractError(f"the JSON form has no {name!r}", ", ".join(record))
    with told("what it wrote cannot be read; put a reader into PREDICTORS", record["type"]):
        again = read_predictor(record)
    workloads = (*networks(), strange_network(), huge_network())
    _require_equal(predictor.predict(workloads), again.predict(workloads), _SAVED, "writing and reading")
    for workload in workloads:
        if again.unseen(workload) != predictor.unseen(workload):
            raise ContractError("a predictor that was read calls other kernels unseen")
    _must_refuse("a predictor of another schema", lambda: read_predictor({**record, "schema": "of tomorrow"}))


def _require_equal(one: Prediction, two: Prediction, tolerance: float, what: str) -> None:
    pairs = [("mean", one.mean_ms, two.mean_ms)]
    pairs += [(f"quantile at {level}", one.quantile_ms(level), two.quantile_ms(level)) for level in _LEVELS]
    for name, left, right in pairs:
        off = float(np.abs(left / right - 1.0).max())
        if not off <= tolerance:
            raise ContractError(f"{what} changes the {name} by {off:.2g} of it")
    if one.in_range.tolist() != two.in_range.tolist():
        raise ContractError(f"{what} changes what is in range")


def _check_additive(predictor: AdditivePredictor) -> None:
    means = predictor.predict(networks()).mean_ms
    sums = [predictor.base_ms + sum(map(predictor.segment_ms, known.segments)) for known in networks()]
    off = np.abs(np.array(sums) / means - 1.0)
    if not off.max() <= _EQUAL:
        raise ContractError(
            f"constant and prices of segments add up to {sums[int(off.argmax())]:.6g} ms, the prediction is "
            f"{means[int(off.argmax())]:.6g} ms"
        )
    if (np.diff(predictor.residuals) < 0).any():
        raise ContractError("`residuals` is not sorted")


# -- refusals


def _check_refusals(model: LatencyModel) -> None:
    samples = _samples(model, networks()[:FITTED], seed=0)
    rest, last = samples[:-1], samples[-1]
    other = [*rest, replace(last, origin="estimated")]
    _must_refuse("a fit of measured and estimated latencies", lambda: model.fit(DEVICE, other))
    for latency in (0.0, -1.0, float("nan"), float("inf")):
        wrong = [*rest, replace(last, latency_ms=latency)]
        _must_refuse(f"a latency of {latency} ms", lambda wrong=wrong: model.fit(DEVICE, wrong))  # type: ignore[misc]
    if _needs_samples(model):
        _must_refuse("a fit to no sample", lambda: model.fit(DEVICE, []))
        _must_refuse("a fit to one sample", lambda: model.fit(DEVICE, [last]))
        return
    with told("the class says that it needs no samples"):
        prediction = model.fit(DEVICE, []).predict(networks())
    _check_shapes(prediction, len(networks()))


def _must_refuse(what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except MeasurementError:
        return
    except Exception as error:
        raise ContractError(f"{what} raises {type(error).__name__} ({error}), expected MeasurementError") from error
    raise ContractError(f"{what} is accepted, expected MeasurementError")
