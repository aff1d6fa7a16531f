"""Insights over HTTP: lift of decisions and orders that came through the journal, by the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record
from libs.common.contracts.catalogue import (
    CatalogueEntry,
    Placement,
    Product,
    Withdrawn,
    encode_entry,
    entry_key,
)
from libs.common.contracts.customer_event import AboutCustomer, IdentityLinked
from libs.common.contracts.topics import CATALOGUE, TOPICS
from libs.common.errors import Transient
from libs.common.telemetry import Metrics
from services.analyzer.catalogue import CatalogueFollower
from services.analyzer.handlers.insights import Insights
from services.analyzer.handlers.watching import LiftGauges
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.facts import FactRow
from services.analyzer.model.lift import SMALL
from services.analyzer.model.margins import Margins
from tests.contract.test_analyzer_api import Caller, caller
from tests.unit.test_analyzer_lift import DAY, T0, decided, owned, sold

__all__ = ["caller"]


async def sell(caller: Caller, revision: int = 1, **entries: CatalogueEntry) -> None:
    """Put entries into the catalogue: ``coffee`` or ``home``, by what they are."""
    for name, entry in entries.items():
        kind = "placement" if name == "home" else "product"
        headers = (("revision", b"%d" % revision),)
        record = Record(entry_key(kind, name), encode_entry(entry), headers)
        await caller.producer.send(CATALOGUE, 0, [record])


async def lift(caller: Caller, **query: Any) -> Any:
    return await caller.get("/v1/insights/lift", **query)


def coffee(margin: float = 4.0) -> Product:
    return Product(product_id="coffee", name="c", category="c", price=10.0, currency="EUR", margin=margin)


def arms(people: int) -> list[AboutCustomer]:
    """``people`` in each of three groups; treatment buys one coffee more."""
    events: list[AboutCustomer] = []
    for group, more in (("treatment", 1), ("none", 0), ("baseline", 0)):
        for n in range(people):
            events.append(decided(f"{group}-{n}", group, T0 + n))
            events.append(sold(f"{group}-{n}", T0 + DAY + n, ("coffee", more + n % 3, 10.0)))
    return [event for event in events if not _is_empty(event)]


def _is_empty(event: AboutCustomer) -> bool:
    return any(line["quantity"] == 0 for line in getattr(event, "properties", {}).get("products", []))


async def test_no_rows_before_anything_was_decided(caller: Caller) -> None:
    assert await lift(caller) == {"rows": [], "lines": {"counted": 0, "assumed": 0, "unpriced": 0}}
    assert (await lift(caller, placement="home"))["rows"] == []


async def test_lift_compares_treatment_with_both_controls(caller: Caller) -> None:
    await sell(caller, coffee=coffee())
    await caller.happen(*arms(SMALL), decided("treatment-0", "treatment", T0, "basket"))
    seen = await lift(caller, placement="home")
    assert [(row["placement"], row["against"]) for row in seen["rows"]] == [
        ("home", "none"),
        ("home", "baseline"),
    ]
    for row in seen["rows"]:
        assert row["treatment"] == {"customers": SMALL, "mean": pytest.approx(8.0)}
        assert row["control"] == {"customers": SMALL, "mean": pytest.approx(4.0)}
        assert row["difference"] == pytest.approx(4.0)
        low, high = row["interval"]
        assert 0.0 < low < 4.0 < high
        assert (row["level"], row["mixed"], row["uncompared"]) == (0.95, {"customers": 0, "mean": None}, 0)
    assert seen["lines"] == {"counted": 70, "assumed": 0, "unpriced": 0}
    wider = (await lift(caller, placement="home", level=0.99))["rows"][0]
    assert wider["level"] == 0.99
    assert wider["interval"][0] < seen["rows"][0]["interval"][0]
    everywhere = (await lift(caller))["rows"]
    assert [(row["placement"], row["against"]) for row in everywhere] == [
        ("basket", "none"),
        ("basket", "baseline"),
        ("home", "none"),
        ("home", "baseline"),
    ]
    assert everywhere[0]["control"] == {"customers": 0, "mean": None}
    assert everywhere[0]["interval"] is everywhere[0]["difference"] is None


async def test_margins_follow_the_catalogue(caller: Caller) -> None:
    await caller.happen(decided("t", "treatment"), sold("t", T0 + 1, ("coffee", 1, 10.0)))
    seen = await lift(caller)
    assert seen["rows"][0]["treatment"]["mean"] == 3.0
    assert seen["lines"] == {"counted": 1, "assumed": 1, "unpriced": 0}
    for revision, entry, mean in ((1, coffee(), 4.0), (2, coffee(5.0), 5.0), (3, Withdrawn(at=T0), 3.0)):
        await sell(caller, revision, coffee=entry)
        async with asyncio.timeout(5):
            while (await lift(caller))["rows"][0]["treatment"]["mean"] != mean:
                await asyncio.sleep(0.01)


async def test_links_in_several_groups_are_a_field_of_the_row(caller: Caller) -> None:
    mine = owned("v", "c")
    told = IdentityLinked(
        id="l", source="shop", customer="c", occurred_at=T0, recorded_at=T0, customer_id="c", anonymous_id="v"
    )
    await caller.happen(
        decided("anon:v", "none"), decided("c", "treatment"), told, mine, sold("c", T0 + 1, ("x", 1, 10.0))
    )
    row = (await lift(caller))["rows"][0]
    assert row["mixed"] == {"customers": 1, "mean": 3.0}
    assert row["treatment"]["customers"] == row["control"]["customers"] == 0


@pytest.mark.parametrize("level", ["0.4", "1", "nan", "x", "-inf", ""])
async def test_level_must_be_a_share(caller: Caller, level: str) -> None:
    problem = await caller.get("/v1/insights/lift", 422, level=level)
    assert [error["field"] for error in problem["errors"]] == ["/level"]


async def test_lift_takes_the_scope_ops_and_is_in_openapi(caller: Caller) -> None:
    answer = await caller.http.get("/v1/insights/lift", headers={"authorization": "Bearer nobody"})
    assert answer.json()["code"] == "key_unknown"
    paths = (await caller.get("/openapi.json"))["paths"]
    named = [parameter["name"] for parameter in paths["/v1/insights/lift"]["get"]["parameters"]]
    assert {"placement", "level"} <= set(named)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", f"/v1/insights/{name}") for name in (
            "funnel", "channels", "offers", "needs", "conflicts", "attribution",
        )),
        ("POST", "/v1/evaluations"),
    ],
)  # fmt: skip
async def test_what_is_agreed_on_and_not_built_is_told_apart_from_a_wrong_path(
    caller: Caller, method: str, path: str
) -> None:
    body = {} if method == "GET" else {"json": {"policy": "popular"}}
    answer = await caller.http.request(method, path, **body)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_supported"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    strange = await caller.http.request(method, path, headers={"authorization": "Bearer nobody"}, **body)
    assert strange.json()["code"] == "key_unknown"
    assert (await caller.get("/v1/insights/fortune", 404))["code"] == "not_found"


async def test_gauges_show_placements_of_the_catalogue_only(caller: Caller) -> None:
    await caller.happen(*arms(SMALL), decided("x", "treatment", T0, "whatever-a-caller-says"))
    metrics = AnalyzerMetrics(Metrics("analyzer"))
    await LiftGauges(Insights(caller.store, Margins()), {"home"}, metrics, lambda: True).look()
    shown = (await metrics.registry.scrape()).decode()
    assert 'closedloop_analyzer_lift_group_customers{group="none",placement="home"} 30.0' in shown
    assert 'bound="estimate",placement="home"} 3.0' in shown
    assert "whatever" not in shown


class Wavering:
    """Facts of a database that is away now and then."""

    def __init__(self) -> None:
        self.away = True

    async def facts(self) -> AsyncIterator[Sequence[FactRow]]:
        if self.away:
            raise Transient("the database is away")
        yield []


async def test_counts_that_fail_are_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    store, metrics = Wavering(), AnalyzerMetrics(Metrics("analyzer"))
    gauges = LiftGauges(Insights(store, Margins()), {"home"}, metrics, lambda: True)
    for away in (True, True, False, True):
        store.away = away
        await gauges.look()
    assert b"closedloop_analyzer_lift_counts_failed_total 3.0" in await metrics.registry.scrape()
    assert [record.message for record in caplog.records] == ["the lift could not be counted"] * 2


async def test_catalogue_tells_margins_and_placements() -> None:
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    follower = CatalogueFollower(bus)
    await follower.start()
    producer = bus.producer()

    async def says(kind: str, value: bytes | None, revision: int) -> None:
        headers = (("revision", b"%d" % revision),)
        await producer.send(CATALOGUE, 0, [Record(entry_key(kind, "it"), value, headers)])

    async def until(products: int, placements: set[str]) -> None:
        async with asyncio.timeout(5):
            while (len(follower.margins), follower.placements) != (products, placements):
                await asyncio.sleep(0.005)

    await says("product", b"{", 1)
    await says("product", encode_entry(coffee()), 2)
    await says("placement", encode_entry(Placement(placement_id="it")), 1)
    await until(1, {"it"})
    await says("placement", encode_entry(Withdrawn(at=T0)), 2)
    await says("product", None, 3)
    await until(0, set())
    await follower.stop()
