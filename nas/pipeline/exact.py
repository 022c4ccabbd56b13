"""What the file of a searched network will cost, counted before anybody trains it to the end.

A search adds up blocks in arrays: the weights of each, and the liveness bound of the largest. A file stores more, for
speed, and its arena is planned, so a network at the edge of a limit may fit one and not the other.
"""

from collections.abc import Iterator, Mapping, Sequence

from latency_models.device import Device
from nas.export import counted
from nas.search.objectives import patch_above
from nas.search.study import Entry
from search_spaces.architecture import Architecture
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement


def file_figures(
    architecture: Architecture, precision: str, device: Device, limits: Mapping[str, float]
) -> dict[str, Measurement]:
    """Return what the file of a network on that device costs, counted; `precision` is what it ships in."""
    plan = device.plan if precision == "int8" else None
    return counted(lower(architecture), plan, in_place=device.in_place, patch_above=patch_above(device, limits))


def within_limits(entries: Sequence[Entry], device: Device, limits: Mapping[str, float]) -> Iterator[Entry]:
    """Yield those whose file keeps to the limits of what can be counted, in the order given; counted as asked for.

    Args:
        entries: Trained networks.
        device: Whose 8-bit scheme and memory count.
        limits: By figure, as `RowCosts.limits` returns them; a latency is no count and is left alone.
    """
    for entry in entries:
        figures = file_figures(entry.architecture, entry.precision, device, limits)
        if all(figures[name].value <= limit for name, limit in limits.items() if name in figures):
            yield entry
