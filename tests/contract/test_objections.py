"""Objections and analytics refused: what they stop, at once, whatever else is learned or counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from libs.common.clock import DAY, MINUTE
from libs.common.contracts.customer_event import ConsentGiven, Outcome, Touchpoint
from libs.common.contracts.customer_model import decode_profile
from libs.common.contracts.identity import partition_of
from libs.common.intake import Admitted
from services.feedback.model import Offer, OutcomeIn, outcome_event, refusals
from services.recommender.model.consent import Policy, allowed
from tests.contract.test_analyzer_api import Caller, analyzing, touch
from tests.unit.offer_world import T0, decision, order, outcome
from tests.unit.test_analyzer_lift import decided, owned, sold


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    async with analyzing(tmp_path) as one:
        yield one


def limited(caller: Caller, customer: str, channel: str) -> tuple[str, ...]:
    """What the recommender says of the model that is published, where everything else is granted."""
    profile = decode_profile(
        next(
            row.body
            for row in caller.store.rows.values()
            if (row.customer, row.part) == (customer, "profile")
        )
    )
    return allowed(profile.consents, channel, Policy(existing=frozenset({channel})), orders=1).limited_by


def refusal(customer: str, at: int, granted: bool = False, **more: Any) -> ConsentGiven:
    return ConsentGiven(
        id=f"w-{customer}-{at}", source="shop", customer=customer, occurred_at=at, recorded_at=at,
        purpose="analytics", granted=granted, **more,
    )  # fmt: skip


@pytest.mark.parametrize("word", ["unsubscribed", "complained"])
async def test_objection_to_an_offer_refuses_its_channel(caller: Caller, word: str) -> None:
    mailed = decision("d", T0, ["a", "b"])
    await caller.happen(type(mailed)(**{**fields(mailed), "channel": "email"}))
    assert limited(caller, "c", "email") == ()
    await caller.happen(outcome("d", "a", word, T0 + MINUTE))
    assert limited(caller, "c", "email") == ("consent_refused:marketing/email",)
    assert limited(caller, "c", "web") == limited(caller, "c", "phone") == ()
    (shown,) = (await caller.get("/v1/consents/c"))["consents"]
    assert (shown["purpose"], shown["channel"], shown["granted"]) == ("marketing", "email", False)
    assert (shown["source"], shown["told_by"]) == (word, "s")


def sealed(customer: str, at: int, channel: str, decision_id: str = "d") -> list[Outcome | ConsentGiven]:
    """What feedback makes of an objection with a token."""
    item = OutcomeIn(outcome="unsubscribed")
    offer = Offer(decision_id, "product:a", customer, channel=channel)
    said = outcome_event(item, offer, Admitted(at, at, True, ()))
    return [said, *refusals(said)]


async def test_objection_whose_token_names_the_channel_waits_for_no_decision(caller: Caller) -> None:
    await caller.happen(replace(outcome("never-heard-of", "a", "unsubscribed", T0), source="feedback"))
    await caller.get("/v1/customers/c", 404)
    await caller.happen(*sealed("c", T0 + 1, "sms", "never-heard-of"))
    assert limited(caller, "c", "sms") == limited(caller, "c", "phone") == ("consent_refused:marketing/sms",)
    await caller.happen(*sealed("c2", T0 + 2, "sms", "never-heard-of"))
    assert sum(state.notes.get("unmatched", 0) for state in caller.store.states.values()) == 2


async def test_who_granted_it_again_and_clicks_the_same_link_again_is_unsubscribed(caller: Caller) -> None:
    mailed = replace(decision("d", T0, ["a"]), channel="email")
    await caller.happen(mailed, *sealed("c", T0 + MINUTE, "email"))
    granted = replace(refusal("c", T0 + DAY, granted=True, channel="email"), purpose="marketing")
    await caller.happen(granted)
    assert limited(caller, "c", "email") == ()
    await caller.happen(*sealed("c", T0 + 2 * DAY, "email"))
    assert limited(caller, "c", "email") == ("consent_refused:marketing/email",)
    totals = (await caller.get("/v1/customers/c"))["totals"]
    assert (totals["unsubscribed"], totals.get("consent_refused")) == (1, None), "counts once"


async def test_objection_holds_where_the_outcome_must_not_be_learned(caller: Caller) -> None:
    late = outcome("d", "a", "complained", T0 + MINUTE, learn=False, occurred_at=T0 + 9 * DAY)
    await caller.happen(decision("d", T0, ["a"]), late)
    assert limited(caller, "c", "web") == ("consent_refused:marketing/web",)
    (shown,) = (await caller.get("/v1/consents/c"))["consents"]
    assert shown["at"] == shown["recorded_at"], "told for the future it could not be taken back"


async def test_who_refuses_analytics_teaches_nothing(caller: Caller) -> None:
    def lessons() -> list[str]:
        return [row.kind for row in caller.store.lessons.values()]

    await caller.happen(decision("d", T0, ["a", "b"]), outcome("d", "a", "shown", T0 + 1))
    await caller.happen(order("o1", T0 + MINUTE, "a"))
    known = len(lessons())
    assert known >= 3
    await caller.happen(refusal("c", T0 + 2 * MINUTE, channel="web"))
    await caller.happen(
        outcome("d", "b", "shown", T0 + 3 * MINUTE),
        order("o2", T0 + 4 * MINUTE, "b"),
        decision("d2", T0 + 5 * MINUTE, ["e"], assumed_shown=1),
    )
    # Looks at all of them fall due while somebody else of his partition does something, then he himself.
    await caller.happen(touch("later", T0 + 5 * DAY, customer=beside("c")))
    await caller.happen(touch("much-later", T0 + 61 * DAY, customer="c"))
    assert len(lessons()) == known
    view = await caller.get("/v1/customers/c")
    assert view["purchases"]["orders"] == 2, "his own model goes on"
    await caller.happen(refusal("c", T0 + 62 * DAY, granted=True, channel="web"))
    await caller.happen(order("o3", T0 + 62 * DAY, "b"))
    assert len(lessons()) == known + 1


async def test_decision_for_who_refuses_under_another_key_teaches_nothing(caller: Caller) -> None:
    quiet = decision("d", T0, ["a"], customer="anon:x", assumed_shown=1, analysed=False)
    await caller.happen(quiet, touch("later", T0 + 60 * DAY, customer="anon:x"))
    assert not caller.store.lessons
    assert not caller.store.told_facts
    assert (await caller.get("/v1/customers/anon:x"))["totals"]["decision_made"] == 1


async def test_who_refuses_analytics_is_in_no_insight(caller: Caller) -> None:
    async def people() -> int:
        rows = (await caller.get("/v1/insights/lift"))["rows"]
        return sum(row["treatment"]["customers"] for row in rows if row["against"] == "none")

    await caller.happen(
        decided("c1", "treatment"), decided("c2", "treatment"), decided("anon:x", "treatment"),
        decided("c3", "none"), owned("x", "c1"), sold("c1", T0 + 1, ("coffee", 1.0, 10.0)),
    )  # fmt: skip
    assert await people() == 2
    await caller.happen(refusal("anon:x", T0 + 2))
    assert await people() == 1, "a word under one key is heard for all keys of a person"
    await caller.happen(refusal("anon:x", T0 + 3, granted=True))
    assert await people() == 2
    said = touch("t", T0 + 4, "c2", type="consent_refused", properties={"purpose": "analytics"}, learn=False)
    assert isinstance(said, Touchpoint)
    await caller.happen(said)
    assert await people() == 1


def beside(customer: str) -> str:
    """Another customer of the same partition."""
    return next(name for n in range(999) if partition_of(name := f"s-{n}") == partition_of(customer))


def fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
