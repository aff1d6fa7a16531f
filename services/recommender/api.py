"""HTTP to handlers and back: recommendations, decisions, and the catalogue's endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from libs.common.contracts.identity import CustomerKey, anonymous_key, is_nobody
from libs.common.errors import FieldError, Invalid
from libs.common.http.auth import require_signature
from libs.common.http.batches import BatchAnswer, BatchDecoder, Rejection
from libs.common.http.calls import Call, Handler, reply
from libs.common.http.factory import IMPORT_LIMIT, HttpApp
from libs.common.http.objects import ObjectDecoder
from libs.common.http.problems import Refused, problem, refusal_of
from libs.common.items import convert_item
from libs.common.keys import Scope
from services.recommender.errors import IdMismatch
from services.recommender.handlers.catalogue import ID_FIELDS, CatalogueKeeper
from services.recommender.handlers.recommend import Forced, Recommender
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.entries import (
    OFFER_NOT_BUILT,
    PLACEMENT_NOT_BUILT,
    EntryIn,
    OfferIn,
    OfferOut,
    PlacementIn,
    PlacementOut,
    ProductIn,
    ProductOut,
    shown,
)
from services.recommender.model.groups import GROUPS
from services.recommender.model.pool import decode_pool, report_of
from services.recommender.model.questions import check_ask, from_query, without_secrets
from services.recommender.model.wire import MAX_BATCH, Answer, Ask, DecisionReport
from services.recommender.ports import KeptDecision

GROUP_HEADER = "closedloop-group"
NOT_STORED = {"cache-control": "no-store"}
ASK_BYTES = 300_000
"""A thousand excluded ids fit in."""

ASK_NOT_BUILT = frozenset({"account_id"})

QUERY = {
    name: f"as in the body of POST: {name}"
    for name in ("placement", "customer_id", "anonymous_id", "channel", "product_id", "limit", "after", "at")
} | {
    "basket": "product ids, separated by commas",
    "kinds": "kinds of offers, separated by commas",
    "exclude": "product ids never to offer, separated by commas",
    "wait_ms": "most milliseconds to wait for `after`",
    "decision_id": "an id of the caller's own; the same id again gets the first answer",
    "dry_run": "true: no record, no tokens",
}


class Answers(msgspec.Struct, frozen=True):
    """The answers to a batch of requests (`Answer`), a problem document for each that failed."""

    answers: list[Any]


def add_routes(
    app: HttpApp, recommender: Recommender, catalogue: CatalogueKeeper, metrics: RecommenderMetrics
) -> None:
    """Everything the recommender answers."""
    edge = RecommendEdge(recommender, metrics)
    app.endpoint(
        "POST",
        "/v1/recommendations",
        edge.post,
        scope=Scope.RECOMMEND,
        takes=edge.asks,
        gives=Answer,
        summary="Which offers to make now",
    )
    app.endpoint(
        "GET",
        "/v1/recommendations",
        edge.get,
        scope=Scope.RECOMMEND,
        gives=Answer,
        query=QUERY,
        summary="Which offers to make now, asked by query",
    )
    app.endpoint(
        "POST",
        "/v1/recommendations/batch",
        edge.post_batch,
        scope=Scope.RECOMMEND,
        takes=edge.batches,
        gives=Answers,
        summary="Offers for up to 1,000 requests, answered in their order",
    )
    app.endpoint(
        "GET",
        "/v1/decisions/{id}",
        edge.get_decision,
        scope=Scope.RECOMMEND,
        gives=DecisionReport,
        summary="How a decision came about",
    )
    app.endpoint(
        "GET",
        "/v1/decisions",
        edge.get_decisions,
        scope=Scope.CUSTOMERS,
        gives=list[DecisionReport],
        query={"customer": "a customer key, anon:X for a visitor; may be repeated"},
        summary="All decisions that are kept about customers",
    )
    _add_catalogue(app, catalogue, "product", ProductIn, ProductOut, frozenset())
    _add_catalogue(app, catalogue, "offer", OfferIn, OfferOut, OFFER_NOT_BUILT)
    _add_catalogue(app, catalogue, "placement", PlacementIn, PlacementOut, PLACEMENT_NOT_BUILT)


class RecommendEdge:
    """Recommendations and decisions over HTTP."""

    def __init__(self, recommender: Recommender, metrics: RecommenderMetrics) -> None:
        self._recommender = recommender
        self._metrics = metrics
        self.asks = ObjectDecoder(Ask, not_supported=ASK_NOT_BUILT, max_bytes=ASK_BYTES)
        self.batches = BatchDecoder(
            Ask,
            "requests",
            id_field="decision_id",
            not_supported=ASK_NOT_BUILT,
            max_items=MAX_BATCH,
            max_item_bytes=ASK_BYTES,
        )

    async def post(self, call: Call) -> Response:
        return await self._answer(call, self.asks.decode(call.body))

    async def get(self, call: Call) -> Response:
        return await self._answer(call, convert_item(from_query(call.query_pairs), Ask, ASK_NOT_BUILT))

    async def post_batch(self, call: Call) -> Response:
        batch = self.batches.decode(call.body, lines=call.lines)
        if not batch.total:
            raise batch.nothing_accepted()
        forced = _forced(call)
        answers: list[bytes] = [b""] * batch.total
        for rejection in batch.rejected:
            answers[rejection.index] = self._problem(_refused(rejection), call)
        good: list[tuple[int, Ask]] = []
        for index, ask in batch.items:
            try:
                _check(ask, call)
            except (Invalid, Refused) as error:
                answers[index] = self._problem(error, call)
            else:
                good.append((index, _with_gpc(ask, call)))
        found = await self._recommender.answer_all([ask for _, ask in good], forced)
        for (index, ask), answer in zip(good, found, strict=True):
            try:
                if isinstance(answer, Exception):
                    raise answer
                answers[index] = await self._shown(answer, ask, call)
            except Exception as error:
                answers[index] = self._problem(error, call)
        return reply(b'{"answers":[' + b",".join(answers) + b"]}")

    async def get_decision(self, call: Call) -> Response:
        if _in_browser(call):
            raise Refused(403, "scope_missing", "the scope recommend of a page does not reach decisions")
        kept = await self._recommender.find(call.path["id"])
        if kept is None:
            raise _not_found()
        report = self._report(kept)
        if report is None:
            raise Refused(
                404, "not_found", "this decision was kept by an older version and cannot be read any more"
            )
        return reply(report, headers=NOT_STORED)

    async def get_decisions(self, call: Call) -> Response:
        customers = [value for name, value in call.query_pairs if name == "customer" and value]
        if not customers:
            raise Invalid("missing", "customer must be given", "/customer")
        decisions = self._recommender.decisions_of(customers)
        first = await anext(decisions, None)
        return StreamingResponse(self._listed(first, decisions), 200, NOT_STORED, "application/json")

    async def _listed(
        self, kept: KeptDecision | None, others: AsyncIterator[KeptDecision]
    ) -> AsyncIterator[bytes]:
        before = b"["
        while kept is not None:
            if (report := self._report(kept)) is not None:
                yield before + msgspec.json.encode(report)
                before = b","
            kept = await anext(others, None)
        yield b"[]" if before == b"[" else b"]"

    def _report(self, kept: KeptDecision) -> DecisionReport | None:
        """The decision as it is told; None, and counted, where an older version kept its pool."""
        try:
            return report_of(decode_pool(kept.pool))
        except msgspec.DecodeError:
            self._metrics.unreadable.add()
            return None

    async def _answer(self, call: Call, ask: Ask) -> Response:
        ask = _with_gpc(ask, call)
        _check(ask, call)
        answer = await self._recommender.answer(ask, _forced(call))
        return reply(await self._shown(answer, ask, call), headers=NOT_STORED)

    async def _shown(self, answer: bytes, ask: Ask, call: Call) -> bytes:
        """What this key may see of an answer; raises 403 where it was given to somebody else."""
        if not _in_browser(call):
            return answer
        # Trap: asked after the answer, because only by then it is settled whose decision this id names.
        if ask.decision_id is not None:
            customer = await self._recommender.decided_for(ask.decision_id)
            if customer is not None and not _is_about(customer, ask):
                raise Refused(403, "decision_foreign", "this decision_id was used for somebody else")
        return without_secrets(answer)

    def _problem(self, error: Exception, call: Call) -> bytes:
        self._metrics.failed.add()
        return msgspec.json.encode(problem(refusal_of(error), call.request_id))


def _check(ask: Ask, call: Call) -> None:
    check_ask(ask)
    if ask.at is not None:
        call.require(Scope.MANAGE)
    if ask.customer_id is not None and call.key is not None:
        require_signature(call.key, ask.customer_id, ask.customer_signature)


def _with_gpc(ask: Ask, call: Call) -> Ask:
    """A browser says by a header that it does not want to be followed; others may say it in ``context``."""
    if call.header("sec-gpc") != "1":
        return ask
    return msgspec.structs.replace(ask, context={**ask.context, "gpc": True})


def _in_browser(call: Call) -> bool:
    return call.key is not None and call.key.publishable


def _is_about(customer: CustomerKey, ask: Ask) -> bool:
    """Whether a decision filed under ``customer`` is about whom ``ask`` names."""
    visitor = None if ask.anonymous_id is None else anonymous_key(ask.anonymous_id)
    return is_nobody(customer) or customer in (ask.customer_id, visitor)


def _forced(call: Call) -> Forced:
    wanted = call.header(GROUP_HEADER)
    if wanted is None:
        return Forced()
    call.require(Scope.MANAGE)
    for group in GROUPS:
        if group == wanted:
            return Forced(group)
    raise Invalid("wrong_type", f"must be one of {', '.join(GROUPS)}", f"/{GROUP_HEADER}")


def _refused(rejection: Rejection) -> Refused:
    error = FieldError(rejection.field, rejection.code, rejection.reason)
    return Refused(422, rejection.code, f"{rejection.field or 'the request'}: {rejection.reason}", [error])


def _not_found() -> Refused:
    return Refused(404, "not_found", "nothing is known under this id")


def _add_catalogue(
    app: HttpApp,
    catalogue: CatalogueKeeper,
    kind: str,
    takes: type[ProductIn] | type[OfferIn] | type[PlacementIn],
    gives: Any,
    not_built: frozenset[str],
) -> None:
    """Bulk and single endpoints of one kind of entry."""
    edge = CatalogueEdge(catalogue, kind, takes, not_built)
    many, one = f"/v1/{kind}s", f"/v1/{kind}s/{{id}}"
    manage = Scope.MANAGE

    def add(method: str, path: str, handler: Handler, summary: str, **more: Any) -> None:
        app.endpoint(method, path, handler, scope=manage, summary=summary, **more)

    add(
        "POST",
        many,
        edge.post,
        f"Store many {kind}s",
        takes=edge.batches,
        gives=BatchAnswer,
        limit=IMPORT_LIMIT,
    )
    add("PUT", one, edge.put, f"Store a {kind}", takes=edge.objects, gives=gives)
    add("GET", one, edge.get, f"A {kind} as it is stored", gives=gives)
    add("DELETE", one, edge.delete, f"Withdraw a {kind}", status=204)


class CatalogueEdge:
    """One kind of catalogue entry over HTTP."""

    def __init__(
        self,
        catalogue: CatalogueKeeper,
        kind: str,
        takes: type[ProductIn] | type[OfferIn] | type[PlacementIn],
        not_built: frozenset[str],
    ) -> None:
        self._catalogue = catalogue
        self._kind = kind
        self._id_field = ID_FIELDS[kind]
        self.objects: ObjectDecoder[EntryIn] = ObjectDecoder(takes, not_supported=not_built)
        self.batches: BatchDecoder[EntryIn] = BatchDecoder(
            takes, f"{kind}s", id_field=self._id_field, not_supported=not_built
        )

    async def post(self, call: Call) -> Response:
        batch = self.batches.decode(call.body, lines=call.lines)
        entries = []
        for index, sent in batch.items:
            try:
                entries.append(self._catalogue.check(sent))
            except Invalid as error:
                batch.refuse(index, error)
        if not entries:
            raise batch.nothing_accepted()
        await self._catalogue.put(self._kind, entries)
        return batch.answer(None, 200)

    async def put(self, call: Call) -> Response:
        sent = self.objects.decode(call.body)
        wanted = call.path["id"]
        named = getattr(sent, self._id_field)
        if named is None:
            sent = convert_item({**msgspec.structs.asdict(sent), self._id_field: wanted}, type(sent))
        elif named != wanted:
            raise IdMismatch(self._id_field)
        entry = self._catalogue.check(sent)
        await self._catalogue.put(self._kind, [entry])
        return reply(shown(entry))

    async def get(self, call: Call) -> Response:
        entry = await self._catalogue.get(self._kind, call.path["id"])
        if entry is None:
            raise _not_found()
        return reply(shown(entry), headers=NOT_STORED)

    async def delete(self, call: Call) -> Response:
        if not await self._catalogue.delete(self._kind, call.path["id"]):
            raise _not_found()
        return Response(status_code=204)
