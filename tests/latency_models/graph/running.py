"""What the tests of the writer need beside it: onnxruntime, calibration, and networks whose statistics are real."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
import torch

from latency_models.graph import GraphInput, float_model, int8_model, merge_ranges
from search_spaces.precision import QuantizationPlan

NORMALIZED = GraphInput(dtype="float32", layout="nchw")
UNSIGNED = QuantizationPlan()


def session(model: onnx.ModelProto, *, saved=None, optimized=True, config: Mapping[str, str] | None = None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, images: Iterable[np.ndarray], **options) -> np.ndarray:
    """Return the logits of single images, one after the other."""
    onnx.checker.check_model(model, full_check=True)
    opened = session(model, **options)
    return np.concatenate([opened.run(["logits"], {"image": image[None]})[0] for image in images])


def executed(model: onnx.ModelProto, folder, **options) -> Counter[str]:
    """Count the operators of the graph that onnxruntime really executes."""
    path = folder / "executed.onnx"
    session(model, saved=path, **options)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def float_weights(found: Counter[str]) -> dict[str, int]:
    """Return what is left of convolutions and linear layers in float."""
    return {kind: found[kind] for kind in ("Conv", "FusedConv", "Gemm", "FusedGemm") if found[kind]}


def measured_ranges(workload, weights, images: np.ndarray) -> dict[str, tuple[float, float]]:
    opened = session(float_model(workload, weights=weights, graph_input=NORMALIZED, expose=True))
    names = [output.name for output in opened.get_outputs()]
    return merge_ranges(
        {name: (float(value.min()), float(value.max())) for name, value in zip(names, values, strict=True)}
        for values in (opened.run(names, {"image": image[None]}) for image in images)
    )


def quantized(workload, weights, images, *, plan=UNSIGNED, graph_input=NORMALIZED) -> onnx.ModelProto:
    ranges = measured_ranges(workload, weights, images) | {"image": (float(images.min()), float(images.max()))}
    return int8_model(workload, plan=plan, weights=weights, ranges=ranges, graph_input=graph_input)


def state(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def settled(module: torch.nn.Module, shape, *, passes=4, batch=8) -> torch.nn.Module:
    """Return the module in evaluation mode with statistics of batches: without them signals die within a few layers."""
    generator = torch.Generator().manual_seed(1)
    module.train()
    with torch.no_grad():
        for _ in range(passes):
            module(torch.randn(batch, *shape, generator=generator))
    return module.eval()


def images(shape, count=4, seed=2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def outputs(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def assert_equal(found: np.ndarray, expected: np.ndarray, *, share=1e-5) -> None:
    """Assert a difference of at most `share` of the largest absolute value."""
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the mean cosine of the images' outputs; dead outputs have none and count as 1 where they are equal."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (found, expected))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-30), np.all(a == b, axis=1))
    return float(cosines.mean())
