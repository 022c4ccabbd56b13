"""Published weights: plain torch networks with the public parameter names, written here, against ours.

Each network below is written from the papers and has the tensor names and shapes of torchvision's or timm's
checkpoints; random weights and statistics go through `load_published`, and outputs must agree.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.build import build
from search_spaces.efficientnet import efficientnet
from search_spaces.errors import SpaceError
from search_spaces.mobilenet_v1 import mobilenet_v1
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.published import load_published
from search_spaces.resnet import resnet18
from search_spaces.shufflenet_v2 import shufflenet_v2

SIDE = 64


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def conv_norm(inputs, outputs, kernel=1, stride=1, groups=1, act=None, eps=1e-5):
    layers = [conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs, eps=eps)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Gate(nn.Module):
    """Squeeze-excitation under the names of either library."""

    def __init__(self, channels, squeezed, names, inner, gate):
        super().__init__()
        self.names, self.inner, self.outer = names, inner, gate
        self.add_module(names[0], nn.Conv2d(channels, squeezed, 1))
        self.add_module(names[1], nn.Conv2d(squeezed, channels, 1))

    def forward(self, x):
        first, second = (getattr(self, name) for name in self.names)
        return x * self.outer(second(self.inner(first(F.adaptive_avg_pool2d(x, 1)))))


# torchvision ---------------------------------------------------------------------------------------------------


class TvV2Block(nn.Module):
    def __init__(self, inputs, outputs, ratio, stride):
        super().__init__()
        hidden = inputs * ratio
        layers = [] if ratio == 1 else [conv_norm(inputs, hidden, act=nn.ReLU6)]
        layers += [
            conv_norm(hidden, hidden, 3, stride, hidden, nn.ReLU6),
            conv(hidden, outputs, 1),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class TvV2(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [conv_norm(3, 32, 3, 2, act=nn.ReLU6)], 32
        for ratio, width, depth, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for number in range(depth):
                layers.append(TvV2Block(channels, width, ratio, 1 if number else stride))
                channels = width
        self.features = nn.Sequential(*layers, conv_norm(320, 1280, act=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class TvBlock(nn.Module):
    """Block of torchvision's MobileNetV3 and EfficientNet."""

    def __init__(self, inputs, hidden, outputs, kernel, stride, squeezed, act, gate, eps, inner):
        super().__init__()
        layers = [] if hidden == inputs else [conv_norm(inputs, hidden, act=act, eps=eps)]
        layers.append(conv_norm(hidden, hidden, kernel, stride, hidden, act, eps))
        if squeezed:
            layers.append(Gate(hidden, squeezed, ("fc1", "fc2"), inner, gate))
        self.block = nn.Sequential(*layers, conv_norm(hidden, outputs, eps=eps))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.block(x) if self.adds else self.block(x)


V3_SMALL = (  # kernel, hidden, width, squeezed, hard-swish, stride
    (3, 16, 16, 8, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 24, 1, 2), (5, 240, 40, 64, 1, 1),
    (5, 240, 40, 64, 1, 1), (5, 120, 48, 32, 1, 1), (5, 144, 48, 40, 1, 1), (5, 288, 96, 72, 1, 2),
    (5, 576, 96, 144, 1, 1), (5, 576, 96, 144, 1, 1),
)  # fmt: skip


class TvV3Small(nn.Module):
    def __init__(self):
        super().__init__()
        eps, channels = 1e-3, 16
        layers = [conv_norm(3, 16, 3, 2, act=nn.Hardswish, eps=eps)]
        for kernel, hidden, width, squeezed, hard, stride in V3_SMALL:
            act = nn.Hardswish if hard else nn.ReLU
            layers.append(TvBlock(channels, hidden, width, kernel, stride, squeezed, act, F.hardsigmoid, eps, F.relu))
            channels = width
        self.features = nn.Sequential(*layers, conv_norm(96, 576, act=nn.Hardswish, eps=eps))
        self.classifier = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, 1000))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


B0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class TvB0(nn.Module):
    def __init__(self):
        super().__init__()
        stages, channels = [conv_norm(3, 32, 3, 2, act=nn.SiLU)], 32
        for ratio, width, depth, stride, kernel in B0:
            blocks = []
            for number in range(depth):
                step = 1 if number else stride
                blocks.append(
                    TvBlock(
                        channels,
                        channels * ratio,
                        width,
                        kernel,
                        step,
                        channels // 4,
                        nn.SiLU,
                        torch.sigmoid,
                        1e-5,
                        F.silu,
                    )
                )
                channels = width
            stages.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*stages, conv_norm(320, 1280, act=nn.SiLU))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class TvShuffleUnit(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half, self.stride = outputs // 2, stride
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(
                conv(inputs, inputs, 3, 2, inputs), nn.BatchNorm2d(inputs),
                conv(inputs, half, 1), nn.BatchNorm2d(half), nn.ReLU(),
            )  # fmt: skip
        self.branch2 = nn.Sequential(
            conv(inputs if stride == 2 else half, half, 1), nn.BatchNorm2d(half), nn.ReLU(),
            conv(half, half, 3, stride, half), nn.BatchNorm2d(half),
            conv(half, half, 1), nn.BatchNorm2d(half), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        if self.stride == 2:
            y = torch.cat((self.branch1(x), self.branch2(x)), 1)
        else:
            left, right = x.chunk(2, 1)
            y = torch.cat((left, self.branch2(right)), 1)
        n, c, h, w = y.shape
        return y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class TvShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = conv_norm(3, 24, 3, 2, act=nn.ReLU)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 24
        for name, width, depth in (("stage2", 116, 4), ("stage3", 232, 8), ("stage4", 464, 4)):
            units = [TvShuffleUnit(width if number else channels, width, 1 if number else 2) for number in range(depth)]
            self.add_module(name, nn.Sequential(*units))
            channels = width
        self.conv5 = conv_norm(464, 1024, act=nn.ReLU)
        self.fc = nn.Linear(1024, 1000)

    def forward(self, x):
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean((2, 3)))


# both libraries ------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride == 2 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class PlainResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        for number, (inputs, outputs) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
            blocks = nn.Sequential(
                BasicBlock(inputs, outputs, 1 if number == 1 else 2), BasicBlock(outputs, outputs, 1)
            )
            self.add_module(f"layer{number}", blocks)
        self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


# timm ----------------------------------------------------------------------------------------------------------


class TimmBlock(nn.Module):
    """timm's depthwise-separable (no expansion) and inverted residual blocks."""

    def __init__(self, inputs, hidden, outputs, kernel, stride, squeezed, act, gate, inner, expands):
        super().__init__()
        self.act, self.expands = act, expands
        names = ("conv_pw", "conv_dw", "conv_pwl") if expands else (None, "conv_dw", "conv_pw")
        layers = (conv(inputs, hidden, 1), conv(hidden, hidden, kernel, stride, hidden), conv(hidden, outputs, 1))
        present = [(name, layer) for name, layer in zip(names, layers, strict=True) if name]
        self.steps = []
        for number, (name, layer) in enumerate(present, start=1):
            self.add_module(name, layer)
            self.add_module(f"bn{number}", nn.BatchNorm2d(layer.out_channels))
            self.steps.append((name, f"bn{number}"))
        if squeezed:
            self.se = Gate(hidden, squeezed, ("conv_reduce", "conv_expand"), inner, gate)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        y = x
        for name, norm in self.steps:
            y = getattr(self, norm)(getattr(self, name)(y))
            if name == self.steps[-1][0]:
                break
            y = self.act(y)
            if name == "conv_dw" and hasattr(self, "se"):
                y = self.se(y)
        return x + y if self.adds else y


class TimmNet(nn.Module):
    """timm's MobileNetV2 and EfficientNet; `rows` holds hidden, width, kernel, stride, squeezed, stage by stage."""

    def __init__(self, rows, act, gate, inner, last, head=None, stem=32, acts=None):
        super().__init__()
        self.act = act
        self.conv_stem, self.bn1 = conv(3, stem, 3, 2), nn.BatchNorm2d(stem)
        channels, stages = stem, []
        for stage, stage_rows in enumerate(rows):
            blocks = []
            for hidden, width, kernel, stride, squeezed in stage_rows:
                used = acts[stage] if acts else act
                blocks.append(
                    TimmBlock(channels, hidden, width, kernel, stride, squeezed, used, gate, inner, stage > 0)
                )
                channels = width
            stages.append(nn.Sequential(*blocks))
        if head:
            block = nn.Module()
            block.conv, block.bn1 = conv(channels, last, 1), nn.BatchNorm2d(last)
            stages.append(nn.Sequential(block))
            self.conv_head = nn.Conv2d(last, head, 1)
        else:
            self.conv_head, self.bn2 = conv(channels, last, 1), nn.BatchNorm2d(last)
        self.blocks, self.head = nn.Sequential(*stages), head
        self.classifier = nn.Linear(head or last, 1000)

    def forward(self, x):
        x = self.act(self.bn1(self.conv_stem(x)))
        stages = list(self.blocks)
        for stage in stages[:-1] if self.head else stages:
            x = stage(x)
        if self.head:
            block = stages[-1][0]
            x = self.act(block.bn1(block.conv(x))).mean((2, 3), keepdim=True)
            x = self.act(self.conv_head(x)).flatten(1)
        else:
            x = self.act(self.bn2(self.conv_head(x))).mean((2, 3))
        return self.classifier(x)


def timm_rows(table, se):
    rows, channels = [], 32
    for ratio, width, depth, stride, kernel in table:
        stage = []
        for number in range(depth):
            stage.append((channels * ratio, width, kernel, 1 if number else stride, channels // 4 if se else 0))
            channels = width
        rows.append(stage)
    return rows


def timm_v2():
    table = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 32, 3, 2, 3),
        (6, 64, 4, 2, 3),
        (6, 96, 3, 1, 3),
        (6, 160, 3, 2, 3),
        (6, 320, 1, 1, 3),
    )
    return TimmNet(timm_rows(table, se=False), F.relu6, None, None, 1280)


def timm_b0():
    return TimmNet(timm_rows(B0, se=True), F.silu, torch.sigmoid, F.silu, 1280)


def timm_v3_small():
    runs = (V3_SMALL[:1], V3_SMALL[1:3], V3_SMALL[3:6], V3_SMALL[6:8], V3_SMALL[8:])
    rows = [
        [(hidden, width, kernel, stride, squeezed) for kernel, hidden, width, squeezed, _, stride in run]
        for run in runs
    ]
    acts = (F.relu, F.relu, F.hardswish, F.hardswish, F.hardswish)
    return TimmNet(rows, F.hardswish, F.hardsigmoid, F.relu, 576, head=1024, stem=16, acts=acts)


def with_random_statistics(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.ndim == 1:
            tensor.copy_(
                0.3 * torch.randn(tensor.shape, generator=generator) + float("bn" in name and name.endswith("weight"))
            )
    return network.eval()


SHAPE = (3, SIDE, SIDE)
CASES = {
    "torchvision-mobilenet_v2": (TvV2, mobilenet_v2(input_shape=SHAPE), "torchvision"),
    "torchvision-mobilenet_v3": (TvV3Small, mobilenet_v3("small", input_shape=SHAPE), "torchvision"),
    "torchvision-efficientnet": (TvB0, efficientnet("b0", input_shape=SHAPE), "torchvision"),
    "torchvision-shufflenet_v2": (TvShuffle, shufflenet_v2(input_shape=SHAPE), "torchvision"),
    "torchvision-resnet18": (PlainResNet18, resnet18(input_shape=SHAPE), "torchvision"),
    "timm-mobilenet_v2": (timm_v2, mobilenet_v2(input_shape=SHAPE), "timm"),
    "timm-mobilenet_v3": (timm_v3_small, mobilenet_v3("small", input_shape=SHAPE, eps=1e-5), "timm"),
    "timm-efficientnet": (timm_b0, efficientnet("b0", input_shape=SHAPE), "timm"),
    "timm-resnet18": (PlainResNet18, resnet18(input_shape=SHAPE), "timm"),
}


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return with_random_statistics(make())


@pytest.mark.parametrize(("make", "architecture", "layout"), CASES.values(), ids=CASES)
def test_loaded_network_computes_what_the_public_one_computes(make, architecture, layout):
    public, ours = seeded(make), build(architecture, seed=5).eval()
    ours.load_state_dict(load_published(architecture, public.state_dict(), layout=layout))
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, found = public(x), ours(x)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.fixture
def resnet_weights():
    return seeded(PlainResNet18).state_dict()


def test_counters_of_old_files_may_be_absent(resnet_weights):
    old = {name: tensor for name, tensor in resnet_weights.items() if not name.endswith("num_batches_tracked")}
    build(resnet18(input_shape=SHAPE)).load_state_dict(load_published(resnet18(input_shape=SHAPE), old, layout="timm"))


def test_missing_surplus_and_misshapen_tensors_are_named(resnet_weights):
    architecture = resnet18(input_shape=SHAPE)
    missing = {name: tensor for name, tensor in resnet_weights.items() if name != "layer2.0.conv1.weight"}
    with pytest.raises(
        SpaceError, match=r"stages.2.0.layers.0.conv.weight is layer2.0.conv1.weight in torchvision's resnet"
    ):
        load_published(architecture, missing, layout="torchvision")
    with pytest.raises(SpaceError, match="1 tensors that the architecture has no place for, such as 'extra'"):
        load_published(architecture, {**resnet_weights, "extra": torch.zeros(1)}, layout="torchvision")
    with pytest.raises(
        SpaceError, match=r"stages.5.0.linear.weight has shape \(10, 512\), fc.weight has \(1000, 512\)"
    ):
        load_published(resnet18(classes=10, input_shape=SHAPE), resnet_weights, layout="torchvision")


def test_another_epsilon_is_refused():
    weights = seeded(timm_v3_small).state_dict()
    with pytest.raises(SpaceError, match=r"timm trained mobilenet_v3 with .*eps=1e-05, stages\.0\.0 has eps=0\.001"):
        load_published(mobilenet_v3("small", input_shape=SHAPE), weights, layout="timm")


def test_families_and_layouts_without_weights_are_refused(resnet_weights):
    with pytest.raises(SpaceError, match="got an architecture of Classifier, Conv, DepthwiseSeparable"):
        load_published(mobilenet_v1(), resnet_weights, layout="timm")
    with pytest.raises(SpaceError, match="timm has no weights of shufflenet_v2"):
        load_published(shufflenet_v2(), resnet_weights, layout="timm")
    with pytest.raises(ValueError, match="layout must be 'torchvision' or 'timm', got 'keras'"):
        load_published(resnet18(), resnet_weights, layout="keras")
