"""Counts by fvcore, which shares no line with ours: what the report prints beside our own."""

import logging

import torch
from torch import nn

from search_spaces.architecture import Shape
from search_spaces.measurement import Measurement


def count_with_fvcore(network: nn.Module, input_shape: Shape) -> dict[str, Measurement]:
    """Return MACs of convolutions and linear layers, and parameters, as fvcore counts them by tracing.

    fvcore calls a multiply-accumulate a "flop". Products of two activations, which it leaves out, are in our
    count and not here.

    Args:
        network: In evaluation mode.
        input_shape: Channels, height, width.
    """
    from fvcore.nn import FlopCountAnalysis, parameter_count

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with torch.no_grad():
        analysis = FlopCountAnalysis(network, torch.zeros(1, *input_shape))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_operator = analysis.by_operator()
    macs = by_operator.get("conv", 0) + by_operator.get("linear", 0)
    source = "fvcore"
    return {
        "macs": Measurement(value=float(macs), unit="MAC", origin="counted", source=source),
        "parameters": Measurement(
            value=float(parameter_count(network)[""]), unit="parameters", origin="counted", source=source
        ),
    }
