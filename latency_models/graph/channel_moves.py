"""Channel moves: shuffles, splits, slices and gathers composed, folded into weights, and gathered once where left.

A shuffle written as reshape, transpose, reshape costs an 8-bit network of thin layers half of its time. Here every
move is an index map; maps compose; a map that keeps all channels disappears into the weights of the convolutions
that read it; what is left becomes one slice or gather for each reader's part. All of it is exact.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latency_models.graph.network import Layer, Network
from search_spaces.architecture import Shape

Index = npt.NDArray[np.int64]

_CHANNELWISE = frozenset({"max_pool", "avg_pool", "global_avg_pool", "batch_norm", "upsample"})
"""Kinds that treat every channel by itself, so a permutation may as well come after them."""

_WIDE, _LARGE = 32, 16
"""From how many channels on, or below which height of the map, a slice is as fast as a gather."""


def fold_channel_moves(network: Network) -> Network:
    """Return the network in which channels move as little as possible; tensors that stay keep their names.

    The channels of a tensor within may then lie in another order than in the module; its range does not change.
    """
    moves = _Moves(network)
    for layer in network.layers:
        moves.take(layer)
    output = moves.in_order(network.output)
    return replace(network, layers=tuple(moves.layers), shapes=moves.shapes, output=output)


class _Moves:
    """The layers so far, and for every tensor that was not written which channels of which tensor it is."""

    def __init__(self, network: Network) -> None:
        self.layers: list[Layer] = []
        self.shapes: dict[str, Shape] = dict(network.shapes)
        self._views: dict[str, tuple[str, Index]] = {}
        self._gathered: dict[tuple[str, bytes], str] = {}

    def take(self, layer: Layer) -> None:
        """Add one layer, in whatever form its inputs' views allow."""
        if self._is_move(layer):
            self._move(layer)
            return
        view = self._views.get(layer.inputs[0])
        if view is None or len(layer.inputs) > 1 or layer.constants or not self._keeps_all(*view):
            self.layers.append(layer.reading(map(self.in_order, layer.inputs)))
        elif layer.is_dense:
            source, index = view
            self.layers.append(replace(layer, inputs=(source,), weight=layer.filters[:, np.argsort(index)]))
        elif layer.is_depthwise or self._is_channelwise(layer):
            self._append_before_move(layer, *view)
        else:
            self.layers.append(layer.reading([self.in_order(layer.inputs[0])]))

    def in_order(self, name: str) -> str:
        """Return a tensor that holds the channels of `name` in order, gathered if there is none yet."""
        if name not in self._views:
            return name
        source, index = self._views[name]
        if np.array_equal(index, np.arange(self.shapes[source][1])):
            return source
        key = (source, index.tobytes())
        if key not in self._gathered:
            written = {output for layer in self.layers for output in layer.outputs}
            moved = f"{name}/moved" if name in written else name
            self._gathered[key] = moved
            self.shapes[moved] = (1, len(index), *self.shapes[source][2:])
            self.layers.append(self._gather(source, moved, index))
        return self._gathered[key]

    def _keeps_all(self, source: str, index: Index) -> bool:
        """Whether a view is a permutation of the channels of its source."""
        return np.array_equal(np.sort(index), np.arange(self.shapes[source][1]))

    def _is_move(self, layer: Layer) -> bool:
        if len(self.shapes[layer.inputs[0]]) != 4:
            return False
        if layer.kind == "gather":
            return layer.integer("axis") == 1 and layer.index.ndim == 1
        if layer.kind == "slice":
            return layer.integer("axis") == 1 and not layer.attributes["drop"]
        return layer.kind == "channel_shuffle" or (layer.kind == "split" and layer.integer("axis") == 1)

    def _move(self, layer: Layer) -> None:
        name = layer.inputs[0]
        source, index = self._views.get(name) or (name, np.arange(self.shapes[name][1]))
        if layer.kind == "channel_shuffle":
            parts = [index.reshape(layer.integer("groups"), -1).T.reshape(-1)]
        elif layer.kind == "gather":
            parts = [index[layer.index]]
        elif layer.kind == "slice":
            parts = [index[layer.integer("start") : layer.integer("stop") : layer.integer("step")]]
        else:
            parts = np.split(index, np.cumsum(layer.integers("sizes"))[:-1])
        self._views.update((name, (source, part)) for name, part in zip(layer.outputs, parts, strict=True))

    def _is_channelwise(self, layer: Layer) -> bool:
        if layer.kind == "reshape":  # of one pixel to a vector
            shape = self.shapes[layer.inputs[0]]
            return shape[2:] == (1, 1) and self.shapes[layer.output] == shape[:2]
        return layer.kind in _CHANNELWISE

    def _append_before_move(self, layer: Layer, source: str, index: Index) -> None:
        """Add a layer that reads the channels as they lie; its output is then permuted as its input was."""
        inverse = np.argsort(index)
        weight = None if layer.weight is None else layer.weight[inverse]
        bias = None if layer.bias is None else layer.bias[inverse]
        self.layers.append(replace(layer, inputs=(source,), weight=weight, bias=bias))
        self._views[layer.output] = (layer.output, index)

    def _gather(self, source: str, target: str, index: Index) -> Layer:
        """Return the layer that picks channels: a slice, or a gather where they do not lie together.

        Thin parts of large maps are gathered too: a slice copies a few bytes a pixel there, a gather whole planes.
        """
        like = next((layer for layer in self.layers if source in layer.outputs), None)
        scope, quantized = ("", True) if like is None else (like.scope, like.quantized)
        wide = len(index) >= _WIDE or self.shapes[source][2] < _LARGE
        if wide and np.all(np.diff(index) == 1):
            bounds = {"start": int(index[0]), "stop": int(index[-1]) + 1, "step": 1}
            kind, attributes, constants = "slice", {"axis": 1, **bounds, "drop": False}, {}
        else:
            kind, attributes, constants = "gather", {"axis": 1}, {1: index}
        return Layer(
            kind=kind,
            inputs=(source,),
            outputs=(target,),
            attributes=attributes,
            constants=constants,
            scope=scope,
            quantized=quantized,
        )
