"""How a service lives as a process: start, serve, stop within 20 seconds whatever is down."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import inspect
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvicorn
import uvloop

from libs.common.errors import Misconfigured
from libs.common.http.factory import HttpApp
from libs.common.http.health import Phase
from libs.common.http.protocol import Limits, protocol_with
from libs.common.settings import (
    CommonSettings,
    list_settings,
    load_settings,
    unknown_variables,
    variable_name,
)
from libs.common.telemetry import set_up_logs

S = TypeVar("S", bound=CommonSettings)

OK, CRASHED, MISCONFIGURED = 0, 1, 2
_GIVE_UP_START = 2.0
_COLLECT = (10_000, 10, 100)
_SWITCH = 0.0005
"""Seconds that a busy event loop keeps the interpreter lock where another thread waits for it. A commit of
the spool asks for it a dozen times, and each time would wait Python's usual 5 ms."""
_log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Patience:
    """How long a stop may take, in seconds: for requests in flight, for ``Service.stop``, and in all."""

    requests: int = 5
    stop: float = 8.0
    total: float = 18.0


class BackgroundEnded(Exception):
    """A background task ended although nobody asked it to."""


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    """The service started, its background tasks running, without a socket: for tests and embedding.

    An error of a background task is raised when the block is left.
    """
    lifecycle = service.app.lifecycle
    tasks: list[asyncio.Task[None]] = []
    lifecycle.move(Phase.STARTING)
    try:
        await service.start()
        tasks = _spawn(service)
        lifecycle.move(Phase.RUNNING)
        yield service
        await asyncio.sleep(0)
        _raise_ended(tasks)
    finally:
        lifecycle.move(Phase.STOPPING)
        await _wind_down(service, tasks, Patience().stop)


def run(
    settings_type: type[S],
    create: Callable[[S], Service] | Callable[[S], Awaitable[Service]],
    name: str,
    limits: Limits | None = None,
    patience: Patience | None = None,
) -> None:
    """Be the service: what every ``__main__`` calls. Ends the process with its exit status.

    Exit status 0 after SIGTERM or SIGINT, 2 with one line on stderr for a `Misconfigured`, 1 for a crash.
    ``create`` is called inside the event loop (uvloop).
    """
    try:
        settings = load_settings(settings_type)
        set_up_logs(name, settings.log_level)
        sys.setswitchinterval(_SWITCH)
        _log_settings(settings)
        with _listen(settings, settings_type) as listener:
            status = uvloop.run(_live(settings, create, listener, limits or Limits(), patience or Patience()))
    except Misconfigured as error:
        print(f"closedloop {name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        status = MISCONFIGURED
    except Exception:
        _log.exception("crashed")
        status = CRASHED
    # Trap: threads of clients that hang on a dead server must not keep a finished process alive.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def _log_settings(settings: CommonSettings) -> None:
    _log.info("starting", extra={"settings": {line.variable: line.value for line in list_settings(settings)}})
    for variable in unknown_variables(type(settings)):
        _log.warning("unknown setting", extra={"variable": variable})


def _listen(settings: CommonSettings, settings_type: type[CommonSettings]) -> socket.socket:
    variable = variable_name(settings_type, "port")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2_048)
    except (OSError, OverflowError) as error:
        listener.close()
        code = error.errno if isinstance(error, OSError) else None
        if code == errno.EADDRINUSE:
            reason = f"port {settings.port} is in use on {settings.host}: stop what listens there"
            raise Misconfigured(f"{reason}, or set {variable} to a free port") from None
        reason = f"cannot listen on {settings.host}:{settings.port}: {getattr(error, 'strerror', error)}"
        raise Misconfigured(f"{reason}; check CLOSEDLOOP_HOST and {variable}") from None
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _live(
    settings: S,
    create: Callable[[S], Service] | Callable[[S], Awaitable[Service]],
    listener: socket.socket,
    limits: Limits,
    patience: Patience,
) -> int:
    made = create(settings)
    service = await made if inspect.isawaitable(made) else made
    lifecycle = service.app.lifecycle
    server = _serve(service.app, limits, patience)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    lifecycle.move(Phase.STARTING)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    tasks: list[asyncio.Task[None]] = []
    status = OK
    try:
        if await _until(asked, asyncio.ensure_future(service.start())):
            _set_apart()
            tasks = _spawn(service)
            lifecycle.move(Phase.RUNNING)
            _log.info("running", extra={"host": settings.host, "port": listener.getsockname()[1]})
            await _first([asyncio.ensure_future(asked.wait()), serving, *tasks])
            _raise_ended([*tasks, serving] if not asked.is_set() else [])
    except Misconfigured:
        raise
    except Exception:
        _log.exception("crashed")
        status = CRASHED
    finally:
        lifecycle.move(Phase.STOPPING)
        _stop_at_all_costs(patience.total, status)
        server.should_exit = True
        with contextlib.suppress(Exception):
            await asyncio.wait_for(serving, patience.requests + 1)
        await _wind_down(service, tasks, patience.stop)
        _log.info("stopped")
    return status


def _set_apart() -> None:
    """Let the garbage collector pass over what lives as long as the process.

    A full collection would go through every module and class, 30 ms in which nothing is answered. Young ones
    are rare too: next to nothing here is in a cycle, and most of what they go through lives on in caches.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def _serve(app: HttpApp, limits: Limits, patience: Patience) -> _Server:
    config = uvicorn.Config(
        app,
        http=protocol_with(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=patience.requests,
    )
    return _Server(config)


async def _until(asked: asyncio.Event, starting: asyncio.Future[None]) -> bool:
    """Wait for the start, or for the wish to stop; whether the start came first."""
    await _first([asyncio.ensure_future(asked.wait()), starting])
    if starting.done():
        await starting
        return not asked.is_set()
    starting.cancel()
    # Trap: a start that is deaf to its cancellation must not hold up the stop; it dies with the process.
    await asyncio.wait([starting], timeout=_GIVE_UP_START)
    return False


async def _first(waiting: Sequence[asyncio.Future[Any]]) -> None:
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


def _spawn(service: Service) -> list[asyncio.Task[None]]:
    return [
        asyncio.create_task(_body(task), name=getattr(task, "__qualname__", "background"))
        for task in [*service.background, service.app.vitals.run]
    ]


async def _body(task: Callable[[], Awaitable[None]]) -> None:
    await task()


def _raise_ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()
            raise BackgroundEnded(f"{task.get_name()} ended on its own")


async def _wind_down(service: Service, tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Stop the service, then what still runs; each within its time, errors logged and not raised."""
    try:
        await asyncio.wait_for(_body(service.stop), seconds)
    except Exception as error:
        _log.warning("stop was not clean", extra={"error": type(error).__name__})
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=2.0)


def _stop_at_all_costs(seconds: float, status: int) -> None:
    """End the process when an orderly stop takes too long, even if the event loop hangs."""
    timer = threading.Timer(seconds, os._exit, (status or CRASHED,))
    timer.daemon = True
    timer.start()
