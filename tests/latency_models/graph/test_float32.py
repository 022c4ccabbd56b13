import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latency_models.graph import GraphInput, float_model
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual, NormActivation
from search_spaces.build import build
from search_spaces.errors import LoweringError
from search_spaces.lowering import lower, record
from search_spaces.mixed import MixedSpace
from search_spaces.space import decode, sample
from search_spaces.workload import KINDS
from tests.latency_models.graph.running import (
    NORMALIZED,
    assert_equal,
    images,
    kinds,
    outputs,
    run,
    session,
    settled,
    state,
)

SHAPE = (8, 12, 12)


class Activations(nn.Module):
    """Every activation by itself, none behind a layer that could take it."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        first, second, third, fourth = self.pool(x).chunk(4, dim=1)
        return torch.cat(
            [
                F.relu(first), F.relu6(first), F.leaky_relu(first, 0.2), F.hardswish(second), F.hardsigmoid(second),
                F.silu(third), F.gelu(third), F.gelu(third, approximate="tanh"), torch.tanh(fourth),
                torch.sigmoid(fourth), fourth.clamp(-0.5, 0.25), first.clamp(max=0.3), second.clamp(min=0.2),
            ],
            dim=1,
        )  # fmt: skip


class Arithmetic(nn.Module):
    """Every operator of arithmetic, with values, parameters and scalars on both sides."""

    def __init__(self):
        super().__init__()
        self.channel = nn.Parameter(torch.linspace(0.5, 2.0, 8)[:, None, None])
        self.plane = nn.Parameter(torch.linspace(-1.0, 1.0, 144).reshape(12, 12))

    def forward(self, x):
        a, b = x.abs() + 1.0, (-x).exp()
        y = a * b + a / b - b + a.pow(1.5) + (a + 2.0) * 3.0 - (1.0 - b) * self.channel + b.sqrt() / 4.0
        y = y + self.plane - (self.plane - a) + (self.channel / a) * a.reciprocal() + (y - self.channel) / self.channel
        return y - 0.5


class Reductions(nn.Module):
    def forward(self, x):
        flat = x.mean((2, 3))
        pooled = F.adaptive_avg_pool2d(x, 1) + x.mean((2, 3), keepdim=True)
        sums = x.sum(1, keepdim=True) + x.mean(3, keepdim=True) + x.amax((2, 3), keepdim=True)
        return (pooled + sums).mean((2, 3)) + flat + x.amax(dim=(2, 3)) + x.flatten(1).softmax(1)[:, :8]


class Movement(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 1, 0, 7]))
        self.register_buffer("rows", torch.tensor([11, 2]))

    def forward(self, x):
        picked = x[:, self.order]
        rows = x.index_select(2, self.rows)[:, :5, :1].expand(-1, -1, 12, -1)
        left, right = x.permute(0, 1, 3, 2)[:, :5].split([4, 8], dim=3)
        padded = F.pad(x, (1, 2, 0, 3), value=0.5)[:, :5, :12, 1:13:1]
        single = x[:, :5, 3].unsqueeze(2).expand(1, 5, 12, 12)
        up = F.interpolate(x[:, :5, ::2, ::2], scale_factor=2, mode="nearest")
        smooth = F.interpolate(x[:, :5, :6, :6], size=(12, 12), mode="bilinear", align_corners=False)
        return torch.cat((picked, rows + torch.cat((right, left), dim=3), padded - single, up * smooth), dim=1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.bare = nn.LayerNorm((12, 8), elementwise_affine=False)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8, bias=False)

    def forward(self, x):
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        mixed = (query @ key.transpose(1, 2) * 0.3).softmax(-1) @ value
        y = tokens + self.out(mixed)
        return self.bare(y.reshape(1, 12, 12, 8)).reshape(1, 144, 8)[:, 5]


class Convolutions(nn.Module):
    """Paddings, dilation, groups, pooling of every kind, a shuffle, and scales that go into weights."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(8, 12, 3, stride=(2, 1), padding=(0, 1))
        self.dilated = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3, bias=False)
        self.scale = nn.Parameter(torch.linspace(0.1, 1.0, 12)[:, None, None])
        self.depthwise = nn.Conv2d(12, 24, 5, padding=2, groups=12)
        self.norm = nn.BatchNorm2d(12, affine=False)
        self.last = nn.Conv2d(24, 8, 1)

    def forward(self, x):
        y = self.norm(self.first(F.pad(x, (0, 0, 0, 1))) * self.scale) - 0.1
        batch, _, height, width = y.shape
        shuffled = self.dilated(y).view(batch, 3, 4, height, width).transpose(1, 2).reshape(y.shape)
        y = self.depthwise(F.max_pool2d(shuffled, 3, 1, 1) + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False))
        return F.leaky_relu(self.last(F.avg_pool2d(y, (3, 5), (2, 2), (1, 2)))) / 3.0


class General(nn.Module):
    """Every function of the general kinds that has a form, transposed convolutions and normalization of groups."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.slope = nn.PReLU(8)
        self.groups, self.instance = nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True)
        self.bare = nn.GroupNorm(2, 8, affine=False)
        self.row = nn.Conv1d(1, 1, 3, padding=1)
        generator = torch.Generator().manual_seed(3)
        for tensor in (*self.parameters(), self.norm.running_mean, self.norm.running_var):
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)

    def elementwise(self, x):
        y, positive = self.slope(x), x.abs() + 0.5
        y = y + F.elu(x, 0.7) + F.selu(x) + F.celu(x, 0.6) + F.softplus(x) + F.softplus(x, beta=2.0) + F.mish(x)
        y = (
            y
            + F.logsigmoid(x)
            + positive.log()
            + positive.rsqrt()
            + x.sin() * x.cos()
            + x.erf()
            + F.glu(y, 2).repeat(1, 1, 2, 1)
        )
        return torch.maximum(y, x) - torch.minimum(x.floor() + x.ceil(), x.round() * x.sign())

    def reductions(self, x):
        pooled = F.max_pool2d(x, 3, 2, ceil_mode=True) + F.avg_pool2d(x, 3, 2, ceil_mode=True)
        pooled = pooled + F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)[:, :, :6, :6]
        sums = x.amin(3, keepdim=True) + (x * 0.1).logsumexp(1, keepdim=True) + x.norm(dim=2, keepdim=True)
        sums = sums + (1.0 + x * 0.01).prod(2, keepdim=True) + torch.linalg.vector_norm(x, 1, dim=2, keepdim=True)
        return pooled[:, :, -1:, -1:] + sums + F.adaptive_max_pool2d(x, 1) + F.adaptive_max_pool2d(x, 6).tile(2, 2)

    def moves(self, x):
        half = x.flip((2, 3)).roll((1, -2), (2, 3))[:, :, :6]
        y = half + F.pixel_unshuffle(F.pixel_shuffle(half, 2), 2)
        y = F.channel_shuffle(F.pad(y, (1, 2, 0, 1), mode="reflect") + F.pad(y, (2, 1, 1, 0), mode="replicate"), 4)
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic"):
            y = F.interpolate(y, size=(y.shape[2] + 3, y.shape[3] + 2), mode=mode)
        return F.interpolate(y, size=(25, 13), mode="bilinear", align_corners=True)

    def forward(self, x):
        row = self.row(x.mean((2, 3)).unsqueeze(1)).view(1, 8, 1, 1)
        y = self.elementwise(self.instance(self.bare(self.groups(x)))) + self.reductions(x) + row
        return torch.cat((F.relu(self.norm(self.up(y))).flatten(1), self.moves(x).flatten(1)), 1)


MODULES = (Activations, Arithmetic, Reductions, Movement, Attention, Convolutions, General)


def built(module_class):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return module_class().eval()


@pytest.fixture(params=MODULES, ids=lambda module_class: module_class.__name__)
def module(request):
    return built(request.param)


def small(rng, **options):
    space = MixedSpace(resolutions=(24, 32), depths=(1, 2), **options)
    return decode(space, sample(space, 1, rng)[0])


def test_the_modules_of_this_file_hold_the_whole_vocabulary():
    recorded = {op.kind for module_class in MODULES for op in record(built(module_class), SHAPE)}
    network = lower(Architecture(input_shape=(3, 8, 8), stages=((Conv(width=4), Classifier(classes=2, hidden=4)),)))
    made_by_fusion = {"channel_shuffle"}
    assert recorded | {op.kind for op in network} | made_by_fusion == KINDS


def test_recorded_module_equals_torch(module):
    x = images(SHAPE, 2)
    found = run(float_model(record(module, SHAPE), weights=state(module), graph_input=NORMALIZED), x)
    assert_equal(found, np.concatenate([outputs(module, image[None]) for image in x]))


def test_recorded_module_runs_with_random_weights(module):
    found = run(float_model(record(module, SHAPE), graph_input=NORMALIZED), images(SHAPE, 1))
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0.0


@pytest.mark.parametrize("opset", [13, 14, 17, 18, 20, 23])
def test_every_opset_computes_the_same(opset, module):
    x = images(SHAPE, 1)
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    model = float_model(
        record(module, SHAPE), weights=state(module), graph_input=NORMALIZED, opset=opset, ir_version=least
    )
    assert model.opset_import[0].version == opset
    assert_equal(run(model, x), outputs(module, x))


@pytest.mark.parametrize("seed", range(6))
def test_random_mixed_network_equals_torch(seed):
    architecture = small(np.random.default_rng(seed))
    network = settled(build(architecture, seed=seed), architecture.input_shape)
    x = images(architecture.input_shape)
    found = run(float_model(lower(architecture), weights=state(network), graph_input=NORMALIZED), x)
    assert_equal(found, outputs(network, x))


def test_normalization_and_activation_of_the_next_block_go_into_the_convolution():
    blocks = (Conv(width=8, activation="none"), NormActivation(), Classifier(classes=3))
    architecture = Architecture(input_shape=(3, 8, 8), stages=((blocks[0],), blocks[1:]))
    network = settled(build(architecture), (3, 8, 8))
    model = float_model(lower(architecture), weights=state(network), graph_input=NORMALIZED)
    assert kinds(model) == {"Conv": 1, "Relu": 1, "GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1}
    x = images((3, 8, 8))
    assert_equal(run(model, x), outputs(network, x))


def test_activation_before_others_read_the_sum_stays_behind_it():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return F.relu(y) - y

    module, x = built(Reused), images((4, 5, 5))
    assert_equal(
        run(float_model(record(module, (4, 5, 5)), weights=state(module), graph_input=NORMALIZED), x),
        outputs(module, x),
    )


def test_normalization_behind_a_bias_is_folded_with_it():
    module = settled(nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, 3)), SHAPE)
    with torch.no_grad():
        module[0].bias.copy_(torch.tensor([3.0, -2.0, 1.0, 0.5]))
    model = float_model(record(module, SHAPE), weights=state(module), graph_input=NORMALIZED)
    assert kinds(model) == {"Conv": 1, "Reshape": 1, "Gemm": 1}
    assert_equal(run(model, images(SHAPE)), outputs(module, images(SHAPE)))


def test_zeros_around_a_map_become_pads_of_the_convolution():
    module = nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(8, 4, 3, padding=1)).eval()
    model = float_model(record(module, SHAPE), weights=state(module), graph_input=NORMALIZED)
    assert kinds(model) == {"Conv": 1}
    assert_equal(run(model, images(SHAPE, 1)), outputs(module, images(SHAPE, 1)))


def test_cut_behind_a_concatenation_goes_into_what_feeds_it():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 3, 2, 1)

        def forward(self, x):
            return F.relu6(torch.cat((F.avg_pool2d(x, 3, 2, 1), self.conv(x)), dim=1))

    module, x = built(Branches), images((4, 8, 8))
    model = float_model(record(module, (4, 8, 8)), weights=state(module), graph_input=NORMALIZED)
    assert [node.op_type for node in model.graph.node][-1] == "Concat"
    assert_equal(run(model, x), outputs(module, x))


def test_shuffle_between_convolutions_leaves_no_node():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 4, 3)
            self.depthwise = nn.Conv2d(12, 12, 3, groups=12)

        def forward(self, x):
            y = F.relu(self.first(x))
            y = y.view(1, 3, 4, *y.shape[2:]).transpose(1, 2).reshape(y.shape)
            return self.last(F.max_pool2d(self.depthwise(y), 2))

    module, x = built(Shuffled), images(SHAPE, 1)
    model = float_model(record(module, SHAPE), weights=state(module), graph_input=NORMALIZED)
    assert kinds(model) == {"Conv": 3, "Relu": 1, "MaxPool": 1}
    assert_equal(run(model, x), outputs(module, x))


def test_random_weights_follow_the_seed_and_give_usual_numbers(rng):
    workload = lower(small(rng))
    first, again, other = (float_model(workload, seed=seed).SerializeToString() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    exposed = session(float_model(workload, graph_input=NORMALIZED, expose=True))
    values = exposed.run(None, {"image": images(workload.input.shape[1:], 1)})
    for value in values:
        nonzero = np.abs(value[value != 0.0])
        assert np.isfinite(value).all()
        assert nonzero.size
        assert 1e-20 < nonzero.min() <= nonzero.max() < 1e6


def test_exposed_file_has_the_same_logits_and_names_every_tensor_once(rng):
    architecture = small(rng)
    network = settled(build(architecture), architecture.input_shape)
    workload, x = lower(architecture), images(architecture.input_shape)
    plain, exposed = (
        float_model(workload, weights=state(network), graph_input=NORMALIZED, expose=expose) for expose in (False, True)
    )
    names = [output.name for output in exposed.graph.output]
    assert len(names) == len(set(names)) > len(lower(architecture).segments)
    assert_equal(run(exposed, x), run(plain, x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 12}, r"opset must lie between 13 and \d+ .*got opset=12"),
        ({"opset": 999}, "got opset=999"),
        ({"opset": 18, "ir_version": 7}, r"opset 18 needs an ir_version from 8 to \d+, got ir_version=7"),
    ],
    ids=["old", "unknown", "ir"],
)
def test_versions_out_of_range_are_refused(options, message, rng):
    with pytest.raises(ValueError, match=message):
        float_model(lower(small(rng)), **options)


def test_weights_that_do_not_fit_are_named():
    architecture = Architecture(input_shape=(3, 8, 8), stages=((Conv(width=4), Classifier(classes=2)),))
    weights = state(build(architecture))
    short = {name: array for name, array in weights.items() if name != "stages.0.0.norm.running_var"}
    with pytest.raises(ValueError, match=r"lack 'stages\.0\.0\.norm\.running_var', which conv in 'stages\.0\.0\.conv'"):
        float_model(lower(architecture), weights=short)
    wrong = {**weights, "stages.0.1.linear.weight": np.zeros((2, 5), np.float32)}
    with pytest.raises(ValueError, match=r"must have shape \(2, 4\), weights have \(2, 5\)"):
        float_model(lower(architecture), weights=wrong)


def test_operator_that_a_batch_breaks_is_named():
    class Swaps(nn.Module):
        def forward(self, x):
            return x.permute(1, 0, 2, 3).mean((2, 3))

    workload = record(Swaps(), (4, 5, 5))
    assert float_model(workload, graph_input=NORMALIZED)
    with pytest.raises(LoweringError, match="transpose in '' moves the batch axis: write the file for one image"):
        float_model(workload, graph_input=GraphInput(dtype="float32", layout="nchw", batch=None))


class Hidden(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: F.adaptive_avg_pool2d(x, 3), "adaptive_avg_pool in 'inner' is priced but cannot be written to ONNX"),
        (lambda x: x.argmax(1), "argmax in 'inner' is priced but cannot be written"),
        (
            lambda x: x.norm(3, dim=1),
            "vector_norm in 'inner' is of order 3, which has no ONNX form",
        ),
        (
            lambda x: F.interpolate(x, size=(3, 3), mode="bilinear", antialias=True),
            "resize in 'inner' is of mode bilinear_antialias, which has no ONNX form",
        ),
    ],
    ids=["uneven", "argmax", "order", "antialias"],
)
def test_what_is_priced_but_has_no_form_is_named(function, message):
    module = nn.Sequential()
    module.add_module("inner", Hidden(function))
    workload = record(module, (4, 5, 5))
    assert workload.output.elements
    with pytest.raises(LoweringError, match=message):
        float_model(workload, graph_input=NORMALIZED)


def test_inverted_residual_of_one_block_needs_no_other_segments():
    architecture = Architecture(input_shape=(8, 6, 6), stages=((InvertedResidual(width=8, hidden=16),),))
    network = settled(build(architecture), (8, 6, 6))
    x = images((8, 6, 6))
    assert_equal(
        run(float_model(lower(architecture), weights=state(network), graph_input=NORMALIZED), x), outputs(network, x)
    )
