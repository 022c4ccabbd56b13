"""Which channels to give up for milliseconds: greedy, one aligned step of one group at a time.

NetAdapt (Yang et al. 2018, arXiv:1804.03230) and AMC (He et al. 2018, arXiv:1802.03494) are driven by latency
too; they train short for every proposal, or train an agent. Here a proposal costs one prediction: the group
that loses least importance for each predicted millisecond goes first, and the milliseconds are those of the
whole re-lowered network, so that alignment, fusion and what surrounds a layer all count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.compress.channels import Group, next_sizes, with_size
from nas.compress.importance import Importance
from search_spaces.architecture import Architecture

Price = Callable[[Architecture], float]
"""Predicted latency of a network in milliseconds, at the precision that ships."""

LOOKAHEAD = 4
"""Aligned steps of one group tried at once where fewer save nothing, as on a device with wider lanes."""

STEPS_PER_GROUP = 24
"""Steps into which the channels of a wide group are divided; more would only cost predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What an allocation came to.

    Attributes:
        architecture: With the smaller sizes.
        sizes: Size of every group, by name.
        predicted_ms: Of the architecture.
        reached: Whether that is within the target.
    """

    architecture: Architecture
    sizes: Mapping[str, int]
    predicted_ms: float
    reached: bool


def allocate(
    architecture: Architecture,
    groups: Sequence[Group],
    importance: Importance,
    *,
    target_ms: float,
    price: Price,
    alignment: int,
    max_cut: float = 1.0,
) -> Allocation:
    """Return smaller sizes of groups so that the network's predicted latency is at most `target_ms`.

    Args:
        architecture: In which the groups have their `size`.
        groups: What may shrink.
        importance: Of every channel of every group.
        target_ms: What is wanted.
        price: Predicts latency; asked once for each architecture.
        alignment: Sizes are multiples of it, or what they were.
        max_cut: Largest share of a group's channels that may go.
    """
    lost = {group.name: _cumulated(importance[group.name]) for group in groups}
    known: dict[Architecture, float] = {}

    def priced(candidate: Architecture) -> float:
        if candidate not in known:
            known[candidate] = price(candidate)
        return known[candidate]

    sizes = {group.name: group.size for group in groups}
    while priced(architecture) > target_ms:
        best: tuple[float, str, int, Architecture] | None = None
        for group in groups:
            least = (1 - max_cut) * group.size
            options = [size for size in _options(group, sizes[group.name], alignment) if size >= least]
            proposal = _proposal(architecture, group, options[:LOOKAHEAD], priced)
            if proposal is None:
                continue
            size, smaller, saved_ms = proposal
            gone = lost[group.name][group.size - size] - lost[group.name][group.size - sizes[group.name]]
            if best is None or gone / saved_ms < best[0]:
                best = (gone / saved_ms, group.name, size, smaller)
        if best is None:
            break
        _, name, sizes[name], architecture = best
    reached = priced(architecture) <= target_ms
    return Allocation(architecture=architecture, sizes=sizes, predicted_ms=priced(architecture), reached=reached)


def kept_channels(importance: npt.NDArray[np.float64], size: int) -> list[int]:
    """Return the numbers of the `size` most important channels, increasing; ties go to the lower number."""
    return sorted(np.argsort(-importance, kind="stable")[:size].tolist())


def _proposal(
    architecture: Architecture, group: Group, options: Sequence[int], priced: Price
) -> tuple[int, Architecture, float] | None:
    """Return the first smaller size of a group that saves time, with its architecture and the time saved."""
    for size in options:
        smaller = with_size(architecture, group, size)
        if smaller is not None:
            saved = priced(architecture) - priced(smaller)
            if saved > 1e-6 * priced(architecture):
                return size, smaller, saved
    return None


def _options(group: Group, size: int, alignment: int) -> list[int]:
    """Return the next smaller sizes of a group that now has `size` channels, in steps that suit its width."""
    stride = max(1, group.size // (alignment * STEPS_PER_GROUP))
    sizes = list(next_sizes(size, alignment))
    return sizes[stride - 1 :: stride] or sizes[-1:]


def _cumulated(importance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the importance lost with the n least important channels, for n from 0 to all."""
    return np.concatenate([[0.0], np.cumsum(np.sort(importance))])
