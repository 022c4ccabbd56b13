"""A device's profile: what was timed on it, under which circumstances, kept in one JSON file.

The file's name carries a digest of the device's fingerprint and of what was probed, so another CPU, runtime version,
thread count or governor is another device, and no measurement is ever reused for it in silence. Raw samples are kept;
models are fitted anew from them whenever the profile is read, so a better model needs no new measurement.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from latency_models.failures import FAILURES
from latency_models.prediction import Sample
from latency_models.timing import Timing
from search_spaces.architecture import BLOCKS, Architecture
from search_spaces.errors import DeviceError, NasError, PluginError
from search_spaces.lowering import lower
from search_spaces.precision import Precision, QuantizationPlan, with_precision

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probed:
    """One timed network.

    Attributes:
        architecture: The network.
        precision: Of the file that was timed.
        timing: Raw samples.
        purpose: "probe" for networks drawn to fit a model, "block" for single blocks of them, "confirmed" for
            networks that a search preferred, "delivered" for files that a run wrote.
        level: What share of the profile's latencies those of the session were in which this one was timed; samples
            are divided by it. 1 for the session that made the profile.
    """

    architecture: Architecture
    precision: Precision
    timing: Timing
    purpose: str = "probe"
    level: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.level < float("inf"):
            raise ValueError(f"the level of a session must be above 0 and finite, got {self.level}")

    def sample(self, plan: QuantizationPlan) -> Sample:
        """Return it as a model is fitted to it; `plan` is the device's 8-bit scheme."""
        workload = with_precision(lower(self.architecture), plan if self.precision == "int8" else None)
        return Sample(workload, self.timing.latency_ms / self.level, self.timing.origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A network that the device would not time, which no model is fitted to.

    Attributes:
        architecture: The network.
        precision: Of the file.
        kind: "time_out", "out_of_memory", "unsupported" or "refused".
        reason: One sentence.
        purpose: As of a timed network.
    """

    architecture: Architecture
    precision: Precision
    kind: str
    reason: str
    purpose: str = "probe"

    def __post_init__(self) -> None:
        if self.kind not in FAILURES:
            raise ValueError(f"kind must be one of {', '.join(FAILURES)}, got {self.kind!r}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Everything timed on one device for one probe set.

    Attributes:
        device: Its name.
        fingerprint: What the backend says about it.
        probes: Digest of what was probed: the space and how files take their input.
        seconds: Wall time of the measurement.
        networks: Timed networks.
        refused: Networks that it would not time.
        description: The device as a run file would describe it; empty where nobody noted it.
        protocol: How files were timed: the back end's fields.
        accuracy: By precision, what the model fitted to these networks is worth: its name, shares within 5 and 10 %
            and mean error with their intervals, and quantiles of the left-out errors. Computed anew at every fit.
    """

    device: str
    fingerprint: Mapping[str, str]
    probes: str
    seconds: float
    networks: tuple[Probed, ...]
    refused: tuple[Refused, ...] = ()
    description: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    protocol: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)

    def samples(self, precision: Precision, plan: QuantizationPlan, *, blocks: bool = False) -> list[Sample]:
        """Return the samples of one precision: whole networks, and single blocks where they are asked for."""
        return [
            known.sample(plan)
            for known in self.networks
            if known.precision == precision and (blocks or known.purpose != "block")
        ]

    def with_networks(self, more: Sequence[Probed | Refused]) -> Self:
        """Return the profile with more networks, timed or refused."""
        return replace(
            self,
            networks=(*self.networks, *(known for known in more if isinstance(known, Probed))),
            refused=(*self.refused, *(known for known in more if isinstance(known, Refused))),
        )

    def refusals(self) -> str:
        """Return how many files the device refused and why the first, in one sentence; empty where it took all."""
        if not self.refused:
            return ""
        kinds = Counter(known.kind.replace("_", " ") for known in self.refused)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        count = len(self.networks) + len(self.refused)
        return f"{len(self.refused)} of {count} files gave no timing ({told}), the first: {self.refused[0].reason}"

    def to_json(self) -> str:
        """Return the file's text."""
        record = {
            "schema": SCHEMA,
            "device": self.device,
            "fingerprint": dict(self.fingerprint),
            "probes": self.probes,
            "seconds": round(self.seconds, 3),
            "description": dict(self.description),
            "protocol": dict(self.protocol),
            "accuracy": dict(self.accuracy),
            "networks": [
                {
                    "architecture": known.architecture.to_dict(),
                    "precision": known.precision,
                    "purpose": known.purpose,
                    "level": known.level,
                    "timing": known.timing.to_dict(),
                }
                for known in self.networks
            ],
            "refused": [
                {
                    "architecture": known.architecture.to_dict(),
                    "precision": known.precision,
                    "purpose": known.purpose,
                    "kind": known.kind,
                    "reason": known.reason,
                }
                for known in self.refused
            ],
        }
        return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a profile's file.

        Raises:
            DeviceError: It cannot be read, is damaged or of another schema.
            PluginError: Its networks hold blocks of a plug-in that was not loaded.
        """
        return cls.from_json(_content(path), source=str(path))

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> Self:
        """Read a profile back.

        Args:
            text: The file's text.
            source: Where it is from, for messages.

        Raises:
            DeviceError: The file is damaged or of another schema.
            PluginError: Its networks hold blocks of a plug-in that was not loaded.
        """
        try:
            record = _record(text, source)
            return cls(
                device=record["device"],
                fingerprint=dict(record["fingerprint"]),
                probes=record["probes"],
                seconds=float(record["seconds"]),
                networks=tuple(map(_read_network, record["networks"])),
                refused=tuple(map(_read_refused, record.get("refused", ()))),
                description=dict(record.get("description", {})),
                protocol=dict(record.get("protocol", {})),
                accuracy=dict(record.get("accuracy", {})),
            )
        except DeviceError:
            raise
        except PluginError as error:
            named = f"block {' and '.join(map(repr, _not_loaded(record)))}" if _not_loaded(record) else str(error)
            raise PluginError(
                f"{source} needs a plug-in that is not loaded: {named}; give --plugin FILE with it"
            ) from error
        except (NasError, AttributeError, ValueError, KeyError, TypeError) as error:
            raise DeviceError(f"{source} is no device profile ({error!r}); remove it to measure again") from error

    def require(self, fingerprint: Mapping[str, str], probes: str, *, source: str) -> None:
        """Raise DeviceError unless the profile says of itself that it is of this device and probe set."""
        differing = sorted(
            name
            for name in self.fingerprint.keys() | fingerprint.keys()
            if self.fingerprint.get(name) != fingerprint.get(name)
        )
        if differing:
            name = differing[0]
            raise DeviceError(
                f"{source} was measured on another device: {name} was {self.fingerprint.get(name, 'unknown')!r} and is "
                f"{fingerprint.get(name, 'unknown')!r}; remove it to measure again"
            )
        if self.probes != probes:
            raise DeviceError(f"{source} holds other networks than this run probes; remove it to measure again")


def read_description(path: Path) -> Mapping[str, Any]:  # Any: JSON values
    """Return how a run file would describe a profile's device, whatever plug-ins its networks need.

    Raises:
        DeviceError: The file cannot be read, is damaged or of another schema.
    """
    content = _content(path)
    try:
        return dict(_record(content, str(path)).get("description", {}))
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"{path} is no device profile ({error!r}); remove it to measure again") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror or error}") from error


def _record(text: str | bytes, source: str) -> Any:  # Any: JSON values
    record = json.loads(text)
    if record["schema"] != SCHEMA:
        raise DeviceError(f"{source} has schema {record['schema']!r}, expected {SCHEMA}: measure the device again")
    return record


def _not_loaded(record: Any) -> list[str]:  # Any: JSON values
    """Return the types in a profile's networks that no block is registered under, sorted."""
    networks = [*record["networks"], *record.get("refused", ())]
    return sorted({name for name in _types(networks) if name not in BLOCKS.names()})


def _types(value: Any) -> Iterator[str]:  # Any: JSON values
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _types(item)


def _read_network(record: Mapping[str, Any]) -> Probed:  # Any: JSON values
    return Probed(
        architecture=Architecture.from_dict(record["architecture"]),
        precision=record["precision"],
        timing=Timing.from_dict(record["timing"]),
        purpose=record["purpose"],
        level=float(record.get("level", 1.0)),
    )


def _read_refused(record: Mapping[str, Any]) -> Refused:  # Any: JSON values
    return Refused(
        architecture=Architecture.from_dict(record["architecture"]),
        precision=record["precision"],
        kind=record["kind"],
        reason=str(record["reason"]),
        purpose=record["purpose"],
    )


def digest(facts: Mapping[str, object]) -> str:
    """Return 12 hex digits that change with any of the facts."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def profile_path(folder: Path, device: str, fingerprint: Mapping[str, str], probes: str) -> Path:
    """Return where the profile of that device and probe set is kept."""
    return folder / f"{device}.{digest(fingerprint)}.{probes}.json"


def profiles_of(folder: Path, device: str) -> list[Path]:
    """Return the profiles of a device, the newest last."""
    files = [path for path in folder.glob("*.json") if path.name.rsplit(".", 3)[0] == device]
    return sorted(files, key=lambda path: path.stat().st_mtime)


def default_folder() -> Path:
    """Return where profiles live unless told otherwise: `$NAS_DEVICES`, else the user's data folder."""
    named = os.environ.get("NAS_DEVICES")
    if named:
        return Path(named)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "embedded-nas" / "devices"
