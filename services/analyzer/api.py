"""HTTP to queries and back."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from starlette.responses import Response, StreamingResponse

from libs.common.contracts.identity import CustomerKey
from libs.common.errors import Invalid
from libs.common.http.calls import Call, reply
from libs.common.http.factory import HttpApp
from libs.common.http.problems import Refused
from libs.common.keys import Scope
from libs.common.times import format_time
from services.analyzer.errors import UnknownCustomer, UnknownErasure
from services.analyzer.handlers.certificate import ErasureView
from services.analyzer.handlers.export import Export
from services.analyzer.handlers.queries import ConsentsView, ModelsView, Queries
from services.analyzer.model.ledger import Ledger
from services.analyzer.model.readable import CustomerView, TimelineEntry

LIMIT = 100
MOST = 1_000


class DeadLetterView(Struct, frozen=True):
    """A record that can never be processed: where it came from and why; its content stays in the table."""

    partition: int
    offset: int
    spool: str
    seq: int
    source: str
    code: str
    reason: str
    journal_time: str


class DeadLettersView(Struct, frozen=True):
    """The latest dead letters, newest first."""

    dead_letters: list[DeadLetterView]


def add_routes(app: HttpApp, queries: Queries) -> None:
    """Everything the analyzer answers."""
    _add_customer_routes(app, queries)
    _add_ops_routes(app, queries)
    _add_erasure_routes(app, queries)


def _add_customer_routes(app: HttpApp, queries: Queries) -> None:
    async def get_customer(call: Call) -> Response:
        key = _key(call)
        try:
            return reply(await queries.customer(key))
        except UnknownCustomer:
            raise _unknown() from None

    async def get_timeline(call: Call) -> Response:
        limit, before = _limit(call), call.query.get("before")
        try:
            return reply(await queries.timeline(_key(call), limit, before))
        except UnknownCustomer:
            raise _unknown() from None

    app.endpoint(
        "GET",
        "/v1/customers/{id}/timeline",
        get_timeline,
        scope=Scope.CUSTOMERS,
        gives=list[TimelineEntry],
        summary="What happened to a customer, newest first",
        query={
            "limit": "how many, up to 1,000; 100 where not said",
            "before": "id of an entry: only what comes after it in the list",
        },
    )
    _add_whole_customer_routes(app, queries)
    app.endpoint(
        "GET",
        "/v1/customers/{id}",
        get_customer,
        scope=Scope.CUSTOMERS,
        gives=CustomerView,
        summary="The model of a customer; an anonymous one is written anon:X",
    )


def _add_whole_customer_routes(app: HttpApp, queries: Queries) -> None:
    async def get_export(call: Call) -> Response:
        try:
            pieces = await queries.export(_key(call))
        except UnknownCustomer:
            raise _unknown() from None
        return StreamingResponse(pieces, media_type="application/json")

    async def get_consents(call: Call) -> Response:
        try:
            return reply(await queries.consents(_key(call)))
        except UnknownCustomer:
            raise _unknown() from None

    app.endpoint(
        "GET",
        "/v1/customers/{id}/export",
        get_export,
        scope=Scope.CUSTOMERS,
        gives=Export,
        summary="All that is held about a customer, his visitor keys included",
    )
    app.endpoint(
        "GET",
        "/v1/consents/{id}",
        get_consents,
        scope=Scope.CUSTOMERS,
        gives=ConsentsView,
        summary="What a customer allows and refuses",
    )


def _add_ops_routes(app: HttpApp, queries: Queries) -> None:
    async def get_ledger(call: Call) -> Response:
        return reply(await queries.ledger())

    async def get_models(call: Call) -> Response:
        return reply(await queries.models())

    async def get_dead_letters(call: Call) -> Response:
        letters = await queries.dead_letters(_limit(call))
        return reply(
            DeadLettersView(
                [
                    DeadLetterView(
                        partition=letter.partition,
                        offset=letter.offset,
                        spool=letter.spool,
                        seq=letter.seq,
                        source=letter.source,
                        code=letter.code,
                        reason=letter.reason,
                        journal_time=format_time(letter.journal_time),
                    )
                    for letter in letters
                ]
            )
        )

    app.endpoint(
        "GET",
        "/v1/ledger",
        get_ledger,
        scope=Scope.OPS,
        gives=Ledger,
        summary="What became of every record that was accepted",
    )
    app.endpoint(
        "GET", "/v1/models", get_models, scope=Scope.OPS, gives=ModelsView, summary="How far learning is"
    )
    app.endpoint(
        "GET",
        "/v1/dead-letters",
        get_dead_letters,
        scope=Scope.OPS,
        gives=DeadLettersView,
        summary="Records that can never be processed",
        query={"limit": "how many, up to 1,000; 100 where not said"},
    )


def _add_erasure_routes(app: HttpApp, queries: Queries) -> None:
    async def get_erasure(call: Call) -> Response:
        try:
            return reply(await queries.erasure(_key(call)))
        except UnknownErasure:
            raise Refused(404, "unknown_erasure", "no erasure with this id has been applied yet") from None

    app.endpoint(
        "GET",
        "/v1/erasures/{id}",
        get_erasure,
        scope=Scope.MANAGE,
        gives=ErasureView,
        summary="What an erasure has done so far",
    )


def _key(call: Call) -> CustomerKey:
    key: Any = call.path["id"]
    if "\x00" in key:
        raise _unknown()
    return str(key)


def _limit(call: Call) -> int:
    text = call.query.get("limit", str(LIMIT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST:
        raise Invalid("wrong_type", f"limit must be a whole number from 1 to {MOST}", "/limit")
    return int(text)


def _unknown() -> Refused:
    return Refused(404, "unknown_customer", "nothing is known about this customer")
