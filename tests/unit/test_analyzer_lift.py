"""Lift: what counts for whom, how sure the difference is, and that no order of facts matters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_event import AboutCustomer, Decision, IdentityLinked, Touchpoint
from libs.common.contracts.identity import is_anonymous, partition_of
from services.analyzer.model.facts import KINDS, FactRow, SoldLine, fact_row
from services.analyzer.model.interval import Stratum, compare, student
from services.analyzer.model.lift import MOST_KEYS, SMALL, LiftRow, LiftTally
from services.analyzer.model.margins import MICROS, Margins

T0 = 1_790_000_000_000


def base(customer: str, at: int, id_: str) -> dict[str, Any]:
    return {"id": id_, "source": "shop", "customer": customer, "occurred_at": at, "recorded_at": at}


def decided(customer: str, group: str, at: int = T0, placement: str = "home", **more: Any) -> Decision:
    return Decision(
        **base(customer, at, f"d-{at}-{placement}"),
        placement=placement,
        channel="web",
        group=group,
        policy_version="p",
        model_version=1,
        catalogue_version=1,
        seed=1,
        objective="uplift",
        **more,
    )


def sold(
    customer: str,
    at: int,
    *lines: tuple[str, float, float | None],
    id_: str = "",
    type_: str = "order_completed",
    **more: Any,
) -> Touchpoint:
    order_id = id_ or f"o-{at}"
    products = [{"product_id": p, "quantity": q, "price": price} for p, q, price in lines]
    return Touchpoint(
        **base(customer, at, f"{type_}-{at}-{order_id}"),
        type=type_,
        channel="web",
        properties={"order_id": order_id, "products": products},
        **more,
    )


def owned(visitor: str, customer: str, at: int = T0) -> IdentityLinked:
    return IdentityLinked(
        **base(f"anon:{visitor}", at, f"l-{visitor}"),
        customer_id=customer,
        anonymous_id=visitor,
        internal=True,
    )


def product(id_: str, price: float, **more: Any) -> Product:
    return Product(product_id=id_, name=id_, category="c", price=price, currency="EUR", **more)


def margins() -> Margins:
    known = Margins()
    known.put("coffee", product("coffee", 10.0, margin=4.0))
    known.put("tea", product("tea", 5.0, cost=4.0))
    known.put("cup", product("cup", 8.0))
    known.put("gift", product("gift", 0.0, cost=2.0))
    return known


def facts(*events: AboutCustomer) -> list[FactRow]:
    """The facts of ``events``, in the order in which a store gives them."""
    rows = [fact_row(partition_of(event.customer), n, event) for n, event in enumerate(events, 1)]
    return sorted((row for row in rows if row is not None), key=lambda row: (KINDS.index(row.kind), row))


def tally(*events: AboutCustomer) -> LiftTally:
    counted = LiftTally(margins())
    counted.take(facts(*events))
    return counted


def row(*events: AboutCustomer, against: str = "none", placement: str = "home") -> LiftRow:
    rows = tally(*events).result(placement, 0.95).rows
    return next(each for each in rows if each.against == against)


@pytest.mark.parametrize(
    ("line", "earned"),
    [
        (SoldLine("coffee", 2.0, 10.0), 8.0),
        (SoldLine("coffee", 1.0, 5.0), 2.0),
        (SoldLine("coffee", 3.0, None), 12.0),
        (SoldLine("tea", 1.0, 5.0), 1.0),
        (SoldLine("cup", 1.0, 8.0), 2.4),
        (SoldLine("gift", 2.0, 0.0), -4.0),
        (SoldLine("never-heard-of", 2.0, 10.0), 6.0),
        (SoldLine("never-heard-of", 2.0, None), 0.0),
        (SoldLine("coffee", 1.0, 0.0), 0.0),
        (SoldLine("coffee", 1e6, 1e15), 4e20),
    ],
)
def test_line_earns_its_share_of_what_was_paid(line: SoldLine, earned: float) -> None:
    assert margins().of([line]) / MICROS == pytest.approx(earned, rel=1e-12)


def test_withdrawn_product_earns_what_unknown_ones_do() -> None:
    known = margins()
    known.put("coffee", None)
    assert known.of([SoldLine("coffee", 1.0, 10.0)]) == 3 * MICROS
    assert not known.knows("coffee")


def test_margin_counts_from_the_first_decision_on_in_all_groups() -> None:
    told = row(
        sold("t", T0 - 1, ("coffee", 1, 10.0)),
        decided("t", "treatment"),
        decided("t", "treatment", T0 + DAY),
        sold("t", T0, ("coffee", 1, 10.0)),
        sold("t", T0 + 5, ("tea", 1, 5.0), ("unheard", 1, 10.0)),
        decided("n", "none"),
        sold("n", T0 + 9, ("coffee", 1, 10.0)),
        sold("nobody-asked-for-him", T0 + 9, ("coffee", 1, 10.0)),
    )
    assert (told.treatment.customers, told.treatment.mean) == (1, 8.0)
    assert (told.control.customers, told.control.mean) == (1, 4.0)
    assert (told.difference, told.interval, told.level) == (4.0, None, 0.95)


def test_each_placement_has_a_row_against_each_control_and_its_own_beginning() -> None:
    counted = tally(
        decided("t", "treatment"),
        decided("t", "treatment", T0 + DAY, "basket"),
        decided("b", "baseline", T0, "basket"),
        sold("t", T0 + 5, ("coffee", 1, 10.0)),
        sold("t", T0 + 2 * DAY, ("coffee", 1, 10.0), ("x", 1, None)),
    )
    told = counted.result(None, 0.9)
    assert [(r.placement, r.against, r.treatment.mean, r.control.customers) for r in told.rows] == [
        ("basket", "none", 4.0, 0),
        ("basket", "baseline", 4.0, 1),
        ("home", "none", 8.0, 0),
        ("home", "baseline", 8.0, 0),
    ]
    assert told.rows[0].control.mean is told.rows[0].difference is None
    assert told.rows[1].difference == 4.0
    assert (told.lines.counted, told.lines.assumed, told.lines.unpriced) == (3, 1, 1)
    assert counted.result("nowhere", 0.95).rows == []


def test_forced_groups_replays_and_answers_about_nobody_are_left_out() -> None:
    assert (
        not tally(
            decided("f", "treatment", forced=True),
            decided("r", "treatment", replay=True),
            decided("event:d-1", "treatment"),
            sold("f", T0 + 1, ("coffee", 1, 10.0)),
        )
        .result(None, 0.95)
        .rows
    )


def test_orders_that_teach_nothing_and_echoes_do_not_count() -> None:
    told = row(
        decided("t", "treatment"),
        sold("t", T0 + 1, ("coffee", 1, 10.0), learn=False),
        sold("t", T0 + 2, ("coffee", 1, 10.0), echo=True),
    )
    assert told.treatment.mean == 0.0


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ([("order_cancelled", "o", [])], 0.0),
        ([("order_returned", "o", [("coffee", 1, None)])], 10.0),
        ([("order_returned", "o", [("coffee", n, None)]) for n in (2, 9)], 2.0),
        ([("order_returned", "o", [("tea", 1, 5.0)]), ("order_cancelled", "o", [])], 0.0),
        ([("order_returned", "other", [])], 14.0),
        ([("order_returned", "o", [("cup", 1, 8.0)])], 14.0),
    ],
)
def test_what_comes_back_takes_its_margin_back_and_no_more(changes: list[Any], left: float) -> None:
    told = row(
        decided("t", "treatment"),
        sold("t", T0 + 5, ("coffee", 2, 10.0), ("tea", 2, 5.0), ("coffee", 1, 10.0), id_="o"),
        *(
            sold("t", T0 + DAY + n, *lines, id_=order, type_=type_)
            for n, (type_, order, lines) in enumerate(changes)
        ),
    )
    assert told.treatment.mean == left


def test_return_of_an_order_from_before_takes_nothing() -> None:
    told = row(
        sold("t", T0 - 5, ("coffee", 2, 10.0), id_="o"),
        decided("t", "treatment"),
        sold("t", T0 + 5, ("tea", 1, 5.0)),
        sold("t", T0 + DAY, id_="o", type_="order_returned"),
    )
    assert told.treatment.mean == 1.0


def test_visitor_and_customer_are_one_by_their_link() -> None:
    told = row(
        decided("anon:v", "treatment"),
        decided("c", "treatment", T0 + 10),
        owned("v", "c", T0 + 20),
        owned("v", "thief", T0 + 30),
        sold("anon:v", T0 + 5, ("coffee", 1, 10.0)),
        sold("c", T0 + 6, ("coffee", 1, 10.0), id_="o"),
        sold("thief", T0 + 7, ("coffee", 100, 10.0)),
        sold("anon:v", T0 + 8, ("coffee", 1, 10.0), id_="o", type_="order_returned"),
    )
    assert (told.treatment.customers, told.treatment.mean) == (1, 4.0)


def test_who_is_in_several_groups_is_reported_apart() -> None:
    told = row(
        decided("anon:v", "none", T0, "elsewhere"),
        decided("c", "treatment"),
        owned("v", "c"),
        sold("c", T0 + 5, ("coffee", 1, 10.0)),
        decided("t", "treatment"),
        decided("n", "none"),
    )
    assert (told.treatment.customers, told.control.customers) == (1, 1)
    assert (told.mixed.customers, told.mixed.mean) == (1, 4.0)


def shop(seed: int, people: int, none: float, share_linked: float) -> list[AboutCustomer]:
    """A shop where offers do nothing, and whoever has two keys buys ten times as much."""
    draw = random.Random(seed)
    events: list[AboutCustomer] = []
    for n in range(people):
        keys = [f"c{n}"] + ([f"anon:v{n}"] if draw.random() < share_linked else [])
        for key in keys:
            events.append(decided(key, "none" if draw.random() < none else "treatment", T0 + n))
            if is_anonymous(key):
                events.append(owned(f"v{n}", f"c{n}"))
        bought = draw.expovariate(1.0) * (10.0 if len(keys) > 1 else 1.0)
        events.append(sold(f"c{n}", T0 + DAY + n, ("unheard", 1, bought / 0.3)))
    return events


def test_persons_are_compared_with_persons_of_as_many_keys() -> None:
    """Only one in six of those with two keys stays in the control group, and two of three in treatment."""
    told = row(*shop(5, 4_000, 0.2, 0.5))
    assert told.mixed.customers == pytest.approx(4_000 * 0.5 * 0.32, rel=0.15)
    assert told.interval is not None
    assert told.interval[0] < 0.0 < told.interval[1]
    assert told.interval[1] - told.interval[0] < 4.0
    assert told.uncompared == 0
    # One mean against the other, and doing nothing would have been worth two thirds of a customer.
    alone = row(*shop(5, 4_000, 0.2, 0.0))
    assert alone.control.mean == pytest.approx(1.0, rel=0.2)


def test_persons_without_their_like_in_the_other_group_are_left_out_and_counted() -> None:
    told = row(*shop(6, 3_000, 0.05, 0.3))
    assert told.treatment.customers > 2_000
    assert told.uncompared == pytest.approx(3_000 * 0.3 * 0.9, rel=0.15)
    assert told.treatment.mean == pytest.approx(1.0, rel=0.15)
    assert told.interval is not None
    assert told.interval[0] < 0.0 < told.interval[1]


def test_no_interval_while_a_group_is_small() -> None:
    def arms(treated: int, held_out: int) -> LiftRow:
        events: list[AboutCustomer] = []
        for n in range(treated + held_out):
            events.append(decided(f"c{n}", "treatment" if n < treated else "none"))
            events.append(sold(f"c{n}", T0 + 1 + n, ("coffee", 1 + n % 3, 10.0)))
        return row(*events)

    assert arms(100, SMALL - 1).interval is None
    assert arms(SMALL - 1, 100).interval is None
    told = arms(100, SMALL)
    assert told.interval is not None
    assert told.interval[0] < (told.difference or 0.0) < told.interval[1]


def test_neither_order_nor_cuts_change_a_bit() -> None:
    events = [
        *shop(7, 300, 0.3, 0.4),
        *(sold(f"c{n}", T0 + 2 * DAY + n, ("coffee", 0.1, 9.99), ("tea", 0.7, 3.1)) for n in range(300)),
    ]
    expected = tally(*events).result(None, 0.95)
    rows = facts(*events)
    for seed in range(3):
        shuffled = random.Random(seed)
        counted = LiftTally(margins())
        for kind in KINDS:
            some = [each for each in rows if each.kind == kind]
            shuffled.shuffle(some)
            while some:
                cut = shuffled.randrange(1, 50)
                counted.take(some[:cut])
                del some[:cut]
        assert counted.result(None, 0.95) == expected


def test_many_keys_are_one_stratum() -> None:
    events: list[AboutCustomer] = []
    for n, group in enumerate(["treatment"] * SMALL + ["none"] * SMALL):
        keys = MOST_KEYS + n % 3
        events += [decided(f"anon:v{n}-{k}", group) for k in range(keys)]
        events += [owned(f"v{n}-{k}", f"c{n}") for k in range(keys)]
        events.append(sold(f"c{n}", T0 + 1 + n, ("coffee", 1 + n % 2, 10.0)))
    told = row(*events)
    assert (told.treatment.customers, told.control.customers, told.uncompared) == (SMALL, SMALL, 0)
    assert told.interval is not None


@pytest.mark.parametrize(
    ("share", "freedom", "quantile"),
    [(0.975, 29, 2.04523), (0.995, 29, 2.756386), (0.95, 100, 1.660234), (0.9995, 29, 3.659405)],
)
def test_quantiles_of_student(share: float, freedom: float, quantile: float) -> None:
    assert student(share, freedom) == pytest.approx(quantile, abs=1e-3)
    assert student(1.0 - share, freedom) == pytest.approx(-quantile, abs=1e-3)


def spent(draw: np.random.Generator, people: int, more: float = 0.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A third buys, and some of them very much: mean 3.65 + ``more``, standard deviation 11."""
    bought = draw.random(people) < 0.3
    return np.where(bought, draw.lognormal(2.0, 1.0, people), 0.0) + more


@pytest.mark.parametrize(("treated", "held_out"), [(900, 50), (400, 400), (5_000, SMALL)])
def test_interval_covers_the_truth_in_at_least_99_of_100_worlds(treated: int, held_out: int) -> None:
    draw = np.random.default_rng(11)
    worlds, covered, seen = 400, 0, 0
    for _ in range(worlds):
        told = compare([Stratum(1.0, spent(draw, treated, 4.0), spent(draw, held_out))], 0.99)
        assert told.interval is not None
        covered += told.interval[0] <= 4.0 <= told.interval[1]
        seen += told.interval[0] > 0.0
    assert covered >= 0.985 * worlds
    if held_out == 400:
        assert seen > 0.95 * worlds


def test_strata_add_up_by_their_weights() -> None:
    draw = np.random.default_rng(5)
    few, many = draw.normal(1.0, 1.0, 500), draw.normal(10.0, 1.0, 500)
    parts: Sequence[Stratum] = [Stratum(0.75, few + 2.0, few), Stratum(0.25, many + 6.0, many)]
    told = compare(parts, 0.95)
    assert told.treatment - told.control == pytest.approx(0.75 * 2.0 + 0.25 * 6.0)
    assert told.interval is not None
    # Of two means of 500 each: a little over 2 standard errors to either side.
    width = told.interval[1] - told.interval[0]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(2 / 500 * (0.75**2 + 0.25**2)), rel=0.06)


def test_what_does_not_vary_has_no_interval() -> None:
    assert compare([Stratum(1.0, np.zeros(50), np.zeros(40))], 0.95).interval is None


def test_huge_amounts_stay_finite() -> None:
    amounts = np.array([1e20, *[0.0] * 60])
    told = compare([Stratum(1.0, amounts, amounts[1:])], 0.95)
    assert told.interval is not None
    assert np.isfinite(told.interval).all()
