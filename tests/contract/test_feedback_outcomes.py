"""``POST /v1/outcomes``: by token or by name, and only from who may say so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import DAY, ManualClock
from libs.common.contracts.customer_event import ConsentGiven, CustomerEvent, Outcome
from libs.common.errors import Transient
from libs.common.keys import KeyFile, Scope
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.secrets import Secrets
from libs.common.spool.memory import MemoryJournal
from libs.common.tokens import OfferToken, TokenSealer
from services.feedback.app import create_service
from services.feedback.settings import FeedbackSettings

NOW = 1_760_000_000_000
KEY = {"authorization": "Bearer dev-key"}
NAMED = {"decision_id": "d1", "offer_id": "product:p1", "customer_id": "c1", "outcome": "clicked"}
SAID = OfferToken("d1", "product:p1", "c1", "basket", NOW, "p1", 10.0)


class Packs(MemoryJournal):
    """Remembers which events were appended together."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[list[CustomerEvent]] = []

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        position = super().append(events, local)
        if events:
            self.transactions.append(list(events))
        return position


class Feedback:
    """Feedback in this process, a caller without key, and the recommender's sealer."""

    def __init__(self, http: httpx.AsyncClient, journal: Packs, clock: ManualClock, data_dir: Path) -> None:
        self.http = http
        self.journal = journal
        self.clock = clock
        self.sealer = TokenSealer(Secrets(data_dir).token_key())

    async def post(self, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.http.post("/v1/outcomes", json=body, headers=headers)

    def token(self, **changes: Any) -> str:
        return self.sealer.seal(msgspec.structs.replace(SAID, **changes))

    @property
    def outcomes(self) -> list[Outcome]:
        return [event for event in self.journal.events if isinstance(event, Outcome)]


@asynccontextmanager
async def feeding_back(data_dir: Path, **settings: Any) -> AsyncIterator[Feedback]:
    journal, clock = Packs(), ManualClock(NOW)
    service = create_service(
        FeedbackSettings(data_dir=data_dir, dev_key="dev-key", **settings),
        bus=MemoryBus(),
        journal=journal,
        board=ProgressBoard(),
        clock=clock,
    )
    transport = httpx.ASGITransport(service.app)
    async with (
        running(service),
        httpx.AsyncClient(transport=transport, base_url="http://feedback") as http,
    ):
        yield Feedback(http, journal, clock, data_dir)


@pytest.fixture
async def feedback(tmp_path: Path) -> AsyncIterator[Feedback]:
    async with feeding_back(tmp_path) as one:
        yield one


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize("word", ["shown", "opened", "clicked", "declined", "complained", "unsubscribed"])
async def test_token_alone_may_say_what_a_browser_sees(feedback: Feedback, word: str) -> None:
    answer = await feedback.post({"token": feedback.token(), "outcome": word})
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    assert Position.decode(answer.json()["position"])
    (event,) = feedback.outcomes
    assert (event.id, event.source, event.customer) == (f"d1/product:p1/{word}", "feedback", "c1")
    assert (event.decision_id, event.offer_id, event.outcome, event.product_id, event.placement) == (
        "d1", "product:p1", word, "p1", "basket",
    )  # fmt: skip
    assert (event.recorded_at, event.learn) == (NOW, True)


@pytest.mark.parametrize(
    "more",
    [
        {"outcome": "converted"},
        {"outcome": "accepted"},
        {"outcome": "returned"},
        {"outcome": "clicked", "value": 1},
        {"outcome": "clicked", "order_id": "o1"},
    ],
)
async def test_token_alone_may_say_nothing_more(feedback: Feedback, more: dict[str, Any]) -> None:
    good = {"token": feedback.token(), "outcome": "shown"}
    answer = await feedback.post([good, {"token": feedback.token(), **more}])
    assert problem(answer, 401)["code"] == "key_missing"
    assert feedback.outcomes == []
    assert (await feedback.post({"token": feedback.token(), **more}, KEY)).status_code == 202


async def test_without_token_a_key_is_needed(feedback: Feedback) -> None:
    assert problem(await feedback.post(NAMED), 401)["code"] == "key_missing"
    assert (await feedback.post(NAMED, KEY)).status_code == 202
    (event,) = feedback.outcomes
    assert (event.customer, event.product_id) == ("c1", "p1")


@pytest.mark.parametrize(("key", "code"), [("Bearer wrong", "key_unknown"), ("nonsense", "key_unknown")])
async def test_wrong_key_is_401_even_with_a_token(feedback: Feedback, key: str, code: str) -> None:
    answer = await feedback.post({"token": feedback.token(), "outcome": "shown"}, {"authorization": key})
    assert problem(answer, 401)["code"] == code


async def test_key_needs_the_scope(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("till", [Scope.COLLECT]).key
    right = KeyFile(tmp_path).add("crm", [Scope.FEEDBACK]).key
    async with feeding_back(tmp_path) as feedback:
        body = problem(await feedback.post(NAMED, {"authorization": f"Bearer {key}"}), 403)
        assert body["code"] == "scope_missing"
        assert "feedback" in body["detail"]
        assert (await feedback.post(NAMED, {"authorization": f"Bearer {right}"})).status_code == 202


async def test_changed_token_is_refused(feedback: Feedback) -> None:
    token = feedback.token()
    last = "A" if token[-1] != "A" else "B"
    bad = [token[:-1] + last, token + "A", token[1:], token + "=", "", "x", " " + token, token.upper()]
    bad += [token[:9] + ("A" if token[9] != "A" else "B") + token[10:]]
    answer = await feedback.post([{"token": text, "outcome": "shown"} for text in bad])
    body = problem(answer, 422)
    assert {error["code"] for error in body["errors"]} == {"token_invalid"}
    assert len(body["errors"]) == len(bad)
    assert body["errors"][0]["field"] == "/0/token"
    assert feedback.outcomes == []


async def test_token_of_another_installation_is_refused(feedback: Feedback, tmp_path: Path) -> None:
    foreign = TokenSealer(Secrets(tmp_path / "other").token_key()).seal(SAID)
    body = problem(await feedback.post({"token": foreign, "outcome": "shown"}), 422)
    assert body["code"] == "token_invalid"


async def test_token_lives_as_long_as_set(tmp_path: Path) -> None:
    async with feeding_back(tmp_path) as feedback:
        shown = {"token": feedback.token(), "outcome": "shown"}
        feedback.clock.tick(90 * DAY)
        assert (await feedback.post(shown)).status_code == 202
        feedback.clock.tick(1)
        assert problem(await feedback.post(shown), 422)["code"] == "token_expired"
    async with feeding_back(tmp_path, token_seconds=60) as feedback:
        feedback.clock.tick(60_001)
        assert problem(await feedback.post(shown), 422)["code"] == "token_expired"


@pytest.mark.parametrize(
    ("field", "value"), [("decision_id", "d2"), ("offer_id", "product:p2"), ("customer_id", "c2")]
)
async def test_ids_beside_a_token_must_agree(feedback: Feedback, field: str, value: str) -> None:
    shown = {"token": feedback.token(), "outcome": "shown"}
    answer = await feedback.post([shown, {**shown, field: value}])
    assert answer.status_code == 202
    assert [(r["index"], r["code"], r["field"]) for r in answer.json()["rejected"]] == [
        (1, "token_mismatch", f"/{field}")
    ]


async def test_repeat_has_the_same_id_so_that_it_counts_once(feedback: Feedback) -> None:
    shown = {"token": feedback.token(), "outcome": "shown"}
    for body in ({**shown, "id": "a"}, {**shown, "id": "b"}, {**NAMED, "outcome": "shown"}):
        assert (await feedback.post(body, KEY)).status_code == 202
    assert len({(event.customer, event.source, event.id) for event in feedback.outcomes}) == 1


async def test_unknown_decision_is_accepted(feedback: Feedback) -> None:
    assert (await feedback.post({**NAMED, "decision_id": "never-made"}, KEY)).status_code == 202


@pytest.mark.parametrize(
    ("more", "code", "field"),
    [
        ({"outcome": "bought"}, "wrong_type", "/outcome"),
        ({"outcome": None}, "wrong_type", "/outcome"),
        ({"value": -1}, "not_finite", "/value"),
        ({"value": "1"}, "wrong_type", "/value"),
        ({"offer_id": None}, "missing", "/offer_id"),
        ({"customer_id": None}, "missing", "/customer_id"),
        ({"customer_id": "anon:v1"}, "bad_string", "/customer_id"),
        ({"customer_id": "anna@example.com"}, "bad_string", "/customer_id"),
        ({"order_id": "anna@example.com"}, "bad_string", "/order_id"),
        ({"occurred_at": "soon"}, "bad_time", "/occurred_at"),
        ({"offer": "p1"}, "unknown_field", "/offer"),
        ({"decision_id": "x" * 129}, "too_large", "/decision_id"),
    ],
)
async def test_bad_item_is_refused_and_the_good_one_kept(
    feedback: Feedback, more: dict[str, Any], code: str, field: str
) -> None:
    answer = await feedback.post({"outcomes": [NAMED, {**NAMED, **more}]}, KEY)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    assert [(r["index"], r["code"], r["field"]) for r in answer.json()["rejected"]] == [(1, code, field)]
    assert len(feedback.outcomes) == 1


@pytest.mark.parametrize("name", ["0170-123456", "+49 171 1234567", "203.0.113.7", "9:30:00"])
async def test_ids_of_decisions_offers_and_orders_may_look_like_a_phone(
    feedback: Feedback, name: str
) -> None:
    item = {**NAMED, "decision_id": name, "offer_id": name, "order_id": name}
    assert (await feedback.post(item, KEY)).status_code == 202
    assert len(feedback.outcomes) == 1


async def test_infinite_value_is_refused(feedback: Feedback) -> None:
    raw = json.dumps({**NAMED, "value": 0}).replace(": 0", ": 1e400")
    answer = await feedback.http.post("/v1/outcomes", content=f"[{raw}]", headers=KEY)
    assert problem(answer, 422)["code"] == "not_finite"


async def test_value_is_at_most_the_products_price(feedback: Feedback) -> None:
    sold = {"token": feedback.token(), "outcome": "converted"}
    for value, status in ((10, 202), (10.5, 422)):
        assert (await feedback.post({**sold, "value": value}, KEY)).status_code == status
    many = {**sold, "value": 30, "order_id": "o1"}
    assert (await feedback.post(many, KEY)).status_code == 202
    assert feedback.outcomes[-1].order_id == "o1"


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", None])
async def test_beacon_is_read_as_json(feedback: Feedback, kind: str | None) -> None:
    body = json.dumps({"outcomes": [{"token": feedback.token(), "outcome": "shown"}]})
    headers = {"content-type": kind} if kind else {}
    answer = await feedback.http.post("/v1/outcomes", content=body.encode(), headers=headers)
    assert answer.status_code == 202


async def test_batch_is_one_transaction(feedback: Feedback) -> None:
    items = [{**NAMED, "outcome": word} for word in ("shown", "clicked", "accepted")]
    body = "\n".join(json.dumps(item) for item in items)
    headers = {**KEY, "content-type": "application/x-ndjson"}
    answer = await feedback.http.post("/v1/outcomes", content=body, headers=headers)
    assert answer.json()["accepted"] == 3
    assert [len(pack) for pack in feedback.journal.transactions] == [3]


@pytest.mark.parametrize("year", ["0001-01-01", "9999-12-31T23:59:59Z"])
async def test_outcome_outside_the_window_is_kept_and_flagged(feedback: Feedback, year: str) -> None:
    assert (await feedback.post({**NAMED, "occurred_at": year}, KEY)).status_code == 202
    (event,) = feedback.outcomes
    assert (event.learn, event.flags, event.recorded_at) == (False, ("out_of_window",), NOW)


async def test_objection_by_token_says_the_channel_of_the_offer(feedback: Feedback) -> None:
    mailed = feedback.token(channel="email")
    said = [{"token": mailed, "outcome": "unsubscribed"}, {"token": mailed, "outcome": "clicked"}]
    assert (await feedback.post(said)).status_code == 202
    assert (await feedback.post({**NAMED, "outcome": "complained"}, KEY)).status_code == 202
    assert [event.channel for event in feedback.outcomes] == ["email", None, None]


async def test_one_click_unsubscribes_and_looking_at_the_page_does_not(feedback: Feedback) -> None:
    path = f"/u/{feedback.token(channel='email')}"
    page = await feedback.http.get(path)
    assert (page.status_code, feedback.outcomes) == (200, []), "scanners of mail follow every link"
    assert page.headers["content-type"].startswith("text/html")
    assert '<form method="post">' in page.text
    assert (page.headers["referrer-policy"], page.headers["cache-control"]) == ("no-referrer", "no-store")
    for _ in range(2):
        posted = await feedback.http.post(path, data={"List-Unsubscribe": "One-Click"})
        assert (posted.status_code, "unsubscribed" in posted.text) == (200, True)
        feedback.clock.tick(DAY)
    ids = {event.id for event in feedback.outcomes}
    assert ids == {"d1/product:p1/unsubscribed"}, "counts once"
    words = [event for event in feedback.journal.events if isinstance(event, ConsentGiven)]
    assert len({word.id for word in words}) == 2, "is heard each time: he may have granted it in between"
    assert {(word.customer, word.purpose, word.channel, word.granted, word.internal) for word in words} == {
        ("c1", "marketing", "email", False, True)
    }
    assert {(event.outcome, event.channel, event.customer) for event in feedback.outcomes} == {
        ("unsubscribed", "email", "c1")
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unsubscribing_needs_a_good_token_and_a_spool(feedback: Feedback, method: str) -> None:
    good = feedback.token(channel="email")
    assert problem(await feedback.http.request(method, f"/u/{good[:-1]}"), 422)["code"] == "token_invalid"
    assert (await feedback.http.request(method, "/u/x")).status_code == 422
    if method == "POST":
        feedback.journal.refuse = Transient("full", retry_after=3)
        answer = await feedback.http.post(f"/u/{good}")
        assert problem(answer, 503)
        assert answer.headers["retry-after"] == "3"
    assert feedback.outcomes == []


async def test_full_spool_is_503(feedback: Feedback) -> None:
    feedback.journal.refuse = Transient("full", retry_after=3)
    answer = await feedback.post(NAMED, KEY)
    assert problem(answer, 503)
    assert answer.headers["retry-after"] == "3"
    assert (await feedback.http.get("/readyz")).status_code == 503
    feedback.journal.refuse = None
    assert (await feedback.http.get("/readyz")).status_code == 200


async def test_failed_commit_is_no_202(feedback: Feedback) -> None:
    feedback.journal.failing = True
    assert (await feedback.post(NAMED, KEY)).status_code == 503


async def test_outcomes_are_in_openapi_and_metrics(feedback: Feedback) -> None:
    assert "/v1/outcomes" in (await feedback.http.get("/openapi.json")).json()["paths"]
    await feedback.post([NAMED, {**NAMED, "outcome": "bought"}], KEY)
    text = (await feedback.http.get("/metrics")).text
    assert 'closedloop_feedback_outcomes_accepted_total{outcome="clicked"} 1.0' in text
    assert 'closedloop_feedback_outcomes_rejected_total{code="wrong_type"} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/outcomes/stream"),
        ("POST", "/v1/surveys"),
        ("GET", "/o/TOKEN.gif"),
        ("GET", "/c/TOKEN"),
        ("GET", "/s/TOKEN"),
        ("GET", "/r/1a2b"),
        ("POST", "/v1/webhooks/sendgrid"),
        ("POST", "/v1/webhooks/mailgun"),
        ("POST", "/v1/webhooks/postmark"),
        ("POST", "/v1/webhooks/standard"),
    ],
)
async def test_what_is_not_built_yet_says_so(feedback: Feedback, method: str, path: str) -> None:
    answer = await feedback.http.request(method, path.replace("TOKEN", feedback.token()), headers=KEY)
    assert problem(answer, 404)["code"] == "not_supported"
    assert feedback.outcomes == []


async def test_a_path_of_nobody_is_not_found(feedback: Feedback) -> None:
    for path in ("/v1/webhooks/other", "/o/x.png", "/c/"):
        assert problem(await feedback.http.get(path, headers=KEY), 404)["code"] == "not_found"
