"""The analyzer over HTTP, fed through an in-memory bus: customers, timeline, ledger, models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record
from libs.common.clock import DAY, HOUR, ManualClock
from libs.common.contracts.customer_event import (
    ConsentGiven,
    CustomerEvent,
    Decision,
    IdentityLinked,
    SpoolReported,
    Touchpoint,
    encode_event,
)
from libs.common.contracts.identity import partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.runtime import running
from services.analyzer.app import create_service
from services.analyzer.handlers.watching import AT_MOST_EVERY
from services.analyzer.metrics import ENDS
from services.analyzer.ports import LearnedState
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.memory import MemoryAnalyzerStore
from tests.unit.offer_world import decision as offered
from tests.unit.offer_world import outcome as showing

T0 = 1_790_000_000_000
SPOOL = "0f3a9c1e"


class Caller:
    """A running analyzer, a journal to write to, and a client."""

    def __init__(self, http: httpx.AsyncClient, bus: MemoryBus, store: MemoryAnalyzerStore) -> None:
        self.http = http
        self.bus = bus
        self.store = store
        self.producer = bus.producer()
        self.seqs: dict[int, int] = {}

    async def happen(self, *events: CustomerEvent) -> None:
        """Put events on the journal and wait until the analyzer has them."""
        for event in events:
            key = event.customer if hasattr(event, "customer") else "spool"
            partition = partition_of(key)
            seq = self.seqs[partition] = self.seqs.get(partition, 0) + 1
            headers = (("spool", SPOOL.encode()), ("seq", b"%d" % seq))
            await self.producer.send(
                CUSTOMER_EVENTS, partition, [Record(key.encode(), encode_event(event), headers)]
            )
        for _ in range(500):
            states = self.store.states
            if all(p in states and states[p].applied.get(SPOOL) == n for p, n in self.seqs.items()):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the analyzer does not get on")

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    async with analyzing(tmp_path) as one:
        yield one


@asynccontextmanager
async def analyzing(data_dir: Path) -> AsyncIterator[Caller]:
    bus, store = MemoryBus(), MemoryAnalyzerStore()
    await bus.ensure_topics(TOPICS)
    service = create_service(
        AnalyzerSettings(data_dir=data_dir, dev_key="dev-key"), bus=bus, store=store, clock=ManualClock(T0)
    )
    headers = {"authorization": "Bearer dev-key"}
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    async with (
        running(service),
        httpx.AsyncClient(transport=transport, base_url="http://a", headers=headers) as http,
    ):
        yield Caller(http, bus, store)


def touch(id_: str, at: int, customer: str = "c-7", **more: Any) -> Touchpoint:
    return Touchpoint(
        id=id_,
        customer=customer,
        occurred_at=at,
        recorded_at=at + 3,
        **{"source": "shop", "type": "page_viewed", "channel": "web", **more},
    )


def link(internal: bool = False) -> IdentityLinked:
    return IdentityLinked(
        id="l-1",
        source="shop",
        customer="anon:v/3" if internal else "c-7",
        occurred_at=T0 + 50,
        recorded_at=T0 + 50,
        customer_id="c-7",
        anonymous_id="v/3",
        internal=internal,
    )


async def test_customer_is_read_with_his_links(caller: Caller) -> None:
    order = {"order_id": "o", "products": [{"product_id": "coffee", "quantity": 2, "price": 7.5}]}
    await caller.happen(
        touch("a", T0, customer="anon:v/3", type="product_viewed", properties={"product_id": "filter"}),
        touch("b", T0 + 10, type="order_completed", channel="store", properties=order),
        link(),
        link(internal=True),
    )
    seen = await caller.get("/v1/customers/c-7")
    assert seen["customer"] == "c-7"
    assert seen["totals"] == {"product_viewed": 1, "order_completed": 1, "identity_linked": 1}
    assert [touch["type"] for touch in seen["recent"]] == ["order_completed", "product_viewed"]
    assert seen["links"] == ["anon:v/3"]
    assert {item["product_id"] for item in seen["items"]} == {"coffee", "filter"}
    assert seen["purchases"]["value"] == 15.0
    visitor = await caller.get("/v1/customers/anon:v%2F3")
    assert visitor["totals"] == {"product_viewed": 1}
    assert visitor["owner"] == "c-7"
    timeline = await caller.get("/v1/customers/c-7/timeline")
    assert [(entry["id"], entry["kind"], entry["type"]) for entry in timeline] == [
        ("l-1", "identity", "identity_linked"),
        ("b", "touchpoint", "order_completed"),
        ("a", "touchpoint", "product_viewed"),
    ]
    assert timeline[2] == {
        "id": "a",
        "kind": "touchpoint",
        "type": "product_viewed",
        "channel": "web",
        "occurred_at": "2026-09-21T14:13:20.000Z",
        "recorded_at": "2026-09-21T14:13:20.003Z",
        "properties": {"product_id": "filter"},
    }


async def test_ids_are_unique_and_a_decision_keeps_its_own(caller: Caller) -> None:
    decision = Decision(
        id="d-1", source="recommender", customer="c-7", occurred_at=T0 + 9, recorded_at=T0 + 9,
        placement="home", channel="web", group="treatment", policy_version="p", model_version=1,
        catalogue_version=1, seed=1, objective="uplift",
    )  # fmt: skip
    await caller.happen(touch("d-1", T0), decision, touch("d-1", T0 + 20, source="till"))
    timeline = await caller.get("/v1/customers/c-7/timeline")
    assert len({entry["id"] for entry in timeline}) == 3
    assert [entry["kind"] for entry in timeline if entry["id"] == "d-1"] == ["decision"]
    for newer, older in pairwise(timeline):
        after = await caller.get("/v1/customers/c-7/timeline", before=newer["id"], limit=1)
        assert after == [older]


async def test_timeline_takes_limit_and_before(caller: Caller) -> None:
    await caller.happen(*(touch(f"e-{n}", T0 + n) for n in range(5)))
    first = await caller.get("/v1/customers/c-7/timeline", limit=2)
    assert [entry["id"] for entry in first] == ["e-4", "e-3"]
    rest = await caller.get("/v1/customers/c-7/timeline", before="e-3")
    assert [entry["id"] for entry in rest] == ["e-2", "e-1", "e-0"]
    for wrong in ({"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"limit": -1}, {"before": "nobody"}):
        await caller.get("/v1/customers/c-7/timeline", 422, **wrong)


async def test_unknown_customer_is_a_404_problem(caller: Caller) -> None:
    for path in ("/v1/customers/nobody", "/v1/customers/nobody/timeline", "/v1/customers/anon:x"):
        problem = await caller.get(path, 404)
        assert problem["code"] == "unknown_customer"


async def test_ledger_tells_every_source(caller: Caller) -> None:
    report = SpoolReported(spool=SPOOL, service="collector", recorded_at=T0, accepted={"shop": 4})
    await caller.happen(touch("a", T0), touch("a", T0), touch("b", T0), link(internal=True), report)
    ledger = await caller.get("/v1/ledger")
    assert ledger == {
        "accepted": 4,
        "applied": 2,
        "duplicate": 1,
        "rejected": 0,
        "dead_lettered": 0,
        "erased": 0,
        "in_flight": 1,
        "balanced": True,
        "internal": 2,
        "redelivered": 0,
        "gaps": 0,
        "unmatched": 0,
        "by_source": [
            {
                "source": "shop",
                "accepted": 4,
                "applied": 2,
                "duplicate": 1,
                "rejected": 0,
                "dead_lettered": 0,
                "erased": 0,
                "in_flight": 1,
            }
        ],
        "unbalanced": [],
    }


async def test_models_tell_how_far_the_learner_is(caller: Caller) -> None:
    nothing = {"version": 0, "journal_time": 0, "orders": 0, "trials": 0}
    assert await caller.get("/v1/models") == {"learned": nothing}
    caller.store.learned_state = LearnedState(3, T0, 20, 0)
    assert (await caller.get("/v1/models"))["learned"]["journal_time"] == T0


async def test_dead_letters_are_listed_looked_at_and_replayed(caller: Caller) -> None:
    bad = touch("x", T0, type="order_completed", properties={"order_id": "secret"})
    await caller.happen(bad, touch("a", T0), touch("a", T0, type="page_left"))
    reuse, letter = (await caller.get("/v1/dead-letters"))["dead_letters"]
    assert (letter["code"], letter["source"], letter["seq"]) == ("wrong_type", "shop", 1)
    assert "secret" not in str(letter)
    assert (await caller.get("/v1/dead-letters", code="id_reuse"))["dead_letters"] == [reuse]
    assert (await caller.get("/v1/dead-letters", before=reuse["id"], limit=1))["dead_letters"] == [letter]
    whole = await caller.get(f"/v1/dead-letters/{letter['id']}")
    assert (whole["dead_letter"], whole["key"]) == (letter, "c-7")
    assert (whole["headers"]["spool"], whole["headers"]["code"]) == (SPOOL, "wrong_type")
    assert "secret" in whole["value"]
    for path in ("/v1/dead-letters/99", "/v1/dead-letters/x"):
        assert (await caller.get(path, 404))["code"] == "unknown_dead_letter"
    for wrong in ({"partition": 12}, {"partition": "x"}, {"since": "soon"}, {"before": "-1"}):
        await caller.get("/v1/dead-letters", 422, **wrong)

    async def replay(body: dict[str, Any], status: int = 202) -> Any:
        answer = await caller.http.post("/v1/dead-letters/replay", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    await replay({}, 422)
    await replay({"kode": "x"}, 422)
    assert await replay({"code": "missing"}) == {"asked": 0}
    assert await replay({"id": letter["id"]}) == {"asked": 1}
    for n in range(300):
        await caller.happen(touch(f"t-{n}", T0))
        shown = (await caller.get(f"/v1/dead-letters/{letter['id']}"))["dead_letter"]
        if shown["attempts"]:
            break
        await asyncio.sleep(0.01)
    assert (shown["attempts"], shown["asked"], shown["replayed_at"]) == (1, False, None)
    ledger = await caller.get("/v1/ledger")
    assert (ledger["dead_lettered"], ledger["balanced"]) == (2, True)
    refused = await caller.http.get("/v1/dead-letters", headers={"authorization": "Bearer other"})
    assert refused.status_code == 401


async def test_database_away_is_503(caller: Caller) -> None:
    caller.store.away = True
    for path in ("/v1/customers/c-7", "/v1/ledger", "/v1/models"):
        answer = await caller.http.get(path)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    caller.store.away = False


async def test_metrics_show_the_same_ledger(caller: Caller) -> None:
    report = SpoolReported(spool=SPOOL, service="collector", recorded_at=T0, accepted={"shop": 4, "till": 1})
    bad = touch("x", T0, type="order_completed", properties={"order_id": "secret"})
    await caller.happen(touch("a", T0), touch("a", T0), bad, report)
    ledger = await caller.get("/v1/ledger")
    shown = await metrics_of(caller)
    for end in ENDS:
        assert shown[f'ledger_records{{end="{end}"}}'] == ledger[end]
        for line in ledger["by_source"]:
            place = f'ledger_source_records{{end="{end}",source="{line["source"]}"}}'
            assert shown[place] == line[end], place
    assert (ledger["in_flight"], ledger["duplicate"], ledger["dead_lettered"]) == (2, 1, 1)
    assert shown["ledger_balanced"] == float(ledger["balanced"])
    assert shown["database_answers"] == 1
    await asyncio.sleep(AT_MOST_EVERY)
    place, state = next(iter(caller.store.states.items()))
    caller.store.states[place] = replace(state, applied={"lost": 1})
    lost = await caller.get("/v1/ledger")
    assert lost["unbalanced"] == [{"spool": "lost", "partition": place, "applied": 1, "fates": 0}]
    assert (await metrics_of(caller))["ledger_balanced"] == 0
    caller.store.states[place] = state
    await asyncio.sleep(AT_MOST_EVERY)
    shown = await metrics_of(caller)
    caller.store.away = True
    await asyncio.sleep(AT_MOST_EVERY)
    away = await metrics_of(caller)
    assert (away["database_answers"], away["ledger_balanced"]) == (0, shown["ledger_balanced"])
    assert shown['dead_letters_total{code="wrong_type"}'] == 1


async def metrics_of(caller: Caller) -> dict[str, float]:
    """The analyzer's own metrics, by name and labels, these in the order of the alphabet."""
    found = {}
    for line in (await caller.http.get("/metrics")).text.splitlines():
        if line.startswith("closedloop_analyzer_"):
            name, _, value = line.removeprefix("closedloop_analyzer_").rpartition(" ")
            found[name] = float(value)
    return found


@pytest.mark.parametrize(
    "path", ["/v1/customers/c-7", "/v1/customers/c-7/timeline", "/v1/ledger", "/v1/models"]
)
async def test_every_path_needs_a_key(caller: Caller, path: str) -> None:
    answer = await caller.http.get(path, headers={"authorization": ""})
    assert answer.status_code == 401


async def test_interface_is_described(caller: Caller) -> None:
    paths = (await caller.get("/openapi.json"))["paths"]
    assert {path.replace(":path", "") for path in paths} >= {
        "/v1/customers/{id}",
        "/v1/customers/{id}/timeline",
        "/v1/ledger",
        "/v1/models",
    }


async def test_export_holds_everything_of_a_customer_and_his_visitors(caller: Caller) -> None:
    order = {"order_id": "o", "products": [{"product_id": "coffee", "quantity": 2, "price": 7.5}]}
    await caller.happen(
        touch("a", T0, customer="anon:v/3", type="product_viewed", properties={"product_id": "filter"}),
        touch("b", T0 + 10, type="order_completed", properties=order),
        link(),
        link(internal=True),
        ConsentGiven(
            id="k",
            source="shop",
            customer="c-7",
            occurred_at=T0,
            recorded_at=T0,
            purpose="marketing",
            granted=False,
            channel="email",
        ),
        touch("z", T0, customer="c-8"),
    )
    seen = await caller.get("/v1/customers/c-7/export")
    assert seen["model"] == await caller.get("/v1/customers/c-7")
    assert [model["key"] for model in seen["models"]] == ["c-7", "anon:v/3"]
    records = {(event["customer"], event["id"]): event for event in seen["events"]}
    assert set(records) == {
        ("c-7", "b"),
        ("c-7", "l-1"),
        ("c-7", "k"),
        ("anon:v/3", "a"),
        ("anon:v/3", "l-1"),
    }
    assert records["c-7", "b"]["record"]["properties"] == order
    assert records["c-7", "b"]["lessons"][0]["order_id"] == "o"
    assert seen["in_flight"] == {"records": 0}
    at = "2026-09-21T14:13:20.000Z"
    word = {"purpose": "marketing", "channel": "email", "granted": False, "at": at, "recorded_at": at}
    refused = [{**word, "told_by": "shop", "source": None, "text_version": None}]
    assert seen["consents"] == refused
    assert (await caller.get("/v1/consents/c-7")) == {"customer": "c-7", "consents": refused}
    await caller.get("/v1/customers/nobody/export", 404)
    await caller.get("/v1/consents/nobody", 404)


async def test_export_tells_how_an_offer_is_judged(caller: Caller) -> None:
    order = {"order_id": "o", "products": [{"product_id": "coffee", "quantity": 2, "price": 7.5}]}
    await caller.happen(
        offered("d-1", T0, ["coffee", "filter"], customer="c-7"),
        showing("d-1", "coffee", "shown", T0 + 10, customer="c-7"),
        touch("b", T0 + 2 * HOUR, type="order_completed", properties=order),
        touch("later", T0 + 3 * HOUR),
    )
    seen = await caller.get("/v1/customers/c-7/export")
    taught = {
        (event["type"], lesson["kind"], lesson.get("step"))
        for event in seen["events"]
        for lesson in event.get("lessons", [])
    }
    assert taught == {
        ("shown", "trial", "shown"),
        ("order_completed", "order", None),
        ("order_completed", "trial", "converted"),
    }
    (record,) = seen["models"][0]["trials"]
    assert [trial[0] for trial in record["trials"]] == ["product:coffee", "product:filter"]
    await caller.happen(touch("much later", T0 + 9 * DAY))
    judged = (await caller.get("/v1/customers/c-7/export"))["events"][0]
    assert (judged["id"], [one["bought"] for one in judged["lessons"]]) == ("d-1", [True])
