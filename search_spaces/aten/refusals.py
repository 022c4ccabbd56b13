"""Operators that no reader could take, and what to do instead: those that look at data, and those that draw numbers.

A recording is one list of operators that holds for every image, made without any image; so neither the values of a
tensor nor chance may decide what comes next.
"""

_DATA = (
    "{place} reads the values of a tensor ({how}): control flow, shapes and numbers that depend on data cannot be "
    "recorded, since one graph must hold for every image; compute with tensors (torch.where, a product with a mask), "
    "or make the number a field of the block"
)
_CHANCE = (
    "{place} draws random numbers (torch.{how}), also in evaluation mode: what is drawn anew on every pass cannot be "
    'recorded; draw only "if self.training", or register constant noise as a buffer'
)

_LOOKS_AT_DATA = {
    "_local_scalar_dense": "Tensor.item(), float(), int() or bool(), as `if` and `while` on a tensor call it",
    "item": "Tensor.item()",
    "is_nonzero": "bool(), as `if` and `while` on a tensor call it",
    "equal": "torch.equal",
    "allclose": "torch.allclose",
    "nonzero": "torch.nonzero, or an index by a mask",
    "masked_select": "torch.masked_select, or an index by a mask",
    "unique_dim": "torch.unique",
    "_unique2": "torch.unique",
    "unique_consecutive": "torch.unique_consecutive",
    "tolist": "tolist(), numpy() or an index by a mask",
    "bincount": "torch.bincount",
}

_DRAWS = frozenset(
    {"rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "normal",
     "uniform", "exponential", "multinomial", "poisson", "random", "geometric", "cauchy", "log_normal",
     "native_dropout", "rrelu_with_noise_functional"}
)  # fmt: skip

UNUSED_IS_FINE = frozenset({"rand", "randn", "rand_like", "randn_like"})
"""Random tensors made from nothing; only whoever reads one is refused."""


def refusal(name: str, place: str) -> str:
    """Return why no operator of this aten name can be recorded, and what to do; empty where one may be.

    Args:
        name: Of the operator, without the "_" of in-place forms.
        place: Where it runs, such as "module 'inner'".
    """
    if name in _LOOKS_AT_DATA:
        return _DATA.format(place=place, how=_LOOKS_AT_DATA[name])
    return _CHANCE.format(place=place, how=name) if name in _DRAWS else ""
