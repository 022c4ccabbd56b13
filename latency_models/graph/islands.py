"""Which layers of an 8-bit network compute in float all the same."""

from dataclasses import replace

from latency_models.graph.network import Layer, Network

_NO_KERNEL = frozenset({"matmul", "sub", "abs", "neg"})
"""Kinds that the workload counts as 8 bits and that run faster, or only, in float: products of two activations cost
twice as much in 8 bits at 64 tokens, the others have no kernel."""

_HEAVY = frozenset({"conv", "linear"})

_ON_BYTES = frozenset(
    {"concat", "split", "slice", "reshape", "transpose", "expand", "gather", "pad", "upsample", "max_pool", "amax",
     "avg_pool", "global_avg_pool"}
)  # fmt: skip
"""Kinds that move or reduce data, of which bytes are a quarter."""


def place_islands(network: Network) -> Network:
    """Return the network with `quantized` cleared on layers that gain nothing from 8 bits.

    These are kinds without a kernel, everything light that only float layers read, such as the scaling of attention
    scores and the residual sums between normalizations, and the pooling that ends a network, whose result would be
    logits in steps.
    """
    network = network.replace(
        replace(layer, quantized=False) if layer.kind in _NO_KERNEL else layer for layer in network.layers
    )
    network = _float_result(network)
    if all(layer.quantized for layer in network.layers):
        return network
    inside = _between_floats(network)
    return network.replace(
        replace(layer, quantized=layer.quantized and number not in inside)
        for number, layer in enumerate(network.layers)
    )


def _float_result(network: Network) -> Network:
    """Let global pooling that makes the result, flattened or not, compute in float."""
    layers = list(network.layers)
    wanted = network.output
    for number in reversed(range(len(layers))):
        layer = layers[number]
        if layer.output != wanted or layer.kind not in ("reshape", "global_avg_pool"):
            continue
        if network.readers()[layer.output] != 1:
            break
        if layer.kind == "global_avg_pool":
            return network.replace([*layers[:number], *(replace(after, quantized=False) for after in layers[number:])])
        wanted = layer.inputs[0]
    return network


def _between_floats(network: Network) -> set[int]:
    """Return the places of light layers that float layers alone read, directly or through each other.

    Layers that move or reduce data must be fed by float layers too, and so must the one that makes the result.
    """
    producers = {name: number for number, layer in enumerate(network.layers) for name in layer.outputs}
    readers: dict[str, list[int]] = {}
    for number, layer in enumerate(network.layers):
        for name in layer.inputs:
            readers.setdefault(name, []).append(number)
    inside = {number for number, layer in enumerate(network.layers) if layer.quantized and layer.kind not in _HEAVY}

    def is_float(number: int) -> bool:
        return number in inside or not network.layers[number].quantized

    def is_read_as_float(layer: Layer) -> bool:
        return all(is_float(number) for name in layer.outputs for number in readers.get(name, ()))

    def gives_floats(name: str) -> bool:
        number = producers.get(name)
        if number is None:
            return False
        layer = network.layers[number]
        return is_float(number) or (can_write_float(layer) and is_read_as_float(layer))

    def stays(layer: Layer) -> bool:
        if not is_read_as_float(layer):
            return False
        if all(map(gives_floats, layer.inputs)):
            return True
        return layer.kind not in _ON_BYTES and layer.output != network.output

    while leaving := {number for number in inside if not stays(network.layers[number])}:
        inside -= leaving
    return inside


def can_write_float(layer: Layer) -> bool:
    """Whether an 8-bit layer writes floats as fast as bytes: a linear one without activation."""
    return layer.kind == "linear" and layer.activation is None
