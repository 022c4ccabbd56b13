"""A workload with its weights folded in: what the rewrites change and the writers write.

Tensors have names. A value keeps its name through all rewrites, so the ranges measured on the float file fit the
int8 file: `SCOPE/N`, where N numbers the values of the fused workload; the input is "image", the output "logits",
and the value before an activation that no range expresses is `SCOPE/N/pre`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from latency_models.graph.weights import Array, Stored, Weights, draw, fold
from search_spaces.architecture import Shape
from search_spaces.fusion import activation_of
from search_spaces.workload import ACTIVATIONS, Attribute, Op, Workload

INPUT, OUTPUT = "image", "logits"
_NO_ATTRIBUTES: Mapping[str, Attribute] = {}
_NO_CONSTANTS: Mapping[int, Array] = {}


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation behind a layer.

    Attributes:
        kind: A word of `search_spaces.workload.ACTIVATIONS`.
        low: Least output of relu and clip.
        high: Greatest output of relu and clip.
        slope: Of leaky_relu, left of zero.
        approximate: "tanh" or "none" for gelu.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    slope: float = 0.0
    approximate: str = "none"

    @property
    def is_range(self) -> bool:
        """Whether it only cuts its input to a range that holds zero, as the range of an 8-bit tensor does by itself."""
        return self.kind in ("relu", "clip") and self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operator with its weights.

    Attributes:
        kind: A word of the operator vocabulary.
        inputs: Names of the tensors it reads; stored operands are in `constants`.
        outputs: Names of the tensors it writes.
        attributes: As the workload has them; besides, `pads` as ONNX has them: of convolutions and pools top, left,
            bottom, right, of a padding the begins of all axes and then the ends.
        weight: Of a convolution `out x in/groups x height x width`, of a transposed one `in x out/groups x height x
            width`, of a linear layer `out x in`, of a normalization `channels`; batch normalization is folded in.
        bias: One for each output channel.
        constants: Stored operands by their position among all operands.
        activation: What follows in the same layer.
        scope: Path of the module it came from.
        quantized: Whether it computes in 8 bits in the int8 file.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: _NO_ATTRIBUTES)
    weight: Array | None = None
    bias: Array | None = None
    constants: Mapping[int, Array] = field(default_factory=lambda: _NO_CONSTANTS)
    activation: Activation | None = None
    scope: str = ""
    quantized: bool = False

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution of every channel by itself, with one filter a channel."""
        return self.kind == "conv" and self.filters.shape[1] == 1 and self.groups == len(self.filters) > 1

    @property
    def is_dense(self) -> bool:
        """Whether every output channel reads every input channel."""
        return self.kind == "linear" or (self.kind == "conv" and self.groups == 1)

    @property
    def groups(self) -> int:
        """Groups of a convolution."""
        return self.integer("groups")

    @property
    def filters(self) -> Array:
        """The weight of a layer that has one."""
        assert self.weight is not None, self.kind
        return self.weight

    @property
    def index(self) -> npt.NDArray[np.int64]:
        """Places a gather picks."""
        return self.constants[1].astype(np.int64)

    def integer(self, name: str) -> int:
        """Return an attribute that is an integer."""
        value = self.attributes[name]
        assert isinstance(value, int), (self.kind, name, value)
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """Return an attribute that is a tuple of integers."""
        value = self.attributes[name]
        assert isinstance(value, tuple), (self.kind, name, value)
        return tuple(int(item) for item in value)

    def number(self, name: str) -> float:
        """Return an attribute that is a number."""
        value = self.attributes[name]
        assert isinstance(value, int | float), (self.kind, name, value)
        return float(value)

    def reading(self, names: Iterable[str]) -> "Layer":
        """Return the layer with other inputs."""
        inputs = tuple(names)
        return self if inputs == self.inputs else replace(self, inputs=inputs)

    def with_attributes(self, **changes: Attribute) -> Mapping[str, Attribute]:
        """Return the attributes with changes."""
        return {**self.attributes, **changes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Layers in order, from the tensor `INPUT` to the tensor `output`.

    Attributes:
        layers: In an order in which every tensor is written before it is read.
        shapes: Shape of every tensor, with the batch axis of 1.
        output: Name of the tensor that is the network's result.
    """

    layers: tuple[Layer, ...]
    shapes: Mapping[str, Shape]
    output: str = OUTPUT

    def readers(self) -> Counter[str]:
        """Count the layers that read each tensor; the output has one reader outside."""
        return Counter([name for layer in self.layers for name in layer.inputs] + [self.output])

    def replace(self, layers: Iterable[Layer], shapes: Mapping[str, Shape] | None = None) -> "Network":
        """Return the network with other layers and, where tensors were added or changed, their shapes too."""
        return replace(self, layers=tuple(layers), shapes={**self.shapes, **(shapes or {})})


def read_network(workload: Workload, weights: Weights | None, *, seed: int) -> Network:
    """Return the layers of a fused workload with real weights, or with random ones where there are none.

    Raises:
        ValueError: `weights` lacks a tensor, or has it in another shape.
    """
    segment = workload.flat()
    rng = np.random.default_rng(seed)
    names = {segment.input.id: INPUT}
    shapes = {INPUT: segment.input.shape}
    layers: list[Layer] = []
    for op in segment.ops:
        for value in op.outputs:
            last = value.id == segment.output.id
            names[value.id] = OUTPUT if last else f"{op.scope or op.kind}/{value.id}"
            shapes[names[value.id]] = value.shape
        stored = draw(op, rng) if weights is None else fold(op, weights)
        layers.extend(_layers(op, stored, names, shapes))
    return Network(layers=tuple(layers), shapes=shapes, output=names[segment.output.id])


def _layers(op: Op, stored: Stored, names: Mapping[int, str], shapes: dict[str, Shape]) -> Sequence[Layer]:
    """Return the layer of an operator; global pooling that drops its axes becomes two."""
    layer = Layer(
        kind="clip" if op.kind == "relu" else op.kind,
        inputs=tuple(names[value.id] for value in op.inputs),
        outputs=tuple(names[value.id] for value in op.outputs),
        attributes=_attributes(op),
        weight=stored.weight,
        bias=stored.bias,
        constants=stored.constants,
        activation=_activation(op),
        scope=op.scope,
        quantized=op.dtype == "int8",
    )
    if op.kind == "global_avg_pool" and not op.attribute("keepdim"):
        pooled = f"{layer.output}/pooled"
        shapes[pooled] = (*op.output.shape, 1, 1)
        return replace(layer, outputs=(pooled,)), flatten(layer, pooled, layer.output, op.output.shape)
    return (layer,)


def pre_name(name: str) -> str:
    """Return the name of a tensor before the activation that makes it `name`."""
    return f"{name}/pre"


def flatten(like: Layer, source: str, target: str, shape: Shape) -> Layer:
    """Return a reshape of `source` to `shape`, of the same scope and precision as `like`."""
    return Layer(
        kind="reshape",
        inputs=(source,),
        outputs=(target,),
        attributes={"shape": shape},
        scope=like.scope,
        quantized=like.quantized,
    )


def _attributes(op: Op) -> Mapping[str, Attribute]:
    attributes = {name: value for name, value in op.attributes if not name.startswith("activation")}
    if "padding" in attributes and op.kind != "movement":
        attributes["pads"] = _window_pads(op)
    if op.kind == "pad":
        attributes["pads"] = _pads(op.integers("pad"), len(op.input.shape))
    if op.kind in ("group_norm", "movement"):
        attributes["shape"] = op.input.shape
    if op.kind == "relu":
        attributes |= {"min": 0.0, "max": math.inf}
    return attributes


def _window_pads(op: Op) -> tuple[int, ...]:
    """Return top, left, bottom, right; a pool whose last window hangs over the map's end reads padding there."""
    padding = op.integers("padding")
    if not op.attribute("ceil", False):
        return padding * 2
    sizes = zip(op.input.shape[2:], op.output.shape[2:], op.integers("kernel"), op.integers("stride"), strict=True)
    over = ((out - 1) * stride + kernel - size for size, out, kernel, stride in sizes)
    return (*padding, *(max(pad, needed - pad) for pad, needed in zip(padding, over, strict=True)))


def _pads(pad: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return torch's padding (last axis first, both ends together) as ONNX has it: all begins, then all ends."""
    begins, ends = [0] * rank, [0] * rank
    for place in range(len(pad) // 2):
        begins[rank - 1 - place], ends[rank - 1 - place] = pad[2 * place], pad[2 * place + 1]
    return (*begins, *ends)


def _activation(op: Op) -> Activation | None:
    kind = activation_of(op)
    return (
        activation(kind, {name.removeprefix("activation_"): value for name, value in op.attributes}) if kind else None
    )


def activation(kind: str, attributes: Mapping[str, Attribute]) -> Activation:
    """Return an activation from the attributes of its operator."""
    assert kind in ACTIVATIONS, kind
    if kind == "relu":
        return Activation("clip", low=0.0)
    return Activation(
        kind,
        low=float(attributes.get("min", -math.inf)),  # type: ignore[arg-type]  # attributes of clip are numbers
        high=float(attributes.get("max", math.inf)),  # type: ignore[arg-type]
        slope=float(attributes.get("slope", 0.0)),  # type: ignore[arg-type]
        approximate=str(attributes.get("approximate", "none")),
    )
