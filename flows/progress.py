"""How a run says how far it is: silent by default, a line a step where a person watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Someone who is told of a run's steps; this one keeps it to itself."""

    def begin(self, step: str) -> None:
        """A step begins."""

    def advance(self, step: str, rows: int) -> None:
        """A step has dealt with that many more rows."""

    def end(self, step: str) -> None:
        """A step is over."""


_nobody = Progress()
_watcher = _nobody


def progress() -> Progress:
    """Whoever watches this process."""
    return _watcher


def is_watched() -> bool:
    """Whether anybody does."""
    return _watcher is not _nobody


@contextmanager
def watched_by(watcher: Progress) -> Iterator[None]:
    """Tell `watcher` of every step within."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before
