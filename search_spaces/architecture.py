"""A network as a value: blocks of absolute integers in stages, hashable, JSON both ways, with a content key."""

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from search_spaces.errors import PluginError, SpaceError, near_matches
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
FORMAT = 1


@runtime_checkable
class Block(Protocol):
    """A frozen dataclass of absolute integers (no ratios) that builds one part of a network.

    `build` runs on the meta device too, so it must not read tensor values (`.item()`) or let shapes depend on
    data. A block may name the fields that hold a number of channels which pruning may lower in the class
    attribute `prunable`, for example `prunable: ClassVar[tuple[str, ...]] = ("hidden",)`.
    """

    def __hash__(self) -> int:
        """Return the hash of the fields, as a frozen dataclass has it."""
        ...

    def build(self, input_shape: Shape) -> "nn.Module":
        """Return the module for inputs of `input_shape` (channels, height, width), without the batch axis."""
        ...


BLOCKS: Registry[Block] = Registry(
    "block",
    group="embedded_nas.blocks",
    builtin=(
        "search_spaces.attention_blocks",
        "search_spaces.blocks",
        "search_spaces.densenet_blocks",
        "search_spaces.efficientnet_blocks",
        "search_spaces.ghost_blocks",
        "search_spaces.mix_blocks",
        "search_spaces.mobilenet_blocks",
        "search_spaces.nasbench201_blocks",
        "search_spaces.reparametrized_blocks",
        "search_spaces.resnet_blocks",
        "search_spaces.shuffle_blocks",
        "search_spaces.squeezenet_blocks",
        "search_spaces.vit_blocks",
    ),
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One network without weights, modules or device.

    Attributes:
        input_shape: Channels, height and width of one input image.
        stages: Stage k, block j becomes the module `stages.k.j`, a name that stays when depths vary.
    """

    input_shape: tuple[int, int, int]
    stages: tuple[tuple[Block, ...], ...]

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or any(type(size) is not int or size < 1 for size in self.input_shape):
            raise SpaceError(
                f"input_shape must be three positive integers (channels, height, width), got {self.input_shape}"
            )
        if not any(self.stages):
            raise SpaceError("an architecture needs at least one block, got none")

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in order."""
        return tuple(block for stage in self.stages for block in stage)

    @property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON: equal exactly for equal networks."""
        return _key(self)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form as a dictionary.

        Raises:
            SpaceError: A field of a block is no int, float, string, bool or tuple of those.
            PluginError: A block's class is not registered.
        """
        return {
            "format": FORMAT,
            "input_shape": list(self.input_shape),
            "stages": [[block_to_dict(block) for block in stage] for stage in self.stages],
        }

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no blanks."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read the JSON form back.

        Raises:
            SpaceError: Another format, an unknown key or a value of the wrong type, with its place.
            PluginError: A block type that is not registered.
        """
        if not isinstance(record, Mapping) or record.get("format") != FORMAT:
            found = record.get("format") if isinstance(record, Mapping) else type(record).__name__
            raise SpaceError(f"expected an architecture of format {FORMAT}, got format {found!r}")
        unknown = set(record) - {"format", "input_shape", "stages"}
        if unknown:
            raise SpaceError(f"an architecture has no key {sorted(unknown)[0]!r}")
        try:
            shape = tuple(record["input_shape"])
            stages = tuple(
                tuple(block_from_dict(block, f"stages[{k}][{j}]") for j, block in enumerate(stage))
                for k, stage in enumerate(record["stages"])
            )
        except (KeyError, TypeError) as error:
            raise SpaceError(f"an architecture needs input_shape and stages (lists): {error}") from error
        return cls(shape, stages)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read canonical or any other JSON of an architecture; raises SpaceError as `from_dict` does."""
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpaceError(f"an architecture must be JSON: {error}") from error
        return cls.from_dict(record)


@functools.lru_cache(maxsize=65536)
def _key(architecture: Architecture) -> str:
    return hashlib.sha256(architecture.to_json().encode()).hexdigest()[:16]


def block_to_dict(block: Block) -> dict[str, Any]:  # Any: JSON values
    """Return `{"type": registered name, field: value, ...}`."""
    record: dict[str, Any] = {"type": BLOCKS.name_of(type(block))}
    for name in _fields(type(block)):
        record[name] = _plain(getattr(block, name), f"{type(block).__name__}.{name}")
    return record


def block_from_dict(record: Mapping[str, Any], place: str = "block") -> Block:  # Any: JSON values
    """Read one block; fields with defaults may be left out, unknown fields and wrong types raise SpaceError."""
    if not isinstance(record, Mapping) or not isinstance(record.get("type"), str):
        raise SpaceError(f"{place} must be an object with a string `type`, got {record!r}")
    try:
        cls = BLOCKS.get(record["type"])
    except PluginError as error:
        raise PluginError(f"{place}: {error}") from None
    hints = _fields(cls)
    values: dict[str, Any] = {}
    for name, value in record.items():
        if name == "type":
            continue
        if name not in hints:
            raise SpaceError(f"{place} ({record['type']}) has no field {name!r}: {near_matches(name, hints)}")
        values[name] = _typed(value, hints[name], f"{place}.{name}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{place} ({record['type']}): {error}") from error


@functools.cache
def _fields(cls: type) -> dict[str, Any]:  # Any: type annotations
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _plain(value: object, place: str) -> object:
    if type(value) in (int, float, str, bool) or value is None:
        return value
    if isinstance(value, tuple):
        return [_plain(item, place) for item in value]
    raise SpaceError(f"{place} must be an int, float, string, bool or tuple of those, got {value!r}")


def _typed(value: object, hint: Any, place: str) -> object:  # Any: a type annotation
    """Return a JSON value as the type that `hint` names; raises SpaceError where it is another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _typed(value, option, place)
            except SpaceError:
                continue
    elif origin is tuple and isinstance(value, list | tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_typed(item, arguments[0], place) for item in value)
        if len(arguments) == len(value):
            return tuple(_typed(item, kind, place) for item, kind in zip(value, arguments, strict=True))
    elif origin is typing.Literal:
        if any(value == option and type(value) is type(option) for option in arguments):
            return value
    elif hint is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    elif type(value) is hint or (value is None and hint is type(None)):
        return value
    raise SpaceError(f"{place} must be {getattr(hint, '__name__', hint)}, got {value!r}")
