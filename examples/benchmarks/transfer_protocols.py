"""The measured protocols: device pools, HELP's own split, one device alone, search within a budget.

Every function returns plain dictionaries of numbers, one per fit, so that the caller can store and average them.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from scipy.stats import t as student_t
from transfer_pools import POOLS
from transfer_tables import Space, load_space

from latency_models.prediction import Array
from latency_models.transfer.budget_search import best_within_budget, best_without_timing
from latency_models.transfer.few_shot import Features, FewShotFit, fit_device, forecast, take
from latency_models.transfer.forecast import Forecast
from latency_models.transfer.operators import BoolArray, IntArray
from latency_models.transfer.source_models import SourceModels, SourceTable, fit_sources, source_shapes

Row = dict[str, float | int | str]

_INTERVAL_TEST = 2000
_TIMED_PREDICTIONS = 5000


def run_pool(data: Path, name: str, seeds: range, num_samples: int, *, use_sources: bool = True) -> list[Row]:
    """Random samples on each target; Spearman over all other measured networks, intervals over 2,000 of them."""
    pool = POOLS[name]
    space = load_space(data, pool.space)
    rows: list[Row] = []
    for seed in seeds:
        start = time.process_time()
        sources = _pool_sources(space, pool.sources, seed) if use_sources else None
        source_seconds = time.process_time() - start
        for device in (d for d in pool.targets if d in space.latency_ms):
            order = np.random.default_rng(1000 + seed).permutation(space.measured(device))
            row = _fit_and_score(space, device, order[:num_samples], order[num_samples:], sources)
            rows.append(
                {"pool": name, "device": device, "seed": seed, "n": num_samples, "source_s": source_seconds, **row}
            )
    return rows


def run_help(data: Path, name: str, seeds: range, num_samples: int) -> list[Row]:
    """HELP's loader: sources on the first 900, targets and test set without the fastest and slowest tenth."""
    pool = POOLS[name]
    space = load_space(data, pool.space)
    size = {"nb201": 900, "fbnet": 4000}[pool.space]
    index = np.arange(900)
    tables = [
        SourceTable(name=d, index=index, latency_ms=space.latency_ms[d][index])
        for d in pool.sources
        if d in space.latency_ms
    ]
    sources = fit_sources(space.features.views, space.features.context, tables)
    rows: list[Row] = []
    for device in pool.targets:
        latency = space.latency_ms[device]
        train = _trimmed(np.arange(size), latency)
        test = _trimmed(np.arange(size, size + 1000), latency)
        for seed in seeds:
            samples = np.random.default_rng(seed).permutation(train)[:num_samples]
            model = fit_device(_inputs(space, samples, sources), latency[samples])
            mean = forecast(model, _inputs(space, test, sources)).mean_ms
            rows.append(
                {"pool": name, "device": device, "seed": seed, "n": num_samples, "spearman": _rank(mean, latency[test])}
            )
    return rows


def run_alone(data: Path, device: str, seeds: range, num_samples: int) -> list[Row]:
    """One NAS-Bench-201 device without any other device: relative errors on all other measured networks."""
    space = load_space(data, "nb201")
    rows: list[Row] = []
    for seed in seeds:
        order = np.random.default_rng(1000 + seed).permutation(space.measured(device))
        row = _fit_and_score(space, device, order[:num_samples], order[num_samples:], None)
        rows.append({"device": device, "seed": seed, "n": num_samples, **row})
    return rows


def run_budget(data: Path, device: str, seeds: range, *, first: int = 20, extra: int = 10) -> list[Row]:
    """Search of NAS-Bench-201 for CIFAR-100 under three budgets; no other device is used.

    Cells without a path from input to output are no candidates. The score is the 12-epoch validation accuracy.
    """
    space = load_space(data, "nb201")
    stored = np.load(data / "nb201_accuracy.npz")
    column = [str(c) for c in stored["acc_12ep_columns"]].index("cifar100-val")
    alive = np.flatnonzero(_connected(np.load(data / "nb201_latency.npz")["ops"]))
    score = stored["acc_12ep"][alive, column].astype(np.float64)
    final = stored["test_200ep"][alive, 1].astype(np.float64)
    latency, features = space.latency_ms[device][alive], take(space.features, alive)
    rows: list[Row] = []
    for share in (0.10, 0.25, 0.50):
        budget = float(np.quantile(latency, share))
        within = latency <= budget
        oracle, oracle_final = float(score[within].max()), float(final[within].max())
        for seed in seeds:
            start = np.random.default_rng(seed).choice(len(alive), first, replace=False)
            result = best_within_budget(
                features, score, lambda i: float(latency[i]), first=start, budget_ms=budget, extra=extra
            )
            best = result.best
            met = best is not None and bool(within[best])
            untimed = best_without_timing(features, score, latency[start], first=start, budget_ms=budget)
            rows.append({
                "device": device, "share": share, "budget_ms": budget, "seed": seed, "timed": len(result.timed),
                "met": int(met), "regret": oracle - float(score[best]) if met else float("nan"),
                "test_200ep": float(final[best]) if met else float("nan"), "oracle_test_200ep": oracle_final,
                "met_untimed": int(within[untimed]), "regret_untimed": oracle - float(score[untimed]),
            })  # fmt: skip
    return rows


def _fit_and_score(space: Space, device: str, samples: IntArray, test: IntArray, sources: SourceModels | None) -> Row:
    """One fit: rank correlation, relative errors, intervals against constant-width ones, CPU seconds."""
    latency = space.latency_ms[device]
    timed = np.resize(test, _TIMED_PREDICTIONS)
    start = time.process_time()
    model = fit_device(_inputs(space, samples, sources), latency[samples])
    forecast(model, _inputs(space, timed, sources))
    seconds = time.process_time() - start
    prediction = forecast(model, _inputs(space, test, sources))
    mean, truth = prediction.mean_ms, latency[test]
    error = np.abs(mean - truth) / truth
    return {
        "spearman": _rank(mean, truth),
        "within10": float((error <= 0.1).mean()),
        "median_error": float(np.median(error)),
        "fit_predict_s": seconds,
        **_interval_scores(model, prediction, truth),
    }


def _inputs(space: Space, index: IntArray, sources: SourceModels | None) -> Features:
    """Return the inputs of some networks, with what the source models say about them."""
    inputs = take(space.features, index)
    if sources is None:
        return inputs
    return replace(inputs, sources=source_shapes(sources, inputs.views, inputs.context))


def _interval_scores(model: FewShotFit, prediction: Forecast, truth: Array) -> Row:
    """Coverage, median width and mean interval score (both as shares of the median latency) of three 90 % intervals.

    The references have one width for all networks, from the same leave-one-out errors in milliseconds: their
    jackknife quantile (`jack_`) or their root mean square as if normal (`rms_`).
    """
    shown = slice(0, _INTERVAL_TEST)
    errors = np.abs(model.left_out_ms)
    n = len(errors)
    quantile = float(np.sort(errors)[min(n - 1, int(np.ceil(0.9 * (n + 1))) - 1)])
    normal = float(student_t.ppf(0.95, n - 1)) * float(np.sqrt((errors**2).mean() * (1.0 + 1.0 / n)))
    mean, truth = prediction.mean_ms[shown], truth[shown]
    scores: Row = {}
    for name, low, high in (
        ("", prediction.quantile_ms(0.05)[shown], prediction.quantile_ms(0.95)[shown]),
        ("jack_", mean - quantile, mean + quantile),
        ("rms_", mean - normal, mean + normal),
    ):
        missed = np.maximum(low - truth, 0.0) + np.maximum(truth - high, 0.0)
        typical = float(np.median(truth))
        scores[f"{name}coverage"] = float((missed == 0.0).mean())
        scores[f"{name}width"] = float(np.median(high - low)) / typical
        scores[f"{name}score"] = float((high - low + 20.0 * missed).mean()) / typical
        scores[f"{name}infinite"] = int(not np.isfinite(high - low).all())
    return scores


def _pool_sources(space: Space, names: tuple[str, ...], seed: int) -> SourceModels:
    """As in NASFLAT: the same 512 (NAS-Bench-201) or 800 networks on every source; subset devices among the subset."""
    rng = np.random.default_rng(7 + seed)
    present = [d for d in names if d in space.latency_ms]
    full = [len(space.measured(d)) == len(space.features) for d in present]
    tables: list[SourceTable] = []
    for complete in (True, False):
        group = [d for d, f in zip(present, full, strict=True) if f == complete]
        if not group:
            continue
        common = space.measured(group[0])
        for device in group[1:]:
            common = np.intersect1d(common, space.measured(device))
        index = rng.choice(common, min(space.sources_measured, len(common)), replace=False)
        tables += [SourceTable(name=d, index=index, latency_ms=space.latency_ms[d][index]) for d in group]
    return fit_sources(space.features.views, space.features.context, tables)


def _trimmed(index: IntArray, latency: Array) -> IntArray:
    """Rows without the fastest and slowest tenth."""
    ordered = index[np.argsort(latency[index], kind="stable")]
    return ordered[int(0.1 * len(ordered)) : int(0.9 * len(ordered))]


def _connected(ops: IntArray) -> BoolArray:
    """Cells with a path from input to output."""
    on = ops != 0
    connected: BoolArray = on[:, 3] | (on[:, 0] & on[:, 4]) | (on[:, 1] & on[:, 5]) | (on[:, 0] & on[:, 2] & on[:, 5])
    return connected


def _rank(predicted: Array, truth: Array) -> float:
    return float(spearmanr(predicted, truth).statistic)
