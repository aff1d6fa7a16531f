"""A small HTTP/1.1 load generator: keep-alive connections, raw requests, latencies of every answer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools


@dataclass
class Result:
    """What came back: seconds of the run, and the latency of each answer in milliseconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """Latency in ms that ``share`` of the answers did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    @property
    def failed(self) -> int:
        """Answers other than 2xx."""
        return sum(n for status, n in self.statuses.items() if not 200 <= status < 300)


def request(path: str, body: bytes, key: str = "", method: str = "POST") -> bytes:
    """The bytes of one request with a JSON body."""
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{auth}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection; asks for its next request as soon as an answer is complete."""

    def __init__(self, next_request: Callable[[], bytes | None], result: Result) -> None:
        self.next_request = next_request
        self.result = result
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent: deque[float] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpResponseParser(self)

    def send(self) -> None:
        data = self.next_request()
        if data is None:
            if not self.sent and not self.done.done():
                self.done.set_result(None)
            return
        self.sent.append(time.perf_counter())
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        self.result.statuses[status] = self.result.statuses.get(status, 0) + 1
        self.result.latencies.append((time.perf_counter() - self.sent.popleft()) * 1000)
        self.parser = httptools.HttpResponseParser(self)
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


async def saturate(port: int, make: Callable[[], bytes], connections: int, seconds: float) -> Result:
    """Keep ``connections`` busy for ``seconds``: the highest rate the server can do."""
    loop = asyncio.get_running_loop()
    result = Result()
    end = time.perf_counter() + seconds

    def next_request() -> bytes | None:
        return make() if time.perf_counter() < end else None

    lines = [
        (await loop.create_connection(lambda: _Connection(next_request, result), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    begin = time.perf_counter()
    for line in lines:
        line.send()
    await asyncio.gather(*(line.done for line in lines))
    result.seconds = time.perf_counter() - begin
    for line in lines:
        line.transport.close()
    return result


async def pace(port: int, make: Callable[[], bytes], connections: int, rate: float, seconds: float) -> Result:
    """Send ``rate`` requests a second, evenly, whatever comes back: latencies at a given load.

    A request that finds no free connection waits, and its wait counts (no coordinated omission).
    """
    loop = asyncio.get_running_loop()
    result = Result()
    waiting: deque[float] = deque()
    idle: list[_Paced] = []

    class _Paced(_Connection):
        def ask(self, due: float) -> None:
            self.sent.append(due)
            self.transport.write(make())

        def send(self) -> None:
            if waiting:
                self.ask(waiting.popleft())
            else:
                idle.append(self)

    lines = [
        (await loop.create_connection(lambda: _Paced(lambda: None, result), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    idle.extend(lines)
    begin = time.perf_counter()
    total = int(rate * seconds)
    for n in range(total):
        due = begin + n / rate
        if (rest := due - time.perf_counter()) > 0:
            await asyncio.sleep(rest)
        if idle:
            idle.pop().ask(due)
        else:
            waiting.append(due)
    deadline = time.perf_counter() + 10
    while len(result.latencies) < total and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    result.seconds = time.perf_counter() - begin
    for line in lines:
        line.done.cancel()
        line.transport.close()
    return result
