"""HTTP to handler and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct
from starlette.responses import Response

from libs.common.contracts.customer_event import CustomerEvent
from libs.common.errors import Invalid
from libs.common.http.auth import require_signature
from libs.common.http.batches import Batch, BatchDecoder
from libs.common.http.calls import Call, Handler, reply
from libs.common.http.durability import DurableAnswer, asked_level, durable_answer
from libs.common.http.factory import BODY_LIMIT, IMPORT_LIMIT, HttpApp
from libs.common.journal import Durability
from libs.common.keys import Key, Scope
from services.collector.dialects import cloudevents, segment
from services.collector.errors import BadMode
from services.collector.handlers import Collector
from services.collector.machines import is_prefetch, reason_of_agent
from services.collector.metrics import CollectorMetrics
from services.collector.model import AssetIn, ConsentIn, ErasureIn, IdentityIn, Sender, TouchpointIn

T = TypeVar("T", bound=Struct)
Own = TypeVar("Own", TouchpointIn, IdentityIn, ConsentIn, ErasureIn, AssetIn)
IMPORTS = {"mode": "import: any past time, bodies up to 10 MB; needs scope manage"}


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
        query=IMPORTS,
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
    add_assets(app, edge, collector)
    add_cloudevents(app, edge)
    add_segment(app, edge)


def add_assets(app: HttpApp, edge: Edge, collector: Collector) -> None:
    """The installed base in bulk."""
    assets = BatchDecoder(AssetIn, "assets", id_field="asset_id")
    app.endpoint(
        "POST",
        "/v1/assets",
        edge.posts("asset", assets, collector.on_asset, imports=True),
        scope=Scope.COLLECT,
        takes=assets,
        gives=DurableAnswer,
        status=202,
        imports=True,
        tables=True,
        secret=True,
        query={"mode": "import: bodies up to 10 MB; needs scope manage"},
        summary="Record which machines are where, of which year, with which kits",
    )


def add_cloudevents(app: HttpApp, edge: Edge) -> None:
    """The path for CloudEvents."""
    app.endpoint(
        "POST",
        "/v1/events",
        edge.cloudevents(),
        scope=Scope.COLLECT,
        takes=cloudevents.DECODER,
        gives=DurableAnswer,
        status=202,
        imports=True,
        untyped=True,
        query=IMPORTS,
        summary="Record CloudEvents 1.0: binary, structured or in batches",
    )


def add_segment(app: HttpApp, edge: Edge) -> None:
    """The paths of Segment's HTTP API."""
    calls = {name: name for name in segment.CALLS} | segment.SHORT
    for name in (*calls, "batch", "b", "import"):
        call = calls.get(name)
        past = name == "import"
        app.endpoint(
            "POST",
            f"/v1/{name}",
            edge.segment(call, past),
            scope=Scope.COLLECT,
            takes=segment.DECODER,
            gives=segment.SegmentAnswer,
            lenient=True,
            beacon=True,
            imports=not past,
            limit=IMPORT_LIMIT if past else BODY_LIMIT,
            message=True,
            query={} if past else IMPORTS,
            summary=f"Segment's HTTP API: {call or 'calls of any kind'}",
        )

    async def dropped(call: Call) -> Response:
        return reply({"success": True})

    app.endpoint("POST", "/v1/m", dropped, summary="Telemetry of Segment's clients about themselves: dropped")


class Edge:
    """Reads a batch, has each item handled, waits until all is durable, and answers."""

    def __init__(self, collector: Collector, metrics: CollectorMetrics, trust_browser_orders: bool) -> None:
        self._collector = collector
        self._metrics = metrics
        self._trust = trust_browser_orders

    def posts(
        self,
        kind: str,
        decoder: BatchDecoder[Own],
        handle: Callable[[Own, Sender], Sequence[CustomerEvent]],
        *,
        imports: bool = False,
    ) -> Handler:
        """The endpoint for batches of one kind, in our own words."""

        async def post(call: Call) -> Response:
            asked = asked_level(call)
            sender = self.sender(call, imports)
            batch = decoder.decode(call.body, lines=call.lines)
            return await self._keep(kind, batch, vouched(handle, call.key), sender, asked)

        return post

    def cloudevents(self) -> Handler:
        """The endpoint for CloudEvents."""
        on_touchpoint = self._collector.on_touchpoint

        async def post(call: Call) -> Response:
            asked = asked_level(call)
            sender = self.sender(call, imports=True)
            batch = cloudevents.read(call)
            handle = vouched(on_touchpoint, call.key)

            def on_event(event: cloudevents.CloudEventIn, sender: Sender) -> Sequence[CustomerEvent]:
                try:
                    return handle(cloudevents.translate(event), sender)
                except Invalid as error:
                    raise cloudevents.in_their_words(error) from None

            return await self._keep("cloudevent", batch, on_event, sender, asked)

        return post

    def segment(self, kind: str | None, past: bool) -> Handler:
        """An endpoint of Segment's HTTP API for calls of one kind; ``past``: keys that may import do."""

        async def post(call: Call) -> Response:
            asked = asked_level(call)
            sender = self.sender(call, imports=not past)
            key = call.key
            if past and key is not None and Scope.MANAGE in key.scopes:
                sender = sender._replace(imported=True)
            batch = segment.DECODER.decode(call.body, lines=call.lines)
            around = segment.Around.of(batch.envelope)
            if around.sent_at is not None:
                sender = sender._replace(skew=self._collector.skew(around.sent_at))
            signed = None
            if key is not None and key.publishable:
                signed = segment.Signed(key.signed, self._metrics.unsigned.add)

            def on_message(message: segment.SegmentIn, sender: Sender) -> Sequence[CustomerEvent]:
                if message.sent_at is not None and around.sent_at is None:
                    sender = sender._replace(skew=self._collector.skew(message.sent_at))
                said = segment.translate(message, kind, around.context, signed)
                try:
                    if isinstance(said, IdentityIn):
                        return self._collector.on_identity(said, sender)
                    return self._of_segment(said, sender)
                except Invalid as error:
                    raise segment.in_their_words(error) from None

            return await self._keep("segment", batch, on_message, sender, asked, 200, success=True)

        return post

    def _of_segment(self, said: TouchpointIn, sender: Sender) -> Sequence[CustomerEvent]:
        """The events of a touchpoint of Segment's, which no property that could be missing may cost."""
        try:
            return self._collector.on_touchpoint(said, sender)
        except Invalid as error:
            if not error.field.startswith("/properties"):
                raise
            said, dropped = segment.without_misfits(said)
            if not dropped:
                raise
        events = self._collector.on_touchpoint(said, sender)
        self._metrics.misfits.add(dropped)
        return events

    async def _keep(
        self,
        kind: str,
        batch: Batch[T],
        handle: Callable[[T, Sender], Sequence[CustomerEvent]],
        sender: Sender,
        asked: Durability | None,
        status: int = 202,
        **more: object,
    ) -> Response:
        """Have the items of ``batch`` handled, wait until what came of them is durable, and answer."""
        events = self._events(kind, batch, handle, sender)
        if not events:
            raise batch.nothing_accepted()
        position = self._collector.append(events)
        reached = await self._collector.durable(position, asked or Durability.SPOOL)
        self._metrics.accepted.add(batch.accepted, kind)
        self._metrics.count(sender.source, events)
        return durable_answer(batch, position, asked, reached, status, **more)

    def _events(
        self,
        kind: str,
        batch: Batch[T],
        handle: Callable[[T, Sender], Sequence[CustomerEvent]],
        sender: Sender,
    ) -> list[CustomerEvent]:
        events: list[CustomerEvent] = []
        for index, item in batch.items:
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
        sender = Sender(call.source, mode is not None, not publishable or self._trust, browser=publishable)
        if call.header("sec-gpc") == "1":
            sender = sender._replace(gpc=True)
        # Trap: of browsers only. A server's own user agent says nothing about whom it speaks of.
        return sender._replace(automatic=_why_automatic(call)) if publishable else sender


def _why_automatic(call: Call) -> str | None:
    if is_prefetch(call.header("sec-purpose"), call.header("purpose"), call.header("x-moz")):
        return "prefetch"
    return reason_of_agent(call.header("user-agent") or "")


def vouched(
    handle: Callable[[Own, Sender], Sequence[CustomerEvent]], key: Key | None
) -> Callable[[Own, Sender], Sequence[CustomerEvent]]:
    """``handle``, behind a look at the signature where the caller may name customers by signature only."""
    if key is None or not key.publishable:
        return handle

    def checked(item: Own, sender: Sender) -> Sequence[CustomerEvent]:
        if item.customer_id is not None:
            require_signature(key, item.customer_id, item.customer_signature)
        return handle(item, sender)

    return checked
