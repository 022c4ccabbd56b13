"""Parts of a run by themselves, as the command line and scripts use them."""

from collections.abc import Sequence
from pathlib import Path

from latency_models.profile import default_folder
from latency_models.timed_range import in_range
from nas.candidate import Exported
from nas.config import RunConfig
from nas.export import require_parity
from nas.pipeline.jobs import export_context
from nas.pipeline.preparing import Prepared, prepare
from nas.pipeline.probe_set import write_probes
from nas.pipeline.probing import FittedDevice, fitted_device, left_out_score
from nas.pipeline.searching import run_search
from nas.pipeline.setup import State, description_of, fit_space, identity_of, load_run_task, set_up
from nas.pipeline.suiting import as_suited, suited_config
from nas.pipeline.tracks import Track, Yard
from nas.protocols import Progress, quiet
from nas.results import LatencyFit
from nas.run import RunDirectory
from nas.search.study import SearchResult
from nas.store import load_candidate
from nas.workers import Workers, default_workers
from search_spaces.architecture import Architecture
from search_spaces.errors import RunError
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.precision import with_precision

_UNITS = {"macs": "MAC", "parameters": "parameters", "weight_bytes": "bytes", "peak_memory_bytes": "bytes"}


def search_only(config: RunConfig, folder: Path, *, progress: Progress = quiet) -> SearchResult:
    """Search, or go on searching, and return what was trained."""
    with RunDirectory.open(folder, identity_of(config)) as directory:
        prepared = prepare(config, folder, progress=progress)
        with _workers(prepared, folder) as workers:
            return run_search(
                prepared.space, prepared.costs, prepared.survey, prepared.state, workers, directory, config.search,
                label="search", progress=progress,
            )  # fmt: skip


def train_one(config: RunConfig, folder: Path, architecture: str, *, progress: Progress = quiet) -> Track:
    """Train one network, named by key or JSON file, and return its track after step 0."""
    return _one(config, folder, architecture, stages=0, progress=progress)


def compress_one(config: RunConfig, folder: Path, architecture: str, *, progress: Progress = quiet) -> Track:
    """Train one network and put it through all stages of the run."""
    return _one(config, folder, architecture, stages=len(config.stages), progress=progress)


def export_one(config: RunConfig, folder: Path, candidate: Path, out: Path) -> Exported:
    """Export a candidate's folder once more; raises ParityFailed when a file computes something else."""
    config = as_suited(config, folder)
    task = load_run_task(config, folder)
    found = load_candidate(candidate)
    task = task.at_size(found.preprocessing.height, found.preprocessing.width)
    exported = config.export.export(found, task, out, export_context(State(config, task, folder)))
    require_parity(exported)
    return exported


def predict_costs(
    config: RunConfig, folder: Path, files: Sequence[Path], *, progress: Progress = quiet
) -> dict[str, dict[str, Measurement]]:
    """Return predicted latency and counted costs of architectures, by file and figure.

    Raises:
        MeasurementError: The latency model saw nothing like one of them; says what to time.
    """
    prepared = prepare(config, folder, progress=progress)
    found = {}
    for file in files:
        architecture = read_architecture(file)
        costs = prepared.costs.of([architecture])
        precision = costs.precisions[int(costs.precision[0])]
        figures = {
            name: Measurement(value=float(values[0]), unit=_UNITS[name], origin="counted", source=precision)
            for name, values in costs.figures.items()
            if name in _UNITS
        }
        if "latency_ms" in costs.figures:
            workload = with_precision(lower(architecture), prepared.costs.plan(precision))
            prediction = in_range(prepared.fitted.predictors[precision], [workload], names=[str(file)])
            figures["latency_ms"] = prediction.measurement(0, source=f"{config.device.name}, {precision}")
        found[str(file)] = figures
    return found


def fit_device(config: RunConfig, folder: Path, *, progress: Progress = quiet) -> tuple[FittedDevice, list[LatencyFit]]:
    """Measure the run's device, or read its profile, and return it with the scores of its models."""
    task = load_run_task(config, folder, progress)
    space = fit_space(config.space, task, config.device.allow_ops)
    config = suited_config(config, folder, task, space)
    fitted = fitted_device(
        config.device,
        config.latency,
        space,
        config.export.graph_input(task.preprocessing),
        config.probe,
        store=default_folder(),
        scratch=folder / "probes",
        progress=progress,
    )
    fits = [
        left_out_score(predictor, fitted.profile, precision, config.device, config.latency)[1]
        for precision, predictor in fitted.predictors.items()
    ]
    return fitted, fits


def write_probe_set(config: RunConfig, folder: Path, out: Path, *, progress: Progress = quiet) -> int:
    """Write every probe of the run as a file, and a table with one row a file; return the number of files."""
    task = load_run_task(config, folder, progress)
    space = fit_space(config.space, task, config.device.allow_ops)
    return write_probes(
        config.device, space, config.export.graph_input(task.preprocessing), config.probe, out, progress=progress
    )


def read_architecture(path: Path) -> Architecture:
    """Read a JSON file of an architecture; raises RunError when it is not there."""
    try:
        return Architecture.from_json(path.read_text())
    except OSError as error:
        raise RunError(f"the architecture {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"the architecture {path} is no text: {error}") from error


def _one(config: RunConfig, folder: Path, named: str, *, stages: int, progress: Progress) -> Track:
    known = folder / "architectures" / f"{named}.json"
    architecture = read_architecture(known if known.exists() else Path(named))
    with RunDirectory.open(folder, identity_of(config)):
        prepared = prepare(config, folder, progress=progress)
        costs = prepared.costs.of([architecture])
        precision = costs.precisions[int(costs.precision[0])]
        with _workers(prepared, folder) as workers:
            yard = Yard(prepared.state, workers, prepared.fitted, folder / "candidates", progress)
            track = Track(name=architecture.key, family="named", architecture=architecture, precision=precision)
            yard.train([track])
            for number in range(stages):
                yard.apply([track], number)
    return track


def _workers(prepared: Prepared, folder: Path) -> Workers[State]:
    config = prepared.config
    return Workers(config.workers or default_workers(), set_up, description_of(config), str(folder))
