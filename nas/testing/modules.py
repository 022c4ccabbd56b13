"""What holds for the module of every block and every network: it is what was priced, it is written, it learns."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from latency_models.graph import GraphInput, float_model
from nas.testing.contract import ContractError, told
from search_spaces import counts
from search_spaces.architecture import Shape
from search_spaces.lowering import record
from search_spaces.workload import Workload

ONNX_TOLERANCE = 1e-5
"""Greatest difference of the written network from torch, as a share of the largest output."""

_DRAWS = 4
"""Draws of parameters with a zero gradient; by chance a live layer of 8 ReLUs is off in all of them once in 10^9."""

_ROUNDING = 1e-6
"""Greatest difference between outputs that count as equal, as a share of the largest."""


def check_gradients(module: nn.Module, input_shape: Shape) -> None:
    """Raise ContractError for a parameter without a finite gradient, or one whose gradient is always zero.

    Parameters that start as zeros hide what stands before them, and a ReLU may happen to be off for every image:
    both are drawn anew before a zero counts, so the module's weights change. A network that gives one output for
    every input, such as NAS-Bench-201's of nothing but "none", is exempt from zeros.

    Args:
        module: What is trained one step, or a few where gradients are zero.
        input_shape: Shape of one input, without the batch axis.
    """
    generator = torch.Generator().manual_seed(2)
    silent = [parameter for parameter in module.parameters() if not parameter.any()]
    module.train()
    for layer in module.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.eval()  # or outputs of a constant network would differ
    for _ in range(_DRAWS):
        _redraw(silent, generator)
        module.zero_grad()
        y = module(images(input_shape, 4))
        (y * torch.randn(y.shape, generator=generator)).sum().backward()
        for name, parameter in module.named_parameters():
            if parameter.grad is None:
                raise ContractError(f"no gradient reaches {name}")
            if not bool(torch.isfinite(parameter.grad).all()):
                raise ContractError(f"the gradient of {name} is not finite")
        if _is_constant(y.detach()):
            return
        zero = {name: parameter for name, parameter in module.named_parameters() if not _any(parameter.grad)}
        if not zero:
            return
        silent = list(zero.values())
    raise ContractError(f"the gradient of {next(iter(zero))} is always zero: nothing it computes reaches the output")


def same_as_lowered(module: nn.Module, raw: Workload, shape: Shape, given: Shape, *, finite: bool) -> None:
    """Raise ContractError unless a module executes the operators, and holds the parameters, of its lowering.

    Args:
        module: In evaluation mode.
        raw: Its lowering, not fused.
        shape: Of one input, without the batch axis.
        given: Shape of what the module gives for a batch.
        finite: Whether all of that is finite.
    """
    if given[1:] != raw.output.shape[1:]:
        raise ContractError(f"the module gives {given[1:]}, its lowering {raw.output.shape[1:]}")
    if not finite:
        raise ContractError("a fresh module gives values that are not finite")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if counts.parameters(raw) != parameters:
        raise ContractError(
            f"the module has {parameters} parameters, its lowering {counts.parameters(raw)}: one is never used"
        )
    executed, lowered = [op.kind for op in record(module, shape)], [op.kind for op in raw]
    if executed != lowered:
        raise ContractError(f"the module executes {executed}, its lowering has {lowered}")


def onnx_equals(module: nn.Module, raw: Workload, shape: Shape) -> None:
    """Raise ContractError unless the lowering, written to ONNX with the module's weights, computes what it computes.

    The module is run in training mode before, so that its statistics are those of data.
    """
    import onnxruntime

    module.train()
    with torch.no_grad():  # statistics of batches: with those of a fresh network signals die within a few layers
        for _ in range(3):
            module(images(shape, 8))
        expected = module.eval()(images(shape, 2)).numpy()
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    with told("the network has no ONNX form"):
        model = float_model(raw, weights=weights, graph_input=GraphInput(dtype="float32", layout="nchw"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with told("onnxruntime refuses the file"):
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    given = np.concatenate([session.run(None, {name: image[None]})[0] for image in images(shape, 2).numpy()])
    share = float(np.abs(given - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    if not share <= ONNX_TOLERANCE:
        raise ContractError(
            f"the written network differs from torch by {share:.2g} of its largest output; does its forward ask for "
            "data or the device, so that it computes something else than when it was recorded?"
        )


def _any(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and bool(tensor.any())


def _redraw(parameters: Iterable[nn.Parameter], generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in parameters:
            fan_in = math.prod(parameter.shape[1:])
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in))


def _is_constant(y: torch.Tensor) -> bool:
    """Tell whether all images of a batch gave one output, but for rounding."""
    return float((y - y[:1]).abs().max()) <= _ROUNDING * float(y.abs().max())


def images(shape: Shape, count: int) -> torch.Tensor:
    """Return `count` normalized images of noise, the same for the same count."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
