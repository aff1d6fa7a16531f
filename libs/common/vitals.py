"""How promptly a process does what it is asked: the lag of its event loop."""

from __future__ import annotations

import asyncio

from libs.common.telemetry import Metrics

EVERY = 0.25
"""Seconds between two looks."""


class Vitals:
    """Measures, for as long as a process runs, how late its event loop wakes a task that is due."""

    def __init__(self, metrics: Metrics) -> None:
        self._lag = metrics.histogram(
            "loop_lag_seconds",
            "How late the event loop wakes a task: what every request waits on top",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
        )

    async def run(self) -> None:
        """Look again and again, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY
            await asyncio.sleep(EVERY)
            self._lag.observe(max(0.0, loop.time() - due))
