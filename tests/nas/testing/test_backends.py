"""The contract of back ends: a made-up device passes, and each way of being wrong is told."""

from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

import numpy as np
import pytest

from latency_models.failures import RefusedFile, all_timed
from latency_models.timing import BACKENDS, Timing
from nas.testing import BackendContract, ContractError
from search_spaces.errors import MeasurementError

CONTRACT = BackendContract()
CALLS = count()


@dataclass(frozen=True)
class Sizes:
    """A device that takes a microsecond a byte; its children break one rule each."""

    live: ClassVar[bool] = True

    def fingerprint(self):
        return {"backend": "of_a_test"}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        progress(1.0)
        return all_timed([self.outcome(path) for path in artefacts])

    def outcome(self, path):
        if b"no model" in path.read_bytes():
            return RefusedFile(f"{path.name} is no model", file=path.name)
        taken = 1e-3 * path.stat().st_size
        return Timing(path.name, (np.array([taken, 1.1 * taken]), np.array([taken])), "device")


class Silent(Sizes):
    def fingerprint(self):
        return {}


class Restless(Sizes):
    def fingerprint(self):
        return {"backend": "of_a_test", "uptime": str(next(CALLS))}


class Numbers(Sizes):
    def fingerprint(self):
        return {"backend": "of_a_test", "threads": 1}


class BySize(Sizes):
    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        return super().measure(sorted(artefacts, key=lambda path: path.stat().st_size), reference)


class Short(Sizes):
    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        return super().measure(artefacts, reference)[:1]


class Instant(Sizes):
    def outcome(self, path):
        found = super().outcome(path)
        return replace(found, visits=(np.zeros(2),)) if isinstance(found, Timing) else found


class Mixed(Sizes):
    def outcome(self, path):
        found = super().outcome(path)
        return replace(found, origin="estimated") if path.name == "large.onnx" else found


class Percent(Sizes):
    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        progress(100.0)
        return super().measure(artefacts, reference)


class AllOrNothing(Sizes):
    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        outcomes = [self.outcome(path) for path in artefacts]
        for outcome in outcomes:
            if isinstance(outcome, RefusedFile):
                raise outcome
        return outcomes


class Greedy(Sizes):
    def outcome(self, path):
        return Timing(path.name, (np.array([1.0]),))


class Nameless(Sizes):
    def outcome(self, path):
        found = super().outcome(path)
        return RefusedFile("no model") if isinstance(found, RefusedFile) else found


class GivesUp(Sizes):
    """Times nothing that comes after a refused file."""

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        outcomes, refused = [], False
        for path in artefacts:
            found = self.outcome(path)
            refused = refused or isinstance(found, RefusedFile)
            outcomes.append(RefusedFile("no more", file=path.name) if refused else found)
        return all_timed(outcomes)


class Listed(Sizes):
    """A list of latencies that has one for every name."""

    live = False

    def outcome(self, path):
        return Timing(path.name, (np.array([1.0]),), "table", "tabulated")


class Vague(Sizes):
    live = False

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        raise MeasurementError("nothing is known")


class Watch(Sizes):
    """A board with a wall clock, which can be given inputs."""

    sustained_s: ClassVar[float] = 0.0
    runs_files: ClassVar[bool] = True

    def distribution(self, artefact, *, runs=100):
        return Timing(artefact.name, (np.full(runs, 1.0),), "wall")

    def sustained(self, artefact, *, seconds):
        raise NotImplementedError

    def outputs(self, artefact, inputs, *, batch):
        from latency_models.backends.local import open_session

        session = open_session(artefact)
        return np.concatenate([session.run(None, {session.get_inputs()[0].name: image[None]})[0] for image in inputs])


class OtherClock(Watch):
    def distribution(self, artefact, *, runs=100):
        return replace(super().distribution(artefact, runs=runs), clock="device")


class FewRuns(Watch):
    def distribution(self, artefact, *, runs=100):
        return super().distribution(artefact, runs=1)


class HalfPrecision(Watch):
    def outputs(self, artefact, inputs, *, batch):
        return super().outputs(artefact, np.round(inputs, 1), batch=batch)


@dataclass
class Changing:
    name: str = "board"


@dataclass(frozen=True)
class Lists(Sizes):
    cores: list[int] | tuple[int, ...] = ()


@pytest.fixture
def backend(request, registered):
    return registered(BACKENDS, request.param())


def check(name, backend, tmp_path):
    test = getattr(CONTRACT, f"test_{name}")
    test(backend, *[tmp_path][: test.__code__.co_argcount - 2])


HELD = [name.removeprefix("test_") for name in dir(BackendContract) if name.startswith("test_")]


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("backend", [Sizes, Watch], indirect=True, ids=["Sizes", "Watch"])
def test_an_honest_back_end_passes(backend, name, tmp_path):
    check(name, backend, tmp_path)


TIMED, REFUSED = "every_file_gets_its_timing_in_order", "a_refused_file_costs_its_own_timing_alone"
BROKEN = [
    (Changing, "options_are_a_value", "Changing can be changed after it was made"),
    (Silent, "the_fingerprint_is_stable", "the fingerprint is empty"),
    (Restless, "the_fingerprint_is_stable", "changes from one call to the next: uptime was"),
    (Numbers, "the_fingerprint_is_stable", "holds 'threads': 1, expected a string for a string"),
    (BySize, TIMED, "the timing of large.onnx is named small.onnx: timings are not in order"),
    (Short, TIMED, "2 files give 1 timings"),
    (Instant, TIMED, "a sample of small.onnx is no finite number of milliseconds above 0"),
    (Mixed, TIMED, "timings of one measurement are measured and estimated"),
    (Percent, TIMED, "progress is told as 100.0, expected a share from 0 to 1"),
    (Vague, TIMED, "files of the device give no timing: MeasurementError: nothing is known"),
    (AllOrNothing, REFUSED, r"costs the others their timings \(RefusedFile"),
    (Greedy, REFUSED, "a file that is no model is accepted"),
    (Nameless, REFUSED, "the failure of no_model.onnx is about the file ''"),
    (GivesUp, REFUSED, "large.onnx is not timed because no_model.onnx is refused"),
    (Listed, REFUSED, "it is not live, yet has a timing for no_model.onnx"),
    (Vague, REFUSED, "the message does not name no_model.onnx"),
    (OtherClock, "wall_times_are_those_of_single_inferences", "wall times were read from the clock 'device'"),
    (FewRuns, "wall_times_are_those_of_single_inferences", "5 runs give 1 samples"),
    (HalfPrecision, "outputs_are_those_of_this_machine", "the device's outputs differ from this machine's by"),
]


@pytest.mark.parametrize(
    ("backend", "name", "reason"), BROKEN, indirect=["backend"], ids=lambda case: getattr(case, "__name__", "")
)
def test_a_broken_back_end_is_told(backend, name, reason, tmp_path):
    with pytest.raises(ContractError, match=reason):
        check(name, backend, tmp_path)


def test_options_that_cannot_be_hashed_are_told(registered):
    with pytest.raises(ContractError, match=r"Lists cannot be hashed: .* tuples for lists: TypeError"):
        CONTRACT.test_options_are_a_value(registered(BACKENDS, Lists(cores=[0])))
