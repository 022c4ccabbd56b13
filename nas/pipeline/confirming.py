"""Which trained networks are worth training to the end: the best of them are timed on the device before that.

A search chooses among networks by a model's mean, so it prefers those that the model takes for too fast: the winner's
curse. To train one to the end and find that out costs minutes, to time a file with random weights a fraction of a
second. So the best networks are timed, the models are fitted again with what was found, and this goes on until those
that would be chosen have all been timed, up to a number. What was measured counts from then on instead of a prediction.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from latency_models.profile import Probed, Profile, Refused
from latency_models.sessions import choose_anchors, try_networks
from nas.pipeline.exact import within_limits
from nas.pipeline.preparing import Prepared
from nas.protocols import Progress
from nas.results import LatencyFit
from nas.run import write_atomic
from nas.search.objectives import RowCosts
from nas.search.study import Entry, SearchResult

SESSION = 5
"""Networks timed together; every session times the anchors of the profile too, which cost more than one network."""


def confirm(prepared: Prepared, found: SearchResult, folder: Path, progress: Progress) -> Profile:
    """Time the best networks of a search until the finalists are among them, and return what became of each.

    Nothing is timed without a limit on latency, or on a device that cannot. An interrupted run goes on where it was.
    A network that the device refuses is as good as one above the budget.

    Args:
        prepared: The run; its latency models are left as they are.
        found: The search.
        folder: Where the result is kept and files are written.
        progress: Told what is done and how far.

    Raises:
        MeasurementError: The device is away, refuses all networks of a session, or timings never settled.
    """
    config, device = prepared.config, prepared.config.device
    kept = replace(prepared.fitted.profile, networks=(), refused=(), accuracy={})
    if config.budget.latency_ms is None or not device.backend.live or not device.is_timed:
        return kept
    path = folder / "confirmed.json"
    kept = Profile.load(path) if path.exists() else kept
    precisions = prepared.costs.precisions
    while (left := config.pipeline.timed - len(tried := _keys((*kept.networks, *kept.refused)))) > 0:
        order = ranked(found, refitted_costs(prepared, kept.networks), kept)
        if all(entry.key in tried for entry in order[: config.pipeline.finalists]):
            break
        chosen = [entry.architecture for entry in order if entry.key not in tried][: min(SESSION, left)]
        more = try_networks(
            replace(device, precisions=precisions),
            [(architecture, "confirmed") for architecture in chosen],
            config.export.graph_input(prepared.state.task.preprocessing),
            folder=folder / "probes",
            anchors=choose_anchors(prepared.fitted.profile, precisions),
            progress=lambda _label, share: progress("timing the best networks", share),
        )
        kept = kept.with_networks(more)
        write_atomic(path, kept.to_json())
    return kept


def refitted_costs(prepared: Prepared, timed: Sequence[Probed]) -> RowCosts:
    """Return what networks cost by the run's models, fitted again with further timings where there are some."""
    if not timed:
        return prepared.costs
    fitted = prepared.fitted.refitted(prepared.config.latency, timed)
    return RowCosts(prepared.space, prepared.config.device, fitted.predictors, prepared.config.budget)


def ranked(found: SearchResult, costs: RowCosts, tried: Profile) -> list[Entry]:
    """Return the trained networks within all limits, the front's first, of both the most accurate first.

    A timed network is held against the budget by its measurement, and compared with others at the profile's level;
    another one by the upper quantile of its prediction. Each has the precision that is its faster one by that. One that
    the device refuses in every precision is out.

    Args:
        found: The search.
        costs: What networks cost, by the models that count now.
        tried: As `confirm` returned it.
    """
    out = _keys(tried.refused) - _keys(tried.networks)
    sound = [entry for entry in found.entries if not entry.failed and entry.key not in out]
    if not sound:
        return []
    limits, judged = costs.limits(), costs.of([entry.architecture for entry in sound])
    known: dict[str, list[Probed]] = {}
    for item in sorted(tried.networks, key=lambda item: item.timing.latency_ms):
        known.setdefault(item.architecture.key, []).append(item)
    standing = []
    for number, entry in enumerate(sound):
        if entry.key in known:
            ways = [
                replace(entry, precision=item.precision, objective=item.timing.latency_ms / item.level)
                for item in known[entry.key]
                if item.timing.latency_ms <= limits["latency_ms"]
            ]
        else:
            precision = judged.precisions[judged.precision[number]]
            ways = [replace(entry, precision=precision, objective=float(judged.objective[number]))]
            ways = ways if judged.feasible[number] else []
        standing += list(within_limits(ways, costs.device, limits))[:1]
    front = {entry.key for entry in replace(found, entries=tuple(standing)).front()}
    return sorted(standing, key=lambda entry: (entry.key not in front, -entry.metric.value))


def _keys(networks: Sequence[Probed | Refused]) -> frozenset[str]:
    return frozenset(known.architecture.key for known in networks)


def with_preferred(fits: Sequence[LatencyFit], timed: Sequence[Probed], costs: RowCosts) -> tuple[LatencyFit, ...]:
    """Return the fits with what was predicted and measured of the networks that a search preferred.

    Args:
        fits: One for each precision.
        timed: Networks that `confirm` timed.
        costs: With the models that the search had.
    """
    found = []
    for fit in fits:
        samples = [known.sample(costs.device.plan) for known in timed if known.precision == fit.precision]
        if samples:
            predictor = next(known for precision, known in costs.predictors.items() if precision == fit.precision)
            predicted = predictor.predict([sample.workload for sample in samples]).mean_ms
            fit = replace(
                fit,
                preferred_predicted_ms=tuple(map(float, predicted)),
                preferred_measured_ms=tuple(sample.latency_ms for sample in samples),
            )
        found.append(fit)
    return tuple(found)
