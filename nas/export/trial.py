"""How an 8-bit file would compare with its network, without writing one: what a stage asks many times."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import nn

from latency_models.backends.local import open_session
from latency_models.graph import Ranges, Weights, int8_model
from nas.candidate import Candidate, Parity
from nas.export.int8 import measured_ranges, stored_tensors
from nas.export.metadata import Contract
from nas.export.parity import judge
from nas.export.preprocessing import InputForm
from nas.export.running import run_session
from nas.task import Task
from nas.train.evaluate import predict

_FORM = InputForm()


@dataclass(slots=True)
class Trial:
    """Compares the 8-bit form of candidates with their network on validation images; `StageContext.compare`.

    What does not depend on the plan, the network's logits and the ranges of its tensors, is computed once for
    candidates that share a module.

    Attributes:
        task: Gives validation and calibration images.
        images: Validation images to compare on.
    """

    task: Task
    images: int = 512
    _known: "_Network | None" = field(default=None, init=False, repr=False)

    def __call__(self, candidate: Candidate) -> Parity:
        """Return the comparison; raises ValueError for a candidate without a quantization plan."""
        if candidate.quantization is None:
            raise ValueError("a candidate without a quantization plan has no 8-bit file to compare")
        if self._known is None or self._known.module is not candidate.module:
            self._known = self._measured(candidate)
        known = self._known
        model = int8_model(
            candidate.workload(),
            plan=candidate.quantization,
            graph_input=_FORM.graph_input(candidate.preprocessing),
            weights=known.weights,
            ranges=known.ranges,
        )
        contract = Contract(form=_FORM, preprocessing=candidate.preprocessing, classes=self.task.classes)
        found = run_session(open_session(model.SerializeToString()), contract, self._pixels())
        return judge(known.logits, found, precision="int8")

    def _measured(self, candidate: Candidate) -> "_Network":
        weights = stored_tensors(candidate.module)
        return _Network(
            module=candidate.module,
            weights=weights,
            ranges=measured_ranges(candidate, weights, self.task.calibration),
            logits=predict(candidate.module, self._pixels(), candidate.preprocessing, device="cpu"),
        )

    def _pixels(self) -> npt.NDArray[np.uint8]:
        return np.asarray(self.task.validation.images[: self.images])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Network:
    module: nn.Module
    weights: Weights
    ranges: Ranges
    logits: npt.NDArray[np.float32]
