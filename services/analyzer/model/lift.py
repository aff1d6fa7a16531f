"""Plain lift: what customers earned from their first decision at a placement on, group against group.

The customer is the unit: all keys of one person, put together by links. All his order lines count alike in
all groups, whatever was offered; what was cancelled or sent back is taken off again. Who refuses analytics
is in no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.model.facts import (
    Analysed,
    Decided,
    FactRow,
    Ordered,
    Owned,
    SoldLine,
    TakenBack,
    decode_fact,
)
from services.analyzer.model.interval import Amounts, Stratum, compare
from services.analyzer.model.margins import MICROS, Margins

SMALL = 30
"""A group of fewer customers is small: no interval is told."""

MOST_KEYS = 4
"""Persons with as many deciding keys, or more, are compared with each other."""

TREATMENT = "treatment"
CONTROLS = ("none", "baseline")


class GroupView(Struct, frozen=True):
    """``mean`` is margin per customer in the base currency; null where there is nobody."""

    customers: int
    mean: float | None


class LiftRow(Struct, frozen=True):
    """Treatment against one control group at one placement.

    ``interval`` holds the true difference of the means with probability ``level``; null while a group is
    small, below 30 customers. ``mixed`` are customers whose keys are in several groups: in neither group
    here, reported apart. ``uncompared`` of those in the groups are left out of means and interval, because
    the other group has hardly anybody with as many keys.
    """

    placement: str
    against: str
    treatment: GroupView
    control: GroupView
    difference: float | None
    interval: tuple[float, float] | None
    level: float
    mixed: GroupView
    uncompared: int


class LinesView(Struct, frozen=True):
    """Order lines that count somewhere: of how many the product, and of how many the price, is unknown."""

    counted: int
    assumed: int
    unpriced: int


class LiftView(Struct, frozen=True):
    """Lift of each placement that decided; ``lines`` says how well the margins are known."""

    rows: list[LiftRow]
    lines: LinesView


class _Standing:
    """A person at one placement: when he was first decided for, and his margin since, in millionths."""

    __slots__ = ("margin", "since")

    def __init__(self, since: Millis) -> None:
        self.since = since
        self.margin = 0


class _Person:
    __slots__ = ("groups", "keys", "standings")

    def __init__(self) -> None:
        self.groups: set[str] = set()
        self.keys: set[CustomerKey] = set()
        self.standings: dict[str, _Standing] = {}


class LiftTally:
    """Counts facts, taken in the order of their kinds, as `facts.KINDS` has it.

    Sums are whole numbers, so neither the order of rows nor where they are cut changes a bit.
    """

    def __init__(self, margins: Margins) -> None:
        self._margins = margins
        self._owners: dict[CustomerKey, CustomerKey] = {}
        self._people: dict[CustomerKey, _Person] = {}
        self._words: dict[tuple[CustomerKey, str | None], tuple[Millis, bool]] = {}
        self._refused: set[CustomerKey] | None = None
        self._taken_back: dict[tuple[CustomerKey, str], dict[str, float]] = {}
        self._whole: set[tuple[CustomerKey, str]] = set()
        self._counted = self._assumed = self._unpriced = 0

    def take(self, rows: Iterable[FactRow]) -> None:
        """Count some more."""
        for row in rows:
            who = self._owners.get(row.customer, row.customer)
            person = self._people.get(who)
            if person is None and row.kind in ("taken_back", "ordered"):
                # Nothing was ever decided for him.
                continue
            fact = decode_fact(row.body)
            if isinstance(fact, Analysed):
                self._hear(row, fact)
            elif isinstance(fact, Ordered):
                self._order(who, row.at, fact)
            elif isinstance(fact, TakenBack):
                self._take_back(who, fact)
            elif isinstance(fact, Decided):
                if who not in self._refusing():
                    self._decide(who, row, fact)
            elif isinstance(fact, Owned):
                # The first owner stays: what a shared device was shown is compared as one person's.
                self._owners.setdefault(row.customer, fact.owner)

    def _hear(self, row: FactRow, fact: Analysed) -> None:
        word = self._words.get((row.customer, fact.channel))
        said = row.at, not fact.granted
        self._words[row.customer, fact.channel] = said if word is None else max(word, said)
        self._refused = None

    def _refusing(self) -> set[CustomerKey]:
        """Who must not be counted: one key of his refuses analytics."""
        if self._refused is None:
            keys = [key for (key, _), (_, refused) in self._words.items() if refused]
            self._refused = {self._owners.get(key, key) for key in keys}
        return self._refused

    def _decide(self, who: CustomerKey, row: FactRow, fact: Decided) -> None:
        person = self._people.setdefault(who, _Person())
        person.groups.add(fact.group)
        person.keys.add(row.customer)
        standing = person.standings.setdefault(fact.placement, _Standing(row.at))
        standing.since = min(standing.since, row.at)

    def _take_back(self, who: CustomerKey, fact: TakenBack) -> None:
        order = who, fact.order_id
        if not fact.lines:
            self._whole.add(order)
        left = self._taken_back.setdefault(order, {})
        for line in fact.lines:
            left[line.product_id] = left.get(line.product_id, 0.0) + line.quantity

    def _order(self, who: CustomerKey, at: Millis, fact: Ordered) -> None:
        standings = [each for each in self._people[who].standings.values() if each.since <= at]
        if not standings:
            return
        lines = fact.lines
        self._counted += len(lines)
        for product_id, _, price in lines:
            if price is None:
                self._unpriced += 1
            if not self._margins.knows(product_id):
                self._assumed += 1
        if (who, fact.order_id) in self._taken_back:
            lines = self._kept(who, fact)
        margin = self._margins.of(lines)
        for standing in standings:
            standing.margin += margin

    def _kept(self, who: CustomerKey, fact: Ordered) -> tuple[SoldLine, ...]:
        """The lines of an order without what was taken back of them."""
        order = who, fact.order_id
        if order in self._whole:
            return ()
        back, kept = self._taken_back[order], []
        for line in fact.lines:
            gone = min(line.quantity, back.get(line.product_id, 0.0))
            if gone:
                # Trap: taken off what came back, too. The product may stand in several lines or orders.
                back[line.product_id] -= gone
            kept.append(line._replace(quantity=line.quantity - gone))
        return tuple(kept)

    def result(self, placement: str | None, level: float) -> LiftView:
        """A row for each control group of ``placement``, or of all there are; none where nobody was there."""
        places: dict[str, _Place] = {}
        for person in self._people.values():
            for name, standing in person.standings.items():
                if placement in (None, name):
                    places.setdefault(name, _Place()).put(person, standing.margin / MICROS)
        return LiftView(
            [places[name].row(name, control, level) for name in sorted(places) for control in CONTROLS],
            LinesView(self._counted, self._assumed, self._unpriced),
        )


class _Place:
    """Margins of everybody at one placement, by group and number of keys."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[int, list[float]]] = {}
        self._mixed: list[float] = []
        self._people: dict[int, int] = {}

    def put(self, person: _Person, margin: float) -> None:
        keys = min(len(person.keys), MOST_KEYS)
        self._people[keys] = self._people.get(keys, 0) + 1
        if len(person.groups) > 1:
            self._mixed.append(margin)
        else:
            (group,) = person.groups
            self._groups.setdefault(group, {}).setdefault(keys, []).append(margin)

    def row(self, placement: str, against: str, level: float) -> LiftRow:
        """Trap: not simply one mean against the other. A person stays in a group only where all his keys
        fell into it: of those with two keys nearly all of treatment do, and nearly nobody of a control of
        5 %. Whoever has several keys buys more, so like is compared with like, and weighed by how many such
        persons there are, mixed ones too.
        """
        treated, held_out = (_arrays(self._groups.get(group, {})) for group in (TREATMENT, against))
        alike = [
            keys
            for keys in sorted(treated.keys() & held_out.keys())
            if min(len(treated[keys]), len(held_out[keys])) >= SMALL
        ]
        here = sum(map(len, treated.values())), sum(map(len, held_out.values()))
        everybody = sum(self._people[keys] for keys in alike)
        uncompared = 0
        means: tuple[float | None, float | None] = _mean(treated.values()), _mean(held_out.values())
        interval = None
        if alike:
            told = compare(
                [Stratum(self._people[keys] / everybody, treated[keys], held_out[keys]) for keys in alike],
                level,
            )
            means, interval = (told.treatment, told.control), told.interval
            uncompared = sum(here) - sum(len(treated[keys]) + len(held_out[keys]) for keys in alike)
        first, second = means
        return LiftRow(
            placement=placement,
            against=against,
            treatment=GroupView(here[0], first),
            control=GroupView(here[1], second),
            difference=None if first is None or second is None else first - second,
            interval=interval,
            level=level,
            mixed=GroupView(len(self._mixed), _mean([np.array(self._mixed)])),
            uncompared=uncompared,
        )


def _arrays(strata: dict[int, list[float]]) -> dict[int, Amounts]:
    # Sorted, so that no order of customers changes a bit of a mean.
    return {keys: np.array(sorted(margins)) for keys, margins in strata.items()}


def _mean(parts: Iterable[Amounts]) -> float | None:
    """Of all amounts in ``parts``, whatever their number of keys."""
    found: Sequence[Amounts] = [part for part in parts if len(part)]
    return float(np.sort(np.concatenate(found)).mean()) if found else None
