"""A board behind ssh, timed by a small script that needs only python3, numpy and onnxruntime there."""

import base64
import hashlib
import io
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from latency_models.backends import timing_script
from latency_models.backends.command import FILE, Unit, check_template, read_latencies
from latency_models.backends.local import INSTRUCTION_SETS
from latency_models.backends.ssh_binary import identity, run_program
from latency_models.backends.ssh_connection import Connection, json_object, words
from latency_models.backends.ssh_group import Group
from latency_models.failures import ConnectionLost, all_timed
from latency_models.measure import Rounds, Taken, take_rounds, take_visitors
from latency_models.timing import BACKENDS, Clock, Sustained, Timing
from search_spaces.errors import ConfigError, DeviceError, MeasurementError, near_matches

RUNTIMES = ("binary", "onnxruntime")
T = TypeVar("T")


@BACKENDS.register("ssh")
@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    """Times files on a board that ssh reaches, under onnxruntime or any binary that is there.

    The board needs a shell and, for onnxruntime, python3. Nothing but the ssh client is used on this side and no
    sftp server on the other: files go through the standard input of a command, once each, named by their content.
    The timing script answers requests and exits as soon as its connection ends, so a cut leaves nothing running; the
    rounds already taken stay, and the measurement goes on over a new connection.

    Attributes:
        host: "user@address", or an alias of the user's ssh configuration.
        port: Of the board's sshd; 0 for what the ssh configuration says.
        identity: File of the private key; empty for what the ssh configuration and agent offer.
        known_hosts: File of known host keys; empty for the user's.
        host_keys: "known" refuses a board whose key is not known; "accept-new" notes it at the first contact.
        ssh_options: Further options, each as for `ssh -o`.
        folder: Where everything lives on the board, relative to the home folder unless absolute.
        runtime: "onnxruntime", or "binary" for a program on the board.
        python: The board's interpreter with numpy and onnxruntime; empty makes a virtual environment in `folder`.
        wheels: Folder here with wheels for the board, pushed and installed without an index; empty lets the board's
            pip download.
        version: Of onnxruntime to install, such as "1.23.0"; empty for the newest that the index or folder has.
        command: With "binary": the program and its arguments; "{file}" stands for the file on the board.
        pattern: With "binary": regular expression whose one group is a latency in what it prints.
        unit: With "binary": of the latencies printed.
        threads: Threads of one inference; a binary is told in `command`.
        cores: The board's cores that the process is bound to; empty for all. A binary is told in `command`.
        visits: Rounds of interleaved visits.
        visit_ms: Time one visit fills.
        drift: Share by which the reference network may stray before a round is taken again.
        group: Networks held in the board's memory at a time.
        sustained_s: Seconds of the sustained run that reports show; 0 for none.
        timeout_s: Longest wait for one answer: a round of a group, a file opened, a push, an installation, or a
            binary's run.
        connect_s: Longest wait for a connection.
        retries: Connections tried again after one was lost or could not be made.
        backoff_s: Pause before the first of them; each further one is twice as long.
        keep_bytes: Model files kept on the board, newest use first, so that they are not pushed again.
    """

    host: str
    port: int = 0
    identity: str = ""
    known_hosts: str = ""
    host_keys: Literal["known", "accept-new"] = "known"
    ssh_options: tuple[str, ...] = ()
    folder: str = ".cache/embedded-nas"
    runtime: str = "onnxruntime"
    python: str = ""
    wheels: str = field(default="", metadata={"path": True})
    version: str = ""
    command: tuple[str, ...] = ()
    pattern: str = ""
    unit: Unit = "ms"
    threads: int = 1
    cores: tuple[int, ...] = ()
    visits: int = 13
    visit_ms: float = 8.0
    drift: float = 0.03
    group: int = 24
    sustained_s: float = 0.0
    timeout_s: float = 600.0
    connect_s: float = 10.0
    retries: int = 4
    backoff_s: float = 2.0
    keep_bytes: int = 256 << 20

    live: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.host or self.host.startswith("-") or any(letter.isspace() for letter in self.host):
            raise ConfigError(f"host must be user@address or an alias of the ssh configuration, got {self.host!r}")
        if self.runtime not in RUNTIMES:
            raise ConfigError(
                f"the ssh back end knows no runtime {self.runtime!r}: {near_matches(self.runtime, RUNTIMES)}"
            )
        if self.runtime == "binary":
            check_template(self.command, self.pattern, self.unit)
            if self.threads != 1 or self.cores:
                named = f"threads = {self.threads}" if self.threads != 1 else f"cores = {list(self.cores)}"
                raise ConfigError(
                    f'{named} has no effect with runtime = "binary": give threads and cores to the program in '
                    '`command`, such as ["taskset", "-c", "3", "bench", "--threads=1", "{file}"], and leave them out'
                )
        elif self.command:
            raise ConfigError('`command` needs runtime = "binary"')
        if self.host_keys not in ("known", "accept-new"):
            raise ConfigError(f'host_keys must be "known" or "accept-new", got {self.host_keys!r}')
        if min(self.threads, self.group, self.visits) < 1:
            raise ConfigError(f"threads, group and visits must be at least 1, got {self}")

    @property
    def runs_files(self) -> bool:
        """Whether the board's runtime takes inputs and gives outputs; a binary only prints latencies."""
        return self.runtime == "onnxruntime"

    # -- verbs

    def fingerprint(self) -> Mapping[str, str]:
        """Return CPU, instruction sets, runtime and the versions it opens, threads, cores, governor, clock limits.

        With a binary: CPU, governor and clock limits, what the program is, and how its output is read.

        Raises:
            DeviceError: The board cannot be reached, or has no runtime.
        """
        if self.runtime == "binary":
            return {
                "backend": "ssh",
                "command": " ".join(self.command),
                "pattern": self.pattern,
                "unit": self.unit,
                **self._persistently(lambda: identity(self._connection, self.command[0])),
            }
        found = self.facts()
        return {
            "backend": "ssh",
            "machine": str(found["machine"]),
            "cpu": str(found["cpu"]),
            "instruction_sets": " ".join(name for name in INSTRUCTION_SETS if name in found["flags"]),
            "runtime": str(found["runtime"]),
            "opset": str(found["opset"]),
            "ir_version": str(found["ir_version"]),
            "threads": str(self.threads),
            "cores": ",".join(map(str, self.cores)) or "all",
            "governor": str(found["governor"]),
            "frequency_limits_mhz": str(found["frequency_limits_mhz"] or "unknown"),
        }

    def facts(self) -> Mapping[str, Any]:  # Any: JSON values
        """Return everything the board says about itself, temperature and memory included."""
        self._prepare()
        text = self._persistently(lambda: self._connection.run(self._script("facts")))
        for line in text.splitlines():
            if (found := json_object(line)) is not None:
                return found
        raise DeviceError(f"{self.host} says nothing about itself, only: {' '.join(text.split())[-300:] or 'nothing'}")

    def measure(
        self,
        artefacts: Sequence[Path],
        reference: Path,
        *,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Sequence[Timing]:
        """Time every file on the board, interleaved with `reference`.

        Files are taken in groups that fit the board's memory; a group whose reference strays from the others' is
        taken once more. A file that the runtime refuses, or that ends or hangs its process, is left out.

        Raises:
            PartlyMeasured: Some of the files were left out.
            ConnectionLost: The board stayed away through all retries.
            TimedOut: An answer took longer than `timeout_s`, on the reference, on all files, or for a whole round.
            OutOfMemory: The reference or each file needs too much memory, or a group of files does.
            UnsupportedOperator, RefusedFile: What became of the reference or of all files.
            MeasurementError: The reference never settled, within a group or from one to another.
        """
        groups = [artefacts[start : start + self.group] for start in range(0, len(artefacts), self.group)]
        with self._cleaned([*artefacts, reference]):
            self._push([*artefacts, reference], self._prepare())
            taken = self._take_groups(groups, reference, progress)
        center = float(np.median([level for found in taken for level in found.reference_ms]))
        return all_timed(
            [
                outcome
                for group, found in zip(groups, taken, strict=True)
                for outcome in found.outcomes(group, self._clock, levels=found.levels(center))
            ]
        )

    def distribution(self, artefact: Path, *, runs: int = 1000) -> Timing:
        """Return wall-clock samples of single inferences at batch 1 on the board."""
        answer = self._one({"do": "distribution", "runs": runs}, artefact)
        return Timing(artefact.name, (np.array(answer["samples"]),), "wall", "measured")

    def sustained(self, artefact: Path, *, seconds: float) -> Sustained:
        """Run a file without a pause on the board; temperature, clock and throttle flags where it shows them."""
        return Sustained.from_dict(self._one({"do": "sustained", "seconds": seconds}, artefact))

    def outputs(self, artefact: Path, inputs: npt.NDArray[Any], *, batch: int = 1) -> npt.NDArray[np.float32]:
        """Return the first output of a file for `inputs`, run `batch` at a time on the board."""
        text = io.BytesIO()
        np.save(text, inputs, allow_pickle=False)
        name = _digest(text.getvalue()) + ".npy"
        with self._cleaned([artefact]):
            self._push_bytes({name: text.getvalue()}, self._prepare())
            answer = self._one({"do": "outputs", "input": f"{self._files}/{name}", "batch": batch}, artefact)
        found: npt.NDArray[np.float32] = np.load(io.BytesIO(base64.b64decode(answer["npy"])), allow_pickle=False)
        return found

    def remove(self) -> None:
        """Remove everything this back end put on the board: files, the script, the virtual environment."""
        folder = shlex.quote(self.folder)
        ours = shlex.quote(f"{self.folder}/{self._script_name}")
        self._persistently(lambda: self._connection.run(f"test ! -f {ours} || rm -rf -- {folder}"))

    # -- timing

    @property
    def _clock(self) -> Clock:
        if self.runtime == "binary":
            return "device"
        return "thread_cpu" if self.threads == 1 else "wall"

    def _take_groups(
        self, groups: Sequence[Sequence[Path]], reference: Path, progress: Callable[[float], None]
    ) -> list[Taken]:
        """Time group after group; those whose reference strays from the others' once more."""

        def tell(number: int) -> Callable[[float], None]:
            return lambda share: progress((number + share) / len(groups))

        def straying() -> set[int]:
            levels = [float(np.median(found.reference_ms)) for found in taken]
            return set(range(len(groups))) - set(timing_script.good_rounds(levels, self.drift))

        taken = [self._take(group, reference, tell(number)) for number, group in enumerate(groups)]
        for number in sorted(straying()):
            taken[number] = self._take(groups[number], reference, tell(number))
        if strayed := straying():
            raise MeasurementError(
                f"the reference network strayed by more than {100 * self.drift:g} % in {len(strayed)} of "
                f"{len(groups)} groups, each timed again on {self.host}: wait until the device is quieter, "
                "or raise `drift`"
            )
        return taken

    def _take(self, group: Sequence[Path], reference: Path, progress: Callable[[float], None]) -> Taken:
        rounds = Rounds(visits=self.visits, visit_ms=self.visit_ms, drift=self.drift)
        if self.runtime == "binary":
            return take_visitors(
                [partial(partial, self._visit_by_binary, path) for path in group],
                partial(partial, self._visit_by_binary, reference),
                rounds=replace(rounds, reference_every=max(1, len(group))),
                progress=progress,
            )
        board = Group(
            connection=self._connection,
            script=self._script("serve"),
            opening=self._opening(reference, rounds),
            files=[self._path(path) for path in group],
            names={self._path(path): path.name for path in (*group, reference)},
        )
        try:
            taken = take_rounds(
                lambda order: self._persistently(lambda: board.take_round(order)),
                len(group),
                rounds=rounds,
                progress=progress,
            )
        finally:
            board.close()
        return replace(taken, refused=board.refused)

    def _opening(self, reference: Path, rounds: Rounds) -> dict[str, Any]:  # Any: JSON values
        """Return the request that opens the reference and says how to time."""
        return {
            "do": "open",
            "reference": self._path(reference),
            "threads": self.threads,
            "cores": list(self.cores),
            "clock": self._clock,
            "visit_ms": rounds.visit_ms,
            "least_runs": rounds.least_runs,
            "most_runs": rounds.most_runs,
            "warmup": rounds.warmup,
            "every": rounds.reference_every,
        }

    def _visit_by_binary(self, path: Path) -> list[float]:
        arguments = [word.replace(FILE, self._path(path)) for word in self.command]
        text = self._persistently(lambda: run_program(self._connection, arguments, file=path.name))
        return read_latencies(text, self.pattern, self.unit, file=path.name)

    def _one(self, request: Mapping[str, Any], artefact: Path) -> dict[str, Any]:
        """Ask one thing about one file."""
        if not self.runs_files:
            raise DeviceError(f'{request["do"]} needs runtime = "onnxruntime"; a binary only prints latencies')
        self._push([artefact], self._prepare())
        path = self._path(artefact)
        full = {**request, "file": path, "threads": self.threads, "cores": list(self.cores)}

        def ask() -> dict[str, Any]:
            with self._connection.serve(self._script("serve")) as board:
                return board.ask(full, names={path: artefact.name})

        return self._persistently(ask)

    # -- the board's folder

    @property
    def _connection(self) -> Connection:
        options = [
            "BatchMode=yes",
            f"ConnectTimeout={max(1, round(self.connect_s))}",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            f"StrictHostKeyChecking={'yes' if self.host_keys == 'known' else 'accept-new'}",
            *([f'UserKnownHostsFile="{self.known_hosts}"'] if self.known_hosts else []),
            *(["IdentitiesOnly=yes"] if self.identity else []),
            *self.ssh_options,
        ]
        arguments = ["ssh", "-T", *(word for option in options for word in ("-o", option))]
        arguments += ["-p", str(self.port)] if self.port else []
        arguments += ["-i", self.identity] if self.identity else []
        return Connection((*arguments, "--", self.host), self.host, self.timeout_s)

    @property
    def _files(self) -> str:
        return f"{self.folder}/files"

    @property
    def _script_name(self) -> str:
        return f"timing_script_{_digest(_script_bytes())}.py"

    @property
    def _interpreter(self) -> str:
        return self.python or f"{self.folder}/venv/bin/python"

    def _path(self, artefact: Path) -> str:
        """Return where a file lies on the board: its name is its content."""
        return f"{self._files}/{_digest(artefact.read_bytes())}{artefact.suffix}"

    def _script(self, *arguments: str, python: str = "") -> str:
        """Return the shell line that runs the timing script."""
        run = words([python or self._interpreter, f"{self.folder}/{self._script_name}", *arguments])
        return f"OMP_NUM_THREADS={self.threads} PYTHONDONTWRITEBYTECODE=1 {run}"

    def _prepare(self) -> frozenset[str]:
        """See that the board has the folder, the script and the interpreter; return the names of files it holds."""
        folder, script = shlex.quote(self.folder), shlex.quote(f"{self.folder}/{self._script_name}")
        ready = shlex.quote(f"{self.folder}/venv/ready-{self.version or 'any'}")
        has = f"command -v {shlex.quote(self.python)} > /dev/null" if self.python else f"test -f {ready}"
        told = self._persistently(
            lambda: self._connection.run(
                f"echo; mkdir -p {folder}/files && {{ test -f {script} || echo lacks-script; }} && "
                f"{{ {has} || echo lacks-python; }} && echo holds-files && ls {folder}/files"
            )
        ).splitlines()
        if "holds-files" not in told:
            raise DeviceError(f"{self.host} runs no commands; it prints: {' '.join(' '.join(told).split())[-300:]}")
        if "lacks-script" in told:
            part = shlex.quote(f"{self.folder}/{self._script_name}.part")
            self._persistently(
                lambda: self._connection.run(f"cat > {part} && mv {part} {script}", stdin=_script_bytes())
            )
        if "lacks-python" in told and self.runtime == "onnxruntime":
            if self.python:
                raise DeviceError(f"there is no interpreter {self.python} on {self.host}; correct `python`")
            self._install(ready)
        return frozenset(told[told.index("holds-files") + 1 :])

    def _install(self, ready: str) -> None:
        """Make the virtual environment with the runtime in it."""
        wanted = f"onnxruntime=={self.version}" if self.version else "onnxruntime"
        source = ""
        if self.wheels:
            wheels = sorted(Path(self.wheels).glob("*.whl"))
            if not wheels:
                raise DeviceError(f"the folder {self.wheels} holds no wheels; put those of onnxruntime and numpy there")
            self._store({path.name: path.read_bytes() for path in wheels}, f"{self.folder}/wheels")
            source = f" --no-index --find-links {shlex.quote(f'{self.folder}/wheels')}"
        folder = shlex.quote(self.folder)
        line = (
            f"python3 -m venv --clear {folder}/venv && {folder}/venv/bin/python -m pip install --quiet "
            f"--disable-pip-version-check{source} numpy {shlex.quote(wanted)} && touch {ready} && "
            f"rm -rf {folder}/wheels"
        )
        try:
            self._persistently(lambda: self._connection.run(line))
        except ConnectionLost:
            raise
        except MeasurementError as error:
            raise DeviceError(
                f"no virtual environment with onnxruntime could be made on {self.host} ({error}); push wheels for its "
                "Python and CPU with `wheels`, or name an interpreter that has them with `python`"
            ) from error

    def _push(self, artefacts: Sequence[Path], known: frozenset[str]) -> None:
        """Push the files that the board does not hold, which are all but `known`."""
        self._push_bytes({Path(self._path(path)).name: path.read_bytes() for path in artefacts}, known)

    def _push_bytes(self, contents: Mapping[str, bytes], known: frozenset[str]) -> None:
        missing = {name: content for name, content in contents.items() if name not in known}
        if self.runtime == "onnxruntime":
            self._store(missing, self._files, python=self._interpreter)
            return
        for name, content in missing.items():
            path = shlex.quote(f"{self._files}/{name}")
            line = f"cat > {path}.part && mv {path}.part {path}"
            self._persistently(lambda line=line, content=content: self._connection.run(line, stdin=content))  # type: ignore[misc]

    def _store(self, contents: Mapping[str, bytes], folder: str, *, python: str = "python3") -> None:
        """Send files through the standard input of the script; what arrived whole stays when the connection is cut."""
        for batch in _batches(contents, 16 << 20):
            entries = [
                {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in batch.items()
            ]
            stream = json.dumps(entries).encode() + b"\n" + b"".join(batch.values())
            line = self._script("store", folder, python=python)
            self._persistently(lambda line=line, stream=stream: self._connection.run(line, stdin=stream))  # type: ignore[misc]

    @contextmanager
    def _cleaned(self, artefacts: Sequence[Path]) -> Iterator[None]:
        """Clean up behind what is done, also when it fails: then by one short try, whose own failure is not told."""
        try:
            yield
        except BaseException:
            with suppress(DeviceError, MeasurementError):
                replace(self, retries=0, timeout_s=min(self.timeout_s, 30.0))._clean(artefacts)
            raise
        self._clean(artefacts)

    def _clean(self, artefacts: Sequence[Path]) -> None:
        """Remove inputs and torn files; model files beyond `keep_bytes`, all of them where a binary timed them."""
        if self.runtime == "binary":
            paths = dict.fromkeys(self._path(path) for path in artefacts)
            line = words(["rm", "-f", *paths, *(f"{path}.part" for path in paths)])
            self._persistently(lambda: self._connection.run(line))
            return

        def ask() -> dict[str, Any]:
            with self._connection.serve(self._script("serve")) as board:
                return board.ask({"do": "trim", "folder": self._files, "bytes": self.keep_bytes})

        self._persistently(ask)

    def _persistently(self, act: Callable[[], T]) -> T:
        """Return what `act` returns, done again after a pause, longer each time, while connections are lost."""
        for attempt in range(self.retries):
            try:
                return act()
            except ConnectionLost:
                time.sleep(self.backoff_s * 2**attempt)
        return act()


def _script_bytes() -> bytes:
    return Path(timing_script.__file__).read_bytes()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


def _batches(contents: Mapping[str, bytes], size: int) -> Iterator[dict[str, bytes]]:
    """Yield files in batches of about `size` bytes."""
    batch: dict[str, bytes] = {}
    for name, content in contents.items():
        batch[name] = content
        if sum(map(len, batch.values())) >= size:
            yield batch
            batch = {}
    if batch:
        yield batch
