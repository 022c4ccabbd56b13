"""Each rewrite on a graph of its own: it fires where its pattern stands, changes no result, and leaves others alone."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser, shape_inference

from nas.export import rewrites

HEADER = '<ir_version: 8, opset_import: ["": 18]>\n'


def model(text, **stored):
    """Return a graph in ONNX's text form with arrays stored under their names."""
    parsed = parser.parse_model(HEADER + text)
    parsed.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    return shape_inference.infer_shapes(parsed, strict_mode=True)


def run(proto, image):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})


def rewritten(proto, rewrite):
    """Return the graph after one rewrite, its operators, and in how many places it fired."""
    edited = ir.from_proto(proto)
    count = rewrite(edited)
    after = ir.to_proto(edited)
    onnx.checker.check_model(after, full_check=True)
    return after, Counter(node.op_type for node in after.graph.node), count


def assert_same(before, after, image, tolerance=0.0):
    for expected, found in zip(run(before, image), run(after, image), strict=True):
        assert expected.shape == found.shape
        assert np.abs(expected - found).max() <= tolerance * np.abs(expected).max()


@pytest.fixture
def image(rng):
    return rng.standard_normal((1, 8, 4, 6)).astype(np.float32)


def stored(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("keep", [0, 1], ids=["axes dropped", "axes kept"])
def test_mean_over_the_map_becomes_pooling(image, keep):
    shape = "[1,8,1,1]" if keep else "[1,8]"
    before = model(
        f"main (float[1,8,4,6] image) => (float{shape} logits) {{ logits = ReduceMean<keepdims={keep}>(image, axes) }}",
        axes=np.array([-1, 2]),
    )
    after, operators, count = rewritten(before, rewrites.means_to_pooling)
    assert count == 1
    assert operators == ({"GlobalAveragePool": 1} if keep else {"GlobalAveragePool": 1, "Flatten": 1})
    assert_same(before, after, image, 1e-6)


def test_mean_over_other_axes_stays(image):
    before = model(
        "main (float[1,8,4,6] image) => (float[1,1,1,6] logits) { logits = ReduceMean(image, axes) }",
        axes=np.array([1, 2]),
    )
    assert rewritten(before, rewrites.means_to_pooling)[2] == 0


SHUFFLE = """main (float[1,8,4,6] image) => (float[1,8,4,6] logits) {
    inner = Reshape(image, split)
    turned = Transpose<perm=%s>(inner)
    logits = Reshape(turned, whole)
}"""


def test_shuffle_becomes_one_gather(image):
    before = model(SHUFFLE % "[0,2,1,3,4]", split=np.array([1, 2, 4, 4, 6]), whole=np.array([1, 8, 4, 6]))
    after, operators, count = rewritten(before, rewrites.shuffles_to_gathers)
    assert (count, operators) == (1, {"Gather": 1})
    assert_same(before, after, image)


def test_shuffle_of_an_open_batch_becomes_one_gather(image):
    text = (SHUFFLE % "[0,2,1,3,4]").replace("[1,8,4,6]", "[n,8,4,6]")
    before = model(text, split=np.array([-1, 2, 4, 4, 6]), whole=np.array([-1, 8, 4, 6]))
    after, operators, count = rewritten(before, rewrites.shuffles_to_gathers)
    assert (count, operators) == (1, {"Gather": 1})
    assert_same(before, after, np.concatenate([image, -image]))


@pytest.mark.parametrize(
    ("perm", "split", "whole"),
    [("[0,1,2,4,3]", [1, 2, 4, 4, 6], [1, 8, 4, 6]), ("[0,2,1,3,4]", [1, 4, 2, 2, 12], [1, 8, 4, 6])],
    ids=["other axes", "groups of rows too"],
)
def test_other_reshapes_stay(perm, split, whole):
    before = model(SHUFFLE % perm, split=np.array(split), whole=np.array(whole))
    assert rewritten(before, rewrites.shuffles_to_gathers)[2] == 0


ORDER = np.array([3, 0, 5, 1, 7, 2, 6, 4])


def test_split_of_a_gather_becomes_smaller_gathers(image):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,3,4,6] a, float[1,5,4,6] b) {
            moved = Gather<axis=1>(image, order)
            a, b = Split<axis=1>(moved, sizes)
        }""",
        order=ORDER,
        sizes=np.array([3, 5]),
    )
    after, operators, count = rewritten(before, rewrites.gathers_to_parts)
    assert (count, operators) == (1, {"Gather": 2})
    assert_same(before, after, image)


def test_uneven_split_by_number_keeps_onnx_s_rule(image):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,3,4,6] a, float[1,3,4,6] b, float[1,2,4,6] c) {
            moved = Gather<axis=1>(image, order)
            a, b, c = Split<axis=1, num_outputs=3>(moved)
        }""",
        order=ORDER,
    )
    after, operators, _ = rewritten(before, rewrites.gathers_to_parts)
    assert operators == {"Gather": 3}
    assert_same(before, after, image)


def test_slice_of_a_gather_becomes_a_smaller_gather(image):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,3,4,6] logits) {
            moved = Gather<axis=1>(image, order)
            logits = Slice(moved, start, stop, axis, step)
        }""",
        order=ORDER,
        start=np.array([1]),
        stop=np.array([7]),
        axis=np.array([1]),
        step=np.array([2]),
    )
    after, operators, count = rewritten(before, rewrites.gathers_to_parts)
    assert (count, operators) == (1, {"Gather": 1})
    assert_same(before, after, image)


def test_split_of_rows_stays():
    before = model(
        """main (float[1,8,4,6] image) => (float[1,8,2,6] a, float[1,8,2,6] b) {
            moved = Gather<axis=1>(image, order)
            a, b = Split<axis=2, num_outputs=2>(moved)
        }""",
        order=ORDER,
    )
    assert rewritten(before, rewrites.gathers_to_parts)[2] == 0


def test_permutation_read_by_dense_convolutions_disappears(image, rng):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,5,4,6] a, float[1,2,2,3] b) {
            moved = Gather<axis=1>(image, order)
            a = Conv(moved, w, bias)
            b = Conv<strides=[2,2], pads=[1,1,1,1]>(moved, v)
        }""",
        order=ORDER,
        w=stored(rng, 5, 8, 1, 1),
        bias=stored(rng, 5),
        v=stored(rng, 2, 8, 3, 3),
    )
    after, operators, count = rewritten(before, rewrites.permutations_to_weights)
    assert (count, operators) == (1, {"Conv": 2})
    assert_same(before, after, image, 1e-5)


def test_permutation_moves_through_depthwise_convolution_and_activation(image, rng):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,5,4,6] logits) {
            moved = Gather<axis=1>(image, order)
            deep = Conv<group=8, pads=[1,1,1,1]>(moved, w, bias)
            cut = Relu(deep)
            logits = Conv(cut, v)
        }""",
        order=ORDER,
        w=stored(rng, 8, 1, 3, 3),
        bias=stored(rng, 8),
        v=stored(rng, 5, 8, 1, 1),
    )
    after, operators, count = rewritten(before, rewrites.permutations_to_weights)
    assert (count, operators) == (3, {"Conv": 2, "Relu": 1})
    assert_same(before, after, image, 1e-5)


def test_weights_shared_with_another_convolution_are_not_permuted_there(image, rng):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,5,4,6] a, float[1,5,4,6] b) {
            moved = Gather<axis=1>(image, order)
            a = Conv(moved, w)
            b = Conv(image, w)
        }""",
        order=ORDER,
        w=stored(rng, 5, 8, 1, 1),
    )
    after, operators, _ = rewritten(before, rewrites.permutations_to_weights)
    assert operators == {"Conv": 2}
    assert_same(before, after, image, 1e-5)


@pytest.mark.parametrize(
    "reader",
    ["logits = Add(moved, image)", "logits = Conv<group=2, pads=[0,0,0,0]>(moved, w)"],
    ids=["addition", "grouped convolution"],
)
def test_permutation_that_others_read_stays(image, rng, reader):
    before = model(
        "main (float[1,8,4,6] image) => (float[1,8,4,6] logits) { moved = Gather<axis=1>(image, order) " + reader + "}",
        order=ORDER,
        w=stored(rng, 8, 4, 1, 1),
    )
    after, operators, count = rewritten(before, rewrites.permutations_to_weights)
    assert (count, operators["Gather"]) == (0, 1)
    assert_same(before, after, image)


def test_gather_that_repeats_a_channel_stays(rng):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,5,4,6] logits) {
            moved = Gather<axis=1>(image, order)
            logits = Conv(moved, w)
        }""",
        order=np.array([0, 1, 2, 3, 4, 5, 6, 6]),
        w=stored(rng, 5, 8, 1, 1),
    )
    assert rewritten(before, rewrites.permutations_to_weights)[2] == 0


HARD_SWISH = """main (float[1,8,4,6] image) => (float[1,8,4,6] logits) {
    shifted = Add(%s)
    cut = Clip(shifted, low, high)
    scaled = Mul(%s)
    logits = %s
}"""
SCALARS = {
    "three": np.float32(3),
    "low": np.float32(0),
    "high": np.float32(6),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
}


@pytest.mark.parametrize(
    ("sum_", "product", "last"),
    [
        ("image, three", "image, cut", "Div(scaled, six)"),
        ("three, image", "cut, image", "Mul(scaled, sixth)"),
        ("image, three", "cut, image", "Mul(sixth, scaled)"),
    ],
    ids=["divided", "multiplied", "multiplied from the left"],
)
def test_hard_swish_written_out_is_found(image, sum_, product, last):
    before = model(HARD_SWISH % (sum_, product, last), **SCALARS)
    after, operators, count = rewritten(before, rewrites.written_out_hard_swish)
    assert (count, operators) == (1, {"HardSwish": 1})
    assert_same(before, after, 4 * image, 1e-6)


@pytest.mark.parametrize(
    ("last", "changed"),
    [("Div(six, scaled)", {}), ("Div(scaled, six)", {"high": np.float32(5)}), ("Mul(scaled, six)", {})],
    ids=["divided the other way", "cut elsewhere", "other factor"],
)
def test_what_only_looks_like_hard_swish_stays(last, changed):
    before = model(HARD_SWISH % ("image, three", "image, cut", last), **(SCALARS | changed))
    assert rewritten(before, rewrites.written_out_hard_swish)[2] == 0


NORMALIZATION = """main (uint8[1,3,4,6] image) => (float[1,3,4,6] logits) {
    floats = Cast<to=1>(image)
    centered = Sub(floats, mean)
    logits = Div(centered, std)
}"""


@pytest.mark.parametrize(
    ("mean", "std", "operators"),
    [
        ([128.0] * 3, [128.0] * 3, {"DequantizeLinear": 1}),
        ([120.0, 110.0, 100.0], [60.0, 64.0, 70.0], {"DequantizeLinear": 1}),
        ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4], {"DequantizeLinear": 1, "Sub": 1}),
        ([-3.0, 300.0, 0.0], [1.0, 2.0, 3.0], {"DequantizeLinear": 1, "Sub": 1}),
    ],
    ids=["one level", "levels by channel", "between levels", "beyond levels"],
)
def test_normalization_becomes_one_pass(rng, mean, std, operators):
    constants = {name: np.float32(values).reshape(3, 1, 1) for name, values in (("mean", mean), ("std", std))}
    before = model(NORMALIZATION, **constants)
    after, found, count = rewritten(before, rewrites.normalization_to_dequantize)
    assert (count, found) == (1, operators)
    assert_same(before, after, rng.integers(0, 256, (1, 3, 4, 6), dtype=np.uint8), 0.0 if mean[0] == 128 else 1e-6)


def test_normalization_pixel_by_pixel_stays(rng):
    constants = {"mean": stored(rng, 3, 4, 6), "std": np.float32([1.0]).reshape(1, 1, 1)}
    assert rewritten(model(NORMALIZATION, **constants), rewrites.normalization_to_dequantize)[2] == 0


def test_all_rewrites_together_count_what_they_did(image, rng):
    before = model(
        """main (float[1,8,4,6] image) => (float[1,5] logits) {
            inner = Reshape(image, split)
            turned = Transpose<perm=[0,2,1,3,4]>(inner)
            moved = Reshape(turned, whole)
            left, right = Split<axis=1, num_outputs=2>(moved)
            joined = Concat<axis=1>(right, left)
            again = Gather<axis=1>(joined, order)
            y = Conv(again, w)
            axes = Constant<value_ints=[2,3]>()
            logits = ReduceMean<keepdims=0>(y, axes)
        }""",
        split=np.array([1, 2, 4, 4, 6]),
        whole=np.array([1, 8, 4, 6]),
        order=ORDER,
        w=stored(rng, 5, 8, 1, 1),
    )
    edited = ir.from_proto(before)
    counts = rewrites.simplify(edited)
    assert counts == {
        "means_to_pooling": 1,
        "shuffles_to_gathers": 1,
        "gathers_to_parts": 1,
        "permutations_to_weights": 1,
    }
    after = ir.to_proto(edited)
    kinds = Counter(node.op_type for node in after.graph.node)
    assert kinds == {"Gather": 2, "Concat": 1, "Conv": 1, "GlobalAveragePool": 1, "Flatten": 1}
    assert_same(before, after, image, 1e-5)
