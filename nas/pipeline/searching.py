"""The search of a run: its training jobs, its control, its teacher."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.pipeline.jobs import SearchJob, train_candidate
from nas.pipeline.setup import State
from nas.protocols import Progress
from nas.results import SearchedNetwork, SearchSummary
from nas.run import RunDirectory
from nas.search.feasible import Survey
from nas.search.objectives import RowCosts
from nas.search.pareto import hypervolume
from nas.search.study import Entry, SearchOptions, SearchResult, Trained, Work, search
from nas.train import derived_seed
from nas.workers import Workers
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.space import SearchSpace, decode, mutate, sample, size

_UNITS = {"macs": "MAC", "parameters": "parameters", "weight_bytes": "bytes", "peak_memory_bytes": "bytes"}
_SOURCES = {"weight_bytes": "sum over blocks", "peak_memory_bytes": "liveness bound"}
"""Other figures than those of a written file, which knows more: see `nas.export.counted`."""


def run_search(
    space: SearchSpace,
    costs: RowCosts,
    found: Survey,
    state: State,
    workers: Workers[State],
    run: RunDirectory,
    options: SearchOptions,
    *,
    label: str,
    progress: Progress,
) -> SearchResult:
    """Search, training candidates in worker processes; continues what the run directory holds."""
    seed = derived_seed(state.config.seed, label)
    hours = state.config.train.max_hours
    spent = [float(event["elapsed"]) for event in run.log.of("finished")]
    deadline = time.time() + 3600.0 * hours - (spent[-1] if spent else 0.0) if hours else 0.0
    return search(
        space,
        costs,
        options,
        feasible=found.rows,
        run=run,
        train=_trainer(state, workers, run.path / "search", options, deadline),
        seed=seed,
        deadline=lambda: bool(deadline) and time.time() > deadline,
        progress=lambda _label, share: progress(label, share),
    )


def _trainer(
    state: State, workers: Workers[State], folder: Path, options: SearchOptions, deadline: float
) -> Callable[[Sequence[Work]], Iterator[Trained]]:
    def train(work: Sequence[Work]) -> Iterator[Trained]:
        jobs = [
            (
                SearchJob(
                    architecture=item.architecture.to_json(),
                    key=item.key,
                    until_epoch=item.until_epoch,
                    epochs=options.rungs.epochs[-1],
                    seed=derived_seed(state.config.seed, "weights", item.key),
                    folder=str(folder / item.key),
                    deadline=deadline,
                ),
            )
            for item in work
        ]
        for _, trained in workers.run(train_candidate, jobs):
            if trained is not None:
                yield trained

    return train


def control_of(options: SearchOptions) -> SearchOptions:
    """Return the options of a random search of equal number and rungs."""
    return replace(options, sampler="random", control=False, storage="")


def summarize(
    result: SearchResult, options: SearchOptions, found: Survey, costs: RowCosts, reference: tuple[float, float]
) -> SearchSummary:
    """Return what the report says about a search.

    Args:
        result: The search.
        options: How it was done.
        found: The survey of the space before it.
        costs: What rows cost.
        reference: Least metric and greatest objective that count for the hypervolume.
    """
    front = {entry.key for entry in result.front()}
    sound = [entry for entry in result.entries if not entry.failed]
    area = hypervolume(
        np.array([entry.metric.value for entry in sound]), np.array([entry.objective for entry in sound]), reference
    )
    return SearchSummary(
        sampler=options.sampler,
        networks=tuple(_searched(entry, entry.key in front) for entry in result.entries),
        skipped=tuple((float(item["objective"]), tuple(sorted(item["excess"]))) for item in result.skipped),
        duplicates=result.duplicates,
        feasible_share=found.share,
        space_size=str(size(costs.space)),
        hypervolume=area,
        reference_metric=reference[0],
        reference_objective=reference[1],
        complete=result.complete,
        seconds=result.seconds,
        rung_epochs=options.rungs.epochs,
    )


def reference_point(results: Sequence[SearchResult], costs: RowCosts, num_classes: int) -> tuple[float, float]:
    """Return chance level and the latency budget, or the dearest network where there is no such budget."""
    dearest = max((entry.objective for result in results for entry in result.entries), default=1.0)
    limit = costs.budget.latency_ms if costs.predictors else costs.budget.macs
    return 1.0 / num_classes, float(limit) if limit is not None else 1.01 * dearest


def _searched(entry: Entry, on_front: bool) -> SearchedNetwork:
    figures = {}
    for name, value in entry.figures.items():
        timed = name.endswith("_ms")
        figures[name] = Measurement(
            value=value,
            unit="ms" if timed else _UNITS[name],
            origin="predicted" if timed else "counted",
            source=_SOURCES.get(name, ""),
        )
    return SearchedNetwork(
        key=entry.key,
        values=entry.values,
        metric=entry.metric,
        rung=entry.rung,
        precision=entry.precision,
        figures=figures,
        objective=entry.objective,
        on_front=on_front,
        failed=entry.failed,
    )


def largest_network(space: SearchSpace, *, seed: int) -> Architecture:
    """Return the network with most MACs that drawing and climbing finds: the teacher where none is given."""
    rng = np.random.default_rng(seed)
    rows = sample(space, 64, rng)
    best = max((decode(space, row) for row in rows), key=_macs)
    for _ in range(12):
        order = np.argsort([-_macs(decode(space, row)) for row in rows], kind="stable")[:16]
        rows = np.concatenate([rows[order], mutate(space, np.repeat(rows[order], 3, axis=0), rng)])
        best = max([best, *(decode(space, row) for row in rows)], key=_macs)
    return best


def _macs(architecture: Architecture) -> int:
    return macs(lower(architecture))
