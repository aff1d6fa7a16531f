"""HTTP to queries and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from starlette.responses import Response, StreamingResponse

from libs.common.contracts.identity import PARTITIONS, CustomerKey
from libs.common.errors import Invalid
from libs.common.http.calls import Call, reply
from libs.common.http.factory import HttpApp
from libs.common.http.objects import ObjectDecoder
from libs.common.http.problems import Refused
from libs.common.keys import Scope
from libs.common.times import format_time, parse_time
from services.analyzer.errors import UnknownCustomer, UnknownErasure
from services.analyzer.handlers.certificate import ErasureView
from services.analyzer.handlers.export import Export
from services.analyzer.handlers.insights import Insights
from services.analyzer.handlers.letters import record_of
from services.analyzer.handlers.queries import ConsentsView, ModelsView, Queries
from services.analyzer.model.ledger import Ledger
from services.analyzer.model.letters import Buried, LetterFilter
from services.analyzer.model.lift import LiftView
from services.analyzer.model.readable import CustomerView
from services.analyzer.model.timeline import TimelineEntry

LIMIT = 100
MOST = 1_000
LATER = ("funnel", "channels", "offers", "needs", "conflicts", "attribution")
"""Insights that are agreed on and not built yet."""


class DeadLetterView(Struct, frozen=True):
    """A record that cannot be processed: where it came from and why. ``replayed_at`` is when it left."""

    id: int
    partition: int
    offset: int
    spool: str
    seq: int
    source: str
    code: str
    reason: str
    journal_time: str
    attempts: int
    asked: bool
    replayed_at: str | None


class DeadLettersView(Struct, frozen=True):
    """Dead letters, newest first."""

    dead_letters: list[DeadLetterView]


class WholeDeadLetterView(Struct, frozen=True):
    """A dead letter with its content, as text; bytes that are none are shown as U+FFFD."""

    dead_letter: DeadLetterView
    key: str
    headers: dict[str, str]
    value: str | None


class ReplayBody(Struct, frozen=True):
    """Which dead letters to take again: all that is given must hold, and something must be.

    ``since`` and ``until`` are times of the journal, ISO 8601.
    """

    id: int | None = None
    code: str | None = None
    partition: int | None = None
    since: str | None = None
    until: str | None = None


class ReplayView(Struct, frozen=True):
    """How many dead letters will be taken again, within a second or so of the next event."""

    asked: int


def add_routes(app: HttpApp, queries: Queries, insights: Insights) -> None:
    """Everything the analyzer answers."""
    _add_customer_routes(app, queries)
    _add_ops_routes(app, queries)
    _add_letter_routes(app, queries)
    _add_replay_route(app, queries)
    _add_erasure_routes(app, queries)
    _add_insight_routes(app, insights)
    app.not_supported("POST", "/v1/evaluations", "evaluation of other policies", scope=Scope.OPS)


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


def _add_letter_routes(app: HttpApp, queries: Queries) -> None:
    async def get_dead_letters(call: Call) -> Response:
        which = _which({name: call.query.get(name) for name in ("code", "partition", "since", "until")})
        before = _number(call.query.get("before"), "/before")
        found = await queries.dead_letters(which, before, _limit(call))
        return reply(DeadLettersView([_letter_view(buried) for buried in found]))

    async def get_dead_letter(call: Call) -> Response:
        id_ = str(call.path["id"])
        buried = await queries.dead_letter(int(id_)) if _is_number(id_) else None
        if buried is None:
            raise Refused(404, "unknown_dead_letter", "there is no dead letter with this id")
        record = record_of(buried.letter)
        return reply(
            WholeDeadLetterView(
                _letter_view(buried),
                _text(record.key),
                {name: _text(value) for name, value in record.headers},
                None if record.value is None else _text(record.value),
            )
        )

    app.endpoint(
        "GET",
        "/v1/dead-letters",
        get_dead_letters,
        scope=Scope.OPS,
        gives=DeadLettersView,
        summary="Records that cannot be processed, newest first",
        query={
            "code": "only those with this code",
            "partition": "only those of this partition",
            "since": "only those from this time of the journal on",
            "until": "only those before this time of the journal",
            "before": "id of a dead letter: only older ones",
            "limit": "how many, up to 1,000; 100 where not said",
        },
    )
    app.endpoint(
        "GET",
        "/v1/dead-letters/{id}",
        get_dead_letter,
        scope=Scope.OPS,
        gives=WholeDeadLetterView,
        summary="A record that cannot be processed, with its content",
    )


def _add_replay_route(app: HttpApp, queries: Queries) -> None:
    replays = ObjectDecoder(ReplayBody)

    async def replay(call: Call) -> Response:
        body = replays.decode(call.body)
        which = _which(asdict(body))
        if which == LetterFilter():
            raise Invalid("missing", "say which: id, code, partition, since or until", "/id")
        return reply(ReplayView(await queries.ask_replay(which)), 202)

    app.endpoint(
        "POST",
        "/v1/dead-letters/replay",
        replay,
        scope=Scope.OPS,
        takes=replays,
        gives=ReplayView,
        status=202,
        summary="Have dead letters taken again; those that cannot be processed still stay",
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


def _add_insight_routes(app: HttpApp, insights: Insights) -> None:
    async def get_lift(call: Call) -> Response:
        return reply(await insights.lift(call.query.get("placement"), _level(call)))

    app.endpoint(
        "GET",
        "/v1/insights/lift",
        get_lift,
        scope=Scope.OPS,
        gives=LiftView,
        summary="Margin per customer of treatment against the groups held out, from the first decision on",
        query={
            "placement": "only there; all placements that decided where not said",
            "level": "probability with which an interval holds the truth, 0.5 to 0.999; 0.95 where not said",
        },
    )
    for name in LATER:
        app.not_supported("GET", f"/v1/insights/{name}", f"the insight {name}", scope=Scope.OPS)


def _letter_view(buried: Buried) -> DeadLetterView:
    letter = buried.letter
    return DeadLetterView(
        id=buried.id,
        partition=letter.partition,
        offset=letter.offset,
        spool=letter.spool,
        seq=letter.seq,
        source=letter.source,
        code=letter.code,
        reason=letter.reason,
        journal_time=format_time(letter.journal_time),
        attempts=buried.attempts,
        asked=buried.asked,
        replayed_at=None if buried.replayed_at is None else format_time(buried.replayed_at),
    )


def _which(said: Mapping[str, Any]) -> LetterFilter:
    since, until = said.get("since"), said.get("until")
    partition = _number(said.get("partition"), "/partition")
    if partition is not None and partition >= PARTITIONS:
        raise Invalid("wrong_type", f"partition must be below {PARTITIONS}", "/partition")
    return LetterFilter(
        id=_number(said.get("id"), "/id"),
        code=said.get("code"),
        partition=partition,
        since=None if since is None else parse_time(since, "/since"),
        until=None if until is None else parse_time(until, "/until"),
    )


def _number(value: str | int | None, field: str) -> int | None:
    if value is None:
        return None
    if not _is_number(str(value)):
        raise Invalid("wrong_type", "must be a whole number", field)
    return int(value)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


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


def _level(call: Call) -> float:
    try:
        level = float(call.query.get("level", "0.95"))
    except ValueError:
        level = 0.0
    # Trap: not the other way round. NaN is neither below nor above anything.
    if not 0.5 <= level <= 0.999:
        raise Invalid("wrong_type", "level must be a number from 0.5 to 0.999", "/level")
    return level


def _unknown() -> Refused:
    return Refused(404, "unknown_customer", "nothing is known about this customer")
