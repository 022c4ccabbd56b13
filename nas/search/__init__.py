"""The search: budget and costs, the feasible part of a space, proposals, rungs, and the loop over them.

Read `objectives` (what rows cost), `feasible` (is there anything), `study` (the loop), `sampler` and `surrogate`
(proposals), `rungs` (who is trained longer), `pareto` (fronts).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.search.feasible import Survey, survey
    from nas.search.objectives import Budget, Costs, RowCosts
    from nas.search.pareto import front_order, hypervolume, nondominated
    from nas.search.rungs import Rungs
    from nas.search.sampler import FeasibleRandomSampler, GuidedSampler
    from nas.search.study import Entry, SearchOptions, SearchResult, Trained, Work, search

_HOME = {
    "Budget": "objectives", "Costs": "objectives", "Entry": "study", "FeasibleRandomSampler": "sampler",
    "GuidedSampler": "sampler", "RowCosts": "objectives", "Rungs": "rungs", "SearchOptions": "study",
    "SearchResult": "study", "Survey": "feasible", "Trained": "study", "Work": "study", "front_order": "pareto",
    "hypervolume": "pareto", "nondominated": "pareto", "search": "study", "survey": "feasible",
}  # fmt: skip

__all__ = [
    "Budget", "Costs", "Entry", "FeasibleRandomSampler", "GuidedSampler", "RowCosts", "Rungs", "SearchOptions",
    "SearchResult", "Survey", "Trained", "Work", "front_order", "hypervolume", "nondominated", "search", "survey",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
