"""Tasks that live as long as their owner: a death is noticed, a stop leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Background:
    """The background tasks of one part of a service."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] | None = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` until it ends or `stop`."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("a background task died: %s", error, exc_info=error)
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()

    async def watch(self) -> None:
        """Wait for ever, or raise what a task died of: for `Service.background`."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended, two seconds at most."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)
