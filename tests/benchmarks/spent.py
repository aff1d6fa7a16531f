"""``python -m tests.benchmarks.spent``: CPU seconds by process while nothing, something and much happens.

Not timed, so it says the same on a machine that is shared: what the embedded broker and PostgreSQL take
beside the services is most of what a small installation costs.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from tests.benchmarks.load import pace, request
from tests.benchmarks.rig import KEY, Rig, platform, threads
from tests.benchmarks.rows import exchange, touchpoints

SECONDS = 20.0
EVENTS_A_SECOND = 100
ASKED_A_SECOND = 10
MUCH = 20_000
CHUNK = 800


def main() -> None:
    """Print a table: processes by phases."""
    found: dict[str, dict[str, float]] = {}
    with platform("--no-holdout", *sys.argv[1:]) as rig:
        time.sleep(5)
        for name, phase in (("idle", idle), ("some", some), ("much", much)):
            before = spent(rig)
            phase(rig)
            after = spent(rig)
            found[name] = {process: after[process] - before[process] for process in before}
    print(f"| CPU seconds | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
    for process in sorted(found["idle"]):
        print(f"| {process} | {' | '.join(f'{found[name][process]:.2f}' for name in found)} |")
    print(f"| all | {' | '.join(f'{sum(by.values()):.2f}' for by in found.values())} |")


def spent(rig: Rig) -> dict[str, float]:
    """CPU seconds by process, those of its children with it."""
    return {
        name: sum(map(_cpu, threads(pid))) + _ended(pid)
        for name, pid in rig.pids.items()
        # The parent of all.
        if name != "up"
    }


def _cpu(thread: int) -> float:
    try:
        fields = Path(f"/proc/{thread}/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ended(pid: int) -> float:
    """Of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def idle(rig: Rig) -> None:
    """Nothing but ticks."""
    time.sleep(SECONDS)


def some(rig: Rig) -> None:
    """100 events a second, one at a time, and 10 answers a second that wait for what was posted before."""
    uvloop.run(_some(rig))


async def _some(rig: Rig) -> None:
    viewed = {"type": "product_viewed", "channel": "web", "properties": {"product_id": "p1"}}
    touch = request("/v1/touchpoints", msgspec.json.encode({**viewed, "customer_id": "spent"}), KEY)

    async def ask() -> None:
        end = time.perf_counter() + SECONDS
        while (began := time.perf_counter()) < end:
            posted = await exchange(rig.port("collector"), touch)
            asked = {"placement": "basket", "customer_id": "spent", "after": posted["position"]}
            question = request("/v1/recommendations", msgspec.json.encode({**asked, "wait_ms": 1000}), KEY)
            await exchange(rig.port("recommender"), question)
            await asyncio.sleep(max(0.0, 1 / ASKED_A_SECOND - (time.perf_counter() - began)))

    async def load() -> None:
        make = touchpoints()
        for _ in range(int(SECONDS)):
            # Trap: a connection that nobody needs for some seconds is closed by the server.
            await pace(rig.port("collector"), make, 4, EVENTS_A_SECOND, 1.0)

    await asyncio.gather(ask(), load())


def much(rig: Rig) -> None:
    """20,000 events in batches of 800 as fast as they are taken, until all are applied."""
    numbers = iter(range(MUCH // CHUNK))

    def batch() -> bytes:
        n = next(numbers)
        items = [
            {
                "id": f"m{n}-{i}",
                "type": "product_viewed",
                "channel": "web",
                "customer_id": f"c{(n * CHUNK + i) % 2_000}",
                "properties": {"product_id": f"p{i % 500}"},
            }
            for i in range(CHUNK)
        ]
        return request("/v1/touchpoints", msgspec.json.encode(items), KEY)

    for _ in range(MUCH // CHUNK):
        uvloop.run(exchange(rig.port("collector"), batch()))
        while int(str(rig.call("analyzer", "/v1/ledger")["in_flight"])) > 4_000:
            time.sleep(0.1)
    while rig.call("analyzer", "/v1/ledger")["in_flight"]:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
