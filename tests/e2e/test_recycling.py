"""The embedded broker is replaced while events flow: none lost, none counted twice, answers go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from random import Random

import httpx
import psutil
import pytest

from tests.e2e.rig import Up, closedloop, eventually

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

LIMIT_MB = 60
PEOPLE = 200


@pytest.fixture
def up() -> Iterator[Up]:
    platform = Up("--ephemeral", "--no-holdout", "--broker-memory", str(LIMIT_MB))
    try:
        yield platform.wait_ready()
    finally:
        platform.close()


class Load:
    """Posts batches and asks for offers, each in a thread of its own, until told to stop."""

    def __init__(self, up: Up) -> None:
        self._up = up
        self._stop = threading.Event()
        self.posted: Counter[str] = Counter()
        self.waits: list[tuple[float, float]] = []
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._post), threading.Thread(target=self._ask)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> httpx.Client:
        return httpx.Client(headers=self._up.client.headers, timeout=15, trust_env=False)

    def _post(self) -> None:
        number = 0
        random = Random(1)
        with self._client() as client:
            while not self._stop.is_set():
                batch = []
                for _ in range(50):
                    batch.append(
                        {
                            "id": f"e{number}",
                            "type": "page_viewed",
                            "channel": "web",
                            "customer_id": f"c{number % PEOPLE}",
                            "properties": {"text": random.randbytes(2_000).hex()},
                        }
                    )
                    number += 1
                answer = client.post(self._up.url("collector") + "/v1/touchpoints", json=batch)
                if answer.status_code != 202 or answer.json()["accepted"] != 50:
                    self.wrong.append(answer.text)
                self.posted.update(str(event["customer_id"]) for event in batch)
                self._stop.wait(0.1)

    def _ask(self) -> None:
        number = 0
        with self._client() as client:
            while not self._stop.is_set():
                number += 1
                body = {"placement": "home", "customer_id": f"c{number % PEOPLE}", "limit": 1}
                began = time.monotonic()
                answer = client.post(self._up.url("recommender") + "/v1/recommendations", json=body)
                self.waits.append((began, time.monotonic() - began))
                if answer.status_code != 200 or "stale" in answer.json()["degraded"]:
                    self.wrong.append(answer.text)
                self._stop.wait(0.02)


def applied(up: Up) -> int:
    """Touchpoints that count."""
    rows = up.get("analyzer", "/v1/ledger").json()["by_source"]
    return sum(row["applied"] for row in rows if row["source"] != "recommender")


def test_broker_is_replaced_under_load_and_nothing_is_lost(up: Up) -> None:
    product = {"product_id": "p1", "name": "One", "category": "a", "price": 10, "currency": "EUR"}
    assert up.put("recommender", "/v1/products/p1", product).status_code == 200
    first = up.pid_of("broker")
    print(f"broker begins with {psutil.Process(first).memory_info().rss >> 20} MB")
    ask = {"placement": "home", "customer_id": "c1", "dry_run": True}
    eventually(lambda: up.post("recommender", "/v1/recommendations", ask).json()["degraded"] == [], 20.0)
    load = Load(up)
    try:
        eventually(lambda: up.record["broker_recycled"] >= 1, 120.0)
        recycled_at = time.monotonic()
        assert up.pid_of("broker") != first
        # Events are applied again behind the new broker, with the load still on.
        before = up.get("analyzer", "/v1/ledger").json()["applied"]
        eventually(lambda: up.get("analyzer", "/v1/ledger").json()["applied"] > before + 500, 60.0)
        time.sleep(3.0)
    finally:
        load.stop()
    around = sorted(wait for began, wait in load.waits if recycled_at - 2 < began < recycled_at + 10)
    p99 = around[len(around) * 99 // 100]
    print(f"recycled {up.record['broker_recycled']} times; {sum(load.posted.values())} events;", end=" ")
    print(f"{len(around)} answers around it, p99 {p99 * 1000:.0f} ms, worst {around[-1] * 1000:.0f} ms")
    assert not load.wrong
    assert p99 < 1.0
    posted = sum(load.posted.values())
    eventually(lambda: applied(up) >= posted and up.get("analyzer", "/v1/ledger").json()["balanced"], 60.0)
    assert applied(up) == posted
    assert up.get("analyzer", "/v1/ledger").json()["duplicate"] == 0
    for customer in ("c0", "c77", "c199"):
        totals = up.get("analyzer", f"/v1/customers/{customer}").json()["totals"]
        assert totals["page_viewed"] == load.posted[customer]
    done = closedloop("verify", "--data-dir", str(up.data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: "up to date" in str(up.get("recommender", "/readyz").json()["notes"]), 20.0)
    before = up.pid_of("broker")
    os.kill(up.pid, signal.SIGUSR1)
    eventually(lambda: up.pid_of("broker") != before, 10.0)
    eventually(
        lambda: up.get("recommender", "/readyz").json()["notes"]["customer-models"] == "up to date", 30.0
    )
    assert "died" not in up.output
    assert up.stop() == 0
