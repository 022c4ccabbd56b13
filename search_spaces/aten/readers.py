"""All readers and rewriters in one table, and what the recorder must know of operators besides."""

from search_spaces.aten import arithmetic, movement, reductions, weighted
from search_spaces.aten.calls import Reader

READERS: dict[str, Reader] = {
    **weighted.READERS,
    **arithmetic.READERS,
    **reductions.READERS,
    **movement.READERS,
}
"""Readers by aten name; the in-place form `name_` is read by the same reader."""

IGNORED = frozenset(
    {"empty", "empty_like", "new_empty", "zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones", "arange",
     "linspace", "eye", "scalar_tensor", "full", "full_like", "new_full", "rand", "randn", "rand_like", "randn_like",
     "sym_size"}
)  # fmt: skip
"""Make tensors from nothing; whoever then reads such a tensor is told to register it as a buffer."""

SAME_SHAPE = frozenset(
    {"native_batch_norm", "_native_batch_norm_legit_no_training", "relu", "hardtanh", "hardswish", "clamp",
     "hardsigmoid", "sigmoid", "silu", "gelu", "tanh", "leaky_relu"}
)  # fmt: skip
"""Results have the shape of the first argument. Running torch's meta kernels for these costs up to 1 ms each."""

FIRST_RESULT_ONLY = frozenset(
    {"native_batch_norm", "_native_batch_norm_legit_no_training", "native_layer_norm", "native_group_norm",
     "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "max", "min", "log_sigmoid_forward"}
)  # fmt: skip
"""The other results, such as the places of maxima, are not in the vocabulary; who reads one is told so."""

VIEWS = frozenset(
    {"view", "_reshape_alias", "reshape", "unsqueeze", "squeeze", "split", "split_with_sizes", "slice",
     "select", "permute", "transpose", "t", "expand", "alias", "detach", "unfold", "diagonal"}
)  # fmt: skip
"""Results share memory with the first argument, so that a write to one is a write to the other."""
