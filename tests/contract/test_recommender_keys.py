"""Who may ask for recommendations, and what a browser is told of them."""

from __future__ import annotations

import hashlib
import hmac

from libs.common.keys import KeyFile, Scope
from tests.contract.recommender_world import URL, World


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
