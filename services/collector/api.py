"""HTTP to handler and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.responses import Response

from libs.common.contracts.customer_event import CustomerEvent
from libs.common.errors import Invalid
from libs.common.http.auth import require_signature
from libs.common.http.batches import Batch, BatchDecoder
from libs.common.http.calls import Call, Handler
from libs.common.http.durability import DurableAnswer, asked_level, durable_answer
from libs.common.http.factory import HttpApp
from libs.common.journal import Durability
from libs.common.keys import Scope
from services.collector.errors import BadMode
from services.collector.handlers import Collector
from services.collector.metrics import CollectorMetrics
from services.collector.model import ConsentIn, ErasureIn, IdentityIn, Sender, TouchpointIn

T = TypeVar("T", TouchpointIn, IdentityIn, ConsentIn, ErasureIn)


def add_routes(
    app: HttpApp, collector: Collector, metrics: CollectorMetrics, *, trust_browser_orders: bool
) -> None:
    """Everything the collector answers."""
    edge = Edge(collector, metrics, trust_browser_orders)
    touchpoints = BatchDecoder(TouchpointIn, "touchpoints", envelope=frozenset({"write_key"}))
    app.endpoint(
        "POST",
        "/v1/touchpoints",
        edge.posts("touchpoint", touchpoints, collector.on_touchpoint, imports=True),
        scope=Scope.COLLECT,
        takes=touchpoints,
        gives=DurableAnswer,
        status=202,
        lenient=True,
        imports=True,
        beacon=True,
        query={"mode": "import: any past time, bodies up to 10 MB; needs scope manage"},
        summary="Record what customers did",
    )
    identities = BatchDecoder(IdentityIn, "identities")
    app.endpoint(
        "POST",
        "/v1/identities",
        edge.posts("identity", identities, collector.on_identity),
        scope=Scope.COLLECT,
        takes=identities,
        gives=DurableAnswer,
        status=202,
        summary="Record that visitors are customers",
    )
    consents = BatchDecoder(ConsentIn, "consents")
    app.endpoint(
        "POST",
        "/v1/consents",
        edge.posts("consent", consents, collector.on_consent),
        scope=Scope.COLLECT,
        takes=consents,
        gives=DurableAnswer,
        status=202,
        summary="Record what customers allow and refuse",
    )
    erasures = BatchDecoder(ErasureIn, "erasures")
    app.endpoint(
        "POST",
        "/v1/erasures",
        edge.posts("erasure", erasures, collector.on_erasure),
        scope=Scope.MANAGE,
        takes=erasures,
        gives=DurableAnswer,
        status=202,
        summary="Forget customers: all that is held about them, and all that comes later",
    )


class Edge:
    """Reads a batch, has each item handled, waits until all is durable, and answers."""

    def __init__(self, collector: Collector, metrics: CollectorMetrics, trust_browser_orders: bool) -> None:
        self._collector = collector
        self._metrics = metrics
        self._trust = trust_browser_orders

    def posts(
        self,
        kind: str,
        decoder: BatchDecoder[T],
        handle: Callable[[T, Sender], Sequence[CustomerEvent]],
        *,
        imports: bool = False,
    ) -> Handler:
        """The endpoint that takes batches of one kind."""

        async def post(call: Call) -> Response:
            asked = asked_level(call)
            sender = self.sender(call, imports)
            batch = decoder.decode(call.body, lines=call.lines)
            events = self._events(kind, batch, handle, call, sender)
            if not events:
                raise batch.nothing_accepted()
            position = self._collector.append(events)
            reached = await self._collector.durable(position, asked or Durability.SPOOL)
            self._metrics.accepted.add(batch.accepted, kind)
            self._metrics.count(sender.source, events)
            return durable_answer(batch, position, asked, reached)

        return post

    def _events(
        self,
        kind: str,
        batch: Batch[T],
        handle: Callable[[T, Sender], Sequence[CustomerEvent]],
        call: Call,
        sender: Sender,
    ) -> list[CustomerEvent]:
        browser = call.key if call.key is not None and call.key.publishable else None
        events: list[CustomerEvent] = []
        for index, item in batch.items:
            if browser is not None and item.customer_id is not None:
                require_signature(browser, item.customer_id, item.customer_signature)
            try:
                events += handle(item, sender)
            except Invalid as error:
                batch.refuse(index, error)
        for rejection in batch.rejected:
            self._metrics.rejected.add(1, kind, rejection.code)
        return events

    def sender(self, call: Call, imports: bool) -> Sender:
        """Who posts, and what he may be believed; raises `BadMode`.

        That an import comes from a key with scope manage has been seen to where the key was read.
        """
        mode = call.query.get("mode") if imports else None
        if mode is not None and mode != "import":
            raise BadMode
        publishable = call.key is not None and call.key.publishable
        return Sender(call.source, mode is not None, not publishable or self._trust)
