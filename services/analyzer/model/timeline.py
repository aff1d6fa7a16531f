"""Events as people and scripts read them over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    Decision,
    IdentityLinked,
    Outcome,
    Touchpoint,
)
from libs.common.times import format_time
from services.analyzer.model.fold import type_of


class TimelineEntry(Struct, frozen=True, omit_defaults=True):
    """An event that counted. ``id`` is unique within the customer; a decision's is its decision_id.

    ``flags`` say why it is kept and not learned from: ``automatic:crawler``, ``gpc``, ``out_of_window`` …
    """

    id: str
    kind: str
    type: str
    channel: str | None
    occurred_at: str
    recorded_at: str
    properties: dict[str, Any]
    flags: tuple[str, ...] = ()


def entry_of(event: AboutCustomer, id_: str, kind: str) -> TimelineEntry:
    """An event for people; ``id_`` is its id made unique."""
    return TimelineEntry(
        id=id_,
        kind=kind,
        type=type_of(event),
        channel=_channel(event),
        occurred_at=format_time(event.occurred_at),
        recorded_at=format_time(event.recorded_at),
        properties=_properties(event),
        flags=event.flags if isinstance(event, Touchpoint | Outcome) else (),
    )


def _channel(event: AboutCustomer) -> str | None:
    return event.channel if isinstance(event, Touchpoint | Decision | ConsentGiven) else None


def _properties(event: AboutCustomer) -> dict[str, Any]:
    if isinstance(event, Touchpoint):
        return event.properties
    if isinstance(event, Decision):
        return {
            "placement": event.placement,
            "group": event.group,
            "policy_version": event.policy_version,
            "offers": [
                {
                    "offer_id": offer.offer_id,
                    "product_id": offer.product_id,
                    "kind": offer.kind,
                    "rank": offer.rank,
                    "propensity": offer.propensity,
                }
                for offer in event.offers
            ],
        }
    if isinstance(event, ConsentGiven):
        said = {"purpose": event.purpose, "granted": event.granted, "text_version": event.text_version}
        return {name: it for name, it in {**said, "source": event.said_at}.items() if it is not None}
    names: tuple[str, ...] = ()
    if isinstance(event, Outcome):
        names = ("decision_id", "offer_id", "product_id", "value", "order_id", "placement")
    elif isinstance(event, IdentityLinked):
        names = ("customer_id", "anonymous_id")
    whole = msgspec.structs.asdict(event)
    return {name: whole[name] for name in names if whole[name] is not None}
