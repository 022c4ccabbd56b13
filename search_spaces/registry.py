"""Registries: how blocks, spaces, devices, latency models, stages and every other plug-in are found by name.

A plug-in is a dataclass with a decorator on it:

    @SEARCH_SPACES.register("my_space")
    @dataclass(frozen=True)
    class MySpace: ...

The built-in modules of a registry, and the entry points of installed packages, are imported at the first look-up.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from search_spaces.errors import PluginError, near_matches

T = TypeVar("T")
C = TypeVar("C")


class Registry(Generic[T]):
    """Names of one kind of plug-in.

    Args:
        kind: The field's word for one member, such as "block" or "search space"; used in messages.
        group: Entry-point group of installed plug-ins.
        builtin: Modules that register the built-in members, imported at the first look-up.
    """

    def __init__(self, kind: str, *, group: str, builtin: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.group = group
        self._builtin = builtin
        self._loaded = False
        self._members: dict[str, type[T]] = {}
        self._names: dict[type, str] = {}

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Return a decorator that registers a frozen dataclass under `name`.

        Raises:
            PluginError: The class is no dataclass, or another class holds the name.
        """

        def decorate(cls: type[C]) -> type[C]:
            if not is_dataclass(cls):
                raise PluginError(
                    f"{self.kind} {name!r} must be a dataclass, got {cls.__module__}.{cls.__qualname__}: "
                    "put @dataclass(frozen=True) below the register decorator"
                )
            taken = self._members.get(name)
            if taken is not None and _place(taken) != _place(cls):
                raise PluginError(
                    f"two plug-ins want to be the {self.kind} {name!r}: {_place(taken)} has the name, "
                    f"{_place(cls)} asks for it; rename one of them"
                )
            # Read by pydantic when a run file is parsed; without it unknown keys would be dropped in silence.
            cls.__pydantic_config__ = {"extra": "forbid", "strict": True}  # type: ignore[attr-defined]
            self._members[name] = cls  # type: ignore[assignment]
            self._names[cls] = name
            return cls

        return decorate

    def get(self, name: str) -> type[T]:
        """Return the class registered under `name`; raises PluginError with near matches."""
        self.load()
        try:
            return self._members[name]
        except KeyError:
            raise PluginError(f"unknown {self.kind} {name!r}: {near_matches(name, self._members)}") from None

    def name_of(self, cls: type) -> str:
        """Return the name `cls` is registered under; raises PluginError when it is not."""
        if cls not in self._names:
            self.load()
        try:
            return self._names[cls]
        except KeyError:
            raise PluginError(f"{_place(cls)} is no registered {self.kind}: put @register(name) on the class") from None

    def names(self) -> tuple[str, ...]:
        """Return every registered name, sorted."""
        self.load()
        return tuple(sorted(self._members))

    def items(self) -> Iterator[tuple[str, type[T]]]:
        """Yield (name, class) in the order of names."""
        for name in self.names():
            yield name, self._members[name]

    def load(self) -> None:
        """Import the built-in modules and the entry points, once."""
        if self._loaded:
            return
        self._loaded = True
        for module in self._builtin:
            importlib.import_module(module)
        for entry in entry_points(group=self.group):
            try:
                entry.load()
            except Exception as error:
                raise PluginError(
                    f"the plug-in {entry.name!r} ({entry.value}) of group {self.group} does not load: {error}"
                ) from error


def load_plugin_file(path: str) -> None:
    """Import a Python file that registers plug-ins, as `--plugin FILE` does.

    The module keeps the file's stem as its name, so that worker processes and error messages find it again.

    Raises:
        PluginError: The file is missing, shadows an imported module, or fails while it is imported.
    """
    import importlib.util
    from pathlib import Path

    file = Path(path).resolve()
    if not file.is_file():
        raise PluginError(f"plug-in file {path!r} does not exist")
    known = sys.modules.get(file.stem)
    if known is not None:
        if getattr(known, "__file__", None) == str(file):
            return
        raise PluginError(f"plug-in file {path!r} would hide the module {file.stem!r}; rename the file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plug-in file {path!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except PluginError:
        del sys.modules[file.stem]
        raise
    except Exception as error:
        del sys.modules[file.stem]
        raise PluginError(f"plug-in file {path!r} does not load: {type(error).__name__}: {error}") from error


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
