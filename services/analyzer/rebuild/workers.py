"""Partitions folded and settled side by side, each in a process of a pool."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import uvloop

from libs.common.contracts.identity import PARTITIONS
from libs.common.db import Database
from services.analyzer.learner.fold import Parameters
from services.analyzer.model.panel import Panel
from services.analyzer.rebuild.partition import PartitionRebuild
from services.analyzer.store.rebuilding import Difference, PostgresRebuildStore

PATIENCE = 600.0
"""Seconds one statement may take: the switch of a large partition is one."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """What a rebuild is to do.

    Parameters
    ----------
    postgres:
        Where events, models and lessons are.
    kafka:
        Where to tell the live analyzer; empty: nobody is told.
    switch:
        Serve what was folded anew; otherwise it is only compared.
    processes:
        How many partitions are folded side by side.
    panel:
        Share of the customers whose orders say what was known before.
    learning:
        What the learner is set to; what a checkpoint of its own says goes before it.
    """

    postgres: str
    kafka: str = ""
    switch: bool = True
    processes: int = 2
    panel: float = 1.0
    learning: Parameters = field(default_factory=Parameters)


async def in_processes(plan: Plan, scratch: str) -> tuple[list[Folded], list[Difference]]:
    """Fold all partitions, and only when all of them could be folded switch any."""
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(plan.processes, mp_context=context, initializer=_begin)
    loop = asyncio.get_running_loop()

    async def each(work: Callable[[Plan, str, int], _T]) -> list[_T]:
        waiting = [loop.run_in_executor(pool, work, plan, scratch, n) for n in range(PARTITIONS)]
        return list(await asyncio.gather(*waiting))

    try:
        return await each(_fold), await each(_settle)
    finally:
        # Trap: where one partition failed the others are not waited for.
        pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """Before a process folds: what it makes lives until it is put away, so look for circles rarely."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    _end_with_parent()


def _end_with_parent() -> None:
    """Let nobody fold on for a rebuild that was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Folded(NamedTuple):
    """How many events of a partition were folded, and how many of them the present code cannot fold."""

    events: int
    refused: int


def _fold(plan: Plan, scratch: str, partition: int) -> Folded:
    async def work(store: PostgresRebuildStore) -> Folded:
        fold = PartitionRebuild(store, partition, panel=Panel(plan.panel))
        return Folded(await fold.fold(), fold.refused)

    return _run(plan, scratch, work)


def _settle(plan: Plan, scratch: str, partition: int) -> Difference:
    async def work(store: PostgresRebuildStore) -> Difference:
        return await PartitionRebuild(store, partition, panel=Panel(plan.panel)).settle(switch=plan.switch)

    return _run(plan, scratch, work)


def _run(plan: Plan, scratch: str, work: Callable[[PostgresRebuildStore], Awaitable[_T]]) -> _T:
    async def on_a_database() -> _T:
        database = Database(plan.postgres, size=2, timeout=PATIENCE)
        try:
            return await work(PostgresRebuildStore(database, scratch))
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(on_a_database())
