"""Lift on PostgreSQL: exactly what a plain count of the events says, after a rebuild and an erasure too."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import pytest

from libs.common.clock import DAY
from libs.common.contracts.customer_event import (
    AboutCustomer,
    Decision,
    Erasure,
    IdentityLinked,
    Touchpoint,
)
from services.analyzer.handlers.insights import Insights
from services.analyzer.model.lift import LiftView
from services.analyzer.model.margins import Margins
from services.analyzer.rebuild.run import rebuild
from services.analyzer.store.reading import PostgresReadStore
from tests.integration.rebuild_world import Live
from tests.unit.test_analyzer_lift import T0, base, decided, margins, owned, sold

pytestmark = pytest.mark.embedded

SHARES = {"coffee": 0.4, "tea": 0.2, "cup": 0.3}
"""What `margins` says, by hand."""


def world(seed: int) -> list[AboutCustomer]:
    """110 customers, a third with a visitor key; decisions, orders before and after, returns."""
    draw = random.Random(seed)
    events: list[AboutCustomer] = []
    for n in range(110):
        keys = [f"c{n}"] + ([f"anon:v{n}"] if n % 3 == 0 else [])
        for key in keys:
            group = draw.choice(("treatment", "none", "baseline"))
            for placement in draw.sample(("home", "basket"), draw.choice((1, 2))):
                for _ in range(draw.randrange(1, 4)):
                    at = T0 + draw.randrange(10 * DAY)
                    events.append(decided(key, group, at, placement, forced=draw.random() < 0.1))
            if key.startswith("anon:"):
                events.append(owned(f"v{n}", f"c{n}", T0 + 11 * DAY))
        for k in range(draw.randrange(5)):
            at, order, key = T0 + draw.randrange(20 * DAY), f"o{n}-{k}", draw.choice(keys)
            lines = [
                (draw.choice(("coffee", "tea", "cup", "unheard")), float(draw.randrange(1, 4)), 2.5)
                for _ in range(draw.randrange(1, 5))
            ]
            events.append(sold(key, at, *lines, id_=order))
            if draw.random() < 0.3:
                some = [] if draw.random() < 0.5 else [(lines[0][0], 1.0, None)]
                type_ = draw.choice(("order_cancelled", "order_returned"))
                events.append(sold(keys[0], at + DAY, *some, id_=order, type_=type_))
    draw.shuffle(events)
    return events


def truth(events: Sequence[AboutCustomer]) -> dict[tuple[str, str], list[float]]:
    """Margins by (placement, group), and under the group ``mixed``: counted event by event, as told."""
    owner = {e.customer: e.customer_id for e in events if isinstance(e, IdentityLinked)}
    first: dict[tuple[str, str], int] = {}
    groups: dict[str, set[str]] = defaultdict(set)
    for e in events:
        if isinstance(e, Decision) and not e.forced:
            who = owner.get(e.customer, e.customer)
            groups[who].add(e.group)
            first[who, e.placement] = min(e.occurred_at, first.get((who, e.placement), e.occurred_at))
    told: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (who, placement), since in first.items():
        total = 0.0
        for e in events:
            if not isinstance(e, Touchpoint) or owner.get(e.customer, e.customer) != who:
                continue
            if e.type == "order_completed" and e.occurred_at >= since:
                total += kept(e, events)
        group = next(iter(groups[who])) if len(groups[who]) == 1 else "mixed"
        told[placement, group].append(total)
    return told


def kept(order: Touchpoint, events: Sequence[AboutCustomer]) -> float:
    """What an order earned that nobody sent back; order ids are unique here."""
    back: dict[str, float] = defaultdict(float)
    for e in events:
        if not isinstance(e, Touchpoint) or e.type == "order_completed":
            continue
        if e.properties["order_id"] == order.properties["order_id"]:
            if not e.properties["products"]:
                return 0.0
            for line in e.properties["products"]:
                back[line["product_id"]] += line["quantity"]
    total = 0.0
    for line in order.properties["products"]:
        gone = min(line["quantity"], back[line["product_id"]])
        back[line["product_id"]] -= gone
        total += (line["quantity"] - gone) * line["price"] * SHARES.get(line["product_id"], 0.3)
    return total


async def counted(live: Live, known: Margins | None = None) -> LiftView:
    return await Insights(PostgresReadStore(live.database), known or margins()).lift(None, 0.95)


def check(seen: LiftView, events: Sequence[AboutCustomer]) -> None:
    expected = truth(events)
    assert [(row.placement, row.against) for row in seen.rows] == [
        (placement, against) for placement in ("basket", "home") for against in ("none", "baseline")
    ]
    for row in seen.rows:
        for told, group in ((row.treatment, "treatment"), (row.control, row.against), (row.mixed, "mixed")):
            amounts = expected[row.placement, group]
            assert told.customers == len(amounts) >= 5
            assert told.mean == pytest.approx(fmean(amounts), abs=1e-9)
        # Small groups, so that means are of everybody; in large ones like is compared with like.
        assert (row.interval, row.uncompared) == (None, 0)


async def test_lift_is_what_the_events_say(live: Live) -> None:
    events = world(3)
    await live.take(*events[:400])
    await live.take(*events[400:])
    seen = await counted(live)
    check(seen, events)
    assert seen == await counted(live)
    await rebuild(live.plan())
    assert await counted(live) == seen


async def test_lift_of_the_erased_is_gone(live: Live) -> None:
    events = world(4)
    await live.take(*events)
    gone = {"c0", "anon:v0", "c5", "anon:v9"}
    for key in ("c0", "c5", "anon:v9"):
        erasure = Erasure(**base(key, T0 + 30 * DAY, f"e-{key}"))
        await live.take(erasure)
    # What the analyzer's errands would put on the journal: the visitor of c0 is told.
    told = base("anon:v0", T0 + 30 * DAY, "e-c0/notice")
    notice = Erasure(**told, internal=True, linked="c0", owned=True, erasure="e-c0")
    await live.take(notice)
    left = [event for event in events if event.customer not in gone]
    check(await counted(live), left)
    await rebuild(live.plan())
    check(await counted(live), left)
