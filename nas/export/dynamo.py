"""From a torch module to an ONNX graph by torch's exporter, made as small and fast as its runtime allows.

The exporter is an independent reading of the module beside our own lowering, so a file made here and compared with
the network also checks what every figure of the network was computed from.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir
import torch
from onnx import checker, version_converter
from onnx_ir.passes import common
from torch import nn

from nas.export.rewrites import simplify
from search_spaces.errors import LoweringError

OLDEST_OPSET = 18
"""The exporter writes no older one; below it graphs are converted after they were simplified."""


def export_module(
    module: nn.Module,
    example: torch.Tensor,
    *,
    dynamic_batch: bool = False,
    opset: int = OLDEST_OPSET,
    ir_version: int = 8,
    name: str = "",
) -> onnx.ModelProto:
    """Return the graph of a module in evaluation mode, simplified; its input is "image", its output "logits".

    Args:
        module: Takes and returns one tensor; it is not changed.
        example: An input of the shape that the file takes.
        dynamic_batch: Whether the first axis may have any length.
        opset: Of the file.
        ir_version: Of the file.
        name: What messages call the network; empty for its class.

    Raises:
        LoweringError: The exporter refuses the module, or the opset lacks an operator of it.
    """
    batch = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                module,
                (torch.cat([example, example]) if dynamic_batch else example,),
                dynamo=True,
                input_names=["image"],
                output_names=["logits"],
                opset_version=max(opset, OLDEST_OPSET),
                dynamic_shapes=batch,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise LoweringError(
            f"torch's ONNX exporter refuses {name or type(module).__name__}: {_reason(error)}"
        ) from error
    assert program is not None
    return _finished(program.model, opset, ir_version)


def _finished(model: ir.Model, opset: int, ir_version: int) -> onnx.ModelProto:
    simplify(model)
    common.ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    proto.graph.name = "network"
    if opset < OLDEST_OPSET:
        proto = _converted(proto, opset)
    proto.ir_version = ir_version
    checker.check_model(proto, full_check=True)
    return proto


def _converted(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(proto, opset)
    except (RuntimeError, ValueError) as error:
        reason = str(error).rpartition("failed: ")[2]
        raise LoweringError(
            f"the network cannot be written in ONNX opset {opset} ({reason}); opset {OLDEST_OPSET} and above hold "
            "every network"
        ) from error


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep to the exporter's exceptions: its logs and warnings speak of torch's own modules."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause; the outer ones only tell how to debug the exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
