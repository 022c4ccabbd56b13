"""The contract of exporters: copies of good files pass, and each way of being wrong is told."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from nas.export.manifest import MANIFEST, read_exported
from nas.export.onnx import OnnxExporter
from nas.protocols import EXPORTERS, ExportContext
from nas.testing import ContractError, ExporterContract
from nas.testing.small_tasks import candidate, task
from search_spaces.precision import QuantizationPlan

CONTRACT = ExporterContract()


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """Folders of good files by precision, made once: an export takes seconds."""
    folder = tmp_path_factory.mktemp("good")
    for precision, plan in (("float32", None), ("int8", QuantizationPlan())):
        given = candidate().replace(quantization=plan, stages=("quantize",) if plan else ())
        OnnxExporter().export(given, task(), folder / precision, ExportContext())
    return folder


@dataclass(frozen=True)
class Copying:
    """An exporter whose files are those of `good`; its children break one rule each."""

    good: str

    def graph_input(self, preprocessing):
        return OnnxExporter().graph_input(preprocessing)

    def export(self, candidate, task, folder, context):
        shutil.copytree(Path(self.good) / candidate.precision, folder, dirs_exist_ok=True)
        return read_exported(folder)


class OtherHash(Copying):
    def export(self, candidate, task, folder, context):
        exported = super().export(candidate, task, folder, context)
        with exported.model.open("ab") as file:
            file.write(b"\0\0")
        return exported


class NoManifest(Copying):
    def export(self, candidate, task, folder, context):
        exported = super().export(candidate, task, folder, context)
        (folder / MANIFEST).unlink()
        return exported


class WrongPrecision(Copying):
    def export(self, candidate, task, folder, context):
        exported = super().export(candidate, task, folder, context)
        return dataclasses.replace(exported, files=exported.files[:1])


class Elsewhere(Copying):
    def export(self, candidate, task, folder, context):
        return dataclasses.replace(super().export(candidate, task, folder, context), folder=folder.parent)


class Raising(Copying):
    def export(self, candidate, task, folder, context):
        raise KeyError("no such operator")


class Edited(Copying):
    """Changes its files after they were checked."""

    def export(self, candidate, task, folder, context):
        exported = super().export(candidate, task, folder, context)
        for file in exported.files:
            model = onnx.load(file.path)
            self.edit(model)
            file.path.write_bytes(model.SerializeToString())
        return exported


class OtherWeights(Edited):
    def edit(self, model):
        largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))


class Mute(Edited):
    def edit(self, model):
        del model.metadata_props[:]


class OtherClasses(Edited):
    def edit(self, model):
        for item in model.metadata_props:
            item.value = item.value.replace("across", "cross")


class Flattering(Copying):
    def export(self, candidate, task, folder, context):
        exported = super().export(candidate, task, folder, context)
        files = [
            dataclasses.replace(file, parity=dataclasses.replace(file.parity, max_abs_difference=0.0))
            for file in exported.files
        ]
        return dataclasses.replace(exported, files=tuple(files))


class Planar(Copying):
    def graph_input(self, preprocessing):
        return dataclasses.replace(super().graph_input(preprocessing), layout="nchw")


class AnyBatch(Copying):
    def graph_input(self, preprocessing):
        return dataclasses.replace(super().graph_input(preprocessing), batch=None)


class LeftTraining(Copying):
    def export(self, candidate, task, folder, context):
        candidate.module.train()
        return super().export(candidate, task, folder, context)


class Folding(Copying):
    def export(self, candidate, task, folder, context):
        candidate.module.stages[0][0].norm.weight.data.fill_(1.0)
        return super().export(candidate, task, folder, context)


@pytest.fixture
def exporter(request, registered, good):
    return registered(EXPORTERS, request.param(str(good)))


def check(name, exporter, tmp_path, tmp_path_factory):
    test = getattr(CONTRACT, f"test_{name}")
    known = {"exporter": exporter, "tmp_path": tmp_path, "tmp_path_factory": tmp_path_factory}
    names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    test(**{argument: known[argument] for argument in names})


HELD = [
    "options_are_a_value",
    "the_folder_holds_what_was_returned",
    "every_file_computes_what_the_network_computes",
    "files_say_how_they_are_used",
    "probes_take_images_as_the_files_do",
    "the_given_candidate_stays_as_it_was",
]


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("exporter", [Copying], indirect=True, ids=["Copying"])
def test_good_files_pass(exporter, name, tmp_path, tmp_path_factory):
    check(name, exporter, tmp_path, tmp_path_factory)


BROKEN = [
    (OtherHash, "the_folder_holds_what_was_returned", "num_bytes or sha256 of model.onnx are not those of the file"),
    (NoManifest, "the_folder_holds_what_was_returned", "the folder holds no manifest.json"),
    (WrongPrecision, "the_folder_holds_what_was_returned", r"files are \['float32'\], expected float32 first and int8"),
    (Elsewhere, "the_folder_holds_what_was_returned", "model.onnx does not lie in the folder"),
    (Raising, "the_folder_holds_what_was_returned", "a float32 network cannot be exported: KeyError"),
    (OtherWeights, "every_file_computes_what_the_network_computes", "does not compute what the network computes"),
    (Flattering, "every_file_computes_what_the_network_computes", r"model.int8.onnx is off by .*, its parity says 0"),
    (Mute, "files_say_how_they_are_used", "model.onnx does not say how it is used: RunError"),
    (OtherClasses, "files_say_how_they_are_used", r"names the classes \('cross', "),
    (Planar, "probes_take_images_as_the_files_do", r"graph_input says tensor\(uint8\) \[3, 16, 16\], model.onnx takes"),
    (AnyBatch, "probes_take_images_as_the_files_do", "graph_input says batch None, model.onnx takes 1"),
    (Copying, "limits_of_the_runtime_are_kept", "has opset 18 and IR version 8, the runtime loads 13 and 7 at most"),
    (LeftTraining, "the_given_candidate_stays_as_it_was", "the given module came back in training mode"),
    (Folding, "the_given_candidate_stays_as_it_was", "stages.0.0.norm.weight of the given module changed"),
]


@pytest.mark.parametrize(
    ("exporter", "name", "reason"), BROKEN, indirect=["exporter"], ids=lambda case: getattr(case, "__name__", "")
)
def test_a_broken_exporter_is_told(exporter, name, reason, tmp_path, tmp_path_factory):
    with pytest.raises(ContractError, match=reason):
        check(name, exporter, tmp_path, tmp_path_factory)
