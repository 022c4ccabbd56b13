"""A whole run: images, device and budget in; a checked file that meets the budget and a report out."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from latency_models.probe import write_probe
from latency_models.profile import Probed, default_folder
from latency_models.timing import Timing
from nas.candidate import Candidate
from nas.config import RunConfig
from nas.export import read_exported
from nas.pipeline.assemble import budget_verdict, contender, deliver, judge_winner, with_delivered
from nas.pipeline.baselines import HandMade, ladder, widest_that_fits
from nas.pipeline.jobs import DONE, EXPORT, FinalJob, train_finalist
from nas.pipeline.on_device import check_on_device, require_on_device
from nas.pipeline.probing import FittedDevice, fitted_device, left_out_score
from nas.pipeline.searching import (
    control_of,
    largest_network,
    reference_point,
    run_search,
    summarize,
)
from nas.pipeline.setup import State, check_start, description_of, fit_space, load_run_task, set_up
from nas.pipeline.suiting import suited_config
from nas.pipeline.tracks import Track, Yard
from nas.protocols import Progress, quiet
from nas.report import write_report
from nas.results import LatencyFit, RunResults
from nas.run import RunDirectory, environment, read_json, write_atomic, write_json
from nas.search.feasible import Survey, survey
from nas.search.objectives import RowCosts
from nas.search.study import Entry, SearchResult
from nas.store import save_candidate
from nas.train import derived_seed, given_network
from nas.workers import Workers, default_workers
from search_spaces.architecture import Architecture
from search_spaces.errors import InfeasibleError, ParityFailed
from search_spaces.space import SearchSpace


@dataclass(slots=True)
class Prepared:
    """A run before anything is trained: its task, device, space and what of it fits.

    Attributes:
        config: The run.
        state: What workers hold, for this process.
        space: Fitted to the task.
        fitted: The device and its latency models.
        costs: What rows of the space cost.
        fits: How good the latency models are.
        survey: The feasible part of the space.
        seconds: Wall time by step.
    """

    config: RunConfig
    state: State
    space: SearchSpace
    fitted: FittedDevice
    costs: RowCosts
    fits: tuple[LatencyFit, ...]
    survey: Survey
    seconds: dict[str, float] = field(default_factory=dict)


def prepare(config: RunConfig, folder: Path, *, progress: Progress = quiet, store: Path | None = None) -> Prepared:
    """Load the task, measure the device or read its profile, and look at what fits the budget.

    Raises:
        InfeasibleError: Nothing fits; the message says which limit to relax and to what.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "data"):
        task = load_run_task(config, folder, progress)
        space = fit_space(config.space, task, config.device.allow_ops)
        check_start(config, space)
    with _timed(seconds, "probing"):
        config = suited_config(config, folder, task, space)
        fitted = fitted_device(
            config.device,
            config.latency,
            space,
            config.export.graph_input(task.preprocessing),
            config.probe,
            store=store or default_folder(),
            scratch=folder / "probes",
            progress=progress,
        )
        fits = tuple(
            left_out_score(predictor, fitted.profile, precision, config.device)[1]
            for precision, predictor in fitted.predictors.items()
        )
    costs = RowCosts(space, config.device, fitted.predictors, config.budget)
    with _timed(seconds, "survey"):
        found = survey(space, costs, seed=derived_seed(config.seed, "survey"))
    return Prepared(config, State(config, task, folder), space, fitted, costs, fits, found, seconds)


def run(
    config: RunConfig,
    folder: Path,
    *,
    progress: Progress = quiet,
    store: Path | None = None,
) -> RunResults:
    """Do a whole run in `folder`, or go on with it, and return its results; the report is written too.

    Args:
        config: The run.
        folder: The run directory.
        progress: Told what is done and how far.
        store: Folder of device profiles; by default the user's.

    Raises:
        InfeasibleError: Nothing of the space fits, or no delivered file met the budget; says the nearest miss.
        GateFailed: A gate that ends the run failed.
        ParityFailed: No file computes what its network computes.
        NasError: Anything else a user can mend.
    """
    with RunDirectory.open(folder, description_of(config)) as directory:
        prepared = prepare(config, folder, progress=progress, store=store)
        count = config.workers or default_workers()
        with Workers(count, set_up, description_of(config), str(folder)) as workers:
            found, control = _search(prepared, workers, directory, progress)
            yard = Yard(prepared.state, workers, prepared.fitted, folder / "candidates", progress)
            with _timed(prepared.seconds, "teacher"):
                yard.teacher = _teacher(prepared, workers, folder, progress)
            with _timed(prepared.seconds, "finalists"):
                tracks, passing = _finalists(prepared, yard, found)
        with _timed(prepared.seconds, "report"):
            results = _results(prepared, yard, directory, found, control, tracks, passing)
            results.save(folder / "results.json")
            write_report(results, folder / "report")
    return results


# -- the search


def _search(
    prepared: Prepared, workers: Workers[State], directory: RunDirectory, progress: Progress
) -> tuple[SearchResult, SearchResult | None]:
    config, control = prepared.config, None
    with _timed(prepared.seconds, "search"):
        found = run_search(
            prepared.space, prepared.costs, prepared.survey, prepared.state, workers, directory, config.search,
            label="search", progress=progress,
        )  # fmt: skip
    if not found.front():
        reasons = {entry.failed for entry in found.entries if entry.failed}
        raise InfeasibleError(
            "the search trained no network to the end: "
            + (
                f"{len(found.entries)} diverged ({sorted(reasons)[0]})"
                if reasons
                else "time was up; raise train.max_hours"
            )
        )
    if config.search.control:
        with (
            _timed(prepared.seconds, "control"),
            RunDirectory.open(directory.path / "control", {"control of": config.seed}) as second,
        ):
            control = run_search(
                prepared.space, prepared.costs, prepared.survey, prepared.state, workers, second,
                control_of(config.search), label="control", progress=progress,
            )  # fmt: skip
    return found, control


def _teacher(prepared: Prepared, workers: Workers[State], folder: Path, progress: Progress) -> Path | None:
    """Return the folder of the run's teacher, trained if need be; None where no stage asks for one."""
    config = prepared.config
    if not any(getattr(gated.stage, "teacher", None) == "" for gated in config.stages):
        return None
    target = folder / "teacher"
    if (target / DONE).exists():
        return target
    if config.train.teacher:
        images = prepared.state.task.preprocessing
        file = Path(config.train.teacher)
        architecture, network = given_network(file, height=images.height, width=images.width)
        size = architecture.input_shape[1:]
        preprocessing = replace(prepared.state.task.preprocessing, height=size[0], width=size[1])
        save_candidate(target, Candidate(architecture=architecture, module=network, preprocessing=preprocessing))
        write_atomic(target / DONE, '{"seconds": 0.0}\n')
        return target
    progress("training the teacher", 0.0)
    architecture = largest_network(prepared.space, seed=derived_seed(config.seed, "teacher"))
    job = FinalJob(
        architecture=architecture.to_json(),
        folder=str(target),
        seed=derived_seed(config.seed, "teacher"),
        export=False,
    )
    list(workers.run(train_finalist, [(job,)]))
    progress("training the teacher", 1.0)
    return target


# -- finalists


def _finalists(prepared: Prepared, yard: Yard, found: SearchResult) -> tuple[list[Track], list[Track]]:
    """Bring members of the front, and the hand-made networks, to delivered files; return all and those in budget."""
    config = prepared.config
    waiting = sorted(found.front(), key=lambda entry: -entry.metric.value)
    first, waiting = waiting[: config.pipeline.finalists], waiting[config.pipeline.finalists :]
    tracks = [_searched_track(entry, number) for number, entry in enumerate(first, start=1)]
    hand_made = [_hand_made_track(network) for network in _hand_made(prepared, yard)]
    _to_the_end(yard, [*tracks, *hand_made])
    attempts = len(tracks)
    costs = prepared.costs
    limits = costs.limits()
    while not (passing := _passing(tracks, limits, prepared)) and attempts < config.pipeline.attempts:
        prepared.fitted = yard.fitted = _refit(prepared, tracks)
        costs = RowCosts(prepared.space, config.device, prepared.fitted.predictors, config.budget)
        tried = {track.key for track in tracks}
        waiting = [entry for entry in _next_best(found, costs) if entry.key not in tried]
        if not waiting:
            break
        attempts += 1
        more = _searched_track(waiting[0], attempts)
        _to_the_end(yard, [more])
        tracks.append(more)
    if not passing:
        passing_by_hand = _passing(hand_made, limits, prepared)
        if not passing_by_hand:
            raise _nearest_miss([*tracks, *hand_made], limits, prepared)
        passing = []
    return [*tracks, *hand_made], [*passing, *_passing(hand_made, limits, prepared)]


def _to_the_end(yard: Yard, tracks: Sequence[Track]) -> None:
    yard.train(tracks)
    for number in range(len(yard.state.config.stages)):
        yard.apply(tracks, number)


def _passing(tracks: Sequence[Track], limits: dict[str, float], prepared: Prepared) -> list[Track]:
    live = prepared.config.device.backend.live
    return [track for track in tracks if budget_verdict(track, limits, live=live)[0] and yard_parity(track)]


def yard_parity(track: Track) -> bool:
    """Tell whether a track's shipped file computes what its network computes."""
    files = read_exported(track.current / EXPORT).files
    return next(file for file in files if file.precision == track.shipped).parity.passed


def _refit(prepared: Prepared, tracks: Sequence[Track]) -> FittedDevice:
    """Fit the latency models again with what the delivered files really took, at the level of the profile."""
    more = []
    for track in tracks:
        architecture, latency = track.candidate().architecture, track.figures.get("latency_ms")
        if architecture is not None and latency is not None and latency.origin == "measured":
            timing = Timing(track.file.name, (np.array([latency.value]),), "thread_cpu", "measured")
            level = track.figures.get("session_level")
            more.append(
                Probed(
                    architecture=architecture,
                    precision=track.shipped,
                    timing=timing,
                    purpose="delivered",
                    level=1.0 if level is None else level.value,
                )
            )
    return prepared.fitted.refitted(prepared.config.latency, more)


def _next_best(found: SearchResult, costs: RowCosts) -> list[Entry]:
    """Return trained networks that still fit by the refitted model, the front's before the others, best first."""
    sound = [entry for entry in found.entries if not entry.failed]
    feasible = costs.of([entry.architecture for entry in sound]).feasible
    front = {entry.key for entry in found.front()}
    fitting = [entry for entry, fits in zip(sound, feasible, strict=True) if fits]
    return sorted(fitting, key=lambda entry: (entry.key not in front, -entry.metric.value))


def _nearest_miss(tracks: Sequence[Track], limits: dict[str, float], prepared: Prepared) -> Exception:
    if not any(yard_parity(track) for track in tracks):
        return ParityFailed("no exported file computes what its network computes; see parity.json in `candidates`")
    live = prepared.config.device.backend.live

    def excess(track: Track) -> float:
        known = [track.figures[name].value / limit - 1.0 for name, limit in limits.items() if name in track.figures]
        return max(known, default=float("inf"))

    nearest = min(tracks, key=excess)
    _, reason = budget_verdict(nearest, limits, live=live)
    return InfeasibleError(
        f"none of {len(tracks)} delivered files meets the budget; the nearest miss is {nearest.name}, {reason}"
    )


def _searched_track(entry: Entry, number: int) -> Track:
    return Track(name=f"search {number}", family="search", architecture=entry.architecture, precision=entry.precision)


def _hand_made_track(network: HandMade) -> Track:
    return Track(name=network.name, family=network.family, architecture=network.architecture, precision="int8")


def _hand_made(prepared: Prepared, yard: Yard) -> list[HandMade]:
    """Return the widest network of every family asked for that fits; chosen once and written down."""
    path = yard.folder.parent / "baselines.json"
    known = read_json(path) if path.exists() else {}
    found = []
    for baseline in prepared.config.pipeline.baselines:
        rungs = ladder(baseline, prepared.state.task)
        if baseline not in known:
            fitting = widest_that_fits(rungs, prepared.costs, _timer(prepared, yard.folder.parent))
            known[baseline] = fitting.width if fitting is not None else None
            write_json(path, known)
        found += [rung for rung in rungs if rung.width == known[baseline]]
    return found


def _timer(prepared: Prepared, folder: Path) -> Callable[[Sequence[Architecture]], list[float]] | None:
    """Return a function that times networks on the run's device in their faster precision; None for a table."""
    device = prepared.config.device
    if not device.backend.live:
        return None
    graph_input = prepared.config.export.graph_input(prepared.state.task.preprocessing)

    def time_ms(architectures: Sequence[Architecture]) -> list[float]:
        scratch = folder / "probes"
        scratch.mkdir(parents=True, exist_ok=True)
        files = []
        for architecture in architectures:
            for precision in prepared.costs.precisions:
                path = scratch / f"{architecture.key}.{precision}.onnx"
                write_probe(architecture, precision, device, graph_input, path)
                files.append(path)
        timings = device.backend.measure(files, files[len(files) // 2])
        latencies = np.array([timing.latency_ms for timing in timings]).reshape(len(architectures), -1)
        return [float(value) for value in latencies.min(axis=1)]

    return time_ms


# -- results


def _results(
    prepared: Prepared,
    yard: Yard,
    directory: RunDirectory,
    found: SearchResult,
    control: SearchResult | None,
    tracks: Sequence[Track],
    passing: Sequence[Track],
) -> RunResults:
    config, state = prepared.config, prepared.state
    winner, verdict = judge_winner(tracks, passing, state)
    limits = prepared.costs.limits()
    contenders = []
    for track in [winner, *(track for track in tracks if track is not winner)]:
        candidate = track.candidate()
        task = state.task.at_size(candidate.preprocessing.height, candidate.preprocessing.width)
        delivered = deliver(track, directory.path / "exports")
        check_on_device(delivered, config.device.backend, task.validation, device=config.device.name)
        if track is winner:
            require_on_device(delivered)
        contenders.append(contender(track, state, yard.fitted, delivered, directory.path, task.open_test(), limits))
    every = [found] if control is None else [found, control]
    reference = reference_point(every, prepared.costs, len(state.task.classes))
    test = state.task.open_test()
    return RunResults(
        name=directory.path.name,
        task=state.task.name,
        classes=state.task.classes,
        metric=state.task.metric,
        images={"train": len(state.task.train), "validation": len(state.task.validation), "test": len(test)},
        data_notes=(*state.task.notes, *test.notes),
        device=config.device.name,
        fingerprint=dict(prepared.fitted.profile.fingerprint),
        live=config.device.backend.live,
        budget=limits,
        level=config.budget.level,
        fits=with_delivered(prepared.fits, contenders),
        search=summarize(found, config.search, prepared.survey, prepared.costs, reference),
        control=None
        if control is None
        else summarize(control, control_of(config.search), prepared.survey, prepared.costs, reference),
        contenders=tuple(contenders),
        winner=winner.name,
        verdict=verdict,
        seconds=prepared.seconds,
        seeds={"run": config.seed, "data": config.data.split_seed, "probes": config.probe.seed},
        environment=environment(),
        warnings=_warnings(prepared, contenders[0].meets_budget),
        absent_baselines=_absent(prepared, directory.path),
    )


def _absent(prepared: Prepared, folder: Path) -> dict[str, str]:
    """Return why hand-made families that were asked for are no contenders."""
    known = read_json(folder / "baselines.json") if prepared.config.pipeline.baselines else {}
    return {
        ladder(baseline, prepared.state.task)[0].family: "no width fits the budget"
        for baseline in prepared.config.pipeline.baselines
        if known.get(baseline) is None
    }


def _warnings(prepared: Prepared, meets: bool) -> tuple[str, ...]:
    found = []
    if not prepared.config.device.is_timed:
        found.append(
            f"Nothing is known of time on the device {prepared.config.device.name}: networks are compared by counted "
            "MACs, whose order is only roughly that of latency."
        )
    elif not prepared.config.device.backend.live:
        found.append(
            f"The device {prepared.config.device.name} was not there to run the files: every latency is predicted."
        )
    found += [
        f"The {fit.precision} latency model has only {fit.within_10:.0%} of left-out networks within 10 %; "
        "trust measurements, not predictions."
        for fit in prepared.fits
        if fit.within_10 < 0.8
    ]
    if not meets:
        found.append("The file that ships is over the budget.")
    return tuple(found)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
