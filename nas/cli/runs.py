"""Commands about whole runs: init, check, run, search, report."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="The run file (TOML).", show_default=False)]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lives; by default runs/NAME beside the run file.")
]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="A Python file with plug-ins, imported first; may be repeated.")
]


def run_folder(config: Path, run_dir: Path | None) -> Path:
    """Return the run directory that a command means."""
    return run_dir if run_dir is not None else config.resolve().parent / "runs" / config.stem


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (init, check, run, search, report):
        app.command()(command)


def init(
    folder: Annotated[Path, typer.Argument(help="Images: a folder with one folder per class, or an .npz file.")],
    out: Annotated[Path, typer.Option("--out", help="The run file to write.")] = Path("run.toml"),
    device: Annotated[
        str, typer.Option("--device", help="A shipped device to start from; see `nas device list`.")
    ] = "",
) -> None:
    """Write a commented run file for a folder of images."""
    from nas.pipeline.starting import starting_config
    from nas.run import write_atomic
    from search_spaces.errors import ConfigError

    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out or remove it")
    write_atomic(out, starting_config(folder, device=device, out=out))
    print(f"{out} written; try `nas check {out}`, then `nas run {out}`")


def check(
    config: Annotated[
        Path | None, typer.Argument(help="The run file (TOML); or say --space.", show_default=False)
    ] = None,
    run_dir: RunDir = None,
    plugin: Plugins = None,
    space: Annotated[str, typer.Option("--space", help="Name of a search space to put through its contract.")] = "",
) -> None:
    """Say what a run would do (classes, splits, feasible share, hours) and train nothing; or check a search space."""
    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.checking import check_run

    if (config is None) == (space == ""):
        raise typer.BadParameter("name a run file or --space NAME, one of both")
    if config is None:
        _check_space(space, plugin or [])
        return
    with bars() as progress:
        report = check_run(
            load_config(config, plugins=tuple(plugin or ())), run_folder(config, run_dir), progress=progress
        )
    print(report)


def _check_space(name: str, plugins: list[str]) -> None:
    """Print what the conformance kit finds; raise PluginError where the space breaks its contract."""
    from nas.testing import check_space
    from search_spaces.errors import PluginError
    from search_spaces.registry import load_plugin_file
    from search_spaces.space import SEARCH_SPACES

    for file in plugins:
        load_plugin_file(file)
    found = check_space(SEARCH_SPACES.get(name)(), name=name)
    print(found)
    if found.failed:
        raise PluginError(f"the space {name!r} breaks its contract: {found.failed}")


def run(
    config: ConfigFile,
    run_dir: RunDir = None,
    plugin: Plugins = None,
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> None:
    """Do everything: measure the device, search, train, compress, export, report. Given again, it goes on."""
    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.main import run as run_all

    folder = run_folder(config, run_dir)
    with bars() as progress:
        results = run_all(load_config(config, plugins=tuple(plugin or ())), folder, progress=progress)
    _print_results(results, folder, json=json)


def search(config: ConfigFile, run_dir: RunDir = None, plugin: Plugins = None) -> None:
    """Search only, and print the front; `nas run` with the same run directory goes on from it."""
    from rich.console import Console
    from rich.table import Table

    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.parts import search_only

    with bars() as progress:
        result = search_only(
            load_config(config, plugins=tuple(plugin or ())), run_folder(config, run_dir), progress=progress
        )
    table = Table(
        "architecture", "metric (measured)", "latency (predicted)", "ships in", "parameters", "MACs (counted)"
    )
    for entry in result.front():
        latency_ms = entry.figures.get("latency_ms")
        table.add_row(
            entry.key,
            f"{entry.metric.value:.4f}",
            "-" if latency_ms is None else f"{latency_ms:.4g} ms",
            entry.precision,
            f"{entry.figures['parameters']:,.0f}",
            f"{entry.figures['macs']:,.0f}",
        )
    Console().print(table)


def report(
    folder: Annotated[Path, typer.Argument(help="The run directory.")],
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> None:
    """Write a finished run's report again and print its table."""
    from nas.report import write_report
    from nas.results import RunResults

    results = RunResults.load(folder / "results.json")
    write_report(results, folder / "report")
    _print_results(results, folder, json=json)


def _print_results(results: object, folder: Path, *, json: bool) -> None:
    from rich.console import Console

    from nas.report import summary_table
    from nas.results import RunResults

    assert isinstance(results, RunResults)
    if json:
        print((folder / "results.json").read_text())
        return
    console = Console()
    console.print(summary_table(results))
    console.print(results.verdict)
    if results.control is not None:
        console.print(
            f"hypervolume of the front: {results.search.hypervolume:.4g} ({results.search.sampler}) against "
            f"{results.control.hypervolume:.4g} ({results.control.sampler}, equal number)"
        )
    for fit in results.fits:
        console.print(
            f"{fit.precision} latency model: {fit.within_5:.0%} within 5 %, {fit.within_10:.0%} within 10 %, "
            f"MAPE {100 * fit.mape:.1f} % on {fit.networks} networks left out ({fit.origin})"
        )
    for warning in results.warnings:
        console.print(f"warning: {warning}")
    console.print(f"files: {(folder / results.contender(results.winner).shipped.file).parent}")
    console.print(f"report: {folder / 'report' / 'index.html'}")
