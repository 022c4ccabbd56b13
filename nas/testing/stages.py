"""What every compression stage must do: return a new candidate that is what it says, and leave the old one alone."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nas.candidate import Candidate
from nas.export.onnx import OnnxExporter
from nas.export.trial import Trial
from nas.protocols import STAGES, ExportContext, Stage, StageContext
from nas.testing.contract import ContractError, kept, sampled, told
from nas.testing.options import check_options
from nas.testing.small_tasks import TRAIN, candidate, copy_of, other_global_seed, task, teacher
from search_spaces import counts
from search_spaces.build import build
from search_spaces.lowering import lower, record
from search_spaces.measurement import Measurement
from search_spaces.workload import Workload

IMAGES = 16
"""Validation images on which two networks are compared."""


class StageContract:
    """Tests every stage passes; a subclass defines the fixture `stage`, with options that train for seconds.

    The candidate is a network of 20,000 parameters that knows four classes of stripes (`small_tasks`); there is a
    teacher, latency is counted in MACs, and 8-bit files can be compared. Results are kept from one test to the next,
    so a stage must be hashable.
    """

    def test_options_are_a_value(self, stage: Stage) -> None:
        """Its options can be written in a run file."""
        check_options(stage, STAGES, Stage)

    def test_the_given_candidate_stays_as_it_was(self, stage: Stage) -> None:
        """The caller can go back to what it gave, module included."""
        _check_untouched(_applied(stage))

    def test_inputs_and_classes_stay(self, stage: Stage) -> None:
        """The result takes the same images and names the same classes, in evaluation mode and on the CPU."""
        _check_kept(_applied(stage))

    def test_the_result_says_what_it_is(self, stage: Stage) -> None:
        """Its architecture lowers to what its module computes."""
        _check_described(_applied(stage).result)

    def test_figures_notes_and_progress_are_well_formed(self, stage: Stage) -> None:
        """What it tells can be written into a report."""
        _check_told(_applied(stage))

    def test_the_same_seed_gives_the_same_result(self, stage: Stage) -> None:
        """Chance comes from the context's seed alone."""
        with other_global_seed():
            again = _apply(stage)
        _require_equal(_applied(stage).result, again.result, "a second time with the same seed")

    def test_its_own_folder_gives_the_same_result(self, stage: Stage) -> None:
        """What it finds of itself in its folder, after an interruption, changes nothing."""
        with tempfile.TemporaryDirectory() as folder:
            _apply(stage, Path(folder))
            again = _apply(stage, Path(folder))
        _require_equal(_applied(stage).result, again.result, "again in the folder that it left")

    def test_the_result_exports_and_passes_parity(self, stage: Stage) -> None:
        """A file of it computes what its module computes."""
        _check_exported(_applied(stage).result)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Applied:
    """One application, with what it told on the way."""

    given: Candidate
    result: Candidate
    shares: tuple[float, ...]


@kept
def _applied(stage: Stage) -> _Applied:
    return _apply(stage)


def _apply(stage: Stage, folder: Path | None = None) -> _Applied:
    """Apply a stage to a copy of the candidate, in `folder` or one that is thrown away."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return _apply(stage, Path(made))
    given, shares = copy_of(candidate()), list[float]()
    context = StageContext(
        train=TRAIN,
        seed=1,
        folder=folder,
        predict_ms=_predict_ms,
        alignment=8,
        teacher=copy_of(teacher()),
        compare=Trial(task()),
        progress=lambda _label, share: shares.append(share),
    )
    with told("the stage cannot be applied to a trained network of blocks"):
        result = stage.apply(given, task(), context)
    if not isinstance(result, Candidate):
        raise ContractError(f"`apply` returns a {type(result).__name__}, expected a Candidate")
    return _Applied(given=given, result=result, shares=tuple(shares))


def _predict_ms(workload: Workload) -> float:
    return 0.05 + counts.macs(workload) / 1e6


def _check_untouched(applied: _Applied) -> None:
    given, before = applied.given, candidate()
    changed = [
        name
        for name in ("architecture", "preprocessing", "quantization", "stages", "figures", "notes")
        if getattr(given, name) != getattr(before, name)
    ]
    if changed:
        raise ContractError(f"{', '.join(changed)} of the given candidate changed")
    if (name := _difference(given.module, before.module)) is not None:
        raise ContractError(f"{name} of the given module changed: work on a copy.deepcopy of it")
    if any(module.training for module in given.module.modules()):
        raise ContractError("the given module came back in training mode")
    frozen = [name for name, parameter in given.module.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise ContractError(f"{frozen[0]} of the given module requires no gradient any more")


def _check_kept(applied: _Applied) -> None:
    result, given = applied.result, applied.given
    if result is given:
        raise ContractError("the result is the given candidate itself; return candidate.replace(...)")
    if result.preprocessing != given.preprocessing:
        raise ContractError(f"preprocessing is {result.preprocessing}, the candidate had {given.preprocessing}")
    if result.stages != given.stages:
        raise ContractError(f"`stages` is {result.stages}; the pipeline appends the stage's name, the stage does not")
    if any(module.training for module in result.module.modules()):
        raise ContractError("the module of the result is in training mode")
    away = {tensor.device.type for tensor in result.module.state_dict().values()} - {"cpu"}
    if away:
        raise ContractError(f"the module of the result lies on {', '.join(away)}, expected the CPU")
    logits = _logits(result)
    if logits.shape != (IMAGES, len(task().classes)) or not bool(torch.isfinite(logits).all()):
        raise ContractError(
            f"the result gives {tuple(logits.shape)}, expected finite logits {(IMAGES, len(task().classes))}"
        )


def _check_described(result: Candidate) -> None:
    parameters = sum(parameter.numel() for parameter in result.module.parameters())
    with told("the module cannot be lowered"):
        executed = record(result.module, result.preprocessing.input_shape)
    if result.architecture is None:
        if (counted := counts.parameters(executed)) != parameters:
            raise ContractError(f"the module has {parameters} parameters, of which it uses {counted}")
        return
    with sampled(result.architecture.to_json()):
        _check_architecture(result, executed, parameters)


def _check_architecture(result: Candidate, executed: Workload, parameters: int) -> None:
    assert result.architecture is not None
    raw = lower(result.architecture)
    for name, said, found in (
        ("parameters", counts.parameters(raw), parameters),
        ("MACs", counts.macs(raw), counts.macs(executed)),
    ):
        if said != found:
            raise ContractError(f"the module has {found} {name}, the architecture says {said}")
    if [op.kind for op in raw] != [op.kind for op in executed]:
        raise ContractError("the module executes other operators than the architecture says")
    if result.architecture.input_shape != result.preprocessing.input_shape:
        raise ContractError(
            f"the architecture takes {result.architecture.input_shape}, its preprocessing gives "
            f"{result.preprocessing.input_shape}"
        )
    with told("the architecture, built anew, does not take the weights of the module"):
        network = build(result.architecture)
        network.load_state_dict(result.module.state_dict())
    if not torch.equal(_logits(result.replace(module=network.eval())), _logits(result)):
        raise ContractError("the architecture, built anew with the weights of the module, computes something else")


def _check_told(applied: _Applied) -> None:
    for name, figure in applied.result.figures.items():
        if not isinstance(name, str) or not isinstance(figure, Measurement):
            raise ContractError(f"figure {name!r} is a {type(figure).__name__}, expected a Measurement")
    if not isinstance(applied.result.notes, tuple) or not all(isinstance(note, str) for note in applied.result.notes):
        raise ContractError(f"`notes` must be a tuple of sentences, got {applied.result.notes!r}")
    wrong = [share for share in applied.shares if not 0.0 <= share <= 1.0]
    if wrong:
        raise ContractError(f"progress is told as {wrong[0]}, expected a share from 0 to 1")


def _check_exported(result: Candidate) -> None:
    with tempfile.TemporaryDirectory() as folder, told("the result cannot be exported"):
        exported = OnnxExporter().export(result, task(), Path(folder), ExportContext())
    for file in exported.files:
        if not file.parity.passed:
            raise ContractError(f"{file.path.name} of the result fails parity: {file.parity.reason}")


def _require_equal(one: Candidate, two: Candidate, when: str) -> None:
    for name in ("architecture", "quantization", "figures", "notes"):
        if getattr(one, name) != getattr(two, name):
            raise ContractError(
                f"applied {when}, its {name} differs: {getattr(one, name)!r} became {getattr(two, name)!r}"
            )
    if (changed := _difference(one.module, two.module)) is not None:
        raise ContractError(f"applied {when}, {changed} differs")


def _difference(one: nn.Module, two: nn.Module) -> str | None:
    """Return the first name of a tensor that two modules do not share; None where they are equal bit for bit."""
    left, right = one.state_dict(), two.state_dict()
    if left.keys() != right.keys():
        return min(left.keys() ^ right.keys())
    return next((name for name in left if not torch.equal(left[name], right[name])), None)


def _logits(known: Candidate) -> torch.Tensor:
    images = known.preprocessing.normalize(task().validation.images[:IMAGES])
    with torch.no_grad(), told("the module does not take the images of the task"):
        logits: torch.Tensor = known.module(torch.from_numpy(images))
    return logits
