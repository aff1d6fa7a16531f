"""Brings the sources together: one candidate per offer id, its kind, chance and value; the best go on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS, Placement
from libs.common.scoring.features import FEATURES, candidate_features
from libs.common.scoring.sources import upgrades
from libs.common.scoring.sources.look import NOTHING
from libs.common.scoring.sources.union import CODES, SOURCES, Candidates, candidates
from libs.common.scoring.trial import (
    cells_of,
    context_sketch,
    own_features,
    shared_features,
    source_groups,
)
from services.recommender.candidates import places
from services.recommender.candidates.pool import Pool, offer_ids
from services.recommender.errors import KIND, PRODUCT_MISSING, SURPLUS
from services.recommender.model.assortment import PRODUCT_OFFER
from services.recommender.model.authored import Authored
from services.recommender.model.situation import Floats, Mask, Positions, Situation
from services.recommender.model.steps import Steps
from services.recommender.model.tables import Tables
from services.recommender.model.value import KIND_CODES, Worth

MOST_AUTHORED = 400
"""So many authored offers can be candidates at once, the most valuable first."""
ALL = np.ones(len(KINDS), dtype=np.bool_)
"""All kinds are wanted."""
CONTENT_CHANCE = 0.01
"""P(choice) of content without a product."""

Offers = NDArray[np.object_]
"""An `Offer` of each candidate, None for a product's own."""

_REPEAT, _CROSS, _UP = KIND_CODES["repeat"], KIND_CODES["cross_sell"], KIND_CODES["up_sell"]
_GROUPS = source_groups(SOURCES)


@dataclass(frozen=True, eq=False)
class Where:
    """What a request says of the place it comes from.

    ``limit`` is how many slots there are; ``kinds`` are the only ones wanted (None: all); ``also`` are ids
    of offers (a baseline's) that go on before all others where they are open, whatever they are worth.
    """

    placement: Placement
    channel: str
    context: Mapping[str, Any]
    limit: int = places.MOST
    kinds: Collection[str] | None = None
    also: Sequence[str] = ()

    @cached_property
    def wanted(self) -> Mask:
        """Array (kinds,): whether each of `KINDS` is wanted."""
        return ALL if self.kinds is None else np.array([kind in self.kinds for kind in KINDS])

    @cached_property
    def sketch(self) -> Floats:
        """The free fields of ``context``, see `context_sketch`."""
        return context_sketch(self.context)


class _Candidates(NamedTuple):
    """What the sources named, as arrays (m,): products' own offers first, then authored ones."""

    positions: Positions
    offers: Offers
    kinds: NDArray[np.int8]
    sources: NDArray[np.int8]
    replaces: Positions
    margin: Floats
    sketch: Floats
    codes: Positions

    def at(self, kept: Positions) -> _Candidates:
        """Those at ``kept`` only."""
        return _Candidates._make(column.take(kept, axis=0) for column in self.columns())

    def and_(self, others: _Candidates) -> _Candidates:
        """These, then ``others``."""
        both = zip(self.columns(), others.columns(), strict=True)
        return _Candidates._make(np.concatenate(pair) for pair in both)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """All of the above, one after the other."""
        return self


class _Judged(NamedTuple):
    """What the response model says of candidates, and what it was told, as arrays (m,)."""

    own: Floats
    cells: Positions
    ids: list[str]
    mean: Floats

    def at(self, kept: Positions) -> _Judged:
        """Those at ``kept`` only."""
        ids = [self.ids[at] for at in kept.tolist()]
        return _Judged(self.own[kept], self.cells[kept], ids, self.mean[kept])


def gather(here: Situation, tables: Tables, where: Where) -> Steps[Pool]:
    """Steps towards the candidates of ``here`` that go on, see `places`.

    P(choice) decides which. Where there are authored offers, of which it says little, the response model is
    asked about all: those that nobody takes must make room for others.
    """
    found = _products(here, where)
    yield
    named, own_offers = _candidates(here, tables, where, found)
    yield
    chance, features = _chances(here, named.positions, own_offers)
    yield
    shared, placement = _shared(here, where), where.placement
    response = here.tables.learned.response
    worth = Worth(
        caused=response.caused(named.kinds, placement.placement_id),
        margin=named.margin,
        # Asked for of those that go on only.
        returned=np.zeros(len(chance)),
        contact_cost=placement.contact_cost,
    )
    authored = own_offers < len(chance)
    yield
    judged = _judged(here, where, named, chance, features, shared) if authored else None
    likely = chance if judged is None else judged.mean
    kept = _best(here, named, worth.ranked_by(placement.objective, likely), where)
    named, worth = named.at(kept), worth.at(kept)
    chance, features = chance[kept], features.take(kept, axis=0)
    yield
    judged = _judged(here, where, named, chance, features, shared) if judged is None else judged.at(kept)
    own, cells, ids, mean = judged
    yield
    # What is no product cannot be sent back.
    returned = np.where(named.positions >= 0, response.returned(ids, cells), 0.0)
    worth = replace(worth, returned=returned)
    return Pool(
        here=here,
        positions=named.positions,
        offers=named.offers.tolist(),
        offer_ids=ids,
        kinds=named.kinds,
        sources=named.sources,
        replaces=named.replaces,
        cells=cells,
        chance=chance,
        mean=mean,
        score=worth.score(mean),
        worth=worth,
        objective=placement.objective,
        features=features,
        own=own,
        shared=shared,
        draw=lambda: response.draws(own, shared, ids, cells),
    )


def _judged(
    here: Situation, where: Where, named: _Candidates, chance: Floats, features: Floats, shared: Floats
) -> _Judged:
    own = _own(here, where, named, chance, features)
    cells = cells_of(named.kinds, named.codes)
    ids = offer_ids(here, named.offers.tolist(), named.positions)
    return _Judged(own, cells, ids, here.tables.learned.response.means(own, shared, ids, cells))


def _candidates(
    here: Situation, tables: Tables, where: Where, products: Candidates
) -> tuple[_Candidates, int]:
    """The own offers of ``products``, then authored ones, and how many there are of the former."""
    found, sources, replaces = products
    kinds = _kinds(here, found, replaces)
    margins = here.assortment.margin
    signs = tables.signs
    named = _Candidates(
        positions=found,
        offers=np.full(len(found), None),
        kinds=kinds,
        sources=sources,
        replaces=replaces,
        margin=margins[found] - np.where(replaces >= 0, margins[replaces], 0.0),
        sketch=signs.sketch[found],
        codes=signs.codes[found],
    )
    authored = tables.authored
    if authored.missing:
        here.rejected[PRODUCT_MISSING] = authored.missing
    extra = _authored(here, authored, where)
    if not len(extra):
        return named, len(found)
    said = _Candidates(
        positions=authored.position[extra],
        offers=np.array([authored.offers[at] for at in extra.tolist()], dtype=object),
        kinds=authored.kind[extra],
        sources=np.full(len(extra), CODES["authored"], dtype=np.int8),
        replaces=np.full(len(extra), NOTHING),
        margin=authored.margin[extra],
        sketch=authored.sketch[extra],
        codes=_of(signs.codes, authored.position[extra]),
    )
    return named.and_(said), len(found)


def _products(here: Situation, where: Where) -> Candidates:
    """What sources name, and popular products of the kinds wanted where those are too few for all slots."""
    index = here.tables.shelf.index
    own = [name.removeprefix(PRODUCT_OFFER) for name in where.also if name.startswith(PRODUCT_OFFER)]
    also = [at for name in own if (at := index.get(name, NOTHING)) != NOTHING and here.open[at]]
    found = candidates(here.look, np.array(also, dtype=np.int64))
    wanted = where.wanted
    if wanted.all() or np.count_nonzero(wanted[_kinds(here, *found[::2])]) >= where.limit:
        return found
    by = upgrades.replaced(here.look).by
    ranking = here.tables.rankings.popular
    ranking = ranking[here.open[ranking] & wanted[_kinds(here, ranking, by[ranking])]]
    more = np.setdiff1d(ranking[: where.limit], found.positions)
    return Candidates(
        np.append(found.positions, more),
        np.append(found.sources, np.full(len(more), CODES["popular"], dtype=np.int8)),
        np.append(found.replaces, by[more]),
    )


def _kinds(here: Situation, positions: Positions, replaces: Positions) -> NDArray[np.int8]:
    """Kind code of each product's own offer."""
    bought = here.scene.past.bought[positions] > 0.0
    return np.where(replaces >= 0, _UP, np.where(bought, _REPEAT, _CROSS)).astype(np.int8)


def _authored(here: Situation, authored: Authored, where: Where) -> Positions:
    """Open authored offers of the kinds wanted: a baseline's, and the most valuable of the others."""
    found = authored.open_at(here.now, here.open)
    wanted = where.wanted[authored.kind[found]]
    _refuse(here, KIND, len(found) - int(np.count_nonzero(wanted)))
    found = found[wanted]
    if len(found) > MOST_AUTHORED:
        first = np.isin(found, [authored.rows.get(name, NOTHING) for name in where.also])
        found = np.sort(found[(~first).argsort(kind="stable")[:MOST_AUTHORED]])
    return found


def _refuse(here: Situation, code: str, refused: int) -> None:
    if refused:
        here.rejected[code] = here.rejected.get(code, 0) + refused


def _own(here: Situation, where: Where, named: _Candidates, chance: Floats, features: Floats) -> Floats:
    """What the response model is told of each candidate alone."""
    at, replaces, shelf = named.positions, named.replaces, here.tables.shelf
    tier, willing = shelf.comparables.tier, here.scene.past.willing
    below = willing[_of(shelf.category, at)] * (at >= 0) if len(willing) else np.zeros(len(at))
    if (up := replaces >= 0).any():
        below[up] = tier[replaces[up]]
    return own_features(
        features,
        FEATURES,
        chance=chance,
        kinds=named.kinds,
        groups=_GROUPS[named.sources],
        price=_of(here.assortment.price, at),
        margin=named.margin,
        tier_step=_of(tier, at) - below,
        seen=_of(here.tables.rankings.orders, at),
        offers=named.sketch,
        context=where.sketch,
    )


def _of(values: NDArray[Any], at: Positions) -> NDArray[Any]:
    """``values`` at positions ``at``; 0 where there is no product."""
    named = at >= 0
    if named.all():
        return values[at]
    found = np.zeros(len(at), dtype=values.dtype)
    found[named] = values[at[named]]
    return found


def _shared(here: Situation, where: Where) -> Floats:
    return shared_features(
        channel=where.channel,
        placement=where.placement.placement_id,
        at=here.now,
        context=where.sketch,
        orders=float(here.scene.past.bought.sum()),
        on_page=here.page is not None,
        basket=len(here.basket),
    )


def _chances(here: Situation, positions: Positions, own_offers: int) -> tuple[Floats, Floats]:
    """P(choice) among products' own offers, which come first; of an authored offer on the same scale."""
    named = positions >= 0
    if len(positions) == own_offers:
        features = candidate_features(here.scene, positions)
    else:
        features = np.zeros((len(positions), len(FEATURES)))
        features[named] = candidate_features(here.scene, positions[named])
    utility = here.tables.learned.choice.utilities(features)
    if not own_offers:
        return np.full(len(positions), CONTENT_CHANCE), features
    top = utility[:own_offers].max()
    odds = np.exp(np.minimum(utility - top, 0.0))
    chance = odds / odds[:own_offers].sum()
    chance[~named] = CONTENT_CHANCE
    return chance, features


def _best(here: Situation, named: _Candidates, by: Floats, where: Where) -> Positions:
    """Which candidates go on: of the kinds wanted, a baseline's first, then the best."""
    kept = where.wanted[named.kinds].nonzero()[0]
    _refuse(here, KIND, len(by) - len(kept))
    if len(kept) > (most := places.room(where.limit)):
        _refuse(here, SURPLUS, len(kept) - most)
        first = _first(here, named, kept, where.also)[:most]
        rest = np.setdiff1d(kept, first) if len(first) else kept
        rest = rest[places.best(by[rest], named.sources[rest], most - len(first))]
        kept = np.sort(np.concatenate((first, rest))) if len(first) else rest
    return kept


def _first(here: Situation, named: _Candidates, kept: Positions, also: Sequence[str]) -> Positions:
    """Those of ``kept`` that are offers of ``also``, in its order."""
    if not also:
        return kept[:0]
    some = named.at(kept)
    found = dict(zip(offer_ids(here, some.offers.tolist(), some.positions), kept.tolist(), strict=True))
    return np.array([found[name] for name in also if name in found], dtype=np.int64)
