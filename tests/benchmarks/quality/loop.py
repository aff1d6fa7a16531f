"""What is examined, as little as an examination needs of it: the pipeline over HTTP, or its twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from deploy.local.demo.data import Basket


class Loop(Protocol):
    """A loop that learns from orders and answers requests."""

    async def stock(self, products: Sequence[dict[str, Any]], placements: Sequence[dict[str, Any]]) -> None:
        """Take a catalogue and placements."""
        ...

    async def learn(self, baskets: Sequence[Basket]) -> None:
        """Learn from baskets, in time order; answers given afterwards know all of them."""
        ...

    async def ask(self, requests: Sequence[dict[str, Any]]) -> list[list[str]]:
        """The products answered to each request, best first."""
        ...
