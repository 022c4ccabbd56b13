"""Commands about one network or file: train, compress, export, verify, predict, measure."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.runs import ConfigFile, Plugins, RunDir, run_folder

ArchitectureArgument = Annotated[
    str, typer.Argument(help="A key of the run directory, or a JSON file of an architecture.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (train, compress, export, verify, predict, measure):
        app.command()(command)


def train(
    config: ConfigFile, architecture: ArchitectureArgument, run_dir: RunDir = None, plugin: Plugins = None
) -> None:
    """Train one network to the end, as a run trains its finalists."""
    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.parts import train_one

    folder = run_folder(config, run_dir)
    with bars() as progress:
        track = train_one(load_config(config, plugins=tuple(plugin or ())), folder, architecture, progress=progress)
    _print_figures(track.name, track.figures)
    print(track.current)


def compress(
    config: ConfigFile, architecture: ArchitectureArgument, run_dir: RunDir = None, plugin: Plugins = None
) -> None:
    """Train one network and put it through the stages, each with its gate."""
    from nas.cli.progress import bars
    from nas.config import load_config
    from nas.pipeline.parts import compress_one

    folder = run_folder(config, run_dir)
    with bars() as progress:
        track = compress_one(load_config(config, plugins=tuple(plugin or ())), folder, architecture, progress=progress)
    for record in track.stages:
        print(f"{record.stage}: {record.verdict}: {record.reason}")
    _print_figures(track.name, track.figures)
    print(track.file)


def export(
    config: ConfigFile, candidate: Annotated[Path, typer.Argument(help="Folder of a candidate.")],
    out: Annotated[Path, typer.Option("--out", help="Where the files go.")],
    run_dir: RunDir = None, plugin: Plugins = None,
) -> None:  # fmt: skip
    """Export a candidate of a run once more, with the options of the run file."""
    from nas.config import load_config
    from nas.pipeline.parts import export_one

    exported = export_one(load_config(config, plugins=tuple(plugin or ())), run_folder(config, run_dir), candidate, out)
    for file in exported.files:
        print(f"{file.path}: {file.num_bytes} bytes, {file.parity.reason}")


def verify(folder: Annotated[Path, typer.Argument(help="A folder of exported files.")]) -> None:
    """Check a folder of exported files: hashes, metadata, and that the files run."""
    from nas.export import require_verified
    from nas.export import verify as verify_folder

    checks = verify_folder(folder)
    for check in checks:
        print(f"{'ok' if check.passed else 'FAILED'}  {check.file}: {check.reason}")
    require_verified(checks)


def predict(
    config: ConfigFile,
    architectures: Annotated[list[Path], typer.Argument(help="JSON files of architectures.")],
    run_dir: RunDir = None,
    plugin: Plugins = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict latency, memory and size of networks on the run's device, in the precision that ships."""
    import json as encoder

    from nas.config import load_config
    from nas.pipeline.parts import predict_costs

    costs = predict_costs(load_config(config, plugins=tuple(plugin or ())), run_folder(config, run_dir), architectures)
    if json:
        print(encoder.dumps({name: {k: m.to_dict() for k, m in found.items()} for name, found in costs.items()}))
        return
    for name, found in costs.items():
        _print_figures(name, found)


def measure(
    files: Annotated[list[Path], typer.Argument(help="ONNX files.")],
    threads: Annotated[int, typer.Option("--threads", help="Threads of one inference.")] = 1,
    sustained: Annotated[
        float, typer.Option("--sustained", help="Seconds to run each file without a pause besides.")
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time model files on this machine, interleaved, and print latency with its spread."""
    import json as encoder

    from latency_models.backends.local import Local
    from search_spaces.errors import DataError

    for file in files:
        if not file.is_file():
            raise DataError(f"there is no file {file}")
    backend = Local(threads=threads)
    timings = backend.measure(files, files[0])
    rows = []
    for file, timing in zip(files, timings, strict=True):
        wall = backend.distribution(file)
        percentiles = {percent: wall.percentile_ms(percent) for percent in (50, 95, 99)}
        long = backend.sustained(file, seconds=sustained).sentence() if sustained > 0 else ""
        rows.append((file, timing.measurement(source=timing.clock), percentiles, long))
    if json:
        told = [
            {"file": str(file), "latency_ms": latency.to_dict(), "wall_ms": wall_ms, "sustained": long}
            for file, latency, wall_ms, long in rows
        ]
        print(encoder.dumps(told))
        return
    for file, latency, wall_ms, long in rows:
        tail = ", ".join(f"p{percent} {value:.4g}" for percent, value in wall_ms.items())
        print(f"{file}: {latency}; wall clock {tail} ms" + (f"; {long}" if long else ""))


def _print_figures(name: str, figures: object) -> None:
    from collections.abc import Mapping

    assert isinstance(figures, Mapping)
    print(name)
    for key, figure in figures.items():
        print(f"  {key:20} {figure}")
