"""Seconds, and how many threads they are measured with."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def seconds_of(run: Callable[[], object]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Compute with so many threads, PyTorch's own number by default; give the number, and put back what was."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
