"""A service of this process on a real socket, in a thread of its own: for clients and pages of others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket

from libs.common.http.protocol import Limits
from libs.common.runtime import Patience, Service, _serve, running


@contextmanager
def served(create: Callable[[], Service]) -> Iterator[str]:
    """The URL of what ``create`` makes; it is created, served and stopped in another thread."""
    listener = socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    ready = threading.Event()
    ends: list[Callable[[], object]] = []

    async def live() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(asked.set))
        service = create()
        server = _serve(service.app, Limits(), Patience())
        async with running(service):
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            ready.set()
            await asked.wait()
            server.should_exit = True
            await serving

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    try:
        assert ready.wait(30), "the service does not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for end in ends:
            end()
        thread.join()
