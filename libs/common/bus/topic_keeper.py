"""Makes the topics on every cluster a process meets: a broker that was lost comes back without them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from libs.common.bus.ports import Bus, TopicSpec, TopicState
from libs.common.errors import Misconfigured, Transient

_log = logging.getLogger(__name__)

_LOOKS_BETWEEN_CHECKS = 15


class TopicKeeper:
    """Creates what is missing and mends what is wrong: whenever another cluster answers, and now and then.

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
        self._looks = 0

    async def run(self) -> None:
        """Keep them for ever: for `Service.background`."""
        while True:
            await self._sleep(self._watch if await self.look() else self._retry)

    async def look(self) -> bool:
        """Whether the present cluster has the topics; False where the broker is away.

        Raises `Misconfigured` for a topic that can never do: its number of partitions is another one.
        """
        try:
            cluster = await self._bus.cluster_id()
            if cluster != self._cluster or self._looks % _LOOKS_BETWEEN_CHECKS == 0:
                await self._check(full=cluster != self._cluster)
                self._cluster = cluster
            self._looks += 1
        except Transient as error:
            _log.debug("topics cannot be looked at just now: %s", error)
            return False
        return True

    async def _check(self, full: bool) -> None:
        """See that topics made by others, or changed since, are as they must be; mend what can be mended."""
        states = await self._bus.describe([topic.name for topic in self._topics])
        if missing := [topic for topic in self._topics if topic.name not in states]:
            await self._bus.ensure_topics(missing)
        for topic in self._topics:
            state = states.get(topic.name)
            if state is None:
                continue
            if state.partitions != topic.partitions:
                raise Misconfigured(
                    f"topic {topic.name} has {state.partitions} partitions, it must have {topic.partitions}:"
                    " delete it where nothing of it is needed any more (it is then made and filled again),"
                    " or use another cluster"
                )
            await self._mend(topic, state)
            if full:
                _judge_replicas(topic, state)

    async def _mend(self, topic: TopicSpec, state: TopicState) -> None:
        wrong = {
            name: value
            for name, value in topic.config.items()
            if state.config and state.config.get(name, value) != value
        }
        if not wrong:
            return
        try:
            await self._bus.configure(topic.name, wrong)
        except Transient as error:
            _log.warning("topic %s should have %s: %s", topic.name, wrong, error.reason)
        else:
            _log.warning("topic %s was not as it must be, now it has %s", topic.name, wrong)


def _judge_replicas(topic: TopicSpec, state: TopicState) -> None:
    """Say what the operator chose that costs him safety; it is his to change."""
    in_sync = state.config.get("min.insync.replicas", "")
    if not in_sync.isdigit():
        return
    if int(in_sync) > state.replicas:
        _log.warning(
            "topic %s takes nothing: min.insync.replicas is %s of %d", topic.name, in_sync, state.replicas
        )
    elif state.replicas > 1 and int(in_sync) < 2:
        _log.warning("topic %s acknowledges what one replica alone has: min.insync.replicas", topic.name)
