"""Commands that say what there is: list, schema."""

from typing import Annotated

import typer

KINDS = ("blocks", "spaces", "latency-models", "backends", "tasks", "evaluators", "stages", "exporters")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(list_plugins)
    app.command()(schema)


def list_plugins(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    plugin: Annotated[list[str] | None, typer.Option("--plugin", help="A Python file with plug-ins.")] = None,
) -> None:
    """List plug-ins of a kind: name, what it is, fields with types and defaults, module."""
    import dataclasses

    from rich.console import Console
    from rich.table import Table

    from search_spaces.errors import ConfigError, near_matches
    from search_spaces.registry import load_plugin_file

    for file in plugin or ():
        load_plugin_file(file)
    registries = _registries()
    if kind not in registries:
        raise ConfigError(f"no kind of plug-in is called {kind!r}: {near_matches(kind, registries)}")
    table = Table("name", "what it is", "fields", "module", show_lines=True)
    for name, cls in registries[kind].items():  # type: ignore[attr-defined]  # a registry of some kind
        fields = [_field(item) for item in dataclasses.fields(cls) if item.init]
        first = (cls.__doc__ or "").strip().splitlines()
        table.add_row(name, first[0] if first else "", "\n".join(fields), cls.__module__)
    Console().print(table)


def schema() -> None:
    """Print the JSON Schema of the run file, for editors."""
    import json

    from nas.config import schema as run_schema

    print(json.dumps(run_schema(), indent=2))


def _registries() -> dict[str, object]:
    from latency_models.prediction import LATENCY_MODELS
    from latency_models.timing import BACKENDS
    from nas.data import TASKS
    from nas.protocols import EVALUATORS, EXPORTERS, STAGES
    from search_spaces.architecture import BLOCKS
    from search_spaces.space import SEARCH_SPACES

    found = (BLOCKS, SEARCH_SPACES, LATENCY_MODELS, BACKENDS, TASKS, EVALUATORS, STAGES, EXPORTERS)
    return dict(zip(KINDS, found, strict=True))


def _field(item: object) -> str:
    import dataclasses

    assert isinstance(item, dataclasses.Field)
    kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
    if item.default is not dataclasses.MISSING:
        return f"{item.name}: {kind} = {item.default!r}"
    if item.default_factory is not dataclasses.MISSING:
        return f"{item.name}: {kind} = {item.default_factory()!r}"
    return f"{item.name}: {kind} (required)"
