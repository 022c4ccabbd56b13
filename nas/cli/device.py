"""Commands about devices: add, list, show, probe, fit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.runs import ConfigFile, Plugins, RunDir, run_folder

if TYPE_CHECKING:
    from latency_models.profile import Profile

LEAST = 10
"""`latency_models.probe.LEAST`, without its imports: help must be quick."""

app = typer.Typer(help="Measure devices, and see what is known about them.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the device; a run file then says base = NAME.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="A run file: its device, space and files are what is probed.")
    ] = None,
    ssh: Annotated[str, typer.Option("--ssh", help="user@address of a board.")] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of its sshd.")] = 0,
    identity: Annotated[str, typer.Option("--identity", help="Private key.")] = "",
    known_hosts: Annotated[str, typer.Option("--known-hosts", help="File of known host keys.")] = "",
    accept_new_key: Annotated[
        bool, typer.Option("--accept-new-key", help="Note the board's host key if it is not known.")
    ] = False,
    python: Annotated[
        str, typer.Option("--python", help="Interpreter on the board; by default a virtual environment is made.")
    ] = "",
    wheels: Annotated[
        Path | None, typer.Option("--wheels", help="Folder of wheels to push, for a board that is offline.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--table", help="The folder that `nas device probe` wrote, or the filled-in table.csv in it."),
    ] = None,
    command: Annotated[
        str, typer.Option("--command", help="A program that prints milliseconds; {file} is the model file.")
    ] = "",
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern",
            help="Regular expression whose group is the latency, such as 'took ([0-9.]+) ms'; the last number on "
            "the last line that is not blank if not given.",
        ),
    ] = "",
    unit: Annotated[str, typer.Option("--unit", help="Of what the program prints: ms, us, ns or s.")] = "ms",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of one inference; 1 if not given.")
    ] = None,
    networks: Annotated[
        int | None,
        typer.Option("--networks", min=LEAST, help=f"Networks to time, {LEAST} at least; 100 if not given."),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option("--blocks", min=0, help="Single blocks to time, for --model lookup; 0 if not given.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Latency model, see `nas list latency-models`; additive if not given."),
    ] = None,
    more: Annotated[
        int, typer.Option("--more", min=0, help="Time so many of the suggested networks too; not with --table.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: Plugins = None,
) -> None:
    """Find out about a device, measure it or import its table, fit, and say how good the model is."""
    from latency_models.profile import default_folder
    from nas.cli.progress import bars
    from nas.pipeline.adding import Named, add_named

    asked = Named(
        name=name, config=config, ssh=ssh, port=port, identity=identity, known_hosts=known_hosts,
        accept_new_key=accept_new_key, python=python, wheels=wheels, table=table, command=command, pattern=pattern,
        unit=unit, threads=threads, networks=networks, blocks=blocks, model=model, plugins=tuple(plugin or ()),
    )  # fmt: skip
    with bars() as progress:
        added = add_named(asked, store=default_folder(), more=more, progress=progress)
    print(added.to_json() if json else added.text())


@app.command("list")
def list_devices(plugin: Plugins = None) -> None:
    """List shipped devices and measured profiles."""
    from rich.console import Console
    from rich.table import Table

    from latency_models.profile import Profile, default_folder
    from search_spaces.errors import DeviceError, PluginError
    from search_spaces.registry import load_plugin_file

    for path in plugin or ():
        load_plugin_file(path)
    shipped = sorted((Path(__file__).parents[2] / "latency_models" / "devices").glob("*.toml"))
    table = Table("name", "kind", "networks", "what it is", "file")
    for file in shipped:
        table.add_row(file.stem, "shipped", "-", file.read_text().splitlines()[0].removeprefix("# "), file.name)
    for file in sorted(default_folder().glob("*.json")):
        try:
            profile = Profile.load(file)
        except (DeviceError, PluginError) as error:
            kind = "needs a plug-in" if isinstance(error, PluginError) else "damaged"
            table.add_row(_device_name(file), kind, "-", str(error), file.name)
            continue
        facts = ", ".join(
            f"{value}" for key, value in profile.fingerprint.items() if key in ("cpu", "runtime", "threads")
        )
        table.add_row(profile.device, "measured", str(len(profile.networks)), facts, file.name)
    Console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a measured device, or the file of its profile.")],
    plugin: Plugins = None,
) -> None:
    """Show what was measured on a device and how well the default model predicts it."""
    from latency_models.profile import Profile, default_folder
    from search_spaces.errors import DeviceError, NasError, PluginError, near_matches
    from search_spaces.registry import load_plugin_file

    for path in plugin or ():
        load_plugin_file(path)
    files = [path for path in sorted(default_folder().glob("*.json")) if name in (path.name, _device_name(path))]
    if not files and Path(name).is_file():
        files = [Path(name)]
    if not files:
        known = {_device_name(path) for path in default_folder().glob("*.json")}
        raise DeviceError(f"no measured device is called {name!r}: {near_matches(name, known)}")
    profiles: dict[Path, Profile] = {}
    failed: dict[Path, NasError] = {}
    for file in files:
        try:
            profiles[file] = Profile.load(file)
        except (DeviceError, PluginError) as error:
            failed[file] = error
    if not profiles:
        raise next(iter(failed.values()))
    for file, profile in profiles.items():
        _print_profile(file, profile)
    for refusal in failed.values():
        print(f"not shown: {refusal}")


def _print_profile(file: Path, profile: "Profile") -> None:
    print(f"{file.name}: {len(profile.networks)} timed files, {profile.seconds:.1f} s of measuring")
    if profile.refused:
        print(f"  {profile.refusals()}")
    facts = (*profile.fingerprint.items(), *(("protocol " + key, value) for key, value in profile.protocol.items()))
    for key, value in facts:
        print(f"  {key}: {value}")
    for precision, known in profile.accuracy.items():
        print(
            f"  {precision}: {known['model']}, {known['within_10']['value']:.0%} within 10 %, MAPE "
            f"{known['mape']['value']:.1%}, {known['networks']} networks left out of the fit"
        )


@app.command()
def probe(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files to time and the table to fill in.")],
    config: Annotated[
        Path | None, typer.Argument(help="The run file (TOML); without one the default space is probed.")
    ] = None,
    networks: Annotated[
        int | None,
        typer.Option(
            "--networks",
            min=LEAST,
            help=f"Networks to time, where there is no run file, {LEAST} at least; 100 if not given.",
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", help="Newest ONNX opset of the board's runtime, without a run file; 18 if not given."),
    ] = None,
    ir_version: Annotated[
        int | None,
        typer.Option("--ir-version", help="Newest ONNX IR version it opens, without a run file; 8 if not given."),
    ] = None,
    run_dir: RunDir = None,
    plugin: Plugins = None,
) -> None:
    """Write the probe files and an empty table, for a device that only people can carry files to."""
    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.adding import write_default_probes
    from nas.pipeline.parts import write_probe_set
    from search_spaces.errors import ConfigError

    flags = {"networks": networks, "opset": opset, "ir_version": ir_version}
    given = {name: value for name, value in flags.items() if value is not None}
    if config is not None and given:
        raise ConfigError(
            f"--{next(iter(given)).replace('_', '-')} is given beside a run file: networks stand there as [probe], "
            "opset and ir_version as [device]; write it there and leave the flag out"
        )
    with bars() as progress:
        if config is None:
            count = write_default_probes(out, **given, progress=progress)
        else:
            loaded = load_config(config, plugins=tuple(plugin or ()))
            count = write_probe_set(loaded, run_folder(config, run_dir), out, progress=progress)
    print(
        f"{count} files, table.csv and timing_script.py written to {out}\n"
        "on the board: python3 timing_script.py fill .      (or fill in latency_ms with any tool)\n"
        f"back here:    nas device add NAME --table {out / 'table.csv'}"
    )


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
    if not fitted.device.is_timed:
        print(f"{fitted.device.name}: no timing; MACs are counted instead")
        return
    source = "measured now" if fitted.measured_now else "read from its profile"
    print(f"{fitted.device.name}: {source}, {fitted.profile.seconds:.1f} s of measuring")
    if fitted.profile.refused:
        print(f"  {fitted.profile.refusals()}")
    for found in fits:
        print(
            f"  {found.precision}: {found.within_5:.0%} within 5 %, {found.within_10:.0%} within 10 %, MAPE "
            f"{100 * found.mape:.1f} % on {found.networks} networks left out of the fit ({found.origin})"
        )


def _device_name(profile: Path) -> str:
    """Return the name in NAME.FINGERPRINT.PROBES.json; a name may hold dots."""
    return profile.name.rsplit(".", 3)[0]
