"""The lowered form of a network: operators of a closed vocabulary in single-assignment form.

Everything that prices a network reads this and nothing else. `search_spaces.lowering` makes it from blocks or
modules, `search_spaces.fusion` merges what runtimes merge, `search_spaces.precision` sets the dtypes that ship.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from search_spaces.architecture import Shape
from search_spaces.errors import LoweringError

Kind = Literal[
    # with weights
    "conv", "conv_transpose", "linear", "batch_norm", "layer_norm", "group_norm",
    # activations: one input, same shape
    "relu", "clip", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu", "tanh",
    "softmax", "exp", "sqrt", "reciprocal", "abs", "neg",
    # arithmetic with broadcasting; the second operand may be a parameter or a scalar
    "add", "sub", "mul", "div", "pow",
    # products and reductions
    "matmul", "global_avg_pool", "avg_pool", "max_pool", "mean", "sum", "amax",
    # movement
    "concat", "split", "slice", "reshape", "transpose", "expand", "gather", "pad", "upsample",
    # everything else without weights; the attribute `function` says what
    "elementwise", "reduction", "movement",
    # made by fusion only
    "channel_shuffle",
]  # fmt: skip
KINDS: frozenset[str] = frozenset(get_args(Kind))
"""The vocabulary. These are our names; no aten or ONNX name appears outside the files that translate."""

ACTIVATIONS: frozenset[str] = frozenset(
    {"relu", "clip", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu", "tanh"}
)

DTYPE_BYTES: dict[str, int] = {
    "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "int64": 8,
    "float64": 8,
}  # fmt: skip

Attribute = int | float | str | bool | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor: its number within the segment, its shape with the batch axis of 1, and its dtype."""

    id: int
    shape: Shape
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size in bytes, without alignment."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One stored tensor an operator reads.

    Attributes:
        role: What it is to the operator: weight, bias, norm_weight, norm_bias, norm_mean, norm_var, operand,
            index.
        name: Its name in the module's state dict.
        shape: Its stored shape.
        dtype: Its stored dtype.
        trainable: Whether it is a parameter; False for buffers such as running statistics.
    """

    role: str
    name: str
    shape: Shape
    dtype: str = "float32"
    trainable: bool = True

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Op:
    """One operator.

    Attributes:
        kind: A word of the vocabulary.
        inputs: Values read, in order.
        outputs: Values written.
        parameters: Stored tensors read.
        attributes: Name and value of every attribute, defaults filled in, sorted by name.
        dtype: The type it computes in.
        scope: Path of the module it stands in.
    """

    kind: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    parameters: tuple[Parameter, ...] = ()
    attributes: tuple[tuple[str, Attribute], ...] = ()
    dtype: str = "float32"
    scope: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LoweringError(f"{self.kind!r} is no word of the operator vocabulary")

    @property
    def input(self) -> Value:
        """The first input."""
        return self.inputs[0]

    @property
    def output(self) -> Value:
        """The first output."""
        return self.outputs[0]

    def attribute(self, name: str, default: Attribute | None = None) -> Attribute:
        """Return an attribute; raises KeyError where it is absent and no default is given."""
        for known, value in self.attributes:
            if known == name:
                return value
        if default is None:
            raise KeyError(f"{self.kind} has no attribute {name!r}")
        return default

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an attribute that is an integer."""
        value = self.attribute(name, default)
        assert isinstance(value, int), (self.kind, name, value)
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """Return an attribute that is a tuple of integers."""
        value = self.attribute(name)
        assert isinstance(value, tuple), (self.kind, name, value)
        return tuple(int(item) for item in value)

    def number(self, name: str, default: float | None = None) -> float:
        """Return an attribute that is a number."""
        value = self.attribute(name, default)
        assert isinstance(value, int | float), (self.kind, name, value)
        return float(value)

    def parameter(self, role: str) -> Parameter | None:
        """Return the parameter of that role, or None."""
        return next((parameter for parameter in self.parameters if parameter.role == role), None)

    def with_attributes(self, **changes: Attribute) -> "Op":
        """Return the operator with attributes set."""
        return replace(self, attributes=sorted_attributes(dict(self.attributes) | changes))


def sorted_attributes(attributes: dict[str, Attribute]) -> tuple[tuple[str, Attribute], ...]:
    """Return attributes as `Op` holds them."""
    return tuple(sorted(attributes.items()))


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The operators of one block, with one input and one output.

    Segments are cached and shared by all networks that hold the block at the same input shape, so whatever is
    computed from a segment alone can be cached by it.
    """

    input: Value
    output: Value
    ops: tuple[Op, ...]
    _hash: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.input, self.output, self.ops)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Segment)
            and self._hash == other._hash
            and (self.input, self.output, self.ops) == (other.input, other.output, other.ops)
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """A lowered network: segments one after the other, the output of each the input of the next.

    Attributes:
        segments: One for each block; one in all where a module was recorded.
        scopes: Module path of each segment, such as "stages.2.0"; empty for a recorded module.
    """

    segments: tuple[Segment, ...]
    scopes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.segments) != len(self.scopes) or not self.segments:
            raise ValueError(f"{len(self.segments)} segments need as many scopes, got {len(self.scopes)}")
        for before, after in zip(self.segments, self.segments[1:], strict=False):
            if before.output.shape != after.input.shape:
                raise ValueError(f"a segment gives {before.output.shape}, the next takes {after.input.shape}")

    @property
    def input(self) -> Value:
        """The network's input."""
        return self.segments[0].input

    @property
    def output(self) -> Value:
        """The network's output, numbered within its segment."""
        return self.segments[-1].output

    def map(self, transform: Callable[[Segment], Segment]) -> "Workload":
        """Return the workload with `transform` applied to every segment."""
        return Workload(tuple(transform(segment) for segment in self.segments), self.scopes)

    def total(self, price: Callable[[Segment], int]) -> int:
        """Return the sum of an integer price of every segment."""
        return sum(map(price, self.segments))

    def flat(self) -> Segment:
        """Return the whole network as one segment, with values renumbered and full module paths."""
        return _flat(self)

    def __iter__(self) -> Iterator[Op]:
        """Yield every operator in order, numbered within its segment."""
        for segment in self.segments:
            yield from segment.ops


@functools.lru_cache(maxsize=256)
def _flat(workload: Workload) -> Segment:
    ops: list[Op] = []
    first = Value(0, workload.input.shape, workload.input.dtype)
    current, offset = first, 1
    for segment, scope in zip(workload.segments, workload.scopes, strict=True):
        renamed = {segment.input.id: current}

        def rename(value: Value, renamed: dict[int, Value] = renamed, offset: int = offset) -> Value:
            if value.id not in renamed:
                renamed[value.id] = Value(offset + len(renamed) - 1, value.shape, value.dtype)
            return renamed[value.id]

        ops.extend(_renamed(op, rename, scope) for op in segment.ops)
        current = rename(segment.output)
        offset += len(renamed) - 1
    return Segment(first, current, tuple(ops))


def _renamed(op: Op, rename: Callable[[Value], Value], scope: str) -> Op:
    prefix = f"{scope}." if scope else ""
    return replace(
        op,
        inputs=tuple(rename(value) for value in op.inputs),
        outputs=tuple(rename(value) for value in op.outputs),
        parameters=tuple(replace(known, name=prefix + known.name) for known in op.parameters),
        scope=f"{prefix}{op.scope}".rstrip("."),
    )
