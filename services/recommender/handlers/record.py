"""What is kept of a decision: the event on the journal (4 kB, save of long slates) and the pool beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from libs.common.clock import DAY, SECOND, Millis
from libs.common.contracts.catalogue import Placement
from libs.common.contracts.customer_event import DecidedOffer, Decision, encode_event
from libs.common.contracts.vectors import pack
from libs.common.personal import is_email
from libs.common.scoring.arrays import joined
from libs.common.scoring.choice import FEATURES
from libs.common.scoring.sources.union import SOURCES
from libs.common.scoring.trial import FEATURE_SET
from services.recommender.candidates.pool import Chosen, Pool
from services.recommender.model.groups import Group
from services.recommender.model.policy import POLICY_VERSION, Draw
from services.recommender.model.pool import (
    PackedDraw,
    PoolRecord,
    encode_pool,
    packed_contributions,
    packed_draws,
    rules_of,
)
from services.recommender.model.wire import Ask

SOURCE = "recommender"
MOST_BYTES = 4_000
KEPT, MOST_KEPT = 4, 16
"""The vectors of so many first ranks are always kept; of as many as are assumed to be seen, at most."""
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
    draws:
        What the policy drew, ghosts among it.
    instead:
        What a holdout group is shown in place of that, as indices of the pool or `NOBODY`.
    placed:
        The offers shown, with the propensity of each and how likely it was swapped, see `Draw`.
    analysed:
        Whether what comes of it may be learned from.
    """

    decision_id: str
    key: str
    group: Group
    placement: Placement
    window: Millis
    pool: Pool
    draws: list[Draw]
    instead: list[int] | None
    placed: list[tuple[Chosen, float, float]]
    seed: int
    decided_at: Millis
    recorded_at: Millis
    replay: bool
    forced: bool
    analysed: bool

    @property
    def versions(self) -> tuple[int, int]:
        """Versions of the learned models and of the catalogue."""
        return self.pool.here.tables.learned.version, self.pool.here.assortment.version


class _Numbers(NamedTuple):
    """Of a `PoolRecord`."""

    chance: bytes
    mean: bytes
    value: bytes
    contributions: bytes
    worth: bytes


def records_of(asked: Sequence[tuple[Slate, Ask]]) -> list[tuple[Decision, bytes]]:
    """Of several decisions the event, and the packed pool."""
    slates = [slate for slate, _ in asked]
    shared = pack(np.stack([slate.pool.shared for slate in slates]))
    offers = _offers(slates)
    # One step after the other for all of them, see `side_by_side`.
    told = [_told(slate) for slate in slates]
    draws = [packed_draws(slate.draws) for slate in slates]
    variances = [_variance(slate) for slate in slates]
    numbers = [_numbers(slate.pool, some) for slate, some in zip(slates, told, strict=True)]
    events = [
        _decision(slate, ask, *of_one, vector)
        for (slate, ask), of_one, vector in zip(asked, offers, shared, strict=True)
    ]
    pools = [
        encode_pool(_pool(*parts)) for parts in zip(slates, told, draws, variances, numbers, strict=True)
    ]
    return list(zip(events, pools, strict=True))


def _decision(
    slate: Slate,
    ask: Ask,
    offers: tuple[DecidedOffer, ...],
    ghosts: tuple[DecidedOffer, ...],
    shared: bytes,
) -> Decision:
    """The event, of at most `MOST_BYTES` where what learning cannot do without fits in, see `_slimmer`."""
    model, catalogue = slate.versions
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
        offers=offers,
        context=_context(ask),
        customer_id=ask.customer_id,
        anonymous_id=ask.anonymous_id,
        assumed_shown=_assumed(slate.placement, len(offers)),
        replay=slate.replay,
        forced=slate.forced,
        shared=shared if offers else b"",
        feature_set=FEATURE_SET if offers else "",
        ghosts=ghosts,
        window=slate.window,
        analysed=slate.analysed,
    )
    return event if len(encode_event(event)) <= MOST_BYTES else _slimmer(event)


def _offers(
    slates: Sequence[Slate],
) -> list[tuple[tuple[DecidedOffer, ...], tuple[DecidedOffer, ...]]]:
    """Of each the offers shown, and the ghosts that have one in their place."""
    rows = [_rows(slate) for slate in slates]
    own = [slate.pool.own[[row[0].at for row in some]] for slate, some in zip(slates, rows, strict=True)]
    vectors = iter(pack(joined(own)))
    told = [[_decided(*row, next(vectors)) for row in some] for some in rows]
    shown = [len(slate.placed) for slate in slates]
    return [(tuple(all_[:some]), tuple(all_[some:])) for all_, some in zip(told, shown, strict=True)]


def _rows(slate: Slate) -> list[tuple[Chosen, float, float, int]]:
    """The offers shown, then the ghosts that have one in their place: candidate, propensity, how likely it
    was swapped, rank."""
    shown = [(*placed, rank) for rank, placed in enumerate(slate.placed, start=1)]
    ghosts = [
        (draw.chosen, draw.propensity, draw.rank)
        for draw in slate.draws
        if draw.ghost and draw.rank <= len(shown) and slate.instead is None
    ]
    told = slate.pool.chosen([at for at, _, _ in ghosts])
    return [
        *shown,
        *((one, propensity, 0.0, rank) for one, (_, propensity, rank) in zip(told, ghosts, strict=True)),
    ]


def _decided(one: Chosen, propensity: float, swapped: float, rank: int, vector: bytes) -> DecidedOffer:
    return DecidedOffer(
        offer_id=one.offer_id,
        product_id=one.product_id,
        kind=one.kind,
        rank=rank,
        score=short(one.score),
        propensity=propensity,
        mean=short(one.mean),
        source=one.source,
        price=one.price,
        chance=short(one.chance),
        vector=vector,
        cell=one.cell,
        swapped=short(swapped),
    )


def short(number: float) -> float:
    """``number`` to six digits, which is more than it is sure to, in a third of the bytes."""
    return float(f"{number:.6g}")


def _told(slate: Slate) -> list[int]:
    """The candidates that are told of in full: those shown, and ghosts."""
    told = [one.at for one, _, _ in slate.placed] + [draw.chosen for draw in slate.draws if draw.ghost]
    return [at for at in dict.fromkeys(told) if at >= 0]


def _variance(slate: Slate) -> bytes:
    drawn = bool(slate.draws) and slate.draws[0].open is not None
    return _floats(slate.pool.variance) if drawn else b""


def _numbers(pool: Pool, told: Sequence[int]) -> _Numbers:
    return _Numbers(
        chance=_floats(pool.chance),
        mean=_floats(pool.mean),
        value=_floats(pool.score),
        contributions=packed_contributions(pool.contributions[told]),
        worth=_floats(pool.worth.columns(told)),
    )


def _pool(
    slate: Slate, told: list[int], draws: list[PackedDraw], variance: bytes, numbers: _Numbers
) -> PoolRecord:
    pool = slate.pool
    model, catalogue = slate.versions
    return PoolRecord(
        decision_id=slate.decision_id,
        decided_at=slate.decided_at,
        customer=slate.key,
        placement=slate.placement.placement_id,
        group=slate.group,
        objective=slate.placement.objective,
        policy=POLICY_VERSION,
        model=model,
        catalogue=catalogue,
        seed=slate.seed,
        exploration=slate.placement.exploration,
        offers=[None if offer is None else offer.offer_id for offer in pool.offers],
        products=pool.product_ids,
        kinds=pool.kinds.tobytes(),
        sources=pool.sources.tobytes(),
        source_names=list(SOURCES),
        rules=rules_of(slate.draws, len(pool), slate.placement.near_best is not None).tobytes(),
        chance=numbers.chance,
        mean=numbers.mean,
        variance=variance,
        value=numbers.value,
        draws=draws,
        placed=slate.instead,
        rejected=pool.here.rejected,
        features=FEATURES,
        explained=told,
        contributions=numbers.contributions,
        worth=numbers.worth,
    )


def _floats(values: np.ndarray[Any, Any]) -> bytes:
    return values.astype("<f4").tobytes()


def window_of(placement: Placement, channel: str) -> Millis:
    """How long after it was shown an order can be an offer's."""
    if placement.window is not None:
        return placement.window * SECOND
    return WINDOWS.get(channel, WINDOW)


def _context(ask: Ask) -> dict[str, Any]:
    context: dict[str, Any] = {}
    page, basket = page_of(ask), basket_of(ask)
    # Trap: cut before it is looked at, since whoever asks chooses the length.
    if page is not None and not is_email(page := page[:MOST_ID]):
        context["product_id"] = page
    short = (product_id[:MOST_ID] for product_id in basket[:MOST_BASKET])
    if kept := [product_id for product_id in short if not is_email(product_id)]:
        context["basket"] = kept
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


def _assumed(placement: Placement, placed: int) -> int:
    if placement.impressions != "assumed":
        return 0
    return placed if placement.visible is None else min(placed, placement.visible)


def _slimmer(event: Decision) -> Decision:
    """The event without its basket, then without the vectors of ghosts, then without those of lower ranks.

    The first `KEPT` ranks, or as many as are assumed to be seen up to `MOST_KEPT`, keep theirs whatever
    comes: a slate of a hundred offers takes what its offers take by themselves, about 230 bytes each, and
    that of at most `MOST_KEPT` vectors.
    """
    context = {key: value for key, value in event.context.items() if key != "basket"}
    # Nothing is learned from the features of what was not shown.
    ghosts = tuple(msgspec.structs.replace(ghost, vector=b"") for ghost in event.ghosts)
    event = msgspec.structs.replace(event, context=context)
    if len(encode_event(event)) > MOST_BYTES:
        event = msgspec.structs.replace(event, ghosts=ghosts)
    kept, least = len(event.offers), min(max(KEPT, event.assumed_shown), MOST_KEPT)
    while kept > least and len(encode_event(event)) > MOST_BYTES:
        # Half of what is left at a time, from the bottom: nobody looks at every slate's last rank.
        kept = max(kept // 2, least)
        event = msgspec.structs.replace(
            event,
            offers=(
                *event.offers[:kept],
                # Trap: no order either, or one of a pair would teach slots without the other.
                *(msgspec.structs.replace(offer, vector=b"", swapped=0.0) for offer in event.offers[kept:]),
            ),
        )
    return event
