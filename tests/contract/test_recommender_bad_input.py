"""Catalogues, customers and requests as they should not be: answers come, nothing breaks, all is named."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.contracts.catalogue import Placement
from libs.common.contracts.customer_model import MAX_ITEMS
from tests.contract.recommender_world import URL, World, ask, products, stocked


def goods(product_id: str, **more: Any) -> dict[str, Any]:
    fields = {"name": product_id, "category": "odd", "price": 5.0, "currency": "EUR"}
    return {"product_id": product_id, **fields, **more}


async def sell(client: httpx.AsyncClient, *entries: dict[str, Any], kind: str = "products") -> None:
    """Store entries, and wait until decisions know them."""
    response = await client.post(f"/v1/{kind}", json=list(entries))
    assert response.json()["rejected"] == [], response.text
    wanted = {entry["product_id"] for entry in entries} if kind == "products" else set()
    async with asyncio.timeout(2):
        while not wanted <= set(products(await ask(client, limit=100, dry_run=True))):
            await asyncio.sleep(0.01)


async def _price(client: httpx.AsyncClient, product_id: str) -> float:
    answer = await ask(client, limit=100, dry_run=True)
    found = [offer["product"]["price"] for offer in answer["offers"] if offer["product_id"] == product_id]
    return float(found[0])


def sound(answer: dict[str, Any]) -> None:
    """Every number of an answer can be trusted, and every offer says why."""
    for offer in answer["offers"]:
        assert math.isfinite(offer["score"])
        assert 0.0 < offer["propensity"] <= 1.0
        assert 1 <= len(offer["reasons"]) <= 2
        assert all(reason.strip() for reason in offer["reasons"])


async def test_entries_that_lack_something_are_offered_flagged_and_counted(world: World) -> None:
    async with world.up() as client:
        await sell(
            client,
            goods("bare"),
            goods("free", price=0),
            goods("free too", price=0.0, margin=0),
            goods("loss", margin=-3.0),
            goods("nowhere", category=""),
            goods("slashes", category=" / "),
            goods("huge", price=1e12, margin=1e12),
            goods("grain", price=1e-9, size=1e-9, unit="kg"),
            goods("heavy", price=1e12, size=1e300, unit="kg"),
        )
        flags = {
            name: (await client.get(f"/v1/products/{name}")).json()["flags"]
            for name in ("bare", "free too", "nowhere", "slashes")
        }
        assert flags == {
            "bare": ["margin_assumed"],
            "free too": ["price_zero"],
            "nowhere": ["margin_assumed", "category_missing"],
            "slashes": ["margin_assumed", "category_missing"],
        }
        for placement in ("sure", "lucky", "costly", "unknown"):
            for page in (None, "free", "loss", "huge", "grain", "heavy", "nowhere"):
                context = {"product_id": page} if page else {}
                sound(await ask(client, placement=placement, context=context, limit=100, customer_id="c1"))
        counted = (await client.get("/metrics")).text
        for flag, count in (("margin_assumed", 7 + 6), ("price_zero", 2), ("category_missing", 2)):
            assert f'closedloop_recommender_catalogue_flagged_rows{{flag="{flag}"}} {count}.0' in counted


async def test_an_offer_of_a_missing_product_is_named_and_never_made(world: World) -> None:
    async with world.up() as client:
        orphan = {"offer_id": "orphan", "kind": "cross_sell", "product_id": "never heard of", "value": 1e6}
        await sell(client, orphan, {"offer_id": "read", "kind": "content", "value": 1.0}, kind="offers")
        named: dict[str, Any] = {}
        for number in range(100):
            await ask(client, customer_id="c1", limit=100, decision_id=f"d{number}")
            named = (await client.get(f"/v1/decisions/d{number}")).json()
            if "product_missing" in named["rejected"]:
                break
            await asyncio.sleep(0.01)
        assert named["rejected"]["product_missing"] == 1
        assert "orphan" not in {one["offer_id"] for one in named["candidates"]}
        assert 'flagged_rows{flag="product_missing"} 1.0' in (await client.get("/metrics")).text


async def test_a_catalogue_of_one_product_offers_it_unless_it_is_on_the_page(tmp_path: Path) -> None:
    world = await stocked(tmp_path)
    world.stores.catalogue._bodies.clear()
    await world.stores.catalogue.put("placement", [("sure", Placement(placement_id="sure", exploration=0.0))])
    async with world.up() as client:
        assert products(await ask(client)) == []
        await sell(client, goods("only"))
        answer = await ask(client)
        sound(answer)
        assert products(answer) == ["only"]
        page = await ask(client, context={"product_id": "only"}, decision_id="d1")
        assert page["offers"] == []
        decision = (await client.get("/v1/decisions/d1")).json()
        assert (decision["candidates"], decision["rejected"]) == ([], {"page_or_basket": 1})


async def test_a_customer_with_a_thousand_items_and_one_with_none_are_both_answered(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("rich", "milk", *(f"gone-{number}" for number in range(MAX_ITEMS - 2)), "coffee")
        world.knows("poor")
        for customer in ("rich", "poor", "stranger"):
            answer = await ask(client, customer_id=customer, limit=100, decision_id=customer)
            sound(answer)
            assert len(answer["offers"]) == 7
        rich = (await client.get("/v1/decisions/rich")).json()["candidates"]
        assert {one["product_id"] for one in rich if one["kind"] == "repeat"} == {"milk", "coffee"}


async def test_exclude_of_everything_is_an_empty_answer_that_says_so(world: World) -> None:
    async with world.up() as client:
        shelf = products(await ask(client, limit=100))
        many = shelf + [f"unknown-{number}" for number in range(1_000 - len(shelf))]
        for placement in ("sure", "lucky", "costly"):
            answer = await ask(client, placement=placement, exclude=many, decision_id=f"d-{placement}")
            assert answer["offers"] == []
            decision = (await client.get(f"/v1/decisions/d-{placement}")).json()
            assert decision["rejected"] == {"excluded": len(shelf)}
            assert decision["candidates"] == []


async def test_a_context_of_a_hundred_unknown_fields_is_taken(world: World) -> None:
    odd = (1e308, -1e308, 0, None, True, "x" * 300, ["a", {}], {"deep": {"er": [1, 2]}}, "\u0000b", "")
    context = {f"field {number}": odd[number % len(odd)] for number in range(100)}
    async with world.up() as client:
        for placement in ("sure", "lucky"):
            response = await client.post(URL, json={"placement": placement, "context": context})
            if response.status_code == 422:
                # NUL is refused everywhere by name; the rest is free.
                assert response.json()["errors"][0]["code"] == "bad_string"
                context = {key: value for key, value in context.items() if value != "\u0000b"}
            answer = await ask(client, placement=placement, context=context, customer_id="c1")
            sound(answer)
            assert answer["offers"]


@pytest.mark.parametrize("context", [{"product_id": 5}, {"basket": 7}, {"basket": [None, 3, {}, "milk"]}])
async def test_a_page_or_basket_of_the_wrong_form_breaks_nothing(
    world: World, context: dict[str, Any]
) -> None:
    async with world.up() as client:
        response = await client.post(URL, json={"placement": "sure", "context": context})
        assert response.status_code in (200, 422)
        if response.status_code == 422:
            assert response.json()["errors"][0]["field"].startswith("/context/")
        else:
            sound(response.json())
            assert "milk" not in products(response.json()) or "milk" not in str(context)


async def test_prices_that_change_wildly_leave_no_trace_that_breaks(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("c1", "coffee", "milk")
        for price in (0, 1e12, 1e-9, 6.0):
            body = goods("espresso", category="drinks/coffee", price=price)
            await client.put("/v1/products/espresso", json=body)
            async with asyncio.timeout(2):
                while await _price(client, "espresso") != price:
                    await asyncio.sleep(0.01)
            for page in ("coffee", "espresso"):
                sound(await ask(client, customer_id="c1", context={"product_id": page}, limit=10))
