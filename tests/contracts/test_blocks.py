"""What holds for every registered block, checked on the values of `examples`."""

import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from search_spaces import counts
from search_spaces.architecture import BLOCKS, block_from_dict, block_to_dict
from search_spaces.lowering import lower_block, record
from search_spaces.nasbench201_blocks import NasBench201Cell
from search_spaces.workload import Workload
from tests.contracts.examples import EXAMPLES

CASES = [
    pytest.param(block, shape, id=f"{name}-{number}")
    for name, examples in EXAMPLES.items()
    for number, (block, shape) in enumerate(examples)
]


def built(block, shape):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return block.build(shape)


def images(shape, batch=2):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def conv_and_linear(module, shape):
    analysis = FlopCountAnalysis(module, images(shape, 1))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    return by_operator["conv"] + by_operator["linear"]


def test_every_registered_block_has_examples_under_its_own_name():
    assert set(BLOCKS.names()) == set(EXAMPLES)
    for name, examples in EXAMPLES.items():
        assert examples
        assert {BLOCKS.name_of(type(block)) for block, _ in examples} == {name}


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_json_round_trip_gives_an_equal_block_with_an_equal_hash(block, shape):
    again = block_from_dict(block_to_dict(block))
    assert again == block
    assert hash(again) == hash(block)


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_lowering_on_meta_agrees_with_the_built_module(block, shape):
    module = built(block, shape).eval()
    workload = Workload((lower_block(block, shape),), ("",))
    with torch.no_grad():
        y = module(images(shape))
    assert y.shape[1:] == workload.output.shape[1:]
    assert torch.isfinite(y).all()
    assert counts.parameters(workload) == sum(p.numel() for p in module.parameters())
    assert sum(map(counts.op_macs, (op for op in workload if op.kind != "matmul"))) == conv_and_linear(module, shape)
    assert [op.kind for op in record(module, shape)] == [op.kind for op in workload]


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_every_image_of_a_batch_is_computed_on_its_own(block, shape):
    module, x = built(block, shape).eval(), images(shape, 3)
    with torch.no_grad():
        together = module(x)
        alone = torch.cat([module(image[None]) for image in x])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_gradients_reach_input_and_every_parameter(block, shape):
    module, x = built(block, shape).train(), images(shape, 8).requires_grad_()
    y = module(x)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, tensor in [("input", x), *module.named_parameters()]:
        assert tensor.grad is not None, name
        assert torch.isfinite(tensor.grad).all(), name
        assert tensor.grad.any() or is_dead(block), name


def is_dead(block):
    """Tell whether the block is the cell whose output is zero for every input."""
    return isinstance(block, NasBench201Cell) and set(block.operators) == {"none"}


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_prunable_fields_are_channel_counts_of_the_block(block, shape):
    for name in getattr(type(block), "prunable", ()):
        assert type(getattr(block, name)) is int
