"""Compares the client's books with what the platform holds: a verdict per guarantee, in counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.survival.ledger import Books, Fate, Posted
from tests.survival.reader import Model, Stored, models_of

GUARANTEES = {
    "lost": "accepted ids that are not in the model",
    "twice": "ids that are in the model more than once",
    "alien": "refused, unsent or unknown things that are in the model all the same",
    "sums": "customers whose totals, orders or amounts differ from the ids counted",
    "published": "parts of models that differ between PostgreSQL and the topic",
    "buried": "poison records that are not dead letters, or dead letters nobody sent",
    "rebuilt": "runs whose rebuild gives another digest",
    "ledger": "runs in which `closedloop verify` does not balance or disagrees with the client",
    "answers": "answers that no fault excuses: neither 202 nor 503 with Retry-After nor a rightful refusal",
    "serving": "recommendations not answered by a recommender that was up",
    "recovery": "runs that needed a hand, or more than the time allowed, to come to rest",
}


@dataclass
class Count:
    """``failures`` of ``n``, with the first examples."""

    n: int = 0
    failures: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, n: int, bad: list[str]) -> None:
        self.n += n
        self.failures += len(bad)
        self.examples += bad[: max(0, 5 - len(self.examples))]

    def __iadd__(self, other: Count) -> Count:
        self.n += other.n
        self.failures += other.failures
        self.examples += other.examples[: max(0, 5 - len(self.examples))]
        return self


Verdict = dict[str, Count]


def counted(model: Model, item: Posted) -> int:
    """How often ``item`` is in the model, as its own product says."""
    if item.kind == "order":
        return model.bought.get(item.product, 0)
    # A look leaves weight 1 at its own time; a second look at the same moment makes it 2.
    return round(model.viewed.get(item.product, 0.0))


def judge_events(books: Books, stored: Stored, published: dict[str, bytes]) -> Verdict:
    """Exactly once, at most once, nothing else; by id in the published models and in the stored events."""
    verdict = {name: Count() for name in ("lost", "twice", "alien", "sums", "published")}
    models = models_of(published)
    times = Counter((customer, id_) for customer, kind, id_ in stored.events if kind == "touchpoint")
    seen: dict[str, Counter[str]] = {}
    lost, twice, alien = [], [], []
    for item in books.posted.values():
        fate = books.fates[item.id]
        model = models.get(item.customer, Model())
        rows = times.pop((item.customer, item.id), 0)
        shown = counted(model, item) if item.kind in ("order", "view") else rows
        if fate is Fate.ACCEPTED and not (rows and shown):
            lost.append(f"{item.id} of {item.customer}: {rows} rows, {shown} in the model")
        if rows > 1 or shown > 1:
            twice.append(f"{item.id} of {item.customer}: {rows} rows, {shown} in the model")
        if fate < Fate.UNKNOWN and (rows or shown):
            alien.append(f"{item.id} of {item.customer} was {fate.name.lower()}")
        tally = seen.setdefault(item.customer, Counter())
        if rows:
            tally[item.type] += 1
            tally["value"] += item.value
            tally["orders"] += item.kind == "order"
    alien += [f"event {key} was never posted" for key in times]
    verdict["lost"].add(len(books.of(Fate.ACCEPTED)), lost)
    verdict["twice"].add(len(books.posted), twice)
    verdict["alien"].add(len(books.posted) + len(stored.events), alien)
    verdict["sums"].add(len(seen), _wrong_sums(seen, models))
    keys = published.keys() | stored.bodies.keys()
    verdict["published"].add(len(keys), [k for k in keys if published.get(k) != stored.bodies.get(k)])
    return verdict


def judge_poison(poisoned: int, dead_letters: int) -> Count:
    """Every unreadable record is kept as a dead letter, and nothing else is."""
    count = Count()
    off = abs(poisoned - dead_letters)
    count.add(max(poisoned, dead_letters), [f"{dead_letters} dead letters of {poisoned} sent"] * off)
    return count


def _wrong_sums(seen: dict[str, Counter[str]], models: dict[str, Model]) -> list[str]:
    wrong = []
    for customer, tally in seen.items():
        model = models.get(customer, Model())
        for word in ("product_viewed", "order_completed"):
            if model.totals.get(word, 0) != tally[word]:
                wrong.append(f"{customer}: {word} {model.totals.get(word, 0)}, should be {tally[word]}")
                break
        else:
            if model.purchases != (tally["orders"], float(tally["value"])):
                should = (tally["orders"], tally["value"])
                wrong.append(f"{customer}: orders and value {model.purchases}, should be {should}")
    return wrong


def judge_ledger(books: Books, ledger: dict[str, Any] | None) -> Count:
    """The product's own account of the same: balanced, nothing on its way, and no fewer than we know of."""
    count = Count()
    bad = []
    if ledger is None:
        bad.append("no ledger")
    else:
        fates = ("applied", "duplicate", "rejected", "dead_lettered", "erased", "in_flight")
        known = len(books.of(Fate.ACCEPTED))
        if not ledger["balanced"] or ledger["in_flight"]:
            bad.append(f"not balanced: {ledger}")
        elif sum(ledger[fate] for fate in fates) != ledger["accepted"]:
            bad.append(f"does not add up: {ledger}")
        elif not known <= ledger["applied"] <= known + len(books.of(Fate.UNKNOWN)) + ledger.get("others", 0):
            bad.append(f"{ledger['applied']} applied, but {known} were accepted")
    count.add(1, bad)
    return count
