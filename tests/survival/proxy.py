"""A TCP proxy that misbehaves on request: latency, resets, silence; what it does follows from its seed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

from deploy.local.program import LOOPBACK

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends RST instead of FIN."""


@dataclass(frozen=True)
class Weather:
    """How bad the way is.

    Parameters
    ----------
    latency, jitter:
        Seconds each chunk waits, and at most as many again.
    resets:
        Probability that a chunk meets a reset instead of being passed on.
    refuse:
        New connections are reset at once.
    stall:
        Nothing moves, and nobody is told.
    """

    latency: float = 0.0
    jitter: float = 0.0
    resets: float = 0.0
    refuse: bool = False
    stall: bool = False


FAIR = Weather()


class FaultProxy:
    """Passes TCP connections on to ``target`` of the loopback address, through ``weather``.

    It lives in a thread of its own; all methods may be called from any other.
    """

    def __init__(self, target: int, seed: int, port: int = 0) -> None:
        self.target = target
        self.weather = FAIR
        self.connections = 0
        self.resets = 0
        self._random = Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, port))
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        self._call(self._cut)

    def close(self) -> None:
        """End the proxy and all that goes through it."""
        if self._thread.is_alive():
            self._call(self._end)
            self._thread.join(5)

    def _call(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._pass_on, sock=self._socket))
        self._loop.run_forever()
        self._loop.run_until_complete(self._wind_down())
        self._loop.close()

    def _end(self) -> None:
        self._cut()
        self._server.close()
        self._loop.stop()

    async def _wind_down(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _cut(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.refuse:
            _reset(writer)
            return
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            _reset(writer)
            return
        self._open |= {writer, back}
        try:
            await _either(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._open -= {writer, back}
            for side in (writer, back):
                side.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                weather = self.weather
                while self.weather.stall:
                    await asyncio.sleep(0.05)
                if weather.resets and self._random.random() < weather.resets:
                    self.resets += 1
                    _reset(writer)
                    return
                if weather.latency or weather.jitter:
                    await asyncio.sleep(weather.latency + weather.jitter * self._random.random())
                writer.write(chunk)
                await writer.drain()


async def _either(*ways: Coroutine[Any, Any, None]) -> None:
    """Run both ways of a connection; when one ends the other is over too."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
