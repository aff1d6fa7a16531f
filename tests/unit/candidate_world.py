"""A catalogue with learned models that is asked for candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from libs.common.clock import DAY
from libs.common.contracts.catalogue import KINDS, Offer, Placement, Product, Withdrawn
from libs.common.contracts.customer_model import Decayed, Item
from libs.common.contracts.learned_model import Neighbour, Popular
from libs.common.scoring.learned import LearnedModels, complements_of, popularity_of
from libs.common.scoring.sources.union import SOURCES
from services.recommender.candidates.explain import explainers
from services.recommender.candidates.gather import Where, gather
from services.recommender.candidates.places import MOST
from services.recommender.candidates.pool import Pool
from services.recommender.model.assortment import Assortment
from services.recommender.model.situation import situation
from services.recommender.model.steps import side_by_side
from services.recommender.model.tables import TableMaker

NOW = 1_800_000_000_000


def product(product_id: str, **more: Any) -> Product:
    fields: dict[str, Any] = {"name": product_id.title(), "category": "food", "price": 2.0, "currency": "EUR"}
    return Product(product_id=product_id, **(fields | more))


def bought(times: int = 3, weight: float = 2.0) -> Item:
    return Item(
        orders=times, bought=Decayed(weight, NOW - DAY), last_bought_at=NOW - DAY, cycle=14.0 * DAY, price=2.0
    )


class Market:
    """A catalogue with learned models, asked for candidates."""

    def __init__(self, *products: Product) -> None:
        self.assortment = Assortment()
        self.learned = LearnedModels()
        self.revision = 0
        for one in products:
            self.put("product", one.product_id, one)
        self.tables = TableMaker(self.assortment, lambda: self.learned, lambda: 0.0)

    def put(self, kind: str, entry_id: str, entry: Product | Offer | Placement | Withdrawn) -> None:
        self.revision += 1
        self.assortment.put(kind, entry_id, entry, self.revision)

    def learn(self, popular: dict[str, float], pairs: dict[str, dict[str, float]]) -> None:
        self.learned = LearnedModels(
            version=self.learned.version + 1,
            popularity=popularity_of(Popular(p, 100 * share, share, 10) for p, share in popular.items()),
            complements=complements_of(
                {
                    p: [Neighbour(q, weight, 100 * weight, 2.0) for q, weight in others.items()]
                    for p, others in pairs.items()
                }
            ),
        )

    def pool(
        self,
        items: dict[str, Item] | None = None,
        *,
        page: str | None = None,
        basket: Sequence[str] = (),
        exclude: Sequence[str] = (),
        kinds: Sequence[str] | None = None,
        limit: int = MOST,
        also: Sequence[str] = (),
        now: int = NOW,
        placement: Placement | None = None,
    ) -> Pool:
        tables = self.tables.now()
        here = situation(self.assortment, tables.scoring, items or {}, now, page, basket, exclude)
        place = placement or Placement(placement_id="p")
        [pool] = side_by_side([gather(here, tables, Where(place, "web", {}, limit, kinds, also))])
        assert isinstance(pool, Pool)
        return pool


def kinds_of(pool: Pool) -> dict[str, str]:
    return {offer: KINDS[kind] for offer, kind in zip(pool.offer_ids, pool.kinds.tolist(), strict=True)}


def source_of(pool: Pool, offer_id: str) -> str:
    return SOURCES[pool.sources[pool.offer_ids.index(offer_id)]]


def explained(pool: Pool, at: int) -> list[str]:
    [one] = pool.chosen([at])
    [explainer] = explainers([(pool, [one])])
    return explainer.reasons(one)
