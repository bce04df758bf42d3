"""Work that is shared out between threads: all of it, once, and its errors told."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import pytest

from flows.warehouse.threads import one_ahead, share_out


def test_an_error_in_the_background_reaches_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    waiting = one_ahead(items())
    assert next(waiting) == 1
    with pytest.raises(ValueError, match="broken"):
        next(waiting)


def test_every_item_is_done_once_and_by_all_workers() -> None:
    done: list[tuple[str, int]] = []
    both_at_work = threading.Barrier(2, timeout=10)

    def work(name: str, item: int) -> None:
        if item < 2:
            both_at_work.wait()
        done.append((name, item))

    share_out(
        (item for item in range(100)),
        [lambda item: work("a", item), lambda item: work("b", item)],
    )
    assert sorted(item for _, item in done) == list(range(100))
    assert {name for name, _ in done} == {"a", "b"}


def test_an_item_is_made_only_when_a_worker_is_free() -> None:
    at_work = 0
    most = 0
    counting = threading.Lock()

    def items() -> Generator[int, None, None]:
        nonlocal at_work, most
        for item in range(50):
            with counting:
                at_work += 1
                most = max(most, at_work)
            yield item

    def work(_: int) -> None:
        nonlocal at_work
        with counting:
            at_work -= 1

    share_out(items(), [work, work, work])
    assert most <= 3


def test_after_a_failure_nobody_begins_another_item() -> None:
    begun: list[int] = []
    failing = threading.Event()
    closed = threading.Event()

    def items() -> Generator[int, None, None]:
        try:
            yield from range(100)
        finally:
            closed.set()

    def fail(item: int) -> None:
        begun.append(item)
        failing.set()
        raise ValueError("broken")

    def wait(item: int) -> None:
        begun.append(item)
        assert failing.wait(10)
        assert closed.wait(10)

    with pytest.raises(ValueError, match="broken"):
        share_out(items(), [wait, fail])
    assert len(begun) <= 2
