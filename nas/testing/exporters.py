"""What every exporter must do: write files that run, compute what the network computes, and say what they are."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
import torch

from latency_models.backends.local import open_session
from nas.candidate import Candidate, Exported, ExportedFile
from nas.export.manifest import MANIFEST, opset_of, read_exported
from nas.export.metadata import Contract
from nas.export.parity import judge
from nas.export.running import run_file
from nas.export.verification import verify
from nas.protocols import EXPORTERS, ExportContext, Exporter
from nas.testing.contract import ContractError, kept, told
from nas.testing.options import check_options
from nas.testing.small_tasks import candidate, copy_of, task
from search_spaces.errors import NasError
from search_spaces.precision import QuantizationPlan

if TYPE_CHECKING:
    from pytest import TempPathFactory  # noqa: PT013 - only its type; whoever runs the kit has pytest

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

OLD_RUNTIME = ExportContext(opset=13, ir_version=7)
"""The oldest runtime that quantized networks can be written for: ONNX 1.8."""

_FLOAT32, _INT8 = None, QuantizationPlan()
_REPORTED = 1e-3
"""Greatest difference between the deviation that an exporter reports and ours, as a share of the largest logit."""


class ExporterContract:
    """Tests every exporter passes; a subclass defines the fixture `exporter`.

    The network is a trained one of 20,000 parameters (`small_tasks`), written in float32 and in 8 bits. Files are kept
    from one test to the next, so an exporter must be hashable. Files of another format than ONNX are run by `run`,
    which the subclass then defines; what only ONNX files have is asked of those alone.
    """

    def run(self, path: Path, images: Pixels) -> Logits:
        """Return the logits of raw pixels `n x height x width x channels` as a file computes them, `n x classes`."""
        return run_file(path, images)

    def test_options_are_a_value(self, exporter: Exporter) -> None:
        """Its options can be written in a run file."""
        check_options(exporter, EXPORTERS, Exporter)

    def test_the_folder_holds_what_was_returned(self, exporter: Exporter, tmp_path_factory: "TempPathFactory") -> None:
        """The manifest and the files are those that were told."""
        for plan in (_FLOAT32, _INT8):
            _check_folder(_written(exporter, plan, tmp_path_factory.getbasetemp()).exported, plan)

    def test_every_file_computes_what_the_network_computes(
        self, exporter: Exporter, tmp_path_factory: "TempPathFactory"
    ) -> None:
        """A file, run by itself, gives the network's logits: the parity that was reported is true."""
        for plan in (_FLOAT32, _INT8):
            for file in _written(exporter, plan, tmp_path_factory.getbasetemp()).exported.files:
                with told(f"{file.path.name} does not run"):
                    found = self.run(file.path, task().validation.images)
                _check_logits(file, found)

    def test_files_say_how_they_are_used(self, exporter: Exporter, tmp_path_factory: "TempPathFactory") -> None:
        """Input, normalization and classes stand in the file."""
        exported = _written(exporter, _INT8, tmp_path_factory.getbasetemp()).exported
        for file in _onnx_files(exported):
            _check_contract(file.path)
        if _onnx_files(exported):
            _check_verified(exported.folder)

    def test_probes_take_images_as_the_files_do(self, exporter: Exporter, tmp_path_factory: "TempPathFactory") -> None:
        """What a device is probed with has the input of what it will run."""
        for file in _onnx_files(_written(exporter, _INT8, tmp_path_factory.getbasetemp()).exported):
            _check_graph_input(exporter, file.path)

    def test_limits_of_the_runtime_are_kept(self, exporter: Exporter, tmp_path: Path) -> None:
        """An old runtime gets files that it loads, or a refusal in words; nothing of an earlier export is left."""
        _check_old_runtime(exporter, tmp_path)

    def test_the_given_candidate_stays_as_it_was(self, exporter: Exporter, tmp_path_factory: "TempPathFactory") -> None:
        """What was exported can be trained on."""
        _check_untouched(_written(exporter, _INT8, tmp_path_factory.getbasetemp()).given)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Written:
    """What was exported, and the export."""

    given: Candidate
    exported: Exported


@kept
def _written(exporter: Exporter, plan: QuantizationPlan | None, folder: Path) -> _Written:
    given = _given(plan)
    return _Written(
        given=given, exported=_export(exporter, given, Path(tempfile.mkdtemp(prefix="exported-", dir=folder)))
    )


def _given(plan: QuantizationPlan | None) -> Candidate:
    return copy_of(candidate()).replace(quantization=plan, stages=("quantize",) if plan else ())


def _export(
    exporter: Exporter,
    given: Candidate,
    folder: Path,
    context: ExportContext = ExportContext(),  # noqa: B008
) -> Exported:
    with told(f"a {given.precision} network cannot be exported"):
        exported = exporter.export(given, task(), folder, context)
    if not isinstance(exported, Exported):
        raise ContractError(f"`export` returns a {type(exported).__name__}, expected an Exported")
    return exported


def _onnx_files(exported: Exported) -> list[ExportedFile]:
    return [file for file in exported.files if file.path.suffix == ".onnx"]


def _check_folder(exported: Exported, plan: QuantizationPlan | None) -> None:
    precision = "float32" if plan is None else "int8"
    if not exported.files:
        raise ContractError("no file was written")
    if exported.files[0].precision != "float32" or exported.precision != precision:
        raise ContractError(
            f"files are {[file.precision for file in exported.files]}, expected float32 first and {precision} last"
        )
    for file in exported.files:
        if file.path.parent != exported.folder or not file.path.is_file():
            raise ContractError(f"{file.path.name} does not lie in the folder")
        content = file.path.read_bytes()
        if (file.num_bytes, file.sha256) != (len(content), hashlib.sha256(content).hexdigest()):
            raise ContractError(f"num_bytes or sha256 of {file.path.name} are not those of the file")
    if not (exported.folder / MANIFEST).is_file():
        raise ContractError(f"the folder holds no {MANIFEST}")
    with told("the folder cannot be read back"):
        again = read_exported(exported.folder)
    if again.files != exported.files:
        raise ContractError(f"{MANIFEST} tells of other files than were returned")
    if again.manifest != json.loads(json.dumps(exported.manifest)):
        raise ContractError(f"{MANIFEST} is not the manifest that was returned")


def _check_logits(file: ExportedFile, found: Logits) -> None:
    inputs = torch.from_numpy(task().preprocessing.normalize(task().validation.images))
    with torch.no_grad():
        expected = candidate().module(inputs).numpy()
    own = judge(expected, found, precision=file.precision)
    if not own.passed:
        raise ContractError(f"{file.path.name} does not compute what the network computes: {own.reason}")
    told_of = file.parity
    if not told_of.passed:
        raise ContractError(f"{file.path.name} computes what the network computes, its parity says: {told_of.reason}")
    if told_of.images < 1:
        raise ContractError(f"{file.path.name} was compared with the network on no image")
    off = abs(told_of.max_abs_difference - own.max_abs_difference)
    if told_of.images == own.images and off > _REPORTED * own.max_abs_logit:
        raise ContractError(
            f"{file.path.name} is off by {own.max_abs_difference:.3g}, its parity says {told_of.max_abs_difference:.3g}"
        )


def _check_contract(path: Path) -> None:
    texts = {item.key: item.value for item in onnx.load(path).metadata_props}
    with told(f"{path.name} does not say how it is used"):
        found = Contract.of(texts, path)
    if found.classes != task().classes:
        raise ContractError(f"{path.name} names the classes {found.classes}, the task {task().classes}")
    if found.preprocessing != task().preprocessing:
        raise ContractError(f"{path.name} says {found.preprocessing}, the candidate has {task().preprocessing}")


def _check_verified(folder: Path) -> None:
    for check in verify(folder):
        if not check.passed:
            raise ContractError(f"{check.file} fails the check of its {check.name}: {check.reason}")


def _check_graph_input(exporter: Exporter, path: Path) -> None:
    said = exporter.graph_input(task().preprocessing)
    node = open_session(path).get_inputs()[0]
    height, width, channels = task().validation.images.shape[1:]
    sides = [height, width, channels] if said.layout == "nhwc" else [channels, height, width]
    element = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[said.dtype]
    if node.type != element or list(node.shape[1:]) != sides:
        raise ContractError(f"graph_input says {element} {sides}, {path.name} takes {node.type} {node.shape[1:]}")
    batch = node.shape[0] if isinstance(node.shape[0], int) else None
    if batch != said.batch:
        raise ContractError(f"graph_input says batch {said.batch}, {path.name} takes {batch}")
    if said.dtype == "uint8" and (said.mean, said.std) != (task().preprocessing.mean, task().preprocessing.std):
        raise ContractError("graph_input has another normalization than the preprocessing that it was given")


def _check_old_runtime(exporter: Exporter, folder: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx", MANIFEST):
        (folder / name).write_text("of an earlier export")
    try:
        exported = exporter.export(_given(_INT8), task(), folder, OLD_RUNTIME)
    except NasError:
        return
    _check_folder(exported, _INT8)
    for file in _onnx_files(exported):
        model = onnx.load(file.path)
        found = (opset_of(model), int(model.ir_version))
        if found[0] > OLD_RUNTIME.opset or found[1] > OLD_RUNTIME.ir_version:
            raise ContractError(
                f"{file.path.name} has opset {found[0]} and IR version {found[1]}, the runtime loads "
                f"{OLD_RUNTIME.opset} and {OLD_RUNTIME.ir_version} at most"
            )


def _check_untouched(given: Candidate) -> None:
    after, before = given.module.state_dict(), candidate().module.state_dict()
    changed = [name for name in before if name not in after or not torch.equal(before[name], after[name])]
    if changed or after.keys() != before.keys():
        raise ContractError(f"{(changed or sorted(after.keys() - before.keys()))[0]} of the given module changed")
    if any(module.training for module in given.module.modules()):
        raise ContractError("the given module came back in training mode")
