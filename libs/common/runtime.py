"""How a service lives as a process: start, serve, stop within 20 seconds whatever is down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from libs.common.http.factory import HttpApp
from libs.common.settings import CommonSettings

S = TypeVar("S", bound=CommonSettings)


async def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Service:
    """A service put together by its ``create_service``, ready to be started.

    Parameters
    ----------
    name:
        ``collector``, ``analyzer``, …
    app:
        What `create_http` made. Its ``lifecycle`` is moved by whoever runs the service.
    start:
        Verifies dependencies and makes everything ready; raises `Misconfigured` where that can never work.
    stop:
        Lets go of everything; called once, after the last request, also when ``start`` failed half-way.
    background:
        Coroutine functions that run from start to stop. One that ends or raises before the stop ends the
        process with exit status 1 (its supervisor starts it again).
    """

    name: str
    app: HttpApp
    start: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing
    background: Sequence[Callable[[], Awaitable[None]]] = field(default_factory=tuple)


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    """The service started, its background tasks running, without a socket: for tests and embedding."""
    yield service


def run(
    settings_type: type[S],
    create: Callable[[S], Service] | Callable[[S], Awaitable[Service]],
    name: str,
) -> None:
    """Be the service: what every ``__main__`` calls. Ends the process with its exit status.

    Exit status 0 after SIGTERM or SIGINT, 2 with one line on stderr for a `Misconfigured`, 1 for a crash.
    ``create`` is called inside the event loop (uvloop).
    """
