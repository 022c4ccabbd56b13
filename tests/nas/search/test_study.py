import logging
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import optuna
import pytest

from nas.run import EventLog, RunDirectory
from nas.search.feasible import survey
from nas.search.objectives import Budget, RowCosts
from nas.search.pareto import hypervolume
from nas.search.study import SearchOptions, search
from search_spaces.mixed import MixedSpace
from search_spaces.space import num_architectures
from tests.nas.search import simulated


@pytest.fixture(scope="module")
def costs():
    return simulated.costs()


@pytest.fixture(scope="module")
def feasible(costs):
    return survey(simulated.SPACE, costs, seed=0).rows


def run_search(path, costs, feasible, train=simulated.train, seed=0, deadline=lambda: False, **options):
    with RunDirectory.open(path, {"seed": seed}) as run:
        return search(
            simulated.SPACE,
            costs,
            SearchOptions(**({"trials": 20, "batch": 4, "startup": 8} | options)),
            feasible=feasible,
            run=run,
            train=train,
            seed=seed,
            deadline=deadline,
        )


def counts(path):
    log = EventLog.open(path / "evaluations.jsonl")
    started = [(event["key"], event["rung"]) for event in log.of("started")]
    finished = [(event["key"], event["rung"]) for event in log.of("finished")]
    return started, finished


def journal_study(path):
    """The only study of a run's journal."""
    backend = optuna.storages.journal.JournalFileBackend(str(path / "study.journal"))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))


@pytest.mark.parametrize("sampler", ["guided", "tpe", "nsga2", "random"])
def test_every_trained_network_is_new_and_feasible(tmp_path, costs, feasible, sampler):
    result = run_search(tmp_path, costs, feasible, sampler=sampler)
    assert len(result.entries) == 20
    assert len({entry.key for entry in result.entries}) == 20
    assert costs.of([entry.architecture for entry in result.entries]).feasible.all()
    assert result.complete


def test_infeasible_proposals_are_told_with_their_constraint_and_never_trained(tmp_path, costs, feasible):
    trained = []

    def watch(work):
        trained.extend(item.key for item in work)
        yield from simulated.train(work)

    result = run_search(tmp_path, costs, feasible, watch, sampler="nsga2")
    assert result.skipped
    assert not {item["key"] for item in result.skipped} & set(trained)
    assert all(max(item["excess"].values()) > 0 for item in result.skipped)
    study = journal_study(tmp_path)
    broken = [trial for trial in study.trials if any(value > 0 for value in trial.constraints.values())]
    assert len(broken) == len(result.skipped)
    assert all(trial.values[0] == 0.0 for trial in broken)


def test_rungs_train_the_better_half_longer(tmp_path, costs, feasible):
    result = run_search(tmp_path, costs, feasible)
    started, finished = counts(tmp_path)
    assert sorted(started) == sorted(finished)
    per_rung = [sum(rung == level for _, rung in finished) for level in range(3)]
    assert per_rung[0] == 20
    assert per_rung[0] > per_rung[1] > per_rung[2] > 0
    assert {entry.rung for entry in result.front()} == {2}


def test_equal_seeds_give_equal_searches_and_other_seeds_do_not(tmp_path, costs, feasible):
    first, second, third = (
        [entry.key for entry in run_search(tmp_path / name, costs, feasible, seed=seed).entries]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second
    assert first != third


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 5, 9, 17])
def test_interrupted_search_ends_like_one_that_was_not(tmp_path, costs, feasible, after):
    whole = run_search(tmp_path / "whole", costs, feasible)
    left = [after]

    def stops(work):
        for trained in simulated.train(work):
            if left[0] == 0:
                raise Interrupted
            left[0] -= 1
            yield trained

    with pytest.raises(Interrupted):
        run_search(tmp_path / "cut", costs, feasible, stops)
    again = run_search(tmp_path / "cut", costs, feasible)
    assert [entry.key for entry in again.entries] == [entry.key for entry in whole.entries]
    assert [entry.metric for entry in again.entries] == [entry.metric for entry in whole.entries]
    _, finished = counts(tmp_path / "cut")
    assert len(finished) == len(set(finished))


def test_log_cut_at_every_byte_of_its_last_record_goes_on_to_the_same_end(tmp_path, costs, feasible):
    small = {"trials": 6, "batch": 3, "startup": 6}
    whole = run_search(tmp_path, costs, feasible, **small)
    log = tmp_path / "evaluations.jsonl"
    data = log.read_bytes()
    last = data.rfind(b"\n", 0, len(data) - 1) + 1
    for cut in range(last, len(data), 7):
        log.write_bytes(data[:cut])
        again = run_search(tmp_path, costs, feasible, **small)
        assert [entry.key for entry in again.entries] == [entry.key for entry in whole.entries]
        assert log.read_bytes().count(b"\n") == data.count(b"\n")


def test_journal_cut_inside_a_trial_is_told_again_from_the_log(tmp_path, costs, feasible):
    whole = run_search(tmp_path, costs, feasible)
    journal = tmp_path / "study.journal"
    data = journal.read_bytes()
    for cut in (len(data) // 3, len(data) // 2 + 11, len(data) - 5):
        journal.write_bytes(data[:cut])
        again = run_search(tmp_path, costs, feasible)
        assert [entry.key for entry in again.entries] == [entry.key for entry in whole.entries]
        study = journal_study(tmp_path)
        complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
        assert {trial.user_attrs["key"] for trial in complete} >= {entry.key for entry in whole.entries}
        assert not any(trial.state == optuna.trial.TrialState.RUNNING for trial in study.trials)


@pytest.mark.parametrize("damage", [b"nonsense\n", b"5\n", b"\xff\n"], ids=["text", "number", "bytes"])
def test_damaged_journal_is_set_aside_and_rebuilt_from_the_log(tmp_path, costs, feasible, damage, caplog):
    small = {"trials": 6, "batch": 3, "startup": 6}
    whole = run_search(tmp_path, costs, feasible, **small)
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = damage
    journal.write_bytes(b"".join(lines))
    with caplog.at_level(logging.WARNING, logger="nas"):
        again = run_search(tmp_path, costs, feasible, **small)
    assert [entry.key for entry in again.entries] == [entry.key for entry in whole.entries]
    assert (tmp_path / "study.journal.damaged").read_bytes() == b"".join(lines)
    assert {trial.user_attrs["key"] for trial in journal_study(tmp_path).trials} == {e.key for e in whole.entries}
    (record,) = caplog.records
    assert "study.journal is damaged" in record.getMessage()
    assert "it is now study.journal.damaged, and the study is rebuilt from the event log" in record.getMessage()


def test_time_that_is_up_ends_the_search_with_what_is_there(tmp_path, costs, feasible):
    asked = []

    def deadline():
        asked.append(1)
        return len(asked) > 6

    result = run_search(tmp_path, costs, feasible, deadline=deadline)
    assert 0 < len(result.entries) < 20
    assert not result.complete
    assert result.front()


def test_failed_training_is_kept_out_of_the_front(tmp_path, costs, feasible):
    def fails(work):
        for trained in simulated.train(work):
            failed = int(trained.key[0], 16) < 4
            yield (
                trained
                if not failed
                else type(trained)(key=trained.key, metric=trained.metric, seconds=1.0, failed="loss is not finite")
            )

    result = run_search(tmp_path, costs, feasible, fails)
    failed = [entry for entry in result.entries if entry.failed]
    assert failed
    assert not {entry.key for entry in failed} & {entry.key for entry in result.front()}


def test_diverged_network_takes_no_place_on_a_higher_rung(tmp_path, costs, feasible):
    """The cheapest of each batch diverges: with a metric of 0 it is dominated by nothing."""
    trainings = []

    def cheapest_diverges(work):
        work = list(work)
        trainings.extend((item.key, item.rung) for item in work)
        cheapest = min(work, key=lambda item: costs.of([item.architecture]).objective[0])
        for trained in simulated.train(work):
            lost = trained.key == cheapest.key and cheapest.rung == 0
            none = replace(trained.metric, value=0.0)
            yield replace(trained, metric=none, failed="loss is not finite") if lost else trained

    result = run_search(tmp_path, costs, feasible, cheapest_diverges)
    failed = {entry.key for entry in result.entries if entry.failed}
    assert len(failed) == 5
    assert not failed & {key for key, rung in trainings if rung > 0}
    assert any(rung == 2 for _, rung in trainings)


def test_batch_in_which_every_training_diverges_is_trained_once(tmp_path, costs, feasible):
    trainings = []

    def diverges(work):
        trainings.extend((item.key, item.rung) for item in work)
        for trained in simulated.train(work):
            yield replace(trained, failed="loss is not finite")

    for _ in range(2):
        result = run_search(tmp_path, costs, feasible, diverges, trials=4)
    assert sorted(trainings) == sorted((entry.key, 0) for entry in result.entries)
    assert result.front() == ()


def test_guided_search_finds_more_than_random_and_tpe(tmp_path, costs, feasible):
    def area(sampler, seed):
        result = run_search(tmp_path / f"{sampler}{seed}", costs, feasible, seed=seed, sampler=sampler, trials=32)
        metric = np.array([simulated.accuracy(entry.architecture, 4) for entry in result.entries])
        return hypervolume(metric, np.array([entry.objective for entry in result.entries]), (0.3, 0.08))

    found = {name: np.mean([area(name, seed) for seed in range(2)]) for name in ("guided", "tpe", "random")}
    assert found["guided"] > found["tpe"]
    assert found["guided"] > found["random"]


def test_search_ends_when_every_feasible_network_is_trained(tmp_path):
    space = MixedSpace(
        families=("mobilenet", "shufflenet"),
        widths=((8,), (16,)),
        depths=(1,),
        expansions=(2,),
        se=(False,),
        activations=("relu",),
        head_widths=(32,),
    )
    target = simulated.device()
    priced = RowCosts(space, target, simulated.predictors(target), Budget(latency_ms=1.0))
    rows = survey(space, priced, seed=0).rows
    with RunDirectory.open(tmp_path, {}) as run:
        result = search(
            space,
            priced,
            SearchOptions(trials=100, batch=8, startup=4),
            feasible=rows,
            run=run,
            train=simulated.train,
            seed=0,
        )
    assert not result.complete
    assert len(result.entries) == num_architectures(space) == 16


def test_killed_search_loses_nothing_and_repeats_nothing(tmp_path):
    """A real SIGKILL at several moments, then the same command again."""
    command = [sys.executable, "-m", "tests.nas.search.killed", str(tmp_path / "run")]
    for delay in (2.0, 2.6, 3.4):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."})
        time.sleep(delay)
        process.kill()
        process.wait()
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": "."})
    started, finished = counts(tmp_path / "run")
    assert len(finished) == len(set(finished))
    assert set(started) == set(finished)
    assert sum(rung == 0 for _, rung in finished) == 12
    trainings = (tmp_path / "run" / "trainings.txt").read_text().split()
    assert sorted(set(trainings)) == sorted(f"{key}.{rung}" for key, rung in finished)
