"""A device as the command line names it: which back end, space and files, and the text about what was found."""

import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from latency_models.backends.command import Command
from latency_models.backends.local import Local
from latency_models.backends.ssh import Ssh
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.prediction import LATENCY_MODELS, LatencyModel
from latency_models.probe import ProbeOptions
from latency_models.timing import Backend
from nas.config import load_config
from nas.pipeline.devices import AddedDevice, add_device
from nas.pipeline.probe_set import write_probes
from nas.pipeline.setup import fit_space, load_run_task
from nas.protocols import Progress, quiet
from search_spaces.errors import ConfigError
from search_spaces.mixed import MixedSpace
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
        table: A filled-in table.
        command: A program that prints latencies, as a line of words.
        pattern: Regular expression for what it prints.
        unit: Of what it prints.
        threads: Of one inference.
        networks: Networks to time.
        blocks: Single blocks to time.
        model: Name of a latency model.
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
    threads: int = 1
    networks: int = 100
    blocks: int = 0
    model: str = "additive"
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
            threads=self.threads,
        )

    def _table(self) -> Table:
        assert self.table is not None
        return Table(path=str(self.table.resolve()))

    def _command(self) -> Command:
        return Command(
            command=tuple(shlex.split(self.command)),
            pattern=self.pattern,
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
        source = "timed now" if added.fitted.measured_now else "read from what was measured before"
        lines.append(f"{len(profile.networks)} files {source}, {profile.seconds:.1f} s; {added.seconds:.1f} s in all")
        lines += [known.sentence() for known in added.accuracy]
        lines.append("networks to time next, if more are wanted (--more N):")
        lines += [f"  {item.architecture.key}  {item.predicted}; {item.reason}" for item in added.suggestions]
        lines.append(f"kept in {added.path}; in a run file: [device] base = {json.dumps(profile.device)}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return it for programs."""
        added, profile = self.added, self.added.fitted.profile
        return json.dumps(
            {
                "device": profile.device,
                "fingerprint": dict(profile.fingerprint),
                "scheme": added.scheme.reason,
                "accuracy": {known.precision: known.to_dict() for known in added.accuracy},
                "next": [
                    {
                        "key": item.architecture.key,
                        "architecture": item.architecture.to_dict(),
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
    if asked.config is not None and (asked.networks, asked.blocks, asked.model) != (100, 0, "additive"):
        raise ConfigError(
            "--networks, --blocks and --model stand in the run file as [probe] and [latency]; give no flags"
        )
    with tempfile.TemporaryDirectory() as scratch:
        device, model, space, graph_input, options = _of_run(asked, Path(scratch)) if asked.config else _default(asked)
        added = add_device(
            device, model, space, graph_input, options, store=store, scratch=Path(scratch) / "probes", more=more,
            progress=progress,
        )  # fmt: skip
    return Told(added=added)


def write_default_probes(networks: int, out: Path, *, progress: Progress = quiet) -> int:
    """Write the probe set of the default space; return the number of files."""
    device = Device(name="probes", backend=Table(path=str(out / "table.csv")))
    return write_probes(device, MixedSpace(), GraphInput(), ProbeOptions(networks=networks), out, progress=progress)


Parts = tuple[Device, LatencyModel, SearchSpace, GraphInput, ProbeOptions]


def _default(asked: Named) -> Parts:
    backend = asked.backend() or Local(threads=asked.threads)
    return (
        Device(name=asked.name, backend=backend),
        LATENCY_MODELS.get(asked.model)(),
        MixedSpace(),
        GraphInput(),
        ProbeOptions(networks=asked.networks, blocks=asked.blocks),
    )


def _of_run(asked: Named, scratch: Path) -> Parts:
    assert asked.config is not None
    config = load_config(asked.config, plugins=asked.plugins)
    backend = asked.backend() or config.device.backend
    device = replace(config.device, name=asked.name, backend=backend)
    task = load_run_task(config, scratch)
    space = fit_space(config.space, task, device.allow_ops)
    return device, config.latency, space, config.export.graph_input(task.preprocessing), config.probe
