"""Tasks that live as long as their owner: a death is noticed, a stop leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Background:
    """The background tasks of one part of a service; a death in it is one in its ``parent`` too."""

    def __init__(self, parent: Background | None = None) -> None:
        self._parent = parent
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] | None = None
        self._stopping = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` until it ends or `stop`."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error: BaseException | None
        if not task.cancelled():
            error = task.exception()
        elif not self._stopping:
            # Trap: libraries let their own cancellations escape; such a task would be gone without a word.
            error = RuntimeError(f"cancelled by nobody: {task!r}")
        else:
            error = None
        if error is None:
            return
        _log.error("a background task died: %s", error, exc_info=error)
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()
        if self._parent is not None:
            self._parent._fail(error)

    async def watch(self) -> None:
        """Wait for ever, or raise what a task died of: for `Service.background`."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended, two seconds at most."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)


async def let_go(closing: Awaitable[None]) -> None:
    """Await the close of something whose client library lets cancellations of its own escape."""
    try:
        await closing
    except asyncio.CancelledError as error:
        if cancelled(error):
            raise
        _log.warning("a close was cut short by the client library")


def cancelled(error: BaseException) -> bool:
    """Whether ``error`` is our own cancellation, and not one that a client library let escape."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
