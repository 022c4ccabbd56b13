"""What flows from search to file: an architecture, then weights, then a plan, then exported files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from nas.task import Preprocessing
from search_spaces.architecture import Architecture
from search_spaces.lowering import lower, record
from search_spaces.measurement import Measurement
from search_spaces.precision import Precision, QuantizationPlan, with_precision
from search_spaces.workload import Workload

Verdict = Literal["kept", "reverted", "failed", "not worth it"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What one stage did to a candidate: its options, the figures before and after, and the gate's verdict.

    Attributes:
        stage: Registered name of the stage.
        options: The stage's fields.
        before: Figures before, by name: the task's metric, latency_ms, weight_bytes, macs, parameters, ...
        after: The same figures after, of the exported file.
        verdict: What the gate decided.
        reason: One sentence that says why.
        seconds: Wall time.
        figures: What else the stage measured, by name, such as the metric of a control.
        notes: Sentences of the stage about what it did and what it left alone.
    """

    stage: str
    options: Mapping[str, Any]  # Any: JSON values
    before: Mapping[str, Measurement]
    after: Mapping[str, Measurement]
    verdict: Verdict
    reason: str
    seconds: float
    figures: Mapping[str, Measurement] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form, as in `record.json`."""
        return {
            "stage": self.stage,
            "options": dict(self.options),
            "before": {name: known.to_dict() for name, known in self.before.items()},
            "after": {name: known.to_dict() for name, known in self.after.items()},
            "verdict": self.verdict,
            "reason": self.reason,
            "seconds": self.seconds,
            "figures": {name: known.to_dict() for name, known in self.figures.items()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A network with weights. A stage returns a new candidate and leaves the old one, module included, as it was.

    Attributes:
        architecture: The network as a value; None once a stage has left the block vocabulary.
        module: The same network with weights, in evaluation mode, on the CPU.
        preprocessing: How an image becomes its input.
        quantization: How the exporter shall quantize it; None for float32.
        stages: Names of the stages that made it, in order.
        figures: What the stage that made it measured; the pipeline moves it into that stage's record.
        notes: Sentences of that stage, likewise.
    """

    architecture: Architecture | None
    module: nn.Module
    preprocessing: Preprocessing
    quantization: QuantizationPlan | None = None
    stages: tuple[str, ...] = ()
    figures: Mapping[str, Measurement] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def precision(self) -> Precision:
        """What the exported file ships in."""
        return "float32" if self.quantization is None else "int8"

    def workload(self) -> Workload:
        """Return the fused workload at the precision that ships."""
        if self.architecture is not None:
            raw = lower(self.architecture)
        else:
            raw = record(self.module, self.preprocessing.input_shape)
        return with_precision(raw, self.quantization)

    def replace(self, **changes: Any) -> "Candidate":  # Any: the fields of a candidate
        """Return a candidate with other fields."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """How an exported file computes on the device, beside the same file on this machine, on validation images.

    Attributes:
        device: Its name.
        images: Number of images.
        agreement: Share of images with equal top-1.
        accuracy: Share of images that the device classifies rightly.
        accuracy_here: Share that this machine does.
        max_abs_difference: Largest difference of a logit.
    """

    device: str
    images: int
    agreement: float
    accuracy: float
    accuracy_here: float
    max_abs_difference: float

    def sentence(self) -> str:
        """Return the comparison in words."""
        return (
            f"on {self.device} the file names the same class as here on {self.agreement:.2%} of {self.images} images "
            f"and is right on {self.accuracy:.2%} (here {self.accuracy_here:.2%})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How an exported file compares with the network it was made from, on validation images.

    Attributes:
        images: Number of images compared.
        max_abs_difference: Largest difference of a logit.
        max_abs_logit: Largest absolute logit of the network, the scale of that difference.
        relative_rms: Root mean square of the differences over that of the network's logits, each image's mean
            logit taken off.
        agreement: Share of images with equal top-1.
        ties: Images whose top two logits lie closer together than the largest difference.
        passed: Whether the file may ship.
        reason: One sentence; says what failed.
        on_device: The file on the device itself, where that is another machine that takes inputs.
    """

    images: int
    max_abs_difference: float
    max_abs_logit: float
    relative_rms: float
    agreement: float
    ties: int
    passed: bool
    reason: str
    on_device: OnDevice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """One model file and how it compares with the network.

    Attributes:
        path: Where it is.
        precision: What it computes in.
        num_bytes: Its size.
        sha256: Hash of its bytes, 64 hex digits.
        parity: The comparison with the network.
        float_operators: Convolutions and matrix products that the runtime computes in float; 0 is the bar for an
            8-bit file, less what its plan keeps float.
    """

    path: Path
    precision: Precision
    num_bytes: int
    sha256: str
    parity: Parity
    float_operators: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Files written for one candidate.

    Attributes:
        folder: Where they are.
        files: The float32 file first; the last is of the candidate's precision.
        manifest: What `manifest.json` holds.
    """

    folder: Path
    files: tuple[ExportedFile, ...]
    manifest: Mapping[str, Any]  # Any: JSON values

    @property
    def model(self) -> Path:
        """The file of the candidate's precision."""
        return self.files[-1].path

    @property
    def precision(self) -> Precision:
        """Of that file."""
        return self.files[-1].precision

    @property
    def num_bytes(self) -> int:
        """Size of that file."""
        return self.files[-1].num_bytes

    @property
    def parity(self) -> Parity:
        """Comparison of that file with the network."""
        return self.files[-1].parity
