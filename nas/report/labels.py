"""What figures, units and origins are called in the report, and what each origin means."""

from collections.abc import Mapping

from nas.report import numbers
from nas.results import Contender, DeliveredFile, RunResults

LABELS: Mapping[str, str] = {
    "latency_ms": "latency",
    "predicted_ms": "latency",
    "upper_ms": "latency, upper bound",
    "session_level": "level of the session, 1 when the device was probed",
    "p50_ms": "latency p50",
    "p95_ms": "latency p95",
    "p99_ms": "latency p99",
    "sustained_ms": "latency p50 at the end of a sustained run",
    "file_bytes": "file size",
    "weight_bytes": "weights",
    "peak_memory_bytes": "peak memory",
    "macs": "MACs",
    "parameters": "parameters",
}

UNITS: Mapping[str, str] = {
    "latency_ms": "ms",
    "weight_bytes": "bytes",
    "peak_memory_bytes": "bytes",
    "macs": "MAC",
    "parameters": "parameters",
}
"""Units of the budget's limits."""

ORIGINS: Mapping[str, str] = {
    "counted": "computed exactly from the network",
    "predicted": "by a model fitted to timings of this device",
    "estimated": "by a model that never saw this device",
    "emulated": "run on an emulator of the device",
    "measured": "run: timings on the device, shares on the named images",
    "tabulated": "read from a table of somebody else's measurements",
}


def metric_label(results: RunResults) -> str:
    """Return the metric as a reader says it: "balanced accuracy"."""
    return results.metric.replace("macro_f1", "macro F1").replace("_", " ")


def label_of(name: str, results: RunResults) -> str:
    """Return what a figure is called within a sentence; an unknown name without its underscores."""
    if name in ("metric", results.metric):
        return f"{metric_label(results)}, validation"
    if name == "test_metric":
        return f"{metric_label(results)}, test"
    return LABELS.get(name, name.replace("_", " "))


def heading_of(name: str, results: RunResults) -> str:
    """Return what a figure is called at the head of a row or column."""
    label = label_of(name, results)
    return label[:1].upper() + label[1:]


def limit_text(name: str, limit: float) -> str:
    """Return a limit of the budget beside its name: "0.25 ms", "2 M" for MACs."""
    return numbers.quantity(limit, UNITS.get(name, "")).removesuffix(" MACs").removesuffix(" parameters")


def budget_text(results: RunResults) -> str:
    """Return the limits in words, or that there are none."""
    limits = [f"{label_of(name, results)} at most {limit_text(name, limit)}" for name, limit in results.budget.items()]
    return "; ".join(limits) or "no limits"


def is_search(contender: Contender) -> bool:
    """Tell whether a contender was found by search rather than made by hand."""
    return contender.family == "search"


def delivered(contender: Contender) -> DeliveredFile | None:
    """Return the file that ships; None where nothing was delivered."""
    return contender.files[0] if contender.files else None


def in_order(results: RunResults) -> tuple[Contender, ...]:
    """Return contenders as they are compared: the winner, the best of the other kind, then the rest.

    "Best of the other kind" puts hand-made networks beside a searched winner and the searched ones beside a hand-made.
    """
    winner = results.contender(results.winner)
    others = [contender for contender in results.contenders if contender.name != winner.name]
    return (winner, *sorted(others, key=lambda contender: is_search(contender) == is_search(winner)))
