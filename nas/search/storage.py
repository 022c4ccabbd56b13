"""Where Optuna keeps its view of the event log: a journal file in the run directory, or a database named by a URL.

The log is the truth. A view that is damaged, or that knows networks the log does not, is made anew from the log; a
database that cannot be used is one sentence here and nowhere else.
"""

import contextlib
import logging
from collections.abc import Container, Iterator
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.run import disk_errors
from search_spaces.errors import ConfigError, RunError

# sqlalchemy is imported where a URL is given: most runs have none, and it would slow every start of the program.

_LOGGER = logging.getLogger(__name__)

_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What Optuna raises while it reads a journal whose lines are no JSON, or not what it once wrote."""


def check_url(url: str) -> None:
    """Check that a storage URL can be read and that its kind of database is known, without opening it.

    Raises:
        ValueError: It is no URL, or nobody knows its scheme.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(url).get_dialect()
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise ValueError(
            f"storage must be the URL of a database that Optuna knows, such as sqlite:///studies.db or "
            f"postgresql://user@host/name, got {_shown(url)!r} ({_reason(error)}); leave it out for a journal file"
        ) from error


def open_study(url: str, *, name: str, journal: Path, sampler: BaseSampler, known: Container[object]) -> optuna.Study:
    """Open the study of a run or create it.

    A study that holds feasible trials of networks outside `known` views the log of a run directory that was removed
    or restored since; it is deleted and created anew, for its sampler would take those networks for trained.

    Args:
        url: Of a database; empty for the journal.
        name: Of the study; no other run may have it.
        journal: File of the journal; a damaged one is set aside with the suffix `.damaged`, and a warning logged.
        sampler: Of the study.
        known: Keys of all networks in the log.

    Raises:
        ConfigError: The database cannot be opened, or its driver is missing.
        RunError: It failed later, or the disk refuses.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _open_database(url) if url else _open_journal(journal)
    with storage_errors(url):
        study = _create(storage, name, sampler)
        if all(trial.user_attrs.get("key") in known for trial in _feasible(study)):
            return study
        optuna.delete_study(study_name=name, storage=storage)
        return _create(storage, name, sampler)


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what a database in use refuses into a RunError; an empty `url` is the journal, a file like others."""
    if not url:
        yield
        return
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise RunError(
            f"search.storage {_shown(url)} failed ({_reason(error)}); the event log has lost nothing: "
            "mend the database and give the same command again"
        ) from error


def _open_database(url: str) -> BaseStorage:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.storages.RDBStorage(url)
    except ImportError as error:
        raise ConfigError(
            f"search.storage {_shown(url)} needs a database driver that is not installed "
            f"({_reason(error)}); install it, or leave storage out for a journal file"
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:  # RuntimeError: tables of another Optuna
        raise ConfigError(
            f"search.storage {_shown(url)} cannot be opened ({_reason(error)}); "
            "check the URL and that the database is there, or leave storage out for a journal file"
        ) from error


def _open_journal(path: Path) -> BaseStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except _DAMAGE as error:
        aside = path.with_name(f"{path.name}.damaged")
        with disk_errors(path):
            path.replace(aside)
        _LOGGER.warning(
            "%s is damaged (%s); it is now %s, and the study is rebuilt from the event log", path, error, aside.name
        )
        return JournalStorage(JournalFileBackend(str(path)))


def _create(storage: BaseStorage, name: str, sampler: BaseSampler) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["maximize", "minimize"],
        sampler=sampler,
        load_if_exists=True,
    )


def _feasible(study: optuna.Study) -> Iterator[optuna.trial.FrozenTrial]:
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if not any(over > 0 for over in trial.constraints.values()):
            yield trial


def _shown(url: str) -> str:
    """Return a URL without its password."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return url


def _reason(error: BaseException) -> str:
    """Return the first line of what went wrong in the first place, without the links and SQL that follow it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
