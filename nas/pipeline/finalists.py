"""From the front to delivered files: finalists and hand-made networks through all stages, and who keeps the budget."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from latency_models.probe import write_probe
from latency_models.profile import Probed, Profile
from latency_models.sessions import measured
from latency_models.timing import Clock, Timing
from nas.export import read_exported
from nas.pipeline.assemble import budget_verdict
from nas.pipeline.baselines import HandMade, ladder, widest_that_fits
from nas.pipeline.confirming import confirm, ranked, refitted_costs
from nas.pipeline.jobs import EXPORT
from nas.pipeline.preparing import Prepared
from nas.pipeline.probing import FittedDevice
from nas.pipeline.tracks import Track, Yard
from nas.run import read_json, write_json
from nas.search.objectives import RowCosts
from nas.search.study import Entry, SearchResult
from search_spaces.architecture import Architecture
from search_spaces.errors import InfeasibleError, ParityFailed


def bring_finalists(prepared: Prepared, yard: Yard, found: SearchResult) -> tuple[list[Track], list[Track]]:
    """Bring members of the front, and the hand-made networks, to delivered files; return all and those in budget.

    Where no searched file keeps the budget, the models are fitted again with what was measured, and the next best
    trained network is tried, up to `pipeline.attempts`.

    Raises:
        InfeasibleError: No file keeps the budget; says the nearest miss.
        GateFailed: A gate that ends the run failed.
        ParityFailed: No file computes what its network computes.
    """
    config, searched = prepared.config, prepared.fitted
    tried = confirm(prepared, found, yard.folder.parent, yard.progress)
    prepared.confirmed = tried.networks
    costs = refitted_costs(prepared, tried.networks)
    if tried.networks:
        prepared.fitted = yard.fitted = searched.refitted(config.latency, tried.networks)
    tracks = [
        _searched_track(entry, number, searched)
        for number, entry in enumerate(_first(found, costs, tried, config.pipeline.finalists), start=1)
    ]
    hand_made = [_hand_made_track(network) for network in _hand_made(prepared, yard)]
    _to_the_end(yard, [*tracks, *hand_made])
    attempts = len(tracks)
    limits = costs.limits()
    while not (passing := _passing(tracks, limits, prepared)) and attempts < config.pipeline.attempts:
        prepared.fitted = yard.fitted = _refit(prepared, tracks)
        costs = RowCosts(prepared.space, config.device, prepared.fitted.predictors, config.budget)
        brought = {track.key for track in tracks}
        chosen = next((entry for entry in ranked(found, costs, tried) if entry.key not in brought), None)
        if chosen is None:
            break
        attempts += 1
        more = _searched_track(chosen, attempts, searched)
        _to_the_end(yard, [more])
        tracks.append(more)
    if not passing:
        passing_by_hand = _passing(hand_made, limits, prepared)
        if not passing_by_hand:
            raise _nearest_miss([*tracks, *hand_made], limits, prepared)
        passing = []
    return [*tracks, *hand_made], [*passing, *_passing(hand_made, limits, prepared)]


def _first(found: SearchResult, costs: RowCosts, tried: Profile, count: int) -> list[Entry]:
    """Return the most accurate members of the front whose files keep to the limits, else other trained networks' best.

    Where no file does, the front as it stands: a stage may still make one smaller, and the run says by how much the
    nearest missed.
    """
    front = sorted(found.front(), key=lambda entry: -entry.metric.value)
    return (ranked(found, costs, tried) or front)[:count]


def _to_the_end(yard: Yard, tracks: Sequence[Track]) -> None:
    yard.train(tracks)
    for number in range(len(yard.state.config.stages)):
        yard.apply(tracks, number)


def _passing(tracks: Sequence[Track], limits: dict[str, float], prepared: Prepared) -> list[Track]:
    live, precisions = prepared.config.device.backend.live, prepared.config.precisions
    return [
        track
        for track in tracks
        if budget_verdict(track, limits, live=live, precisions=precisions)[0] and _computes_its_network(track)
    ]


def _computes_its_network(track: Track) -> bool:
    """Tell whether a track's shipped file computes what its network computes."""
    files = read_exported(track.current / EXPORT).files
    return next(file for file in files if file.precision == track.shipped).parity.passed


def _refit(prepared: Prepared, tracks: Sequence[Track]) -> FittedDevice:
    """Fit the latency models again with what the delivered files really took, at the level of the profile."""
    more = []
    for track in tracks:
        architecture, latency = track.candidate().architecture, track.figures.get("latency_ms")
        if architecture is not None and latency is not None and latency.origin != "predicted":
            clock: Clock = getattr(prepared.config.device.backend, "clock", "device")
            timing = Timing(track.file.name, (np.array([latency.value]),), clock, latency.origin)
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


def _nearest_miss(tracks: Sequence[Track], limits: dict[str, float], prepared: Prepared) -> Exception:
    if not any(_computes_its_network(track) for track in tracks):
        return ParityFailed("no exported file computes what its network computes; see parity.json in `candidates`")
    live = prepared.config.device.backend.live

    def excess(track: Track) -> float:
        known = [track.figures[name].value / limit - 1.0 for name, limit in limits.items() if name in track.figures]
        return max(known, default=float("inf"))

    nearest = min(tracks, key=excess)
    _, reason = budget_verdict(nearest, limits, live=live, precisions=prepared.config.precisions)
    return InfeasibleError(
        f"none of {len(tracks)} delivered files meets the budget; the nearest miss is {nearest.name}, {reason}"
    )


def _searched_track(entry: Entry, number: int, searched: FittedDevice) -> Track:
    return Track(
        name=f"search {number}",
        family="search",
        architecture=entry.architecture,
        precision=entry.precision,
        fitted=searched,
    )


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
    """Return a function that times networks on the run's device in their faster precision; None for a table.

    A network that the device refuses takes forever; the last file, of the narrowest network, may stand for the middle.
    """
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
        middle, refused = len(files) // 2, float("inf")
        outcomes = measured(device.backend, files, [files[middle], files[-1]])
        each = [outcome.latency_ms if isinstance(outcome, Timing) else refused for outcome in outcomes]
        latencies = np.array(each).reshape(len(architectures), -1)
        return [float(value) for value in latencies.min(axis=1)]

    return time_ms
