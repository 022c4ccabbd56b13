"""What a run's files must look like on its device: the 8-bit scheme and the newest ONNX versions it opens.

Found once, before anything is probed, and kept in the run directory, so that every worker process and a run that goes
on later write the same files.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from latency_models.int8_scheme import Scheme, choose_scheme, suited
from latency_models.probe import ProbeOptions, choose_probes
from latency_models.profile import digest
from nas.config import RunConfig, describe
from nas.run import read_json, write_json
from nas.task import Task
from search_spaces.precision import QuantizationPlan
from search_spaces.space import SearchSpace

FILE = "device.json"


def suited_config(config: RunConfig, folder: Path, task: Task, space: SearchSpace) -> RunConfig:
    """Return the configuration with a device whose scheme and file versions are those of its runtime.

    Args:
        config: As the run file says.
        folder: The run directory, where the choice is kept.
        task: The run's task.
        space: Fitted to it; where two schemes are possible, networks of it are timed in both.

    Raises:
        DeviceError: The device cannot be reached.
        MeasurementError: Two schemes are possible and neither can be timed.
    """
    device = config.device
    fingerprint = device.backend.fingerprint()
    facts = digest({"fingerprint": dict(fingerprint), "device": describe(device)})
    path = folder / FILE
    if not path.exists() or read_json(path).get("facts") != facts:
        options = ProbeOptions(networks=10, seed=config.probe.seed)
        scheme = choose_scheme(
            device,
            fingerprint,
            choose_probes(space, options, allowed=frozenset(device.allow_ops)) if device.is_timed else [],
            config.export.graph_input(task.preprocessing),
            folder=folder / "probes",
        )
        found = suited(device, fingerprint, scheme)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "facts": facts,
                "quantization": asdict(scheme.plan),
                "reason": scheme.reason,
                "opset": found.opset,
                "ir_version": found.ir_version,
            },
        )
    return as_suited(config, folder)


def as_suited(config: RunConfig, folder: Path) -> RunConfig:
    """Return the configuration with what `suited_config` found earlier; as it is where nothing was."""
    if not (folder / FILE).exists():
        return config
    record: Mapping[str, Any] = read_json(folder / FILE)
    plan = QuantizationPlan(**{**record["quantization"], "keep_float": tuple(record["quantization"]["keep_float"])})
    device = replace(config.device, quantization=plan, opset=record["opset"], ir_version=record["ir_version"])
    return replace(config, device=device)


def scheme_of(folder: Path) -> Scheme | None:
    """Return the scheme that was found and why; None where nothing was."""
    if not (folder / FILE).exists():
        return None
    record = read_json(folder / FILE)
    plan = QuantizationPlan(**{**record["quantization"], "keep_float": tuple(record["quantization"]["keep_float"])})
    return Scheme(plan=plan, reason=record["reason"])
