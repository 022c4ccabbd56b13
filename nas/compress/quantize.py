"""Int8 quantization: which scheme, and which blocks stay float.

The stage decides the plan, and measures what it costs; the exporter turns the plan into a file. There is no training
here and no second quantizer; candidates are compared as the exporter would write them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from nas.candidate import Candidate, Parity
from nas.protocols import STAGES, StageContext
from nas.task import Task
from search_spaces.errors import ConfigError, near_matches
from search_spaces.measurement import Measurement
from search_spaces.precision import QuantizationPlan
from search_spaces.workload import Workload

Compare = Callable[[Candidate], Parity]

_HEAVY = frozenset({"conv", "linear"})
_LARGEST_BLOCK = 5
"""Layers with weights in a block: expansion, depthwise, two of squeeze-excitation, projection."""


@STAGES.register("quantize")
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    """Quantizes weights and activations to 8 bits without training, ranges measured on the calibration split.

    The scheme is the device's. Where 8 bits cost too much, the blocks that cost most can stay float: a block's cost
    is how far the error falls when it alone is float and all others have 8 bits. That is what mixed-precision
    search estimates from the Hessian (HAWQ, Dong et al. 2019, arXiv:1905.03696), measured on the logits of the file
    instead. Whole blocks rather than layers, since it takes both neighbours of a tensor to keep it out of 8 bits.
    Every float block costs time, so none stays float before agreement asks for it.

    How many images calibrate is said where the calibration split is made (`calibration_images` of the data).

    Attributes:
        per_channel: Whether each output channel of a weight has its own scale; None for as the device wants it.
        reduce_range: Whether weights use 7 bits; None for as the device wants it.
        keep_float: Paths of modules that stay float, with all that is in them, such as "stages.0.0".
        most_float: Blocks that may stay float beyond those when agreement is too low; 0 for none.
        agreement: Share of validation images on which the 8-bit file should name the network's class.
    """

    per_channel: bool | None = None
    reduce_range: bool | None = None
    keep_float: tuple[str, ...] = ()
    most_float: int = 0
    agreement: float = 0.98

    buys_time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.most_float < 0:
            raise ValueError(f"most_float must not be negative, got {self.most_float}")
        if not 0 < self.agreement <= 1:
            raise ValueError(f"agreement is a share of images in (0, 1], got {self.agreement}")

    def apply(self, candidate: Candidate, task: Task, context: StageContext) -> Candidate:
        """Return the candidate with a quantization plan; the module is the same one.

        Raises:
            ConfigError: `keep_float` names no module, or blocks may stay float and nothing can compare files.
        """
        if self.most_float and context.compare is None:
            raise ConfigError("most_float needs an exporter to compare 8-bit files with the network: leave it at 0")
        workload = candidate.replace(quantization=None).workload()
        planned = candidate.replace(quantization=self._plan(workload, context.quantization), figures={}, notes=())
        if context.compare is None:
            return planned
        if not self.most_float:
            return _told(planned, context.compare(planned), ())
        return self._rolled_back(planned, context.compare, context)

    def _plan(self, workload: Workload, device: QuantizationPlan) -> QuantizationPlan:
        return replace(
            device,
            per_channel=device.per_channel if self.per_channel is None else self.per_channel,
            reduce_range=device.reduce_range if self.reduce_range is None else self.reduce_range,
            keep_float=tuple(dict.fromkeys((*device.keep_float, *_scopes_within(workload, self.keep_float)))),
        )

    def _rolled_back(self, candidate: Candidate, compare: Compare, context: StageContext) -> Candidate:
        """Keep blocks float, the worst first, until agreement is reached or no more may stay float."""
        parity = first = compare(candidate)
        if parity.agreement >= self.agreement:
            return _told(candidate, parity, ())
        best, kept = candidate, list[str]()
        for block in _worst_first(candidate, compare, context)[: self.most_float]:
            kept.append(block)
            best = _with_float(best, block)
            parity = compare(best)
            if parity.agreement >= self.agreement:
                break
        if parity.agreement <= first.agreement:
            return _told(candidate, first, (f"keeping {', '.join(kept)} float did not raise agreement",))
        return _told(best, parity, (f"left float, the most sensitive first: {', '.join(kept)}",))


def _worst_first(candidate: Candidate, compare: Compare, context: StageContext) -> Sequence[str]:
    """Return blocks in the order of how far the error falls when that block alone stays float."""
    blocks = _blocks(candidate.workload())
    error = {}
    for number, block in enumerate(blocks):
        error[block] = compare(_with_float(candidate, block)).relative_rms
        context.progress("measuring which blocks are sensitive to 8 bits", (number + 1) / len(blocks))
    return sorted(blocks, key=lambda block: error[block])


def _blocks(workload: Workload) -> list[str]:
    """Return the blocks that hold 8-bit weights, in order."""
    heavy = list(dict.fromkeys(op.scope for op in workload.flat().ops if op.kind in _HEAVY and op.dtype == "int8"))
    if len(workload.scopes) > 1:
        return [block for block in workload.scopes if any(_is_within(scope, block) for scope in heavy)]
    return list(dict.fromkeys(_enclosing(scope, heavy) for scope in heavy))


def _enclosing(layer: str, heavy: Sequence[str]) -> str:
    """Return the largest module around a layer that is no larger than the blocks of mobile networks are."""
    names = layer.split(".")
    around = (".".join(names[:depth]) for depth in range(1, len(names)))
    small = (module for module in around if sum(_is_within(scope, module) for scope in heavy) <= _LARGEST_BLOCK)
    return next(small, layer)


def _with_float(candidate: Candidate, block: str) -> Candidate:
    plan = candidate.quantization
    assert plan is not None, "a candidate without a plan is float throughout"
    scopes = _scopes_within(candidate.workload(), (block,))
    return candidate.replace(quantization=replace(plan, keep_float=(*plan.keep_float, *scopes)))


def _told(candidate: Candidate, parity: Parity, notes: tuple[str, ...]) -> Candidate:
    """Return the candidate with what the comparison found as figures and notes."""
    if not math.isfinite(parity.relative_rms):
        return candidate.replace(notes=(*notes, parity.reason))
    source = f"{parity.images} validation images"
    known = {"int8_agreement": parity.agreement, "int8_relative_error": parity.relative_rms}
    figures = {
        name: Measurement(value=value, unit="1", origin="measured", source=source) for name, value in known.items()
    }
    return candidate.replace(figures=figures, notes=notes)


def _scopes_within(workload: Workload, modules: Sequence[str]) -> list[str]:
    """Return the scopes of all operators within the modules named; raises ConfigError for a name that is none."""
    scopes = list(dict.fromkeys(op.scope for op in workload.flat().ops))
    found: list[str] = []
    for module in modules:
        within = [scope for scope in scopes if _is_within(scope, module)]
        if not within:
            raise ConfigError(f"keep_float: the network has no module {module!r}: {near_matches(module, scopes)}")
        found += within
    return found


def _is_within(scope: str, module: str) -> bool:
    return scope == module or scope.startswith(f"{module}.")
