"""What the policy drew, as answers, events and reports tell it: propensities, ghosts, holdouts, sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Offer, Placement, Product
from libs.common.contracts.customer_event import encode_event
from libs.common.contracts.vectors import trial_vector
from libs.common.scoring.trial import FEATURE_SET, TRIAL_FEATURES
from services.recommender.handlers import decide
from services.recommender.model.policy import Draw, Slots
from tests.audit import deviation
from tests.contract.recommender_world import SHELF, URL, World, ask, products, stocked
from tests.unit.trial_world import T0, WINDOW, TrialLesson, lesson, life

PLACEMENTS = {
    "haunted": Placement(placement_id="haunted", exploration=0.5, ghosts=0.4, limit=1, window=86_400),
    "all-ghosts": Placement(placement_id="all-ghosts", exploration=0.5, ghosts=1.0, limit=3),
    "greedy": Placement(placement_id="greedy", exploration=0.0, ghosts=1.0),
    "calls": Placement(placement_id="calls", exploration=0.5, near_best=0.1, ghosts=0.0, limit=1),
    "best": Placement(placement_id="best", exploration=0.0, near_best=0.1, fallback="none"),
    "wide": Placement(placement_id="wide", exploration=0.2, limit=10),
}


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = await stocked(tmp_path)
    await made.stores.catalogue.put("placement", list(PLACEMENTS.items()))
    return made


async def report(client: httpx.AsyncClient, answer: dict[str, Any]) -> dict[str, Any]:
    response = await client.get(f"/v1/decisions/{answer['decision_id']}")
    found: dict[str, Any] = response.json()
    return found


def chances(slot: dict[str, Any]) -> dict[str, float]:
    return {chance["offer_id"]: chance["propensity"] for chance in slot["pool"]}


def sale(number: int, offer_id: str, *, back: bool) -> list[TrialLesson]:
    """The lessons of a trial that was bought, and maybe came back."""
    shown, facts = T0 + number, {"offer_id": offer_id, "cell": number % 3}
    lessons = list(life(shown, converted=0.1, bought=not back, **facts))
    if back:
        lessons.append(lesson(shown + WINDOW // 2, step="returned", age_to=WINDOW // 2, **facts))
    return lessons


async def audited(client: httpx.AsyncClient, numbers: range) -> float:
    """The greatest deviation of what ``lucky`` answers from what it states, over many decisions."""
    names = [f"product:{name}" for name in SHELF]
    drawn: list[list[list[float]]] = [[], [], []]
    stated: list[list[list[float]]] = [[], [], []]
    for number in numbers:
        answer = await ask(client, placement="lucky", decision_id=f"audit {number}")
        slots = (await report(client, answer))["slots"]
        for rank, (offer, slot) in enumerate(zip(answer["offers"], slots, strict=True)):
            drawn[rank].append([float(name == offer["offer_id"]) for name in names])
            stated[rank].append([chances(slot).get(name, 0.0) for name in names])
    return max(deviation(np.array(one), np.array(said)) for one, said in zip(drawn, stated, strict=True))


async def test_offers_are_answered_as_often_as_was_stated(world: World) -> None:
    async with world.up() as client:
        assert await audited(client, range(150)) < 4.5


Fill = Callable[[Sequence[Slots]], list[list[Draw]]]


def by_value(fill: Fill) -> Fill:
    """The step somebody might add: show what was drawn in the order of its value."""

    def sorted_slots(slates: Sequence[Slots]) -> list[list[Draw]]:
        return [_sorted(slots, draws) for slots, draws in zip(slates, fill(slates), strict=True)]

    def _sorted(slots: Slots, draws: list[Draw]) -> list[Draw]:
        best = sorted((draw.chosen for draw in draws), key=lambda at: -float(slots.values[at]))
        return [draw._replace(chosen=at) for draw, at in zip(draws, best, strict=True)]

    return sorted_slots


async def test_a_step_after_the_draw_is_found_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "fill_all", by_value(decide.fill_all))
    async with world.up() as client:
        assert await audited(client, range(150)) > 4.5


async def test_how_likely_neighbours_were_swapped_is_said_to_who_learns_and_to_who_asks(world: World) -> None:
    async with world.up() as client:
        # About nobody: of those who are known there are ghosts, and beside them nothing is said.
        answer = await ask(client, placement="lucky", decision_id="d", limit=5)
        decision = await report(client, answer)
    (event,) = world.decisions
    assert "swapped" not in decision["slots"][0]
    said = [slot["swapped"] for slot in decision["slots"][1:]]
    assert len(said) == 4
    assert all(0.0 < one < 1.0 for one in said)
    assert [one.swapped for one in event.offers] == pytest.approx([0.0, *said], rel=1e-5)


async def test_ghosts_are_told_and_not_shown_and_stay_ghosts_all_through_the_window(world: World) -> None:
    shown, withheld = set(), set()
    async with world.up() as client:
        for number in range(60):
            answer = await ask(client, placement="haunted", customer_id="c1", decision_id=f"d{number}")
            decision = await report(client, answer)
            for slot in (*decision["slots"], *decision["ghosts"]):
                assert sum(chances(slot).values()) == pytest.approx(1.0, abs=1e-9)
                assert chances(slot)[slot["offer_id"]] == pytest.approx(slot["propensity"], abs=1e-12)
            ghosts = [slot["offer_id"] for slot in decision["ghosts"]]
            assert not set(ghosts) & set(chances(decision["slots"][0]))
            told = {one["offer_id"] for one in decision["candidates"] if one["rules"] == ["ghost"]}
            assert told == set(ghosts)
            event = world.decisions[-1]
            assert [(one.offer_id, one.rank) for one in event.ghosts] == [(name, 1) for name in ghosts]
            assert all(len(trial_vector(event, one)) == len(TRIAL_FEATURES) for one in event.ghosts)
            assert event.window == DAY
            shown |= {offer["offer_id"] for offer in answer["offers"]}
            withheld |= set(ghosts)
    assert shown
    assert withheld
    assert not shown & withheld


async def test_ghosts_leave_no_slot_empty_and_nothing_of_them_without_exploration(world: World) -> None:
    async with world.up() as client:
        answer = await ask(client, placement="all-ghosts", customer_id="c1")
        assert len(answer["offers"]) == 3
        assert len((await report(client, answer))["ghosts"]) == len(SHELF) - 3
        answer = await ask(client, placement="greedy", customer_id="c1")
        assert {offer["propensity"] for offer in answer["offers"]} == {1.0}
        decision = await report(client, answer)
        assert (decision["ghosts"], decision["candidates"][0]["variance"]) == ([], None)
        await ask(client, placement="all-ghosts")
    assert [len(event.ghosts) for event in world.decisions[1:]] == [0, 0], "nobody is known: no ghosts"


async def test_dry_run_shows_what_would_be_shown_and_writes_no_ghost(world: World) -> None:
    async with world.up() as client:
        body = {"placement": "all-ghosts", "customer_id": "c1", "decision_id": "once"}
        dry = await ask(client, dry_run=True, **body)
        assert world.decisions == []
        real = await ask(client, **body)
        assert products(dry) == products(real)
        assert await ask(client, **body) == real, "a sticky answer is the same decision"
    assert len(world.decisions) == 1


@pytest.mark.parametrize("group", ["none", "baseline"])
async def test_held_out_customers_have_the_same_decision_withheld(world: World, group: str) -> None:
    async with world.up() as client:
        body = {"placement": "all-ghosts", "customer_id": "c1", "decision_id": "d1"}
        response = await client.post(URL, json=body, headers={"closedloop-group": group})
        answer = response.json()
        decision = await report(client, answer)
    assert (answer["group"], decision["group"], decision["ghosts"]) == (group, group, [])
    assert [slot["propensity"] for slot in decision["slots"]] == [1.0] * len(decision["slots"])
    assert len(decision["withheld"]) == 3
    for slot in decision["withheld"]:
        assert sum(chances(slot).values()) == pytest.approx(1.0, abs=1e-9)
    (event,) = world.decisions
    assert (len(event.offers), event.ghosts) == (0 if group == "none" else 3, ())
    assert event.forced
    if group == "none":
        assert [slot["offer_id"] for slot in decision["slots"]] == ["none"]


async def test_all_offers_of_a_product_are_ghosts_together(world: World) -> None:
    deals = [
        (f"deal {name}", Offer(offer_id=f"deal {name}", kind="cross_sell", product_id=name)) for name in SHELF
    ]
    await world.stores.catalogue.put("offer", deals)
    shown, withheld = set(), set()
    async with world.up() as client:
        for number in range(60):
            await ask(client, placement="haunted", customer_id="c1", decision_id=f"d{number}")
            event = world.decisions[-1]
            shown |= {one.product_id for one in event.offers}
            ghosts = [one.product_id for one in event.ghosts]
            assert len(set(ghosts)) == len(ghosts), "a product is a ghost once"
            withheld |= set(ghosts)
        for number in range(5):
            await ask(client, placement="all-ghosts", customer_id="c1", decision_id=f"all {number}")
            event = world.decisions[-1]
            ghosts = [one.product_id for one in event.ghosts]
            assert len(set(ghosts)) == len(ghosts) > 1
            assert not set(ghosts) & {one.product_id for one in event.offers}
    assert shown
    assert withheld
    assert not shown & withheld


async def test_offers_worth_the_same_are_placed_by_their_chance(world: World) -> None:
    free = [Product(product_id=name, name=name, category=name, price=0.0, currency="EUR") for name in "abc"]
    await world.stores.catalogue.put("product", [(one.product_id, one) for one in free])
    async with world.up() as client:
        world.progress()
        world.knows("c1", "c")
        answer = await ask(client, placement="greedy", customer_id="c1", exclude=list(SHELF))
    assert {offer["score"] for offer in answer["offers"]} == {0.0}
    assert products(answer) == ["c", "a", "b"]


async def test_long_slate_keeps_what_its_first_ranks_teach(world: World) -> None:
    shelf = [
        Product(product_id=f"long-{n:03}", name=f"{n}", category=f"c{n % 9}", price=2.0 + n, currency="EUR")
        for n in range(150)
    ]
    seen = Placement(placement_id="seen", limit=50, impressions="assumed", visible=6)
    await world.stores.catalogue.put("product", [(one.product_id, one) for one in shelf])
    await world.stores.catalogue.put("placement", [("seen", seen)])
    async with world.up() as client:
        basket = [f"of the basket {number}" for number in range(20)]
        for limit in (16, 50, 100):
            context = {"product_id": "milk", "basket": basket}
            await ask(client, placement="wide", limit=limit, context=context, customer_id="c1")
            event = world.decisions[-1]
            taught = [bool(trial_vector(event, offer)) for offer in event.offers]
            assert (len(taught), taught[:4]) == (limit, [True] * 4)
            assert event.context == {"product_id": "milk"}
            # Of a pair both learn its order, or neither.
            assert not any(one.swapped for one in event.offers if not one.vector)
            assert any(one.swapped for one in event.offers)
            bare = msgspec.structs.replace(
                event, offers=tuple(msgspec.structs.replace(one, vector=b"") for one in event.offers)
            )
            assert len(encode_event(event)) <= max(4_000, len(encode_event(bare)) + 4 * 150)
        await ask(client, placement="seen", limit=50, context=context, customer_id="c1")
        assert [bool(one.vector) for one in world.decisions[-1].offers] == [True] * 6 + [False] * 44
        await ask(client, placement="wide", limit=10, context=context, customer_id="c1")
        assert all(one.vector for one in world.decisions[-1].offers), "rather the basket is left out"


async def test_a_baseline_shows_each_offer_named_once_in_its_order(world: World) -> None:
    names = ["say", "product:tea", "say", "gone", "product:jam"]
    await world.stores.catalogue.put(
        "placement", [("named", Placement(placement_id="named", baseline=names))]
    )
    content = [
        (name, Offer(offer_id=name, kind="content", value=value))
        for name, value in [("say", 0.0), *((f"rich {number}", 9.0) for number in range(450))]
    ]
    await world.stores.catalogue.put("offer", content)
    async with world.up() as client:
        body = {"placement": "named", "customer_id": "c1"}
        answer = (await client.post(URL, json=body, headers={"closedloop-group": "baseline"})).json()
    assert [offer["offer_id"] for offer in answer["offers"]] == ["say", "product:tea", "product:jam"]


async def test_decision_kept_by_an_older_version_is_said_to_be_so(world: World) -> None:
    async with world.up() as client:
        await ask(client, customer_id="c1", decision_id="new")
        kept = world.stores.decisions.decisions
        async with asyncio.timeout(5.0):
            while "new" not in kept:
                await asyncio.sleep(0.01)
        for name in ("old", "older"):
            pool = msgspec.msgpack.encode(["pool/1", name])
            kept[name] = kept["new"]._replace(decision_id=name, pool=pool)
        response = await client.get("/v1/decisions/old")
        assert response.status_code == 404
        assert "older version" in response.json()["detail"]
        listed = await client.get("/v1/decisions?customer=c1")
        assert [one["decision_id"] for one in listed.json()] == ["new"]
        del kept["new"]
        assert (await client.get("/v1/decisions?customer=c1")).json() == []
        metrics = (await client.get("/metrics")).text
    assert "closedloop_recommender_unreadable_decisions_total 5.0" in metrics


async def test_calls_draw_near_the_best_only(world: World) -> None:
    async with world.up() as client:
        for number in range(15):
            decision = await report(client, await ask(client, placement="calls", decision_id=f"d{number}"))
            (slot,) = decision["slots"]
            value = {one["offer_id"]: one["value"] for one in decision["candidates"]}
            best = max(value.values())
            near = {name for name, worth in value.items() if worth >= 0.9 * best}
            assert set(chances(slot)) == near
            far = {one["offer_id"] for one in decision["candidates"] if one["rules"] == ["not_near_best"]}
            assert far == set(value) - near
        greedy = await report(client, await ask(client, placement="best"))
    assert {one["rules"] == [] for one in greedy["candidates"]} == {True}


async def test_ten_offers_keep_their_features_in_four_kilobytes(world: World) -> None:
    shelf = [
        Product(
            product_id=f"{10_000_000 + number}", name=f"Product {number}", category=f"shop/c{number % 9}/x",
            price=2.0 + number / 7, currency="EUR",
            attributes={"colour": "red", "origin": f"land {number % 5}", "organic": number % 2 == 0},
        )
        for number in range(150)
    ]  # fmt: skip
    await world.stores.catalogue.put("product", [(one.product_id, one) for one in shelf])
    async with world.up() as client:
        world.progress()
        world.knows("customer-000001", *(one.product_id for one in shelf[:40]))
        context = {
            "product_id": "10000003",
            "basket": ["10000004", "10000005"],
            "season": "winter",
            "vip": True,
        }
        answer = await ask(client, placement="wide", customer_id="customer-000001", context=context)
        decision = await report(client, answer)
        kept = await world.journal.find_local(answer["decision_id"])
    assert len(answer["offers"]) == 10
    (event,) = world.decisions
    assert len(encode_event(event)) <= 4_000
    assert event.feature_set == FEATURE_SET
    vectors = [trial_vector(event, offer) for offer in event.offers]
    assert {len(vector) for vector in vectors} == {len(TRIAL_FEATURES)}
    assert len({tuple(vector) for vector in vectors}) == 10
    assert kept is not None
    assert len(kept) <= 3_500 + len(str(answer))
    assert decision["rejected"]["surplus"] > 0
    for one, offer in zip(event.offers, answer["offers"], strict=True):
        assert one.score == pytest.approx(offer["score"], rel=1e-5)
        assert one.propensity == offer["propensity"]


async def test_what_comes_back_is_worth_less_and_the_decision_says_why(world: World) -> None:
    """Two products that sell alike, and half of one of them comes back."""
    body = {"placement": "lucky", "limit": 7, "anonymous_id": "a1"}
    async with world.up() as client:
        world.progress()
        world.learns(
            one
            for name in ("jam", "tea")
            for number in range(300)
            for one in sale(number, f"product:{name}", back=name == "jam" and number % 2 == 0)
        )
        answer = await ask(client, **body)
        decision = await report(client, answer)
    told = {one["offer_id"]: one for one in decision["candidates"]}
    jam, tea = told["product:jam"], told["product:tea"]
    assert jam["worth"]["returned"] == pytest.approx(0.5, abs=0.05)
    assert tea["worth"]["returned"] < 0.1
    for one in (jam, tea):
        caused, margin, returned, cost = one["worth"].values()
        assert one["value"] == pytest.approx(one["mean"] * caused * margin * (1 - returned) - cost, rel=1e-4)
    for offer in answer["offers"]:
        assert offer["score"] == pytest.approx(told[offer["offer_id"]]["value"], rel=1e-4)
    assert jam["value"] / jam["mean"] < 0.6 * tea["value"] / tea["mean"]
