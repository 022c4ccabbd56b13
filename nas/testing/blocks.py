"""What every block must fulfil."""

import json

import torch

from nas.testing.contract import ContractError, sampled, told
from nas.testing.modules import check_gradients, images, onnx_equals, same_as_lowered
from search_spaces.architecture import Block, Shape, block_from_dict, block_to_dict
from search_spaces.lowering import lower_block
from search_spaces.workload import Workload


def check_block(block: Block, input_shape: Shape) -> None:
    """Raise ContractError unless a block is a value that builds what it lowers to, trains, and can be written."""
    text = json.dumps(_block_json(block))
    with sampled(text):
        if block_from_dict(block_to_dict(block)) != block:
            raise ContractError("JSON gives another block back")
        with told("the block cannot be lowered"):
            raw = Workload((lower_block(block, input_shape),), ("",))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = block.build(input_shape)
        with torch.no_grad():
            y = module.eval()(images(input_shape, 2))
        same_as_lowered(module, raw, input_shape, tuple(y.shape), finite=bool(torch.isfinite(y).all()))
        onnx_equals(module, raw, input_shape)
        check_gradients(module, input_shape)


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
