"""Brings the sources together: one candidate per offer id, its kind, chance and value; the best go on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS, Placement
from libs.common.scoring.arrays import joined, parted
from libs.common.scoring.features import FEATURES, Scene, features_of
from libs.common.scoring.response import Trials
from libs.common.scoring.sources import upgrades
from libs.common.scoring.sources.look import NOTHING
from libs.common.scoring.sources.union import CODES, SOURCES, Candidates, candidates_of
from libs.common.scoring.trial import (
    Told,
    cells_of,
    context_sketch,
    crossed,
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
from services.recommender.model.steps import Steps, together
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
    cells: Positions

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


class _Case(NamedTuple):
    """What is known of candidates before the response model is asked: see `Pool` for the arrays (m,)."""

    here: Situation
    where: Where
    named: _Candidates
    chance: Floats
    features: Floats
    shared: Floats

    def at(self, kept: Positions) -> _Case:
        """Those at ``kept`` only."""
        return self._replace(
            named=self.named.at(kept), chance=self.chance[kept], features=self.features.take(kept, axis=0)
        )


def gather(here: Situation, tables: Tables, where: Where) -> Steps[Pool]:
    """Steps towards the candidates of ``here`` that go on, see `places`.

    P(choice) decides which. Where there are authored offers, of which it says little, the response model is
    asked about all: those that nobody takes must make room for others. Questions whose steps are shared must
    have the same ``tables``.
    """
    found = yield from together(candidates_of, (here.look, _also(here, where)))
    found = _filled(here, where, found)
    named, own_offers = _candidates(here, tables, where, found)
    chance, features = yield from together(_chances, (here.scene, named.positions, own_offers))
    shared = yield from together(_shared, (here, where))
    placement, response = where.placement, here.tables.learned.response
    worth = Worth(
        caused=response.caused(named.kinds, placement.placement_id),
        margin=named.margin,
        # Asked for of those that go on only.
        returned=np.zeros(len(chance)),
        contact_cost=placement.contact_cost,
    )
    told = _Case(here, where, named, chance, features, shared)
    if own_offers < len(chance):
        trials = yield from together(_trials, told)
        mean = yield from together(response.means_of, trials)
        kept = _best(here, named, worth.ranked_by(placement.objective, mean), where)
        told, trials, mean = told.at(kept), trials.at(kept), mean[kept]
    else:
        kept = _best(here, named, worth.ranked_by(placement.objective, chance), where)
        told = told.at(kept)
        trials = yield from together(_trials, told)
        mean = yield from together(response.means_of, trials)
    returned = yield from together(response.returned_of, trials)
    # What is no product cannot be sent back.
    worth = replace(worth.at(kept), returned=np.where(told.named.positions >= 0, returned, 0.0))
    draws = (yield from together(response.draws_of, trials)) if placement.exploration > 0.0 else None
    named = told.named
    return Pool(
        here=here,
        positions=named.positions,
        offers=named.offers.tolist(),
        offer_ids=trials.offer_ids,
        kinds=named.kinds,
        sources=named.sources,
        replaces=named.replaces,
        cells=named.cells,
        chance=told.chance,
        mean=mean,
        score=worth.score(mean),
        worth=worth,
        objective=placement.objective,
        features=told.features,
        own=trials.own,
        shared=shared,
        draws=draws,
    )


def _trials(asked: Sequence[_Case]) -> list[Trials]:
    """What the response model is asked about."""
    return [
        told.here.tables.learned.response.trials(
            own,
            told.shared,
            offer_ids(told.here, told.named.offers.tolist(), told.named.positions),
            told.named.cells,
        )
        for told, own in zip(asked, _own(asked), strict=True)
    ]


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
        offers=np.empty(len(found), dtype=object),
        kinds=kinds,
        sources=sources,
        replaces=replaces,
        margin=margins[found] - np.where(replaces >= 0, margins[replaces], 0.0),
        sketch=signs.sketch[found],
        cells=cells_of(kinds, signs.codes[found]),
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
        cells=cells_of(authored.kind[extra], _of(signs.codes, authored.position[extra])),
    )
    return named.and_(said), len(found)


def _also(here: Situation, where: Where) -> Positions:
    """Open products whose own offers must be among the candidates."""
    index = here.tables.shelf.index
    own = [name.removeprefix(PRODUCT_OFFER) for name in where.also if name.startswith(PRODUCT_OFFER)]
    also = [at for name in own if (at := index.get(name, NOTHING)) != NOTHING and here.open[at]]
    return np.array(also, dtype=np.int64)


def _filled(here: Situation, where: Where, found: Candidates) -> Candidates:
    """What sources name, and popular products of the kinds wanted where those are too few for all slots."""
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


def _own(asked: Sequence[_Case]) -> list[Floats]:
    """What the response model is told of each candidate alone."""
    first, sizes = asked[0].here, [len(told.chance) for told in asked]
    price, tables = first.assortment.price, first.tables
    shelf, tier = tables.shelf, tables.shelf.comparables.tier
    columns = zip(*(told.named.columns() for told in asked), strict=True)
    named = _Candidates._make(map(joined, columns))
    at, replaces = named.positions, named.replaces
    place = _of(shelf.category, at) + np.repeat(np.arange(len(asked)) * shelf.categories, sizes)
    willing = joined([told.here.scene.past.willing for told in asked])
    below = willing[place] * (at >= 0) if len(willing) else np.zeros(len(at))
    if (up := replaces >= 0).any():
        below[up] = tier[replaces[up]]
    own = own_features(
        joined([told.features for told in asked]),
        FEATURES,
        chance=joined([told.chance for told in asked]),
        kinds=named.kinds,
        groups=_GROUPS[named.sources],
        price=_of(price, at),
        margin=named.margin,
        tier_step=_of(tier, at) - below,
        seen=_of(tables.rankings.orders, at),
        offers=named.sketch,
        crosses=_crosses(asked),
    )
    return parted(own, sizes)


def _crosses(asked: Sequence[_Case]) -> Floats | None:
    """Offers' attributes with what their requests say; None where none says anything."""
    if not any(told.where.sketch.any() for told in asked):
        return None
    return joined([crossed(told.named.sketch, told.where.sketch) for told in asked])


def _of(values: NDArray[Any], at: Positions) -> NDArray[Any]:
    """``values`` at positions ``at``; 0 where there is no product."""
    named = at >= 0
    if named.all():
        return values[at]
    found = np.zeros(len(at), dtype=values.dtype)
    found[named] = values[at[named]]
    return found


def _shared(asked: Sequence[tuple[Situation, Where]]) -> list[Floats]:
    features = shared_features(
        [
            Told(
                channel=where.channel,
                placement=where.placement.placement_id,
                at=here.now,
                context=where.sketch,
                orders=float(here.scene.past.bought.sum()),
                on_page=here.page is not None,
                basket=len(here.basket),
            )
            for here, where in asked
        ]
    )
    return list(features)


def _chances(asked: Sequence[tuple[Scene, Positions, int]]) -> list[tuple[Floats, Floats]]:
    """P(choice) among products' own offers, which come first; of an authored offer on the same scale.

    Asked of scenes, positions and how many own offers; the features come along.
    """
    products = features_of([(scene, positions[positions >= 0]) for scene, positions, _ in asked])
    chances = []
    for (scene, positions, own_offers), features in zip(asked, products, strict=True):
        named = positions >= 0
        if len(features) < len(positions):
            known, features = features, np.zeros((len(positions), len(FEATURES)))
            features[named] = known
        utility = scene.tables.learned.choice.utilities(features)
        if not own_offers:
            chances.append((np.full(len(positions), CONTENT_CHANCE), features))
            continue
        top = utility[:own_offers].max()
        odds = np.exp(np.minimum(utility - top, 0.0))
        chance = odds / odds[:own_offers].sum()
        chance[~named] = CONTENT_CHANCE
        chances.append((chance, features))
    return chances


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
