"""Makes the topics on every cluster a process meets: a broker that was lost comes back without them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from libs.common.bus.ports import Bus, TopicSpec
from libs.common.errors import Transient

_log = logging.getLogger(__name__)


class TopicKeeper:
    """Creates what is missing, whenever another cluster answers; for services that only publish.

    Parameters
    ----------
    watch, retry:
        Seconds between two looks at the cluster, and after one that failed.
    sleep:
        How to wait; tests give one that does not.
    """

    def __init__(
        self,
        bus: Bus,
        topics: Sequence[TopicSpec],
        *,
        watch: float = 2.0,
        retry: float = 0.3,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._watch = watch
        self._retry = retry
        self._sleep = sleep
        self._cluster: str | None = None

    async def run(self) -> None:
        """Keep them for ever: for `Service.background`."""
        while True:
            await self._sleep(self._watch if await self.look() else self._retry)

    async def look(self) -> bool:
        """Whether the present cluster has the topics; False where the broker is away."""
        try:
            cluster = await self._bus.cluster_id()
            if cluster != self._cluster:
                await self._bus.ensure_topics(self._topics)
                self._cluster = cluster
        except Transient as error:
            _log.debug("topics cannot be looked at just now: %s", error)
            return False
        return True
