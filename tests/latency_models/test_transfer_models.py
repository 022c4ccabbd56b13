"""Every registered model but `additive` and `lookup`, on a made-up device of which the truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from latency_models.auto import Auto
from latency_models.backends.table import Table
from latency_models.compact import compact_features
from latency_models.device import Device
from latency_models.gp import GaussianProcess
from latency_models.left_out import left_out_parts
from latency_models.lookup import Lookup
from latency_models.prediction import LATENCY_MODELS, Sample, read_predictor
from latency_models.profile import Probed, Profile
from latency_models.ridge_compact import RidgeCompact
from latency_models.roofline import Roofline
from latency_models.timed_range import TimedRange, in_range, kernels_of
from latency_models.timing import Timing
from latency_models.transfer.model import Transfer
from latency_models.transfer.workloads import count_operators, segment_operators
from search_spaces.counts import macs
from search_spaces.errors import DeviceError, MeasurementError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.space import decode, sample
from search_spaces.workload import Workload

DEVICE = Device(name="board", backend=Table(path="board.csv"))
MODELS = {
    "auto": Auto(models=("transfer", "ridge_compact"), folds=4),
    "gp": GaussianProcess(),
    "ridge_compact": RidgeCompact(),
    "roofline": Roofline(),
    "transfer": Transfer(),
}
SMALL = {"widths": ((8, 20), (24, 36), (40, 64)), "expansions": (2, 3), "depths": (1, 2, 3), "head_widths": (60, 64)}
"""A space of few distinct blocks, since lowering a block takes milliseconds."""


def true_ms(workload):
    """A roofline that none of the models has as such: rates by kind, launches, and rounded channels."""
    total = 0.05
    for segment in workload.segments:
        for operator in segment_operators(segment):
            rate = {"depthwise": 1.1e6, "dense": 6e6}.get(operator.kind, 4e6)
            channels = -(-operator.out_channels // 16) * 16 / operator.out_channels
            moved = (operator.input_elements + operator.output_elements) / 2e6
            total += 0.004 + max(operator.macs * channels / rate, moved)
    return total


@pytest.fixture(scope="module")
def architectures():
    space = MixedSpace(**SMALL)
    return [decode(space, row) for row in sample(space, 90, np.random.default_rng(1))]


@pytest.fixture(scope="module")
def known(architectures):
    return [lower(architecture) for architecture in architectures]


@pytest.fixture(scope="module")
def samples(known):
    rng = np.random.default_rng(0)
    return [Sample(workload, true_ms(workload) * float(np.exp(0.01 * rng.normal()))) for workload in known]


@pytest.fixture(scope="module")
def fitted(samples):
    return {name: model.fit(DEVICE, samples[:24]) for name, model in MODELS.items()}


def mean_error(predictor, samples):
    predicted = predictor.predict([sample.workload for sample in samples]).mean_ms
    return float(np.abs(predicted / [sample.latency_ms for sample in samples] - 1.0).mean())


@pytest.mark.parametrize("name", MODELS)
def test_it_is_registered_and_its_options_survive(name):
    assert LATENCY_MODELS.get(name) is type(MODELS[name])


@pytest.mark.parametrize(("name", "error"), [("transfer", 0.05), ("gp", 0.2), ("ridge_compact", 0.2)])
def test_errors_of_networks_left_out_are_small(fitted, samples, name, error):
    assert mean_error(fitted[name], samples[24:]) < error


def test_transfer_beats_models_that_know_no_device(fitted, samples):
    least = min(mean_error(fitted[name], samples[24:]) for name in ("gp", "ridge_compact", "roofline"))
    assert mean_error(fitted["transfer"], samples[24:]) < 0.7 * least


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_predictor_predicts_the_same(fitted, known, name):
    record = json.loads(json.dumps(fitted[name].to_dict(), allow_nan=False))
    read = read_predictor(record)
    before, after = fitted[name].predict(known[30:40]), read.predict(known[30:40])
    np.testing.assert_allclose(after.mean_ms, before.mean_ms, rtol=1e-7)
    np.testing.assert_allclose(after.quantile_ms(0.95), before.quantile_ms(0.95), rtol=1e-6)
    assert after.in_range.tolist() == before.in_range.tolist()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "auto"])
def test_another_schema_is_refused(fitted, name):
    with pytest.raises(MeasurementError, match="schema 99, expected 1"):
        read_predictor(fitted[name].to_dict() | {"schema": 99})


def test_an_unknown_type_is_refused():
    with pytest.raises(MeasurementError, match="did you mean 'transfer'"):
        read_predictor({"type": "transfr"})


@pytest.mark.parametrize("name", MODELS)
def test_quantiles_rise_around_the_mean(fitted, known, name):
    found = fitted[name].predict(known)
    levels = np.array([found.quantile_ms(level) for level in (0.02, 0.3, 0.5, 0.7, 0.98)])
    assert (np.diff(levels, axis=0) >= 0).all()
    assert np.isfinite(levels).all()
    assert (levels[0] < found.mean_ms).all()
    assert (found.mean_ms < levels[-1]).all()


@pytest.mark.parametrize("name", ["transfer", "gp", "ridge_compact"])
def test_most_networks_lie_in_their_ninety_percent_interval(fitted, samples, name):
    found = fitted[name].predict([sample.workload for sample in samples[24:]])
    truth = np.array([sample.latency_ms for sample in samples[24:]])
    inside = (found.quantile_ms(0.05) <= truth) & (truth <= found.quantile_ms(0.95))
    assert inside.mean() > 0.75  # 66 networks and one fit


@pytest.mark.parametrize("name", ["transfer", "gp", "ridge_compact"])
def test_kernels_that_were_not_timed_are_refused_in_words(known, samples, name):
    without = [sample for sample in samples if "depthwise.k5" not in kernels_of(sample.workload)][:12]
    seen = MODELS[name].fit(DEVICE, without)
    held = next(workload for workload in known if "depthwise.k5" in kernels_of(workload))
    assert "depthwise.k5" in seen.unseen(held)
    with pytest.raises(MeasurementError, match=r"network 1 cannot be .*: no timed network held .*depthwise\.k5"):
        in_range(seen, [without[0].workload, held])


@pytest.mark.parametrize("name", ["transfer", "gp", "ridge_compact"])
def test_sizes_that_were_not_timed_are_refused_in_words(fitted, known, name):
    faster = TimedRange(kernels=fitted[name].timed.kernels, latency_ms=(1e-3, 2e-3))
    narrow = replace(fitted[name], timed=faster)
    with pytest.raises(MeasurementError, match="ms lies more than a factor of 2 outside the timed networks"):
        in_range(narrow, [known[0]])


def test_a_timed_range_reaches_twice_as_far_as_it_was_timed(known):
    timed = TimedRange(kernels=kernels_of(known[0]), latency_ms=(1.0, 2.0))
    found = timed.holds([known[0]] * 4, np.array([0.49, 0.51, 3.9, 4.1]))
    assert found.tolist() == [False, True, True, False]


def test_networks_in_range_are_predicted(fitted, samples):
    covered = [s.workload for s in samples[:10]]
    assert len(in_range(fitted["transfer"], covered).mean_ms) == 10


@pytest.mark.parametrize(("name", "count"), [("gp", 7), ("ridge_compact", 4), ("transfer", 7), ("auto", 1)])
def test_too_few_samples_are_refused(samples, name, count):
    with pytest.raises(MeasurementError, match="time more"):
        MODELS[name].fit(DEVICE, samples[:count])


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_two_origins_are_refused(samples, name):
    mixed = [*samples[:12], Sample(samples[12].workload, 1.0, "estimated")]
    with pytest.raises(MeasurementError, match="mixes estimated and measured"):
        MODELS[name].fit(DEVICE, mixed)


def test_a_roofline_needs_no_measurement_and_ranks_better_than_macs(known, samples):
    truth = np.array([s.latency_ms for s in samples])
    found = Roofline().fit(DEVICE, []).predict(known)

    def tau(values):
        order = np.argsort(np.argsort(values))
        return np.corrcoef(order, np.argsort(np.argsort(truth)))[0, 1]

    assert tau(found.mean_ms) > tau([macs(workload) for workload in known])
    assert found.in_range.all()
    assert found.quantile_ms(0.95)[0] / found.mean_ms[0] > 2.0  # nobody knows the scale


def test_a_roofline_is_the_greater_of_compute_and_memory_and_a_launch(known):
    rates = Roofline(gmacs_per_s=1.0, gbytes_per_s=1.0, launch_us=1000.0, depthwise_share=1.0)
    compute_only = Roofline(gmacs_per_s=1.0, gbytes_per_s=1e9, launch_us=0.0, depthwise_share=1.0)
    workload = known[0]
    launches = sum(len(segment_operators(segment)) for segment in workload.segments)
    assert compute_only.fit(DEVICE).predict([workload]).mean_ms[0] == pytest.approx(macs(workload) / 1e6)
    assert rates.fit(DEVICE).predict([workload]).mean_ms[0] > launches + macs(workload) / 1e6


def test_a_roofline_takes_its_scale_from_one_measurement(known):
    plain = Roofline().fit(DEVICE)
    expected = plain.predict(known[:2]).mean_ms * 3.0
    scaled = Roofline().fit(DEVICE, [Sample(known[0], float(expected[0]))])
    np.testing.assert_allclose(scaled.predict(known[:2]).mean_ms, expected)


def test_a_roofline_keeps_the_errors_of_scales_fitted_without_each_sample(samples):
    found = Roofline().fit(DEVICE, samples[:6]).left_out
    rest = Roofline().fit(DEVICE, samples[1:6])
    alone = samples[0].latency_ms / rest.predict([samples[0].workload]).mean_ms[0] - 1.0
    assert found[0] == pytest.approx(alone)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_roofline_keeps_an_error_of_every_sample_it_was_scaled_by(samples, count):
    found = Roofline().fit(DEVICE, samples[:count])
    assert len(found.left_out) == count
    read = read_predictor(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_allclose(read.left_out, found.left_out)


def test_a_roofline_trusts_no_interval_of_fewer_than_five_errors(samples):
    few, enough = (Roofline().fit(DEVICE, samples[:count]).predict([samples[9].workload]) for count in (4, 5))
    assert len(few.residuals) > 100  # the spread that nobody measured
    assert len(enough.residuals) == 5


@pytest.mark.parametrize("count", [0, 1])
def test_a_roofline_without_a_second_sample_keeps_no_errors(samples, count):
    found = Roofline().fit(DEVICE, samples[:count])
    assert len(found.left_out) == 0
    assert len(read_predictor(json.loads(json.dumps(found.to_dict()))).left_out) == 0


@pytest.mark.parametrize("name", ["gbytes_per_s", "depthwise_share", "scale_spread"])
def test_a_roofline_without_a_rate_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0, got 0"):
        Roofline(**{name: 0})


def test_auto_is_about_as_good_as_the_best_model(fitted, samples):
    errors = {name: mean_error(fitted[name], samples[24:]) for name in ("transfer", "ridge_compact")}
    assert mean_error(fitted["auto"], samples[24:]) == pytest.approx(min(errors.values()))
    assert fitted["auto"].to_dict()["type"] == min(errors, key=errors.get)


def test_auto_skips_models_that_need_more_samples(samples):
    found = Auto(models=("gp", "ridge_compact"), folds=8).fit(DEVICE, samples[:8])
    assert found.to_dict()["type"] == "ridge_compact"
    with pytest.raises(MeasurementError, match=r"no latency model can be fitted; gp: .* needs 8"):
        Auto(models=("gp",)).fit(DEVICE, samples[:6])


@pytest.mark.parametrize(
    ("models", "uses"),
    [(("lookup",), True), (("additive", "lookup"), True), (("additive", "roofline"), False)],
    ids=["lookup", "lookup among others", "networks only"],
)
def test_auto_uses_blocks_when_a_model_it_may_choose_does(models, uses):
    assert Auto(models=models).uses_blocks is uses


def test_auto_fits_a_table_to_blocks_that_it_never_leaves_out(samples):
    networks = samples[:16]
    segments = {segment for sample in networks for segment in sample.workload.segments}
    blocks = [Sample(workload, true_ms(workload)) for workload in (Workload((known,), ("",)) for known in segments)]
    auto = Auto(models=("lookup",), folds=4)
    found = auto.fit(DEVICE, [*networks, *blocks])
    assert found.to_dict() == Lookup().fit(DEVICE, [*blocks, *networks]).to_dict()
    assert len(found.left_out) == len(networks)
    assert len(auto.left_out(Lookup(), DEVICE, networks, always=blocks)) == len(networks)


def test_auto_keeps_blocks_from_models_that_know_only_networks(samples):
    networks, block = samples[:16], samples[0].workload.segments[0]
    blocks = [Sample(Workload((block,), ("",)), 1.0)] * 5
    found = Auto(models=("lookup", "ridge_compact"), folds=4).fit(DEVICE, [*blocks, *networks])
    assert found.to_dict() == RidgeCompact().fit(DEVICE, networks).to_dict()


def test_auto_needs_networks_beside_blocks(samples):
    blocks = [Sample(Workload((samples[0].workload.segments[0],), ("",)), 1.0)] * 40
    with pytest.raises(MeasurementError, match="0 timed networks"):
        Auto(models=("lookup",)).fit(DEVICE, blocks)


def test_auto_falls_back_to_a_roofline_when_nothing_else_can_be_fitted(samples):
    assert Auto().fit(DEVICE, samples[:3]).to_dict()["type"] == "roofline"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"models": ()}, "other than auto"), ({"models": ("auto",)}, "other than auto"), ({"folds": 1}, "at least 2")],
    ids=["none", "itself", "one fold"],
)
def test_auto_refuses_options_that_choose_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        Auto(**options)


def test_left_out_parts_are_every_sample_once():
    parts = list(left_out_parts(23, 5))
    assert sorted(int(i) for _, part in parts for i in part) == list(range(23))
    assert all(sorted([*rest, *part]) == list(range(23)) for rest, part in parts)


@pytest.fixture
def twin(architectures, samples):
    """Return the profile of a device that is three times as slow."""
    networks = tuple(
        Probed(architecture=a, precision="float32", timing=Timing("x", (np.array([3.0 * s.latency_ms]),), "table"))
        for a, s in zip(architectures[:40], samples, strict=False)
    )
    return Profile(device="twin", fingerprint={}, probes="p", seconds=0.0, networks=networks)


def test_sources_are_profiles_of_other_devices(tmp_path, twin, samples):
    path = tmp_path / "profile.json"
    path.write_text(twin.to_json())
    with_source = Transfer(sources=(str(path),)).fit(DEVICE, samples[40:50])
    alone = Transfer().fit(DEVICE, samples[40:50])
    assert mean_error(with_source, samples[50:]) < mean_error(alone, samples[50:])
    again = read_predictor(json.loads(json.dumps(with_source.to_dict())))
    workloads = [s.workload for s in samples[50:60]]
    np.testing.assert_allclose(again.predict(workloads).mean_ms, with_source.predict(workloads).mean_ms, rtol=1e-6)
    few = replace(twin, networks=twin.networks[:3])
    path.write_text(few.to_json())
    with pytest.raises(DeviceError, match="holds 3 float32 networks, a source needs 8"):
        Transfer(sources=(str(path),)).fit(DEVICE, samples[40:50])
    with pytest.raises(DeviceError, match=r"absent\.json cannot be read"):
        Transfer(sources=(str(tmp_path / "absent.json"),)).fit(DEVICE, samples[40:50])


def test_counted_operators_hold_every_mac_of_the_network(known):
    for workload in known[:5]:
        counted = count_operators([workload]).lowering
        assert counted.counts[0] @ counted.operators.macs == macs(workload)


def test_compact_features_count_kernels_once(known):
    for workload in known[:5]:
        found = compact_features(workload)
        assert found["depth"] == sum(len(segment_operators(segment)) for segment in workload.segments)
        assert np.expm1(found["log.macs"]) == pytest.approx(macs(workload))


def test_a_source_is_named_as_the_device_was_when_it_was_added(tmp_path, monkeypatch, twin, samples):
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path))
    path = tmp_path / "twin.0123456789ab.p.json"
    path.write_text(twin.to_json())
    named, by_path = (Transfer(sources=(source,)).fit(DEVICE, samples[40:50]) for source in ("twin", str(path)))
    assert named.to_dict() == by_path.to_dict()


@pytest.mark.parametrize(
    ("source", "message"),
    [("twyn", "sources name 'twyn', neither .*; did you mean 'twin'"), ("board", "the device that is fitted")],
    ids=["unknown", "itself"],
)
def test_a_source_that_is_no_other_device_is_refused(tmp_path, monkeypatch, twin, samples, source, message):
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path))
    (tmp_path / "twin.0123456789ab.p.json").write_text(twin.to_json())
    with pytest.raises(DeviceError, match=message):
        Transfer(sources=(source,)).fit(DEVICE, samples[40:50])
