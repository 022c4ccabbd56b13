"""A whole run: images, device and budget in; a checked file that meets the budget and a report out."""

from dataclasses import replace
from pathlib import Path

from nas.candidate import Candidate
from nas.config import RunConfig
from nas.pipeline.finalists import bring_finalists
from nas.pipeline.jobs import DONE, FinalJob, train_finalist
from nas.pipeline.preparing import Prepared, prepare
from nas.pipeline.searching import (
    control_of,
    largest_network,
    run_search,
)
from nas.pipeline.setup import State, description_of, identity_of, set_up
from nas.pipeline.telling import tell
from nas.pipeline.tracks import Yard
from nas.protocols import Progress, quiet
from nas.report import write_report
from nas.results import RunResults
from nas.run import RunDirectory, write_atomic
from nas.search.study import SearchResult
from nas.store import save_candidate
from nas.train import derived_seed, given_network
from nas.workers import Workers, default_workers
from search_spaces.errors import InfeasibleError


def run(
    config: RunConfig,
    folder: Path,
    *,
    progress: Progress = quiet,
    store: Path | None = None,
) -> RunResults:
    """Do a whole run in `folder`, or go on with it, and return its results; the report is written too.

    Args:
        config: The run.
        folder: The run directory.
        progress: Told what is done and how far.
        store: Folder of device profiles; by default the user's.

    Raises:
        InfeasibleError: Nothing of the space fits, or no delivered file met the budget; says the nearest miss.
        GateFailed: A gate that ends the run failed.
        ParityFailed: No file computes what its network computes.
        NasError: Anything else a user can mend.
    """
    with RunDirectory.open(folder, identity_of(config)) as directory:
        prepared = prepare(config, folder, progress=progress, store=store)
        count = config.workers or default_workers()
        with Workers(count, set_up, description_of(config), str(folder)) as workers:
            found, control = _search(prepared, workers, directory, progress)
            yard = Yard(prepared.state, workers, prepared.fitted, folder / "candidates", progress)
            with prepared.watch.timed("teacher"):
                yard.teacher = _teacher(prepared, workers, folder, progress)
            with prepared.watch.timed("finalists"):
                tracks, passing = bring_finalists(prepared, yard, found)
        with prepared.watch.timed("report"):
            results = tell(prepared, yard, directory, found, control, tracks, passing)
            results.save(folder / "results.json")
            write_report(results, folder / "report")
    return results


# -- the search


def _search(
    prepared: Prepared, workers: Workers[State], directory: RunDirectory, progress: Progress
) -> tuple[SearchResult, SearchResult | None]:
    config, control = prepared.config, None
    with prepared.watch.timed("search"):
        found = run_search(
            prepared.space, prepared.costs, prepared.survey, prepared.state, workers, directory, config.search,
            label="search", progress=progress,
        )  # fmt: skip
    prepared.watch.at_least("search", found.seconds)
    if not found.front():
        reasons = {entry.failed for entry in found.entries if entry.failed}
        raise InfeasibleError(
            "the search trained no network to the end: "
            + (
                f"{len(found.entries)} diverged ({sorted(reasons)[0]})"
                if reasons
                else "time was up; raise train.max_hours"
            )
        )
    if config.search.control:
        with (
            prepared.watch.timed("control"),
            RunDirectory.open(directory.path / "control", {"control of": config.seed}) as second,
        ):
            control = run_search(
                prepared.space, prepared.costs, prepared.survey, prepared.state, workers, second,
                control_of(config.search), label="control", progress=progress,
            )  # fmt: skip
        prepared.watch.at_least("control", control.seconds)
    return found, control


def _teacher(prepared: Prepared, workers: Workers[State], folder: Path, progress: Progress) -> Path | None:
    """Return the folder of the run's teacher, trained if need be; None where no stage asks for one."""
    config = prepared.config
    if not any(getattr(gated.stage, "teacher", None) == "" for gated in config.stages):
        return None
    target = folder / "teacher"
    if (target / DONE).exists():
        return target
    if config.train.teacher:
        images = prepared.state.task.preprocessing
        file = Path(config.train.teacher)
        architecture, network = given_network(file, height=images.height, width=images.width)
        size = architecture.input_shape[1:]
        preprocessing = replace(prepared.state.task.preprocessing, height=size[0], width=size[1])
        save_candidate(target, Candidate(architecture=architecture, module=network, preprocessing=preprocessing))
        write_atomic(target / DONE, '{"seconds": 0.0}\n')
        return target
    progress("training the teacher", 0.0)
    architecture = largest_network(prepared.space, seed=derived_seed(config.seed, "teacher"))
    job = FinalJob(
        architecture=architecture.to_json(),
        folder=str(target),
        seed=derived_seed(config.seed, "teacher"),
        export=False,
    )
    list(workers.run(train_finalist, [(job,)]))
    progress("training the teacher", 1.0)
    return target
