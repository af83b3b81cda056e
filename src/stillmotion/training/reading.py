"""Clips read ahead while a step is computed."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from stillmotion.training.clips import TrainingClip


class Reader:
    """Gives the clips of a run in order, by global index, reading ahead in threads.

    Which clip an index is does not depend on when, or by which thread, it is read.
    """

    def __init__(self, draw: Callable[[int], TrainingClip], num_workers: int, indices: Iterable[int]) -> None:
        self._draw, self._num_workers = draw, num_workers
        self._coming = iter(indices)
        self._ahead: deque[tuple[int, Future[TrainingClip]]] = deque()
        self._pool = ThreadPoolExecutor(num_workers) if num_workers else None
        self._waited = 0.0

    def fetch(self, index: int) -> TrainingClip:
        """Return the clip of a global index."""
        started = time.perf_counter()
        clip = self._draw(index) if self._pool is None else self._next(index, self._pool)
        self._waited += time.perf_counter() - started
        return clip

    def take_waited(self) -> float:
        """Return the seconds spent waiting since this was last asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _next(self, index: int, pool: ThreadPoolExecutor) -> TrainingClip:
        while len(self._ahead) < 2 * self._num_workers and (coming := next(self._coming, None)) is not None:
            self._ahead.append((coming, pool.submit(self._draw, coming)))
        if not self._ahead or self._ahead[0][0] != index:
            return self._draw(index)  # asked for out of order
        return self._ahead.popleft()[1].result()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
