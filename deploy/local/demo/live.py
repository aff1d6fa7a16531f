"""What the demo shows while it runs: a progress bar and one line that lives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from deploy.local.demo.figures import quantile
from deploy.local.demo.replay import Pulse

_EVERY = 0.25
_RATE_OVER = 12


@asynccontextmanager
async def watching(pulse: Pulse, console: Console) -> AsyncIterator[None]:
    """Draw ``pulse`` four times a second until the block ends."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    tasks: dict[str, TaskID] = {}
    seen: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER)

    def draw() -> Group:
        if pulse.stage not in tasks:
            for task in progress.tasks:
                progress.update(task.id, completed=task.total)
            tasks[pulse.stage] = progress.add_task(pulse.stage, total=pulse.total or None)
        progress.update(tasks[pulse.stage], completed=pulse.done, total=pulse.total or None)
        seen.append((time.monotonic(), pulse.events))
        return Group(progress, Text(line(pulse, rate(seen))))

    with Live(draw(), console=console, auto_refresh=False, transient=False) as live:

        async def redraw() -> None:
            while True:
                await asyncio.sleep(_EVERY)
                live.update(draw(), refresh=console.is_terminal)

        drawing = asyncio.create_task(redraw())
        try:
            yield
        finally:
            drawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drawing
            live.update(draw(), refresh=True)


def rate(seen: deque[tuple[float, int]]) -> float:
    """Events a second over the last moments."""
    (began, first), (now, last) = seen[0], seen[-1]
    return (last - first) / (now - began) if now > began else 0.0


def line(pulse: Pulse, events_per_second: float) -> str:
    """The line that lives."""
    parts = [f"{events_per_second:,.0f} events/s"]
    if pulse.loop_seconds:
        p50, p99 = (1_000 * quantile(pulse.loop_seconds, share) for share in (0.5, 0.99))
        parts.append(f"loop p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    if pulse.week_hits:
        share = sum(pulse.week_hits) / len(pulse.week_hits)
        parts.append(f"would have hit {share:.0%} of baskets in week {pulse.week}")
    return "  ·  ".join(parts)
