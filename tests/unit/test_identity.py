"""Links: nothing lost and nothing counted twice, whatever is linked, shared, taken back or out of order."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.contracts.customer_event import AboutCustomer, ConsentGiven
from libs.common.contracts.customer_model import MAX_FROZEN
from libs.common.intake import Admitted
from services.analyzer.handlers.folding import Changed, fold_into
from services.analyzer.model.fold import Models
from services.collector.model import Sender, TouchpointIn, touchpoint_events
from services.recommender.model.who import Who, who

CASES = int(os.environ.get("CLOSEDLOOP_TEST_CASES", "200"))
SHOP = Sender("shop")
CUSTOMERS = ("c1", "c2", "c3")
VISITORS = ("x", "y")


class Known(dict[str, Changed]):
    def __missing__(self, key: str) -> Changed:
        made = self[key] = Changed(Models.new(key))
        return made


class World:
    """Keys and their models, as the analyzer folds them and readers merge them."""

    def __init__(self) -> None:
        self.keys = Known()
        self.number = 0

    def fold(self, *events: AboutCustomer) -> World:
        for event in events:
            self.number += 1
            fold_into(self.keys, event, self.number, self.number)
        return self

    def read(self, key: str) -> tuple[Any, Any]:
        known = self.keys.get(key)
        return (None, None) if known is None else (known.models.profile, known.models.items)

    def who(self, customer: str | None = None, visitor: str | None = None) -> Who:
        return who(customer, visitor, "d", self.read)

    def views(self, customer: str | None = None, visitor: str | None = None) -> int:
        found = self.who(customer, visitor).profile
        return 0 if found is None else int(found.totals.get("product_viewed", 0))


_ids = iter(range(10**9))


def did(type_: str, customer: str | None = None, visitor: str | None = None, at: int = 1) -> list[Any]:
    raw: dict[str, Any] = {"type": type_, "channel": "web", "customer_id": customer, "anonymous_id": visitor}
    if type_ == "order_completed":
        raw["properties"] = {"order_id": f"o{at}", "products": [{"product_id": "p"}]}
    if type_ == "product_viewed":
        raw["properties"] = {"product_id": "p"}
    item = msgspec.convert(raw, TouchpointIn)
    return list(touchpoint_events(item, f"e{next(_ids)}", SHOP, Admitted(at, at, True, ())))


def refused(key: str, at: int) -> ConsentGiven:
    return ConsentGiven(
        id=f"r{next(_ids)}", source="shop", customer=key, occurred_at=at, recorded_at=at,
        purpose="personalise", granted=False,
    )  # fmt: skip


def view(visitor: str) -> list[Any]:
    return did("product_viewed", visitor=visitor)


def login(customer: str, visitor: str) -> list[Any]:
    return did("identified", customer, visitor)


def test_what_a_visitor_did_counts_for_who_he_turns_out_to_be() -> None:
    world = World().fold(*view("x"), *login("c1", "x"), *view("x"), *login("c1", "x"))
    assert (world.views("c1"), world.views(visitor="x")) == (2, 2)


def test_chain_of_devices_counts_once_each() -> None:
    world = World().fold(*view("x"), *view("y"), *login("c1", "x"), *login("c1", "y"), *view("y"))
    assert world.views("c1") == 3
    assert world.views("c1", "x") == 3


def test_shared_device_counts_for_whose_time_it_was() -> None:
    world = World().fold(*view("x"), *login("c1", "x"), *view("x"), *login("c2", "x"), *view("x"))
    assert (world.views("c1"), world.views("c2"), world.views(visitor="x")) == (2, 1, 1)
    world.fold(*login("c1", "x"), *view("x"), *view("x"))
    assert (world.views("c1"), world.views("c2")) == (4, 1)
    assert world.keys["anon:x"].models.profile.frozen == ("c1", "c2")
    assert world.keys["anon:x~1"].models.items.items["p"].viewed.weight > 0


def test_link_taken_back_counts_for_nobody_until_the_next_owner() -> None:
    world = World().fold(*view("x"), *login("c1", "x"), *did("unlinked", "c1", "x"), *view("x"))
    assert (world.views("c1"), world.views(visitor="x")) == (0, 2)
    world.fold(*login("c2", "x"))
    assert (world.views("c1"), world.views("c2")) == (0, 2)
    assert world.keys["c1"].models.profile.totals["unlinked"] == 1


def test_foreign_unlink_changes_nothing() -> None:
    world = World().fold(*view("x"), *login("c1", "x"), *did("unlinked", "c2", "x"))
    assert (world.views("c1"), world.views("c2")) == (1, 0)


def test_refusal_on_a_shared_device_holds_for_all_its_owners() -> None:
    world = World().fold(*login("c1", "x"), refused("anon:x", 2), *login("c2", "x"))
    assert [world.who(each).consents["personalise"].granted for each in ("c1", "c2")] == [False, False]


def test_terminal_that_too_many_share_is_nobodys() -> None:
    world = World()
    for number in range(MAX_FROZEN + 5):
        world.fold(*login(f"c{number}", "x"), *view("x"))
    assert world.views(f"c{MAX_FROZEN - 1}") == 1
    assert world.views(f"c{MAX_FROZEN + 3}") == 0
    assert len(world.keys["anon:x"].models.profile.frozen) == MAX_FROZEN
    assert (
        sum(world.views(f"c{n}") for n in range(MAX_FROZEN + 5)) + world.views(visitor="x") == MAX_FROZEN + 5
    )


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["view", "both", "mine", "login", "login", "unlink", "order", "refuse"]),
        st.sampled_from(CUSTOMERS),
        st.sampled_from(VISITORS),
    ),
    max_size=30,
)


def _events(steps: list[tuple[str, str, str]]) -> list[Any]:
    found: list[Any] = []
    for at, (what, customer, visitor) in enumerate(steps, start=1):
        if what == "view":
            found += did("product_viewed", None, visitor, at)
        elif what == "both":
            found += did("product_viewed", customer, visitor, at)
        elif what == "mine":
            found += did("product_viewed", customer, None, at)
        elif what == "order":
            found += did("order_completed", customer, visitor, at)
        elif what == "refuse":
            found.append(refused(f"anon:{visitor}", at))
        else:
            found += did("identified" if what == "login" else "unlinked", customer, visitor, at)
    return found


@given(_STEPS, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_counts_are_conserved(steps: list[tuple[str, str, str]], random: Any, reorder: bool) -> None:
    events = _events(steps)
    if reorder:
        random.shuffle(events)
    world = World().fold(*events)
    parts = {key: changed.models.profile.totals for key, changed in world.keys.items()}
    for type_ in ("product_viewed", "order_completed"):
        posted = sum(getattr(event, "type", "") == type_ and not event.internal for event in events)
        assert sum(totals.get(type_, 0) for totals in parts.values()) == posted
        # Each part is one customer's or nobody's: what they read together is what was posted.
        read: list[str] = []
        together = 0
        for customer in CUSTOMERS:
            keys: list[str] = []

            def note(key: str, keys: list[str] = keys) -> tuple[Any, Any]:
                profile, items = world.read(key)
                if profile is not None:
                    keys.append(key)
                return profile, items

            found = who(customer, None, "d", note)
            together += 0 if found.profile is None else found.profile.totals.get(type_, 0)
            mine = {key for key in keys if _his(world, key, customer)}
            assert sum(parts[key].get(type_, 0) for key in mine) == (
                0 if found.profile is None else found.profile.totals.get(type_, 0)
            )
            if any(
                not word.granted for key in mine for word in world.keys[key].models.profile.consents.values()
            ):
                assert not found.consents["personalise"].granted
            read += mine
        assert len(read) == len(set(read)), "two customers read one part"
        unread = sum(totals.get(type_, 0) for key, totals in parts.items() if key not in read)
        assert together + unread == posted


def _his(world: World, key: str, customer: str) -> bool:
    if key == customer:
        return True
    base, _, number = key.partition("~")
    visitor = world.keys[base].models.profile
    return visitor.frozen[int(number) - 1] == customer if number else visitor.owner in (None, customer)
