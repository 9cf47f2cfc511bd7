"""Works on many images in threads, in order and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

Result = TypeVar("Result")

_PENDING_PER_WORKER = 4
"""Images per worker that are decoded or wait: enough to bridge one slow image, few enough to fit into memory."""


def map_in_order(
    work: Callable[..., Result], items: Iterable[tuple[object, ...]], workers: int, max_pending: int | None = None
) -> Iterator[Result]:
    """Call a function in threads and yield the results in the order of the items.

    Args:
        work: called once for each item; OpenCV uses one thread inside it.
        items: arguments of each call, taken only when they are needed.
        workers: threads.
        max_pending: largest number of calls that run, wait, or have a result that was not yielded; None for a few per
            worker.

    Yields:
        What ``work`` returned. What it raised is raised when its turn comes.
    """
    pending: deque[Future[Result]] = deque()
    limit = max_pending or workers * _PENDING_PER_WORKER
    with _single_threaded_opencv(), ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, *item))
                if len(pending) >= limit:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """Keep OpenCV from splitting each image over the cores while whole images are spread over them."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
