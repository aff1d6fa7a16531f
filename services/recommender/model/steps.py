"""Work that pauses after each step, so that several can be done side by side, and some steps at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")


class Shared(NamedTuple):
    """A step that is done for several works at once: ``do`` gives the results of parts in their order."""

    do: Callable[[Sequence[Any]], Sequence[Any]]
    part: Any


Steps = Generator[Shared, Any, T]
"""Work that pauses at each `together`, and returns its result."""


def together(do: Callable[[Sequence[P]], Sequence[R]], part: P) -> Steps[R]:
    """What ``do`` makes of ``part``, called once for the parts of all works that have come to this step."""
    done: R = yield Shared(do, part)
    return done


def side_by_side(works: Iterable[Steps[T]]) -> list[T | Exception]:
    """What comes of ``works``, or why nothing does; all take a step before any takes the next.

    A decision runs through more code than a core keeps at hand, and half of it is the price of calling numpy.
    Where twenty take the same step one after the other, its code is loaded once; where one call does it for
    all twenty, that price is paid once.
    """
    going: list[tuple[int, Steps[T], Any]] = [(at, work, None) for at, work in enumerate(works)]
    results: dict[int, T | Exception] = {}
    while going:
        paused: list[tuple[int, Steps[T], Shared]] = []
        for at, work, done in going:
            try:
                step = work.throw(done.error) if isinstance(done, _Failed) else work.send(done)
            except StopIteration as end:
                results[at] = end.value
            except Exception as error:
                results[at] = error
            else:
                paused.append((at, work, step))
        done_by_work = _done([step for _, _, step in paused])
        going = [(at, work, done) for (at, work, _), done in zip(paused, done_by_work, strict=True)]
    return [results[at] for at in sorted(results)]


class _Failed(NamedTuple):
    """Why a shared step has no result."""

    error: Exception


def _done(steps: Sequence[Shared]) -> list[Any]:
    """The results of shared steps, each function called once."""
    waiting: dict[Any, list[int]] = {}
    for at, step in enumerate(steps):
        waiting.setdefault(step.do, []).append(at)
    found: list[Any] = [None] * len(steps)
    for do, places in waiting.items():
        for at, done in zip(places, _tried(do, [steps[at].part for at in places]), strict=True):
            found[at] = done
    return found


def _tried(do: Callable[[Sequence[Any]], Sequence[Any]], parts: Sequence[Any]) -> Sequence[Any]:
    try:
        return do(parts)
    except Exception as error:
        if len(parts) == 1:
            return [_Failed(error)]
    # One of them is at fault: by itself it fails alone.
    return [done for part in parts for done in _tried(do, [part])]
