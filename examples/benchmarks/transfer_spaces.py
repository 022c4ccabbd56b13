"""The three spaces of the public latency tables as counts of operators.

The tables do not say what their runtimes executed, so a space has one lowering for each way runtimes are known to
treat its graphs. The library's own lowering of `nasbench201`, `fbnet` and `ofa_mobilenet_v3` has the fused operators of
one runtime and writes classifiers for its users' classes; here are the networks just as the tables timed them.

NAS-Bench-201 (Dong and Yang 2020, arXiv:2001.00326): 6 edges, 3 stages of 5 cells with 16, 32 and 64 channels.
FBNet (Wu et al. 2019, arXiv:1812.03443) as measured by HW-NAS-Bench and HELP on 32x32 inputs.
OFA-MobileNetV3 (Cai et al. 2020, arXiv:1908.09791), width multiplier 1.2, with 25 input sizes.
"""

import itertools

import numpy as np

from latency_models.prediction import Array
from latency_models.transfer.few_shot import Features
from latency_models.transfer.operator_prior import operator_prior
from latency_models.transfer.operators import BoolArray, IntArray, Lowering, Operator, tabulate
from latency_models.transfer.population import Population

KEPT_VARIANCE = 1.0 - 1e-7
"""Share of the prior's variance over a whole space that its inputs keep; the rest costs time and changes nothing."""

_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_START = np.asarray([a for a, _ in _EDGES])
_END = np.asarray([b for _, b in _EDGES])
_NONE, _SKIP, _CONV1, _CONV3, _POOL = range(5)
_STAGES = ((16, 32), (32, 16), (64, 8))
_CELLS = 5


def features_of(lowerings: list[Lowering], context: Array, population: Population) -> Features:
    """Return the method's inputs without sources, all networks being the reference networks."""
    centered = context - context.mean(axis=0)
    length = np.sqrt((centered**2).sum(axis=1).mean())
    views = []
    for lowering in lowerings:
        prior = operator_prior(lowering, population, kept_variance=KEPT_VARIANCE)
        views.append(prior.view(lowering.counts @ prior.rows(lowering.operators)))
    return Features(views=tuple(views), context=centered / length, sources=np.empty((len(context), 0)))


def one_hot(values: IntArray, num: int) -> Array:
    """Return `n x d` integers as `n x (d * num)` indicators."""
    return np.eye(num)[values].reshape(len(values), -1)


def lower_nb201(ops: IntArray) -> tuple[list[Lowering], Array]:
    """Lower `n x 6` cells in the four ways runtimes are known to execute them.

    * as written: every edge runs, multiplications by zero too (eager frameworks);
    * traced: a graph compiler removes what the output does not depend on; a zero edge is a constant, so what it
      feeds still runs; a convolution directly followed by a multiplication by zero absorbs it and stays;
    * live: constants are folded as well, only edges on a path from input to output run;
    * overlapped: as live, but edges off the heaviest path may run beside it.

    Returns:
        The lowerings and `n x 54` context features (edges as written and as live).
    """
    on = ops != _NONE
    forward, backward = _reached(on)
    live = on & forward[:, _START] & backward[:, _END]
    absorbed = _absorbed_zeros(ops, on, forward)
    traced = on & backward[:, _END] | absorbed
    traced[:, 0] |= absorbed[:, 2] & on[:, 0]
    used = live.any(axis=1)
    path = _heaviest_path(ops, live)
    everywhere = np.ones(len(ops), dtype=np.bool_)
    lowerings = [
        _nb201_lowering("as_written", ops, np.ones_like(on), np.zeros_like(on), everywhere, adds=False),
        _nb201_lowering("traced", ops, traced, np.zeros_like(on), used, adds=True),
        _nb201_lowering("live", ops, live, np.zeros_like(on), used, adds=True),
        _nb201_lowering("overlapped", ops, live, live & ~path, used, adds=False),
    ]
    executed = one_hot(np.where(live, ops, _NONE), 5).reshape(len(ops), 6, 5)[:, :, 1:]
    return lowerings, np.hstack([one_hot(ops, 5), executed.reshape(len(ops), -1)])


def _reached(on: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Nodes that depend on the cell's input, and nodes that the cell's output depends on, both `n x 4`."""
    forward = np.zeros((len(on), 4), dtype=np.bool_)
    backward = np.zeros((len(on), 4), dtype=np.bool_)
    forward[:, 0] = backward[:, 3] = True
    for edge in range(6):
        forward[:, _END[edge]] |= forward[:, _START[edge]] & on[:, edge]
    for edge in reversed(range(6)):
        backward[:, _START[edge]] |= backward[:, _END[edge]] & on[:, edge]
    return forward, backward


def _absorbed_zeros(ops: IntArray, on: BoolArray, forward: BoolArray) -> BoolArray:
    """Convolutions that are a node's only input while all of its outputs are zeroed, `n x 6`."""
    absorbed = np.zeros_like(on)
    for inputs, outputs in (([0], [2, 4]), ([1, 2], [5])):
        adds_zero = (ops[:, inputs] == _SKIP) & ~forward[:, _START[inputs]]
        arriving = on[:, inputs] & ~adds_zero
        alone = (arriving.sum(axis=1) == 1) & ~on[:, outputs].any(axis=1)
        convolution = (ops[:, inputs] == _CONV1) | (ops[:, inputs] == _CONV3)
        absorbed[:, inputs] = alone[:, None] & arriving & convolution
    return absorbed


def _heaviest_path(ops: IntArray, live: BoolArray) -> BoolArray:
    """Edges of the live path with the most arithmetic (a 3x3 convolution counts 9, pooling 1/2), `n x 6`."""
    work = np.asarray([0.0, 0.0, 1.0, 9.0, 0.5])[ops]
    best = np.full(len(ops), -1.0)
    chosen = np.zeros_like(live)
    for edges in ([3], [0, 4], [1, 5], [0, 2, 5]):
        load = np.where(live[:, edges].all(axis=1), work[:, edges].sum(axis=1) + 1e-6 * len(edges), -1.0)
        better = load > best
        chosen[better] = np.isin(np.arange(6), edges)
        best = np.maximum(best, load)
    return chosen


def _nb201_lowering(
    name: str, ops: IntArray, runs: BoolArray, beside: BoolArray, used: BoolArray, *, adds: bool
) -> Lowering:
    """Count the operators of whole networks; `used` cells read their input, else everything upstream is gone."""
    operators: list[Operator] = []
    columns: list[Array] = []
    for channels, side in _STAGES:
        cells = np.where(used, _CELLS, 1.0 if side == 8 else 0.0)
        for op in (_NONE, _SKIP, _CONV1, _CONV3, _POOL):
            for overlappable in (False, True):
                count = ((ops == op) & runs & (beside == overlappable)).sum(axis=1) * cells
                if count.any():
                    operators.append(_nb201_operator(op, channels, side, overlappable))
                    columns.append(count)
        if adds:
            arriving = np.stack([(runs & (ops != _NONE))[:, node == _END].sum(axis=1) for node in (1, 2, 3)], axis=1)
            operators.append(
                Operator(
                    kind="add",
                    input_elements=2.0 * side**2 * channels,
                    output_elements=side**2 * channels,
                    out_channels=channels,
                )
            )
            columns.append(np.maximum(arriving - 1, 0).sum(axis=1) * cells)
    stem, classifier = _nb201_fixed()
    operators += [*stem, classifier]
    columns += [used.astype(np.float64)] * len(stem) + [np.ones(len(ops))]
    return Lowering(name=name, operators=tabulate(operators), counts=np.stack(columns, axis=1))


def _nb201_operator(op: int, channels: int, side: int, overlappable: bool) -> Operator:
    size = float(side**2 * channels)
    window = {_CONV3: 3, _POOL: 3}.get(op, 1)
    macs = {_CONV1: size * channels, _CONV3: 9 * size * channels, _POOL: 9 * size}.get(op, 0.0)
    weights = float(window**2 * channels**2) if op in (_CONV1, _CONV3) else 0.0
    kind = {_NONE: "zero", _SKIP: "identity", _CONV1: "pointwise", _POOL: "pool"}.get(op, "conv")
    return Operator(
        kind=kind, macs=macs, input_elements=size, output_elements=size, weight_elements=weights, kernel_size=window,
        out_channels=channels, overlappable=overlappable, elidable=op in (_NONE, _SKIP),
    )  # fmt: skip


def _nb201_fixed() -> tuple[list[Operator], Operator]:
    """Stem with two residual blocks, and the classifier; the same in every network."""
    stem = [_conv(3, 16, 32, 32, 3)]
    for (before, _), (channels, side) in itertools.pairwise(_STAGES):
        stem += [_conv(before, channels, 2 * side, side, 3), _conv(channels, channels, side, side, 3)]
        stem += [_conv(before, channels, side, side, 1)]
    return stem, _conv(64, 100, 1, 1, 1)


_FBNET_STAGES = ((16, 1, 1), (24, 4, 1), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
_FBNET_BLOCKS = ((1, 3, 1), (1, 3, 2), (3, 3, 1), (6, 3, 1), (1, 5, 1), (1, 5, 2), (3, 5, 1), (6, 5, 1))
_FBNET_SKIP = len(_FBNET_BLOCKS)


def lower_fbnet(ops: IntArray) -> tuple[list[Lowering], Array]:
    """Lower `n x 22` block choices; return one lowering and the one-hot context."""
    blocks: list[list[list[Operator]]] = []
    channels, side = 16, 32
    for width, depth, stage_stride in _FBNET_STAGES:
        for position in range(depth):
            stride = stage_stride if position == 0 else 1
            choices = [_inverted_residual(channels, width, side, stride, *block) for block in _FBNET_BLOCKS]
            identity = stride == 1 and channels == width
            choices.append([] if identity else [_conv(channels, width, side, side // stride, 1)])
            blocks.append(choices)
            channels, side = width, side // stride
    fixed = [_conv(3, 16, 32, 32, 3), _conv(352, 1504, side, side, 1), _conv(1504, 100, 1, 1, 1)]
    distinct = sorted({op for choices in blocks for block in choices for op in block} | set(fixed), key=repr)
    row = {operator: i for i, operator in enumerate(distinct)}
    counts = np.zeros((len(ops), len(distinct)))
    for position, choices in enumerate(blocks):
        table = np.zeros((len(choices), len(distinct)))
        for choice, block in enumerate(choices):
            for operator in block:
                table[choice, row[operator]] += 1
        counts += table[ops[:, position]]
    for operator in fixed:
        counts[:, row[operator]] += 1
    return [Lowering(name="as_written", operators=tabulate(distinct), counts=counts)], one_hot(ops, _FBNET_SKIP + 1)


def _inverted_residual(
    channels: int, width: int, side: int, stride: int, expansion: int, kernel: int, groups: int
) -> list[Operator]:
    """Pointwise, (shuffle,) depthwise, pointwise and, where shapes allow, an addition."""
    hidden, out = channels * expansion, side // stride
    size_in, size_out = float(side**2 * hidden), float(out**2 * hidden)
    depthwise = Operator(
        kind="depthwise", macs=size_out * kernel**2, input_elements=size_in, output_elements=size_out,
        weight_elements=hidden * kernel**2, kernel_size=kernel, out_channels=hidden,
    )  # fmt: skip
    shuffle = Operator(kind="shuffle", input_elements=size_in, output_elements=size_in, out_channels=hidden)
    total = float(out**2 * width)
    add = Operator(kind="add", input_elements=2 * total, output_elements=total, out_channels=width)
    return [
        _conv(channels, hidden, side, side, 1, groups),
        *([shuffle] if groups > 1 else []),
        depthwise,
        _conv(hidden, width, out, out, 1, groups),
        *([add] if stride == 1 and channels == width else []),
    ]


def _conv(
    channels: int, width: int, side_in: int, side: int, kernel: int, groups: int = 1, family: str = ""
) -> Operator:
    weights = float(channels * width * kernel**2 // groups)
    return Operator(
        kind="conv" if kernel > 1 else "pointwise", macs=side**2 * weights, input_elements=side_in**2 * channels,
        output_elements=side**2 * width, weight_elements=weights, kernel_size=kernel, out_channels=width,
        grouped=groups > 1, family=family,
    )  # fmt: skip


_OFA_STAGES = ((32, 2, False), (48, 2, True), (96, 2, False), (136, 1, True), (192, 2, True))


def lower_ofa(
    kernel: IntArray, expand: IntArray, depth: IntArray, resolution: IntArray
) -> tuple[list[Lowering], Array]:
    """Lower `n x 20` kernels and expansions, `n x 5` depths and `n` input sizes."""
    n = len(depth)
    row: dict[Operator, int] = {}
    entries: list[dict[int, float]] = []
    for i in range(n):
        counts: dict[int, float] = {}
        for operator in _ofa_network(kernel[i], expand[i], depth[i], int(resolution[i])):
            j = row.setdefault(operator, len(row))
            counts[j] = counts.get(j, 0.0) + 1.0
        entries.append(counts)
    table = np.zeros((n, len(row)))
    for i, counts in enumerate(entries):
        table[i, list(counts)] = list(counts.values())
    on = np.arange(4)[None, None, :] < depth[:, :, None]
    cell = np.where(on.reshape(n, 20), np.searchsorted([3, 5, 7], kernel) * 3 + np.searchsorted([3, 4, 6], expand), 9)
    size = (resolution / 224.0)[:, None]
    context = np.hstack([one_hot(cell, 10), 3.0 * size, 3.0 * size**2])
    return [Lowering(name="as_written", operators=tabulate(list(row)), counts=table)], context


def _ofa_network(kernel: IntArray, expand: IntArray, depth: IntArray, resolution: int) -> list[Operator]:
    side = -(-resolution // 2)
    operators = [_conv(3, 24, resolution, side, 3, family="stem")]
    channels = 24
    for stage, (width, stage_stride, squeeze) in enumerate(_OFA_STAGES):
        for block in range(int(depth[stage])):
            stride = stage_stride if block == 0 else 1
            at = 4 * stage + block
            out = -(-side // stride)
            label = f"{stage}.{min(block, 1)}.{kernel[at]}.{expand[at]}"
            operators += _ofa_block(channels, width, side, out, int(kernel[at]), int(expand[at]), squeeze, label)
            channels, side = width, out
    return [*operators, _conv(192, 1152, side, side, 1, family="head")]


def _ofa_block(
    channels: int, width: int, side: int, out: int, kernel: int, expansion: int, squeeze: bool, label: str
) -> list[Operator]:
    hidden = channels * expansion
    size_in, size_out = float(side**2 * hidden), float(out**2 * hidden)
    block = [
        _conv(channels, hidden, side, side, 1, family=f"expand.{label}"),
        Operator(
            kind="depthwise", macs=size_out * kernel**2, input_elements=size_in, output_elements=size_out,
            weight_elements=hidden * kernel**2, kernel_size=kernel, out_channels=hidden, family=f"depthwise.{label}",
        ),
        _conv(hidden, width, out, out, 1, family=f"project.{label}"),
    ]  # fmt: skip
    if squeeze:
        block.append(
            Operator(
                kind="squeeze",
                macs=size_out,
                input_elements=size_out,
                output_elements=size_out,
                weight_elements=hidden**2 / 2,
                out_channels=hidden,
                family=f"squeeze.{label}",
            )
        )
    return block
