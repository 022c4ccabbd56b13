"""Lowering: the operators a block or module executes, recorded once on the meta device.

A new block needs only `build`: the recorder is a torch dispatch mode that watches one forward pass, so costs,
memory, latency features and the ONNX graph follow from what the module does, not from a second description.
An in-place write becomes a new value, a reshape stays an operator that memory planning treats as an alias.
"""

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.aten.calls import Alias, Call
from search_spaces.aten.readers import FIRST_RESULT_ONLY, IGNORED, READERS, SAME_SHAPE, VIEWS
from search_spaces.aten.refusals import UNUSED_IS_FINE, refusal
from search_spaces.aten.rewrites import InstanceNormOneByOne, rewriter
from search_spaces.errors import LoweringError
from search_spaces.workload import DTYPE_BYTES, Attribute, Op, Parameter, Segment, Value, Workload, sorted_attributes

_WITHOUT_DATA = ("meta tensor", "meta device type", "torch.nonzero()")
"""What torch says where a module looks into a tensor of the meta device outside the dispatcher."""


def lower(architecture: Architecture) -> Workload:
    """Return the workload of an architecture; segments are cached by block and input shape.

    Raises:
        LoweringError: A block cannot take its input, or computes something outside the vocabulary.
    """
    shape: Shape = architecture.input_shape
    segments, scopes = [], []
    for k, stage in enumerate(architecture.stages):
        for j, block in enumerate(stage):
            try:
                segment = lower_block(block, shape)
            except LoweringError as error:
                raise LoweringError(f"stages.{k}.{j}: {error}") from error
            segments.append(segment)
            scopes.append(f"stages.{k}.{j}")
            shape = segment.output.shape[1:]
    return Workload(tuple(segments), tuple(scopes))


@functools.lru_cache(maxsize=65536)
def lower_block(block: Block, input_shape: Shape) -> Segment:
    """Return the segment of one block for inputs of `input_shape`, without the batch axis."""
    try:
        with torch.device("meta"):
            module = block.build(input_shape).eval()
    except Exception as error:
        raise LoweringError(f"{block} cannot be built for input {input_shape}: {_said(error)}") from error
    return _record(module, torch.empty((1, *input_shape), device="meta"), str(block), "the block itself")


def record(module: nn.Module, input_shape: Shape) -> Workload:
    """Return the workload of any module, as one segment; the module is neither run nor changed.

    Args:
        module: A network or part of one; its parameters keep their names in the workload.
        input_shape: Shape of one input, without the batch axis.

    Raises:
        LoweringError: The module computes something outside the vocabulary, or several inputs or outputs.
    """
    x = torch.empty((1, *input_shape), device="meta")
    segment = _record(_on_meta(module).eval(), x, type(module).__name__, "the network itself")
    return Workload((segment,), ("",))


def record_run(module: nn.Module, x: torch.Tensor) -> Workload:
    """Return the workload of a module that runs, with its own tensors: `record`'s, unless it asks for the device.

    Some operators have other kernels for data than for the meta device, attention among them; they may lie outside
    the vocabulary here though `record` takes them.

    Args:
        module: In evaluation mode, on the device of `x`.
        x: One image, `1 x channels x height x width`.

    Raises:
        LoweringError: As `record` does; its cause is no LoweringError where the module fails on real data.
    """
    return Workload((_record(module, x, type(module).__name__, "the network itself"),), ("",))


def _on_meta(module: nn.Module) -> nn.Module:
    """Return a copy of `module` whose tensors have shapes but no data."""
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
        )
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)


def _record(module: nn.Module, x: torch.Tensor, name: str, itself: str) -> Segment:
    recorder = _Recorder(module, x, itself)
    try:
        with torch.no_grad(), recorder.watching(module), InstanceNormOneByOne(), recorder:
            y = module(x)
    except LoweringError as error:
        raise LoweringError(f"{name}: {error}") from error
    except Exception as error:
        if any(sign in str(error) for sign in _WITHOUT_DATA):
            raise LoweringError(f"{name}: {refusal('tolist', recorder.place)}") from error
        shape = tuple(x.shape[1:])
        raise LoweringError(f"{name} cannot take an input of {shape}: {recorder.place}: {_said(error)}") from error
    if not isinstance(y, torch.Tensor):
        raise LoweringError(f"{name} must return one tensor, got {type(y).__name__}")
    return recorder.segment(y, name)


def _said(error: Exception) -> str:
    """Return what somebody else's code raised, with its type: a KeyError's own text is but the key."""
    return f"{type(error).__name__}: {error}"


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type it
    """Watches one forward pass and writes down operators in single-assignment form."""

    def __init__(self, module: nn.Module, x: torch.Tensor, itself: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._itself = itself
        self._ops: list[Op] = []
        self._kept: list[torch.Tensor] = [x]  # so that no id is used twice
        self._values: dict[int, Value] = {id(x): Value(0, tuple(x.shape))}
        self._count = 1
        self._stored: dict[int, Parameter] = {}
        self._transposed: set[int] = set()
        named = [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
        for name, tensor in reversed(named):  # a tied tensor keeps its first name
            self._stored[id(tensor)] = Parameter(
                "", name, tuple(tensor.shape), _dtype(tensor), isinstance(tensor, nn.Parameter)
            )
        self._storage: dict[int, int] = {id(x): id(x)}
        self._stale: set[int] = set()
        self._numbers: dict[int, float] = {}
        self._left_out: dict[int, str] = {}
        self._made: dict[int, str] = {}
        self._scopes: list[str] = [""]

    @property
    def place(self) -> str:
        """Where the pass is, in words."""
        return f"module {self._scopes[-1]!r}" if self._scopes[-1] else self._itself

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Follow which submodule runs, for the scope of operators."""
        handles = []
        for name, child in module.named_modules():
            if name:
                enter = functools.partial(lambda name, *_: self._scopes.append(name), name)
                handles.append(child.register_forward_pre_hook(lambda *_, enter=enter: enter()))
                handles.append(child.register_forward_hook(lambda *_: self._leave()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self) -> None:
        self._scopes.pop()

    def segment(self, y: torch.Tensor, name: str) -> Segment:
        """Return what was recorded, without operators that the output does not depend on."""
        if id(y) not in self._values:
            raise LoweringError(f"{name} returns a tensor that does not depend on its input")
        output = self._values[id(y)]
        needed, ops = {output.id}, []
        for op in reversed(self._ops):
            if any(value.id in needed for value in op.outputs):
                needed.update(value.id for value in op.inputs)
                ops.append(op)
        return Segment(Value(0, tuple(self._kept[0].shape)), output, tuple(reversed(ops)))

    def __torch_dispatch__(
        self,
        func: Any,  # Any: torch's OpOverload has no public type
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.endswith("__")
        base = name.removesuffix("_") if in_place else name
        refused = "" if base in UNUSED_IS_FINE else refusal(base, self.place)
        if refused:
            raise LoweringError(refused)
        arguments = _bind(func, args, kwargs or {})
        rewrite = None if in_place else rewriter(base, arguments)
        if rewrite is not None:
            with self:
                return rewrite(arguments)
        if base not in READERS and func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:  # within a rewriter torch does not take composite operators apart by itself
                return func.decompose(*args, **(kwargs or {}))
        if base in SAME_SHAPE and args[0].is_meta:
            first = args[0]
            tensor = first if in_place else torch.empty_like(first)
            result: Any = (tensor, tensor, tensor) if "batch_norm" in base else tensor
        else:
            result = self._computed(func, args, kwargs or {})
        self._write_down(base, arguments, result, in_place)
        return result

    def _computed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # Any: as above
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            for tensor in args:  # one made on every pass, on another device than the input, is what torch stumbled on
                if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and id(tensor) not in self._stored:
                    self._read(tensor)
            raise

    def _write_down(self, name: str, arguments: dict[str, Any], result: Any, in_place: bool) -> None:
        if name in IGNORED:
            if name == "scalar_tensor":
                self._numbers[id(result)] = float(arguments["s"])
            self._made[id(result)] = name
            self._kept.append(result)
            return
        if name not in READERS:
            raise LoweringError(
                f"torch operator {name!r} in {self.place} is outside the operator vocabulary: leave it "
                "out of the network that is recorded, or replace it by operators that search_spaces.aten reads"
            )
        call = READERS[name](arguments)
        outputs = [
            tensor for tensor in (result if isinstance(result, tuple | list) else [result]) if tensor is not None
        ]
        self._kept.extend(outputs)
        if name in FIRST_RESULT_ONLY:
            self._left_out.update((id(tensor), name) for tensor in outputs[1:] if tensor is not outputs[0])
            outputs = outputs[:1]
        source = call.source if isinstance(call, Alias) else call.inputs[0]
        if id(source) in self._numbers and isinstance(call, Call) and call.kind in ("reshape", "expand"):
            self._numbers[id(outputs[0])] = self._numbers[id(source)]
            return
        if id(source) in self._stored and (isinstance(call, Alias) or len(call.inputs) == 1):
            self._rename_parameter(call, source, outputs[0])
            return
        if isinstance(call, Alias) and id(source) in self._made:
            self._made[id(outputs[0])] = self._made[id(source)]
            return
        if isinstance(call, Alias):
            self._values[id(outputs[0])] = self._read(source)
        else:
            self._append(call, outputs)
        if in_place:
            self._overwrite(source)
        for output in outputs:
            shared = name in VIEWS or output is source
            self._storage[id(output)] = self._storage[id(source)] if shared else id(output)

    def _append(self, call: Call, outputs: list[torch.Tensor]) -> None:
        inputs, operands = [], []
        numbers: dict[str, Attribute] = {}
        for position, tensor in enumerate(call.inputs):
            if id(tensor) in self._stored:
                operands.append((position, self._parameter("operand", tensor), tuple(tensor.shape)))
            elif id(tensor) in self._numbers:
                numbers[f"number_{position}"] = self._numbers[id(tensor)]
            else:
                inputs.append(self._read(tensor))
        if not inputs:
            raise self._of_parameters(call)
        attributes: dict[str, Attribute] = {**call.attributes, **numbers}
        if operands:
            attributes["operand_positions"] = tuple(position for position, _, _ in operands)
            if len(operands) == 1:
                attributes["operand_shape"] = operands[0][2]
        parameters = [parameter for _, parameter, _ in operands]
        kind = call.kind
        for role, tensor in call.parameters:
            if kind == "linear" and role == "weight":
                if id(tensor) in self._values:  # a product of two values, not of a value and a weight
                    kind = "matmul"
                    inputs.append(self._read(tensor))
                    continue
                attributes["transposed_weight"] = id(tensor) not in self._transposed
            parameters.append(self._parameter(role, tensor))
        if kind == "matmul" and any(parameter.role != "operand" for parameter in parameters):
            raise LoweringError("a matrix product with a bias but no weight is not in the vocabulary")
        if kind == "reshape":
            attributes["shape"] = tuple(outputs[0].shape)
        values = tuple(self._new(tensor) for tensor in outputs)
        self._ops.append(
            Op(
                kind,
                tuple(inputs),
                values,
                tuple(parameters),
                sorted_attributes(attributes),
                "float32",
                self._scopes[-1],
            )
        )

    def _rename_parameter(self, call: Call | Alias, source: torch.Tensor, output: torch.Tensor) -> None:
        """A view of a parameter is that parameter; whoever reads it says in which shape."""
        if isinstance(call, Call) and call.kind == "transpose" and source.ndim == 2:
            if id(source) not in self._transposed:
                self._transposed.add(id(output))
        elif isinstance(call, Call) and not _keeps_order(call, source):
            raise self._of_parameters(call)
        elif id(source) in self._transposed:
            if output.shape != source.shape:
                raise self._of_parameters(call)
            self._transposed.add(id(output))
        self._stored[id(output)] = self._stored[id(source)]

    def _of_parameters(self, call: Call | Alias) -> LoweringError:
        what = call.attributes.get("function", call.kind) if isinstance(call, Call) else "a view"
        return LoweringError(
            f"{self.place} computes {what} of its own parameters on every pass: compute it once and "
            "register the result as a parameter or buffer"
        )

    def _parameter(self, role: str, tensor: torch.Tensor) -> Parameter:
        known = self._stored.get(id(tensor))
        if known is None:
            raise LoweringError(f"{self.place} reads a {role} that is no parameter or buffer of it: register it")
        if id(tensor) in self._transposed and role != "weight":
            raise LoweringError(f"{self.place} reads {known.name!r} transposed, as {role}")
        return replace(known, role=role)

    def _read(self, tensor: torch.Tensor) -> Value:
        if id(tensor) in self._stale:
            raise LoweringError(f"{self.place} reads a tensor after an in-place write to a view of it")
        if id(tensor) in self._left_out:
            raise LoweringError(
                f"{self.place} reads a further result of {self._left_out[id(tensor)]!r}, of which the "
                "vocabulary has the first alone: use argmax where the place of a maximum is wanted"
            )
        drawn = refusal(self._made.get(id(tensor), ""), self.place)
        if drawn:
            raise LoweringError(drawn)
        if id(tensor) not in self._values:
            raise LoweringError(
                f"{self.place} reads a tensor that is neither input, parameter nor buffer, such as "
                "zeros made on every pass: register it as a buffer. Recurrent layers and circular padding, which torch "
                "computes so, cannot be recorded"
            )
        return self._values[id(tensor)]

    def _new(self, tensor: torch.Tensor) -> Value:
        value = Value(self._count, tuple(tensor.shape), _dtype(tensor))
        self._count += 1
        self._values[id(tensor)] = value
        return value

    def _overwrite(self, tensor: torch.Tensor) -> None:
        storage = self._storage[id(tensor)]
        self._stale |= {known for known, place in self._storage.items() if place == storage and known != id(tensor)}


def _bind(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by name with the schema's defaults, which torch leaves out of `args`."""
    bound: dict[str, Any] = {}  # in the schema's order
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        else:
            bound[argument.name] = kwargs.get(argument.name, argument.default_value)
    if "input" in bound and "self" not in bound:
        bound["self"] = bound["input"]
    return bound


def _keeps_order(call: Call, source: torch.Tensor) -> bool:
    """Tell whether a call leaves the elements of `source` in their order in memory: a reshape, or as good as one."""
    if call.kind != "transpose":
        return call.kind == "reshape"
    order = call.attributes["order"]
    assert isinstance(order, tuple)
    long = [int(axis) for axis in order if source.shape[int(axis)] > 1]
    return long == sorted(long)


def _dtype(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise LoweringError(f"a tensor of type {name} is not in the vocabulary; the types are {', '.join(DTYPE_BYTES)}")
    return name
