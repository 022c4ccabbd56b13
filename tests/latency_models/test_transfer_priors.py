import json

import numpy as np
import pytest

from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.prediction import LATENCY_MODELS, Sample, read_predictor
from latency_models.transfer.model import Transfer
from latency_models.transfer.priors import FOLDER, prior_names, prior_table
from search_spaces.counts import macs
from search_spaces.errors import DeviceError
from search_spaces.fbnet import FBNetSpace
from search_spaces.lowering import lower
from search_spaces.space import SEARCH_SPACES, decode, sample

DEVICE = Device(name="board", backend=Table(path="board.csv"))


def test_priors_are_off_unless_named():
    assert LATENCY_MODELS.get("transfer")().priors == ()


def test_every_prior_is_of_a_registered_space_with_source_and_license():
    assert {"fbnet.raspi4", "nasbench201.pixel3", "ofa_mobilenet_v3.v100_1"} <= set(prior_names())
    for name in prior_names():
        table, latency_ms = prior_table(name)
        assert table.space in SEARCH_SPACES.names()
        assert (table.license, table.source.split()[0]) == ("MIT", "HayeonLee/HELP")
        assert len(latency_ms) == len(table.counts.networks) == 80
        assert (latency_ms > 0).all()
    assert "MIT license" in (FOLDER / "NOTICE").read_text()


def test_networks_of_the_fbnet_prior_are_sums_of_known_operators_on_raspi4():
    table, latency_ms = prior_table("fbnet.raspi4")
    lowering = table.counts.lowering
    total = lowering.counts @ lowering.operators.macs
    assert np.corrcoef(total, latency_ms)[0, 1] > 0.75  # the published rank correlation of MACs on phones is 0.70-0.78
    assert 1e7 < total.min() < total.max() < 4e8


@pytest.mark.parametrize("name", ["fbnet.raspi5", "fbnett.raspi4", "../fbnet.raspi4", "fbnet"])
def test_unknown_priors_are_refused(name):
    with pytest.raises(DeviceError, match="no shipped prior"):
        prior_table(name)


def test_a_device_like_a_prior_is_predicted_better_with_it():
    space = FBNetSpace(classes=100)
    workloads = [lower(decode(space, row)) for row in sample(space, 24, np.random.default_rng(5))]
    twin = Transfer(priors=("fbnet.gold_6226",))
    _table, _latency_ms = prior_table("fbnet.gold_6226")
    start = [Sample(workload, float(macs(workload)), "tabulated") for workload in workloads[:8]]
    truth = twin.fit(DEVICE, start).inputs.sources[0].predict(workloads).mean_ms
    samples = [Sample(w, float(ms), "tabulated") for w, ms in zip(workloads, truth, strict=True)]
    fitted = {name: model.fit(DEVICE, samples[:8]) for name, model in (("with", twin), ("without", Transfer()))}
    errors = {
        name: float(np.abs(known.predict(workloads[8:]).mean_ms / truth[8:] - 1.0).mean())
        for name, known in fitted.items()
    }
    assert errors["with"] < 0.5 * errors["without"]
    again = read_predictor(json.loads(json.dumps(fitted["with"].to_dict())))
    np.testing.assert_allclose(again.predict(workloads).mean_ms, fitted["with"].predict(workloads).mean_ms, rtol=1e-6)
    assert fitted["with"].predict([]).mean_ms.shape == (0,)
