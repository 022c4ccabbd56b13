"""What a run would do, before anything trains: data, device, feasible share, expected hours."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from nas.config import RunConfig
from nas.pipeline.preparing import Prepared, prepare
from nas.protocols import Progress, quiet
from nas.task import Split
from nas.workers import default_workers
from search_spaces.build import build
from search_spaces.mcunet import MCUNetSpace, rank_subspaces
from search_spaces.precision import Precision, QuantizationPlan
from search_spaces.space import SearchSpace, decode, size

_STEPS = 3
_PAIRS = 3


def check_run(config: RunConfig, folder: Path, *, progress: Progress = quiet) -> str:
    """Return a text that says what the run would do; measures the device if that was never done.

    Raises:
        InfeasibleError: Nothing fits the budget.
        NasError: Whatever would end the run before its first training.
    """
    prepared = prepare(config, folder, progress=progress)
    task = prepared.state.task
    lines = [
        f"task {task.name}: {len(task.classes)} classes, metric {task.metric}, input {task.preprocessing.input_shape}"
    ]
    lines += [_counts(split, task.classes) for split in (task.train, task.validation)]
    lines += [f"  note: {note}" for note in task.notes]
    source = "measured now" if prepared.fitted.measured_now else "read from its profile"
    lines.append(f"device {config.device.name}: {source if config.device.is_timed else 'no timing; MACs are counted'}")
    for fit in prepared.fits:
        lines.append(
            f"  {fit.precision}: {fit.within_5:.0%} within 5 %, {fit.within_10:.0%} within 10 %, MAPE "
            f"{100 * fit.mape:.1f} % on {fit.networks} networks left out ({fit.origin})"
        )
    limits_given = prepared.costs.limits()
    limits = ", ".join(f"{name} {limit:g}" for name, limit in limits_given.items()) or "none"
    lines.append(f"budget: {limits}; ships in {config.budget.precision}")
    lines.append(
        f"space: {size(prepared.space):.3g} choice vectors, {prepared.survey.share:.2%} of {prepared.survey.drawn} "
        "random ones fit the budget"
    )
    precision: Precision = "int8" if "int8" in prepared.costs.precisions else "float32"
    lines += best_pairs(prepared.space, limits_given, precision, prepared.costs.plan(precision))
    lines.append(_hours(prepared))
    return "\n".join(lines)


def _counts(split: Split, classes: tuple[str, ...]) -> str:
    counts = np.bincount(split.labels, minlength=len(classes))
    shown = ", ".join(f"{name} {count}" for name, count in list(zip(classes, counts, strict=True))[:12])
    more = f", and {len(classes) - 12} more classes" if len(classes) > 12 else ""
    return f"  {split.name}: {len(split)} images ({shown}{more})"


def best_pairs(
    space: SearchSpace, limits: Mapping[str, float], precision: Precision, plan: QuantizationPlan | None
) -> list[str]:
    """Return lines with the pairs of resolution and width of `mcunet` whose fitting networks have the most MACs.

    Args:
        space: The run's; none but `mcunet` has such pairs, and other spaces get no line.
        limits: By name; without one on memory or weights there is nothing to rank by.
        precision: In which networks are priced.
        plan: How they are quantized; None for float32.
    """
    memory, weights = (limits.get(name) for name in ("peak_memory_bytes", "weight_bytes"))
    if not isinstance(space, MCUNetSpace) or (memory is None and weights is None):
        return []
    ranked = rank_subspaces(
        space,
        peak_limit_bytes=sys.maxsize if memory is None else int(memory),
        weight_limit_bytes=sys.maxsize if weights is None else int(weights),
        plan=plan,
        rng=np.random.default_rng(0),
    )
    lines = [
        f"  {pair.resolution} pixels, width {pair.width:g}: {pair.mean_macs / 1e6:.3g} million MACs on average, "
        f"{pair.fitting:.0%} fit"
        for pair in ranked[:_PAIRS]
        if pair.fitting > 0
    ]
    head = f"resolutions and widths whose networks that fit memory and weights in {precision} have the most MACs:"
    return [head, *lines] if lines else []


def _hours(prepared: Prepared) -> str:
    """Return the sentence about time, from a few training steps of a feasible network of middling cost."""
    config, rows = prepared.config, prepared.survey.rows
    order = np.argsort(prepared.costs(rows).figures["macs"])
    architecture = decode(prepared.space, rows[order[len(order) // 2]])
    batch = config.train.resolved(len(prepared.state.task.train)).batch_size or 64
    rate = _images_per_second(build(architecture), architecture.input_shape, batch)
    images, rungs = len(prepared.state.task.train), config.search.rungs
    share, epochs, before = 1.0, 0.0, 0
    for reached in rungs.epochs:
        epochs += share * (reached - before)
        share, before = share * rungs.keep, reached
    searches = 2 if config.search.control else 1
    searching = searches * config.search.trials * epochs * images / rate
    extra = sum(
        float(getattr(gated.stage, "epochs", 0)) * (2 if hasattr(gated.stage, "loss") else 1) for gated in config.stages
    )
    final = (config.pipeline.finalists + len(config.pipeline.baselines)) * (config.train.epochs + extra) * images / rate
    workers = config.workers or default_workers()
    return (
        f"expected time: about {searching / workers / 3600:.2f} h of searching and {final / workers / 3600:.2f} h of "
        f"training finalists and baselines with {workers} workers (estimated from {_STEPS} training steps at "
        f"{rate:.0f} images a second)"
    )


def _images_per_second(network: torch.nn.Module, shape: tuple[int, int, int], batch: int) -> float:
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it not
    images = torch.zeros(batch, *shape).to(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network(images).sum().backward()
        start = time.perf_counter()
        for _ in range(_STEPS):
            network(images).sum().backward()
        return _STEPS * batch / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
