import logging

import onnx
import pytest
import torch
from torch import nn

from nas.export.dynamo import export_module
from search_spaces.errors import LoweringError

IMAGE = torch.zeros(1, 3, 4, 6)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Exotic(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Faulty(nn.Module):
    def forward(self, x):
        raise ValueError("the input is too round\nand more")


class WithoutOldForm(nn.Module):
    def forward(self, x):
        return nn.functional.hardswish(x)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Branching(), "refuses Branching: Could not guard on data-dependent expression"),
        (Exotic(), "refuses Exotic: No ONNX function found"),
        (Faulty(), "refuses Faulty: the input is too round$"),
    ],
    ids=["depends on data", "no ONNX operator", "raises"],
)
def test_refused_module_gives_one_sentence(module, reason):
    with pytest.raises(LoweringError, match=reason) as raised:
        export_module(module, IMAGE)
    assert "\n" not in str(raised.value)


def test_opset_that_lacks_an_operator_is_named():
    with pytest.raises(
        LoweringError, match="cannot be written in ONNX opset 13 \\(No Previous Version of HardSwish exists\\)"
    ):
        export_module(WithoutOldForm(), IMAGE, opset=13)


def test_file_holds_nothing_about_the_machine_it_was_made_on():
    model = export_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), IMAGE)
    assert b".py" not in model.SerializeToString()
    assert not any(item.metadata_props for item in (model.graph, *model.graph.node, *model.graph.input))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("image", "logits")
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)


def test_torch_logs_as_before():
    logger = logging.getLogger("torch")
    before = logger.level
    with pytest.raises(LoweringError):
        export_module(Faulty(), IMAGE)
    assert logger.level == before


def test_modules_weights_are_inside_the_file():
    model = export_module(nn.Conv2d(3, 64, 5).eval(), IMAGE.repeat(1, 1, 4, 4))
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert model.ByteSize() > 4 * 3 * 64 * 25
