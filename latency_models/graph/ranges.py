"""Ranges of tensors: measured ones, merged over batches, or invented ones that run in the same time."""

from collections.abc import Iterable, Mapping

from latency_models.graph.network import Activation, Layer, Network, activation, pre_name
from search_spaces.workload import ACTIVATIONS

Range = tuple[float, float]

Ranges = Mapping[str, Range]
"""Least and greatest value of tensors, by the names that `float_model(..., expose=True)` gives its outputs."""


def merge_ranges(parts: Iterable[Ranges]) -> dict[str, Range]:
    """Return the ranges that hold all of `parts`, such as those of single calibration images.

    Calibration is then: run `float_model(..., expose=True)` on 50 to 100 images, take the minimum and maximum of every
    output, and merge. More images or percentiles in place of extremes gained nothing where we measured it.
    """
    merged: dict[str, Range] = {}
    for part in parts:
        for name, (low, high) in part.items():
            known = merged.get(name, (low, high))
            merged[name] = (min(low, known[0]), max(high, known[1]))
    return merged


def invented_ranges(network: Network) -> dict[str, Range]:
    """Return a plausible range for every tensor of a network with random weights.

    Latency does not depend on the values, but all differ, as measured ones do: with a handful of repeated scales
    onnxruntime shares their constants and runs 2-3 % faster than any trained network.
    """
    ranges: dict[str, Range] = {}
    for layer in network.layers:
        cut = written_activation(layer)
        for name in layer.outputs:
            number = len(ranges) + 1
            low, high = -2.0 - 4.0 * (0.414214 * number % 1.0), 3.0 + 4.0 * (0.618034 * number % 1.0)
            ranges[pre_name(name)] = (1.1 * low, 1.1 * high)
            positive = cut is not None and (cut.low == 0.0 or cut.kind in ("sigmoid", "hard_sigmoid"))
            ranges[name] = (0.0 if positive else low, high)
    return ranges


def written_activation(layer: Layer) -> Activation | None:
    """Return the activation behind a layer, or that which it is."""
    if layer.kind in ACTIVATIONS:
        return activation(layer.kind, layer.attributes)
    return layer.activation
