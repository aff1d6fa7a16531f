"""A customer whose model is withdrawn: his decisions, pools and answers go, and none are kept later."""

from __future__ import annotations

from libs.common.contracts.customer_model import model_key
from libs.common.contracts.topics import CUSTOMER_MODELS, HEADER_DROPPED
from tests.contract.recommender_world import World, ask, until


def withdraw(world: World, customer: str) -> None:
    for part in ("items", "profile"):
        world.views[CUSTOMER_MODELS].put(model_key(customer, part), None, 9)


async def test_decisions_of_a_withdrawn_customer_are_deleted_and_forgotten(world: World) -> None:
    kept = world.stores.decisions
    async with world.up() as client:
        world.knows("c-1", "tea")
        world.knows("c-2", "tea")
        world.progress()
        first = await ask(client, customer_id="c-1", decision_id="d-1")
        await ask(client, customer_id="c-2", decision_id="d-2")
        await until(lambda: set(kept.decisions) == {"d-1", "d-2"})
        listed = (await client.get("/v1/decisions", params={"customer": "c-1"})).json()
        assert [(one["decision_id"], one["customer"]) for one in listed] == [("d-1", "c-1")]
        assert listed[0]["slots"][0]["pool"]
        withdraw(world, "c-1")
        await until(lambda: set(kept.decisions) == {"d-2"})
        await until(lambda: world.views[CUSTOMER_MODELS].gone() == [])
        assert (await client.get("/v1/decisions/d-1")).status_code == 404
        assert (await client.get("/v1/decisions", params={"customer": "c-1"})).json() == []
        # The answer is not repeated out of memory either: it is a new one, and is not kept.
        again = await ask(client, customer_id="c-1", decision_id="d-1")
        assert again["offers"][0]["token"] != first["offers"][0]["token"]
        await ask(client, customer_id="c-2", decision_id="d-3")
        await until(lambda: "d-3" in kept.decisions)
        assert set(kept.decisions) == {"d-2", "d-3"}


async def test_withdrawal_is_worked_off_once_the_store_is_back(world: World) -> None:
    kept = world.stores.decisions
    async with world.up() as client:
        world.knows("c-1", "tea")
        world.progress()
        await ask(client, customer_id="c-1", decision_id="d-1")
        await until(lambda: set(kept.decisions) == {"d-1"})
        kept.away = True
        withdraw(world, "c-1")
    # The process ended before it could do anything: the next one finds the withdrawal in its view.
    view = world.views[CUSTOMER_MODELS]
    assert len(view.gone()) == 2
    kept.away = False
    world.view = lambda topic, on_batch: _kept(world, view, topic, on_batch)  # type: ignore[method-assign]
    async with world.up():
        await until(lambda: not kept.decisions)


async def test_a_visitor_who_was_dropped_keeps_his_decisions_and_those_he_gets_when_he_returns(
    world: World,
) -> None:
    kept = world.stores.decisions
    async with world.up() as client:
        world.knows("anon:v-1", "tea")
        world.progress()
        await ask(client, anonymous_id="v-1", decision_id="d-1")
        await until(lambda: set(kept.decisions) == {"d-1"})
        view = world.views[CUSTOMER_MODELS]
        for part in ("items", "profile"):
            view.put(model_key("anon:v-1", part), None, 9, (HEADER_DROPPED, b"1"))
        assert view.get(model_key("anon:v-1", "profile")) is None
        # His model is not there again yet.
        await ask(client, anonymous_id="v-1", decision_id="d-2")
        await until(lambda: "d-2" in kept.decisions)
        assert set(kept.decisions) == {"d-1", "d-2"}
        assert view.gone() == []


def _kept(world, view, topic, on_batch):  # type: ignore[no-untyped-def]
    if topic != CUSTOMER_MODELS:
        return World.view(world, topic, on_batch)
    world.views[topic] = view
    view._on_batch = on_batch
    return view
