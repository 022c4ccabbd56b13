"""From tracks and searches to the results that the report tells; the only reader of the test split."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latency_models.timing import WallClock
from nas.candidate import Candidate
from nas.evaluate.independent import count_with_fvcore
from nas.export import read_exported, run_file
from nas.metrics import confusion, interval, paired_change, recalls
from nas.pipeline.jobs import EXPORT, PREDICTIONS
from nas.pipeline.probing import FittedDevice
from nas.pipeline.setup import State
from nas.pipeline.tracks import Track, model_file
from nas.results import Contender, DeliveredFile, LatencyFit
from nas.store import load_predictions
from nas.task import Split
from nas.train import derived_seed
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.precision import Precision, with_precision


def deliver(track: Track, folder: Path) -> Path:
    """Copy a track's files to where they are delivered and return that folder, named by the final architecture."""
    architecture = track.candidate().architecture
    target = folder / (architecture.key if architecture is not None else track.key)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(_delivered_step(track) / EXPORT, temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    return target


def _delivered_step(track: Track) -> Path:
    """Return the step whose files are delivered: that with an int8 file too, where it is only smaller."""
    return track.smaller if track.smaller is not None and track.shipped == "float32" else track.current


def budget_verdict(
    track: Track, limits: Mapping[str, float], *, live: bool, precisions: Sequence[Precision]
) -> tuple[bool, str]:
    """Return whether a track's shipped file meets the budget, and the sentence that says how.

    On a live device the measured latency counts; otherwise the upper end of the prediction's interval. A file in
    another precision than those that may ship never does.
    """
    misses: list[str] = []
    if track.shipped not in precisions:
        misses.append(f"it computes in {track.shipped}, only {' and '.join(precisions)} may ship")
    margins: list[str] = []
    for name, limit in limits.items():
        if name not in track.figures:
            continue
        figure = track.figures[name]
        value = figure.value if live or name != "latency_ms" or figure.upper is None else figure.upper
        text = f"{name} {value:.4g} of {limit:.4g} {figure.unit} ({figure.origin})"
        (misses if value > limit else margins).append(text)
    if misses:
        return False, "over budget: " + ", ".join(misses)
    return True, "within budget: " + ", ".join(margins) if margins else "no limit was set"


def contender(
    track: Track,
    state: State,
    fitted: FittedDevice,
    delivered: Path,
    root: Path,
    test: Split,
    limits: Mapping[str, float],
) -> Contender:
    """Return what the report says about one track; runs its files over the test split."""
    candidate = track.candidate()
    live = fitted.device.backend.live
    meets, reason = budget_verdict(track, limits, live=live, precisions=state.config.precisions)
    order: list[Precision] = [track.shipped]
    if track.smaller is not None and track.shipped == "float32":
        order.append("int8")
    elif track.shipped == "int8":
        order.append("float32")
    files = tuple(_delivered_file(track, state, fitted, delivered, root, test, precision) for precision in order)
    architecture = candidate.architecture
    return Contender(
        name=track.name,
        family=track.family,
        key=track.key,
        final_key=architecture.key if architecture is not None else "",
        architecture=architecture.to_json() if architecture is not None else "",
        stages=tuple(track.stages),
        files=files,
        meets_budget=meets,
        budget_reason=reason,
        counted_by_fvcore=count_with_fvcore(candidate.module, candidate.preprocessing.input_shape),
        seconds=track.seconds,
        notes=candidate.notes,
        starts=starts_of(track, state),
    )


def starts_of(track: Track, state: State) -> dict[str, Measurement]:
    """Return the metric of a track's training from given and from random weights; empty where there was one start."""
    if track.starts is None:
        return {}
    labels, name = state.task.validation.labels, state.task.metric
    given, scratch = (load_predictions(folder / f"float32.{PREDICTIONS}") for folder in track.starts)
    seed = derived_seed(state.config.seed, "starts", track.key)
    source = "validation split"
    change = paired_change(labels, scratch, given, name, seed=seed)
    return {
        "pretrained": interval(labels, given, name, seed=seed, origin="measured", source=source),
        "from_scratch": interval(labels, scratch, name, seed=seed, origin="measured", source=source),
        "gain": Measurement(
            value=change.change,
            unit="1",
            origin="measured",
            lower=change.lower,
            upper=change.upper,
            source=f"{source}, {change.n} images",
        ),
    }


def _delivered_file(
    track: Track, state: State, fitted: FittedDevice, delivered: Path, root: Path, test: Split, precision: Precision
) -> DeliveredFile:
    step = _delivered_step(track)
    path = delivered / model_file(step, precision).name
    exported = next(file for file in read_exported(delivered).files if file.precision == precision)
    figures = dict(track.figures) if precision == track.shipped else _other_figures(track, precision)
    predicted = run_file(path, test.images).argmax(axis=1)
    classes = len(state.task.classes)
    figures["test_metric"] = interval(
        test.labels,
        predicted,
        state.task.metric,
        seed=derived_seed(state.config.seed, "interval"),
        origin="measured",
        source="test split",
    )
    predicted_ms = predicted_latency(track.candidate(), precision, track.fitted or fitted)
    if predicted_ms is not None:
        figures["predicted_ms"] = predicted_ms
    if precision == track.shipped:
        figures |= _percentiles(fitted, path)
    matrix = confusion(test.labels, predicted, classes)
    label = "smaller, not faster" if precision == "int8" and track.shipped == "float32" else ""
    return DeliveredFile(
        file=str(path.relative_to(root)),
        precision=precision,
        figures=figures,
        parity=exported.parity,
        label=label,
        recalls=tuple(float(value) if np.isfinite(value) else -1.0 for value in recalls(matrix)),
        confusion=tuple(tuple(int(count) for count in line) for line in matrix),
        float_operators=exported.float_operators if precision == "int8" else 0,
    )


def _other_figures(track: Track, precision: Precision) -> dict[str, Measurement]:
    """Return the figures of the file beside the shipped one, from the stage that made or replaced it."""
    for record in reversed(track.stages):
        if record.stage == "quantize":
            return dict(record.after if precision == "int8" else record.before)
    return {}


def _percentiles(fitted: FittedDevice, path: Path) -> dict[str, Measurement]:
    backend = fitted.device.backend
    if not isinstance(backend, WallClock) or not getattr(backend, "runs_files", True):
        return {}
    timing = backend.distribution(path)
    found = {
        f"p{percent}_ms": Measurement(
            value=timing.percentile_ms(percent),
            unit="ms",
            origin=timing.origin,
            source=f"{fitted.device.name}, wall clock, batch 1",
        )
        for percent in (50, 95, 99)
    }
    if backend.sustained_s:
        run = backend.sustained(path, seconds=backend.sustained_s)
        found["sustained_ms"] = Measurement(
            value=run.last_ms,
            unit="ms",
            origin="measured",
            source=f"{fitted.device.name}, wall clock, without a pause: {run.sentence()}",
        )
    return found


def with_delivered(fits: Sequence[LatencyFit], contenders: Sequence[Contender]) -> tuple[LatencyFit, ...]:
    """Return the fits with what was predicted and measured of every delivered file."""
    found = []
    for fit in fits:
        timed = [
            (file.figures["predicted_ms"].value, file.figures["latency_ms"].value, file.file)
            for known in contenders
            for file in known.files
            if file.precision == fit.precision
            and "predicted_ms" in file.figures
            and file.figures["latency_ms"].origin == "measured"
        ]
        found.append(
            replace(
                fit,
                delivered_predicted_ms=tuple(predicted for predicted, _, _ in timed),
                delivered_measured_ms=tuple(measured for _, measured, _ in timed),
                delivered_files=tuple(name for _, _, name in timed),
            )
        )
    return tuple(found)


def predicted_latency(candidate: Candidate, precision: Precision, fitted: FittedDevice) -> Measurement | None:
    """Return what the device's model says of a candidate's file; None on a device without timing."""
    predictor = fitted.predictors.get(precision)
    if predictor is None or candidate.architecture is None:
        return None
    plan = (candidate.quantization or fitted.device.plan) if precision == "int8" else None
    prediction = predictor.predict([with_precision(lower(candidate.architecture), plan)])
    return prediction.measurement(0, source=fitted.device.name)


def judge_winner(tracks: Sequence[Track], passing: Sequence[Track], state: State) -> tuple[Track, str]:
    """Return the track that ships and the sentence that says whether the search won.

    The best validation metric among files within the budget decides; of equals the faster ships (on a device without
    timing that with fewer MACs), and of equals in that the searched one.
    """

    def rank(track: Track) -> tuple[float, float, int]:
        cost = track.figures.get("latency_ms", track.figures["macs"])
        return (
            track.figures["metric"].value,
            -cost.value,
            int(track.family == "search"),
        )

    winner = max(passing, key=rank)
    others = [track for track in passing if (track.family == "search") != (winner.family == "search")]
    name = state.task.metric
    best = f"{winner.name} ({100 * winner.figures['metric'].value:.1f} % {name} on validation)"
    if not others:
        rivals = [track for track in tracks if track.family != "search"]
        if winner.family != "search":
            return winner, f"The search did not win: no searched network is within the budget, {best} is."
        if not rivals:
            return winner, f"{best} ships; no hand-made network fits the budget or was asked for."
        return winner, f"{best} ships; no hand-made network is within the budget."
    rival = max(others, key=rank)
    change = paired_change(
        state.task.validation.labels,
        _predictions(rival),
        _predictions(winner),
        name,
        seed=derived_seed(state.config.seed, "verdict"),
    )
    interval_text = f"[{100 * change.lower:+.1f}, {100 * change.upper:+.1f}]"
    difference = f"{100 * change.change:+.1f} points {interval_text} over {change.n} images"
    if winner.family == "search":
        return winner, f"The search won: {best} against {rival.name}, {difference}."
    return winner, f"The search did not win: the hand-made {best} ships, against {rival.name}, {difference}."


def _predictions(track: Track) -> npt.NDArray[np.int64]:
    return load_predictions(track.current / f"{track.shipped}.{PREDICTIONS}")
