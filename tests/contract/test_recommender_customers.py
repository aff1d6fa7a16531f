"""Whom an answer is for: links, groups, and what a decision says of it."""

from __future__ import annotations

from libs.common.contracts.catalogue import Placement
from libs.common.contracts.customer_model import Consent
from libs.common.errors import Transient
from libs.common.keys import KeyFile, Scope
from tests.contract.recommender_world import NOW, URL, World, ask, products, repeats


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
