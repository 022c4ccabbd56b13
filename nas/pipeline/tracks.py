"""Tracks: networks that go from training through the stages to a delivered file, side by side.

All tracks take each step together: worker processes train and export, then, with no training running, all new files
are timed in one interleaved measurement, then the gates decide. Every step of a track is a folder that is whole or
absent, so an interrupted run goes on where it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from latency_models.failures import FileFailure, Outcome
from latency_models.sessions import choose_anchors, time_files
from nas.candidate import Candidate, StageRecord, Verdict
from nas.config import GatedStage, describe
from nas.export import counted, read_exported
from nas.gate import judge
from nas.metrics import interval
from nas.pipeline.jobs import DONE, EXPORT, PREDICTIONS, FinalJob, StageJob, apply_stage, train_finalist
from nas.pipeline.probing import FittedDevice
from nas.pipeline.setup import State
from nas.protocols import STAGES, Progress
from nas.run import read_json, write_json
from nas.search.objectives import limits_on, patch_above
from nas.store import load_candidate, load_predictions, read_stage_record
from nas.train import derived_seed
from nas.workers import Workers
from search_spaces.architecture import Architecture
from search_spaces.errors import GateFailed
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.precision import Precision, with_precision


@dataclass(slots=True, kw_only=True)
class Track:
    """One network on its way.

    Attributes:
        name: For reports.
        family: "search" or a hand-made family.
        architecture: As it started.
        precision: What the search expects it to ship in.
        folders: Folder of every step so far, whether kept or not.
        current: Folder of the last step that was kept.
        shipped: Precision of the file that would ship now.
        figures: Of that file.
        stages: Records of the stages so far.
        smaller: Folder of an int8 file that is smaller but not faster; empty for none.
        fitted: The device and its latency models as they were before any of its files was timed; for a searched
            network as the search had them.
        starts: Folders of its training from given weights and of the same one from random weights; None where there
            was one start.
        seconds: Wall time of its training and stages.
    """

    name: str
    family: str
    architecture: Architecture
    precision: str = "float32"
    current: Path = field(default_factory=Path)
    shipped: Precision = "float32"
    figures: dict[str, Measurement] = field(default_factory=dict)
    stages: list[StageRecord] = field(default_factory=list)
    smaller: Path | None = None
    fitted: FittedDevice | None = None
    starts: tuple[Path, Path] | None = None
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Of the architecture it started as."""
        return self.architecture.key

    @property
    def file(self) -> Path:
        """The file that would ship now."""
        return model_file(self.current, self.shipped)

    def candidate(self) -> Candidate:
        """The candidate as it is now."""
        return load_candidate(self.current)


def model_file(folder: Path, precision: Precision) -> Path:
    """Return the exported file of a step's folder."""
    return folder / EXPORT / ("model.int8.onnx" if precision == "int8" else "model.onnx")


Timed = Mapping[tuple[Path, str], tuple[Outcome, float]]
"""Timings, or why there is none, by folder and precision, each with the level of its session against the profile."""


@dataclass(slots=True)
class Yard:
    """Everything tracks need: the state, the workers, the device, where folders are, and who is told."""

    state: State
    workers: Workers[State]
    fitted: FittedDevice
    folder: Path
    progress: Progress
    teacher: Path | None = None

    # -- steps

    def train(self, tracks: Sequence[Track]) -> None:
        """Train every track's network to the end and measure what it became.

        Raises:
            FileFailure: The device refuses the file of one of them.
        """
        jobs = []
        for track in tracks:
            jobs += [(job,) for job in self._trainings(track) if not (Path(job.folder) / DONE).exists()]
        self._run(train_finalist, jobs, "training finalists")
        for track in tracks:
            track.fitted = track.fitted or self.fitted
            track.current = self._step(track, 0, "trained")
            track.seconds += read_json(track.current / DONE)["seconds"]
            if self._has_control(track):
                track.starts = track.current, self._step(track, 0, "from-scratch")
        timings = self._time([(track.current, "float32") for track in tracks])
        for track in tracks:
            if (failure := _failure(track.current, "float32", timings)) is not None:
                raise type(failure)(f"{track.name} cannot be timed: {failure}", file=failure.file) from failure
            track.figures = self._figures(track.current, "float32", timings)

    def _trainings(self, track: Track) -> list[FinalJob]:
        """Return a track's training and, where a searched network starts from given weights, one from random ones."""
        job = FinalJob(
            architecture=track.architecture.to_json(),
            folder=str(self._step(track, 0, "trained")),
            seed=derived_seed(self.state.config.seed, "final", track.key),
        )
        if not self._has_control(track):
            return [job]
        return [job, replace(job, folder=str(self._step(track, 0, "from-scratch")), pretrained=False)]

    def _has_control(self, track: Track) -> bool:
        return bool(self.state.config.train.init) and track.family == "search"

    def apply(self, tracks: Sequence[Track], number: int) -> None:
        """Apply stage `number` to every track, time all files, and let the gates decide.

        Raises:
            GateFailed: A track of the search, or one that a user named, failed a gate that ends the run.
        """
        gated = self.state.config.stages[number]
        name = STAGES.name_of(type(gated.stage))
        jobs = []
        for track in tracks:
            folder = self._step(track, number + 1, name)
            if not (folder / DONE).exists():
                jobs.append((self._stage_job(track, number, folder),))
        self._run(apply_stage, jobs, f"stage {name}")
        wanted = [(track.current, track.shipped) for track in tracks]
        for track in tracks:
            folder = self._step(track, number + 1, name)
            wanted += [(folder, precision) for precision in _precisions(folder)]
        undecided = [track for track in tracks if not (self._step(track, number + 1, name) / "record.json").exists()]
        timings = self._time(wanted) if undecided else {}
        for track in tracks:
            self._decide(track, gated, name, self._step(track, number + 1, name), timings)

    def _stage_job(self, track: Track, number: int, folder: Path) -> StageJob:
        quantizes = any(
            STAGES.name_of(type(later.stage)) == "quantize" for later in self.state.config.stages[number + 1 :]
        )
        device = self.fitted.device
        return StageJob(
            stage=number,
            source=str(track.current),
            folder=str(folder),
            seed=derived_seed(self.state.config.seed, "stage", number, track.key),
            teacher="" if self.teacher is None else str(self.teacher),
            predictors={precision: known.to_dict() for precision, known in self.fitted.predictors.items()},
            alignment=device.alignment,
            ships=device.plan if quantizes and track.precision == "int8" else None,
        )

    def _decide(self, track: Track, gated: GatedStage, name: str, folder: Path, timings: Timed) -> None:
        precision = _precisions(folder)[-1]
        seconds = float(read_json(folder / DONE)["seconds"])
        track.seconds += seconds
        if not (folder / "record.json").exists():
            candidate = load_candidate(folder)
            before = {**track.figures, **self._latency(track.current, track.shipped, timings)}
            after = self._figures(folder, precision, timings)
            verdict, reason = self._verdict(track, gated, folder, precision, before, after)
            failure = _failure(folder, precision, timings)
            if failure is not None and verdict != "failed":
                verdict, reason = "reverted", f"the device gave the file no timing ({failure.kind}): {failure}"
            record = StageRecord(
                stage=name,
                options=describe(gated.stage),
                before=before,
                after=after,
                verdict=verdict,
                reason=reason,
                seconds=seconds,
                figures=candidate.figures,
                notes=candidate.notes,
            )
            write_json(folder / "record.json", record.to_dict())
        record = read_stage_record(folder / "record.json")
        track.stages.append(record)
        if record.verdict == "kept":
            track.current, track.shipped, track.figures = folder, precision, dict(record.after)
        elif record.verdict == "not worth it" and precision == "int8" and track.shipped == "float32":
            track.smaller = folder
        elif record.verdict == "failed" and track.family in ("search", "named"):
            raise GateFailed(f"{track.name}: stage {name} {record.reason}")

    def _verdict(
        self,
        track: Track,
        gated: GatedStage,
        folder: Path,
        precision: Precision,
        before: Mapping[str, Measurement],
        after: Mapping[str, Measurement],
    ) -> tuple[Verdict, str]:
        task = self.state.task
        decision = judge(
            gated.gate,
            labels=task.validation.labels,
            before=load_predictions(track.current / f"{track.shipped}.{PREDICTIONS}"),
            after=load_predictions(folder / f"{precision}.{PREDICTIONS}"),
            metric=task.metric,
            figures=after,
            seed=derived_seed(self.state.config.seed, "gate", track.key),
        )
        parity = read_exported(folder / EXPORT).files[-1].parity
        if not parity.passed:
            return "reverted", f"the exported file failed parity: {parity.reason}"
        if decision.verdict != "kept":
            return decision.verdict, decision.reason
        if not getattr(gated.stage, "buys_time", False) or "latency_ms" not in after:
            return decision.verdict, decision.reason
        forced = precision == "int8" and "float32" not in self.state.config.precisions
        if _is_faster(before["latency_ms"], after["latency_ms"]) or forced:
            return decision.verdict, f"{_speed(before, after)}; {decision.reason}"
        label = "smaller, not faster" if precision == "int8" else "not faster"
        return "not worth it", f"{label}: {_speed(before, after)}; {decision.reason}"

    # -- figures

    def _figures(self, folder: Path, precision: Precision, timings: Timed) -> dict[str, Measurement]:
        task, candidate = self.state.task, load_candidate(folder)
        assert candidate.architecture is not None
        plan = candidate.quantization if precision == "int8" else None
        predicted = load_predictions(folder / f"{precision}.{PREDICTIONS}")
        source = "validation split"
        metric = interval(
            task.validation.labels,
            predicted,
            task.metric,
            seed=derived_seed(self.state.config.seed, "interval"),
            origin="measured",
            source=source,
        )
        file = model_file(folder, precision)
        size = Measurement(value=float(file.stat().st_size), unit="bytes", origin="counted", source=file.name)
        device = self.fitted.device
        patched = patch_above(device, limits_on(device, self.state.config.budget))
        return {
            "metric": metric,
            **self._latency(folder, precision, timings),
            "file_bytes": size,
            **counted(lower(candidate.architecture), plan, in_place=device.in_place, patch_above=patched),
        }

    def _latency(self, folder: Path, precision: Precision, timings: Timed) -> dict[str, Measurement]:
        if (folder, precision) in timings:
            timing, level = timings[folder, precision]
            if isinstance(timing, FileFailure):
                return {}
            source = f"{precision} networks of the profile, timed again in the same session"
            return {
                "latency_ms": timing.measurement(source=self.fitted.device.name),
                "session_level": Measurement(value=level, unit="1", origin="measured", source=source),
            }
        predictor = self.fitted.predictors.get(precision)
        if predictor is None:
            return {}
        candidate = load_candidate(folder)
        assert candidate.architecture is not None
        plan = candidate.quantization if precision == "int8" else None
        prediction = predictor.predict([with_precision(lower(candidate.architecture), plan)])
        return {"latency_ms": prediction.measurement(0, source=self.fitted.device.name)}

    def _time(self, wanted: Sequence[tuple[Path, Precision]]) -> Timed:
        """Time files on a device that can, all interleaved; nothing is timed on a table or a device without timing."""
        device = self.fitted.device
        unique = list(dict.fromkeys(wanted))
        if not device.backend.live or not unique:
            return {}
        precisions = tuple(dict.fromkeys(precision for _, precision in unique))
        session = time_files(
            device,
            [model_file(folder, precision) for folder, precision in unique],
            anchors=choose_anchors(self.fitted.profile, precisions),
            graph_input=self.state.config.export.graph_input(self.state.task.preprocessing),
            folder=self.folder / "anchors",
            progress=lambda share: self.progress("timing files", share),
        )
        return {
            (folder, precision): (outcome, session.level(precision))
            for (folder, precision), outcome in zip(unique, session.outcomes, strict=True)
        }

    # -- small things

    def _step(self, track: Track, number: int, name: str) -> Path:
        return self.folder / track.key / f"{number:02d}-{name}"

    def _run(self, job: object, calls: Sequence[tuple[object, ...]], label: str) -> None:
        if calls:
            self.progress(label, 0.0)
        for done, _ in enumerate(self.workers.run(job, calls), start=1):  # type: ignore[arg-type]  # two kinds of job
            self.progress(label, done / len(calls))


def _failure(folder: Path, precision: Precision, timings: Timed) -> FileFailure | None:
    """Return why a file has no timing; None where it has one, or was not to be timed."""
    outcome, _ = timings.get((folder, precision), (None, 1.0))
    return outcome if isinstance(outcome, FileFailure) else None


def _precisions(folder: Path) -> list[Precision]:
    found: list[Precision] = ["float32"]
    if model_file(folder, "int8").exists():
        found.append("int8")
    return found


def _is_faster(before: Measurement, after: Measurement) -> bool:
    """Tell whether one latency is lower than another beyond both their spreads."""
    slowest = after.value if after.upper is None else after.upper
    fastest = before.value if before.lower is None else before.lower
    if after.origin == "predicted":  # one model, one error for both: their order is what it knows
        return after.value < before.value
    return slowest < fastest


def _speed(before: Mapping[str, Measurement], after: Mapping[str, Measurement]) -> str:
    old, new = before["latency_ms"], after["latency_ms"]
    return f"{old.value:.4g} -> {new.value:.4g} ms ({new.origin}, {old.value / new.value:.2f}x)"
