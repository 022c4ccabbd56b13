"""What every plug-in owes: its fields are its options, fixed, comparable, and readable from a run file."""

import json
from typing import Any

from nas.config import describe, restore_plugin
from nas.testing.contract import ContractError, told
from search_spaces.registry import Registry


def check_options(plugin: object, registry: Registry[Any], protocol: type) -> None:  # Any: protocols of every kind
    """Raise ContractError unless a plug-in is a registered, frozen, hashable value that a run file can hold.

    Args:
        plugin: What is checked.
        registry: Where it must be registered.
        protocol: Of its kind, such as `Stage`.
    """
    cls = type(plugin)
    place = f"{cls.__module__}.{cls.__qualname__}"
    with told(f"{place} is not registered"):
        registry.name_of(cls)
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # registered classes are dataclasses
        raise ContractError(f"{place} can be changed after it was made: write @dataclass(frozen=True)")
    with told(f"{place} cannot be hashed: give it fields of hashable values, such as tuples for lists"):
        hash(plugin)
    with told(f"the fields of {place} are no JSON values"):
        text = json.dumps(describe(plugin), allow_nan=False)
    with told("a run file cannot say it", text):
        again = restore_plugin(protocol, json.loads(text))
    if again != plugin or hash(again) != hash(plugin):
        raise ContractError(f"its described form is read as another value: {again!r}", text)
