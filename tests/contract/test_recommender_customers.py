"""Whom an answer is for: links, consent, groups, freshness, keys."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from libs.common.bus.ports import Record
from libs.common.clock import DAY, MINUTE, JournalClock, ManualClock
from libs.common.contracts.catalogue import Placement
from libs.common.contracts.customer_model import (
    Consent,
    Decayed,
    Item,
    Items,
    Purchases,
    encode_model,
    model_key,
)
from libs.common.contracts.identity import partition_of
from libs.common.contracts.progress import Progress, encode_progress
from libs.common.contracts.topics import CUSTOMER_MODELS, PROGRESS, TOPICS
from libs.common.errors import Transient
from libs.common.keys import KeyFile, Scope
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.times import format_time
from tests.contract.recommender_world import NOW, SPOOL, URL, World, ask, products, stocked, until


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await stocked(tmp_path)


def repeats(answer: dict[str, Any]) -> set[str]:
    return {offer["product_id"] for offer in answer["offers"] if offer["kind"] == "repeat"}


async def test_links_are_read_as_one_and_foreign_visitors_are_not(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("c1", "milk", links=("anon:home", "anon:shared"))
        world.knows("anon:home", "bread", owner="c1")
        world.knows("anon:shared", "jam", owner="c2")
        world.knows("anon:now", "tea")
        assert repeats(await ask(client, limit=9, customer_id="c1")) == {"milk", "bread"}
        both = await ask(client, limit=9, customer_id="c1", anonymous_id="now")
        assert repeats(both) == {"milk", "bread", "tea"}
        assert repeats(await ask(client, limit=9, anonymous_id="home")) == {"bread"}
        assert repeats(await ask(client, limit=9, customer_id="c1", anonymous_id="shared")) == {
            "milk",
            "bread",
        }
        assert repeats(await ask(client, limit=9)) == set()
    assert {event.customer for event in world.decisions} >= {"c1", "anon:home"}
    assert world.decisions[-1].customer.startswith("event:")


async def test_refusal_holds_for_every_channel_and_is_named(world: World) -> None:
    refused = {"personalization": Consent(False, NOW)}
    async with world.up() as client:
        world.progress()
        world.knows("c1", "milk", consents=refused)
        world.knows("c2", "milk", consents={"marketing/email": Consent(False, NOW)})
        world.knows("anon:x", "bread", owner="c1")
        answer = await ask(client, limit=9, customer_id="c1")
        assert (repeats(answer), answer["limited_by"]) == (set(), ["consent_refused:personalization"])
        owned = await ask(client, limit=9, anonymous_id="x")
        assert (repeats(owned), owned["limited_by"]) == (set(), ["consent_refused:personalization"])
        assert repeats(await ask(client, limit=9, customer_id="c2")) == {"milk"}
        mail = await ask(client, limit=9, customer_id="c2", channel="email")
        assert (repeats(mail), mail["limited_by"]) == (set(), ["consent_refused:marketing/email"])
        own_words = {"recommendations": Consent(False, NOW), "marketing": Consent(True, NOW)}
        world.knows("c3", "milk", consents=own_words)
        answer = await ask(client, limit=9, customer_id="c3")
        assert (repeats(answer), answer["limited_by"]) == (set(), ["consent_refused:recommendations"])


async def test_unknown_consent_is_personal_on_own_channels_only(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("c1", "milk")
        world.knows("c2", "milk", consents={"marketing/email": Consent(True, NOW)})
        for channel in ("web", "store", "service", "call_centre"):
            assert repeats(await ask(client, limit=9, customer_id="c1", channel=channel)) == {"milk"}
        for channel in ("email", "phone", "post"):
            answer = await ask(client, limit=9, customer_id="c1", channel=channel)
            assert (repeats(answer), answer["limited_by"]) == (set(), [f"consent_unknown:{channel}"])
        assert repeats(await ask(client, limit=9, customer_id="c2", channel="email")) == {"milk"}
    async with world.up(unknown_consent="contextual") as client:
        world.knows("c1", "milk")
        answer = await ask(client, limit=9, customer_id="c1")
        assert (repeats(answer), answer["limited_by"]) == (set(), ["consent_unknown:personalise"])


async def test_existing_customers_are_addressed_on_the_channels_of_the_setting_until_they_object(
    world: World,
) -> None:
    bought = Purchases(orders=2, value=9.0, first_at=NOW, last_at=NOW)
    async with world.up(existing_customer=["email"]) as client:
        world.progress()
        world.knows("c1", "milk", purchases=bought)
        world.knows("c2", "milk")
        world.knows("c3", "milk", purchases=bought, consents={"marketing/email": Consent(False, NOW)})
        limited = {
            (customer, channel): (await ask(client, customer_id=customer, channel=channel))["limited_by"]
            for customer in ("c1", "c2", "c3")
            for channel in ("email", "phone")
        }
    assert limited == {
        ("c1", "email"): [],
        ("c1", "phone"): ["consent_unknown:phone"],
        ("c2", "email"): ["consent_unknown:email"],
        ("c2", "phone"): ["consent_unknown:phone"],
        ("c3", "email"): ["consent_refused:marketing/email"],
        ("c3", "phone"): ["consent_unknown:phone"],
    }


async def test_global_privacy_control_makes_an_answer_impersonal(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("c1", "milk", consents={"personalise": Consent(True, NOW)})
        said = await ask(client, limit=9, customer_id="c1", context={"gpc": True})
        assert (repeats(said), said["limited_by"]) == (set(), ["gpc"])
        body = {"placement": "sure", "customer_id": "c1", "limit": 9}
        sent = (await client.post(URL, json=body, headers={"sec-gpc": "1"})).json()
        assert (repeats(sent), sent["limited_by"]) == (set(), ["gpc"])
        other = (await client.post(URL, json=body, headers={"sec-gpc": "0"})).json()
        assert (repeats(other), other["limited_by"]) == ({"milk"}, [])


async def test_stale_partition_gets_only_the_non_personal_default(world: World) -> None:
    await world.stores.catalogue.put(
        "placement", [("shy", Placement(placement_id="shy", exploration=0.0, fallback="none"))]
    )
    async with world.up() as client:
        world.knows("c1", "milk")
        world.progress(behind=6 * MINUTE)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], answer["fresh"], repeats(answer)) == (["stale"], False, set())
        assert len(answer["offers"]) == 7
        for group in ("treatment", "baseline"):
            body = {"placement": "shy", "customer_id": "c1"}
            response = await client.post(URL, json=body, headers={"closedloop-group": group})
            assert (response.json()["group"], response.json()["offers"]) == (group, [])
        assert len((await ask(client, placement="shy"))["offers"]) == 5
        world.progress(behind=4 * MINUTE)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], answer["fresh"], repeats(answer)) == ([], False, {"milk"})
        world.progress(behind=1_000)
        assert (await ask(client, customer_id="c1"))["fresh"] is True


async def test_view_that_stands_still_is_stale_whatever_the_board_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.up() as client:
        world.knows("c1", "milk")
        world.progress(behind=1_000)
        view = world.views[CUSTOMER_MODELS]
        monkeypatch.setattr(view, "lag_seconds", lambda: 301.0)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], repeats(answer)) == (["stale"], set())
        assert (await ask(client, limit=9))["degraded"] == []
        monkeypatch.setattr(view, "lag_seconds", lambda: 299.0)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], repeats(answer)) == ([], {"milk"})


async def test_waiting_for_a_link_waits_for_the_visitor_it_leads_to(world: World) -> None:
    mine, visitor = (
        partition_of("c1"),
        next(f"anon:v{n}" for n in range(99) if partition_of(f"anon:v{n}") != partition_of("c1")),
    )
    theirs = partition_of(visitor)
    position = Position(SPOOL, {mine: 5, theirs: 5}).encode()
    async with world.up() as client:
        world.progress()
        waiting = asyncio.create_task(ask(client, customer_id="c1", after=position, wait_ms=1000))
        await asyncio.sleep(0.01)
        world.knows("c1", links=(visitor,))
        world.progress(applied=5, only=mine)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        world.knows(visitor, "milk")
        world.progress(applied=5, only=theirs)
        answer = await waiting
        assert (answer["fresh"], repeats(answer)) == (True, {"milk"})
        late = await ask(
            client, customer_id="c1", after=Position(SPOOL, {mine: 5, theirs: 6}).encode(), wait_ms=1
        )
        assert late["fresh"] is False


async def test_lost_broker_costs_freshness_and_then_says_stale(world: World) -> None:
    """Fresh and ``after`` claim nothing that the view has not read again; personal offers go on meanwhile."""
    mine = partition_of("c1")
    world.board = ProgressBoard(world.bus)
    position = Position(SPOOL, {mine: 3}).encode()

    async def say(offset: int, epoch: int) -> None:
        for partition in range(12):
            told = Progress(
                partition=partition,
                cluster=await world.bus.cluster_id(),
                epoch=epoch,
                applied={SPOOL: 3},
                journal_time=world.clock.now(),
                models_offset=offset if partition == mine else 0,
            )
            await world.bus.producer().send(PROGRESS, 0, [Record(b"p", encode_progress(told))])

    item = Item(orders=4, bought=Decayed(3.0, NOW - DAY), last_bought_at=NOW - DAY, cycle=7.0 * DAY)

    async def models(customer: str) -> None:
        body = encode_model(Items(customer=customer, items={"milk": item}))
        record = Record(model_key(customer, "items"), body, (("revision", b"1"),))
        await world.bus.producer().send(CUSTOMER_MODELS, mine, [record])

    async def asked() -> tuple[bool, list[str], set[str], bool]:
        answer = await ask(client, limit=9, customer_id="c1")
        after = await ask(client, customer_id="c1", after=position, wait_ms=0)
        return answer["fresh"], answer["degraded"], repeats(answer), after["fresh"]

    async with world.up() as client:
        await models("c1")
        await say(1, 1)
        await until(lambda: world.board.applied(SPOOL).get(11) == 3)
        await until(lambda: world.views[CUSTOMER_MODELS].offset(mine) == 1)
        assert await asked() == (True, [], {"milk"}, True)
        world.bus.replace_cluster("memory-2")
        await world.bus.ensure_topics(TOPICS)
        await until(lambda: world.board.cluster == world.views[CUSTOMER_MODELS].cluster == "memory-2")
        assert await asked() == (False, [], {"milk"}, False)
        # The analyzer says that it has published them, but the view has not read that far.
        await say(1, 2)
        await until(lambda: world.board.applied(SPOOL).get(11) == 3)
        assert await asked() == (False, [], {"milk"}, False)
        await models("c1")
        await until(lambda: world.views[CUSTOMER_MODELS].offset(mine) == 1)
        assert await asked() == (True, [], {"milk"}, True)
        world.bus.go_away()
        assert isinstance(world.clock, ManualClock)
        world.clock.advance(world.clock.now() + 4 * MINUTE)
        assert await asked() == (False, [], {"milk"}, True)
        world.clock.advance(world.clock.now() + 2 * MINUTE)
        assert await asked() == (False, ["stale"], set(), True)
        world.bus.come_back()
        await say(1, 2)
        await until(lambda: world.board.known_until(11) == world.clock.now())
        assert await asked() == (True, [], {"milk"}, True)


async def test_staleness_never_applies_on_a_journal_clock(world: World) -> None:
    async with world.up(clock="journal") as client:
        world.knows("c1", "milk")
        world.progress(behind=6 * MINUTE)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], answer["fresh"], repeats(answer)) == ([], True, {"milk"})
        other = (partition_of("c1") + 1) % 12
        world.progress(only=other)
        assert (await ask(client, customer_id="c1"))["fresh"] is False


async def test_after_waits_until_the_customers_model_includes_it(world: World) -> None:
    mine, other = partition_of("c1"), (partition_of("c1") + 1) % 12
    async with world.up() as client:
        world.progress(applied=3)
        position = Position(SPOOL, {mine: 4}).encode()
        late = await ask(client, customer_id="c1", after=position, wait_ms=30)
        assert late["fresh"] is False
        waiting = asyncio.create_task(ask(client, customer_id="c1", after=position, wait_ms=1000))
        await asyncio.sleep(0.02)
        world.progress(applied=4)
        assert (await waiting)["fresh"] is True
        elsewhere = Position(SPOOL, {other: 99}).encode()
        assert (await ask(client, customer_id="c1", after=elsewhere, wait_ms=0))["fresh"] is True


async def test_at_needs_manage_and_marks_a_replay_on_a_wall_clock(world: World) -> None:
    key = KeyFile(world.folder).add("shop", [Scope.RECOMMEND]).key
    at = format_time(NOW - 40 * DAY)
    async with world.up() as client:
        await ask(client, at=at)
        shop = {"authorization": f"Bearer {key}"}
        refused = await client.post(URL, json={"placement": "sure", "at": at}, headers=shop)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        batch = await client.post(f"{URL}/batch", json=[{"placement": "sure", "at": at}], headers=shop)
        assert batch.json()["answers"][0]["status"] == 403
    event = world.decisions[0]
    assert (event.replay, event.occurred_at, event.recorded_at) == (True, NOW - 40 * DAY, NOW)
    async with world.up(clock="journal") as client:
        await ask(client, at=format_time(NOW + DAY))
    assert (world.decisions[1].replay, world.decisions[1].occurred_at) == (False, NOW + DAY)


async def test_at_starts_a_journal_clock_but_not_in_the_far_future(world: World) -> None:
    world.clock = JournalClock()
    async with world.up(clock="journal") as client:
        await ask(client, at="9999-12-31T23:59:59Z")
        await ask(client, at="2017-03-01T00:00:00Z")
    far, start = world.decisions
    assert (far.occurred_at, far.recorded_at) == (253_402_300_799_000, 0)
    assert start.occurred_at == start.recorded_at == 1_488_326_400_000


async def test_groups_decide_what_is_shown_and_control_is_logged(world: World) -> None:
    key = KeyFile(world.folder).add("shop", [Scope.RECOMMEND]).key
    await world.stores.catalogue.put(
        "placement",
        [
            ("listed", Placement(placement_id="listed", baseline=["product:jam", "product:tea"])),
            ("bare", Placement(placement_id="bare", baseline="none")),
        ],
    )
    async with world.up(holdout=(1.0, 0.0)) as client:
        world.progress()
        world.knows("c1", "milk")
        baseline = await ask(client, customer_id="c1", limit=3, decision_id="b")
        assert (baseline["group"], len(baseline["offers"])) == ("baseline", 3)
        assert {offer["propensity"] for offer in baseline["offers"]} == {1.0}
        assert products(await ask(client, customer_id="c1", placement="listed")) == ["jam", "tea"]
        assert (await ask(client, customer_id="c1", placement="bare"))["offers"] == []
        decision = (await client.get("/v1/decisions/b")).json()
        assert [slot["pool"] for slot in decision["slots"]] == [
            [{"offer_id": offer["offer_id"], "propensity": 1.0}] for offer in baseline["offers"]
        ]
        assert len(decision["candidates"]) == 7
        assert (await ask(client))["group"] == "treatment", "nobody is held out"
    async with world.up(holdout=(0.0, 1.0)) as client:
        nothing = await ask(client, customer_id="c1", decision_id="n")
        assert (nothing["group"], nothing["offers"]) == ("none", [])
        slots = (await client.get("/v1/decisions/n")).json()["slots"]
        assert slots == [
            {
                "rank": 1,
                "offer_id": "none",
                "propensity": 1.0,
                "pool": [{"offer_id": "none", "propensity": 1.0}],
            }
        ]
        forced = {"closedloop-group": "treatment"}
        answer = await client.post(URL, json={"placement": "sure", "customer_id": "c1"}, headers=forced)
        assert (answer.json()["group"], len(answer.json()["offers"])) == ("treatment", 5)
        wrong = await client.post(URL, json={"placement": "sure"}, headers={"closedloop-group": "best"})
        assert wrong.status_code == 422
        shop = {"authorization": f"Bearer {key}", **forced}
        assert (await client.post(URL, json={"placement": "sure"}, headers=shop)).status_code == 403
    assert [event.forced for event in world.decisions][-1] is True
    assert world.decisions[-2].group == "none"
    assert world.decisions[-2].offers == ()


async def test_keys_are_asked_for(world: World) -> None:
    key = KeyFile(world.folder).add("collector", [Scope.COLLECT]).key
    async with world.up() as client:
        body = {"placement": "sure"}
        none = await client.post(URL, json=body, headers={"authorization": ""})
        assert none.status_code == 401
        wrong = await client.post(URL, json=body, headers={"authorization": f"Bearer {key}"})
        assert (wrong.status_code, wrong.json()["code"]) == (403, "scope_missing")
        assert (
            await client.put("/v1/products/x", json={}, headers={"authorization": f"Bearer {key}"})
        ).status_code == 403


async def test_browsers_see_no_score_and_prove_who_they_speak_for(world: World) -> None:
    made = KeyFile(world.folder).add_publishable("shop", ["https://shop.example"])
    assert made.identity_secret is not None
    browser = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    signature = hmac.new(made.identity_secret.encode(), b"c1", hashlib.sha256).hexdigest()
    async with world.up() as client:
        seen = await client.post(URL, json={"placement": "sure", "anonymous_id": "a"}, headers=browser)
        assert seen.status_code == 200
        assert not {"group", "policy_version"} & set(seen.json())
        assert not {"score", "propensity"} & set(seen.json()["offers"][0])
        named = {"placement": "sure", "customer_id": "c1"}
        bare = await client.post(URL, json=named, headers=browser)
        assert (bare.status_code, bare.json()["code"]) == (403, "signature_missing")
        signed = await client.post(URL, json=named | {"customer_signature": signature}, headers=browser)
        assert signed.status_code == 200
        decision = f"/v1/decisions/{signed.json()['decision_id']}"
        assert (await client.get(decision, headers=browser)).status_code == 403


async def test_browser_is_not_given_what_was_answered_to_somebody_else(world: World) -> None:
    made = KeyFile(world.folder).add_publishable("shop", ["https://shop.example"])
    browser = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    mine = {"placement": "sure", "anonymous_id": "a", "decision_id": "basket 7"}
    async with world.up() as client:
        first = await client.post(URL, json=mine, headers=browser)
        assert first.json()["decision_id"] == "basket 7"
        again = await client.post(URL, json=mine, headers=browser)
        assert (again.status_code, again.content) == (200, first.content)
        foreign = await client.post(URL, json=mine | {"anonymous_id": "b"}, headers=browser)
        assert (foreign.status_code, foreign.json()["code"]) == (403, "decision_foreign")
        many = await client.post(f"{URL}/batch", json=[mine, mine | {"anonymous_id": "b"}], headers=browser)
        assert [answer.get("code") for answer in many.json()["answers"]] == [None, "decision_foreign"]
        decision = first.json()["decision_id"]
        refused = await client.get(f"/v1/decisions/{decision}", headers=browser)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        assert "recommend" in refused.json()["detail"]
        server = await client.post(URL, json=mine | {"anonymous_id": "b"})
        assert server.json()["offers"][0]["token"] == first.json()["offers"][0]["token"]


async def test_browser_is_answered_under_its_own_id_while_the_database_is_away(world: World) -> None:
    made = KeyFile(world.folder).add_publishable("shop", ["https://shop.example"])
    browser = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    mine = {"placement": "sure", "anonymous_id": "a", "decision_id": "basket 7"}
    async with world.up() as client:
        world.stores.decisions.away = True
        for _ in range(2):
            assert (await client.post(URL, json=mine, headers=browser)).status_code == 200
            await world.journal.release_local(await world.journal.local_rows(9))
        foreign = await client.post(URL, json=mine | {"anonymous_id": "b"}, headers=browser)
        assert (foreign.status_code, foreign.json()["code"]) == (403, "decision_foreign")


async def test_decision_says_whether_it_may_be_learned_from(world: World) -> None:
    async with world.up() as client:
        world.progress()
        world.knows("c1", "milk", consents={"analytics/web": Consent(False, NOW)})
        world.knows("anon:x", "bread", owner="c1")
        world.knows("c2", "milk", consents={"analytics": Consent(True, NOW), "email": Consent(False, NOW)})
        for who in ({"customer_id": "c1"}, {"anonymous_id": "x"}, {"customer_id": "c2"}, {}):
            answer = await ask(client, limit=9, **who)
            assert answer["limited_by"] == [], "it limits what is learned, not what he is offered"
    assert [event.analysed for event in world.decisions] == [False, False, True, True]


async def test_full_spool_costs_the_record_and_not_the_answer(world: World) -> None:
    async with world.up() as client:
        world.journal.refuse = Transient("disk full")
        answer = await ask(client)
        assert answer["degraded"] == ["unrecorded"]
        assert {offer["token"] for offer in answer["offers"]} == {None}
        assert len(answer["offers"]) == 5
        world.journal.refuse = None
    assert world.decisions == []


async def test_clock_is_the_platforms(world: World) -> None:
    assert isinstance(world.clock, ManualClock)
    async with world.up() as client:
        await ask(client)
        world.clock.tick(DAY)
        await ask(client)
    assert [event.occurred_at for event in world.decisions] == [NOW, NOW + DAY]
