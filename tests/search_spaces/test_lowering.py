import onnxruntime
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from latency_models.graph import GraphInput, float_model
from search_spaces import counts
from search_spaces.build import build
from search_spaces.errors import LoweringError
from search_spaces.fusion import fuse
from search_spaces.lowering import lower, lower_block, record
from search_spaces.mixed import MixedSpace
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.shufflenet_v2 import shufflenet_v2
from search_spaces.space import decode, sample


def kinds(module, shape):
    return [op.kind for op in record(module, shape)]


def conv_and_linear(network, shape) -> int:
    analysis = FlopCountAnalysis(network, torch.zeros(1, *shape))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    return by_operator["conv"] + by_operator["linear"]


@pytest.mark.parametrize(
    ("architecture", "parameters", "macs"),
    [
        (mobilenet_v2(), 3_504_872, 300_774_272),
        (mobilenet_v3("small"), 2_542_856, 56_510_400),
        (mobilenet_v3("large"), 5_483_032, 216_589_760),
        (shufflenet_v2(width=0.5), 1_366_792, None),
        (shufflenet_v2(width=1.0), 2_278_604, None),
        (shufflenet_v2(width=1.5), 3_503_624, None),
        (shufflenet_v2(width=2.0), 7_393_996, None),
    ],
    ids=["v2", "v3-small", "v3-large", "shuffle-0.5", "shuffle-1", "shuffle-1.5", "shuffle-2"],
)
def test_reference_networks_have_their_published_counts(architecture, parameters, macs):
    workload = lower(architecture)
    assert counts.parameters(workload) == parameters
    if macs is not None:
        assert counts.macs(workload) == macs


def test_counts_equal_torch_and_fvcore_on_random_networks(rng):
    space = MixedSpace(resolutions=(24, 32))
    for row in sample(space, 12, rng):
        architecture = decode(space, row)
        network = build(architecture).eval()
        workload = lower(architecture)
        assert counts.parameters(workload) == sum(p.numel() for p in network.parameters())
        assert counts.macs(workload) == conv_and_linear(network, architecture.input_shape)


def test_recording_the_built_module_gives_the_same_counts_as_lowering_its_blocks():
    architecture = mobilenet_v3("small", width=0.35, classes=10, input_shape=(3, 64, 64))
    recorded, lowered = record(build(architecture), (3, 64, 64)), lower(architecture)
    assert counts.macs(recorded) == counts.macs(lowered)
    assert counts.parameters(recorded) == counts.parameters(lowered)
    assert [op.kind for op in fuse(recorded)] == [op.kind for op in fuse(lowered)]
    names = {known.name for op in lowered.flat().ops for known in op.parameters}
    assert names <= build(architecture).state_dict().keys()


def test_segments_are_shared_between_networks():
    first, second = (lower(mobilenet_v2(classes=classes)) for classes in (10, 20))
    assert first.segments[3] is second.segments[3]
    assert first.segments[-1] is not second.segments[-1]


def test_in_place_write_becomes_a_new_value():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y.relu_() + x

    add = list(record(InPlace(), (4, 8, 8)))[-1]
    assert add.kind == "add"
    assert [value.id for value in add.inputs] == [2, 0]


def test_reading_a_tensor_after_a_write_to_its_view_is_refused():
    class Through(nn.Module):
        def forward(self, x):
            y = x * 2
            y.view(1, -1).relu_()
            return y + 1

    with pytest.raises(LoweringError, match="after an in-place write to a view"):
        record(Through(), (4, 8, 8))


def test_attention_is_matrix_products_and_softmax():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x):
            q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
            return torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1) @ v

    workload = record(Attention(), (8, 4, 4))
    found = [op.kind for op in workload]
    assert found.count("matmul") == 2
    assert found.count("softmax") == 1
    assert counts.macs(workload) == 16 * 8 * 24 + 2 * 16 * 16 * 8


class SelfAttention(nn.Module):
    def __init__(self, heads, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, heads, batch_first=True)
        self.options = options

    def forward(self, x):
        return self.attention(x, x, x, **self.options)[0]


@pytest.mark.parametrize("options", [{}, {"need_weights": False}], ids=["weights", "scaled_dot_product_attention"])
@pytest.mark.parametrize("heads", [1, 2])
def test_torchs_attention_has_the_products_and_parameters_of_its_formula(heads, options):
    tokens, width = 16, 8
    workload = record(SelfAttention(heads, **options), (tokens, width))
    projections = 4 * tokens * width * width
    scores_and_mix = 2 * heads * tokens * tokens * (width // heads)
    assert counts.macs(workload) == projections + scores_and_mix
    assert counts.parameters(workload) == 4 * (width * width + width)
    softmax = [op for op in workload if op.kind == "softmax"]
    assert len(softmax) == 1
    assert softmax[0].output.elements == heads * tokens * tokens
    assert softmax[0].integer("axis") == len(softmax[0].output.shape) - 1


def test_torchs_transformer_layer_has_attention_and_a_perceptron():
    tokens, width, hidden = 16, 8, 24
    workload = record(nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True), (tokens, width))
    attention = 4 * tokens * width * width + 2 * tokens * tokens * width
    assert counts.macs(workload) == attention + 2 * tokens * width * hidden
    assert [op.kind for op in workload].count("layer_norm") == 2


class Stacked(nn.Module):
    def forward(self, x):
        return torch.stack([x, x.relu(), x.abs()], -1)


class GlobalMax(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)

    def forward(self, x):
        return self.pool(x).flatten(1)


def test_stacking_is_reshapes_that_cost_nothing_and_one_concatenation():
    workload = record(Stacked(), (4, 8, 8))
    assert sorted(op.kind for op in workload) == ["abs", "concat", "relu", "reshape", "reshape", "reshape"]
    assert workload.output.shape == (1, 4, 8, 8, 3)
    elements = 4 * 8 * 8
    assert counts.activation_traffic_bytes(workload) == 4 * (2 * 2 * elements + 2 * 3 * elements)


def test_global_max_pooling_is_a_maximum_over_both_sides():
    workload = record(GlobalMax(), (4, 8, 8))
    assert [op.kind for op in workload] == ["amax", "reshape"]
    assert next(iter(workload)).integers("axes") == (2, 3)
    assert counts.activation_traffic_bytes(workload) == 4 * (4 * 8 * 8 + 4)


@pytest.mark.parametrize("module", [Stacked(), GlobalMax()], ids=["stack", "adaptive-max"])
def test_rewritten_operators_compute_in_onnx_what_torch_computes(module):
    session = onnxruntime.InferenceSession(
        float_model(
            record(module, (4, 8, 8)), weights={}, graph_input=GraphInput(dtype="float32", layout="nchw")
        ).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    assert torch.equal(torch.from_numpy(found), module(x))


def test_unused_operators_are_left_out():
    class Wasteful(nn.Module):
        def forward(self, x):
            torch.softmax(x, 1)
            return x.relu()

    assert kinds(Wasteful(), (4, 8, 8)) == ["relu"]


def test_parameters_as_operands_keep_their_names():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(4, 1, 1))
            self.register_buffer("shift", torch.zeros(4))

        def forward(self, x):
            return x * self.gain + self.shift.view(1, -1, 1, 1)

    mul, add = record(Scaled(), (4, 8, 8))
    assert (mul.parameters[0].role, mul.parameters[0].name, mul.parameters[0].trainable) == (
        "operand",
        "gain",
        True,
    )
    assert (add.parameters[0].name, add.parameters[0].trainable) == ("shift", False)
    assert counts.parameters(record(Scaled(), (4, 8, 8))) == 4


class Fft(nn.Module):
    def forward(self, x):
        return torch.fft.rfft2(x).abs()


class Unregistered(nn.Module):
    def forward(self, x):
        return x + torch.ones(1, device=x.device)


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x, x


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(7, 4, 1)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fft(), "'_fft_r2c'.*outside the operator vocabulary"),
        (Unregistered(), "neither input, parameter nor buffer"),
        (nn.LogSoftmax(1), "return the logits and leave it to the loss"),
        (TwoOutputs(), "must return one tensor, got tuple"),
        (Narrow(), "Narrow cannot take an input of"),
        (nn.BatchNorm2d(4, track_running_stats=False), "running statistics"),
    ],
    ids=["operator", "constant", "log-softmax", "outputs", "shape", "statistics"],
)
def test_what_the_vocabulary_lacks_is_named(module, message):
    with pytest.raises(LoweringError, match=message):
        record(module, (4, 8, 8))


def test_recording_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    record(module, (4, 8, 8))
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(child._forward_hooks for child in module.modules())


def test_a_block_that_cannot_take_its_input_is_named_with_its_place():
    from search_spaces.architecture import Architecture
    from search_spaces.blocks import Classifier, Conv, InvertedResidual

    broken = Architecture(
        (3, 8, 8),
        ((Conv(width=8),), (InvertedResidual(width=8, hidden=9, expand=False),), (Classifier(classes=2),)),
    )
    with pytest.raises(LoweringError, match=r"stages.1.0.*without expansion hidden must be 8"):
        lower(broken)
    with pytest.raises(LoweringError):
        lower_block(InvertedResidual(width=8, hidden=9, expand=False), (8, 4, 4))
