"""A run before anything is trained: its task, its device, and what of the space fits the budget."""

from dataclasses import dataclass
from pathlib import Path

from latency_models.profile import Probed, default_folder
from nas.config import RunConfig
from nas.pipeline.probing import FittedDevice, fitted_device, left_out_score
from nas.pipeline.setup import State, check_given, fit_space, load_run_task
from nas.pipeline.stopwatch import Stopwatch
from nas.pipeline.suiting import suited_config
from nas.protocols import Progress, quiet
from nas.results import LatencyFit
from nas.search.feasible import Survey, survey
from nas.search.objectives import RowCosts
from nas.train import derived_seed
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
        watch: Wall time by step.
        confirmed: Networks of the search that were timed before finalists were chosen.
    """

    config: RunConfig
    state: State
    space: SearchSpace
    fitted: FittedDevice
    costs: RowCosts
    fits: tuple[LatencyFit, ...]
    survey: Survey
    watch: Stopwatch
    confirmed: tuple[Probed, ...] = ()


def prepare(config: RunConfig, folder: Path, *, progress: Progress = quiet, store: Path | None = None) -> Prepared:
    """Load the task, measure the device or read its profile, and look at what fits the budget.

    Raises:
        InfeasibleError: Nothing fits; the message says which limit to relax and to what.
    """
    watch = Stopwatch.open(folder)
    with watch.timed("data"):
        task = load_run_task(config, folder, progress)
        space = fit_space(config.space, task, config.device.allow_ops)
        check_given(config, task, space)
    with watch.timed("probing"):
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
            left_out_score(predictor, fitted.profile, precision, config.device, config.latency)[1]
            for precision, predictor in fitted.predictors.items()
        )
    costs = RowCosts(space, config.device, fitted.predictors, config.budget)
    with watch.timed("survey"):
        found = survey(space, costs, seed=derived_seed(config.seed, "survey"))
    return Prepared(config, State(config, task, folder), space, fitted, costs, fits, found, watch)
