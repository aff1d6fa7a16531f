"""Background tasks: a death is raised to whoever watches, whatever it died of."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.background import Background, let_go


async def forever() -> None:
    await asyncio.Event().wait()


async def test_watch_raises_what_a_task_died_of() -> None:
    async def dies() -> None:
        raise ValueError("a bug")

    background = Background()
    background.spawn(forever())
    background.spawn(dies())
    with pytest.raises(ValueError, match="a bug"):
        await background.watch()
    await background.stop()


async def test_cancellation_that_nobody_asked_for_is_a_death() -> None:
    async def leaks() -> None:
        raise asyncio.CancelledError

    background = Background()
    background.spawn(leaks())
    with pytest.raises(RuntimeError, match="cancelled by nobody"):
        await background.watch()
    await background.stop()


async def test_task_that_ends_and_a_stop_are_no_deaths() -> None:
    async def ends() -> None:
        return None

    background = Background()
    background.spawn(ends())
    background.spawn(forever())
    watching = asyncio.create_task(background.watch())
    await asyncio.sleep(0)
    await background.stop()
    assert not watching.done()
    watching.cancel()


async def test_close_that_leaks_a_cancellation_is_borne_but_a_real_one_passes() -> None:
    async def leaks() -> None:
        raise asyncio.CancelledError

    await let_go(leaks())
    task = asyncio.create_task(let_go(forever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
