"""Outcomes: what callers say came of an offer, who may say it, and the event it becomes."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from libs.common.contracts.customer_event import ConsentGiven, Outcome
from libs.common.contracts.customer_model import MARKETING
from libs.common.contracts.identity import (
    RESERVED_PREFIXES,
    CustomerKey,
    anonymous_key,
    customer_key,
    is_anonymous,
    is_nobody,
)
from libs.common.contracts.outcome import BROWSER_WORDS, OBJECTIONS, WORDS
from libs.common.contracts.touchpoint import Name
from libs.common.errors import Invalid
from libs.common.intake import Admitted
from libs.common.personal import refuse_email, refuse_personal
from libs.common.tokens import OfferToken
from services.feedback.errors import KeyNeeded, Missing, ReservedName, TokenMismatch, UnknownWord

SOURCE = "feedback"
"""Source of every outcome, so that each counts once whoever reports it."""

PRODUCT_OFFER = "product:"

MAX_VALUE = 1e12
"""Bound of a value where no price is known here."""
_ROUNDING = 1e-9


class OutcomeIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An outcome as it is posted: the offer by its token, or by decision, offer and customer."""

    outcome: str
    id: Name | None = None
    token: Annotated[str, Meta(max_length=8192)] | None = None
    decision_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    offer_id: Name | None = None
    customer_id: Name | None = None
    anonymous_id: Name | None = None
    value: float | None = None
    order_id: Name | None = None
    occurred_at: str | None = None


class Offer(NamedTuple):
    """The offer an outcome is about, and the key its decision was filed under."""

    decision_id: str
    offer_id: str
    customer: CustomerKey
    placement: str | None = None
    product_id: str | None = None
    price: float | None = None
    channel: str | None = None


def check_outcome(item: OutcomeIn) -> None:
    """Raises `Invalid` for what the shape alone does not catch."""
    if item.outcome not in WORDS:
        raise UnknownWord(WORDS)
    # Trap: written so that NaN and infinity fail too.
    if item.value is not None and not 0 <= item.value <= MAX_VALUE:
        raise Invalid("not_finite", f"value must be a finite number between 0 and {MAX_VALUE:.0f}", "/value")
    if item.customer_id is not None and item.customer_id.startswith(RESERVED_PREFIXES):
        raise ReservedName("/customer_id")
    if item.anonymous_id is not None and item.anonymous_id.startswith(RESERVED_PREFIXES):
        raise ReservedName("/anonymous_id")
    for field, name in (("/customer_id", item.customer_id), ("/anonymous_id", item.anonymous_id)):
        if name is not None:
            refuse_personal(name, field)
    for field, name in (
        ("/decision_id", item.decision_id),
        ("/offer_id", item.offer_id),
        ("/order_id", item.order_id),
    ):
        if name is not None:
            refuse_email(name, field)


def check_browser(item: OutcomeIn) -> None:
    """What a token alone may report; raises `KeyNeeded` for anything more: a browser cannot report a sale."""
    if item.token is None or item.value is not None or item.order_id is not None:
        raise KeyNeeded
    if item.outcome in WORDS and item.outcome not in BROWSER_WORDS:
        raise KeyNeeded


def offer_of(token: OfferToken) -> Offer:
    """The offer a token speaks of."""
    return Offer(
        decision_id=token.decision_id,
        offer_id=token.offer_id,
        customer=token.customer,
        placement=token.placement,
        product_id=token.product_id,
        price=token.price,
        channel=token.channel,
    )


def named_offer(item: OutcomeIn) -> Offer:
    """The offer of an outcome that came without token; raises `Invalid`."""
    if item.decision_id is None:
        raise Missing(
            "/decision_id", "give a token, or decision_id, offer_id and customer_id or anonymous_id"
        )
    if item.offer_id is None:
        raise Missing("/offer_id", "offer_id must be given beside decision_id")
    if item.customer_id is None and item.anonymous_id is None:
        raise Missing("/customer_id", "customer_id or anonymous_id must be given beside decision_id")
    key = customer_key(item.customer_id, item.anonymous_id)
    product = item.offer_id.removeprefix(PRODUCT_OFFER) if item.offer_id.startswith(PRODUCT_OFFER) else None
    return Offer(item.decision_id, item.offer_id, key, product_id=product or None)


def check_agrees(item: OutcomeIn, offer: Offer) -> None:
    """Ids beside the token say what the token says; raises `TokenMismatch`."""
    if item.decision_id is not None and item.decision_id != offer.decision_id:
        raise TokenMismatch("/decision_id")
    if item.offer_id is not None and item.offer_id != offer.offer_id:
        raise TokenMismatch("/offer_id")
    if is_nobody(offer.customer):
        if item.customer_id is not None or item.anonymous_id is not None:
            raise TokenMismatch("/customer_id" if item.customer_id is not None else "/anonymous_id")
    elif is_anonymous(offer.customer):
        same = item.anonymous_id is not None and anonymous_key(item.anonymous_id) == offer.customer
        if item.anonymous_id is not None and not same:
            raise TokenMismatch("/anonymous_id")
        # A visitor who has logged in since may be named by both ids, never by the customer's alone.
        if item.customer_id is not None and not same:
            raise TokenMismatch("/customer_id")
    elif item.customer_id is not None and item.customer_id != offer.customer:
        raise TokenMismatch("/customer_id")
    elif item.customer_id is None and item.anonymous_id is not None:
        raise TokenMismatch("/anonymous_id")


def check_value(item: OutcomeIn, offer: Offer) -> None:
    """A value is at most the product's price.

    With ``order_id`` it is that line's price × quantity, which only who holds the orders can know: here
    it is bounded by `MAX_VALUE` alone.
    """
    if item.value is None or item.order_id is not None or offer.price is None:
        return
    if item.value > offer.price * (1 + _ROUNDING):
        raise Invalid("too_large", f"value must be at most the product's price, {offer.price:g}", "/value")


def outcome_event(item: OutcomeIn, offer: Offer, times: Admitted) -> Outcome:
    """What is kept; its id is made of what it says, so that it counts once."""
    return Outcome(
        id=f"{offer.decision_id}/{offer.offer_id}/{item.outcome}",
        source=SOURCE,
        customer=offer.customer,
        occurred_at=times.occurred_at,
        recorded_at=times.recorded_at,
        decision_id=offer.decision_id,
        offer_id=offer.offer_id,
        outcome=item.outcome,
        product_id=offer.product_id,
        value=item.value,
        order_id=item.order_id,
        placement=offer.placement,
        channel=offer.channel if item.outcome in OBJECTIONS else None,
        learn=times.learn,
        flags=times.flags,
    )


def refusals(event: Outcome) -> list[ConsentGiven]:
    """The word that an objection is, where it proves its channel.

    Trap: not left to the outcome alone. That counts once, so who granted it again and objects to the same
    offer again would not be heard; nor who objects where somebody told it before the decision was known.
    """
    if event.channel is None or is_nobody(event.customer):
        return []
    # Told for the future it could not be taken back until then.
    at = min(event.occurred_at, event.recorded_at)
    said = f"{event.id}/{at}".encode("utf-8", "surrogatepass")
    return [
        ConsentGiven(
            id=blake2b(said, digest_size=16).hexdigest(),
            source=event.source,
            customer=event.customer,
            occurred_at=at,
            recorded_at=event.recorded_at,
            internal=True,
            purpose=MARKETING,
            granted=False,
            channel=event.channel,
            said_at=event.outcome,
        )
    ]
