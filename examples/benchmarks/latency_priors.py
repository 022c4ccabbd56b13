"""Do the shipped priors help on a device of one's own? Measured on a profile that never served to fit them.

    python examples/benchmarks/latency_priors.py --profile DEVICE.json --json FILE
    python examples/benchmarks/latency_priors.py --build --data DIR

The first takes a device's profile (`nas device add`; by default from the folder of profiles) and compares, for each
precision in it: with no measurement, rank correlations of MACs, of the default roofline and of the mean of the priors;
with 10 and 20 measurements, the model "transfer" with and without priors and the other models, on 10 random choices of
the measured networks. About 5 minutes. The second makes the priors anew from the public tables: 80 networks of each
space, drawn with seed 0, lowered by the registered spaces.

Result on this project's x86 machine, in `latency_priors.json`: priors change the share within 10 % by less than a tenth
of its spread over the choices, so they are off by default; their mean ranks float32 networks worse than MACs do (0.918
against 0.944). What helps are the imaginary devices: 10 measurements give 87 % within 10 % in float32 and 53 % in int8,
where the additive model gets 30 % and 32 %, and the roofline alone ranks with 0.987 and 0.910 (MACs 0.944 and 0.827).
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import scipy  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from latency_models.additive import Additive  # noqa: E402
from latency_models.backends.table import Table  # noqa: E402
from latency_models.device import Device  # noqa: E402
from latency_models.prediction import LatencyModel, Sample  # noqa: E402
from latency_models.profile import Profile, default_folder  # noqa: E402
from latency_models.ridge_compact import RidgeCompact  # noqa: E402
from latency_models.roofline import Roofline  # noqa: E402
from latency_models.score import score  # noqa: E402
from latency_models.transfer.model import Transfer  # noqa: E402
from latency_models.transfer.operators import IntArray  # noqa: E402
from latency_models.transfer.priors import FOLDER, PriorTable, prior_names  # noqa: E402
from latency_models.transfer.workloads import count_operators  # noqa: E402
from search_spaces.architecture import Architecture  # noqa: E402
from search_spaces.counts import macs  # noqa: E402
from search_spaces.fbnet import FBNetSpace  # noqa: E402
from search_spaces.lowering import lower  # noqa: E402
from search_spaces.nasbench201 import NasBench201Space  # noqa: E402
from search_spaces.ofa_mobilenet_v3 import OfaMobileNetV3Space, table_values  # noqa: E402
from search_spaces.precision import Precision  # noqa: E402
from search_spaces.space import decode  # noqa: E402

NETWORKS = 80
SOURCE = "HayeonLee/HELP (Lee et al. 2021, arXiv:2106.08630), commit 45f70eb92d0d"
CHOICES = range(10)
DEVICES = {
    "fbnet": ("1080ti_1", "eyeriss", "fpga", "gold_6226", "pixel3", "raspi4", "samsung_s7", "silver_4114"),
    "nasbench201": ("1080ti_1", "eyeriss", "fpga", "gold_6226", "pixel3", "raspi4", "samsung_s7", "silver_4114"),
    "ofa_mobilenet_v3": ("2080ti_1", "titan_rtx_1", "v100_1"),
}
Row = dict[str, float | int | str]


def main() -> int:
    """Build the priors, or compare models with and without them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, help="a device's profile; the first of the profile folder by default")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--build", action="store_true", help="make the priors anew from the public tables")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "latency")
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.data)
        return 0
    path = arguments.profile or next(iter(sorted(default_folder().glob("*.json"))), None)
    if path is None:
        parser.error(f"no profile in {default_folder()}: make one with `nas device add`, or name one with --profile")
    profile = Profile.load(path)
    tables = {precision: compare(profile, precision) for precision in ("float32", "int8")}
    for precision, rows in tables.items():
        print(f"\n{precision}")
        for row in rows:
            figures = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if isinstance(value, float))
            print(f"{row['model']:>18}  n={row['n']:<3} {figures}")
    if arguments.json:
        versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
        report = {"command": "python examples/benchmarks/latency_priors.py", "versions": versions, **tables}
        report["fingerprint"] = dict(profile.fingerprint)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def compare(profile: Profile, precision: Precision) -> list[Row]:
    """Return the figures of every model, first without any measurement."""
    device = Device(name=profile.device, backend=Table(path=""))
    samples = profile.samples(precision, device.plan)
    if len(samples) < 40:
        print(f"{len(samples)} {precision} networks in the profile: too few to compare models on", file=sys.stderr)
        return []
    workloads = [sample.workload for sample in samples]
    truth = np.array([sample.latency_ms for sample in samples])
    # A prior's model is that of a fit with it as the only source; what it says does not depend on the samples.
    fitted = Transfer(priors=prior_names()).fit(device, samples[:10])
    logs = [np.log(known.predict(workloads).mean_ms) for known in fitted.inputs.sources]
    guesses = {
        "MACs": np.array([float(macs(workload)) for workload in workloads]),
        "roofline": Roofline().fit(device).predict(workloads).mean_ms,
        "mean of priors": np.mean([log - np.median(log) for log in logs], axis=0),
    }
    rows: list[Row] = [
        {"model": name, "n": 0, "spearman": float(spearmanr(guess, truth).statistic)} for name, guess in guesses.items()
    ]
    models: dict[str, LatencyModel] = {
        "transfer": Transfer(),
        "transfer + priors": Transfer(priors=prior_names()),
        "additive": Additive(),
        "ridge_compact": RidgeCompact(),
        "roofline": Roofline(),
    }
    for count in (10, 20):
        rows += [
            {"model": name, "n": count, **_figures(model, device, samples, count)} for name, model in models.items()
        ]
    return rows


def _figures(model: LatencyModel, device: Device, samples: Sequence[Sample], count: int) -> Row:
    found = []
    for seed in CHOICES:
        order = np.random.default_rng(seed).permutation(len(samples))
        predictor = model.fit(device, [samples[number] for number in order[:count]])
        rest = [samples[number] for number in order[count:]]
        prediction = predictor.predict([sample.workload for sample in rest])
        found.append(score(prediction.mean_ms, np.array([sample.latency_ms for sample in rest]), prediction))
    within = np.array([known.within_10 for known in found])
    names = ("mape", "spearman", "coverage_90")
    means = {name: float(np.mean([getattr(known, name) for known in found])) for name in names}
    return {"w10": float(within.mean()), "w10_sd": float(within.std(ddof=1)), **means}


def build(data: Path) -> None:
    """Write one file for each public space."""
    fbnet, nb201 = np.load(data / "fbnet_latency.npz"), np.load(data / "nb201_latency.npz")
    ofa = np.load(data / "ofa_mbv3_latency.npz")
    fbnet_space, nb201_space = FBNetSpace(classes=100), NasBench201Space(classes=100)
    ofa_space = OfaMobileNetV3Space(width=1.2, classes=1000, resolutions=tuple(range(128, 225, 4)))
    # Cells without a path from input to output take microseconds on some devices and say nothing about operators.
    alive = np.flatnonzero(nb201["latency_ms"].min(axis=1) > 0.5)
    _write("fbnet", fbnet, np.arange(len(fbnet["op_idx"])), lambda i: decode(fbnet_space, _row(fbnet["op_idx"][i])))
    _write("nasbench201", nb201, alive, lambda i: decode(nb201_space, _row(nb201["ops"][i])))
    _write("ofa_mobilenet_v3", ofa, np.arange(len(ofa["depth"])), lambda i: _ofa(ofa_space, ofa, i))


def _write(
    name: str, table: Mapping[str, npt.NDArray[Any]], rows: IntArray, network: Callable[[int], Architecture]
) -> None:
    """Write the prior of a space: some of `rows`, made by `network`."""
    chosen = np.sort(np.random.default_rng(0).choice(rows, NETWORKS, replace=False))
    counts = count_operators([lower(network(int(index))) for index in chosen])
    position = {str(device): number for number, device in enumerate(table["devices"])}
    latency_ms = {device: table["latency_ms"][chosen, position[device]].astype(np.float64) for device in DEVICES[name]}
    prior = PriorTable(space=name, source=SOURCE, license="MIT", counts=counts, latency_ms=latency_ms)
    (FOLDER / f"{name}.json").write_text(prior.to_json())
    print(f"{name}: {len(counts.operators)} operators, {len(prior.to_json())} bytes")


def _row(numbers: npt.NDArray[Any]) -> IntArray:
    return np.asarray(numbers, dtype=np.int64)


def _ofa(space: OfaMobileNetV3Space, table: Mapping[str, npt.NDArray[Any]], index: int) -> Architecture:
    kernel, expansion, depth = (_row(table[key][index]).tolist() for key in ("kernel", "expand", "depth"))
    return space.decode(table_values(kernel, expansion, depth, int(table["resolution"][index])))


if __name__ == "__main__":
    raise SystemExit(main())
