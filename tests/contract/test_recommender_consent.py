"""What customers allow and refuse, by word or by their browser, and what is offered to them then."""

from __future__ import annotations

from libs.common.contracts.customer_model import Consent, Purchases
from tests.contract.recommender_world import NOW, URL, World, ask, repeats


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
