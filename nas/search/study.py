"""The search loop: batches of new, feasible networks are proposed by Optuna, trained rung by rung, logged, told.

The event log is the truth and Optuna's study a view of it. Events of this file:

    proposed   one batch: keys with their values and costs, and what was skipped as infeasible on the way
    started    one key begins a rung
    finished   one key has finished a rung, with its metric

A batch is written down before anything of it is trained, so a run that is killed goes on with the same batch, and the
sampler's randomness depends on the seed and the number of networks seen alone: the interrupted search ends like one
that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from nas.protocols import Progress, quiet
from nas.run import Event, RunDirectory, write_atomic
from nas.search.objectives import Costs, RowCosts
from nas.search.pareto import front_order
from nas.search.rungs import Rungs, promoted
from nas.search.sampler import FeasibleRandomSampler, GuidedSampler
from nas.search.storage import check_url, open_study, storage_errors
from search_spaces.architecture import Architecture
from search_spaces.measurement import Measurement
from search_spaces.space import Option, Rows, SearchSpace, row

SamplerName = Literal["guided", "tpe", "nsga2", "random"]

_PATIENCE = 50
"""Proposals in a row that are known or infeasible before a sampler is helped out with a feasible row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How a space is searched.

    Attributes:
        trials: Distinct feasible networks to train.
        batch: Networks proposed at once, before results of any of them are known.
        sampler: "guided" is ours; "tpe" and "nsga2" are Optuna's; "random" draws feasible networks.
        startup: Networks trained before the guided sampler's model takes over.
        rungs: Training lengths and promotion.
        storage: Any Optuna storage URL; empty for a journal file in the run directory. Runs may share a database:
            each has a study named by `RunDirectory.identity`.
        control: Whether a random search of as many networks is run too, to compare with.
    """

    trials: int = 40
    batch: int = 8
    sampler: SamplerName = "guided"
    startup: int = 16
    rungs: Rungs = field(default_factory=Rungs)
    storage: str = ""
    control: bool = False

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        for name in ("trials", "batch", "startup"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.storage:
            check_url(self.storage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One training that the loop asks for: a network, and the epoch to train it to."""

    key: str
    architecture: Architecture
    rung: int
    until_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of it: the validation metric, or why there is none."""

    key: str
    metric: Measurement
    seconds: float
    failed: str = ""


Train = Callable[[Sequence[Work]], Iterator[Trained]]
"""Trains several networks and yields each result as soon as it is there, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One network the search trained.

    Attributes:
        key: Of the architecture.
        architecture: The network.
        values: Its choices.
        precision: What it would ship in.
        figures: Predicted latency and counts by name, in that precision.
        objective: What was minimized.
        metric: On the validation split, at its highest rung.
        rung: That rung.
        seconds: Training time over all rungs.
        failed: Why training failed; empty where it did not.
    """

    key: str
    architecture: Architecture
    values: Mapping[str, Option]
    precision: str
    figures: Mapping[str, float]
    objective: float
    metric: Measurement
    rung: int
    seconds: float
    failed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """All networks trained, in the order of proposal, and what was skipped.

    Attributes:
        entries: Trained networks.
        skipped: Networks proposed but never trained, with the limits they exceed.
        duplicates: Proposals answered from the log.
        complete: Whether the number of networks asked for was reached.
        seconds: Wall time of the search over all sessions.
    """

    entries: tuple[Entry, ...]
    skipped: tuple[Mapping[str, Any], ...]  # Any: JSON values
    duplicates: int
    complete: bool
    seconds: float

    def front(self) -> tuple[Entry, ...]:
        """Return the nondominated networks among those on the highest rung anybody reached, cheapest first."""
        sound = [entry for entry in self.entries if not entry.failed]
        if not sound:
            return ()
        top = max(entry.rung for entry in sound)
        climbed = [entry for entry in sound if entry.rung == top]
        metric = np.array([entry.metric.value for entry in climbed])
        cost = np.array([entry.objective for entry in climbed])
        return tuple(climbed[index] for index in front_order(metric, cost))


def search(
    space: SearchSpace,
    costs: RowCosts,
    options: SearchOptions,
    *,
    feasible: Rows,
    run: RunDirectory,
    train: Train,
    seed: int,
    deadline: Callable[[], bool] = lambda: False,
    progress: Progress = quiet,
) -> SearchResult:
    """Run the search, or go on with it, until enough networks are trained or time is up.

    Args:
        space: What to search.
        costs: What rows cost; infeasible ones are never trained.
        options: How to search.
        feasible: Some rows that fit.
        run: Where events are logged.
        train: Trains networks.
        seed: Of the proposals.
        deadline: Whether time is up; asked before every rung.
        progress: Told the share of networks trained.
    """
    loop = _Loop(space, costs, options, feasible, run, train, seed, deadline, progress)
    return loop.run_to_end()


class _Loop:
    def __init__(
        self,
        space: SearchSpace,
        costs: RowCosts,
        options: SearchOptions,
        feasible: Rows,
        run: RunDirectory,
        train: Train,
        seed: int,
        deadline: Callable[[], bool],
        progress: Progress,
    ) -> None:
        self._space, self._costs, self._options, self._feasible = space, costs, options, feasible
        self._run, self._train, self._deadline, self._progress = run, train, deadline, progress
        self._seed = seed
        self._rng = np.random.default_rng([seed, 2])
        self._architectures: dict[str, Architecture] = {}
        self._items: dict[str, Event] = {}  # key -> item of its batch
        self._results: list[dict[str, tuple[float, float]]] = [{} for _ in options.rungs.epochs]  # without failed ones
        self._started: set[tuple[str, int]] = set()
        self._done: set[tuple[str, int]] = set()
        self._finished: dict[str, list[Event]] = {}
        self._batches: list[list[str]] = []
        self._told: dict[str, int] = {}  # key -> number of the running trial to tell
        self._before = 0.0
        self._start = time.monotonic()
        self._replay()
        self._study = open_study(
            options.storage, name=run.identity, journal=run.journal, sampler=self._sampler(), known=self._items
        )
        with storage_errors(options.storage):
            self._catch_up()

    # -- the loop

    def run_to_end(self) -> SearchResult:
        exhausted = False
        if self._batches:
            self._train_batch(self._batches[-1])
        while len(self._items) < self._options.trials and not exhausted and not self._deadline():
            with storage_errors(self._options.storage):
                batch = self._propose()
            exhausted = not batch
            if batch:
                self._train_batch(batch)
        self._progress("search", 1.0)
        entries = tuple(self._entry(key) for key in self._items if self._finished.get(key))
        proposed = self._run.log.of("proposed")
        return SearchResult(
            entries=entries,
            skipped=tuple(item for event in proposed for item in event["skipped"]),
            duplicates=sum(int(event["duplicates"]) for event in proposed),
            complete=len(entries) >= self._options.trials,
            seconds=self._elapsed(),
        )

    def _train_batch(self, batch: list[str]) -> None:
        """Train a batch rung by rung; what the log holds already is not trained again."""
        members: Sequence[str] = batch
        for rung, epochs in enumerate(self._options.rungs.epochs):
            todo = [key for key in members if (key, rung) not in self._done]
            if todo and self._deadline():
                break
            for key in todo:
                if (key, rung) not in self._started:
                    self._started.add((key, rung))
                    self._append("started", key=key, rung=rung)
            work = [Work(key=key, architecture=self._architectures[key], rung=rung, until_epoch=epochs) for key in todo]
            for trained in self._train(work):
                self._finish(trained, rung)
            members = [key for key in members if key in self._results[rung]]
            if not members:
                break
            members = promoted(members, self._results[rung], keep=self._options.rungs.keep)
        with storage_errors(self._options.storage):
            for key in batch:
                if self._finished.get(key):
                    self._tell(key)

    def _finish(self, trained: Trained, rung: int) -> None:
        event = self._append(
            "finished",
            key=trained.key,
            rung=rung,
            metric=trained.metric.to_dict(),
            seconds=round(trained.seconds, 3),
            elapsed=round(self._elapsed(), 3),
            failed=trained.failed,
        )
        self._take_result(event)
        self._progress("search", min(1.0, len(self._finished) / self._options.trials))

    def _take_result(self, event: Event) -> None:
        key, rung = event["key"], event["rung"]
        self._finished.setdefault(key, []).append(event)
        self._done.add((key, rung))
        if not event["failed"]:  # its metric is none, and it would diverge again
            self._results[rung][key] = (float(event["metric"]["value"]), float(self._items[key]["objective"]))

    # -- proposals

    def _propose(self) -> list[str]:
        """Ask for a batch of new feasible networks and write it down; empty when no network is left."""
        wanted = min(self._options.batch, self._options.trials - len(self._items))
        items: dict[str, dict[str, Any]] = {}  # Any: JSON values
        skipped: list[dict[str, Any]] = []
        duplicates = misses = 0
        while len(items) < wanted:
            trial = self._study.ask()
            values = _suggest(trial, self._space)
            costs = self._costs(row(self._space, values)[None])
            architecture = self._space.decode(values)
            key = architecture.key
            trial.set_user_attr("key", key)
            self._constrain(trial, costs)
            if not costs.feasible[0]:
                skipped.append({"key": key, "excess": _positive(costs), "objective": float(costs.objective[0])})
                self._study.tell(trial, [0.0, float(costs.objective[0])])
            elif key in self._items or key in items:
                duplicates += 1
                self._tell_duplicate(trial, key)
            else:
                items[key] = self._item(key, values, costs)
                self._told[key] = trial.number
                self._remember(key, architecture)
                misses = 0
                continue
            misses += 1
            if misses >= _PATIENCE:
                fresh = self._fresh_row(items)
                if fresh is None:
                    break
                self._study.enqueue_trial(fresh)
                misses = 0
        if items:
            self._append("proposed", items=list(items.values()), skipped=skipped, duplicates=duplicates)
            self._batches.append(list(items))
            self._items |= items
        return list(items)

    def _item(self, key: str, values: Mapping[str, Option], costs: Costs) -> dict[str, Any]:  # Any: JSON values
        return {
            "key": key,
            "values": dict(values),
            "precision": costs.precisions[int(costs.precision[0])],
            "objective": float(costs.objective[0]),
            "figures": {name: float(figure[0]) for name, figure in costs.figures.items()},
        }

    def _fresh_row(self, items: Mapping[str, object]) -> dict[str, Option] | None:
        """Return the values of a feasible network nobody proposed, or None when none is known."""
        for number in self._rng.permutation(len(self._feasible)):
            chosen = {
                choice.name: choice.options[option]
                for choice, option in zip(self._space.choices, self._feasible[number], strict=True)
            }
            key = self._space.decode(chosen).key
            if key not in self._items and key not in items:
                return chosen
        return None

    def _constrain(self, trial: optuna.Trial, costs: Costs) -> None:
        for name, over in costs.excess.items():
            trial.set_constraint(name, float(over[0]))

    def _tell_duplicate(self, trial: optuna.Trial, key: str) -> None:
        events = self._finished.get(key)
        if events:
            self._study.tell(trial, self._values(key))
        else:  # proposed in this very batch
            self._study.tell(trial, state=TrialState.FAIL)

    # -- Optuna's view of the log

    def _catch_up(self) -> None:
        """Give up what an interrupted session left running, and tell the study what the log holds besides."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        known = {trial.user_attrs.get("key") for trial in complete}
        unfinished = set(self._batches[-1]) if self._batches else set()
        for key in self._items:
            if self._finished.get(key) and key not in known and key not in unfinished:
                self._tell(key)

    def _sampler(self) -> BaseSampler:
        seed, name = self._seed, self._options.sampler
        if name == "guided":
            startup = self._options.startup
            return GuidedSampler(self._space, self._costs, self._feasible, seed=seed, startup=startup)
        if name == "tpe":
            return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)
        return FeasibleRandomSampler(self._space, self._costs, self._feasible, seed=seed)

    def _tell(self, key: str) -> None:
        """Tell the study one finished network, once."""
        known = any(
            trial.user_attrs.get("key") == key
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        )
        if known:
            return
        number = self._told.pop(key, None)
        if number is not None:
            self._study.tell(number, self._values(key))
            return
        item = self._items[key]
        distributions = {choice.name: CategoricalDistribution(choice.options) for choice in self._space.choices}
        self._study.add_trial(
            optuna.trial.create_trial(
                params=dict(item["values"]),
                distributions=distributions,  # type: ignore[arg-type]  # invariant dict of a subclass
                values=self._values(key),
                user_attrs={"key": key},
            )
        )

    def _values(self, key: str) -> list[float]:
        return [float(self._finished[key][-1]["metric"]["value"]), float(self._items[key]["objective"])]

    # -- the log

    def _replay(self) -> None:
        for event in self._run.log.events:
            if event["event"] == "proposed":
                self._batches.append([item["key"] for item in event["items"]])
                for item in event["items"]:
                    self._items[item["key"]] = item
                    self._architectures[item["key"]] = self._space.decode(item["values"])
            elif event["event"] == "started":
                self._started.add((event["key"], event["rung"]))
            elif event["event"] == "finished":
                self._take_result(event)
                self._before = float(event["elapsed"])

    def _append(self, kind: str, **fields: Any) -> Event:  # Any: JSON values
        event = {"event": kind, "sequence": len(self._run.log.events), **fields}
        self._run.log.append(event)
        return event

    def _remember(self, key: str, architecture: Architecture) -> None:
        self._architectures[key] = architecture
        write_atomic(self._run.path / "architectures" / f"{key}.json", architecture.to_json() + "\n")

    def _elapsed(self) -> float:
        return self._before + time.monotonic() - self._start

    def _entry(self, key: str) -> Entry:
        item, events = self._items[key], self._finished[key]
        return Entry(
            key=key,
            architecture=self._architectures[key],
            values=item["values"],
            precision=item["precision"],
            figures=item["figures"],
            objective=item["objective"],
            metric=Measurement.from_dict(events[-1]["metric"]),
            rung=int(events[-1]["rung"]),
            seconds=sum(float(event["seconds"]) for event in events),
            failed=str(events[-1]["failed"]),
        )


def _suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for choice in space.choices:
        option = trial.suggest_categorical(choice.name, choice.options)
        assert option is not None
        found[choice.name] = option
    return found


def _positive(costs: Costs) -> dict[str, float]:
    return {name: float(over[0]) for name, over in costs.excess.items() if over[0] > 0}
