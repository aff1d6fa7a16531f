"""Asks for recommendations all the while: what is away may cost freshness, but not the answer."""

from __future__ import annotations

import threading
from collections import Counter
from random import Random

from tests.survival.judge import Count
from tests.survival.load import Caller
from tests.survival.world import World

EVERY = 0.25
DYING = 0.5
"""Seconds after which a killed process is known to be dead: its connections are cut before that."""


class Probe:
    """One connection to the recommender, five questions a second at most."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = Random(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.asked = 0
        self.failures: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.degraded: Counter[str] = Counter()

    def prepare(self) -> None:
        """A catalogue, so that there is something to offer."""
        products = [
            {
                "product_id": f"s{n}",
                "name": f"Product {n}",
                "category": "a/b",
                "price": 5 + n,
                "currency": "EUR",
            }
            for n in range(20)
        ]
        reply = self._world.call("recommender", "POST", "/v1/products", products)
        assert reply.status == 200, reply

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(20)

    def verdict(self) -> Count:
        """How many questions a running recommender left unanswered."""
        count = Count()
        count.add(self.asked, self.failures)
        return count

    def _ask(self) -> None:
        caller = Caller(lambda: self._world.port("recommender"), self._world.key)
        answered = 0
        while not self._ending.wait(EVERY):
            body = {"placement": "home", "customer_id": f"c{self._random.randrange(60)}", "limit": 3}
            starts, _ = self._world.life("recommender")
            reply = caller.call("POST", "/v1/recommendations", body)
            self.statuses[reply.status] += 1
            if reply.status == 200:
                answered = starts
            else:
                self._ending.wait(DYING)
            # Killed before or while it was asked, or still starting: not this guarantee's matter.
            if answered != starts or self._world.life("recommender") != (starts, True):
                continue
            self.asked += 1
            if reply.status != 200:
                self.failures.append(f"{reply.status or reply.why}: {str(reply.body)[:120]}")
            else:
                for word in reply.body["degraded"]:
                    self.degraded[word] += 1
        caller.close()
