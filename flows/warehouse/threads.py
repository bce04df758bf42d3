"""Work in threads: what of it may overlap, and how its errors reach the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
END: Any = object()


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a thread while the caller is busy with the one before."""
    with ThreadPoolExecutor(1) as worker:
        following = worker.submit(next, items, END)
        while (item := following.result()) is not END:
            following = worker.submit(next, items, END)
            yield item


def share_out(items: Generator[T, None, None], workers: Sequence[Callable[[T], None]]) -> None:
    """Hand each item to the worker that is free next, each of them in a thread of its own.

    An item is made when it is asked for, so that there are never more of them than workers. After
    a failure nobody begins another item, and once all stand still it is raised.
    """
    turn = threading.Lock()

    def stop() -> None:
        with turn:
            items.close()

    def work(worker: Callable[[T], None]) -> None:
        try:
            while True:
                with turn:
                    item = next(items, END)
                if item is END:
                    return
                worker(item)
                del item
        except BaseException:
            stop()
            raise

    with ThreadPoolExecutor(len(workers)) as threads:
        try:
            for done in [threads.submit(work, worker) for worker in workers]:
                done.result()
        except BaseException:
            stop()
            raise
