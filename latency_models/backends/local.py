"""This machine under onnxruntime."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np
import numpy.typing as npt
import onnxruntime

from latency_models.backends import timing_script as protocol
from latency_models.failures import FAILURES, FileFailure, RefusedFile, all_timed
from latency_models.measure import Rounds, take_visits
from latency_models.timing import BACKENDS, Clock, Sustained, Timing
from search_spaces.errors import ConfigError

_ELEMENT_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)


@BACKENDS.register("local")
@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Times files in this process with the onnxruntime that is installed.

    With one thread the clock is the thread's CPU time, which does not count what neighbours take; with more it is
    wall time, and waiting threads do not spin.

    Attributes:
        threads: Threads of one inference.
        cores: Cores the process is bound to while it measures; empty for all it may use.
        visits: Rounds of interleaved visits; at 9 the median over them still strayed by 1 % on a shared machine.
        visit_ms: Time one visit fills.
        drift: Share by which the reference network may stray before a round is taken again.
        sustained_s: Seconds of the sustained run that reports show; 0 for none.
    """

    threads: int = 1
    cores: tuple[int, ...] = ()
    visits: int = 13
    visit_ms: float = 8.0
    drift: float = 0.03
    sustained_s: float = 0.0

    live: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        allowed = os.sched_getaffinity(0)
        if not set(self.cores) <= allowed:
            raise ConfigError(f"cores must be among {sorted(allowed)}, got {list(self.cores)}")
        for name in ("visits", "visit_ms"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def clock(self) -> Clock:
        """The clock that timings are read from."""
        return "thread_cpu" if self.threads == 1 else "wall"

    def fingerprint(self) -> Mapping[str, str]:
        """Return CPU, instruction sets, runtime, threads, cores and frequency governor."""
        cpu, flags = protocol.cpu()
        return {
            "backend": "local",
            "machine": platform.machine(),
            "cpu": cpu,
            "instruction_sets": " ".join(name for name in INSTRUCTION_SETS if name in flags),
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "threads": str(self.threads),
            "cores": ",".join(map(str, self.cores)) or "all",
            "governor": protocol.governor(),
            "frequency_limits_mhz": protocol.frequency_limits() or "unknown",
        }

    def measure(
        self,
        artefacts: Sequence[Path],
        reference: Path,
        *,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Sequence[Timing]:
        """Time every file, interleaved with `reference`.

        Raises:
            PartlyMeasured: onnxruntime refuses some of the files, lacks an operator or memory for them.
            OutOfMemory, UnsupportedOperator, RefusedFile: The same of the reference, or of all files.
            MeasurementError: The reference never settled.
        """
        with self._bound():
            runs = [self._runner_or_failure(path) for path in artefacts]
            rounds = Rounds(visits=self.visits, visit_ms=self.visit_ms, drift=self.drift)
            taken = take_visits(runs, self.runner(reference), rounds=rounds, clock=self.clock, progress=progress)
        return all_timed(taken.outcomes(artefacts, self.clock, levels=taken.levels()))

    def distribution(self, artefact: Path, *, runs: int = 1000) -> Timing:
        """Return wall-clock samples of single inferences one after the other, as an application sees them."""
        with self._bound():
            samples = protocol.visit(self.runner(artefact), runs, 20, time.perf_counter)
        return Timing(artefact.name, (np.array(samples),), "wall", "measured")

    def sustained(self, artefact: Path, *, seconds: float) -> Sustained:
        """Run a file without a pause and return wall times with what the sensors of this machine showed."""
        with self._bound():
            return Sustained.from_dict(protocol.sustained(self.runner(artefact), seconds))

    def runner(self, path: Path) -> Callable[[], object]:
        """Return a function that runs the file once on a fixed random input; both raise FileFailure."""
        session = open_session(path, threads=self.threads)
        feed = {node.name: _random_input(path, node.type, node.shape) for node in session.get_inputs()}
        names = [node.name for node in session.get_outputs()]

        def run() -> object:
            try:
                return session.run(names, feed)
            except Exception as error:  # onnxruntime raises a dozen classes that share no base
                raise _refusal(path.name, error) from error

        return run

    def _runner_or_failure(self, path: Path) -> Callable[[], object]:
        """Return the runner of a file; of one that cannot be opened, a function that raises why."""
        try:
            return self.runner(path)
        except FileFailure as error:
            refusal = error

        def fail() -> NoReturn:
            raise refusal

        return fail

    @contextmanager
    def _bound(self) -> Iterator[None]:
        before = os.sched_getaffinity(0)
        if self.cores:
            os.sched_setaffinity(0, set(self.cores))
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def open_session(
    path: Path | bytes, *, threads: int = 1, optimized: Path | None = None
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU with every optimization on.

    Args:
        path: A model file, or its bytes.
        threads: Of one inference.
        optimized: Where to save the graph the runtime really executes.

    Raises:
        OutOfMemory, UnsupportedOperator, RefusedFile: The runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = path if isinstance(path, bytes) else str(path)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen classes that share no base
        raise _refusal("" if isinstance(path, bytes) else path.name, error) from error


def _refusal(file: str, error: Exception) -> FileFailure:
    """Return what an error of onnxruntime means."""
    kind = FAILURES[protocol.failure_kind(error)]
    return kind(f"onnxruntime refuses {file or 'the model'}: {error}", file=file)


def _random_input(path: Path, kind: str, shape: Sequence[int | str | None]) -> npt.NDArray[np.generic]:
    if kind not in _ELEMENT_TYPES:
        raise RefusedFile(f"{path.name}: an input of type {kind} cannot be timed", file=path.name)
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    rng = np.random.default_rng(0)
    if kind == "tensor(float)":
        return rng.standard_normal(sizes).astype(np.float32)
    return rng.integers(0, 127, sizes).astype(_ELEMENT_TYPES[kind])
