"""What a reader makes of one call of a torch operator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from search_spaces.workload import Attribute

Arguments = Mapping[str, Any]  # Any: torch hands tensors, numbers, lists and None


@dataclass(frozen=True, slots=True)
class Call:
    """One operator: tensors it reads by position or by role, and its attributes."""

    kind: str
    inputs: tuple[torch.Tensor, ...]
    parameters: tuple[tuple[str, torch.Tensor], ...] = ()
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alias:
    """The result is the same tensor under another name."""

    source: torch.Tensor


Reader = Callable[[Arguments], Call | Alias]
"""What reads one call of one torch operator."""
