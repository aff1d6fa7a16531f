"""Recommendations and decisions over HTTP, the service whole in one process with memory twins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from libs.common.clock import DAY
from libs.common.contracts.customer_event import encode_event
from libs.common.contracts.vectors import trial_vector
from libs.common.scoring.trial import FEATURE_SET, TRIAL_FEATURES
from libs.common.secrets import Secrets
from libs.common.tokens import TokenSealer
from services.recommender.memory import MemoryDecisionStore
from services.recommender.ports import KeptDecision
from tests.contract.recommender_world import URL, World, ask, products, until


async def test_answer_has_the_shape_of_the_contract(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("c1", "milk")
        answer = await ask(client, customer_id="c1", limit=2, context={"product_id": "coffee", "mood": "x"})
    assert set(answer) == {
        "decision_id", "group", "policy_version", "fresh", "degraded", "limited_by", "offers",
    }  # fmt: skip
    assert (answer["group"], answer["fresh"], answer["degraded"], answer["limited_by"]) == (
        "treatment", True, [], [],
    )  # fmt: skip
    offer = answer["offers"][0]
    assert set(offer) == {
        "offer_id", "product_id", "kind", "rank", "score", "propensity", "reasons", "product",
        "token", "click_url", "pixel_url",
    }  # fmt: skip
    assert (offer["offer_id"], offer["kind"], offer["rank"]) == ("product:milk", "repeat", 1)
    assert (offer["propensity"], offer["click_url"], offer["pixel_url"]) == (1.0, None, None)
    assert offer["reasons"] == ["You usually buy this every 7 days"]
    assert offer["product"] == {
        "name": "milk", "url": None, "image_url": None, "price": 1.0, "currency": "EUR",
    }  # fmt: skip
    sealer = TokenSealer(Secrets(world.folder).token_key())
    token = sealer.open(offer["token"], world.clock.now(), DAY)
    assert (token.decision_id, token.offer_id, token.customer) == (
        answer["decision_id"], "product:milk", "c1",
    )  # fmt: skip


async def test_kinds_may_be_said_to_be_all(world: World) -> None:
    async with world.up() as client:
        stored = await client.put("/v1/placements/wide", json={"kinds": "all"})
        assert (stored.status_code, "kinds" in stored.json()) == (200, False), stored.text
        everything = await ask(client, limit=100, dry_run=True)
        said = await ask(client, placement="wide", limit=100, dry_run=True, kinds="all")
        by_query = await client.get(f"{URL}?placement=wide&limit=100&dry_run=true&kinds=all")
        assert len(products(everything)) > 5
        assert set(products(said)) == set(products(everything)) == set(products(by_query.json()))
        for mixed in ({"kinds": ["all", "repeat"]}, {"kinds": ["all"]}, {"kinds": "repeat"}):
            refused = await client.post(URL, json={"placement": "wide", **mixed})
            assert (refused.status_code, refused.json()["code"]) == (422, "wrong_type"), refused.text
        refused = await client.get(f"{URL}?placement=wide&kinds=all,repeat")
        assert (refused.status_code, refused.json()["code"]) == (422, "wrong_type"), refused.text


async def test_page_basket_and_exclude_are_never_offered(world: World) -> None:
    async with world.up() as client:
        context = {"product_id": "coffee", "basket": ["milk", {"product_id": "bread", "quantity": 2}]}
        exclude = ["jam", *(f"unknown{number}" for number in range(999))]
        answer = await ask(client, limit=10, context=context, exclude=exclude)
        assert sorted(products(answer)) == ["espresso", "honey", "tea"]
        kinds = {offer["product_id"]: offer["kind"] for offer in answer["offers"]}
        assert kinds["espresso"] == "up_sell"
        only = await ask(client, limit=10, context=context, kinds=["up_sell"])
        assert products(only) == ["espresso"]


async def test_limit_offers_come_from_an_unknown_placement_and_it_is_counted(world: World) -> None:
    async with world.up() as client:
        answer = await ask(client, placement="nowhere")
        assert len(answer["offers"]) == 5
        metrics = (await client.get("/metrics")).text
    assert "closedloop_recommender_unknown_placements_total 1.0" in metrics


async def test_get_answers_as_post(world: World) -> None:
    async with world.up() as client:
        query = (
            "placement=sure&product_id=coffee&basket=milk,bread&exclude=jam&limit=9&kinds=up_sell,cross_sell"
        )
        response = await client.get(f"{URL}?{query}&decision_id=g1&channel=app&wait_ms=10&dry_run=false")
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        body = {
            "context": {"product_id": "coffee", "basket": ["milk", "bread"]},
            "exclude": ["jam"], "limit": 9, "kinds": ["up_sell", "cross_sell"],
        }  # fmt: skip
        assert products(response.json()) == products(await ask(client, **body))
        repeated = "placement=sure&limit=9&exclude=jam&exclude=tea&basket=milk&basket=bread&kinds="
        answer = (await client.get(f"{URL}?{repeated}")).json()
        assert sorted(products(answer)) == ["coffee", "espresso", "honey"]
        assert (await client.get(f"{URL}?placement=sure&limit=many")).json()["code"] == "wrong_type"
        assert (await client.get(f"{URL}?limit=3")).json()["code"] == "missing"
        assert (await client.get(f"{URL}?placement=sure&color=red")).json()["code"] == "unknown_field"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"placement": ""}, "wrong_type", "/placement"),
        ({"limit": 0}, "wrong_type", "/limit"),
        ({"limit": "5"}, "wrong_type", "/limit"),
        ({"kinds": ["bribe"]}, "wrong_type", "/kinds/0"),
        ({"kinds": ["bribe"]}, "wrong_type", None),
        ({"customer_id": "anon:x"}, "bad_string", "/customer_id"),
        ({"customer_id": "a\0b"}, "bad_string", "/customer_id"),
        ({"context": {"basket": "milk"}}, "wrong_type", "/context/basket"),
        ({"context": {"basket": [3]}}, "wrong_type", "/context/basket/0"),
        ({"context": {"product_id": 7}}, "wrong_type", "/context/product_id"),
        ({"context": []}, "wrong_type", "/context"),
        ({"exclude": ["x"] * 1001}, "too_large", "/exclude"),
        ({"after": "nonsense"}, "wrong_type", "/after"),
        ({"wait_ms": 5000}, "wrong_type", "/wait_ms"),
        ({"at": "yesterday"}, "bad_time", "/at"),
        ({"decision_id": "a\u200bb"}, "bad_string", "/decision_id"),
        ({"context": {"note": "x" * 33_000}}, "too_large", "/context"),
        ({"decision_id": "x" * 129}, "too_large", "/decision_id"),
        ({"dry_run": 1}, "wrong_type", "/dry_run"),
        ({"placment": "x"}, "unknown_field", "/placment"),
        ({"account_id": "x"}, "not_supported", "/account_id"),
    ],
)
async def test_wrong_request_is_refused_by_field(
    world: World, body: dict[str, Any], code: str, field: str | None
) -> None:
    async with world.up() as client:
        problem = await ask(client, 422, **body)
    assert problem["code"] == code
    if field is not None:
        assert problem["errors"][0]["field"].startswith(field.rsplit("/0", 1)[0])
    assert world.decisions == []


async def test_free_context_of_any_size_is_taken(world: World) -> None:
    async with world.up() as client:
        answer = await ask(client, context={f"unknown{number}": [number] for number in range(100)})
    assert len(answer["offers"]) == 5
    assert len(encode_event(world.decisions[0])) <= 4_000


async def test_same_decision_id_returns_the_first_answer_whatever_else_is_asked(world: World) -> None:
    async with world.up() as client:
        first = await ask(client, placement="lucky", decision_id="d 1")
        again = await ask(client, placement="sure", decision_id="d 1", limit=1, exclude=["milk"])
        assert again == first
        assert await ask(client, decision_id="d 1", dry_run=True) == first
    assert len(world.decisions) == 1
    async with world.up() as client:
        assert await ask(client, decision_id="d 1") == first, "after a restart"
    world.stores.decisions.away = True
    async with world.up() as client:
        assert len((await ask(client, decision_id="d 2"))["offers"]) == 5
    assert len(world.decisions) == 2


async def test_answer_is_remembered_by_spool_and_by_store(world: World) -> None:
    world.stores.decisions.away = True
    async with world.up(answers=0) as client:
        first = await ask(client, placement="lucky", decision_id="d1")
        assert await ask(client, decision_id="d1") == first
        assert await world.journal.find_local("d1") is not None
        world.stores.decisions.away = False
        await until(lambda: "d1" in world.stores.decisions.decisions, 10.0)
        assert await ask(client, decision_id="d1") == first
    assert len(world.decisions) == 1


class SlowStore(MemoryDecisionStore):
    """A store that answers after others had their turn, as a database does."""

    async def find(self, decision_ids: Sequence[str]) -> dict[str, KeptDecision]:
        await asyncio.sleep(0.01)
        return await super().find(decision_ids)


async def test_decision_id_may_be_of_any_printable_characters(world: World) -> None:
    async with world.up() as client:
        first = await ask(client, decision_id="Käse/№ 1 😀")
        assert await ask(client, decision_id="Käse/№ 1 😀", limit=1) == first
        path = "/v1/decisions/K%C3%A4se%2F%E2%84%96%201%20%F0%9F%98%80"
        assert (await client.get(path)).json()["decision_id"] == "Käse/№ 1 😀"


async def test_a_thousand_long_ids_are_excluded_in_a_batch_too(world: World) -> None:
    exclude = ["milk", *(f"{number:0>60}" for number in range(999))]
    async with world.up() as client:
        single = await ask(client, limit=10, exclude=exclude)
        request = {"placement": "sure", "limit": 10, "exclude": exclude}
        response = await client.post(f"{URL}/batch", json={"requests": [request]})
        (answer,) = response.json()["answers"]
        assert products(answer) == products(single)
        response = await client.post(f"{URL}/batch", json={"requests": 5})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "/requests")


async def test_one_decision_id_asked_at_once_is_decided_once(world: World) -> None:
    world.stores.decisions = SlowStore()
    async with world.up() as client:
        answers = await asyncio.gather(*(ask(client, placement="lucky", decision_id="d") for _ in range(8)))
        batch = {"requests": [{"placement": "lucky", "decision_id": name} for name in ("x", "y", "x", "d")]}
        posts = [client.post(f"{URL}/batch", json=batch) for _ in range(3)]
        [first, *others] = [reply.json()["answers"] for reply in await asyncio.gather(*posts)]
    assert all(answer == answers[0] for answer in answers)
    assert others == [first, first]
    assert first[0] == first[2]
    assert first[3] == answers[0]
    assert len(world.decisions) == 3


async def test_dry_run_leaves_nothing(world: World) -> None:
    async with world.up() as client:
        answer = await ask(client, decision_id="dry", dry_run=True)
        assert {offer["token"] for offer in answer["offers"]} == {None}
        assert (await client.get("/v1/decisions/dry")).status_code == 404
        real = await ask(client, decision_id="dry")
        assert products(real) == products(answer)
        assert all(offer["token"] for offer in real["offers"])
    assert [event.id for event in world.decisions] == ["dry"]


async def test_decision_shows_pools_that_sum_to_one(world: World) -> None:
    async with world.up() as client:
        for number in range(20):
            answer = await ask(client, placement="lucky", customer_id="c1", decision_id=f"d{number}")
            decision = (await client.get(f"/v1/decisions/d{number}")).json()
            assert set(decision) == {
                "decision_id", "decided_at", "customer", "placement", "group", "objective", "versions",
                "seed", "slots", "ghosts", "candidates", "rejected",
            }  # fmt: skip
            assert (decision["customer"], decision["placement"]) == ("c1", "lucky")
            assert set(decision["versions"]) == {"policy", "model", "catalogue"}
            assert [slot["offer_id"] for slot in decision["slots"]] == [
                offer["offer_id"] for offer in answer["offers"]
            ]
            for slot, offer in zip(decision["slots"], answer["offers"], strict=True):
                chances = {chance["offer_id"]: chance["propensity"] for chance in slot["pool"]}
                assert sum(chances.values()) == pytest.approx(1.0, abs=1e-9)
                assert chances[slot["offer_id"]] == pytest.approx(slot["propensity"])
                assert slot["propensity"] == pytest.approx(offer["propensity"])
            candidate = decision["candidates"][0]
            assert set(candidate) - {"contributions", "worth"} == {
                "offer_id", "product_id", "kind", "source", "chance", "mean", "variance", "value", "rules",
            }  # fmt: skip
            told = {one["offer_id"] for one in decision["candidates"] if "contributions" in one}
            assert told >= {offer["offer_id"] for offer in answer["offers"]}
            assert len(decision["candidates"]) == 7
        assert (await client.get("/v1/decisions/unknown")).status_code == 404


async def test_page_and_basket_are_kept_short_and_without_addresses(world: World) -> None:
    long = "012-" + "1" * 10_000
    async with world.up() as client:
        world.progress()
        context = {"product_id": long, "basket": ["0261-230-045", "anna@example.com", long + "a"]}
        await ask(client, placement="lucky", customer_id="c1", context=context)
    assert world.decisions[0].context == {"product_id": long[:256], "basket": ["0261-230-045", long[:256]]}


async def test_decision_event_says_what_was_known(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("c1", "milk")
        body = {"customer_id": "c1", "anonymous_id": "a1", "context": {"product_id": "tea"}}
        answer = await ask(client, placement="lucky", **body)
    event = world.decisions[0]
    assert (event.id, event.source, event.customer) == (answer["decision_id"], "recommender", "c1")
    assert (event.group, event.placement, event.context) == ("treatment", "lucky", {"product_id": "tea"})
    assert (event.replay, event.forced, event.anonymous_id) == (False, False, "a1")
    assert [offer.offer_id for offer in event.offers] == [offer["offer_id"] for offer in answer["offers"]]
    assert all(len(trial_vector(event, offer)) == len(TRIAL_FEATURES) for offer in event.offers)
    assert (event.feature_set, event.window) == (FEATURE_SET, 7 * DAY)
    assert event.catalogue_version > 0


async def test_decision_event_says_how_long_an_order_can_be_the_offers(world: World) -> None:
    async with world.up() as client:
        for channel in ("web", "email", "phone", "post"):
            await ask(client, channel=channel)
    assert [event.window for event in world.decisions] == [7 * DAY, 14 * DAY, 60 * DAY, 60 * DAY]


async def test_no_offer_is_an_answer_only_where_contact_costs(world: World) -> None:
    async with world.up() as client:
        answer = await ask(client, placement="costly", decision_id="d1")
        assert answer["offers"] == []
        slot = (await client.get("/v1/decisions/d1")).json()["slots"][0]
    assert (slot["offer_id"], slot["propensity"]) == ("none", 1.0)


async def test_batch_answers_in_order_with_a_problem_for_each_that_failed(world: World) -> None:
    async with world.up() as client:
        requests = [
            {"placement": "sure", "limit": 1},
            {"placement": 7},
            {"placement": "sure", "decision_id": "b", "limit": 2},
            {"placement": "sure", "after": "nonsense"},
            {"placement": "sure", "decision_id": "b"},
            {"placement": "sure", "dry_run": True},
        ]
        response = await client.post(f"{URL}/batch", json={"requests": requests})
        assert response.status_code == 200
        answers = response.json()["answers"]
        assert [len(answer.get("offers", "")) for answer in answers] == [1, 0, 2, 0, 2, 5]
        assert [answers[at]["code"] for at in (1, 3)] == ["wrong_type", "wrong_type"]
        assert (answers[1]["status"], answers[1]["errors"][0]["field"]) == (422, "/placement")
        assert answers[2] == answers[4]
        assert answers[5]["offers"][0]["token"] is None
        many = [{"placement": "sure", "dry_run": True}] * 1001
        assert (await client.post(f"{URL}/batch", json={"requests": many})).status_code == 413
        whole = await client.post(f"{URL}/batch", json={"requests": many[:1000]})
        assert len(whole.json()["answers"]) == 1000
        assert (await client.post(f"{URL}/batch", json={"requests": []})).status_code == 422
    assert len(world.decisions) == 2
