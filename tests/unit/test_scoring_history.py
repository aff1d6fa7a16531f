"""Histories kept between requests: the same numbers as made anew, and never of other items or tables."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_model import Decayed, Item
from libs.common.contracts.learned_model import Neighbour
from libs.common.scoring import history
from libs.common.scoring.comparables import Comparables
from libs.common.scoring.history import Histories, History, Traces
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


def assert_fresh(kept: History, on: ScoringTables, items: dict[str, Item], at: int) -> None:
    fresh = History.of(on, Traces.of(on, items), at)
    for part in dataclasses.fields(History):
        if part.name not in ("traces", "at"):
            assert np.array_equal(getattr(kept, part.name), getattr(fresh, part.name)), part.name


def test_the_same_question_again_gets_the_same_history() -> None:
    kept, on = Histories(10), tables()
    first = kept.of("a", on, BREAD, NOW)
    assert kept.of("a", on, BREAD, NOW) is first
    assert_fresh(first, on, BREAD, NOW)


def test_a_later_moment_and_another_customer_get_their_own() -> None:
    kept, on = Histories(10), tables()
    kept.of("a", on, BREAD, NOW)
    assert_fresh(kept.of("a", on, BREAD, NOW + 90 * DAY), on, BREAD, NOW + 90 * DAY)
    assert_fresh(kept.of("b", on, JAM, NOW), on, JAM, NOW)


def test_a_changed_model_is_read_anew() -> None:
    kept, on = Histories(10), tables()
    kept.of("a", on, BREAD, NOW)
    assert_fresh(kept.of("a", on, JAM, NOW), on, JAM, NOW)


def test_new_complements_and_a_new_shelf_count_at_once() -> None:
    kept, on = Histories(10), tables()
    kept.of("a", on, BREAD, NOW)
    learned = tables(weight=0.25)
    assert_fresh(kept.of("a", learned, BREAD, NOW), learned, BREAD, NOW)
    shorter = ScoringTables.align(Shelf(learned.shelf.products[1:]), learned.learned)
    assert_fresh(kept.of("a", shorter, BREAD, NOW), shorter, BREAD, NOW)


def test_nobody_has_an_empty_history_on_every_shelf() -> None:
    kept, on = Histories(10), tables()
    assert_fresh(kept.of("x", on, {}, NOW), on, {}, NOW)
    empty = ScoringTables.align(Shelf(()), LearnedModels())
    assert_fresh(kept.of("y", empty, {}, NOW), empty, {}, NOW)


def test_no_more_is_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_HELD", 2 * (7 * 3 + 1))
    kept, on = Histories(3), tables()
    for number in range(10):
        kept.of(f"c{number}", on, BREAD, NOW)
    assert len(kept._traces) == 3
    assert len(kept._histories) == 2
    assert kept.of("c9", on, BREAD, NOW) is kept.of("c9", on, BREAD, NOW)


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
