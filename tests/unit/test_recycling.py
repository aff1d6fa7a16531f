"""The embedded broker is replaced when it is too large, and not for ever where the models themselves are."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from deploy.local import recycling
from deploy.local.platform import Options, Platform
from deploy.local.recycling import QUIET_SECONDS, SETTLE_SECONDS, BrokerKeeper, Recycling
from deploy.local.supervisor import Supervisor
from libs.common.errors import Misconfigured
from tests.unit.test_supervisor import eventually, shell

MB = 1 << 20


def test_first_broker_is_due_above_the_limit() -> None:
    rule = Recycling(512 * MB)
    assert [rule.due(size * MB, 5.0) for size in (100, 512, 513)] == [False, False, True]


def test_new_broker_is_given_time_to_be_filled_again() -> None:
    rule = Recycling(512 * MB)
    rule.began(100.0)
    assert not rule.due(200 * MB, 100.0 + SETTLE_SECONDS - QUIET_SECONDS)
    assert not rule.due(200 * MB, 100.0 + SETTLE_SECONDS)
    assert not rule.due(500 * MB, 200.0)
    assert rule.due(520 * MB, 201.0)


def test_publishing_that_takes_minutes_is_waited_for_but_not_for_ever() -> None:
    rule = Recycling(512 * MB)
    rule.began(0.0)
    assert not any(rule.due(10 * second * MB, second) for second in range(180))
    assert not any(rule.due(1_800 * MB, second) for second in range(180, 200))
    assert rule.most == 3_600 * MB
    rule.began(0.0)
    assert any(rule.due(10 * second * MB, second) for second in range(1_300))


def test_first_broker_of_a_database_that_exists_is_filled_too() -> None:
    now = [0.0]
    keeper = BrokerKeeper(1, lambda: None, _never, lambda line: None, lambda: now[0], refilled=True)
    assert not keeper._recycling.due(600 * MB, 1.0)


async def _never() -> None:
    raise AssertionError("replaced")


def test_models_larger_than_the_limit_do_not_have_it_replaced_again_and_again() -> None:
    rule = Recycling(512 * MB)
    rule.began(0.0)
    assert not rule.due(700 * MB, SETTLE_SECONDS - QUIET_SECONDS)
    assert not rule.due(700 * MB, SETTLE_SECONDS)
    assert not rule.due(1_300 * MB, 500.0)
    assert rule.due(1_401 * MB, 501.0)
    rule.began(502.0)
    assert rule.most == 512 * MB


async def test_replacing_is_not_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its real size changes while it starts, which is growth.
    monkeypatch.setattr(recycling, "_resident", lambda pid: pid and 10 * MB)
    said: list[str] = []
    supervisor = Supervisor(said.append)
    await supervisor.start(shell("broker", "exec sleep 60", tmp_path))
    now = 0.0

    async def replace() -> None:
        supervisor.replace("broker")

    keeper = BrokerKeeper(1, lambda: supervisor.pids.get("broker"), replace, said.append, lambda: now)
    pids = [supervisor.pids["broker"]]
    for _ in range(4):
        await keeper.look()
        await eventually(lambda: supervisor.pids.get("broker") not in (None, *pids))
        pids.append(supervisor.pids["broker"])
        await keeper.look()
        monkeypatch.setattr(recycling, "ROOM", 0.0)
        now += SETTLE_SECONDS
    assert keeper.recycled == 4
    assert [line for line in said if not line.startswith("broker recycled at")] == []
    failing = asyncio.create_task(supervisor.failure())
    await asyncio.sleep(0)
    assert not failing.done()
    failing.cancel()
    await supervisor.stop_all()


async def test_signal_of_erase_never_ends_a_platform_that_is_starting(tmp_path: Path) -> None:
    nowhere = Options(
        tmp_path, port_base=19_120, kafka="127.0.0.1:1", postgres="postgresql://x@127.0.0.1:1/x"
    )
    platform = Platform(nowhere, lambda line: None)
    try:
        with pytest.raises(Misconfigured, match="no PostgreSQL"):
            await platform.start()
        assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
        await platform.stop()


async def test_care_of_the_broker_that_fails_ends_the_platform() -> None:
    platform = Platform(Options(), lambda line: None)
    platform._supervisor = Supervisor(lambda line: None)
    platform._keeping = asyncio.create_task(_never())
    async with asyncio.timeout(2):
        with pytest.raises(AssertionError, match="replaced"):
            await platform.failure()
