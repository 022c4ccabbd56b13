"""What onnxruntime really runs of a file: its optimized graph, counted.

An 8-bit file is no faster than a float one where the runtime leaves convolutions in float or converts back and forth
between them: int8 files of other tools took up to 7 times as long as the float file for that reason alone, and the
count tells it within a second. It does not see slow 8-bit kernels; only a timing does.
"""

import platform
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from latency_models.backends.local import open_session
from nas.run import write_atomic
from search_spaces.workload import Workload

_QUANTIZED_CONVS = frozenset({"QLinearConv", "ConvInteger"})
_QUANTIZED_PRODUCTS = frozenset(
    {"QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
)
_FLOAT_CONVS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose"})
_FLOAT_PRODUCTS = frozenset({"Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_REORDERS = frozenset({"ReorderInput", "ReorderOutput"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Nodes of a runtime's optimized graph.

    Attributes:
        runtime: Its name and version, and the machine.
        operators: Number of nodes of every kind, by name.
        quantized_convs: Convolutions in 8 bits.
        quantized_products: Matrix products in 8 bits.
        float_convs: Convolutions left in float.
        float_products: Matrix products left in float.
        conversions: Nodes that quantize or dequantize; one dequantizes logits, or none.
        transposes: Nodes that move data without computing.
        reorders: Nodes that change between a plain and a blocked layout.
        kept_float: Convolutions and products that the plan leaves in float.
        optimized: Name of the saved graph, beside the file; empty where it was not kept. It runs under this
            version of the runtime on this kind of machine only.
    """

    runtime: str
    operators: Mapping[str, int]
    quantized_convs: int
    quantized_products: int
    float_convs: int
    float_products: int
    conversions: int
    transposes: int
    reorders: int
    kept_float: int
    optimized: str = ""

    @property
    def is_quantized(self) -> bool:
        """Whether nothing is left in float that the plan wanted in 8 bits."""
        return self.float_convs + self.float_products <= self.kept_float

    def sentence(self) -> str:
        """Return what was found, in words."""
        convs, products = self.quantized_convs, self.quantized_products
        left = self.float_convs + self.float_products
        told = f"{self.runtime} runs {convs} convolutions and {products} matrix products in 8 bits, {left} in float"
        planned = f" ({self.kept_float} by plan)" if self.kept_float else ""
        return f"{told}{planned}; {self.conversions} conversions, {self.transposes} transposes"

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {**asdict(self), "operators": dict(self.operators)}


def audit(path: Path, workload: Workload, *, keep: bool = False) -> Audit:
    """Return what onnxruntime on this machine makes of a file.

    Args:
        path: The file.
        workload: What it holds, at its precision; tells which operators are meant to be float.
        keep: Whether the optimized graph is left beside the file.

    Raises:
        MeasurementError: onnxruntime refuses the file.
        RunError: The optimized graph cannot be written.
    """
    runtime = f"onnxruntime-{onnxruntime.__version__}-{platform.machine()}"
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / f"{path.stem}.as-run-by-{runtime}.onnx"
        open_session(path, optimized=optimized)
        kinds = Counter(node.op_type for node in onnx.load(optimized).graph.node)
        if keep:
            write_atomic(path.parent / optimized.name, optimized.read_bytes())

    def count(names: frozenset[str]) -> int:
        return sum(kinds[name] for name in names)

    return Audit(
        runtime=runtime,
        operators=dict(sorted(kinds.items())),
        quantized_convs=count(_QUANTIZED_CONVS),
        quantized_products=count(_QUANTIZED_PRODUCTS),
        float_convs=count(_FLOAT_CONVS),
        float_products=count(_FLOAT_PRODUCTS),
        conversions=count(_CONVERSIONS),
        transposes=kinds["Transpose"],
        reorders=count(_REORDERS),
        kept_float=_kept_float(workload),
        optimized=optimized.name if keep else "",
    )


def _kept_float(workload: Workload) -> int:
    """Count products that are float by plan, and those of two activations, which the writer leaves in float."""
    return sum(op.kind == "matmul" or (op.kind in ("conv", "linear") and op.dtype != "int8") for op in workload)
