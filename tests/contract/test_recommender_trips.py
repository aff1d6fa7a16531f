"""Over HTTP: what a basket in hand says of the kind of day it is for the customer."""

from __future__ import annotations

from pathlib import Path

from libs.common.clock import DAY
from libs.common.contracts.customer_model import Items, encode_model, model_key
from libs.common.contracts.topics import CUSTOMER_MODELS
from libs.common.contracts.touchpoint import OrderLine
from services.analyzer.model.items import bought
from tests.contract.recommender_world import NOW, ask, products, stocked


def shopping() -> Items:
    """Coffee and milk on some days, tea and honey on as many others."""
    items = Items(customer="c1")
    for n in range(12, 0, -1):
        goods = ("coffee", "milk") if n % 2 else ("tea", "honey")
        lines = [OrderLine(product_id=name, quantity=1.0) for name in goods]
        items = bought(items, lines, NOW - 3 * n * DAY)
    return items


async def test_basket_calls_up_what_the_customer_buys_with_it_and_the_decision_says_so(
    tmp_path: Path,
) -> None:
    world = await stocked(tmp_path)
    async with world.up() as client:
        world.knows("c1")
        world.views[CUSTOMER_MODELS].put(model_key("c1", "items"), encode_model(shopping()))
        world.progress()
        found = {
            name: products(
                await ask(client, customer_id="c1", dry_run=True, limit=1, context={"basket": [name]})
            )
            for name in ("coffee", "tea")
        }
        await ask(client, customer_id="c1", decision_id="d1", context={"basket": ["tea"]})
        decision = (await client.get("/v1/decisions/d1")).json()
    assert found == {"coffee": ["milk"], "tea": ["honey"]}
    told = {
        one["product_id"]: one["contributions"] for one in decision["candidates"] if "contributions" in one
    }
    assert told["honey"]["trip"] > 0.1
