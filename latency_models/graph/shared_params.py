"""Scale and zero point of every 8-bit tensor: one for all tensors that bytes pass between unchanged."""

from collections.abc import Mapping

from latency_models.graph.groups import Groups
from latency_models.graph.islands import can_write_float
from latency_models.graph.network import INPUT, Layer, Network, pre_name
from latency_models.graph.quantizers import Scheme, TensorParams
from latency_models.graph.ranges import Range, Ranges, written_activation

_PASSES_BYTES = frozenset(
    {"max_pool", "amax", "gather", "slice", "split", "reshape", "transpose", "expand", "pad", "upsample"}
)
"""Kinds that run on bytes only if their output has the parameters of their input."""

_LEAST_HARD_SWISH = -0.375

_COARSER = 4.0
"""How many times wider a shared range may be than that of a tensor which others than concatenations read: 2 bits."""


def writes_float(network: Network) -> frozenset[str]:
    """Return the tensors that 8-bit linear layers write as floats, since nobody reads bytes of them."""
    read = {name for layer in network.layers if layer.quantized for name in layer.inputs}
    return frozenset(
        layer.output
        for layer in network.layers
        if layer.quantized and can_write_float(layer) and layer.output not in read
    )


def tensor_params(network: Network, ranges: Ranges, scheme: Scheme, *, image: TensorParams) -> dict[str, TensorParams]:
    """Return the parameters of all tensors that are stored in 8 bits somewhere.

    The inputs of a concatenation share the range of its output, so bytes are copied rather than mapped, unless an
    input's own range carries its activation (a ReLU has no negative byte) and the shared one would lose it, or the
    shared one is so wide that other readers of that input would miss the detail.

    Args:
        network: The network as it will be written.
        ranges: Measured or invented.
        scheme: Type of the bytes.
        image: Parameters of the image.

    Raises:
        ValueError: `ranges` lacks a tensor.
    """
    floats = writes_float(network)
    stored = {name for layer in network.layers if layer.quantized for name in (*layer.inputs, *layer.outputs)} - floats
    tied = Groups()
    for layer in network.layers:
        if layer.quantized and (layer.kind in _PASSES_BYTES or "keeps_range" in layer.attributes):
            tied.join(layer.inputs[0], *layer.outputs)
    fixed = {tied.root(name): params for name, params in _fixed(network, scheme, image).items()}
    spans, limits = _spans_and_limits(network, ranges, tied, stored)
    spans = _shared_by_concats(network, tied, spans, limits, frozenset(fixed))
    params = dict(_before_activations(network, ranges, scheme))
    for name in sorted(stored):
        root = tied.root(name)
        if root not in fixed and root not in spans:
            raise ValueError(
                f"ranges lack {name!r}: measure them on float_model(..., expose=True) of the same workload"
            )
        params[name] = fixed[root] if root in fixed else scheme.params(*spans[root])
    return params


def _fixed(network: Network, scheme: Scheme, image: TensorParams) -> dict[str, TensorParams]:
    """Return parameters that are known beforehand: of the image and of gates."""
    fixed = {INPUT: image}
    for layer in network.layers:
        cut = written_activation(layer)
        if layer.quantized and cut is not None and cut.kind in ("sigmoid", "hard_sigmoid"):
            fixed[layer.output] = scheme.unit if cut.kind == "sigmoid" else scheme.gate
    return fixed


def _spans_and_limits(
    network: Network, ranges: Ranges, tied: Groups, stored: set[str]
) -> tuple[dict[str, Range], dict[str, Range]]:
    """Return, for each group of tied tensors, the range of their values and the range they must not leave."""
    spans: dict[str, Range] = {}
    limits: dict[str, Range] = {}
    cuts = {layer.output: (layer, written_activation(layer)) for layer in network.layers}
    for name in stored:
        if name not in ranges:
            continue
        low, high = ranges[name]
        layer, cut = cuts.get(name, (None, None))
        if layer is not None and cut is not None and cut.is_range:
            low, high = max(low, cut.low), min(high, cut.high)
            if layer.quantized and layer.activation is cut:
                _intersect(limits, tied.root(name), (cut.low, cut.high))
        elif cut is not None and cut.kind == "hard_swish":
            low = max(low, _LEAST_HARD_SWISH)
        _unite(spans, tied.root(name), (low, high))
    return spans, limits


def _shared_by_concats(
    network: Network,
    tied: Groups,
    spans: Mapping[str, Range],
    limits: Mapping[str, Range],
    fixed: frozenset[str],
) -> dict[str, Range]:
    """Return the ranges with those of all inputs of a concatenation united, where that costs little."""
    together = Groups()
    read_apart: set[str] = set()
    for layer in network.layers:
        roots = {tied.root(name) for name in layer.inputs}
        if layer.quantized and layer.kind == "concat" and tied.root(layer.output) in spans:
            together.join(tied.root(layer.output), *sorted((roots - fixed) & spans.keys()))
        elif layer.kind not in _PASSES_BYTES:
            read_apart |= roots
    united: dict[str, Range] = {}
    for root, span in spans.items():
        _unite(united, together.root(root), span)
    shared = {}
    for root, span in spans.items():
        low, high = _with_zero(united[together.root(root)])
        least, most = limits.get(root, (low, high))
        own_low, own_high = _with_zero(span)
        coarser = root in read_apart and high - low > _COARSER * (own_high - own_low)
        shared[root] = span if coarser or low < least or high > most else (low, high)
    return shared


def _with_zero(span: Range) -> Range:
    return (min(span[0], 0.0), max(span[1], 0.0))


def _before_activations(network: Network, ranges: Ranges, scheme: Scheme) -> dict[str, TensorParams]:
    """Return the parameters of the tensors before activations that need an operator of their own."""
    params = {}
    for layer in network.layers:
        if layer.quantized and needs_operator(layer):
            name = pre_name(layer.output)
            assert layer.activation is not None
            if name not in ranges:
                raise ValueError(
                    f"ranges lack {name!r}: measure them on float_model(..., expose=True) of the same workload"
                )
            low, high = ranges[name]
            params[name] = scheme.params(max(low, -3.0) if layer.activation.kind == "hard_swish" else low, high)
    return params


def needs_operator(layer: Layer) -> bool:
    """Whether the activation behind a layer is more than the range of what the layer writes.

    A hard sigmoid behind weights is none either: the bias takes its + 3, and saturation is its clip.
    """
    cut = layer.activation
    if cut is None or cut.is_range:
        return False
    return not (cut.kind == "hard_sigmoid" and layer.kind in ("conv", "linear"))


def _unite(spans: dict[str, Range], key: str, span: Range) -> None:
    known = spans.get(key, span)
    spans[key] = (min(span[0], known[0]), max(span[1], known[1]))


def _intersect(limits: dict[str, Range], key: str, limit: Range) -> None:
    known = limits.get(key, limit)
    limits[key] = (max(limit[0], known[0]), min(limit[1], known[1]))
