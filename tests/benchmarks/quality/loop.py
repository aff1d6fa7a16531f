"""What is examined, as little as an examination needs of it: the pipeline over HTTP, or its twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from deploy.local.demo.data import Basket

ROOT = Path(__file__).parents[3]

Request = dict[str, Any]

MOST_REQUESTS = 1_000
MOST_BYTES = 900_000
"""Of one call: a body may have 1 MB."""


class Loop(Protocol):
    """A loop that learns from orders and answers requests."""

    async def stock(self, products: Sequence[dict[str, Any]], placements: Sequence[dict[str, Any]]) -> None:
        """Take a catalogue and placements."""
        ...

    async def learn(self, baskets: Sequence[Basket]) -> None:
        """Learn from baskets, in time order; answers given afterwards know all of them."""
        ...

    async def ask(self, requests: Sequence[Request]) -> list[list[str]]:
        """The products answered to each request, best first."""
        ...


def calls_of(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """``requests`` in slices that one call takes."""
    first, size = 0, 0
    for at, request in enumerate(requests):
        more = len(msgspec.json.encode(request)) + 1
        if at > first and (at - first == MOST_REQUESTS or size + more > MOST_BYTES):
            yield requests[first:at]
            first, size = at, 0
        size += more
    if first < len(requests):
        yield requests[first:]


def products_of(answer: dict[str, Any]) -> list[str]:
    """The products of an answer, best first."""
    return [offer["product_id"] for offer in answer["offers"]]
