"""The contract of latency models: an honest one passes, and each way of being wrong is told."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from latency_models.additive import check_samples
from latency_models.left_out import left_out_parts
from latency_models.prediction import LATENCY_MODELS, PREDICTORS, Prediction
from latency_models.ridge_compact import check_schema
from latency_models.timed_range import TimedRange, timed_range
from nas.testing import ContractError, LatencyModelContract
from nas.testing.small_devices import BASE_MS, true_ms
from search_spaces.workload import Workload

CONTRACT = LatencyModelContract()
CHECKS = [name for name in dir(LatencyModelContract) if name.startswith("test_")]


@dataclass(frozen=True)
class Fitted:
    """A factor on the truth, so that only noise is left."""

    factor: float
    residuals: tuple[float, ...]
    timed: TimedRange

    @property
    def base_ms(self):
        return self.factor * BASE_MS

    def segment_ms(self, segment):
        return self.factor * true_ms(Workload((segment,), ("",))) - self.base_ms

    def means(self, workloads):
        return np.array([self.factor * true_ms(workload) for workload in workloads])

    def predict(self, workloads):
        means = self.means(workloads)
        return Prediction(means, np.ones(len(means)), np.array(self.residuals), self.timed.holds(workloads, means))

    def unseen(self, workload):
        return self.timed.unseen(workload)

    def to_dict(self):
        return {
            "type": "of_a_test",
            "schema": 1,
            "factor": self.factor,
            "residuals": list(self.residuals),
            "timed": self.timed.to_dict(),
        }

    @classmethod
    def read(cls, record):
        check_schema(record, 1)
        return cls(record["factor"], tuple(record["residuals"]), TimedRange.from_dict(record["timed"]))


@dataclass(frozen=True)
class Honest:
    """A model that conforms; its children break one rule each."""

    predictor: ClassVar[type] = Fitted
    width: ClassVar[float] = 1.0

    def fit(self, device, samples):
        check_samples(device, samples, least=2)
        logs = np.array([np.log(sample.latency_ms / true_ms(sample.workload)) for sample in samples])
        left_out = np.array([0.0] * len(logs))
        for rest, part in left_out_parts(len(logs), 10):
            left_out[part] = np.expm1(logs[part] - logs[rest].mean())
        residuals = tuple(float(self.width * error) for error in np.sort(left_out))
        return self.predictor(float(np.exp(logs.mean())), residuals, timed_range(samples))


class Overconfident(Honest):
    width = 0.4


class Timid(Honest):
    width = 4.0


class NegativeFitted(Fitted):
    def means(self, workloads):
        return super().means(workloads) - 0.7


class Negative(Honest):
    predictor = NegativeFitted


class UnsortedFitted(Fitted):
    def predict(self, workloads):
        return replace(super().predict(workloads), residuals=np.array(self.residuals[::-1]))


class Unsorted(Honest):
    predictor = UnsortedFitted


class BiasedFitted(Fitted):
    def predict(self, workloads):
        return replace(super().predict(workloads), residuals=np.array(self.residuals) + 1.0)


class Biased(Honest):
    predictor = BiasedFitted


class BoldFitted(Fitted):
    def predict(self, workloads):
        return replace(super().predict(workloads), in_range=np.ones(len(workloads), np.bool_))


class Bold(Honest):
    predictor = BoldFitted


class ForgetfulFitted(BoldFitted):
    def unseen(self, workload):
        return ()


class Forgetful(Honest):
    predictor = ForgetfulFitted


class Unseeded(Honest):
    def fit(self, device, samples):
        found = super().fit(device, samples)
        return replace(found, factor=found.factor * (1 + 0.01 * np.random.random()))


class RelativeFitted(Fitted):
    def means(self, workloads):
        found = super().means(workloads)
        return found / found.mean()


class Relative(Honest):
    predictor = RelativeFitted


class LossyFitted(Fitted):
    def to_dict(self):
        return {**super().to_dict(), "factor": round(self.factor, 3)}


class Lossy(Honest):
    predictor = LossyFitted


class TrustingFitted(Fitted):
    @classmethod
    def read(cls, record):
        return cls(record["factor"], tuple(record["residuals"]), TimedRange.from_dict(record["timed"]))


class Trusting(Honest):
    predictor = TrustingFitted


class NumpyFitted(Fitted):
    def to_dict(self):
        return {**super().to_dict(), "residuals": np.array(self.residuals)}


class Numpy(Honest):
    predictor = NumpyFitted


class Careless(Honest):
    def fit(self, device, samples):
        return super().fit(device, [replace(sample, origin="measured") for sample in samples])


class Other(Honest):
    def fit(self, device, samples):
        if len({sample.origin for sample in samples}) > 1:
            raise ValueError("mixed")
        return super().fit(device, samples)


class Emptied(Honest):
    def fit(self, device, samples):
        found = super().fit(device, samples)
        samples.clear()
        return found


class MisaddedFitted(Fitted):
    @property
    def base_ms(self):
        return 0.0


class Misadded(Honest):
    predictor = MisaddedFitted


@dataclass(eq=False)
class Mutable:
    predictor: ClassVar[type] = Fitted


@dataclass(frozen=True)
class Listed(Honest):
    names: tuple[object, ...] = (print,)


@pytest.fixture
def model(request, registered, monkeypatch):
    plugin = request.param()
    monkeypatch.setitem(PREDICTORS, "of_a_test", plugin.predictor.read)
    return registered(LATENCY_MODELS, plugin)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("model", [Honest], indirect=True, ids=["Honest"])
def test_an_honest_model_passes(model, check):
    getattr(CONTRACT, check)(model)


BROKEN = [
    (Mutable, "options_are_a_value", r"Mutable can be changed after it was made: write @dataclass\(frozen=True\)"),
    (Listed, "options_are_a_value", "the fields of .*Listed are no JSON values: TypeError"),
    (Negative, "predictions_are_positive", "mean_ms holds -0.[0-9]+, expected finite numbers above 0"),
    (Unsorted, "predictions_are_positive", "residuals must be finite and sorted"),
    (Biased, "quantiles_rise_around_the_mean", "the mean .* ms lies outside its own interval"),
    (Overconfident, "intervals_cover_what_they_say", "holds .* expected 80% within 15%: intervals are too narrow"),
    (Timid, "intervals_cover_what_they_say", "holds .* expected 80% within 15%: intervals are too wide"),
    (Bold, "networks_unlike_the_timed_ones_are_out_of_range", "in range though no sample held depthwise.k7"),
    (Forgetful, "networks_unlike_the_timed_ones_are_out_of_range", "nothing is unseen in a network of them"),
    (Unseeded, "the_same_samples_give_the_same_predictions", "fitting the same samples twice changes the mean by"),
    (Emptied, "the_same_samples_give_the_same_predictions", "fitting changes the list of samples"),
    (Relative, "the_same_samples_give_the_same_predictions", "by itself has another latency than among others"),
    (Lossy, "a_saved_predictor_predicts_the_same", "writing and reading changes the mean by"),
    (Trusting, "a_saved_predictor_predicts_the_same", "a predictor of another schema is accepted"),
    (Numpy, "a_saved_predictor_predicts_the_same", "the predictor has no JSON form: TypeError"),
    (Misadded, "prices_of_segments_add_up", "constant and prices of segments add up to .* ms, the prediction is"),
    (Careless, "samples_that_cannot_be_fitted_are_refused", "a fit of measured and estimated latencies is accepted"),
    (Other, "samples_that_cannot_be_fitted_are_refused", r"raises ValueError \(mixed\), expected MeasurementError"),
]


@pytest.mark.parametrize(
    ("model", "check", "reason"), BROKEN, indirect=["model"], ids=lambda case: getattr(case, "__name__", "")
)
def test_a_broken_model_is_told(model, check, reason):
    with pytest.raises(ContractError, match=reason):
        getattr(CONTRACT, f"test_{check}")(model)


def test_a_model_that_nobody_registered_is_told():
    with pytest.raises(ContractError, match="Honest is not registered: PluginError"):
        CONTRACT.test_options_are_a_value(Honest())
