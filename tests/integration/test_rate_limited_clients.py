"""Official clients of others, as they come, that meet a rate limit: all that they post arrives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.customer_event import Touchpoint
from libs.common.keys import KeyFile, Scope
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service
from libs.common.spool.memory import MemoryJournal
from services.collector.app import create_service
from services.collector.settings import CollectorSettings
from tests.dialects.clients import BLOCK, NODE, PYTHON, need_node_clients, run
from tests.served import served

EVENTS = 20
NAMES = ("segment-analytics-python", "rudder-sdk-python", "analytics-node")


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def collector(tmp_path: Path, journal: MemoryJournal) -> Iterator[str]:
    def create() -> Service:
        settings = CollectorSettings(data_dir=tmp_path, rate_server=1)
        return create_service(settings, bus=MemoryBus(), journal=journal, board=ProgressBoard())

    with served(create) as url:
        yield url


@pytest.mark.parametrize("client", NAMES)
def test_a_client_that_is_held_back_comes_again(
    tmp_path: Path, collector: str, journal: MemoryJournal, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client in NODE:
        if os.environ.get("CI") != "true" and shutil.which("npm") is None:
            pytest.skip("Node is not installed")
        need_node_clients()
    monkeypatch.setenv("MAX_RETRIES", "10")
    key = KeyFile(tmp_path).add("shop", [Scope.COLLECT]).key
    headers = {"authorization": f"Bearer {key}"}
    command = (PYTHON | NODE)[client]
    with ThreadPoolExecutor(1) as beside, httpx.Client(trust_env=False) as http:

        def use_up() -> None:
            while http.post(f"{collector}/v1/track", json={}, headers=headers).status_code != 429:
                pass

        # Somebody else with this key uses up what it may send, until the client has been refused. It may
        # happen to come just when there is room; then it comes once more.
        refused = False
        for _ in range(10):
            use_up()
            posting = beside.submit(run, client, command, collector, key, EVENTS)
            while not (refused := was_refused(http, collector)) and not posting.done():
                use_up()
            posting.result()
            if refused:
                break
    assert refused
    kept = {event.id for event in journal.events if isinstance(event, Touchpoint) and not event.internal}
    assert len(kept) == EVENTS - EVENTS // BLOCK, "one in ten is a link"


def was_refused(http: httpx.Client, collector: str) -> bool:
    """Whether a batch, which only the client posts, was refused for its rate."""
    refused = 'http_requests_total{route="/v1/batch",status="429"}'
    return refused in http.get(f"{collector}/metrics").text
