import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from latency_models.graph import GraphInput, float_model, int8_model, merge_ranges
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.build import build
from search_spaces.lowering import lower, record
from search_spaces.mixed import MixedSpace
from search_spaces.precision import QuantizationPlan
from search_spaces.shuffle_blocks import ShuffleUnit
from search_spaces.space import decode, sample
from search_spaces.vit_blocks import PatchEmbedding, TokenClassifier, Transformer
from tests.latency_models.graph.running import (
    NORMALIZED,
    assert_equal,
    cosine,
    executed,
    float_weights,
    images,
    kinds,
    measured_ranges,
    outputs,
    quantized,
    run,
    settled,
    state,
)

PLAN = QuantizationPlan()
ISLANDS = {"QuantizeLinear", "Relu", "Clip", "HardSwish", "HardSigmoid", "Add", "Mul", "AveragePool", "ReduceMean"}


def mixed(seed, **options):
    space = MixedSpace(resolutions=(24, 32), depths=(1, 2), **options)
    architecture = decode(space, sample(space, 1, np.random.default_rng(seed))[0])
    return architecture, settled(build(architecture, seed=seed), architecture.input_shape)


def made(module_class, shape):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return settled(module_class(), shape)


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def integer_weights(model: onnx.ModelProto) -> list[np.ndarray]:
    stored = initializers(model)
    filters = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    return [stored[node.input[0]] for node in model.graph.node if node.output[0] in filters]


@pytest.mark.parametrize("seed", range(6))
def test_random_mixed_network_runs_wholly_in_integers(seed, tmp_path):
    architecture, network = mixed(seed)
    x = np.random.default_rng(seed).integers(0, 256, (6, *architecture.input_shape[1:], 3)).astype(np.uint8)
    normalized = (x.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 64
    workload = lower(architecture)
    ranges = measured_ranges(workload, state(network), normalized)
    model = int8_model(workload, plan=PLAN, weights=state(network), ranges=ranges)
    assert cosine(run(model, x), outputs(network, normalized)) >= 0.99
    found = executed(model, tmp_path)
    assert not set(found) & ISLANDS
    assert float_weights(found) == {}
    assert not {node.op_type for node in model.graph.node} & {"Relu", "Clip", "HardSwish", "HardSigmoid"}


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_and_invented_ranges_run_the_same_operators_as_real_ones(seed, tmp_path):
    architecture, network = mixed(seed)
    workload, x = lower(architecture), images(architecture.input_shape)
    real = quantized(workload, state(network), x)
    invented = int8_model(workload, plan=PLAN, graph_input=NORMALIZED, seed=seed)
    assert executed(invented, tmp_path) == executed(real, tmp_path)
    scales = [
        value.tobytes() for value in initializers(invented).values() if value.shape == () and value.dtype == np.float32
    ]
    assert len(set(scales)) == len(scales) > len(workload.segments)


@pytest.mark.parametrize(
    "plan",
    [
        QuantizationPlan(per_channel=False),
        QuantizationPlan(reduce_range=True),
        QuantizationPlan(activation="int8"),
        QuantizationPlan(activation="int8", reduce_range=True, per_channel=False),
    ],
    ids=["per-tensor", "7-bit", "signed", "signed-7-bit-per-tensor"],
)
def test_plans_are_followed(plan):
    architecture, network = mixed(1)
    workload, x = lower(architecture), images(architecture.input_shape)
    model = quantized(workload, state(network), x, plan=plan)
    assert cosine(run(model, x, optimized=False), outputs(network, x)) >= 0.98
    weights = integer_weights(model)
    assert {weight.dtype for weight in weights} == {np.dtype(np.int8)}
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == (64 if plan.reduce_range else 127)
    stored = initializers(model)
    written = {stored[node.input[2]].dtype for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert written == {np.dtype(plan.activation)}
    channels = {stored[node.input[1]].ndim for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert channels == ({0, 1} if plan.per_channel else {0})


def test_kept_scopes_stay_in_float(tmp_path):
    architecture, network = mixed(2)
    workload, x = lower(architecture), images(architecture.input_shape)
    scopes = [op.scope for op in workload.flat().ops if op.kind == "conv"]
    kept = (scopes[0], scopes[5], "stages.6.1.linear")
    model = quantized(workload, state(network), x, plan=QuantizationPlan(keep_float=kept))
    everywhere = executed(quantized(workload, state(network), x), tmp_path)
    found = executed(model, tmp_path)
    assert sum(float_weights(found).values()) == len(set(kept) & {op.scope for op in workload.flat().ops}) >= 2
    assert found["QLinearConv"] == everywhere["QLinearConv"] - 2
    assert cosine(run(model, x), outputs(network, x)) >= 0.99


def test_hard_sigmoid_gates_cost_no_operator_and_hard_swish_two(tmp_path):
    block = InvertedResidual(width=8, hidden=16, se=8, activation="hard_swish")
    architecture = Architecture(input_shape=(8, 6, 6), stages=((block,),))
    network = settled(build(architecture), (8, 6, 6))
    found = executed(quantized(lower(architecture), state(network), images((8, 6, 6))), tmp_path)
    # Two hard-swishes are a sum and a product each; besides there are the product of the gate and the residual sum.
    assert {kind: count for kind, count in found.items() if kind.startswith("QLinear")} == {
        "QLinearConv": 5, "QLinearAdd": 3, "QLinearMul": 3, "QLinearGlobalAveragePool": 1,
    }  # fmt: skip


def test_relu_beside_negative_values_in_a_concatenation_stays_a_relu():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.positive, self.both = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.last = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            return self.last(torch.cat((F.relu(self.positive(x)), 3.0 * self.both(x)), dim=1))

    module, x = made(Beside, (4, 6, 6)), images((4, 6, 6))
    model = quantized(record(module, (4, 6, 6)), state(module), x)
    assert cosine(run(model, x), outputs(module, x)) >= 0.999


def scale_of(model, node_input):
    writers = {node.output[0]: node for node in model.graph.node}
    stored = initializers(model)
    dequantize = writers[node_input]
    return stored[dequantize.input[1]].item(), stored[dequantize.input[2]].item()


def test_concatenation_and_what_feeds_it_share_one_range():
    units = (Conv(width=16, activation="relu"), *(ShuffleUnit(width=16, hidden=8) for _ in range(3)))
    architecture = Architecture(input_shape=(3, 8, 8), stages=((*units, Classifier(classes=4)),))
    network = settled(build(architecture), (3, 8, 8))
    model = quantized(lower(architecture), state(network), images((3, 8, 8)))
    concats = [node for node in model.graph.node if node.op_type == "Concat"]
    assert len(concats) == 3
    assert len({scale_of(model, name) for node in concats for name in node.input}) == 1


def test_range_of_a_detailed_tensor_is_not_shared_with_a_coarse_one():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine, self.coarse, self.reads = (nn.Conv2d(4, 4, 1) for _ in range(3))

        def forward(self, x):
            fine = self.fine(x)
            return torch.cat((fine, 100.0 * self.coarse(x)), dim=1).mean((2, 3)) + torch.cat(
                (self.reads(fine), fine), dim=1
            ).mean((2, 3))

    module, x = made(Apart, (4, 6, 6)), images((4, 6, 6))
    model = quantized(record(module, (4, 6, 6)), state(module), x)
    first = next(node for node in model.graph.node if node.op_type == "Concat")
    fine, coarse = (scale_of(model, name)[0] for name in first.input)
    assert fine < coarse / 4


def test_depthwise_channels_are_padded_and_change_no_bit(monkeypatch):
    block = InvertedResidual(width=12, hidden=24, kernel=5, se=4, activation="hard_swish")
    architecture = Architecture(input_shape=(3, 8, 8), stages=((Conv(width=12), block, block, Classifier(classes=4)),))
    network = settled(build(architecture), (3, 8, 8))
    x = images((3, 8, 8))
    padded = quantized(lower(architecture), state(network), x)
    widths = {weight.shape[0] for weight in integer_weights(padded) if weight.shape[1:] == (1, 5, 5)}
    assert widths == {32}
    monkeypatch.setattr("latency_models.graph.int8.pad_depthwise", lambda network: network)
    plain = quantized(lower(architecture), state(network), x)
    assert {weight.shape[0] for weight in integer_weights(plain) if weight.shape[1:] == (1, 5, 5)} == {24}
    np.testing.assert_array_equal(run(padded, x), run(plain, x))


def test_transposed_convolutions_and_general_kinds_are_float_islands_between_8_bit_layers(tmp_path):
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.curve = nn.Conv2d(4, 16, 3, padding=1), nn.PReLU(16)
            self.second, self.up = nn.Conv2d(16, 16, 3, padding=1), nn.ConvTranspose2d(16, 8, 2, 2, bias=False)
            self.norm, self.last = nn.BatchNorm2d(8), nn.Conv2d(24, 4, 1)

        def forward(self, x):
            high = self.curve(self.first(x))
            low = F.avg_pool2d(F.relu(self.second(F.max_pool2d(high, 2))), 2, 1, ceil_mode=True)
            low = F.interpolate(F.pad(low, (1, 0, 1, 0), mode="reflect"), size=(4, 4), mode="bilinear")
            return self.last(torch.cat((torch.relu(self.norm(self.up(low))), high), 1)).amax((2, 3))

    module, x = settled(made(UNet, (4, 8, 8)), (4, 8, 8)), images((4, 8, 8))
    model = quantized(record(module, (4, 8, 8)), state(module), x)
    found = executed(model, tmp_path)
    assert (found["ConvTranspose"], found["PRelu"], found["Resize"]) == (1, 1, 1)
    assert found["QLinearConv"] >= 3
    assert not float_weights(found)
    assert cosine(run(model, x), outputs(module, x)) >= 0.999


@pytest.mark.parametrize("counted", [True, False])
def test_average_pooling_becomes_a_depthwise_convolution(counted, tmp_path):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 16, 1)

        def forward(self, x):
            return F.avg_pool2d(self.conv(x), 3, 1, 1, count_include_pad=counted)

    module, x = made(Pooled, (4, 7, 7)), images((4, 7, 7))
    model = quantized(record(module, (4, 7, 7)), state(module), x)
    found = executed(model, tmp_path)
    assert found["QLinearConv"] == 2
    assert "QLinearAveragePool" not in found
    expected = outputs(module, x)
    assert np.abs(run(model, x) - expected).max() <= 0.02 * np.abs(expected).max()


def test_attention_and_residual_stream_stay_in_float_and_projections_do_not(tmp_path):
    blocks = (PatchEmbedding(width=16, patch=4), *(Transformer(hidden=32, heads=2),) * 2, TokenClassifier(classes=4))
    architecture = Architecture(input_shape=(3, 16, 16), stages=(blocks,))
    network = build(architecture).eval()
    x = images((3, 16, 16))
    model = quantized(lower(architecture), state(network), x)
    found = executed(model, tmp_path)
    assert (found["QGemm"], found["MatMul"], found["Softmax"]) == (9, 4, 2)
    assert not {"MatMulIntegerToFloat", "QLinearMatMul", "QLinearSoftmax"} & set(found)
    assert cosine(run(model, x), outputs(network, x)) >= 0.99


def test_logits_leave_the_last_layer_in_float():
    architecture, network = mixed(0)
    model = quantized(lower(architecture), state(network), images(architecture.input_shape))
    assert (model.graph.node[-1].op_type, list(model.graph.node[-1].output)) == ("Gemm", ["logits"])


def test_dead_network_is_written_and_gives_its_constant():
    architecture, network = mixed(0)
    weights = {name: np.zeros_like(value) for name, value in state(network).items()}
    x = images(architecture.input_shape, 2)
    workload = lower(architecture)
    model = quantized(workload, weights, x)
    expected = run(float_model(workload, weights=weights, graph_input=NORMALIZED), x)
    np.testing.assert_array_equal(run(model, x), expected)


def test_greatest_bias_widens_the_scale_instead_of_leaving_32_bits():
    module = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), (3, 2, 2))
    with torch.no_grad():
        module[0].weight.mul_(1e-9)
        module[0].bias.copy_(torch.tensor([1e3, -1e3, 5.0, 0.0]))
    x = images((3, 2, 2))
    found = run(quantized(record(module, (3, 2, 2)), state(module), x), x)
    assert np.abs(found - outputs(module, x)).max() <= 2000 / 255


def test_ranges_merge_to_what_holds_all_and_a_missing_one_is_named():
    parts = [{"a": (-1.0, 2.0)}, {"a": (0.0, 3.0), "b": (1.0, 1.0)}, {}]
    assert merge_ranges(parts) == {"a": (-1.0, 3.0), "b": (1.0, 1.0)}
    architecture = Architecture(input_shape=(3, 8, 8), stages=((Conv(width=4), Classifier(classes=2)),))
    with pytest.raises(ValueError, match=r"ranges lack 'stages\.0\.[^']*': measure them on float_model"):
        int8_model(lower(architecture), plan=PLAN, ranges={})


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_every_opset_gives_the_same_logits(opset):
    architecture, network = mixed(3)
    workload, x = lower(architecture), images(architecture.input_shape)
    ranges = measured_ranges(workload, state(network), x) | {"image": (-4.0, 4.0)}
    options = {"plan": PLAN, "weights": state(network), "ranges": ranges, "graph_input": NORMALIZED}
    model = int8_model(workload, opset=opset, ir_version=10, **options)
    assert_equal(run(model, x), run(int8_model(workload, **options), x), share=0.02)


@pytest.fixture(scope="module")
def digits():
    """Return digits of 16 pixels, grey, `n x 16 x 16 x 1`, and their labels, the last 400 for testing."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    pixels = np.kron(data.images[order], np.ones((2, 2))) * 15.9
    return pixels.astype(np.uint8)[..., np.newaxis], data.target[order]


@pytest.fixture(scope="module")
def trained(digits):
    blocks = (
        Conv(width=16, stride=2, activation="hard_swish"),
        InvertedResidual(width=16, hidden=40, se=8, activation="hard_swish"),
        ShuffleUnit(width=32, hidden=16, stride=2),
        ShuffleUnit(width=32, hidden=16),
        Classifier(classes=10),
    )
    architecture = Architecture(input_shape=(1, 16, 16), stages=(blocks,))
    network = build(architecture, seed=0).train()
    x, y = torch.from_numpy(normalized(digits[0][:-400])), torch.from_numpy(digits[1][:-400])
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            loss = F.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return architecture, network.eval()


def normalized(pixels):
    return np.ascontiguousarray((pixels.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 64)


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_trained_digits_are_told_as_in_float(activation, digits, trained, tmp_path):
    architecture, network = trained
    pixels, labels = digits[0][-400:], digits[1][-400:]
    workload, plan = lower(architecture), QuantizationPlan(activation=activation)
    ranges = measured_ranges(workload, state(network), normalized(digits[0][:64]))
    model = int8_model(workload, plan=plan, weights=state(network), ranges=ranges)
    found, expected = run(model, pixels), outputs(network, normalized(pixels))
    assert (expected.argmax(1) == labels).mean() >= 0.9
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert cosine(found, expected) >= 0.998
    if activation == "uint8":
        assert float_weights(executed(model, tmp_path)) == {}
        invented = int8_model(workload, plan=plan, graph_input=GraphInput())
        assert kinds(invented) == kinds(model)
