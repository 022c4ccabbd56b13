"""A device as the command line names it: which back end, space and files, and the text about what was found."""

import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from latency_models.backends.command import LAST_NUMBER, Command
from latency_models.backends.local import Local
from latency_models.backends.ssh import Ssh
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.graph.emitter import Emitter
from latency_models.prediction import LATENCY_MODELS, LatencyModel
from latency_models.probe import ProbeOptions
from latency_models.timing import Backend
from nas.config import load_config
from nas.pipeline.devices import AddedDevice, add_device
from nas.pipeline.probe_set import TABLE, write_probes
from nas.pipeline.setup import fit_space, load_run_task
from nas.protocols import Progress, quiet
from search_spaces.errors import ConfigError
from search_spaces.mixed import MixedSpace
from search_spaces.registry import load_plugin_file
from search_spaces.space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a user says about a device; empty is what was not said.

    Attributes:
        name: Of the device.
        config: A run file whose device, space and files are probed.
        ssh: user@address of a board.
        port: Of its sshd.
        identity: Private key.
        known_hosts: File of known host keys.
        accept_new_key: Whether a host key that is not known is noted.
        python: Interpreter on the board.
        wheels: Folder of wheels for the board.
        table: A filled-in table, or the folder of the probe set that holds it.
        command: A program that prints latencies, as a line of words.
        pattern: Regular expression for what it prints; the last number where nothing is said.
        unit: Of what it prints.
        threads: Of one inference; 1 where nothing is said.
        networks: Networks to time; 100 where nothing is said.
        blocks: Single blocks to time; none where nothing is said.
        model: Name of a latency model; additive where nothing is said.
        plugins: Python files with plug-ins.
    """

    name: str
    config: Path | None = None
    ssh: str = ""
    port: int = 0
    identity: str = ""
    known_hosts: str = ""
    accept_new_key: bool = False
    python: str = ""
    wheels: Path | None = None
    table: Path | None = None
    command: str = ""
    pattern: str = ""
    unit: str = "ms"
    threads: int | None = None
    networks: int | None = None
    blocks: int | None = None
    model: str | None = None
    plugins: tuple[str, ...] = ()

    def backend(self) -> Backend | None:
        """Return the back end that was asked for; None where nothing was said.

        Raises:
            ConfigError: Two were asked for.
        """
        asked = [option for option in ("ssh", "table", "command") if getattr(self, option)]
        if len(asked) > 1:
            raise ConfigError(f"--{asked[0]} and --{asked[1]} name two devices; give one of them")
        makers: dict[str, Callable[[], Backend]] = {"ssh": self._ssh, "table": self._table, "command": self._command}
        return makers[asked[0]]() if asked else None

    def _ssh(self) -> Ssh:
        return Ssh(
            host=self.ssh,
            port=self.port,
            identity=self.identity,
            known_hosts=self.known_hosts,
            host_keys="accept-new" if self.accept_new_key else "known",
            python=self.python,
            wheels=str(self.wheels.resolve()) if self.wheels else "",
            threads=1 if self.threads is None else self.threads,
        )

    def _table(self) -> Table:
        assert self.table is not None
        file = self.table / TABLE if self.table.is_dir() else self.table
        return Table(path=str(file.resolve()))

    def _command(self) -> Command:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ConfigError(f"--command {self.command!r} is no line of words: {error}") from error
        return Command(
            command=tuple(words),
            pattern=self.pattern or LAST_NUMBER,
            unit=self.unit,  # type: ignore[arg-type]  # Command checks it
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said about an added device."""

    added: AddedDevice

    def text(self) -> str:
        """Return it for people."""
        added, profile = self.added, self.added.fitted.profile
        lines = [f"{profile.device}:"]
        lines += [f"  {key}: {value}" for key, value in profile.fingerprint.items()]
        lines.append(f"  int8 scheme: {added.scheme.reason}")
        lines.append(f"  ONNX: opset {added.fitted.device.opset}, IR version {added.fitted.device.ir_version} at most")
        lines.append(f"{self._source()}, {profile.seconds:.1f} s; {added.seconds:.1f} s in all")
        lines += [added.table.sentence()] if added.table else []
        lines += [profile.refusals()] if profile.refused else []
        lines += [known.sentence() for known in added.accuracy]
        lines += [f"warning: {told}" for told in added.warnings]
        option = " (--more N)" if added.fitted.device.backend.live else ""
        lines.append(f"networks to time next, if more are wanted{option}:")
        lines += [
            f"  {item.architecture.key}  {item.precision} {item.predicted}; {item.reason}" for item in added.suggestions
        ]
        lines.append(f"kept in {added.path}; in a run file: [device] base = {json.dumps(profile.device)}")
        return "\n".join(lines)

    def _source(self) -> str:
        count, before = len(self.added.fitted.profile.networks), self.added.known_before
        if self.added.table:
            return f"{count} files read from the table"
        parts = [f"{before} files read from what was measured before"] if before else []
        parts += [f"{count - before} files timed now"] if count > before else []
        return ", ".join(parts)

    def to_json(self) -> str:
        """Return it for programs."""
        added, profile = self.added, self.added.fitted.profile
        return json.dumps(
            {
                "device": profile.device,
                "fingerprint": dict(profile.fingerprint),
                "scheme": added.scheme.reason,
                "timed": len(profile.networks),
                "timed_before": added.known_before,
                "table": None if added.table is None else asdict(added.table),
                "warnings": list(added.warnings),
                "refused": [
                    {
                        "key": known.architecture.key,
                        "precision": known.precision,
                        "kind": known.kind,
                        "reason": known.reason,
                    }
                    for known in profile.refused
                ],
                "accuracy": {known.precision: known.to_dict() for known in added.accuracy},
                "next": [
                    {
                        "key": item.architecture.key,
                        "architecture": item.architecture.to_dict(),
                        "precision": item.precision,
                        "predicted": item.predicted.to_dict(),
                        "reason": item.reason,
                    }
                    for item in added.suggestions
                ],
                "seconds": round(added.seconds, 1),
                "file": str(added.path),
            }
        )


def add_named(asked: Named, *, store: Path, more: int = 0, progress: Progress = quiet) -> Told:
    """Add a device as `add_device` does, with the run file's or the default space and files.

    Raises:
        ConfigError: The flags contradict each other, or the run file is wrong.
        DeviceError: As `add_device`.
    """
    given = [name for name in ("networks", "blocks", "model", "threads") if getattr(asked, name) is not None]
    if asked.config is not None and given:
        raise ConfigError(
            f"--{given[0]} is given beside --config: networks and blocks stand in the run file as [probe], the model "
            "as [latency], threads in the backend of [device]; write it there and leave the flag out"
        )
    with tempfile.TemporaryDirectory() as scratch:
        device, model, space, graph_input, options = _of_run(asked, Path(scratch)) if asked.config else _default(asked)
        added = add_device(
            device, model, space, graph_input, options, store=store, scratch=Path(scratch) / "probes", more=more,
            progress=progress,
        )  # fmt: skip
    return Told(added=added)


def write_default_probes(
    out: Path, *, networks: int = 100, opset: int = 18, ir_version: int = 8, progress: Progress = quiet
) -> int:
    """Write the probe set of the default space; return the number of files.

    Args:
        out: Folder for the files.
        networks: How many networks.
        opset: ONNX opset of the files, no newer than the board's runtime opens.
        ir_version: ONNX IR version of the files, likewise.
        progress: Told how far it is.

    Raises:
        ConfigError: No file can have these versions.
    """
    try:
        Emitter(opset=opset, ir_version=ir_version)
    except ValueError as error:
        raise ConfigError(f"--opset {opset} with --ir-version {ir_version}: {error}") from error
    device = Device(name="probes", backend=Table(path=str(out / "table.csv")), opset=opset, ir_version=ir_version)
    return write_probes(device, MixedSpace(), GraphInput(), ProbeOptions(networks=networks), out, progress=progress)


Parts = tuple[Device, LatencyModel, SearchSpace, GraphInput, ProbeOptions]


def _default(asked: Named) -> Parts:
    for plugin in asked.plugins:
        load_plugin_file(plugin)
    backend = asked.backend() or Local(threads=1 if asked.threads is None else asked.threads)
    return (
        Device(name=asked.name, backend=backend),
        LATENCY_MODELS.get("additive" if asked.model is None else asked.model)(),
        MixedSpace(),
        GraphInput(),
        ProbeOptions(networks=100 if asked.networks is None else asked.networks, blocks=asked.blocks or 0),
    )


def _of_run(asked: Named, scratch: Path) -> Parts:
    assert asked.config is not None
    config = load_config(asked.config, plugins=asked.plugins)
    backend = asked.backend() or config.device.backend
    device = replace(config.device, name=asked.name, backend=backend)
    task = load_run_task(config, scratch)
    space = fit_space(config.space, task, device.allow_ops)
    return device, config.latency, space, config.export.graph_input(task.preprocessing), config.probe
