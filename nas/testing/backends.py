"""What every back end must do: say what the device is, time files in order, and tell what it could not time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latency_models.backends.local import open_session
from latency_models.failures import FileFailure, PartlyMeasured
from latency_models.graph import GraphInput, float_model
from latency_models.timing import BACKENDS, Backend, RunsFiles, Timing, WallClock
from nas.testing.contract import ContractError, told
from nas.testing.options import check_options
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv
from search_spaces.errors import MeasurementError
from search_spaces.lowering import lower

BACKEND_FILES = ("small.onnx", "large.onnx", "reference.onnx")
"""Names of the files that the kit has timed; a table lists a latency for the first two."""

UNKNOWN_FILE = "no_model.onnx"
"""Name of a file with the text "this is no model", which every device refuses; no table lists it."""

OUTPUT_TOLERANCE = 1e-3
"""Greatest difference of a device's float32 outputs from this machine's, as a share of the largest."""

_WIDTHS = {"small.onnx": 8, "large.onnx": 32, "reference.onnx": 16}
_SIDE = 16


class BackendContract:
    """Tests every back end passes; a subclass defines the fixture `backend`, with few and short visits.

    The kit writes three float32 networks (`BACKEND_FILES`) that take `1 x 3 x 16 x 16` images, and a file that is none
    (`UNKNOWN_FILE`). What a back end offers besides, wall clocks and outputs, is looked at where it is there.
    """

    def test_options_are_a_value(self, backend: Backend) -> None:
        """Its options can be written in a run file."""
        check_options(backend, BACKENDS, Backend)

    def test_the_fingerprint_is_stable(self, backend: Backend) -> None:
        """The same device is recognized again."""
        _check_fingerprint(backend)

    def test_every_file_gets_its_timing_in_order(self, backend: Backend, tmp_path: Path) -> None:
        """Raw samples of every file are kept, in milliseconds."""
        _check_timings(backend, _files(tmp_path))

    def test_a_refused_file_costs_its_own_timing_alone(self, backend: Backend, tmp_path: Path) -> None:
        """What cannot be timed is told by name; what can is timed all the same."""
        if backend.live:
            _check_refused(backend, _files(tmp_path))
        else:
            _check_not_live(backend, _files(tmp_path))

    def test_wall_times_are_those_of_single_inferences(self, backend: Backend, tmp_path: Path) -> None:
        """Every run that was asked for is one sample; nothing is asked of a back end that has no wall clock."""
        if isinstance(backend, WallClock) and not (isinstance(backend, RunsFiles) and not backend.runs_files):
            _check_wall_clock(backend, _files(tmp_path)[0])

    def test_outputs_are_those_of_this_machine(self, backend: Backend, tmp_path: Path) -> None:
        """A device that is given inputs computes what the file says."""
        if isinstance(backend, RunsFiles) and backend.runs_files:
            _check_outputs(backend, _files(tmp_path)[0])


def _files(folder: Path) -> tuple[Path, ...]:
    """Write the files of `BACKEND_FILES` and `UNKNOWN_FILE`."""
    for name, width in _WIDTHS.items():
        blocks = (Conv(width=width, stride=2),), (Conv(width=width),), (Classifier(classes=4),)
        raw = lower(Architecture((3, _SIDE, _SIDE), blocks))
        model = float_model(raw, graph_input=GraphInput(dtype="float32", layout="nchw"), opset=13, ir_version=7)
        (folder / name).write_bytes(model.SerializeToString())
    (folder / UNKNOWN_FILE).write_text("this is no model")
    return tuple(folder / name for name in (*BACKEND_FILES, UNKNOWN_FILE))


def _check_fingerprint(backend: Backend) -> None:
    with told("there is no fingerprint"):
        found, again = dict(backend.fingerprint()), dict(backend.fingerprint())
    if not found:
        raise ContractError("the fingerprint is empty: say at least which back end it is")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ContractError(f"the fingerprint holds {key!r}: {value!r}, expected a string for a string")
    changed = sorted(key for key in found.keys() | again.keys() if found.get(key) != again.get(key))
    if changed:
        key = changed[0]
        raise ContractError(
            f"the fingerprint changes from one call to the next: {key} was {found.get(key)!r}, is {again.get(key)!r}"
        )


def _check_timings(backend: Backend, files: Sequence[Path]) -> None:
    small, large, reference, _ = files
    for artefacts in ([small, large], [large, small]):
        shares: list[float] = []
        try:
            timings = backend.measure(artefacts, reference, progress=shares.append)
        except Exception as error:
            named = isinstance(error, MeasurementError) and any(path.name in str(error) for path in artefacts)
            if named and not backend.live:
                return
            raise ContractError(f"files of the device give no timing: {type(error).__name__}: {error}") from error
        _check_each(timings, artefacts)
        wrong = [share for share in shares if not 0.0 <= share <= 1.0]
        if wrong:
            raise ContractError(f"progress is told as {wrong[0]}, expected a share from 0 to 1")


def _check_each(timings: Sequence[Timing], artefacts: Sequence[Path]) -> None:
    if len(timings) != len(artefacts):
        raise ContractError(f"{len(artefacts)} files give {len(timings)} timings")
    for timing, path in zip(timings, artefacts, strict=True):
        if not isinstance(timing, Timing):
            raise ContractError(f"{path.name} gives a {type(timing).__name__}, expected a Timing")
        if timing.name != path.name:
            raise ContractError(f"the timing of {path.name} is named {timing.name}: timings are not in order")
        samples = np.concatenate(timing.visits)
        if not (np.isfinite(samples) & (samples > 0)).all():
            raise ContractError(f"a sample of {path.name} is no finite number of milliseconds above 0")
        if not 0 < timing.latency_ms < np.inf:
            raise ContractError(f"the latency of {path.name} is {timing.latency_ms} ms")
    if len({timing.origin for timing in timings}) > 1:
        raise ContractError(f"timings of one measurement are {' and '.join(timing.origin for timing in timings)}")


def _check_refused(backend: Backend, files: Sequence[Path]) -> None:
    small, large, reference, unknown = files
    try:
        backend.measure([small, unknown, large], reference)
    except PartlyMeasured as error:
        _check_outcomes(error, (small, unknown, large))
    except Exception as error:
        raise ContractError(
            f"one file that is no model costs the others their timings ({type(error).__name__}: {error}); expected "
            "PartlyMeasured, as `failures.all_timed` raises it"
        ) from error
    else:
        raise ContractError("a file that is no model is accepted")
    try:
        backend.measure([unknown], reference)
    except FileFailure as error:
        if error.file != unknown.name:
            raise ContractError(f"the failure of {unknown.name} is about the file {error.file!r}") from error
    except Exception as error:
        raise ContractError(f"a file that is no model raises {type(error).__name__}, expected FileFailure") from error
    else:
        raise ContractError("a file that is no model is accepted by itself")


def _check_outcomes(error: PartlyMeasured, artefacts: Sequence[Path]) -> None:
    small, unknown, large = artefacts
    if len(error.outcomes) != len(artefacts):
        raise ContractError(f"{len(artefacts)} files give {len(error.outcomes)} outcomes")
    first, second, third = error.outcomes
    if not isinstance(second, FileFailure):
        raise ContractError(f"the outcome of {unknown.name}, which is no model, is a {type(second).__name__}")
    if second.file != unknown.name:
        raise ContractError(f"the failure of {unknown.name} is about the file {second.file!r}")
    for outcome, path in ((first, small), (third, large)):
        if not isinstance(outcome, Timing):
            raise ContractError(f"{path.name} is not timed because {unknown.name} is refused: {outcome}")
        _check_each([outcome], [path])


def _check_not_live(backend: Backend, files: Sequence[Path]) -> None:
    """Look that a back end that runs no files says so, with the name of the file."""
    *_, reference, unknown = files
    try:
        backend.measure([unknown], reference)
    except MeasurementError as error:
        if unknown.name not in str(error):
            raise ContractError(f"the message does not name {unknown.name}: {error}") from error
    except Exception as error:
        raise ContractError(
            f"{unknown.name}, of which nothing is known, raises {type(error).__name__}, expected MeasurementError"
        ) from error
    else:
        raise ContractError(f"it is not live, yet has a timing for {unknown.name}, of which nothing is known")


def _check_wall_clock(backend: WallClock, path: Path) -> None:
    if not backend.sustained_s >= 0:
        raise ContractError(f"sustained_s is {backend.sustained_s}, expected seconds, 0 for none")
    runs = 5
    with told("there are no wall times"):
        timing = backend.distribution(path, runs=runs)
    samples = np.concatenate(timing.visits)
    if timing.clock != "wall":
        raise ContractError(f"wall times were read from the clock {timing.clock!r}")
    if len(samples) != runs or not (np.isfinite(samples) & (samples > 0)).all():
        raise ContractError(f"{runs} runs give {len(samples)} samples, expected one above 0 for each")


def _check_outputs(backend: RunsFiles, path: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((3, 3, _SIDE, _SIDE)).astype(np.float32)
    session = open_session(path)
    name = session.get_inputs()[0].name
    expected = np.concatenate([session.run(None, {name: image[None]})[0] for image in inputs])
    with told("the device gives no outputs"):
        found = backend.outputs(path, inputs, batch=1)
    if found.shape != expected.shape:
        raise ContractError(f"the device gives outputs of {found.shape}, this machine {expected.shape}")
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not off <= OUTPUT_TOLERANCE:
        raise ContractError(f"the device's outputs differ from this machine's by {off:.2g} of the largest")
