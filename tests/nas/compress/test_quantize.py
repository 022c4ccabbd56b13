from dataclasses import replace

import numpy as np
import pytest
import torch

from nas.candidate import Candidate
from nas.compress.quantize import Quantize
from nas.export.trial import Trial
from nas.protocols import STAGES, StageContext
from nas.train.loop import train
from nas.train.options import TrainOptions
from search_spaces.build import build
from search_spaces.errors import ConfigError
from search_spaces.precision import QuantizationPlan, is_quantized
from tests.nas.train.tiny import digits, state, tiny

DEVICE = QuantizationPlan(activation="int8", per_channel=False, reduce_range=True, pad_depthwise=False)


def context(tmp_path, **options):
    return StageContext(
        **{
            "train": TrainOptions(),
            "seed": 0,
            "folder": tmp_path,
            "predict_ms": lambda workload: float(len(list(workload))),
            "quantization": QuantizationPlan(),
            **options,
        }
    )


@pytest.fixture(scope="module")
def task():
    return digits(train=512, validation=256)


@pytest.fixture(scope="module")
def candidate(task, tmp_path_factory):
    network = build(tiny(width=16), seed=0)
    train(network, task, TrainOptions(epochs=4), seed=0, folder=tmp_path_factory.mktemp("training"))
    return Candidate(architecture=tiny(width=16), module=network, preprocessing=task.preprocessing)


@pytest.fixture(scope="module")
def uneven(candidate):
    """The same function, with one channel of block stages.1.1 made 2,000 times as large and shrunk again.

    ReLU lets any positive factor through, so the network's logits stay; the one range of 8 bits for all channels of
    the tensor between has no level left for the others.
    """
    network = build(candidate.architecture)
    network.load_state_dict(candidate.module.state_dict())
    block = network.get_submodule("stages.1.1")
    channel = int(block.expand.norm.weight.abs().argmax())
    with torch.no_grad():
        block.expand.norm.weight[channel] *= 2000
        block.expand.norm.bias[channel] *= 2000
        block.depthwise.conv.weight[channel] /= 2000
    return candidate.replace(module=network.eval())


def test_stage_is_registered():
    assert STAGES.get("quantize") is Quantize


def test_scheme_is_the_devices_unless_said_otherwise(candidate, task, tmp_path):
    ships = context(tmp_path, quantization=DEVICE)
    assert Quantize().apply(candidate, task, ships).quantization == DEVICE
    changed = Quantize(per_channel=True, reduce_range=False).apply(candidate, task, ships).quantization
    assert changed == QuantizationPlan(activation="int8", pad_depthwise=False)


def test_candidate_given_stays_as_it_was_and_shares_its_module(candidate, task, tmp_path):
    before = state(candidate.module)
    result = Quantize().apply(candidate, task, context(tmp_path, compare=Trial(task)))
    assert candidate.quantization is None
    assert result.module is candidate.module
    assert all(torch.equal(before[name], tensor) for name, tensor in candidate.module.state_dict().items())
    assert result.precision == "int8"
    assert not list(tmp_path.iterdir())


def test_kept_module_stays_float_with_all_that_is_in_it(candidate, task, tmp_path):
    result = Quantize(keep_float=("stages.1.0", "stages.2.1.linear")).apply(candidate, task, context(tmp_path))
    floats = {op.scope for op in result.workload().flat().ops if not is_quantized(op)}
    assert floats == {f"stages.1.0.{layer}.conv" for layer in ("expand", "depthwise", "project")} | {
        "stages.2.1.linear"
    }


def test_unknown_module_is_named_with_near_matches(candidate, task, tmp_path):
    with pytest.raises(ConfigError, match=r"no module 'stages.2.1.liner': did you mean 'stages.2.1.linear'"):
        Quantize(keep_float=("stages.2.1.liner",)).apply(candidate, task, context(tmp_path))


def test_ordinary_network_keeps_agreement_in_8_bits_and_says_so(candidate, task, tmp_path):
    result = Quantize(most_float=3).apply(candidate, task, context(tmp_path, compare=Trial(task)))
    assert result.figures["int8_agreement"].value >= 0.98
    assert result.figures["int8_agreement"].source == "256 validation images"
    assert result.quantization == QuantizationPlan()
    assert result.notes == ()


def test_uneven_network_is_the_same_in_float(candidate, uneven, task):
    images = torch.from_numpy(task.preprocessing.normalize(task.validation.images))
    with torch.no_grad():
        before, after = candidate.module(images).numpy(), uneven.module(images).numpy()
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()


def test_rollback_finds_the_one_block_that_8_bits_break(uneven, task, tmp_path):
    compare = Trial(task)
    broken = Quantize().apply(uneven, task, context(tmp_path, compare=compare))
    assert broken.figures["int8_agreement"].value < 0.95
    told = []
    progress = context(tmp_path, compare=compare, progress=lambda label, share: told.append(share))
    mended = Quantize(most_float=2).apply(uneven, task, progress)
    assert mended.notes == ("left float, the most sensitive first: stages.1.1",)
    assert mended.figures["int8_agreement"].value >= 0.98
    assert {op.scope.rsplit(".", 2)[0] for op in mended.workload().flat().ops if not is_quantized(op)} == {"stages.1.1"}
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_rollback_of_a_network_without_blocks_looks_at_its_modules(uneven, task, tmp_path):
    recorded = uneven.replace(architecture=None)
    result = Quantize(most_float=2).apply(recorded, task, context(tmp_path, compare=Trial(task)))
    kept = {op.scope for op in result.workload().flat().ops if op.kind == "conv" and not is_quantized(op)}
    assert kept == {f"stages.1.1.{layer}.conv" for layer in ("expand", "depthwise", "project")}
    assert result.figures["int8_agreement"].value >= 0.98


def test_rollback_that_does_not_help_is_undone(candidate, task, tmp_path):
    first = Trial(task)(candidate.replace(quantization=QuantizationPlan()))
    stage = Quantize(most_float=1, agreement=1.0)

    def never_better(_given):
        return replace(first, agreement=0.9)

    result = stage.apply(candidate, task, context(tmp_path, compare=never_better))
    assert result.quantization == QuantizationPlan()
    assert "float did not raise agreement" in result.notes[0]


def test_rollback_without_an_exporter_is_refused(candidate, task, tmp_path):
    with pytest.raises(ConfigError, match="most_float needs an exporter"):
        Quantize(most_float=1).apply(candidate, task, context(tmp_path))


@pytest.mark.parametrize("options", [{"most_float": -1}, {"agreement": 0.0}, {"agreement": 1.5}])
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Quantize(**options)
