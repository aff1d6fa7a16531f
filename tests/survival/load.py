"""The load: customers who look and buy, posted from several connections at once, each id up to five times."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from deploy.local.program import LOOPBACK
from tests.survival.ledger import Books, Fate, Posted

TIMEOUT = 8.0
BATCH = 20


@dataclass(frozen=True)
class Mix:
    """What the load is made of.

    Parameters
    ----------
    rate:
        Events a second, over all posters.
    posters:
        Connections side by side.
    repeats:
        Most times an id is posted; each id draws from 1 to this.
    give_up:
        Share of the batches that are posted once and never again, whatever came of it; at 1 the rate is
        kept up while everything is refused.
    bad:
        Share of items that must be refused.
    late:
        Share of events that happened long before (still inside the window), out of order; a tenth of
        them before the window.
    """

    rate: float = 300.0
    posters: int = 4
    customers: int = 120
    repeats: int = 2
    give_up: float = 0.1
    bad: float = 0.01
    late: float = 0.05


class Plan:
    """Events without end, the same for the same seed."""

    def __init__(self, seed: int, mix: Mix, prefix: str = "e") -> None:
        self._random = Random(seed)
        self._mix = mix
        self._numbers = count()
        self._prefix = prefix
        self._lock = threading.Lock()

    def batch(self) -> list[Posted]:
        """The next events."""
        with self._lock:
            return [self._event(next(self._numbers)) for _ in range(BATCH)]

    def _event(self, number: int) -> Posted:
        random, mix = self._random, self._mix
        id_ = f"{self._prefix}{number}"
        customer = f"c{random.randrange(mix.customers)}"
        if random.random() < mix.bad:
            return self._bad(id_, customer)
        at, stale = self._when()
        if random.random() < 0.3:
            return self._order(id_, customer, at, stale)
        body = _touchpoint(id_, "product_viewed", customer, at, {"product_id": f"p-{id_}"})
        kind = "stale" if stale else "view"
        return Posted(id_, customer, kind, "product_viewed", f"p-{id_}", body=body)

    def _order(self, id_: str, customer: str, at: datetime, stale: bool) -> Posted:
        price, quantity = self._random.randint(1, 500), self._random.randint(1, 4)
        line = {"product_id": f"p-{id_}", "quantity": quantity, "price": price}
        properties = {"order_id": f"o-{id_}", "currency": "EUR", "products": [line]}
        body = _touchpoint(id_, "order_completed", customer, at, properties)
        value = 0 if stale else price * quantity
        kind = "stale" if stale else "order"
        return Posted(id_, customer, kind, "order_completed", f"p-{id_}", value, body=body)

    def _when(self) -> tuple[datetime, bool]:
        now = datetime.now(UTC) - timedelta(seconds=self._random.random() * 60)
        draw = self._random.random()
        if draw >= self._mix.late:
            return now, False
        if draw < self._mix.late / 10:
            return now - timedelta(days=40), True
        return now - timedelta(days=self._random.random() * 28), False

    def _bad(self, id_: str, customer: str) -> Posted:
        body: dict[str, Any] = _touchpoint(id_, "product_viewed", customer, datetime.now(UTC), {})
        spoil = self._random.choice(["type", "time", "unknown", "depth"])
        if spoil == "type":
            body["type"] = 7
        elif spoil == "time":
            body["occurred_at"] = "the day before yesterday"
        elif spoil == "unknown":
            body["custommer"] = "x"
        else:
            deep: Any = 1
            for _ in range(30):
                deep = [deep]
            body["properties"] = {"deep": deep}
        return Posted(id_, customer, "bad", "product_viewed", bad=True, body=body)


def _touchpoint(
    id_: str, type_: str, customer: str, at: datetime, properties: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": id_,
        "type": type_,
        "channel": "web",
        "customer_id": customer,
        "occurred_at": at.isoformat(),
        "properties": properties,
    }


@dataclass(frozen=True)
class Reply:
    """An answer of a service, or why there is none (``status`` 0 and ``sent`` says whether it left)."""

    status: int
    body: Any = None
    retry_after: str | None = None
    sent: bool = True
    why: str = ""


class Caller:
    """One HTTP connection that is opened again whenever it is lost."""

    def __init__(self, port: Callable[[], int], key: str) -> None:
        self._port = port
        self._key = key
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request; never raises for what a network can do."""
        data = None if body is None else json.dumps(body).encode()
        fixed = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        if self._connection is None:
            try:
                self._connection = http.client.HTTPConnection(LOOPBACK, self._port(), timeout=TIMEOUT)
                self._connection.connect()
            except OSError as error:
                self.close()
                return Reply(0, sent=False, why=repr(error))
        try:
            self._connection.request(method, path, data, {**fixed, **headers})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Reply(0, why=repr(error))
        try:
            parsed = json.loads(text) if text else None
        except ValueError:
            parsed = text[:200]
        return Reply(answer.status, parsed, answer.headers.get("Retry-After"))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Load:
    """Posters in threads, from `start` to `stop`; what they learned is in ``books``."""

    def __init__(
        self, port: Callable[[], int], key: str, seed: int, mix: Mix, books: Books, prefix: str = "e"
    ) -> None:
        self.books = books
        self._port = port
        self._key = key
        self._seed = seed
        self._mix = mix
        self._plan = Plan(seed, mix, prefix)
        self._ending = threading.Event()
        self._enough = threading.Event()
        self._threads: list[threading.Thread] = []
        self._due = time.monotonic()
        self._pace = threading.Lock()
        self._again: list[list[Posted]] = []
        """Batches that will be posted again, by whatever connection draws them."""

    def start(self) -> None:
        """Begin to post."""
        self._due = time.monotonic()
        self._threads = [
            threading.Thread(target=self._post, args=(Random(self._seed * 1_000 + n),), daemon=True)
            for n in range(self._mix.posters)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, grace: float = 20.0) -> None:
        """Post nothing new; give what is being posted again ``grace`` seconds."""
        self._ending.set()
        deadline = time.monotonic() + grace
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._enough.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 2)
            assert not thread.is_alive(), "a poster does not end"

    def _post(self, random: Random) -> None:
        caller = Caller(self._port, self._key)
        while not self._ending.is_set():
            self._wait_turn()
            self._deliver(caller, random, self._draw(random))
        caller.close()

    def _draw(self, random: Random) -> list[Posted]:
        with self._pace:
            if self._again and random.random() < 0.5:
                return self._again.pop(random.randrange(len(self._again)))
        batch = self._plan.batch()
        with self._pace:
            self._again += [batch] * (random.randint(1, self._mix.repeats) - 1)
        return batch

    def _deliver(self, caller: Caller, random: Random, batch: list[Posted]) -> None:
        patient = random.random() >= self._mix.give_up
        durability = "bus" if random.random() < 0.2 else "spool"
        pauses = _pauses(random)
        while True:
            items = [item.body for item in batch]
            reply = caller.call("POST", "/v1/touchpoints", items, **{"Closedloop-Durability": durability})
            done = settle(self.books, batch, reply)
            if done or not patient or self._enough.wait(next(pauses)):
                return

    def _wait_turn(self) -> None:
        with self._pace:
            self._due = max(self._due + BATCH / self._mix.rate, time.monotonic() - 1.0)
            rest = self._due - time.monotonic()
        if rest > 0:
            self._ending.wait(rest)


def _pauses(random: Random) -> Iterator[float]:
    pause = 0.1
    while True:
        yield pause * (0.5 + random.random())
        pause = min(2.0, pause * 2)


def settle(books: Books, batch: list[Posted], reply: Reply) -> bool:
    """Write ``reply`` into ``books``; whether posting again would be pointless."""
    if reply.status == 0:
        books.answer("lost" if reply.sent else "unsent")
        books.note(batch, Fate.UNKNOWN if reply.sent else Fate.UNSENT)
        return False
    if reply.status == 202:
        refused = {entry["index"] for entry in reply.body["rejected"]}
        good = [item for at, item in enumerate(batch) if at not in refused]
        bad = [item for at, item in enumerate(batch) if at in refused]
        books.note(good, Fate.ACCEPTED)
        books.note(bad, Fate.REFUSED)
        wrong = [item.id for item in good if item.bad] + [item.id for item in bad if not item.bad]
        books.answer("202", f"wrongly accepted or refused: {wrong[:3]}" if wrong else None)
        return True
    if reply.status == 503:
        books.note(batch, Fate.REFUSED)
        books.answer("503", None if reply.retry_after else "503 without Retry-After")
        return False
    if reply.status == 422 and all(item.bad for item in batch):
        books.note(batch, Fate.REFUSED)
        books.answer("422")
        return True
    books.note(batch, Fate.UNKNOWN if reply.status >= 500 else Fate.REFUSED)
    books.answer(str(reply.status), f"{reply.status}: {str(reply.body)[:200]}")
    return False
