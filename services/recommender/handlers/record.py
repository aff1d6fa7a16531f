"""What is kept of a decision: the event on the journal (4 kB at most) and the pool beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from libs.common.clock import DAY, SECOND, Millis
from libs.common.contracts.catalogue import Placement
from libs.common.contracts.customer_event import DecidedOffer, Decision, encode_event
from libs.common.contracts.vectors import pack
from libs.common.scoring.features import FEATURE_SET
from libs.common.scoring.sources.union import SOURCES
from services.recommender.candidates.gather import Chosen, Pool
from services.recommender.model.groups import Group
from services.recommender.model.policy import POLICY_VERSION, Slot
from services.recommender.model.pool import PoolRecord, encode_pool, packed_slots
from services.recommender.model.wire import Ask

SOURCE = "recommender"
MOST_BYTES = 4_000
MOST_BASKET = 20
MOST_ID = 256
WINDOW: Millis = 7 * DAY
WINDOWS: Mapping[str, Millis] = {
    "email": 14 * DAY,
    "phone": 60 * DAY,
    "post": 60 * DAY,
    "direct_mail": 60 * DAY,
}
"""How long an order can be an offer's, where the placement does not say, by channel."""


class Slate(NamedTuple):
    """A decision as it was made.

    Parameters
    ----------
    decided_at, recorded_at:
        The moment decided for, and the platform's present.
    ranking:
        Indices of the pool, best first, `NOBODY` for "no offer".
    slots:
        What was placed; where ``drawn`` is false it was not drawn from the ranking.
    placed:
        The offers in the slots, those without an offer left out.
    """

    decision_id: str
    key: str
    group: Group
    placement: Placement
    pool: Pool
    ranking: Sequence[int] | np.ndarray[Any, Any]
    slots: list[Slot]
    placed: list[Chosen]
    drawn: bool
    seed: int
    decided_at: Millis
    recorded_at: Millis
    replay: bool
    forced: bool

    @property
    def versions(self) -> tuple[int, int]:
        """Versions of the learned models and of the catalogue."""
        return self.pool.here.tables.learned.version, self.pool.here.assortment.version


def decision_of(slate: Slate, ask: Ask) -> Decision:
    """The event; features of the lower ranks are left out where it would grow over `MOST_BYTES`."""
    model, catalogue = slate.versions
    placed = slate.placed
    vectors = pack(slate.pool.features[[one.at for one in placed]])
    event = Decision(
        id=slate.decision_id,
        source=SOURCE,
        customer=slate.key,
        occurred_at=slate.decided_at,
        recorded_at=slate.recorded_at,
        placement=ask.placement,
        channel=ask.channel,
        group=slate.group,
        policy_version=POLICY_VERSION,
        model_version=model,
        catalogue_version=catalogue,
        seed=slate.seed,
        objective=slate.placement.objective,
        offers=tuple(
            _decided(one, slot.propensity, place, vectors[place - 1])
            for place, (one, slot) in enumerate(zip(placed, slate.slots, strict=False), start=1)
        ),
        feature_set=FEATURE_SET if placed else "",
        context=_context(ask),
        customer_id=ask.customer_id,
        anonymous_id=ask.anonymous_id,
        assumed_shown=_assumed(slate.placement, len(placed)),
        replay=slate.replay,
        forced=slate.forced,
        window=window_of(slate.placement, ask.channel),
    )
    return event if len(encode_event(event)) <= MOST_BYTES else _slimmer(event)


def pool_of(slate: Slate) -> bytes:
    """The packed pool of the decision."""
    pool = slate.pool
    model, catalogue = slate.versions
    return encode_pool(
        PoolRecord(
            decision_id=slate.decision_id,
            decided_at=slate.decided_at,
            customer=slate.key,
            placement=slate.placement.placement_id,
            group=slate.group,
            policy=POLICY_VERSION,
            model=model,
            catalogue=catalogue,
            seed=slate.seed,
            exploration=slate.placement.exploration,
            drawn=slate.drawn,
            offers=pool.offer_ids,
            products=pool.product_ids,
            kinds=pool.kinds.tobytes(),
            sources=pool.sources.tobytes(),
            source_names=list(SOURCES),
            mean=pool.chance.astype("<f4").tobytes(),
            value=pool.score.astype("<f4").tobytes(),
            ranking=np.asarray(slate.ranking, dtype="<i2").tobytes(),
            slots=packed_slots(slate.slots),
            rejected=pool.here.rejected,
        )
    )


def _decided(one: Chosen, propensity: float, place: int, vector: bytes) -> DecidedOffer:
    return DecidedOffer(
        offer_id=one.offer_id,
        product_id=one.product_id,
        kind=one.kind,
        rank=place,
        score=one.score,
        propensity=propensity,
        mean=one.chance,
        source=one.source,
        price=one.price,
        chance=one.chance,
        vector=vector,
    )


def _assumed(placement: Placement, placed: int) -> int:
    if placement.impressions != "assumed":
        return 0
    return placed if placement.visible is None else min(placed, placement.visible)


def window_of(placement: Placement, channel: str) -> Millis:
    """How long after it was shown an order can be an offer's."""
    if placement.window is not None:
        return placement.window * SECOND
    return WINDOWS.get(channel, WINDOW)


def _context(ask: Ask) -> dict[str, Any]:
    context: dict[str, Any] = {}
    page, basket = page_of(ask), basket_of(ask)
    if page is not None:
        context["product_id"] = page
    if basket:
        context["basket"] = [product_id[:MOST_ID] for product_id in basket[:MOST_BASKET]]
    return context


def page_of(ask: Ask) -> str | None:
    """The product of the page, checked when the request was read."""
    page = ask.context.get("product_id")
    return page if isinstance(page, str) and page else None


def basket_of(ask: Ask) -> list[str]:
    """Product ids in the basket, each once: strings, or order lines with a ``product_id``."""
    basket = ask.context.get("basket")
    if not isinstance(basket, list):
        return []
    found = (line.get("product_id") if isinstance(line, dict) else line for line in basket)
    return list(dict.fromkeys(product_id for product_id in found if isinstance(product_id, str)))


def _slimmer(event: Decision) -> Decision:
    offers = list(event.offers)
    while offers_with := [at for at, offer in enumerate(offers) if offer.vector]:
        # Half of what is left at a time, from the bottom: nobody looks at every slate's last rank.
        for at in offers_with[len(offers_with) // 2 :]:
            offers[at] = msgspec.structs.replace(offers[at], vector=b"")
        event = msgspec.structs.replace(event, offers=tuple(offers))
        if len(encode_event(event)) <= MOST_BYTES:
            return event
    return msgspec.structs.replace(event, context={})
