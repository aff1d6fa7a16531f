"""Brings the sources together: one candidate per offer id, its kind, chance and value; the best go on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS, Kind, Offer, Placement
from libs.common.scoring.features import FEATURES, candidate_features
from libs.common.scoring.sources.look import NONE, NOTHING
from libs.common.scoring.sources.union import CODES, SOURCES, candidates
from services.recommender.candidates import places
from services.recommender.errors import KIND, SURPLUS
from services.recommender.model.authored import NO_PRODUCT, Authored
from services.recommender.model.situation import Floats, Positions, Situation
from services.recommender.model.value import KIND_CODES, incremental_margin, ranked_by

CONTENT_CHANCE = 0.01
"""P(taken up) of content without a product, before anything is learned about it."""

_REPEAT, _CROSS, _UP = KIND_CODES["repeat"], KIND_CODES["cross_sell"], KIND_CODES["up_sell"]


class Chosen(NamedTuple):
    """One candidate of a pool in plain Python: what answer, record and reasons are written from."""

    at: int
    position: int
    offer_id: str
    product_id: str | None
    kind: Kind
    source: str
    price: float | None
    score: float
    chance: float
    replaces: int
    offer: Offer | None


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidates that go on, as arrays (m,) in one order.

    Attributes
    ----------
    positions:
        Shelf positions; `NO_PRODUCT` for content.
    offers:
        The authored offer of each, None for a product's own.
    replaces:
        Position of the product an up-sell replaces, −1 for others.
    chance, score, by:
        P(choice); expected incremental margin; the number candidates are ranked by.
    features:
        Array (m, `FEATURES`).
    """

    here: Situation
    positions: Positions
    offers: list[Offer | None]
    kinds: NDArray[np.int8]
    sources: NDArray[np.int8]
    replaces: Positions
    chance: Floats
    score: Floats
    by: Floats
    features: Floats

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def product_ids(self) -> list[str | None]:
        """The product of each candidate, None for content."""
        ids = self.here.tables.shelf.ids
        return [ids[at] if at != NO_PRODUCT else None for at in self.positions.tolist()]

    @cached_property
    def offer_ids(self) -> list[str]:
        """The offer id of each candidate, unique among them."""
        own = self.here.assortment.offer_ids
        return [
            own[at] if offer is None else offer.offer_id
            for offer, at in zip(self.offers, self.positions.tolist(), strict=True)
        ]

    def chosen(self, places: Sequence[int]) -> list[Chosen]:
        """The candidates at ``places``; arrays are read once for all of them."""
        some = np.array(places, dtype=np.int64)
        positions = self.positions[some]
        prices = self.here.assortment.price[positions].tolist() if len(self.here.assortment.price) else []
        offer_ids, product_ids = self.offer_ids, self.product_ids
        columns = zip(
            places,
            positions.tolist(),
            self.kinds[some].tolist(),
            self.sources[some].tolist(),
            prices or [0.0] * len(places),
            self.score[some].tolist(),
            self.chance[some].tolist(),
            self.replaces[some].tolist(),
            strict=True,
        )
        return [
            Chosen(
                at=at,
                position=position,
                offer_id=offer_ids[at],
                product_id=product_ids[at],
                kind=KINDS[kind],
                source=SOURCES[source],
                price=None if position == NO_PRODUCT else price,
                score=score,
                chance=chance,
                replaces=replaces,
                offer=self.offers[at],
            )
            for at, position, kind, source, price, score, chance, replaces in columns
        ]


def gather(
    here: Situation,
    authored: Authored,
    placement: Placement,
    kinds: Collection[str] | None,
    also: Positions = NONE,
) -> Pool:
    """The at most `places.MOST` candidates of ``here`` for ``placement``, of ``kinds`` only (None: all).

    ``also`` are open positions that must be among them whatever they are worth (a baseline's).
    """
    found, sources, replaces = candidates(here.look, also)
    extra = authored.open_at(here.now, here.open)
    own = len(found)
    positions = np.concatenate((found, authored.position[extra])) if len(extra) else found
    chance, features = _chances(here, found, positions)
    code = np.where(replaces >= 0, _UP, np.where(here.scene.past.bought[found] > 0.0, _REPEAT, _CROSS))
    margins = here.assortment.margin
    margin = margins[found] - np.where(replaces >= 0, margins[replaces], 0.0)
    if len(extra):
        code = np.concatenate((code, authored.kind[extra]))
        margin = np.concatenate((margin, authored.margin[extra]))
        replaces = np.concatenate((replaces, np.full(len(extra), NOTHING)))
        sources = np.concatenate((sources, np.full(len(extra), CODES["authored"], dtype=np.int8)))
    codes = code.astype(np.int8)
    score = incremental_margin(chance, codes, margin, placement.contact_cost)
    ranking = ranked_by(placement.objective, chance, margin, score, placement.contact_cost)
    kept = _best(here, codes, sources, ranking, kinds, np.isin(positions, also) if len(also) else None)
    return Pool(
        here=here,
        positions=positions[kept],
        offers=[None] * len(kept)
        if not len(extra)
        else [authored.offers[extra[at - own]] if at >= own else None for at in kept.tolist()],
        kinds=codes[kept],
        sources=sources[kept],
        replaces=replaces[kept],
        chance=chance[kept],
        score=score[kept],
        by=ranking[kept],
        features=features[kept],
    )


def _chances(here: Situation, found: Positions, positions: Positions) -> tuple[Floats, Floats]:
    """P(choice) among ``found``; of an authored offer that of its product on the same scale."""
    named = positions >= 0
    if len(positions) == len(found):
        features = candidate_features(here.scene, found)
    else:
        features = np.zeros((len(positions), len(FEATURES)))
        features[named] = candidate_features(here.scene, positions[named])
    utility = here.tables.learned.choice.utilities(features)
    if not len(found):
        return np.full(len(positions), CONTENT_CHANCE), features
    top = utility[: len(found)].max()
    odds = np.exp(np.minimum(utility - top, 0.0))
    chance = odds / odds[: len(found)].sum()
    chance[~named] = CONTENT_CHANCE
    return chance, features


def _best(
    here: Situation,
    codes: NDArray[np.int8],
    sources: NDArray[np.int8],
    by: Floats,
    kinds: Collection[str] | None,
    forced: NDArray[np.bool_] | None,
) -> Positions:
    kept = np.arange(len(codes))
    if kinds is not None:
        wanted = np.array([kind in kinds for kind in KINDS])[codes]
        kept = kept[wanted]
        if refused := len(codes) - len(kept):
            here.rejected[KIND] = refused
    if len(kept) > places.MOST:
        best = kept[places.best(by[kept], sources[kept])]
        if forced is not None:
            best = np.union1d(best, kept[forced[kept]])
        here.rejected[SURPLUS] = len(kept) - len(best)
        kept = np.sort(best)
    return kept
