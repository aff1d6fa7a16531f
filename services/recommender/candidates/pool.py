"""The candidates that go on to the policy, as arrays, and those it chose, in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS, Kind, Objective, Offer
from libs.common.scoring.sources.union import SOURCES
from services.recommender.model.authored import NO_PRODUCT
from services.recommender.model.situation import Floats, Positions, Situation
from services.recommender.model.value import Worth

Singles = NDArray[np.float32]


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
    mean: float
    chance: float
    cell: int
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
    offer_ids:
        The offer id of each, unique among them.
    replaces:
        Position of the product an up-sell replaces, −1 for others.
    cells:
        Number of kind × category × price tier.
    chance, mean, score:
        P(choice); q, the probability that it is taken up when shown; expected incremental margin.
    worth, objective:
        How q becomes a value, and which one candidates are ranked by.
    features:
        Array (m, `libs.common.scoring.choice.FEATURES`).
    own, shared:
        What the response model is asked with: arrays (m, `RESPONSE_FEATURES`) and (`SHARED_FEATURES`,).
    draws:
        Array (n, m): q in posterior draws; None where nothing is drawn.
    """

    here: Situation
    positions: Positions
    offers: list[Offer | None]
    offer_ids: Sequence[str]
    kinds: NDArray[np.int8]
    sources: NDArray[np.int8]
    replaces: Positions
    cells: Positions
    chance: Floats
    mean: Floats
    score: Floats
    worth: Worth
    objective: Objective
    features: Floats
    own: Floats
    shared: Floats
    draws: Singles | None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def by(self) -> Floats:
        """What candidates are ranked by, at the posterior mean."""
        return self.score if self.objective == "uplift" else self.worth.ranked_by(self.objective, self.mean)

    @property
    def variance(self) -> Singles:
        """Array (m,): how far q differs between posterior draws."""
        assert self.draws is not None
        of_each = self.draws.T
        # Without the detours of `mean`.
        apart = of_each - (np.add.reduce(of_each, axis=1) / of_each.shape[1])[:, None]
        variance: Singles = np.einsum("ij,ij->i", apart, apart) / apart.shape[1]
        return variance

    def worlds(self) -> Singles:
        """Array (n, m): what candidates are ranked by, in posterior draws."""
        assert self.draws is not None
        return self.worth.ranked_by(self.objective, self.draws)

    @cached_property
    def contributions(self) -> Floats:
        """Array (m, `FEATURES`): what speaks for a choice of each, in log odds against the pool's mean."""
        return self.here.tables.learned.choice.contributions(self.features)

    def speaks(self, chosen: Sequence[Chosen]) -> list[list[float]]:
        """`contributions` of the ``chosen``."""
        rows: list[list[float]] = self.contributions[[one.at for one in chosen]].tolist()
        return rows

    @cached_property
    def product_ids(self) -> list[str | None]:
        """The product of each candidate, None for content."""
        ids = self.here.tables.shelf.ids
        return [ids[at] if at != NO_PRODUCT else None for at in self.positions.tolist()]

    def alike(self, at: int) -> list[int]:
        """All candidates that offer the same product as the one at ``at``."""
        found: list[int] = (self.positions == self.positions[at]).nonzero()[0].tolist()
        return found

    def chosen(self, places: Sequence[int]) -> list[Chosen]:
        """The candidates at ``places``; arrays are read once for all of them."""
        if not places:
            return []
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
            self.mean[some].tolist(),
            self.chance[some].tolist(),
            self.cells[some].tolist(),
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
                mean=mean,
                chance=chance,
                cell=cell,
                replaces=replaces,
                offer=self.offers[at],
            )
            for at, position, kind, source, price, score, mean, chance, cell, replaces in columns
        ]


def offer_ids(here: Situation, offers: Sequence[Offer | None], positions: Positions) -> list[str]:
    """The offer id of each candidate."""
    own = here.assortment.offer_ids
    return [
        own[at] if offer is None else offer.offer_id
        for offer, at in zip(offers, positions.tolist(), strict=True)
    ]
