"""Runs that keep their studies in a database instead of a journal of their own."""

import shutil
import sqlite3

import optuna
import pytest
from optuna.trial import TrialState

from nas.run import RunDirectory
from nas.search.feasible import survey
from nas.search.storage import open_study
from nas.search.study import SearchOptions, search
from search_spaces.errors import ConfigError, RunError
from tests.nas.search import simulated


@pytest.fixture(scope="module")
def costs():
    return simulated.costs()


@pytest.fixture(scope="module")
def feasible(costs):
    return survey(simulated.SPACE, costs, seed=0, draws=256, generations=5).rows


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture
def run_search(costs, feasible, database):
    def run_search(path, train=simulated.train, seed=0):
        options = SearchOptions(trials=6, batch=3, startup=6, storage=database)
        with RunDirectory.open(path, {"seed": seed}) as run:
            return search(simulated.SPACE, costs, options, feasible=feasible, run=run, train=train, seed=seed)

    return run_search


def trials(database):
    """Keys and states of the trials of every study."""
    return {
        name: {
            (trial.user_attrs["key"], trial.state)
            for trial in optuna.load_study(study_name=name, storage=database).trials
        }
        for name in optuna.get_all_study_names(database)
    }


def keys(result):
    return {(entry.key, TrialState.COMPLETE) for entry in result.entries}


def test_runs_of_one_name_share_a_database_and_nothing_else(tmp_path, run_search, database):
    """The second runs while the first one trains, and would fail its running trials."""
    inner = []

    def starts_another(work):
        if not inner:
            inner.append(run_search(tmp_path / "b" / "demo", seed=1))
        yield from simulated.train(work)

    outer = run_search(tmp_path / "a" / "demo", starts_another)
    found = trials(database)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, (keys(outer), keys(inner[0]))))
    assert all(name.startswith("demo-") for name in found)


def test_run_goes_on_in_its_study(tmp_path, run_search, database):
    first = run_search(tmp_path / "demo")
    before = trials(database)
    assert keys(run_search(tmp_path / "demo")) == keys(first)
    assert trials(database) == before
    assert len(before) == 1


def test_moved_run_is_told_to_a_study_of_its_own(tmp_path, run_search, database):
    first = run_search(tmp_path / "demo")
    (tmp_path / "demo").rename(tmp_path / "moved")
    assert keys(run_search(tmp_path / "moved")) == keys(first)
    found = trials(database)
    assert {name.split("-")[0] for name in found} == {"demo", "moved"}
    assert all(told == keys(first) for told in found.values())


def test_study_of_a_removed_run_is_forgotten(tmp_path, run_search, database):
    """Its networks would count as trained, and never be proposed again."""
    first = run_search(tmp_path / "demo")
    shutil.rmtree(tmp_path / "demo")
    again = run_search(tmp_path / "demo")
    assert [entry.key for entry in again.entries] == [entry.key for entry in first.entries]
    assert list(trials(database).values()) == [keys(first)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "Could not parse"),
        ("oracel://x", "oracel"),
        ("redis://localhost", "redis"),
        ("postgresql://h:port/x", "port"),
    ],
    ids=["no url", "scheme", "redis", "port"],
)
def test_storage_of_no_known_kind_is_refused_before_anything_runs(url, said):
    with pytest.raises(
        ValueError, match=f"storage must be the URL of a database that Optuna knows.*{said}.*leave it out"
    ):
        SearchOptions(storage=url)


def opened(tmp_path, url):
    return open_study(
        url, name="demo", journal=tmp_path / "study.journal", sampler=optuna.samplers.RandomSampler(), known=()
    )


def test_database_that_cannot_be_opened_is_one_sentence(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^search.storage sqlite:.*x.db cannot be opened \(unable to open database file\)"
    ):
        opened(tmp_path, f"sqlite:///{tmp_path}/absent/x.db")
    (tmp_path / "notes.txt").write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigError, match=r"notes.txt cannot be opened \(file is not a database\); check the URL"):
        opened(tmp_path, f"sqlite:///{tmp_path}/notes.txt")


def test_missing_driver_is_named_and_the_password_is_not(tmp_path):
    with pytest.raises(
        ConfigError, match=r"user:\*\*\*@host/x needs a database driver .*oracledb.*; install it"
    ) as caught:
        opened(tmp_path, "oracle+oracledb://user:secret@host/x")
    assert "secret" not in str(caught.value)


def test_database_of_another_optuna_is_one_sentence(tmp_path, database):
    optuna.storages.RDBStorage(database)
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.close()
    with pytest.raises(ConfigError, match=r"studies.db cannot be opened \(The runtime optuna version"):
        opened(tmp_path, database)


def test_database_lost_during_the_search_ends_it_and_the_log_goes_on(tmp_path, run_search):
    def loses(work):
        yield from simulated.train(work)
        with sqlite3.connect(tmp_path / "studies.db") as connection:
            connection.execute("DROP TABLE IF EXISTS trial_values")
        connection.close()

    with pytest.raises(
        RunError, match=r"^search.storage .*studies.db failed \(no such table: trial_values\); the event log"
    ):
        run_search(tmp_path / "demo", loses)
    (tmp_path / "studies.db").unlink()
    assert len(run_search(tmp_path / "demo").entries) == 6
