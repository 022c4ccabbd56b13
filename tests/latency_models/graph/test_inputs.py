"""Type, layout, normalization and batch of a file's input, in both precisions."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from latency_models.graph import GraphInput, float_model, int8_model
from nas.task import Preprocessing
from search_spaces.architecture import Architecture
from search_spaces.attention_blocks import MobileViT
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.build import build
from search_spaces.lowering import lower, record
from search_spaces.precision import QuantizationPlan
from search_spaces.shuffle_blocks import ShuffleUnit
from search_spaces.vit_blocks import PatchEmbedding, TokenClassifier, Transformer
from tests.latency_models.graph.running import (
    NORMALIZED,
    assert_equal,
    cosine,
    measured_ranges,
    outputs,
    session,
    settled,
    state,
)

SIDE = 16
NORMALIZATIONS = {
    "exact": ((128.0,), (64.0,)),
    "fraction": ((127.5,), (127.5,)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "zero-to-one": ((0.0,), (255.0,)),
}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def architecture():
    blocks = (
        Conv(width=12, stride=2, activation="hard_swish"),
        ShuffleUnit(width=24, hidden=12, stride=2, se=4),
        ShuffleUnit(width=24, hidden=12),
        InvertedResidual(width=24, hidden=40, se=8, activation="hard_swish"),
        MobileViT(width=16, depth=1, hidden=16, heads=2),
        Classifier(classes=5),
    )
    return Architecture(input_shape=(3, SIDE, SIDE), stages=(blocks,))


@pytest.fixture(scope="module")
def network(architecture):
    return settled(build(architecture), architecture.input_shape)


def in_file(pixels, preprocessing, graph_input):
    """Return images as the file takes them."""
    x_NCHW = preprocessing.normalize(pixels) if graph_input.dtype == "float32" else pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x_NCHW.transpose(0, 2, 3, 1) if graph_input.layout == "nhwc" else x_NCHW)


def normalization(name):
    mean, std = NORMALIZATIONS[name]
    spread = {"mean": mean * (3 // len(mean)), "std": std * (3 // len(std))}
    return Preprocessing(height=SIDE, width=SIDE, **spread), {"mean": mean, "std": std}


def run_in_batches(model, x, size):
    opened = session(model)
    return np.concatenate([opened.run(None, {"image": x[i : i + size]})[0] for i in range(0, len(x), size)])


INPUTS = [
    pytest.param(dtype, layout, batch, size, id=f"{dtype}-{layout}-{batch}")
    for dtype, layout, (batch, size) in itertools.product(
        ("uint8", "float32"), ("nhwc", "nchw"), ((1, 1), (3, 3), (None, 2))
    )
]


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize(("dtype", "layout", "batch", "size"), INPUTS)
def test_float_file_normalizes_as_training_does(dtype, layout, batch, size, name, pixels, architecture, network):
    preprocessing, options = normalization(name)
    graph_input = GraphInput(dtype=dtype, layout=layout, batch=batch, **options)
    model = float_model(lower(architecture), weights=state(network), graph_input=graph_input)
    found = run_in_batches(model, in_file(pixels, preprocessing, graph_input), size)
    assert_equal(found, outputs(network, preprocessing.normalize(pixels)))


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize(("dtype", "layout", "batch", "size"), INPUTS)
@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_int8_file_normalizes_as_training_does(
    dtype, layout, batch, size, name, activation, pixels, architecture, network
):
    preprocessing, options = normalization(name)
    x = preprocessing.normalize(pixels)
    graph_input = GraphInput(dtype=dtype, layout=layout, batch=batch, **options)
    model = int8_model(
        lower(architecture),
        plan=QuantizationPlan(activation=activation),
        weights=state(network),
        ranges=measured_ranges(lower(architecture), state(network), x),
        graph_input=graph_input,
    )
    found = run_in_batches(model, in_file(pixels, preprocessing, graph_input), size)
    assert cosine(found, outputs(network, x)) >= 0.99


def first_convolution(kernel, stride, channels=3, width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(channels, width, kernel, stride, kernel // 2)).eval()


@pytest.mark.parametrize("side", [16, 15], ids=["grouped", "plain"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (5, 2), (7, 4)])
def test_int8_border_is_as_exact_as_the_middle_with_a_mean_per_channel(kernel, stride, side):
    module = first_convolution(kernel, stride)
    pixels = np.random.default_rng(1).integers(0, 256, (8, side, side, 3)).astype(np.uint8)
    mean, std = (20.0, 128.0, 240.0), (50.0, 60.0, 70.0)
    x = Preprocessing(height=side, width=side, mean=mean, std=std).normalize(pixels)
    workload, expected = record(module, (3, side, side)), outputs(module, x)
    ranges = {"image": (-4.0, 5.0), "logits": (float(expected.min()), float(expected.max()))}
    model = int8_model(
        workload,
        plan=QuantizationPlan(),
        weights=state(module),
        ranges=ranges,
        graph_input=GraphInput(mean=mean, std=std),
    )
    error = np.abs(run_in_batches(model, pixels, 1) - expected)
    step = (ranges["logits"][1] - ranges["logits"][0]) / 255
    # A rounded weight is off by half a step of 1/127 of the greatest of its filter, seldom all in one direction.
    border = max(error[:, :, 0].max(), error[:, :, :, 0].max(), error[:, :, -1].max(), error[:, :, :, -1].max())
    assert border <= 1.25 * error.max()
    assert error.max() <= 3 * step


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 1), (3, 4), (1, 2)])
def test_grouping_columns_changes_no_bit(channels, kernel, stride, monkeypatch):
    module = first_convolution(kernel, stride, channels)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, channels)).astype(np.uint8)
    options = {
        "plan": QuantizationPlan(),
        "weights": state(module),
        "graph_input": GraphInput(mean=(120.0, 90.0, 30.0)[:channels], std=(60.0,)),
    }
    workload = record(module, (channels, 16, 16))
    grouped = run_in_batches(int8_model(workload, **options), pixels, 1)
    monkeypatch.setattr("latency_models.graph.stem.COLUMNS", 1)
    plain = int8_model(workload, **options)
    assert not any(node.op_type == "Reshape" for node in plain.graph.node)
    np.testing.assert_array_equal(grouped, run_in_batches(plain, pixels, 1))


def test_image_read_by_other_layers_than_a_first_convolution():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, 2, 1)
            self.depthwise = nn.Conv2d(3, 3, 3, 2, 1, groups=3)

        def forward(self, x):
            return torch.cat((nn.functional.max_pool2d(x, 2), self.conv(x), self.depthwise(x)), dim=1)

    module = settled(Pooled(), (3, SIDE, SIDE))
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)
    workload = record(module, (3, SIDE, SIDE))
    for name in ("exact", "imagenet"):
        preprocessing, options = normalization(name)
        x = preprocessing.normalize(pixels)
        ranges = measured_ranges(workload, state(module), x)
        ranges["logits"] = (float(outputs(module, x).min()), float(outputs(module, x).max()))
        model = int8_model(
            workload, plan=QuantizationPlan(), weights=state(module), ranges=ranges, graph_input=GraphInput(**options)
        )
        assert cosine(run_in_batches(model, pixels, 1), outputs(module, x)) >= 0.999


def test_tokens_with_parameters_beside_them_take_any_batch():
    blocks = (PatchEmbedding(width=12, patch=4), Transformer(hidden=16, heads=2), TokenClassifier(classes=3))
    architecture = Architecture(input_shape=(3, SIDE, SIDE), stages=(blocks,))
    network = build(architecture).eval()
    x = np.random.default_rng(0).standard_normal((4, 3, SIDE, SIDE)).astype(np.float32)
    ranges = measured_ranges(lower(architecture), state(network), x) | {"image": (-4.0, 4.0)}
    for batch, size in ((None, 4), (2, 2)):
        graph_input = GraphInput(dtype="float32", layout="nchw", batch=batch)
        options = {"weights": state(network), "graph_input": graph_input}
        found = run_in_batches(float_model(lower(architecture), **options), x, size)
        assert_equal(found, outputs(network, x))
        model = int8_model(lower(architecture), plan=QuantizationPlan(), ranges=ranges, **options)
        assert cosine(run_in_batches(model, x, size), outputs(network, x)) >= 0.99


def test_declared_shapes():
    workload = lower(Architecture(input_shape=(3, 8, 12), stages=((Conv(width=4), Classifier(classes=2)),)))

    def shapes(**options):
        model = float_model(workload, graph_input=GraphInput(**options))
        (image,), (logits,) = model.graph.input, model.graph.output
        assert (image.name, logits.name) == ("image", "logits")
        return [
            tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in (image, logits)
        ]

    assert shapes() == [(1, 8, 12, 3), (1, 2)]
    assert shapes(layout="nchw", batch=None) == [("batch", 3, 8, 12), ("batch", 2)]
    assert shapes(dtype="float32", batch=5) == [(5, 8, 12, 3), (5, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int16"}, "dtype must be uint8 or float32"),
        ({"layout": "hwc"}, "layout nhwc or nchw"),
        ({"std": (0.0,)}, r"std is positive, got .*std=\(0.0,\)"),
        ({"batch": 0}, "batch must be at least 1, or None for any, got 0"),
    ],
    ids=["dtype", "layout", "std", "batch"],
)
def test_inputs_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GraphInput(**options)


def test_input_the_network_does_not_take_is_refused():
    workload = lower(Architecture(input_shape=(3, 8, 8), stages=((Conv(width=4), Classifier(classes=2)),)))
    with pytest.raises(ValueError, match=r"mean needs 1 or 3 values for 3 channels, got \(1.0, 2.0\)"):
        float_model(workload, graph_input=GraphInput(mean=(1.0, 2.0)))
    tokens = record(TokenClassifier(classes=2).build((5, 8)), (5, 8))
    with pytest.raises(ValueError, match=r"input of \(5, 8\) takes no image: pass GraphInput\(dtype='float32'\)"):
        float_model(tokens)
    assert float_model(tokens, graph_input=NORMALIZED)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_file_has_no_scale_for_a_whole_tensor(channels):
    """Behind such a scale onnxruntime would quantize the weights of the first convolution by itself."""
    workload = lower(Architecture(input_shape=(channels, 8, 8), stages=((Conv(width=4), Classifier(classes=2)),)))
    for layout, axis in (("nhwc", 3), ("nchw", 1)):
        model = float_model(workload, graph_input=GraphInput(layout=layout))
        found = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
        assert [node.attribute[0].i for node in found] == ([axis] if channels > 1 else [])


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_grey_images_are_normalized_as_in_training(layout):
    architecture = Architecture(input_shape=(1, SIDE, SIDE), stages=((Conv(width=8, stride=2), Classifier(classes=3)),))
    network = settled(build(architecture), architecture.input_shape)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 1)).astype(np.uint8)
    preprocessing = Preprocessing(height=SIDE, width=SIDE, color="grey", mean=(77.3,), std=(50.0,))
    graph_input = GraphInput(layout=layout, mean=(77.3,), std=(50.0,))
    model = float_model(lower(architecture), weights=state(network), graph_input=graph_input)
    found = run_in_batches(model, in_file(pixels, preprocessing, graph_input), 1)
    assert_equal(found, outputs(network, preprocessing.normalize(pixels)))
