"""What every process of a run starts from: the configuration, the task, and the space fitted to it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.config import RunConfig, describe, restore
from nas.data import load_task
from nas.protocols import Progress, quiet
from nas.task import Task
from nas.train import NothingFitsError, find_augmentations, given_network, given_weights, inherit
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.errors import ConfigError, SpaceError
from search_spaces.lowering import lower
from search_spaces.reparametrize import training_form
from search_spaces.restrict import restrict
from search_spaces.space import ChainSpace, SearchSpace, decode, sample


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a worker process holds: jobs get it as their first argument."""

    config: RunConfig
    task: Task
    folder: Path


def set_up(description: Mapping[str, Any], folder: str) -> State:  # Any: JSON values
    """Return the state of a worker process from the configuration's JSON form and the run directory."""
    from nas.pipeline.suiting import as_suited

    config = as_suited(restore(description), Path(folder))
    return State(config, load_run_task(config, Path(folder)), Path(folder))


def load_run_task(config: RunConfig, folder: Path, progress: Progress = quiet) -> Task:
    """Return the run's task; decoded images are kept in the run directory."""
    find_augmentations(config.data.augment)
    return load_task(config.task, config.data, cache_dir=folder / "data", progress=progress)


def fit_space(space: SearchSpace, task: Task, allow_ops: Sequence[str] = ()) -> SearchSpace:
    """Return the space with the task's classes and channels, where it has fields for them.

    Args:
        space: As configured.
        task: The run's task.
        allow_ops: Operator kinds the device can run; options that need others are taken out. Empty for all.

    Raises:
        SpaceError: Networks of the space do not take the task's images or give other classes.
    """
    fields: set[str] = {field.name for field in dataclasses.fields(space)} if dataclasses.is_dataclass(space) else set()
    known: dict[str, object] = {"classes": len(task.classes), "channels": task.preprocessing.channels}
    changes = {name: value for name, value in known.items() if name in fields}
    fitted: SearchSpace = dataclasses.replace(space, **changes) if changes else space  # type: ignore[type-var]
    _check(fitted, task)
    return restrict(fitted, allow_ops) if allow_ops else fitted


def _check(space: SearchSpace, task: Task) -> None:
    architecture = _try_options(space)
    channels, classes = architecture.input_shape[0], lower(architecture).output.shape[-1]
    if channels != task.preprocessing.channels:
        raise SpaceError(
            f"networks of the space take {channels} channels, images of the task have {task.preprocessing.channels}: "
            "set `color` in [data], or give the space a field `channels`"
        )
    if classes != len(task.classes):
        raise SpaceError(
            f"networks of the space give {classes} classes, the task has {len(task.classes)}: "
            "give the space a field `classes`"
        )


def check_given(config: RunConfig, task: Task, space: SearchSpace) -> None:
    """Look at every file of weights that a run names before anything is probed or trained.

    Raises:
        ConfigError: `train.init` fits none of 16 random networks of the space, or a teacher is none for the task.
        RunError: A file cannot be read.
    """
    teachers = {"train.teacher": config.train.teacher}
    for number, gated in enumerate(config.stages):
        teachers[f"stages[{number}].teacher"] = getattr(gated.stage, "teacher", "")
    for place, file in teachers.items():
        if file:
            _check_teacher(Path(file), place, task)
    if config.train.init:
        _check_start(config, space)


def _check_teacher(file: Path, place: str, task: Task) -> None:
    images = task.preprocessing
    architecture, _ = given_network(file, height=images.height, width=images.width)
    classes, channels = lower(architecture).output.shape[-1], architecture.input_shape[0]
    if (classes, channels) != (len(task.classes), images.channels):
        raise ConfigError(
            f"{place}: {file} tells {classes} classes apart in images of {channels} channels, the task has "
            f"{len(task.classes)} and {images.channels}; train it on this task"
        )


def _check_start(config: RunConfig, space: SearchSpace) -> None:
    weights = given_weights(Path(config.train.init))
    reason = ""
    for row in sample(space, 16, np.random.default_rng(0)):
        try:
            inherit(build(training_form(decode(space, row))), weights)
        except NothingFitsError as error:
            reason = str(error)
        else:
            return
    raise ConfigError(f"train.init: {config.train.init} starts none of 16 random networks of the space: {reason}")


def _try_options(space: SearchSpace) -> Architecture:
    """Decode every option once, the other choices at their first, and return the network of all first options.

    Raises:
        SpaceError: An option makes a block that cannot be; better told now than while the space is sampled.
    """
    option = "the space"
    try:
        first = {choice.name: choice.options[0] for choice in space.choices}
        architecture = space.decode(first)
        for choice in space.choices:
            for value in choice.options[1:]:
                option = f"{choice.name} = {value!r}"
                space.decode({**first, choice.name: value})
    except ValueError as error:
        raise SpaceError(f"{option} makes no network: {error}; change [space]") from error
    return architecture


def input_sizes(space: SearchSpace, task: Task) -> tuple[tuple[int, int], ...]:
    """Return every height and width that networks of the space take."""
    if isinstance(space, ChainSpace):
        return tuple((shape[1], shape[2]) for shape in space.chain.inputs)
    return ((task.preprocessing.height, task.preprocessing.width),)


def description_of(config: RunConfig) -> dict[str, Any]:  # Any: JSON values
    """Return the configuration's JSON form, from which `set_up` restores it in another process."""
    record = describe(config)
    assert isinstance(record, dict)
    return record


def identity_of(config: RunConfig) -> dict[str, Any]:  # Any: JSON values
    """Return what a run directory is held to: the configuration without what may change from one start to the next.

    How many processes train, how many threads each has, and how long a search or a sustained run may take, change
    neither which networks are asked for nor how one is judged.
    """
    record = description_of(config)
    del record["workers"]
    for name in ("max_hours", "threads"):
        del record["train"][name]
    record["device"]["backend"].pop("sustained_s", None)
    return record
