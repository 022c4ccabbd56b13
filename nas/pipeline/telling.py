"""What a run found out, put together once everything is trained, timed and judged."""

from collections.abc import Sequence
from pathlib import Path

from nas.export import add_results
from nas.pipeline.assemble import contender, deliver, judge_winner, with_delivered
from nas.pipeline.baselines import ladder
from nas.pipeline.confirming import with_preferred
from nas.pipeline.on_device import check_on_device, require_on_device
from nas.pipeline.preparing import Prepared
from nas.pipeline.searching import (
    control_of,
    reference_point,
    summarize,
)
from nas.pipeline.tracks import Track, Yard
from nas.results import Contender, RunResults
from nas.run import RunDirectory, environment, read_json
from nas.search.study import SearchResult


def tell(
    prepared: Prepared,
    yard: Yard,
    directory: RunDirectory,
    found: SearchResult,
    control: SearchResult | None,
    tracks: Sequence[Track],
    passing: Sequence[Track],
) -> RunResults:
    """Deliver every track's files, judge the winner, read the test split, and return all that the report tells.

    Args:
        prepared: The run before anything was trained.
        yard: Where the tracks were made.
        directory: The run directory.
        found: The search.
        control: A random search of equal number, where one was run.
        tracks: All networks that went to the end.
        passing: Those within the budget.
    """
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
        told = contender(track, state, yard.fitted, delivered, directory.path, task.open_test(), limits)
        figures = {Path(file.file).name: file.figures for file in told.files}
        add_results(delivered, ships=track.shipped, history=track.stages, figures=figures)
        contenders.append(told)
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
        fits=with_delivered(with_preferred(prepared.fits, prepared.confirmed, prepared.costs), contenders),
        search=summarize(found, config.search, prepared.survey, prepared.costs, reference),
        control=None
        if control is None
        else summarize(control, control_of(config.search), prepared.survey, prepared.costs, reference),
        contenders=tuple(contenders),
        winner=winner.name,
        verdict=verdict,
        seconds=prepared.watch.seconds,
        seeds={"run": config.seed, "data": config.data.split_seed, "probes": config.probe.seed},
        environment=environment(),
        warnings=_warnings(prepared, contenders),
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


def _warnings(prepared: Prepared, contenders: Sequence[Contender]) -> tuple[str, ...]:
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
    elsewhere = "" if prepared.config.device.backend.live else f"; what {prepared.config.device.name} does is not known"
    found += [
        f"{file.file} runs {file.float_operators} convolutions or matrix products in float, by the graph that "
        f"onnxruntime makes of it on this machine{elsewhere}."
        for told in contenders
        for file in told.files
        if file.float_operators
    ]
    if not contenders[0].meets_budget:
        found.append("The file that ships is over the budget.")
    return tuple(found)
