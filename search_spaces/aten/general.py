"""The three general kinds: what they keep of a call.

`elementwise` (one output element from the elements at one place), `reduction` (fewer elements than were read) and
`movement` (elements at other places) cover every operator that has neither weights nor a kind of its own. They are
priced alike: no MACs, what they read and write is traffic, inputs and output are alive at the same time. The
attribute `function` names the operator, in the words of torch.
"""

from collections.abc import Callable

import torch

from search_spaces.aten.calls import Arguments, Call
from search_spaces.workload import Attribute


def general(kind: str, function: str) -> Callable[[Arguments], Call]:
    """Return the reader of an operator of a general kind: its tensors in order, its numbers as attributes."""

    def read(a: Arguments) -> Call:
        given = {name: value for name, value in a.items() if not (name == "self" and "input" in a)}
        tensors = tuple(value for value in given.values() if isinstance(value, torch.Tensor))
        attributes: dict[str, Attribute] = {"function": function}
        for name, value in given.items():
            if isinstance(value, bool | int | float | str):
                attributes[name] = value
            elif isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value):
                attributes[name] = tuple(value)
        return Call(kind, tensors, attributes=attributes)

    return read
