"""The market's truth, computed two ways, and what its customers do."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.local.market.shoppers import Shoppers, Showings
from deploy.local.market.world import EXAMINED, TIERS, Size, World, product_id, product_of

SIZE = Size(customers=120, history=2, days=8)


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(SIZE, seed=3)


def one_each(world: World, day: int, best: int = 0) -> Showings:
    """Every customer is shown one product in the first slot: the one that is ``best`` + 1st for him."""
    product = (-world.incremental(day)).argsort(axis=1)[:, best]
    customers = np.arange(world.size.customers)
    return Showings(customers, product, np.zeros_like(customers))


def test_same_seed_same_world_and_another_seed_another(world: World) -> None:
    again, other = World.make(SIZE, seed=3), World.make(SIZE, seed=4)
    for name in ("price", "rate", "taste", "visits", "anyway"):
        assert np.array_equal(getattr(world, name), getattr(again, name))
    assert not np.array_equal(world.anyway, other.anyway)


def test_true_uplift_is_what_worlds_with_and_without_the_showing_differ_by(world: World) -> None:
    """The formula against many worlds played out twice: with the showing, and without."""
    day = SIZE.history
    showings = one_each(world, day)
    stated = world.incremental(day)[showings.customer, showings.product].sum()
    played = []
    for luck in range(200):
        shoppers = Shoppers(world)
        shoppers._draw = lambda day, stream, luck=luck: np.random.default_rng([luck, stream, day])  # type: ignore[method-assign, misc]
        without = shoppers.margins().sum()
        shoppers.show(day, showings)
        played.append(float(shoppers.margins().sum() - without))
    error = np.std(played) / np.sqrt(len(played))
    assert stated > 20 * error
    assert abs(np.mean(played) - stated) < 3.5 * error


def test_effects_noted_are_what_was_expected_of_what_was_looked_at(world: World) -> None:
    day = SIZE.history
    shoppers, showings = Shoppers(world), one_each(world, day)
    stated = world.incremental(day)[showings.customer, showings.product]
    assert shoppers.show(day, showings).examined.all()
    assert shoppers.effect == pytest.approx(stated)


def test_slots_are_looked_at_as_often_as_said(world: World) -> None:
    customers = np.tile(np.arange(SIZE.customers), 3 * 40)
    slot = np.repeat(np.arange(3), SIZE.customers * 40)
    shown = Showings(customers, np.zeros_like(customers), slot)
    examined = Shoppers(world).show(SIZE.history, shown).examined
    share = np.bincount(slot, examined) / np.bincount(slot)
    assert share == pytest.approx(EXAMINED, abs=0.03)


def test_who_was_sold_something_needs_no_other_and_what_it_replaces_is_not_bought(world: World) -> None:
    shoppers = Shoppers(world)
    customer, product = map(int, np.argwhere(world.regular)[0])
    usual = world.group == world.group[product]
    shoppers._buy(customer, product, SIZE.history)
    assert shoppers.bought[SIZE.history, customer, product]
    later = shoppers.bought[SIZE.history + 1 : SIZE.history + 4, customer][:, usual]
    assert not later.any()
    assert shoppers.worth(SIZE.history + 1)[customer, product] == 0.0


def test_nobody_buys_beyond_his_limit_because_of_an_offer_nor_what_is_not_sold(world: World) -> None:
    chance = world.caused(SIZE.history)
    beyond = world.tier > world.limit[:, world.category]
    assert not chance[beyond].any()
    assert (chance[~beyond & world.sold(SIZE.history)] > 0).any()
    assert not chance[:, ~world.sold(SIZE.history)].any()
    assert not world.anyway[SIZE.last - 1][:, ~world.sold(SIZE.last - 1)].any()
    assert not world.anyway[~world.visits].any()


def test_offers_come_and_go_and_tastes_move_at_half_time(world: World) -> None:
    first, last = world.sold(0), world.sold(SIZE.last - 1)
    assert (first & ~last).any()
    assert (last & ~first).any()
    before, after = world.caused(SIZE.drift - 1), world.caused(SIZE.drift)
    both = world.sold(SIZE.drift - 1) & world.sold(SIZE.drift)
    assert np.corrcoef(before[:, both].ravel(), after[:, both].ravel())[0, 1] < 0.5


def test_what_one_is_shown_changes_nobody_elses_luck(world: World) -> None:
    """Of two plays that differ in one customer's slate the others' purchases are the same."""
    one, other = Shoppers(world), Shoppers(world)
    day = SIZE.history
    shown = one_each(world, day)
    one.show(day, shown)
    another = shown.product.copy()
    another[0] = (another[0] + 1) % world.products
    other.show(day, shown._replace(product=another))
    assert np.array_equal(one.bought[:, 1:], other.bought[:, 1:])


def test_catalogue_tells_nothing_of_the_truth(world: World) -> None:
    entry = world.entry(5)
    assert product_of(entry["product_id"]) == 5
    assert entry["product_id"] == product_id(5)
    assert set(entry) == {
        "product_id",
        "name",
        "category",
        "price",
        "margin",
        "currency",
        "comparable_group",
    }
    groups = {world.entry(product)["comparable_group"] for product in range(len(TIERS))}
    assert len(groups) == 1
