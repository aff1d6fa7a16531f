"""What dies comes back, what cannot run stops loudly, and what was accepted is there afterwards."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.rig import Up, alive, closedloop, eventually, free_base

CUSTOMERS = 50
EVENTS = 5_000
BATCH = 250


def view(number: int) -> dict[str, Any]:
    return {
        "id": f"view-{number}",
        "type": "product_viewed",
        "channel": "web",
        "customer_id": f"c{number % CUSTOMERS}",
        "properties": {"product_id": f"p{number % 7}"},
    }


def post_views(up: Up, first: int, last: int) -> None:
    for at in range(first, last, BATCH):
        batch = [view(number) for number in range(at, min(last, at + BATCH))]
        answer = up.post("collector", "/v1/touchpoints", batch)
        assert answer.status_code == 202, answer.text
        assert answer.json()["accepted"] == len(batch)


def counted(up: Up) -> int:
    """What the customers' models have counted, all together."""
    found = [up.get("analyzer", f"/v1/customers/c{number}") for number in range(CUSTOMERS)]
    return sum(
        each.json()["totals"].get("product_viewed", 0) if each.status_code == 200 else 0 for each in found
    )


@pytest.mark.timeout(400)
def test_counts_are_exact_after_kills_and_a_restart(start: Callable[..., Up], tmp_path: Path) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    up = start(*where).wait_ready()
    share = EVENTS // 5
    for number, victim in enumerate(("broker", "analyzer", "learner")):
        post_views(up, number * share, number * share + share // 2)
        up.kill(victim)
        post_views(up, number * share + share // 2, (number + 1) * share)
    post_views(up, 3 * share, 4 * share)
    assert up.stop() == 0
    again = start(*where).wait_ready()
    assert again.printed("key") == up.printed("key")
    post_views(again, 4 * share, EVENTS)
    verified = closedloop("verify", *where)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    ledger = again.get("analyzer", "/v1/ledger").json()
    assert ledger["balanced"] is True
    assert (ledger["accepted"], ledger["applied"], ledger["in_flight"]) == (EVENTS, EVENTS, 0)
    assert counted(again) == EVENTS
    assert again.stop() == 0


@pytest.mark.timeout(300)
def test_nothing_outlives_a_killed_platform_and_its_data_is_there(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    up = start(*where).wait_ready()
    post_views(up, 0, 500)
    left = up.murder()
    eventually(lambda: not [process for process in left if alive(process)], 10.0)
    again = start(*where).wait_ready()
    eventually(lambda: counted(again) == 500, 20.0)
    assert again.stop() == 0


@pytest.mark.timeout(300)
def test_supervision_restarts_then_gives_up(start: Callable[..., Up], tmp_path: Path) -> None:
    up = start("--ephemeral").wait_ready()
    folder = up.data_dir
    for _ in range(2):
        began = time.monotonic()
        up.kill("feedback")
        eventually(lambda: up.ready("feedback"), 5.0)
        assert time.monotonic() - began < 5.0
    os.kill(up.pid_of("feedback"), signal.SIGKILL)
    assert up.wait(30) == 1
    assert "feedback died three times within a minute" in up.output
    assert not folder.exists()


def test_stop_removes_an_ephemeral_directory(start: Callable[..., Up]) -> None:
    up = start("--ephemeral").wait_ready()
    folder = up.data_dir
    assert folder.exists()
    began = time.monotonic()
    assert up.stop() == 0
    assert time.monotonic() - began < 20
    assert not folder.exists()


def test_stop_while_starting_leaves_nothing(start: Callable[..., Up], tmp_path: Path) -> None:
    up = start("--data-dir", str(tmp_path / "data"))
    eventually(lambda: (tmp_path / "data" / "platform.json").exists(), 20.0)
    children = psutil.Process(up.pid).children(recursive=True)
    assert up.stop() == 0
    assert not [child for child in children if alive(child)]


def test_port_in_use_is_one_line(start: Callable[..., Up], tmp_path: Path) -> None:
    base = free_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 3))
        taken.listen()
        refused = closedloop("up", "--port-base", str(base), "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    (line,) = (refused.stdout + refused.stderr).strip().splitlines()
    assert f"port {base + 3} (recommender) is in use" in line


def test_second_platform_on_one_directory_is_refused(start: Callable[..., Up], tmp_path: Path) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    up = start(*where).wait_ready()
    refused = closedloop("up", "--port-base", str(free_base()), *where)
    assert refused.returncode == 1
    assert "already running" in refused.stdout + refused.stderr
    assert up.ready("collector")
    assert up.stop() == 0
