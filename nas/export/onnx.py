"""The ONNX exporter: a candidate becomes files that are products, each compared with the network it came from.

The float32 file comes from torch's exporter, an independent reading of the network; the 8-bit file from the direct
writer with the trained weights and measured ranges. Both take images alike and say so themselves.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import helper

from latency_models.graph import GraphInput
from nas.candidate import Candidate, Exported, ExportedFile
from nas.export.audit import Audit, audit
from nas.export.dynamo import export_module
from nas.export.int8 import export_int8
from nas.export.manifest import MANIFEST, NAMES, clear, counted, file_entry, manifest, sha256, write_parities
from nas.export.metadata import describe, embed, of_file, plan_record
from nas.export.model_card import write_card
from nas.export.parity import compare
from nas.export.preprocessing import Dtype, InputForm, Layout, PixelNetwork
from nas.protocols import EXPORTERS, ExportContext, Progress
from nas.run import write_atomic, write_json
from nas.task import Preprocessing, Task
from search_spaces.errors import LoweringError
from search_spaces.precision import Precision

_OLDEST_OPSET = 13
"""Before it quantization had no scale for each channel."""


@EXPORTERS.register("onnx")
@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxExporter:
    """Writes `model.onnx`, and for a quantized candidate `model.int8.onnx`, with manifest, parity and model card.

    Attributes:
        input: "uint8" takes raw pixels and normalizes them inside; "float32" takes normalized images.
        layout: "nhwc": batch x height x width x channels; "nchw": batch x channels x height x width.
        dynamic_batch: Whether a run may take any number of images; else it takes one.
        opset: ONNX opset of the files at most; the device may have a lower one.
        parity_images: Validation images on which files are compared with the network.
    """

    input: Dtype = "uint8"
    layout: Layout = "nhwc"
    dynamic_batch: bool = False
    opset: int = 18
    parity_images: int = 512

    def __post_init__(self) -> None:
        if self.input not in ("uint8", "float32") or self.layout not in ("nhwc", "nchw"):
            raise ValueError(
                f"input must be uint8 or float32 and layout nhwc or nchw, got {self.input!r} and {self.layout!r}"
            )
        if self.parity_images < 1:
            raise ValueError(f"parity_images must be at least 1, got {self.parity_images}")

    @property
    def form(self) -> InputForm:
        """How the files take images."""
        return InputForm(dtype=self.input, layout=self.layout, batch=None if self.dynamic_batch else 1)

    def graph_input(self, preprocessing: Preprocessing) -> GraphInput:
        """Return how the files take images, as the direct writer of graphs takes it: probes are written alike."""
        return self.form.graph_input(preprocessing)

    def export(
        self,
        candidate: Candidate,
        task: Task,
        folder: Path,
        context: ExportContext = ExportContext(),  # noqa: B008
    ) -> Exported:
        """Write the files into `folder` and compare each with the network on validation images.

        A file that fails the comparison is written all the same: `require_parity` refuses it. The manifest is written
        last, so a folder that has one is complete.

        Raises:
            LoweringError: torch's exporter refuses the network, or the device's opset lacks an operator of it.
            DataError: A quantized candidate, and no calibration images.
            MeasurementError: onnxruntime refuses a file.
            RunError: The disk is full or refuses.
        """
        clear(folder)
        shared = describe(candidate, task, self.form, decoding=context.decoding)
        files, entries = [], []
        for variant, model in self._models(candidate, task, context):
            embed(model, of_file(shared, variant.precision, plan_record(variant.quantization)))
            path = folder / NAMES[variant.precision]
            write_atomic(path, model.SerializeToString(deterministic=True))
            workload = variant.workload()
            found = audit(path, workload, keep=variant.precision == "int8")
            file = self._checked(path, candidate, task, variant.precision, found)
            figures = counted(
                workload, variant.quantization, in_place=context.in_place, patch_above=context.patch_above
            )
            entries.append(file_entry(file, model, figures, found))
            files.append(file)
        write_parities(folder, files)
        record = manifest(candidate, shared, entries)
        write_json(folder / MANIFEST, record)
        write_card(folder)
        context.progress("exported", 1.0)
        return Exported(folder=folder, files=tuple(files), manifest=record)

    def _models(
        self, candidate: Candidate, task: Task, context: ExportContext
    ) -> Iterator[tuple[Candidate, onnx.ModelProto]]:
        """Yield the candidate in float32 with its model, then, if it is quantized, as it is with its own."""
        context.progress("exporting model.onnx", 0.0)
        example = torch.zeros(
            self.form.shape(candidate.preprocessing, 1),
            dtype=torch.uint8 if self.input == "uint8" else torch.float32,
        )
        network = PixelNetwork(copy.deepcopy(candidate.module), candidate.preprocessing, self.form).eval()
        opset, ir_version = _versions(min(self.opset, context.opset), context.ir_version)
        yield (
            candidate.replace(quantization=None),
            export_module(
                network,
                example,
                dynamic_batch=self.dynamic_batch,
                opset=opset,
                ir_version=ir_version,
                name=type(candidate.module).__name__,
            ),
        )
        if candidate.quantization is not None:
            tick = _ticking(context.progress)
            yield (
                candidate,
                export_int8(candidate, task.calibration, self.form, opset=opset, ir_version=ir_version, tick=tick),
            )

    def _checked(
        self, path: Path, candidate: Candidate, task: Task, precision: Precision, found: Audit
    ) -> ExportedFile:
        parity = compare(
            path,
            candidate.module,
            task.validation,
            candidate.preprocessing,
            precision=precision,
            images=self.parity_images,
        )
        return ExportedFile(
            path=path,
            precision=precision,
            num_bytes=path.stat().st_size,
            sha256=sha256(path),
            parity=parity,
            float_operators=found.float_convs + found.float_products,
        )


def _versions(opset: int, ir_version: int) -> tuple[int, int]:
    """Return the highest opset at most `opset` that `ir_version` can hold, and the lowest IR version that holds it.

    Raises:
        LoweringError: No opset that these networks can be written in is among them.
    """
    for candidate in range(opset, _OLDEST_OPSET - 1, -1):
        needed = int(helper.find_min_ir_version_for([helper.make_opsetid("", candidate)]))
        if needed <= ir_version:
            return candidate, needed
    raise LoweringError(
        f"the device loads ONNX opset {opset} and IR version {ir_version} at most, networks need opset {_OLDEST_OPSET}"
    )


def _ticking(progress: Progress) -> Callable[[float], None]:
    return lambda share: progress("measuring ranges for int8", 0.5 + 0.4 * share)
