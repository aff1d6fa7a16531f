"""Publishes the catalogue: what changed goes onto the bus; onto a new one all of it, closed by a marker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from libs.common.bus.ports import Bus, ClusterChanged, Producer, Record
from libs.common.bus.sender import Backoff
from libs.common.contracts import marker
from libs.common.contracts.catalogue import SCHEMA, entry_key
from libs.common.contracts.marker import MARKER_KEY, Marker, encode_marker
from libs.common.contracts.topics import CATALOGUE, HEADER_REVISION, HEADER_SCHEMA, TOPICS
from libs.common.errors import Transient
from services.recommender.metrics import RecommenderMetrics
from services.recommender.ports import CatalogueStore, Outgoing

_log = logging.getLogger(__name__)

BATCH = 500
PAUSE = 1.0
"""Seconds after which outbox and broker are looked at unasked: another process may have changed them."""


class CataloguePublisher:
    """Empties the catalogue's outbox onto topic ``catalogue``; `wake` it after a change.

    ``on_version`` hears the greatest revision there is, which a view read from disk does not tell.
    Entries are noted as published only after the bus has them, so one may be sent twice, never not at all.
    """

    def __init__(
        self,
        bus: Bus,
        store: CatalogueStore,
        metrics: RecommenderMetrics,
        random: Random,
        on_version: Callable[[int], None] = lambda version: None,
    ) -> None:
        self._on_version = on_version
        self._bus = bus
        self._store = store
        self._metrics = metrics
        self._backoff = Backoff(random)
        self._changed = asyncio.Event()
        self._producer: Producer | None = None
        self._cluster = ""
        self._unmarked = False
        self._offset = -1

    def wake(self) -> None:
        """Something was stored: publish it now."""
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled, whatever is away meanwhile."""
        try:
            while True:
                await asyncio.sleep(await self._round())
                if not self._changed.is_set():
                    try:
                        async with asyncio.timeout(PAUSE):
                            await self._changed.wait()
                    except TimeoutError:
                        await self._look_for_another_broker()
                self._changed.clear()
        finally:
            await self._let_go()

    async def _round(self) -> float:
        """Publish all there is; answers how many seconds to rest before the next attempt."""
        try:
            while await self.publish():
                pass
        except ClusterChanged:
            _log.info("the broker was replaced; the catalogue is published again")
            await self._let_go()
            return 0.0
        except Transient as error:
            _log.warning("catalogue not published: %s", error.reason)
            await self._let_go()
            return self._backoff.failed()
        self._backoff.succeeded()
        return 0.0

    async def publish(self) -> int:
        """Send one batch of the outbox; answers how many entries were sent."""
        if self._producer is None:
            cluster = await self._bus.cluster_id()
            await self._bus.ensure_topics(TOPICS)
            await self._store.on_cluster(cluster)
            self._on_version(await self._store.version())
            self._cluster, self._unmarked, self._offset = cluster, True, -1
            # Bound to the cluster whose outbox this is: a broker replaced in between makes `send` refuse.
            self._producer = self._bus.producer(cluster)
        entries = await self._store.outgoing(BATCH)
        if entries:
            await self._send(self._producer, [_record(entry) for entry in entries])
            if not await self._store.sent(entries, self._cluster):
                raise Transient("the catalogue is being published to another broker")
            self._metrics.published.add(len(entries))
        elif self._unmarked:
            await self._close_republication(self._producer)
        return len(entries)

    async def _close_republication(self, producer: Producer) -> None:
        """Tell readers that they have been told everything: what they hold beyond it is gone."""
        number = await self._store.unmarked(self._cluster)
        if number is not None:
            value = encode_marker(Marker(cluster=self._cluster, number=number))
            await self._send(producer, [Record(MARKER_KEY, value, ((HEADER_SCHEMA, marker.SCHEMA),))])
            await self._store.marked(self._cluster, number)
        self._unmarked = False

    async def _send(self, producer: Producer, records: list[Record]) -> None:
        offset = await producer.send(CATALOGUE, 0, records)
        if offset < self._offset:
            await self._store.on_cluster(self._cluster, lost=True)
            raise Transient("the topic of the catalogue was made anew")
        self._offset = offset

    async def _look_for_another_broker(self) -> None:
        # Trap: without something to send, a producer would never notice that its cluster is gone.
        try:
            if self._producer is not None and await self._bus.cluster_id() != self._cluster:
                await self._let_go()
        except Transient:
            pass

    async def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()


def _record(entry: Outgoing) -> Record:
    headers = ((HEADER_SCHEMA, SCHEMA), (HEADER_REVISION, str(entry.revision).encode()))
    return Record(entry_key(entry.kind, entry.entry_id), entry.body, headers)
