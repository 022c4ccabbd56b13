"""Commands about devices: list, show, probe, fit."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.runs import ConfigFile, Plugins, RunDir, run_folder

app = typer.Typer(help="Measure devices, and see what is known about them.", no_args_is_help=True)


@app.command("list")
def list_devices() -> None:
    """List shipped devices and measured profiles."""
    from rich.console import Console
    from rich.table import Table

    from latency_models.profile import Profile, default_folder

    shipped = sorted((Path(__file__).parents[2] / "latency_models" / "devices").glob("*.toml"))
    table = Table("name", "kind", "networks", "what it is", "file")
    for file in shipped:
        table.add_row(file.stem, "shipped", "-", file.read_text().splitlines()[0].removeprefix("# "), file.name)
    for file in sorted(default_folder().glob("*.json")):
        profile = Profile.from_json(file.read_text(), source=file.name)
        facts = ", ".join(
            f"{value}" for key, value in profile.fingerprint.items() if key in ("cpu", "runtime", "threads")
        )
        table.add_row(profile.device, "measured", str(len(profile.networks)), facts, file.name)
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a measured device, or the file of its profile.")]) -> None:
    """Show what was measured on a device and how well the default model predicts it."""
    from latency_models.profile import Profile, default_folder
    from search_spaces.errors import DeviceError, near_matches

    files = [path for path in sorted(default_folder().glob("*.json")) if name in (path.name, path.name.split(".")[0])]
    if not files:
        known = {path.name.split(".")[0] for path in default_folder().glob("*.json")}
        raise DeviceError(f"no measured device is called {name!r}: {near_matches(name, known)}")
    for file in files:
        profile = Profile.from_json(file.read_text(), source=file.name)
        print(f"{file.name}: {len(profile.networks)} timed files, {profile.seconds:.1f} s of measuring")
        for key, value in profile.fingerprint.items():
            print(f"  {key}: {value}")


@app.command()
def probe(
    config: ConfigFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for the files to time and the table to fill in.")],
    run_dir: RunDir = None,
    plugin: Plugins = None,
) -> None:
    """Write the probe files and an empty table, for a device that only people can carry files to."""
    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.parts import write_probe_set

    with bars() as progress:
        count = write_probe_set(
            load_config(config, plugins=tuple(plugin or ())), run_folder(config, run_dir), out, progress=progress
        )
    print(f'{count} files and table.csv written to {out}; fill in latency_ms and use backend = {{ type = "table" }}')


@app.command()
def fit(config: ConfigFile, run_dir: RunDir = None, plugin: Plugins = None) -> None:
    """Measure the run's device (or read its profile) and print how well its models predict."""
    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.parts import fit_device

    with bars() as progress:
        fitted, fits = fit_device(
            load_config(config, plugins=tuple(plugin or ())), run_folder(config, run_dir), progress=progress
        )
    source = "measured now" if fitted.measured_now else "read from its profile"
    print(f"{fitted.device.name}: {source}, {fitted.profile.seconds:.1f} s of measuring")
    for found in fits:
        print(
            f"  {found.precision}: {found.within_5:.0%} within 5 %, {found.within_10:.0%} within 10 %, MAPE "
            f"{100 * found.mape:.1f} % on {found.networks} networks left out of the fit ({found.origin})"
        )
