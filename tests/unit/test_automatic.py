"""What is too fast for a person: labelled, kept, counted, and not learned from, however slices are cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.clock import HOUR, MINUTE, SECOND
from libs.common.contracts.customer_event import Touchpoint, decode_event
from libs.common.contracts.customer_model import Clicks, Pace, Profile, decode_profile, encode_model
from libs.common.scoring.decay import HALF_LIFE_SEASON, faded
from services.analyzer.handlers.folding import Changed, fold_into, model_rows
from services.analyzer.model.automatic import MAIL_SCANNER, MOST_VIEWS, RATE, REST, SCAN
from services.analyzer.model.digest import partition_digest
from services.analyzer.model.fold import Models, fold
from tests.unit.offer_world import Shop

T0 = 1_790_000_040_000
"""A full minute."""
C0 = T0 + SECOND
WHO = "c-7"


@pytest.fixture(autouse=True)
def one_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.analyzer.model.arrival.partition_of", lambda key: 0)


def touch(type_: str, at: int, *flags: str, **properties: Any) -> Touchpoint:
    channel = "email" if type_.startswith("email") else "web"
    return Touchpoint(
        id=f"{type_}-{at}-{sorted(properties.items())}", source="shop", customer=WHO, occurred_at=at,
        recorded_at=at, type=type_, channel=channel, flags=flags, properties=properties,
    )  # fmt: skip


def view(at: int, product: str = "p", *flags: str) -> Touchpoint:
    return touch("product_viewed", at, *flags, product_id=product)


def click(at: int, link: str, mail: str = "m-1") -> Touchpoint:
    return touch("email_clicked", at, campaign_id="spring", email_id=mail, link_id=link)


def folded(events: list[Touchpoint], models: Models | None = None) -> tuple[Models, list[str]]:
    """What ``events`` make of a customer, and the label of each."""
    models, labels = models or Models.new(WHO), []
    for event in events:
        step = fold(models, event, event.recorded_at)
        models = step.models
        labels.append(step.labelled.flags[-1] if step.labelled is not None else "")
    return models, labels


def burst(at: int, number: int = MOST_VIEWS) -> list[Touchpoint]:
    return [view(at + n * MINUTE // (number + 1)) for n in range(number)]


def test_as_many_views_as_a_person_can_look_at_are_learned() -> None:
    models, labels = folded(burst(T0))
    assert set(labels) == {""}
    assert models.profile.totals == {"product_viewed": MOST_VIEWS}


def test_more_are_a_machines_for_a_while_and_move_nothing_but_totals() -> None:
    before, _ = folded(burst(T0))
    late = [view(T0 + MINUTE - 1), view(T0 + MINUTE - 1, "q"), view(T0 + MINUTE + REST - 1, "q")]
    models, labels = folded(late, before)
    assert labels == [RATE] * 3
    assert models.items is before.items
    assert models.profile.totals == {"product_viewed": MOST_VIEWS + 3}
    unmoved = replace(models.profile, totals=before.profile.totals, pace=before.profile.pace)
    assert unmoved == before.profile
    again, labels = folded([view(T0 + MINUTE + REST, "q")], models)
    assert labels == [""]
    assert "q" in again.items.items


def test_who_goes_on_stays_a_machine() -> None:
    _, labels = folded([event for minute in range(30) for event in burst(T0 + minute * MINUTE, 400)])
    assert labels == [""] * MOST_VIEWS + [RATE] * (30 * 400 - MOST_VIEWS)


def test_an_order_of_whoever_is_fast_counts() -> None:
    bought = touch("order_completed", T0 + 59_999, order_id="o", products=[{"product_id": "p"}])
    models, labels = folded([*burst(T0, 400), bought])
    assert labels[-1] == ""
    assert models.profile.purchases.orders == 1


def test_imports_may_all_have_happened_at_midnight() -> None:
    _, labels = folded([view(T0, f"p{n}", "imported") for n in range(2 * MOST_VIEWS)])
    assert set(labels) == {""}


def test_what_comes_out_of_order_counts_in_its_own_minute() -> None:
    minutes = [burst(T0 + minute * MINUTE, 140) for minute in range(3)]
    mixed = [event for three in zip(*minutes, strict=True) for event in three]
    assert set(folded(mixed)[1]) == {""}
    fast = [burst(T0 + minute * MINUTE, 310) for minute in range(3)]
    labels = folded([event for three in zip(*fast, strict=True) for event in three])[1]
    assert labels.count(RATE) >= 30
    old = [view(T0 - HOUR - n) for n in range(500)]
    assert set(folded([*mixed, *old])[1]) == {""}, "older than all that is counted: not judged"


SENT = touch("email_sent", T0 - HOUR, campaign_id="spring", email_id="m-1")


def alike(one: Profile, other: Profile) -> None:
    """Equal but for totals, and for what counts lost by rounding."""
    at = T0 + HOUR
    assert one.activity.keys() == other.activity.keys()
    for name, activity in one.activity.items():
        its = other.activity[name]
        assert (activity.total, activity.last_at) == (its.total, its.last_at)
        weight = faded(its.season, at, HALF_LIFE_SEASON)
        assert faded(activity.season, at, HALF_LIFE_SEASON) == pytest.approx(weight, abs=1e-9)
    for clock, hours in ((one.hours, other.hours), (one.answer_hours, other.answer_hours)):
        for hour, weight in enumerate(clock):
            mine = faded(hours[hour], at, HALF_LIFE_SEASON) if hours else 0.0
            assert faded(weight, at, HALF_LIFE_SEASON) == pytest.approx(mine, abs=1e-9)
    for channel, reach in one.reached.items():
        known = other.reached[channel]
        assert replace(reach, answered=known.answered) == known
        assert reach.answered.weight == pytest.approx(known.answered.weight, abs=1e-9)
    counted = ("totals", "activity", "hours", "answer_hours", "reached", "clicks", "other_clicks")
    assert replace(one, **{name: getattr(other, name) for name in counted}) == other


def test_a_mail_of_which_all_links_are_clicked_is_not_answered() -> None:
    untouched, _ = folded([SENT])
    models, labels = folded([SENT, *(click(C0 + 300 * n, f"l{n}") for n in range(6))])
    assert labels == ["", "", "", *[MAIL_SCANNER] * 4]
    assert models.profile.totals == {"email_sent": 1, "email_clicked": 6}
    alike(models.profile, untouched.profile)
    assert not models.profile.contacts[0].answered


BOUNCED = touch("email_bounced", T0 - MINUTE, campaign_id="spring", email_id="m-0")


@pytest.mark.parametrize(
    "before",
    [
        [],
        [SENT],
        [touch("email_sent", T0 - 2 * HOUR, campaign_id="spring"), BOUNCED, SENT],
        [view(T0 - HOUR), SENT, click(C0 - MINUTE, "l9", "m-0"), BOUNCED],
        [view(T0 + HOUR), SENT],
    ],
    ids=["nothing", "sent", "bounced", "known", "out of order"],
)
@pytest.mark.parametrize("between", [[], [view(T0 + 100)]], ids=["", "a view between"])
def test_what_a_scanner_did_is_taken_back_as_a_whole(
    before: list[Touchpoint], between: list[Touchpoint]
) -> None:
    without, _ = folded([*before, *between])
    first, *more = (click(C0 + 300 * n, f"l{n}") for n in range(6))
    models, labels = folded([*before, first, *between, *more])
    assert labels[-1] == MAIL_SCANNER
    alike(models.profile, without.profile)


@pytest.mark.parametrize("mails", [2, 4])
def test_mails_that_are_scanned_at_once_are_told_apart(mails: int) -> None:
    sent = [touch("email_sent", T0 - HOUR - n, campaign_id=f"c-{n}", email_id=f"m-{n}") for n in range(mails)]
    known = [touch("email_sent", T0 - 2 * HOUR, campaign_id="spring"), BOUNCED, *sent]
    scan = [
        touch("email_clicked", at, campaign_id=f"c-{n}", email_id=f"m-{n}", link_id=f"l{link}")
        for link in range(4)
        for n, at in enumerate(range(C0 + 100 * link, C0 + 100 * link + mails))
    ]
    without, _ = folded(known)
    models, labels = folded([*known, *scan])
    assert labels.count(MAIL_SCANNER) == 2 * mails
    alike(models.profile, without.profile)


def test_who_answers_afterwards_has_answered() -> None:
    scanned = [SENT, *(click(C0 + n, f"l{n}") for n in range(6))]
    models, labels = folded([*scanned, click(C0 + HOUR, "l2")])
    assert labels[-1] == ""
    assert models.profile.contacts[0].answered
    assert models.profile.reached["email"].answers == 1


def test_what_was_answered_before_the_scanner_came_stays_answered() -> None:
    opened = touch("email_opened", T0 - MINUTE, campaign_id="spring", email_id="m-1")
    before, _ = folded([SENT, opened])
    models, _ = folded([click(C0 + n, f"l{n}") for n in range(5)], before)
    assert models.profile.contacts[0].answered
    alike(models.profile, before.profile)


@pytest.mark.parametrize(
    "clicks",
    [
        [click(C0, "a"), click(C0 + SECOND, "b")],
        [click(C0 + n, "a") for n in range(20)],
        [click(C0, "a"), click(C0 + SECOND, "b"), click(C0 + SCAN + 1, "c")],
        [click(C0, "a"), click(C0 + 1, "b", "m-2"), click(C0 + 2, "c", "m-3")],
        [replace(click(C0 + n, f"l{n}"), flags=("imported",)) for n in range(5)],
        [click(T0, f"l{n}") for n in range(5)],
    ],
    ids=["two links", "one link often", "in time", "another mail each", "imported", "told by the minute"],
)
def test_people_may_click(clicks: list[Touchpoint]) -> None:
    models, labels = folded([SENT, *clicks])
    assert set(labels) == {""}
    assert models.profile.contacts[0].answered


times = st.integers(0, 4 * MINUTE)
events = st.lists(
    st.one_of(
        st.builds(lambda at, n: view(T0 + at, f"p{n}"), times, st.integers(0, 3)),
        st.builds(lambda at, n, m: click(T0 + at % 30_000, f"l{n}", f"m{m}"), times, st.integers(0, 4),
                  st.integers(0, 1)),
    ),
    max_size=60,
    unique_by=lambda event: event.id,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(events, st.data())
def test_no_cut_and_no_rebuild_changes_a_bit(told: list[Touchpoint], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.analyzer.model.automatic.MOST_VIEWS", 5)

        async def run() -> None:
            whole, cut = Shop(), Shop()
            await whole.take([SENT, *told])
            rest = [SENT, *told]
            while rest:
                size = data.draw(st.integers(1, len(rest)))
                await cut.take(rest[:size])
                rest = rest[size:]
                if data.draw(st.booleans()):
                    cut.restart()
            assert await cut.store.digest(0) == await whole.store.digest(0)
            flags = [decode_event(stored.body).flags for stored in whole.store.stored]  # type: ignore[union-attr]
            assert flags == [decode_event(stored.body).flags for stored in cut.store.stored]  # type: ignore[union-attr]
            customers = {WHO: Changed(Models.new(WHO))}
            for stored in whole.store.stored:
                event: Any = decode_event(stored.body)
                fold_into(customers, event, stored.journal_time, stored.number)
            rows = [(row.customer, row.part, row.body) for row in model_rows(0, customers)]
            assert partition_digest(rows) == await whole.store.digest(0)
            state = whole.store.states[0]
            assert state.notes.get("automatic", 0) == sum(bool(each) for each in flags)

        import asyncio

        asyncio.run(run())


async def test_the_label_is_stored_with_the_event_and_teaches_nothing_anew() -> None:
    shop = Shop()
    await shop.take([SENT, *(click(C0 + n, f"l{n}") for n in range(4))])
    stored: list[Any] = [decode_event(row.body) for row in shop.store.stored]
    assert [event.flags for event in stored] == [(), (), (), (MAIL_SCANNER,), (MAIL_SCANNER,)]
    assert [event.learn for event in stored] == [True, True, True, False, False]
    assert [row.kind for row in shop.store.stored] == ["touchpoint"] * 5, "all of it is in the timeline"


def test_what_is_remembered_stays_small() -> None:
    events = [view(T0 + n * 7_919) for n in range(2_000)]
    events += [click(C0 + n * 97, "a", f"m-{n % 9}") for n in range(100)]
    models, _ = folded(events)
    profile = decode_profile(encode_model(models.profile))
    assert profile == models.profile
    assert len(profile.pace.minutes) <= 3
    assert len(profile.clicks.held) <= 8
    assert len(profile.other_clicks) == 3
    bare = replace(profile, pace=Pace(), clicks=Clicks(), other_clicks=())
    assert len(encode_model(profile)) - len(encode_model(bare)) < 800
