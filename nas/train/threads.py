"""Threads of torch.

OpenMP's threads spin while they wait. On a shared machine that is ruinous: two threads on two busy cores
trained 25 to 63 images a second where one thread did 330 to 580. So whatever computes here uses one thread
unless told otherwise; processes that we start wait passively, see `nas.workers`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads within the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
