"""Worker processes for training: each has one thread, and none outlives the process that started it."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Self, TypeVar

from search_spaces.errors import RunError

S = TypeVar("S")
R = TypeVar("R")

PASSIVE_THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""OpenMP's threads spin while they wait, which on shared cores costs up to tenfold; these settings let them sleep."""

_state: list[object] = []


class Workers(Generic[S]):
    """A pool of processes that share nothing but a set-up function.

    Every process calls `setup` once and hands what it returned to each job. With one worker everything runs in this
    process. Jobs, set-up and arguments must be importable by name, as for any spawned process.

    Args:
        count: Number of processes.
        setup: Makes the state of a process, such as its task.
        arguments: Of `setup`.
    """

    def __init__(self, count: int, setup: Callable[..., S], *arguments: Any) -> None:  # Any: arguments of setup
        if count < 1:
            raise ValueError(f"count of workers must be at least 1, got {count}")
        self.count = count
        self._setup = setup
        self._arguments = arguments
        self._pool: ProcessPoolExecutor | None = None
        self._own: list[S] = []

    def run(self, job: Callable[..., R], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
        """Call `job(state, *call)` for every call and yield (number of the call, result) as results come.

        Raises:
            RunError: A process died, as it does when memory runs out.
            Exception: Whatever a job raised; calls that have not begun are dropped.
        """
        if self.count == 1 or len(calls) == 1:
            state = self._state()
            for number, call in enumerate(calls):
                yield number, job(state, *call)
            return
        pool = self._processes()
        futures: dict[Future[R], int] = {pool.submit(_run, job, call): number for number, call in enumerate(calls)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process died, as happens when memory runs out; run the same command again, "
                "with fewer workers or a smaller batch"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop all processes at once; what they had not finished is lost, their checkpoints are not."""
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                with contextlib.suppress(ProcessLookupError, ValueError):
                    process.kill()
            pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._pool is not None:
            self._pool.shutdown(wait=True)  # idle processes end by themselves, and leave no semaphores behind
            self._pool = None
        self.close()

    def _state(self) -> S:
        if not self._own:
            self._own.append(self._setup(*self._arguments))
        return self._own[0]

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            os.environ.update({name: os.environ.get(name, value) for name, value in PASSIVE_THREADS.items()})
            self._pool = ProcessPoolExecutor(
                self.count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(os.getpid(), self._setup, self._arguments),
            )
        return self._pool


def default_workers() -> int:
    """Return one worker for each core this process may use, one where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def _begin(parent: int, setup: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and stops its workers
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _state.append(setup(*arguments))


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(job: Callable[..., R], call: tuple[Any, ...]) -> R:
    return job(_state[0], *call)
