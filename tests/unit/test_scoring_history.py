"""Histories kept between requests: the same numbers as made anew, and never of other items or tables."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_model import Decayed, Item
from libs.common.contracts.learned_model import Neighbour
from libs.common.scoring.comparables import Comparables
from libs.common.scoring.history import Histories, History, Traces, histories_of
from libs.common.scoring.learned import LearnedModels, complements_of
from libs.common.scoring.shelf import ScoringTables, Shelf

NOW = 1_800_000_000_000
BREAD = {"bread": Item(orders=2, bought=Decayed(2.0, NOW), last_bought_at=NOW, cycle=7.0 * DAY)}
JAM = {"jam": Item(viewed=Decayed(1.0, NOW), last_viewed_at=NOW)}


def tables(weight: float = 0.5) -> ScoringTables:
    products = [
        Product(product_id=name, name=name, category="food", price=2.0, currency="EUR")
        for name in ("bread", "jam", "tea")
    ]
    pairs = complements_of({"bread": [Neighbour("jam", weight, 50.0, 2.0)]})
    return ScoringTables.align(Shelf(products), LearnedModels(complements=pairs))


def same(one: History, other: History) -> bool:
    numbers = [part.name for part in dataclasses.fields(History) if part.name not in ("traces", "at")]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in numbers)


def test_histories_made_at_once_are_those_made_alone() -> None:
    both = {**BREAD, **JAM, "gone": BREAD["bread"]}
    on = tables()
    asked = [
        (Traces.of(on, items), NOW + day * DAY) for day, items in enumerate((both, {}, JAM, BREAD, both))
    ]
    for made, (traces, at) in zip(histories_of(on, asked), asked, strict=True):
        assert made.at == at
        assert same(made, History.of(on, traces, at))
    empty = ScoringTables.align(Shelf(()), LearnedModels())
    [nothing] = histories_of(empty, [(Traces.of(empty, both), NOW)])
    assert nothing.numbers.shape == (5, 0)


def test_traces_are_kept_while_items_and_tables_are_the_same() -> None:
    kept, on = Histories(10), tables()
    first = kept.traces("a", on, BREAD)
    assert kept.traces("a", on, BREAD) is first
    assert kept.traces("b", on, JAM).items is JAM
    assert kept.traces("a", on, JAM).items is JAM
    learned = tables(weight=0.25)
    before = kept.traces("a", learned, JAM)
    shorter = ScoringTables.align(Shelf(learned.shelf.products[:1]), learned.learned)
    after = kept.traces("a", shorter, JAM)
    assert (before.positions.tolist(), after.positions.tolist()) == ([1], [])
    kept.drop(["a"])
    assert kept.traces("a", shorter, JAM) is not after


def test_no_more_is_kept_than_allowed() -> None:
    kept, on = Histories(3), tables()
    for number in range(10):
        kept.traces(f"c{number}", on, BREAD)
    kept.traces("nobody", on, {})
    assert list(kept._traces) == ["c7", "c8", "c9"]


def test_two_products_are_comparable_where_each_is_among_the_others_peers() -> None:
    def product(name: str, price: float, size: float | None, group: str | None) -> Product:
        return Product(
            product_id=name,
            name=name,
            category="food",
            price=price,
            currency="EUR",
            size=size,
            unit="g",
            comparable_group=group,
        )

    sizes = (None, 1.0, 1.9, 2.0, 4.1)
    shelf = [
        product(f"{price}/{size}/{group}", price, size, group)
        for price, size, group in itertools.product((1.0, 2.9, 3.1), sizes, (None, "g"))
    ]
    comparables = Comparables(shelf)
    for position, other in itertools.product(range(len(shelf)), repeat=2):
        peer = position == other or other in comparables.comparable_with(position)
        assert comparables.are(position, other) == peer
