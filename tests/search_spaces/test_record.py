"""Networks of nobody's library: `record` prices them, equal to fvcore's count, to torch's sizes and to hand counts."""

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.nn import functional as F

from search_spaces import counts
from search_spaces.errors import LoweringError
from search_spaces.fusion import fuse
from search_spaces.lowering import record, record_run
from search_spaces.memory import peak_bytes
from search_spaces.patches import patchable_segments
from search_spaces.precision import QuantizationPlan, with_precision


def convolution(*sizes, **options):
    return nn.Sequential(nn.Conv2d(*sizes, bias=False, **options), nn.BatchNorm2d(sizes[1]), nn.ReLU())


class UNet(nn.Module):
    """Ronneberger et al. 2015 in small: halved twice, brought back by transposed convolutions, joined by channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (convolution(a, b, 3, padding=1) for a, b in ((3, 8), (8, 16), (16, 32)))
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.grouped = nn.ConvTranspose2d(32, 8, 3, 2, 1, output_padding=1, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.second(F.max_pool2d(a, 2))
        c = self.third(F.max_pool2d(b, 2))
        b = torch.cat((self.up(c), b), 1)
        return self.last(torch.cat((F.relu(self.norm(self.grouped(b))), a), 1))


class SuperResolution(nn.Module):
    """Shi et al. 2016: pixels out of channels, added to the image enlarged by interpolation."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 9, 3, padding=1)
        self.shuffle = nn.PixelShuffle(3)

    def forward(self, x):
        enlarged = F.interpolate(x, scale_factor=3, mode="bicubic", align_corners=False)
        return (self.shuffle(self.last(torch.tanh(self.first(x)))) + enlarged).clamp(0.0, 1.0)


class ConvNeXtBlock(nn.Module):
    """Liu et al. 2022: normalization over channels last, two linear layers, a factor for each channel."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8)
        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.full((8,), 1e-6))
        self.response = nn.Parameter(torch.zeros(1, 1, 1, 32))

    def forward(self, x):
        y = F.gelu(self.wide(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
        size = torch.norm(y, p=2, dim=(1, 2), keepdim=True)  # global response normalization of version 2
        y = y * (size / (size.mean(-1, keepdim=True) + 1e-6)) * self.response + y
        return x + (self.gamma * self.narrow(y)).permute(0, 3, 1, 2)


class FaceNet(nn.Module):
    """Chen et al. 2018: PReLU everywhere, a depthwise convolution for pooling, embeddings of length one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16))
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False), nn.PReLU())
        self.pool = nn.Conv2d(16, 16, 4, groups=16, bias=False)
        self.embed = nn.Linear(16, 12, bias=False)

    def forward(self, x):
        return F.normalize(self.embed(self.pool(self.depthwise(self.expand(self.stem(x)))).flatten(1)))


class TinyViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token, self.place = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(1, 17, 16))
        self.norm, self.last = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.place
        parts = self.qkv(self.norm(x)).reshape(1, 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        mixed = (query @ key.transpose(-2, -1) * 8**-0.5).softmax(-1) @ value
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(1, 17, 16)), 0.1, self.training)
        return self.head(self.last(x)[:, 0])


class StyleTransfer(nn.Module):
    """Johnson et al. 2016: reflection, instance normalization, enlargement; group normalization and odd activations."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 6, 3)
        self.norm, self.groups = nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(3, 6)
        self.one_row = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        x = F.elu(self.norm(self.first(F.pad(x, (1, 1, 1, 1), mode="reflect"))))
        x = F.mish(self.groups(self.second(F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True))))
        gate = self.one_row(x.mean((2, 3)).unsqueeze(1)).squeeze(1)  # efficient channel attention
        return F.adaptive_avg_pool2d(x * torch.sigmoid(gate)[:, :, None, None], 5)


NETWORKS = [
    (UNet, (3, 16, 16)), (SuperResolution, (1, 8, 8)), (ConvNeXtBlock, (8, 7, 7)), (FaceNet, (3, 16, 16)),
    (TinyViT, (3, 16, 16)), (StyleTransfer, (3, 16, 16)),
]  # fmt: skip


@pytest.mark.parametrize(("network", "shape"), NETWORKS, ids=[network.__name__ for network, _ in NETWORKS])
def test_counts_equal_those_of_fvcore_and_torch(network, shape):
    module = network().eval()
    analysis = FlopCountAnalysis(module, torch.zeros(1, *shape))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    found = analysis.by_operator()
    workload = record(module, shape)
    assert counts.macs(workload) == sum(found[kind] for kind in ("conv", "linear", "matmul"))
    assert counts.parameters(workload) == sum(p.numel() for p in module.parameters())
    assert workload.output.shape == tuple(module(torch.zeros(1, *shape)).shape)
    for precision in (None, QuantizationPlan()):
        shipped = with_precision(workload, precision)
        assert min(counts.weight_bytes(shipped), counts.activation_traffic_bytes(shipped), peak_bytes(shipped)) > 0


def test_macs_of_a_transposed_convolution_are_those_of_its_inputs():
    macs = counts.macs(record(nn.ConvTranspose2d(32, 8, 3, 2, 1, 1, groups=4), (32, 5, 6)))
    assert macs == 5 * 6 * 32 * (8 // 4) * 3 * 3


class ThreeOperators(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.curve = nn.ConvTranspose2d(2, 4, 2, 2), nn.PReLU(4)

    def forward(self, x):
        y = self.up(x)
        return torch.maximum(self.curve(y), y)


def test_memory_and_traffic_of_three_operators_equal_a_count_by_hand():
    image, large = 4 * 2 * 4 * 4, 4 * 4 * 8 * 8
    workload = record(ThreeOperators(), (2, 4, 4))
    assert [op.attribute("function", op.kind) for op in workload] == ["conv_transpose", "prelu", "maximum"]
    assert peak_bytes(workload) == 3 * large  # the maximum reads two and writes one
    assert counts.activation_traffic_bytes(workload) == (image + large) + 2 * large + 3 * large
    assert counts.weight_bytes(workload) == 4 * (2 * 4 * 2 * 2 + 4 + 4)


def test_transposed_convolution_takes_normalization_and_activation():
    module = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    (op,) = fuse(record(module, (4, 5, 5)))
    assert (op.kind, op.attribute("activation")) == ("conv_transpose", "relu")
    assert counts.weight_bytes(record(module, (4, 5, 5))) == 4 * (4 * 6 * 2 * 2 + 6)


def test_transposed_convolution_stays_float_in_an_8_bit_network():
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ConvTranspose2d(4, 2, 2, 2, bias=False))
    shipped = with_precision(record(module, (3, 4, 4)), QuantizationPlan())
    assert [op.dtype for op in shipped] == ["int8", "float32"]
    assert counts.weight_bytes(shipped) == (12 + 9 * 4) + 4 * 4 * 2 * 2 * 2


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


FUNCTIONS = {
    "leaky_relu": lambda x: F.leaky_relu(x), "elu": F.elu, "selu": F.selu, "celu": lambda x: F.celu(x, 0.5),
    "softplus": F.softplus, "mish": F.mish, "hardtanh": F.hardtanh, "log": torch.log, "rsqrt": torch.rsqrt,
    "square": torch.square, "minimum": lambda x: torch.minimum(x, x), "log_sigmoid": F.logsigmoid,
    "threshold": lambda x: F.threshold(x, 0.1, 0.0), "clamp by a tensor": lambda x: x.clamp(max=x),
    "in place": lambda x: F.elu_(x * 2.0),
}  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_elementwise_functions_cost_no_macs_and_what_they_read_and_write(function):
    workload = record(Function(function), (4, 8, 8))
    *_, op = workload
    assert counts.macs(workload) == 0
    assert op.output.shape == (1, 4, 8, 8)
    assert counts.activation_traffic_bytes(workload) == sum(
        4 * 256 * (len(known.inputs) + len(known.outputs)) for known in workload
    )
    assert peak_bytes(workload) >= 2 * 4 * 256


@pytest.mark.parametrize(
    ("function", "kind", "shape"),
    [
        (lambda x: x.max(1)[0], "amax", (1, 12, 12)),
        (lambda x: x.max(), "amax", ()),
        (lambda x: x.mean(), "mean", ()),
        (lambda x: x.amin((2, 3)), "reduction", (1, 8)),
        (lambda x: x.std(1), "reduction", (1, 12, 12)),
        (lambda x: F.adaptive_avg_pool2d(x, 5), "reduction", (1, 8, 5, 5)),
        (lambda x: F.adaptive_avg_pool2d(x, 4), "avg_pool", (1, 8, 4, 4)),
        (lambda x: F.adaptive_max_pool2d(x, 4), "max_pool", (1, 8, 4, 4)),
        (lambda x: F.adaptive_max_pool2d(x, 5), "reduction", (1, 8, 5, 5)),
        (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), "max_pool", (1, 8, 6, 6)),
        (lambda x: F.pixel_unshuffle(x, 2), "reshape", (1, 32, 6, 6)),
        (lambda x: x.flip(3), "movement", (1, 8, 12, 12)),
        (lambda x: x.roll((1, -2), (2, 3)), "concat", (1, 8, 12, 12)),
        (lambda x: x.repeat(1, 2, 1, 3), "reshape", (1, 16, 12, 36)),
        (lambda x: F.pad(x, (1, 2, 3, 1), mode="replicate"), "movement", (1, 8, 16, 15)),
        (lambda x: F.unfold(x, 3), "movement", (1, 72, 100)),
        (lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"), "movement", (1, 8, 5, 7)),
        (lambda x: F.interpolate(x, scale_factor=2), "upsample", (1, 8, 24, 24)),
        (lambda x: F.glu(x, 1), "mul", (1, 4, 12, 12)),
        (lambda x: torch.add(x, x, alpha=2), "add", (1, 8, 12, 12)),
        (lambda x: F.local_response_norm(x, 3), "div", (1, 8, 12, 12)),
    ],
    ids=["max", "max-all", "mean-all", "amin", "std", "avg-uneven", "avg-even", "max-even", "max-uneven", "ceil",
         "unshuffle", "flip", "roll", "repeat", "replicate", "unfold", "resize", "upsample", "glu", "add", "lrn"],
)  # fmt: skip
def test_the_last_operator_has_the_kind_and_shape_of_torch(function, kind, shape):
    *_, op = record(Function(function), (8, 12, 12))
    assert (op.kind, op.output.shape) == (kind, shape)
    assert tuple(function(torch.ones(1, 8, 12, 12)).shape) == shape


def test_results_of_other_types_have_their_own_width():
    *_, op = record(Function(lambda x: x.argmax(1)), (4, 8, 8))
    assert (op.kind, op.attribute("function"), op.output.num_bytes) == ("reduction", "argmax", 8 * 64)
    compared, chosen = record(Function(lambda x: torch.where(x > 0, x, 0.1)), (4, 8, 8))
    assert (compared.output.dtype, compared.output.num_bytes) == ("bool", 4 * 64)
    assert (chosen.number("number_2"), len(chosen.inputs)) == (pytest.approx(0.1), 2)
    first, _ = with_precision(record(Function(lambda x: torch.where(x > 0, x, 0.1)), (4, 8, 8)), QuantizationPlan())
    assert first.output.dtype == "bool"


class ParameterFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(6, 4))

    def forward(self, x):
        return torch.einsum("oc,bchw->bohw", self.mix, x)


def test_product_with_a_stored_left_side_counts_its_inner_length():
    workload = record(ParameterFirst(), (4, 8, 9))
    assert counts.macs(workload) == 6 * 4 * 8 * 9
    assert counts.parameters(workload) == 24


def test_patches_go_through_elementwise_functions():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 4, 3, padding=1))
    assert patchable_segments(record(module, (3, 8, 8))) == 1
    assert patchable_segments(record(nn.Sequential(module, nn.ConvTranspose2d(4, 4, 2, 2)), (3, 8, 8))) == 0


def assigned(x):
    y = x * 2.0
    y[:, 0] = 1.0
    return y


class Reparametrized(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.gain = nn.Parameter(torch.ones(4, 4, 1, 1)), nn.Parameter(torch.ones(4, 1, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.gain)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv3d(4, 4, 1), "convolutions over 3 axes are not in the vocabulary"),
        (Function(lambda x: x.cumsum(1)), r"'cumsum' in module 'inner'.*leave it out .* search_spaces.aten reads"),
        (Function(lambda x: x.topk(2, 1)[0]), "'topk' in module 'inner' is outside the operator vocabulary"),
        (Function(lambda x: x.max(1)[1] * x), "further result of 'max'.*use argmax"),
        (Function(assigned), "'copy' in module 'inner' is outside the operator vocabulary"),
        (Function(lambda x: F.pad(x, (1, 1, 1, 1), mode="circular")), "circular padding, which torch computes so"),
        (Reparametrized(), "computes mul of its own parameters on every pass: compute it once and register"),
        (nn.BatchNorm2d(4, track_running_stats=False), "running statistics"),
    ],
    ids=["conv3d", "running-sum", "sorting", "places", "assignment", "circular", "parameters", "statistics"],
)
def test_what_cannot_be_priced_is_named_with_what_to_do(module, message):
    shape = (4, 2, 8, 8) if isinstance(module, nn.Conv3d) else (4, 8, 8)
    holder = nn.Sequential()
    holder.add_module("inner", module)
    with pytest.raises(LoweringError, match=message):
        record(holder, shape)


DATA = "reads the values of a tensor .*cannot be recorded.*torch.where"
CHANCE = r"draws random numbers \(torch.{}\).*if self.training"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x * x.max().item(), DATA),
        (lambda x: x.relu() if x.mean() > 0 else x, r"`if` and `while` on a tensor.*control flow, shapes and numbers"),
        (lambda x: x[:, : int(x.sum())], DATA),
        (lambda x: x * len(x.tolist()), DATA),
        (lambda x: x[x > 0], r"an index by a mask.*cannot be recorded"),
        (lambda x: x + torch.rand_like(x), CHANCE.format("rand_like")),
        (lambda x: x + torch.randn(x.shape), CHANCE.format("randn")),
        (lambda x: x + torch.empty_like(x).normal_(), CHANCE.format("normal")),
        (lambda x: F.dropout(x, training=True), CHANCE.format("bernoulli")),
        (lambda x: x + torch.ones(x.shape), "neither input, parameter nor buffer.*register it as a buffer"),
    ],
    ids=["item", "if", "int", "tolist", "mask", "rand_like", "randn", "normal_", "dropout", "ones on the CPU"],
)
@pytest.mark.parametrize("inner", [False, True], ids=["itself", "inner"])
def test_what_hangs_on_data_or_chance_is_told_with_its_place(function, message, inner):
    module = nn.Sequential()
    module.add_module("inner", Function(function))
    with pytest.raises(LoweringError, match=("module 'inner' .*" if inner else "the network itself .*") + message):
        record(module if inner else module[0], (4, 8, 8))


def test_random_numbers_that_nobody_reads_and_that_training_alone_draws_are_recorded():
    class Noisy(nn.Module):
        def forward(self, x):
            torch.rand_like(x)
            return x.relu() + torch.rand_like(x) if self.training else x.relu()

    assert [op.kind for op in record(Noisy().train(), (4, 8, 8))] == ["relu"]


@pytest.mark.parametrize("on_meta", [1.0, 2.0])
def test_a_run_is_recorded_as_the_module_without_data_unless_it_asks_for_the_device(on_meta):
    module = Function(lambda x: x.relu() * (on_meta if x.is_meta else 2.0)).eval()
    run = record_run(module, torch.ones(1, 4, 8, 8))
    assert (run == record(module, (4, 8, 8))) is (on_meta == 2.0)


def test_a_run_that_fails_with_data_alone_keeps_what_torch_raised():
    module = Function(lambda x: x if x.is_meta else x.reshape(7, -1)).eval()
    with pytest.raises(LoweringError, match="Function cannot take an input of") as error:
        record_run(module, torch.ones(1, 4, 8, 8))
    assert isinstance(error.value.__cause__, RuntimeError)
