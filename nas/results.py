"""Everything a run found out, as one value: the report is drawn from it, and `results.json` holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from nas.candidate import Parity, StageRecord
from nas.run import write_atomic
from search_spaces.errors import RunError
from search_spaces.measurement import Measurement

SCHEMA = 1

Figures = Mapping[str, Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedNetwork:
    """One network the search trained.

    Attributes:
        key: Of its architecture.
        values: Its choices.
        metric: On validation, at its highest rung.
        rung: That rung, from 0.
        precision: What it would ship in.
        figures: Predicted latency and counts, in that precision.
        objective: What was minimized: predicted milliseconds, or MACs on a device without timing.
        on_front: Whether it is on the search's front.
        failed: Why training failed; empty where it did not.
    """

    key: str
    values: Mapping[str, int | float | str | bool]
    metric: Measurement
    rung: int
    precision: str
    figures: Figures
    objective: float
    on_front: bool
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """How one search went.

    Attributes:
        sampler: Who proposed.
        networks: What was trained, in order.
        skipped: Predicted latency (or MACs) of proposals that were never trained, and the limits they exceed.
        duplicates: Proposals answered from the log.
        feasible_share: Share of random networks of the space that fit the budget.
        space_size: Number of choice vectors, as text since it exceeds 64 bits.
        hypervolume: Of metric above `reference_metric` and latency below `reference_objective`.
        reference_metric: Least metric that counts.
        reference_objective: Greatest latency that counts.
        complete: Whether as many networks were trained as asked for.
        seconds: Wall time.
        rung_epochs: Epochs at the end of each rung; empty where training was not truncated.
    """

    sampler: str
    networks: tuple[SearchedNetwork, ...]
    skipped: tuple[tuple[float, tuple[str, ...]], ...]
    duplicates: int
    feasible_share: float
    space_size: str
    hypervolume: float
    reference_metric: float
    reference_objective: float
    complete: bool
    seconds: float
    rung_epochs: tuple[int, ...] = ()

    @property
    def minimized(self) -> Literal["latency_ms", "macs"]:
        """The figure that every `objective` is: predicted latency, or MACs on a device without timing."""
        return "latency_ms" if any("latency_ms" in network.figures for network in self.networks) else "macs"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFit:
    """How well the latency model of one precision predicts networks left out of its fit.

    Attributes:
        precision: Of the files.
        networks: Number of timed networks.
        within_5: Share predicted within 5 %.
        within_10: Share predicted within 10 %.
        mape: Mean absolute relative error, as a share.
        lanes: Channels of the vector unit that cross-validation chose.
        predicted_ms: Left-out predictions.
        measured_ms: Their measurements.
        delivered_predicted_ms: Predictions for files the run wrote.
        delivered_measured_ms: Their measurements.
        delivered_files: Their paths below the run directory; empty where nobody names them.
        preferred_predicted_ms: Predictions, as the search had them, for networks that it preferred and that were timed
            before finalists were chosen.
        preferred_measured_ms: Their measurements, at the level of the profile's session.
        origin: How the "measured" figures are known: measured, tabulated, estimated.
    """

    precision: str
    networks: int
    within_5: float
    within_10: float
    mape: float
    lanes: int
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    delivered_predicted_ms: tuple[float, ...] = ()
    delivered_measured_ms: tuple[float, ...] = ()
    delivered_files: tuple[str, ...] = ()
    preferred_predicted_ms: tuple[float, ...] = ()
    preferred_measured_ms: tuple[float, ...] = ()
    origin: str = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredFile:
    """One exported file and what it does.

    Attributes:
        file: Its path below the run directory.
        precision: float32 or int8.
        figures: metric (validation), test_metric, latency_ms, p50_ms, p95_ms, p99_ms, sustained_ms, file_bytes,
            weight_bytes, peak_memory_bytes, macs, parameters: those that are known. `latency_ms` is the best known of
            its origin; `predicted_ms` is what the latency model said before a file with a measured one was timed;
            `session_level` is by what factor the session that timed it was slower than the one that probed.
        parity: The comparison with the network it was made from.
        label: Empty, or "smaller, not faster".
        recalls: Per-class recall on the test split, in the order of the classes; NaN-free, -1 where a class has
            no image.
        confusion: Test images by true class and predicted class.
        float_operators: Convolutions and matrix products that run in float within an int8 file.
    """

    file: str
    precision: str
    figures: Figures
    parity: Parity
    label: str = ""
    recalls: tuple[float, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    float_operators: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A network that went through training, stages and export: found by search or made by hand.

    Attributes:
        name: Such as "search 1" or "MobileNetV2 x0.35".
        family: "search", or the hand-made family.
        key: Of the architecture it started as.
        final_key: Of the architecture that was delivered; empty where it is none.
        architecture: JSON of the delivered architecture; empty where it is none.
        stages: What was done to it.
        files: What was delivered, the file that ships first.
        meets_budget: Whether the delivered file does, by measurement where the device can measure.
        budget_reason: One sentence: which limits, and by how much.
        counted_by_fvcore: MACs of convolutions and linear layers and parameters, counted independently.
        seconds: Wall time of its training and stages.
        notes: Sentences worth a reader's time.
        starts: What the weights of `train.init` were worth, on validation before any stage: the metric "pretrained",
            that of the same training "from_scratch", and the "gain"; empty where training starts from random weights.
    """

    name: str
    family: str
    key: str
    final_key: str
    architecture: str
    stages: tuple[StageRecord, ...]
    files: tuple[DeliveredFile, ...]
    meets_budget: bool
    budget_reason: str
    counted_by_fvcore: Figures = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    starts: Figures = field(default_factory=dict)

    @property
    def shipped(self) -> DeliveredFile:
        """The file that ships."""
        return self.files[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults:
    """All a report tells.

    Attributes:
        name: Of the run.
        task: Name of the task.
        classes: Class names.
        metric: What was maximized.
        images: Number of images by split: train, validation, test.
        data_notes: Sentences about the data.
        device: Name of the device.
        fingerprint: What is known about it.
        live: Whether it timed the delivered files; otherwise their latency is predicted.
        budget: Limits by name.
        level: Probability of the upper bound that predictions are compared with.
        fits: One for each precision; empty on a device without timing.
        search: The search.
        control: A random search of equal number, where one was run.
        contenders: Networks that went to the end.
        winner: Name of the contender that ships; the hand-made one where search did not win.
        verdict: One sentence: did the search win, and by what.
        seconds: Wall seconds by step: data, probing, search, control, training, stages, export, teacher.
        seeds: Seeds by purpose.
        environment: Versions and machine.
        warnings: What a reader must know before trusting a figure.
        absent_baselines: Hand-made families that are no contender, and the sentence that says why.
    """

    schema: int = SCHEMA
    name: str
    task: str
    classes: tuple[str, ...]
    metric: str
    images: Mapping[str, int]
    data_notes: tuple[str, ...]
    device: str
    fingerprint: Mapping[str, str]
    live: bool
    budget: Mapping[str, float]
    level: float
    fits: tuple[LatencyFit, ...]
    search: SearchSummary
    control: SearchSummary | None
    contenders: tuple[Contender, ...]
    winner: str
    verdict: str
    seconds: Mapping[str, float]
    seeds: Mapping[str, int]
    environment: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    absent_baselines: Mapping[str, str] = field(default_factory=dict)

    def contender(self, name: str) -> Contender:
        """Return the contender of that name; raises KeyError."""
        for contender in self.contenders:
            if contender.name == name:
                return contender
        raise KeyError(name)

    def save(self, path: Path) -> None:
        """Write the results as JSON, atomically."""
        from pydantic import TypeAdapter

        write_atomic(path, TypeAdapter(RunResults).dump_json(self, indent=1))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read results back; raises RunError when the file is missing, damaged or of another schema."""
        from pydantic import TypeAdapter, ValidationError

        try:
            content = path.read_bytes()
            known = TypeAdapter(_Versioned).validate_json(content).schema
            if known != SCHEMA:
                raise RunError(f"{path} has schema {known}, expected {SCHEMA}; run again with this version")
            return TypeAdapter(cls).validate_json(content)
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"{error.error_count()} fields do not fit"
            raise RunError(f"{path} cannot be read ({reason}); run `nas run` to the end first") from error


@dataclass(frozen=True, slots=True)
class _Versioned:
    """What results of every version begin with."""

    schema: int
