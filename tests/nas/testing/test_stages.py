"""The contract of stages: an honest one passes, and each way of being wrong is told."""

import copy
import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from nas.protocols import STAGES
from nas.testing import ContractError, StageContract
from nas.testing.small_tasks import SIDE
from search_spaces.build import build

CONTRACT = StageContract()
CHECKS = [name for name in dir(StageContract) if name.startswith("test_")]


def noisier(module, generator):
    """Return a copy with slightly other weights of its last layer."""
    changed = copy.deepcopy(module)
    weight = changed.get_parameter("stages.2.1.linear.weight")
    with torch.no_grad():
        weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=generator))
    return changed


@dataclass(frozen=True)
class Honest:
    """A stage that conforms; its children break one rule each."""

    def apply(self, candidate, task, context):
        generator = torch.Generator().manual_seed(context.seed)
        context.progress("changing weights", 1.0)
        return candidate.replace(module=noisier(candidate.module, generator), notes=("other weights",))


class InPlace(Honest):
    def apply(self, candidate, task, context):
        with torch.no_grad():
            candidate.module.get_parameter("stages.0.0.conv.weight").mul_(2)
        return super().apply(candidate, task, context)


class Freezing(Honest):
    def apply(self, candidate, task, context):
        candidate.module.requires_grad_(requires_grad=False)
        return super().apply(candidate, task, context)


class LeftTraining(Honest):
    def apply(self, candidate, task, context):
        result = super().apply(candidate, task, context)
        return result.replace(module=result.module.train())


class Nothing(Honest):
    def apply(self, candidate, task, context):
        return candidate


class Modules(Honest):
    def apply(self, candidate, task, context):
        return super().apply(candidate, task, context).module


class Resized(Honest):
    def apply(self, candidate, task, context):
        result = super().apply(candidate, task, context)
        return result.replace(preprocessing=dataclasses.replace(result.preprocessing, height=2 * SIDE))


class Named(Honest):
    def apply(self, candidate, task, context):
        return super().apply(candidate, task, context).replace(stages=("of_a_test",))


class FewerClasses(Honest):
    def apply(self, candidate, task, context):
        result = super().apply(candidate, task, context)
        layer = result.module.stages[2][1].linear
        layer.weight, layer.bias = nn.Parameter(layer.weight[:3]), nn.Parameter(layer.bias[:3])
        return result


class Wider(Honest):
    """Says a wider network than its module is."""

    def apply(self, candidate, task, context):
        result = super().apply(candidate, task, context)
        (stem,), *rest = result.architecture.stages
        wider = dataclasses.replace(stem, width=stem.width + 8)
        return result.replace(architecture=dataclasses.replace(result.architecture, stages=((wider,), *rest)))


class OtherActivation(Honest):
    """Says a network with the module's counts that computes something else."""

    def apply(self, candidate, task, context):
        result = super().apply(candidate, task, context)
        (stem,), *rest = result.architecture.stages
        other = dataclasses.replace(stem, activation="hard_swish")
        return result.replace(architecture=dataclasses.replace(result.architecture, stages=((other,), *rest)))


class Unseeded(Honest):
    def apply(self, candidate, task, context):
        return candidate.replace(module=noisier(candidate.module, None))


class Remembering(Honest):
    """Goes on from what it left in its folder, wrongly."""

    def apply(self, candidate, task, context):
        path = context.folder / "left"
        again = path.exists()
        path.write_text("")
        result = super().apply(candidate, task, context)
        return result.replace(module=build(candidate.architecture, seed=0).eval()) if again else result


class Percent(Honest):
    def apply(self, candidate, task, context):
        context.progress("done", 100.0)
        return super().apply(candidate, task, context)


class BareFigures(Honest):
    def apply(self, candidate, task, context):
        return super().apply(candidate, task, context).replace(figures={"accuracy": 0.9})


class OneNote(Honest):
    def apply(self, candidate, task, context):
        return super().apply(candidate, task, context).replace(notes="other weights")


class Doubling(nn.Module):
    """Computes another thing for a batch than for one image, so that its file cannot be right."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        y = self.network(x)
        return y * torch.linspace(-3, 3, 4) if x.shape[0] > 1 else y


class Unexportable(Honest):
    def apply(self, candidate, task, context):
        result = super().apply(candidate, task, context)
        return result.replace(architecture=None, module=Doubling(result.module).eval())


class Raising(Honest):
    def apply(self, candidate, task, context):
        raise KeyError("no such layer")


@pytest.fixture
def stage(request, registered):
    return registered(STAGES, request.param())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("stage", [Honest], indirect=True, ids=["Honest"])
def test_an_honest_stage_passes(stage, check):
    getattr(CONTRACT, check)(stage)


BROKEN = [
    (InPlace, "the_given_candidate_stays_as_it_was", "stages.0.0.conv.weight of the given module changed: work on a"),
    (Freezing, "the_given_candidate_stays_as_it_was", "of the given module requires no gradient any more"),
    (LeftTraining, "inputs_and_classes_stay", "the module of the result is in training mode"),
    (Nothing, "inputs_and_classes_stay", "the result is the given candidate itself"),
    (Modules, "inputs_and_classes_stay", "`apply` returns a Network, expected a Candidate"),
    (Resized, "inputs_and_classes_stay", r"preprocessing is Preprocessing\(height=32"),
    (Named, "inputs_and_classes_stay", "the pipeline appends the stage's name"),
    (FewerClasses, "inputs_and_classes_stay", r"the result gives \(16, 3\), expected finite logits \(16, 4\)"),
    (Raising, "inputs_and_classes_stay", "cannot be applied to a trained network of blocks: KeyError"),
    (Wider, "the_result_says_what_it_is", "parameters, the architecture says"),
    (OtherActivation, "the_result_says_what_it_is", "the module executes other operators than the architecture says"),
    (Unseeded, "the_same_seed_gives_the_same_result", "a second time with the same seed, stages.2.1.linear.weight"),
    (Remembering, "its_own_folder_gives_the_same_result", "again in the folder that it left, .* differs"),
    (Percent, "figures_notes_and_progress_are_well_formed", "progress is told as 100.0, expected a share from 0 to 1"),
    (BareFigures, "figures_notes_and_progress_are_well_formed", "figure 'accuracy' is a float, expected a Measurement"),
    (OneNote, "figures_notes_and_progress_are_well_formed", "`notes` must be a tuple of sentences"),
    (Unexportable, "the_result_exports_and_passes_parity", "model.onnx of the result fails parity"),
]


@pytest.mark.parametrize(
    ("stage", "check", "reason"), BROKEN, indirect=["stage"], ids=lambda case: getattr(case, "__name__", "")
)
def test_a_broken_stage_is_told(stage, check, reason):
    with pytest.raises(ContractError, match=reason):
        getattr(CONTRACT, f"test_{check}")(stage)
