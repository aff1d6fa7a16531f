"""Visitors of whom nobody hears: what they did, and what an analyzer knows of them after each event."""

from __future__ import annotations

from typing import Any

from libs.common.contracts.customer_event import ConsentGiven, CustomerEvent, IdentityLinked, Tick, Touchpoint
from libs.common.contracts.customer_model import PROFILE, Profile, decode_profile
from tests.unit.offer_world import Shop, base

X, Y = "anon:x", "anon:y"


def view(id_: str, at: int, customer: str = X, **more: Any) -> Touchpoint:
    return Touchpoint(
        **base(id_, at, customer, **more),
        type="product_viewed",
        channel="web",
        properties={"product_id": "tea"},
    )


def linked(id_: str, at: int, owner: str, customer: str = X, *, unlinked: bool = False) -> IdentityLinked:
    who = {"customer_id": owner, "anonymous_id": customer.removeprefix("anon:")}
    return IdentityLinked(**base(id_, at, customer), internal=True, unlinked=unlinked, **who)


def consent(id_: str, at: int, granted: bool, customer: str = X) -> ConsentGiven:
    return ConsentGiven(**base(id_, at, customer), purpose="marketing", granted=granted)


def tick(at: int) -> Tick:
    return Tick(partition=0, recorded_at=at)


async def after(*events: CustomerEvent) -> Shop:
    """Each event in a slice of its own."""
    shop = Shop()
    for event in events:
        await shop.take([event])
    return shop


def known(shop: Shop, customer: str = X) -> Profile | None:
    row = shop.store.rows.get((customer, PROFILE))
    return decode_profile(row.body) if row is not None and row.body else None
