"""What every block must fulfil."""

import json

import torch
from torch import nn

from nas.testing.contract import ContractError, described, sampled, told
from nas.testing.modules import check_gradients, images, onnx_equals, same_as_lowered
from search_spaces.architecture import Block, Shape, block_from_dict, block_to_dict
from search_spaces.errors import LoweringError, NasError
from search_spaces.lowering import lower_block, record_run
from search_spaces.workload import Op, Segment, Workload

BUILDS = 6
"""How often a block is built anew: one that tosses a coin gives seven equal builds once in 64 times."""


def check_block(block: Block, input_shape: Shape) -> None:
    """Raise ContractError unless a block is a value that builds what it lowers to, trains, and can be written."""
    text = json.dumps(_block_json(block))
    with sampled(text):
        if block_from_dict(block_to_dict(block)) != block:
            raise ContractError("JSON gives another block back")
        with told("the block cannot be lowered"):
            raw = Workload((lower_block(block, input_shape),), ("",))
        builds_alike(block, input_shape)
        runs_as_lowered(block, input_shape)
        module = fresh(block, input_shape)
        with torch.no_grad():
            y = module(images(input_shape, 2))
        same_as_lowered(module, raw, input_shape, tuple(y.shape), finite=bool(torch.isfinite(y).all()))
        onnx_equals(module, raw, input_shape)
        check_gradients(module, input_shape)


def builds_alike(block: Block, input_shape: Shape) -> None:
    """Raise ContractError unless every build of a block gives the same operators, with parameters of one shape."""
    first = lower_block(block, input_shape)
    for _ in range(BUILDS):
        with told(f"build is not deterministic, one of several failed, of {block_text(block)}"):
            again = lower_block.__wrapped__(block, input_shape)  # not the kept one
        difference = _difference(first, again)
        if difference:
            raise ContractError(
                f"build is not deterministic: two builds of {block_text(block)} for an input of {input_shape} differ "
                f"({difference}); what a build decides must be a field of the block"
            )


def runs_as_lowered(block: Block, input_shape: Shape) -> None:
    """Raise ContractError unless a block's module executes with data what it was recorded to on the meta device.

    Where torch has another kernel for data, outside the vocabulary, this cannot be told; `onnx_equals` then compares
    what is computed.
    """
    lowered = lower_block(block, input_shape)
    try:
        (run,) = record_run(fresh(block, input_shape), images(input_shape, 1)).segments
    except LoweringError as error:
        if error.__cause__ is None or isinstance(error.__cause__, LoweringError):
            return
        raise ContractError(f"{block_text(block)} fails with data: {described(error.__cause__)}") from error
    difference = _difference(lowered, run)
    if difference:
        raise ContractError(
            f"forward of {block_text(block)} executes with data something else than on the meta device, where it is "
            f"priced ({difference}); it may ask neither for the device nor for data"
        )


def block_text(block: Block) -> str:
    """Return a block's JSON, or its `repr` where it has none."""
    try:
        return json.dumps(block_to_dict(block))
    except NasError:
        return repr(block)


def fresh(block: Block, input_shape: Shape) -> nn.Module:
    """Return a block's module in evaluation mode, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return block.build(input_shape).eval()


def _difference(first: Segment, second: Segment) -> str:
    """Return the first operator in which two recordings differ, in words; empty where they are equal."""
    for number, (one, other) in enumerate(zip(first.ops, second.ops, strict=False)):
        if one != other:
            return f"operator {number}: {_told(one, other)}"
    if len(first.ops) != len(second.ops):
        return f"{len(first.ops)} operators, and {len(second.ops)}"
    return "" if first == second else f"outputs of {first.output.shape}, and of {second.output.shape}"


def _told(one: Op, other: Op) -> str:
    if one.kind != other.kind:
        return f"{one.kind}, and {other.kind}"
    mine_all, theirs_all = dict(one.attributes), dict(other.attributes)
    fields: dict[str, tuple[object, object]] = {
        name: (mine_all.get(name), theirs_all.get(name)) for name in {**mine_all, **theirs_all}
    }
    fields["parameters"] = (_shapes(one), _shapes(other))
    found = [f"{name} {mine}, and {theirs}" for name, (mine, theirs) in fields.items() if mine != theirs]
    return f"{one.kind} with {found[0]}" if found else f"{one.kind} of other values"


def _shapes(op: Op) -> tuple[tuple[int, ...], ...]:
    return tuple(parameter.shape for parameter in op.parameters)


class BlockContract:
    """Tests every block passes; a subclass defines the fixture `example`: a block and an input shape it takes."""

    def test_block_is_a_hashable_value(self, example: tuple[Block, Shape]) -> None:
        """Blocks are compared and used as keys."""
        block, _ = example
        if hash(block) != hash(block_from_dict(block_to_dict(block))):
            raise ContractError("equal blocks have unequal hashes", json.dumps(_block_json(block)))

    def test_block_fulfils_the_contract(self, example: tuple[Block, Shape]) -> None:
        """A block builds what it lowers to, trains, and can be written as ONNX."""
        check_block(*example)


def _block_json(block: Block) -> object:
    with told("the block has no JSON form"):
        return block_to_dict(block)
