"""Exact rewrites that give a graph of torch's exporter the form onnxruntime runs fastest.

Each function takes a model as `onnx_ir` holds it, rewrites every place where its pattern stands, in place, and
returns how many there were. Outputs stay the same in exact arithmetic; in float32 they differ by what another order
of the same products gives, at most. A pattern that is not there, or not quite, is left alone.

The measured reasons (onnxruntime 1.31, x86-64): a reduction is slower than a pooling; a channel shuffle as reshape,
transpose, reshape copies every tensor twice, and one half of it as a `Gather` once; a permutation that only
convolutions read is free when it is done to their weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

Array = npt.NDArray[Any]  # Any: weights are float32, indices int64

ELEMENTWISE = frozenset({"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu", "Tanh", "Gelu"})
"""Operators of one tensor (their other inputs are scalars) that do not care in which order channels stand."""


def simplify(model: ir.Model) -> dict[str, int]:
    """Apply every rewrite in order; return the number of places by name, without those that found none."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    counts = {rewrite.__name__: rewrite(model) for rewrite in REWRITES}
    common.DeduplicateInitializersPass()(model)
    return {name: count for name, count in counts.items() if count}


def means_to_pooling(model: ir.Model) -> int:
    """Make the mean over height and width a `GlobalAveragePool`, with a `Flatten` where the axes are dropped."""
    found = 0
    for node in _nodes(model, "ReduceMean"):
        source, output = _input(node, 0), node.outputs[0]
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else _ints(node, "axes")
        if axes is None or len(_shape(source)) != 4 or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
            continue
        pool = ir.node("GlobalAveragePool", [source])
        if _int(node, "keepdims", 1):
            _replace(output, pool)
        else:
            node.prepend(pool)
            _replace(output, ir.node("Flatten", [pool.outputs[0]], {"axis": 1}))
        found += 1
    return _finish(model, found)


def shuffles_to_gathers(model: ir.Model) -> int:
    """Make reshape (n, g, c/g, h, w), transpose of axes 1 and 2, reshape (n, c, h, w) one `Gather` of channels."""
    found = 0
    for last in _nodes(model, "Reshape"):
        middle = _producer(last, "Transpose")
        first = _producer(middle, "Reshape") if middle is not None else None
        if middle is None or first is None or _ints(middle, "perm") != [0, 2, 1, 3, 4]:
            continue
        source = _input(first, 0)
        whole, parts, back = (_sides(value) for value in (source, first.outputs[0], last.outputs[0]))
        if len(whole) != 3 or len(parts) != 4 or [parts[0] * parts[1], *parts[2:]] != whole or back != whole:
            continue
        order = np.arange(_channels(source)).reshape(_channels(first.outputs[0]), -1).T.ravel()
        _replace(last.outputs[0], _gather(model, source, order))
        found += 1
    return _finish(model, found)


def gathers_to_parts(model: ir.Model) -> int:
    """Make a `Gather` of channels that is then split, or sliced, one smaller `Gather` for each part."""
    found = 0
    for node in (*_nodes(model, "Split"), *_nodes(model, "Slice")):
        gather = _producer(node, "Gather")
        order = _channel_order(gather)
        if gather is None or order is None:
            continue
        parts = _split_order(node, order) if node.op_type == "Split" else _slice_order(node, order)
        for output, part in zip(node.outputs, parts, strict=False):
            _replace(output, _gather(model, _input(gather, 0), part))
        found += bool(parts)
    return _finish(model, found)


def permutations_to_weights(model: ir.Model) -> int:
    """Do a permutation of channels that only convolutions read to their weights instead.

    The columns of a dense convolution are permuted; of a depthwise one the filters, and the permutation moves on
    behind it, as it does behind activations, until nothing is left of it or somebody else reads it.
    """
    found = 0
    waiting = _nodes(model, "Gather")
    while waiting:
        gather = waiting.pop()
        order, source = _channel_order(gather), _input(gather, 0)
        if order is None or not np.array_equal(np.sort(order), np.arange(_channels(source))):
            continue
        readers = [use.node for use in gather.outputs[0].uses()]
        if gather.outputs[0].is_graph_output() or not all(_takes_order(node, len(order)) for node in readers):
            continue
        for node in readers:
            waiting += _reorder(model, node, source, order)
        found += 1
    return _finish(model, found)


def written_out_hard_swish(model: ir.Model) -> int:
    """Make x * clip(x + 3, 0, 6) / 6, written out by hand, a `HardSwish`."""
    found = 0
    for clip in _nodes(model, "Clip"):
        add = _producer(clip, "Add")
        product = _sole_reader(clip, "Mul")
        if add is None or product is None or _scalars(clip, 1) != [0.0, 6.0]:
            continue
        source = next((value for value in add.inputs if constant(value) is None), None)
        if source is None or _scalars(add, 0) != [3.0] or source not in product.inputs:
            continue
        division, factor = _sole_reader(product, "Div"), _sole_reader(product, "Mul")
        if division is not None and _scalars(division, 1) == [6.0]:
            _replace(division.outputs[0], ir.node("HardSwish", [source]))
        elif factor is not None and np.allclose(_scalars(factor, 0) or [0.0], 1 / 6, rtol=1e-6, atol=0.0):
            _replace(factor.outputs[0], ir.node("HardSwish", [source]))
        else:
            continue
        found += 1
    return _finish(model, found)


def normalization_to_dequantize(model: ir.Model) -> int:
    """Make (float(pixel) - mean) / std one `DequantizeLinear` with the mean as zero point and 1 / std as scale.

    One pass over the image instead of three. What rounding leaves of a mean that is no level is subtracted after it.
    """
    found = 0
    for cast in _nodes(model, "Cast"):
        sub = _sole_reader(cast, "Sub") if _input(cast, 0).dtype == ir.DataType.UINT8 else None
        div = _sole_reader(sub, "Div") if sub is not None else None
        if sub is None or div is None:
            continue
        mean, std = _by_channel(sub), _by_channel(div)
        if mean is None or std is None:
            continue
        zero = np.clip(np.rint(mean), 0, 255)
        stored = [np.float32(1.0) / std.astype(np.float32), zero.astype(np.uint8)]
        # Not one scale where all are equal: onnxruntime may take what follows that for part of an 8-bit network.
        shape = (channels,) if (channels := _channels(_input(cast, 0))) > 1 else ()
        stored = [np.broadcast_to(array, shape or (1,)).reshape(shape) for array in stored]
        parameters = [_initializer(model, array, name) for array, name in zip(stored, ("scale", "mean"), strict=True)]
        node = ir.node("DequantizeLinear", [_input(cast, 0), *parameters], {"axis": 1} if stored[0].ndim else {})
        rest = ((mean - zero) / std).astype(np.float32)
        if np.any(rest):
            cast.prepend(node)
            node = ir.node("Sub", [node.outputs[0], _initializer(model, rest.reshape(-1, 1, 1), "mean")])
        _replace(div.outputs[0], node)
        found += 1
    return _finish(model, found)


REWRITES: tuple[Callable[[ir.Model], int], ...] = (
    means_to_pooling,
    written_out_hard_swish,
    shuffles_to_gathers,
    gathers_to_parts,
    permutations_to_weights,
    normalization_to_dequantize,
)
"""All rewrites in the order in which one prepares the next."""


def constant(value: ir.Value | None) -> Array | None:
    """Return what is stored under an initializer; None for a tensor that is computed or fed."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def _nodes(model: ir.Model, kind: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == kind and node.domain in ("", "ai.onnx")]


def _input(node: ir.Node, number: int) -> ir.Value:
    value = node.inputs[number]
    assert value is not None, node
    return value


def _name(node: ir.Node, number: int) -> str:
    return _input(node, number).name or "constant"


def _shape(value: ir.Value) -> list[int | ir.SymbolicDim]:
    return [] if value.shape is None else list(value.shape)


def _sides(value: ir.Value) -> list[int]:
    """Return the shape without the batch axis; empty where it is not known."""
    sides = [side for side in _shape(value)[1:] if isinstance(side, int)]
    return sides if len(sides) == len(_shape(value)) - 1 else []


def _channels(value: ir.Value) -> int:
    shape = _shape(value)
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else -1


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _ints(node: ir.Node, name: str) -> list[int] | None:
    return list(node.attributes[name].as_ints()) if name in node.attributes else None


def _scalars(node: ir.Node, first: int) -> list[float]:
    """Return the one-element constants among the inputs from number `first` on."""
    arrays = [constant(value) for value in node.inputs[first:]]
    return [float(array.ravel()[0]) for array in arrays if array is not None and array.size == 1]


def _by_channel(node: ir.Node) -> Array | None:
    """Return the second operand, in double, as one value or one for each channel of the first; else None."""
    array = constant(node.inputs[1])
    if array is None or len(_shape(_input(node, 0))) != 4:
        return None
    channels = _channels(_input(node, 0))
    if array.size == 1 or (array.size == channels and array.shape[-3:] == (channels, 1, 1)):
        values: Array = array.astype(np.float64).reshape(-1)
        return values[:1] if np.ptp(values) == 0.0 else values
    return None


def _producer(node: ir.Node, kind: str) -> ir.Node | None:
    """Return the node of that kind which makes the first input of `node`."""
    value = _input(node, 0)
    producer = value.producer()
    return producer if producer is not None and producer.op_type == kind else None


def _sole_reader(node: ir.Node, kind: str) -> ir.Node | None:
    """Return the node of that kind which alone reads the output of `node`."""
    readers = {use.node for use in node.outputs[0].uses()}
    if len(readers) != 1 or node.outputs[0].is_graph_output():
        return None
    (reader,) = readers
    return reader if reader.op_type == kind else None


def _replace(old: ir.Value, node: ir.Node) -> None:
    """Let `node` stand for what made `old`: its one output takes the name, the type and the readers."""
    producer, new = old.producer(), node.outputs[0]
    assert producer is not None, old
    producer.prepend(node)
    new.name, new.type, new.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _initializer(model: ir.Model, array: Array, stem: str) -> ir.Value:
    """Return a new initializer whose name says where it comes from."""
    known = model.graph.initializers
    names = (f"{stem}.{number}" for number in range(1, len(known) + 2))
    name = next(name for name in names if name not in known)
    value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
    model.graph.register_initializer(value)
    return value


def _finish(model: ir.Model, found: int) -> int:
    """Remove what nobody reads any more; return `found`."""
    if found:
        common.RemoveUnusedNodesPass()(model)
        model.graph.sort()
    return found


def _gather(model: ir.Model, source: ir.Value, order: Array) -> ir.Node:
    return ir.node("Gather", [source, _initializer(model, order.astype(np.int64), "channels")], {"axis": 1})


def _channel_order(gather: ir.Node | None) -> Array | None:
    """Return the channels a `Gather` takes, in order; None if it is about another axis."""
    if gather is None or gather.op_type != "Gather" or _int(gather, "axis", 0) != 1:
        return None
    order = constant(gather.inputs[1])
    return order if order is not None and order.ndim == 1 and len(_shape(_input(gather, 0))) == 4 else None


def _split_order(split: ir.Node, order: Array) -> list[Array]:
    if _int(split, "axis", 0) != 1:
        return []
    sizes = constant(split.inputs[1]) if len(split.inputs) > 1 else None
    if sizes is None:
        each = -(-len(order) // len(split.outputs))  # the last part takes what is left
        return [order[start : start + each] for start in range(0, len(order), each)]
    return np.split(order, np.cumsum(sizes)[:-1])


def _slice_order(node: ir.Node, order: Array) -> list[Array]:
    bounds = [constant(value) for value in node.inputs[1:]]
    if len(bounds) < 3 or any(bound is None or bound.size != 1 for bound in bounds):
        return []
    start, stop, axis, *step = (int(bound.ravel()[0]) for bound in bounds if bound is not None)
    return [order[slice(start, stop, *step)]] if axis % 4 == 1 else []


def _takes_order(node: ir.Node, channels: int) -> bool:
    """Tell whether a reader can take its channels in another order: a convolution or an activation."""
    if node.op_type in ELEMENTWISE:
        return True
    if node.op_type != "Conv" or constant(node.inputs[1]) is None:
        return False
    groups = _int(node, "group", 1)
    return groups == 1 or (groups == channels and _channels_made(node) == channels)


def _channels_made(conv: ir.Node) -> int:
    weight = constant(conv.inputs[1])
    assert weight is not None, conv
    return int(weight.shape[0])


def _reorder(model: ir.Model, node: ir.Node, source: ir.Value, order: Array) -> list[ir.Node]:
    """Have `node` read `source`, whose channels stand as they did before `Gather`; return the moved `Gather`."""
    node.replace_input_with(0, source)
    back = np.argsort(order)
    if node.op_type == "Conv":
        weight, bias = constant(node.inputs[1]), constant(node.inputs[2] if len(node.inputs) > 2 else None)
        assert weight is not None, node
        if _int(node, "group", 1) == 1:
            node.replace_input_with(1, _initializer(model, weight[:, back], _name(node, 1)))
            return []
        node.replace_input_with(1, _initializer(model, weight[back], _name(node, 1)))
        if bias is not None:
            node.replace_input_with(2, _initializer(model, bias[back], _name(node, 2)))
    return [_moved_behind(model, node, order)]


def _moved_behind(model: ir.Model, node: ir.Node, order: Array) -> ir.Node:
    output = node.outputs[0]
    readers = list(output.uses())
    moved = _gather(model, output, order)
    node.append(moved)
    moved.outputs[0].type, moved.outputs[0].shape = output.type, output.shape
    for use in readers:
        use.node.replace_input_with(use.idx, moved.outputs[0])
    return moved
