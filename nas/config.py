"""The run file: one TOML whose tables are the fields of frozen dataclasses, read strictly.

    seed = 0
    [task]        type = "image_folder"   path = "photos"
    [data]        height = 96             width = 96
    [space]       type = "mixed"
    [device]      name = "board"          backend = { type = "local" }
    [budget]      latency_ms = 2.0
    [search]      trials = 60
    [train]       epochs = 30
    [[stages]]    type = "prune"          gate = { max_drop = 0.01 }
    [export]      type = "onnx"

`type` names a plug-in and is no field of it. Everything else is a field: its class is its documentation and schema.
Relative paths are relative to the run file.
"""

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from pydantic import TypeAdapter

from latency_models.additive import Additive
from latency_models.backends.local import Local
from latency_models.device import Device
from latency_models.prediction import LATENCY_MODELS, LatencyModel
from latency_models.probe import ProbeOptions
from latency_models.profile import default_folder, profiles_of, read_description
from latency_models.timing import BACKENDS, Backend
from nas.data import TASKS, DataOptions, TaskSource
from nas.evaluate.training import Training
from nas.export.onnx import OnnxExporter
from nas.gate import Gate
from nas.options import PipelineOptions
from nas.protocols import EVALUATORS, EXPORTERS, STAGES, Evaluator, Exporter, Stage
from nas.search.objectives import Budget
from nas.search.study import SearchOptions
from nas.train.options import TrainOptions
from search_spaces.errors import ConfigError, NasError, PluginError, near_matches
from search_spaces.mixed import MixedSpace
from search_spaces.precision import Precision
from search_spaces.registry import Registry
from search_spaces.space import SEARCH_SPACES, SearchSpace

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Table = Mapping[str, Any]  # Any: TOML values

_REGISTRIES: dict[Any, Registry[Any]] = {  # Any: protocols of every kind
    TaskSource: TASKS,
    SearchSpace: SEARCH_SPACES,
    Backend: BACKENDS,
    LatencyModel: LATENCY_MODELS,
    Stage: STAGES,
    Exporter: EXPORTERS,
    Evaluator: EVALUATORS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedStage:
    """One entry of `[[stages]]`: a stage and what it may cost."""

    stage: Stage
    gate: Gate = field(default_factory=Gate)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run.

    Attributes:
        task: Where labelled images are.
        data: How they become a task.
        space: What is searched; `classes`, `channels` and, where it is left out, `resolutions` follow from the task.
        device: What it must run on.
        latency: How latency is predicted.
        probe: How the device is probed.
        budget: What the delivered file may cost.
        search: How the space is searched.
        train: How networks are trained.
        stages: Compression stages in order, each with its gate.
        export: How files are written.
        evaluator: What says how good a candidate is while searching.
        pipeline: What happens to the front.
        seed: Of everything.
        workers: Training processes; 0 for one a core, or one where there is a GPU.
        plugins: Python files with plug-ins, imported before anything is read.
    """

    task: TaskSource
    data: DataOptions
    space: SearchSpace = field(default_factory=MixedSpace)
    device: Device = field(default_factory=lambda: Device(name="this-machine", backend=Local()))
    latency: LatencyModel = field(default_factory=Additive)
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    budget: Budget = field(default_factory=Budget)
    search: SearchOptions = field(default_factory=SearchOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    stages: tuple[GatedStage, ...] = ()
    export: Exporter = field(default_factory=OnnxExporter)
    evaluator: Evaluator = field(default_factory=Training)
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    seed: int = 0
    workers: int = 0
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.budget.latency_ms is not None and not self.device.is_timed:
            raise ConfigError(
                f"budget.latency_ms is {self.budget.latency_ms:g}, but nothing times the device {self.device.name} "
                "(its backend is of type memory): limit budget.macs instead"
            )
        self._check_precision()

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What a delivered file may compute in: what the budget asks for, of what the device runs."""
        return self.device.precisions if self.budget.precision == "best" else (self.budget.precision,)

    def _check_precision(self) -> None:
        wanted, named = self.budget.precision, {STAGES.name_of(type(gated.stage)) for gated in self.stages}
        if not set(self.precisions) <= set(self.device.precisions):
            raise ConfigError(
                f"budget.precision is {wanted}, but the device {self.device.name} runs "
                f"{' and '.join(self.device.precisions)} only"
            )
        if "float32" not in self.precisions and "quantize" not in named:
            raise ConfigError("only int8 files may ship (budget.precision, device.precisions): add a stage quantize")
        if "int8" not in self.precisions and "quantize" in named:
            raise ConfigError(
                "only float32 files may ship (budget.precision, device.precisions): leave the stage quantize out"
            )


def load_config(path: Path, *, plugins: tuple[str, ...] = ()) -> RunConfig:
    """Read a run file.

    Args:
        path: The file.
        plugins: More Python files with plug-ins, as given on the command line.

    Raises:
        ConfigError: The file is missing or no TOML; a key is unknown (with near matches) or missing; a value has the
            wrong type or is refused by its class. The message starts with the key's path.
        PluginError: A `type` is unknown, or a plug-in does not load.
    """
    from search_spaces.registry import load_plugin_file

    table = _read_toml(path, "the run file")
    base = path.resolve().parent
    named = _leaf(tuple[str, ...], table.get("plugins", []), "plugins")
    assert isinstance(named, tuple)
    table["plugins"] = [*(str(base / plugin) for plugin in named), *(str(Path(plugin).resolve()) for plugin in plugins)]
    for plugin in table["plugins"]:
        load_plugin_file(plugin)
    config = _Reader(base).read(RunConfig, table, "")
    assert isinstance(config, RunConfig)
    return config if "resolutions" in table.get("space", {}) else _at_task_resolution(config)


def _read_toml(path: Path, what: str) -> dict[str, Any]:  # Any: TOML values
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is no TOML: {error}") from error


def _at_task_resolution(config: RunConfig) -> RunConfig:
    """Return the configuration with a space for images of the size that [data] says."""
    if "resolutions" not in _field_names(config.space):
        return config
    if config.data.height != config.data.width:
        raise ConfigError(
            f"data.height is {config.data.height} and data.width {config.data.width}, but networks of this space take "
            "square images: make them equal, or say space.resolutions"
        )
    values = {name: getattr(config.space, name) for name in _field_names(config.space)}
    space = type(config.space)(**{**values, "resolutions": (config.data.height,)})
    return dataclasses.replace(config, space=space)


def _field_names(value: object) -> frozenset[str]:
    return frozenset(item.name for item in dataclasses.fields(value) if item.init) if _is_value(value) else frozenset()


def _is_value(value: object) -> TypeGuard["DataclassInstance"]:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def restore(description: Table) -> RunConfig:
    """Return the configuration that `describe` described, after importing its plug-in files."""
    from search_spaces.registry import load_plugin_file

    for plugin in description["plugins"]:
        load_plugin_file(plugin)
    config = _Reader(Path()).read(RunConfig, description, "")
    assert isinstance(config, RunConfig)
    return config


def restore_space(description: Table) -> SearchSpace:
    """Return the space that `describe` described; its plug-in file must have been imported.

    Raises:
        ConfigError: A field is unknown, missing or wrong.
        PluginError: No space of that `type` is registered.
    """
    space: SearchSpace = restore_plugin(SearchSpace, description)  # type: ignore[assignment]  # read so
    return space


def restore_plugin(protocol: type, description: Table) -> object:
    """Return the plug-in that `describe` described; its plug-in file must have been imported.

    Args:
        protocol: Of its kind, such as `Stage`.
        description: Its `type` and fields.

    Raises:
        ConfigError: A field is unknown, missing or wrong.
        PluginError: None of that `type` is registered.
    """
    return _Reader(Path()).read(protocol, description, _REGISTRIES[protocol].kind.split()[-1])


def describe(value: object) -> Any:  # Any: JSON values
    """Return the resolved configuration as JSON values, plug-ins with their `type`."""
    if isinstance(value, GatedStage):
        return {**describe(value.stage), "gate": describe(value.gate)}
    if _is_value(value):
        record = {item.name: describe(getattr(value, item.name)) for item in dataclasses.fields(value) if item.init}
        for registry in _REGISTRIES.values():
            if type(value) in registry._names:
                return {"type": registry.name_of(type(value)), **record}
        return record
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    return value


def device_file(named: str, beside: Path) -> Path:
    """Return the file of a shipped device, or one beside the run file; raises ConfigError with near matches."""
    shipped = Path(__file__).parent.parent / "latency_models" / "devices" / f"{named}.toml"
    file = beside / named if named.endswith(".toml") else shipped
    if not file.is_file():
        known = [path.stem for path in shipped.parent.glob("*.toml")]
        known += [path.name.rsplit(".", 3)[0] for path in default_folder().glob("*.json")]
        raise ConfigError(f"no device file {named!r}; {near_matches(named, known)}")
    return file


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns tables into dataclasses; `base` is where relative paths start."""

    base: Path

    def read(self, hint: Any, value: object, place: str) -> object:  # Any: a type annotation
        """Return `value` as the type `hint` names."""
        if hint in _REGISTRIES:
            return self._plugin(_REGISTRIES[hint], value, place)
        if hint is GatedStage:
            return self._gated(value, place)
        if hint is Device and isinstance(value, str):
            value = {"base": value}
        if hint is Device and isinstance(value, Mapping) and "base" in value:
            value = self._with_base(value, place)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self._fields(hint, _table(value, place), place)
        arguments = typing.get_args(hint)
        if typing.get_origin(hint) is types.UnionType and self._holds_classes(arguments[0]):
            return None if value is None else self.read(arguments[0], value, place)
        if typing.get_origin(hint) is tuple and arguments and self._holds_classes(arguments[0]):
            if not isinstance(value, list):
                raise ConfigError(f"{place} must be a list, got {value!r}")
            return tuple(self.read(arguments[0], item, f"{place}[{number}]") for number, item in enumerate(value))
        return _leaf(hint, value, place)

    def _holds_classes(self, hint: Any) -> bool:  # Any: a type annotation
        return hint in _REGISTRIES or (dataclasses.is_dataclass(hint) and isinstance(hint, type))

    def _plugin(self, registry: Registry[Any], value: object, place: str) -> object:
        table = dict(_table(value, place))
        name = table.pop("type", None)
        if not isinstance(name, str):
            raise ConfigError(f"{place} needs type = the name of a {registry.kind}: {', '.join(registry.names())}")
        try:
            cls = registry.get(name)
        except PluginError as error:
            raise PluginError(f"{place}: {error}") from None
        return self._fields(cls, table, place)

    def _gated(self, value: object, place: str) -> GatedStage:
        table = dict(_table(value, place))
        gate = self.read(Gate, table.pop("gate", {}), f"{place}.gate")
        stage = self._plugin(STAGES, table, place)
        return GatedStage(stage=stage, gate=gate)  # type: ignore[arg-type]  # read as those classes

    def _with_base(self, value: Table, place: str) -> Table:
        """Return a device's table laid over the device file, or the device added before, that its `base` names."""
        own = {key: item for key, item in value.items() if key != "base"}
        measured = profiles_of(default_folder(), str(value["base"]))
        try:
            file = device_file(str(value["base"]), self.base)
        except ConfigError as error:
            for path in reversed(measured):
                if described := read_description(path):
                    return {**described, **own}
            raise ConfigError(f"{place}.base: {error}") from None
        return {**_read_toml(file, "the device file"), **own}

    def _fields(self, cls: type, table: Table, place: str) -> object:
        fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
        hints = typing.get_type_hints(cls)
        values: dict[str, object] = {}
        for key, value in table.items():
            where = f"{place}.{key}" if place else key
            if key not in fields:
                raise ConfigError(f"{where} is no known key: {near_matches(key, fields)}")
            found = self.read(hints[key], value, where)
            is_path = fields[key].metadata.get("path") and found
            values[key] = str(self.base / str(found)) if is_path else found
        for key, item in fields.items():
            required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            if required and key not in values:
                raise ConfigError(f"{place + '.' if place else ''}{key} is missing")
        try:
            return cls(**values)
        except NasError as error:
            raise type(error)(f"{place or 'the run file'}: {error}") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{place or 'the run file'}: {error}") from error


def _table(value: object, place: str) -> Table:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place} must be a table, got {value!r}")
    return value


def _leaf(hint: Any, value: object, place: str) -> object:  # Any: a type annotation
    """Return a plain value after pydantic's strict check of it as JSON, where lists may stand for tuples."""
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value, allow_nan=False), strict=True)
    except (TypeError, ValueError):  # pydantic's ValidationError, too, is a ValueError
        raise ConfigError(f"{place} must be {_name(hint)}, got {value!r}{_near(hint, value)}") from None


def _name(hint: Any) -> str:  # Any: a type annotation
    words = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "nothing"}
    if hint in words:
        return words[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_name(option) for option in arguments if option is not type(None))
    if origin is tuple:
        several = len(arguments) == 2 and arguments[1] is Ellipsis
        return f"a list of {_names(arguments[0]) if several else f'{len(arguments)} values'}"
    if origin in (Mapping, dict) or hint in (Mapping, dict):
        return f"a table of {_names(arguments[1])}" if arguments else "a table"
    return str(hint)


def _names(hint: Any) -> str:  # Any: a type annotation
    """Return the words for several values of a type."""
    one = _name(hint)
    if typing.get_origin(hint) is typing.Literal:
        return f"names, each {one}"
    if one.startswith("a list"):
        return one.replace("a list", "lists", 1)
    return one if hint is bool else one.removeprefix("an ").removeprefix("a ") + "s"


def _near(hint: Any, value: object) -> str:  # Any: a type annotation
    """Return near matches of a wrong name, or of the wrong names in a list."""
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return next(filter(None, (_near(typing.get_args(hint)[0], item) for item in value)), "")
    names = [str(name) for name in typing.get_args(hint)] if typing.get_origin(hint) is typing.Literal else []
    if not isinstance(value, str) or value in names:
        return ""
    close = near_matches(value, names)
    return f"; {close}" if close.startswith("did") else ""


def schema() -> dict[str, Any]:  # Any: JSON values
    """Return the JSON Schema of the run file, every registered plug-in included."""
    return _schema_of(RunConfig)


def _schema_of(hint: Any) -> dict[str, Any]:  # Any: a type annotation, and JSON values
    if hint in _REGISTRIES:
        options = []
        for name, cls in _REGISTRIES[hint].items():
            described = _schema_of_class(cls)
            described["properties"] = {"type": {"const": name}, **described["properties"]}
            described["required"] = ["type", *described["required"]]
            options.append(described)
        return {"oneOf": options}
    if hint is GatedStage:
        options = _schema_of(Stage)["oneOf"]
        for option in options:
            option["properties"]["gate"] = _schema_of_class(Gate)
        return {"oneOf": options}
    if hint is Device:
        named = {"type": "string", "description": "a shipped device, or a device file"}
        return {"oneOf": [named, _schema_of_class(hint)]}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _schema_of_class(hint)
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is types.UnionType and dataclasses.is_dataclass(arguments[0]):
        return {"anyOf": [_schema_of(arguments[0]), {"type": "null"}]}
    if (
        typing.get_origin(hint) is tuple
        and arguments
        and (arguments[0] in _REGISTRIES or dataclasses.is_dataclass(arguments[0]))
    ):
        return {"type": "array", "items": _schema_of(arguments[0])}
    return TypeAdapter(hint).json_schema()


def _schema_of_class(cls: type) -> dict[str, Any]:  # Any: JSON values
    hints = typing.get_type_hints(cls)
    properties: dict[str, Any] = {}
    required = []
    for item in dataclasses.fields(cls):
        if not item.init:
            continue
        properties[item.name] = _schema_of(hints[item.name])
        if item.default is not dataclasses.MISSING:
            properties[item.name]["default"] = describe(item.default)
        elif item.default_factory is dataclasses.MISSING:
            required.append(item.name)
    if cls is Device:
        properties["base"] = {"type": "string", "description": "a shipped device, or a device file, to start from"}
        required = []
    text = (cls.__doc__ or "").strip().splitlines()
    return {
        "type": "object",
        "description": text[0] if text else cls.__name__,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
