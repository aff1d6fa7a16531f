"""How well-behaved requests fare beside slow senders and enormous headers: their latency with and without."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HUGE = 64 * 1_024
PAUSE = 0.02


@dataclass
class Latencies:
    """Milliseconds of each well-behaved request, and what became of the others' connections."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)


def quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(url: str, bearer: str, *, slow: int, huge: int, seconds: float, rounds: int) -> Latencies:
    """Post touchpoints at a steady pace for ``seconds``, by turns alone and beside others, ``rounds`` times.

    ``slow`` connections send a byte every 250 ms, half of them in the head, half in the body; ``huge`` more
    send a head of 64 kB again and again. Slow ones live through all rounds beside, until they are cut off.
    """
    found = Latencies()
    where = urlsplit(url)
    host, port = where.hostname or "", where.port or 0
    for _ in range(rounds):
        await _well_behaved(host, port, bearer, seconds, found.alone, found.statuses)
        kinds: list[Callable[[], Coroutine[None, None, str]]] = [
            lambda: _slow_head(host, port),
            lambda: _slow_body(host, port, bearer),
        ]
        others = [asyncio.create_task(_again(kinds[n % 2], found.others)) for n in range(slow)]
        others += [
            asyncio.create_task(_again(lambda: _huge_head(host, port), found.others)) for _ in range(huge)
        ]
        await asyncio.sleep(0.5)
        await _well_behaved(host, port, bearer, seconds, found.beside, found.statuses)
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    return found


async def cut_off(url: str, bearer: str) -> dict[str, tuple[str, float]]:
    """How each kind ends when it is left alone, and after how many seconds."""
    where = urlsplit(url)
    host, port = where.hostname or "", where.port or 0

    async def timed(kind: Coroutine[None, None, str]) -> tuple[str, float]:
        began = time.monotonic()
        return await kind, time.monotonic() - began

    head, body, huge = await asyncio.gather(
        timed(_slow_head(host, port)), timed(_slow_body(host, port, bearer)), timed(_huge_head(host, port))
    )
    return {"slow head": head, "slow body": body, "64 kB head": huge}


async def _well_behaved(
    host: str, port: int, bearer: str, seconds: float, took: list[float], statuses: Counter[int]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    touch = {"type": "page_viewed", "channel": "web", "customer_id": "beside"}
    body = json.dumps(touch).encode()
    head = (
        f"POST /v1/touchpoints HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        took.append(1_000 * (time.perf_counter() - began))
        statuses[int(answer.split(b" ", 2)[1])] += 1
        await asyncio.sleep(PAUSE)
    writer.close()


async def _again(kind: Callable[[], Coroutine[None, None, str]], ends: Counter[str]) -> None:
    while True:
        ends[await kind()] += 1


async def _slow_head(host: str, port: int) -> str:
    return await _dribble(host, port, b"POST /v1/touchpoints HTTP/1.1\r\nhost: x\r\nx-slow: ")


async def _slow_body(host: str, port: int, bearer: str) -> str:
    head = (
        f"POST /v1/touchpoints HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\ncontent-length: 9000\r\n\r\n"
    )
    return await _dribble(host, port, head.encode())


async def _dribble(host: str, port: int, first: bytes) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(first)
        reading = asyncio.ensure_future(reader.read(200))
        while not reading.done():
            with suppress(ConnectionError):
                writer.write(b"a")
                await writer.drain()
            await asyncio.wait([reading], timeout=0.25)
        return _end(reading)
    finally:
        writer.close()


async def _huge_head(host: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        with suppress(ConnectionError):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-huge: " + b"a" * HUGE + b"\r\n\r\n")
            await writer.drain()
        reading = asyncio.ensure_future(reader.read(200))
        await asyncio.wait([reading])
        return _end(reading)
    finally:
        writer.close()


def _end(reading: asyncio.Future[bytes]) -> str:
    """The status of the answer, or that the connection was closed without."""
    if isinstance(reading.exception(), ConnectionError) or not reading.result():
        return "closed"
    return reading.result().split(b" ", 2)[1].decode()


def table(found: Latencies) -> str:
    """Both distributions, and what became of the others."""
    lines = ["| touchpoints | requests | p50 ms | p95 ms | p99 ms |", "|---|---|---|---|---|"]
    for name, took in (("alone", found.alone), ("beside them", found.beside)):
        figures = " | ".join(f"{quantile(took, share):.1f}" for share in (0.5, 0.95, 0.99))
        lines.append(f"| {name} | {len(took)} | {figures} |")
    ratio = statistics.median(found.beside) / statistics.median(found.alone)
    ends = ", ".join(f"{end} × {number}" for end, number in sorted(found.others.items()))
    return "\n".join([*lines, "", f"median {ratio:.2f} ×; the others: {ends or 'still sending'}"])
