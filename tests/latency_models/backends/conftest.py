import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.latency_models.backends import sshd


def chain(path, *, side, layers=2):
    """Write a file of `layers` matrix products of `side` x `side`."""
    draw = np.random.default_rng(side)
    nodes, weights, name = [], [], "image"
    for number in range(layers):
        values = draw.standard_normal((side, side)).astype(np.float32) / side**0.5
        weights.append(helper.make_tensor(f"w{number}", TensorProto.FLOAT, (side, side), values.tobytes(), raw=True))
        nodes.append(helper.make_node("MatMul", [name, f"w{number}"], [f"h{number}"]))
        name = f"h{number}"
    return _save(path, nodes, weights, name, side)


def unsupported(path):
    """Write a file with an operator that no runtime has."""
    return _save(path, [helper.make_node("Levitate", ["image"], ["out"])], [], "out", 4)


def immense(path):
    """Write a file that asks for an activation of 4 TB."""
    shape = helper.make_tensor("shape", TensorProto.INT64, (2,), [1 << 20, 1 << 20])
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "shape"], ["out"]),
    ]
    return _save(path, nodes, [shape], "out", 4)


def _save(path, nodes, weights, output, side):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, side))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def board(tmp_path_factory):
    """A real sshd on loopback."""
    reason = sshd.why_absent()
    if reason:
        pytest.skip(reason)
    server = sshd.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.cut()
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def models(tmp_path):
    """Three files, the third with the most work."""
    return [chain(tmp_path / f"net{side}.onnx", side=side) for side in (64, 128, 512)]
