"""What touchpoints do to a profile beyond counting: bounds, order, late words, the merge of linked keys."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.bus.ports import MAX_RECORD_BYTES
from libs.common.clock import DAY, HOUR
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.customer_model import (
    MAX_ASSETS,
    MAX_CASES,
    MAX_CHANNELS,
    MAX_CLOSED,
    MAX_CONTACTS,
    MAX_LOTS,
    Profile,
    decode_items,
    decode_profile,
    encode_model,
)
from libs.common.contracts.touchpoint import VOCABULARY
from libs.common.contracts.vocabulary.goods import MAX_KITS
from libs.common.scoring.merge import merge_profiles
from services.analyzer.model.effects import ANSWERED_WITHIN, EFFECTS
from services.analyzer.model.fold import Models, fold

T0 = 1_790_000_000_000


def told(
    type_: str, at: int = T0, customer: str = "c-7", channel: str | None = None, **more: Any
) -> Touchpoint:
    """The example of a type, with ``more`` properties."""
    one = VOCABULARY[type_]
    return Touchpoint(
        id=f"{type_}-{at}",
        source="shop",
        customer=customer,
        occurred_at=at,
        recorded_at=at,
        type=type_,
        channel=channel or one.channel,
        properties={**one.example, **more},
    )


def after(*events: Touchpoint, customer: str = "c-7") -> Profile:
    models = Models.new(customer)
    for event in events:
        models = fold(models, event, event.recorded_at).models
    return models.profile


happenings = st.lists(
    st.builds(
        told,
        st.sampled_from(sorted(EFFECTS)),
        st.integers(T0, T0 + 90 * DAY),
        channel=st.sampled_from(["email", "phone", "post"]),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(happenings, st.integers(0, 25))
def test_storing_a_model_in_between_changes_no_bit(happened: list[Touchpoint], cut: int) -> None:
    whole = halved = Models.new("c-7")
    for place, event in enumerate(happened):
        if place == cut:
            halved = Models(
                decode_profile(encode_model(halved.profile)), decode_items(encode_model(halved.items))
            )
        whole = fold(whole, event, event.recorded_at).models
        halved = fold(halved, event, event.recorded_at).models
    assert encode_model(whole.profile) == encode_model(halved.profile)


@settings(max_examples=100, deadline=None)
@given(happenings, st.randoms(use_true_random=False))
def test_two_keys_of_one_person_are_read_as_one(happened: list[Touchpoint], random: Any) -> None:
    parts = [Models.new("c-7"), Models.new("anon:v")]
    for event in happened:
        place = random.randrange(2)
        parts[place] = fold(parts[place], event, event.recorded_at).models
    profiles = [part.profile for part in parts]
    merged = merge_profiles(profiles)
    assert merged.totals == after(*happened).totals
    for channel in merged.reached:
        reaches = [one.reached[channel] for one in profiles if channel in one.reached]
        assert merged.reached[channel].contacts == sum(reach.contacts for reach in reaches)
        assert merged.reached[channel].answers == sum(reach.answers for reach in reaches)
    gone = [one.retired["m-1"] for one in profiles if "m-1" in one.retired]
    registered = [one.assets["m-1"].registered_at for one in profiles if "m-1" in one.assets]
    assert ("m-1" in merged.assets) is (max(registered, default=-1) > max(gone, default=-1))
    assert [one.at for one in merged.contacts] == sorted(one.at for p in profiles for one in p.contacts)


def test_profile_stays_bounded() -> None:
    at = range(T0, T0 + 200 * HOUR, HOUR)
    profile = after(
        *(told("email_sent", t, channel=f"channel_{t}") for t in at),
        *(told("case_opened", t, case_id=f"case-{t}") for t in at),
        *(told("lot_watched", t, lot_id=f"lot-{t}") for t in at),
        *(told("asset_registered", t, asset_id=f"m-{t}") for t in at),
        *(told("kit_fitted", t, asset_id=f"m-{at[-1]}", kit=f"kit-{t}") for t in at),
    )
    assert (len(profile.contacts), len(profile.cases), len(profile.lots)) == (
        MAX_CONTACTS,
        MAX_CASES,
        MAX_LOTS,
    )
    assert len(profile.assets) == MAX_ASSETS
    assert f"m-{at[-1]}" in profile.assets, "the earliest leave"
    assert f"m-{at[0]}" not in profile.assets
    assert len(profile.assets[f"m-{at[-1]}"].fitted_kits) == MAX_KITS
    assert len(profile.reached) == MAX_CHANNELS + 1
    assert profile.reached["other"].contacts == 200 - MAX_CHANNELS


@pytest.mark.parametrize(
    ("disposition", "answered"),
    [("resolved", True), ("no_answer", False), ("voicemail", False), (None, True)],
)
def test_call_out_is_a_contact_and_answered_if_somebody_talked(disposition: str, answered: bool) -> None:
    (contact,) = after(told("call_ended", direction="out", disposition=disposition)).contacts
    assert (contact.channel, contact.answered) == ("call_centre", answered)
    assert after(told("call_ended", direction="in")).contacts == ()


def test_call_that_nobody_took_does_not_make_him_active() -> None:
    assert after(told("call_missed", direction="out")).recent == ()
    assert len(after(told("call_missed", direction="in")).recent) == 1


def test_answer_comes_after_its_contact_and_not_too_late() -> None:
    sent = told("email_sent", T0)
    for at, expected in (
        (T0 - 1, False),
        (T0, True),
        (T0 + ANSWERED_WITHIN, True),
        (T0 + ANSWERED_WITHIN + 1, False),
    ):
        (contact,) = after(sent, told("email_opened", at)).contacts
        assert contact.answered is expected, at


def test_who_names_no_campaign_answers_the_last_of_the_channel() -> None:
    sent = [told("email_sent", T0 + n, campaign_id=f"c{n}") for n in range(2)]
    bare = told("email_opened", T0 + 9, campaign_id=None)
    twice = after(*sent, bare, bare)
    assert [one.answered for one in twice.contacts] == [False, True]
    assert [
        one.answered
        for one in after(*sent, told("email_opened", T0 + 9, channel="web", campaign_id=None)).contacts
    ] == [False, False]


def test_bounce_holds_until_he_answers_again() -> None:
    soft = told("email_bounced", T0 + 1, bounce_type="soft")
    hard = told("email_bounced", T0 + 1)
    sent, opened = told("email_sent"), told("email_opened", T0 + 2)
    assert after(sent, soft).reached["email"].undeliverable_at == 0
    assert after(sent, hard).reached["email"].undeliverable_at == T0 + 1
    assert after(sent, hard, opened).reached["email"].undeliverable_at == 0


def test_bounce_that_is_told_late_holds_no_more() -> None:
    sent, opened = told("email_sent"), told("email_opened", at=T0 + 9)
    profile = after(sent, opened, told("email_bounced", at=T0 + 5))
    assert profile.reached["email"].undeliverable_at == 0


def test_word_on_a_purpose_too_many_takes_back_no_refusal() -> None:
    refusal = told("consent_refused", purpose="p" * 70)
    grant = told("consent_given", at=T0 + 9, purpose="q" * 70)
    assert [word.granted for word in after(refusal, grant).consents.values()] == [False]


def test_what_is_told_late_of_an_asset_fills_gaps_only() -> None:
    later = told("asset_registered", T0 + 9, year_built=None, fitted_kits=["new"])
    late = told("asset_registered", T0, year_built=1998, model="old", fitted_kits=["old"], serial="s")
    for events in ((later, late), (late, later)):
        asset = after(*events).assets["m-1"]
        assert (asset.model, asset.year_built, asset.fitted_kits) == ("X200", 1998, ("new",))
        assert (asset.serial, asset.at) == ("X200-00417", T0 + 9)
    kit = told("kit_fitted", T0 + 1)
    silent = told("asset_registered", T0 + 9, fitted_kits=None)
    assert after(late, kit, silent).assets["m-1"].fitted_kits == ("old", "drive-3")


def orders(*events: Touchpoint) -> Iterator[tuple[Profile, Profile]]:
    """What ``events`` make of a customer in every order; and half of them under each of two linked keys."""
    for arrived in permutations(events):
        keys = after(*arrived[::2], customer="c-7"), after(*arrived[1::2], customer="anon:x")
        yield after(*arrived), merge_profiles(keys)


def test_case_is_open_by_what_was_said_of_it_last_whenever_it_arrives() -> None:
    opened, closed = told("case_opened", T0), told("case_closed", T0 + 5)
    for one, both in orders(opened, closed):
        assert (one.cases, both.cases) == ({}, {}), "closed before anybody heard of it"
    for one, both in orders(opened, closed, told("case_reopened", T0 + 9), told("case_closed", T0 + 2)):
        assert (one.cases, both.cases) == ({"s-9": T0 + 9}, {"s-9": T0 + 9})
    for one, _ in orders(opened, told("case_escalated", T0 + 4), told("case_closed", T0 - DAY)):
        assert one.cases == {"s-9": T0}
    for one, _ in orders(opened, told("case_closed", T0)):
        assert one.cases == {}
    assert after(told("case_opened", -DAY)).cases == {"s-9": -DAY}


def test_case_stays_open_when_an_earlier_end_is_told_after_many_other_cases() -> None:
    closed = [told("case_closed", T0 + n, case_id=f"c-{n}") for n in range(1, 40)]
    reopened, late = told("case_reopened", T0), told("case_closed", T0 - DAY)
    assert after(reopened, *closed, late).cases == {"s-9": T0}
    keys = after(reopened), after(*closed, customer="anon:x")
    merged = merge_profiles(keys)
    assert merged.case_words["s-9"].open
    assert len(merged.case_words) == MAX_CLOSED + 1


def test_asset_is_in_use_by_what_was_said_of_it_last_whenever_it_arrives() -> None:
    registered, retired = told("asset_registered", T0), told("asset_retired", T0 + 5)
    for one, both in orders(registered, retired):
        assert (one.assets, both.assets) == ({}, {}), "scrapped before anybody heard of it"
    again = told("asset_registered", T0 + 9, year_built=2010)
    for one, both in orders(registered, retired, again, told("asset_retired", T0 + 2)):
        assert {key: asset.year_built for key, asset in one.assets.items()} == {"m-1": 2010}
        assert {key: asset.year_built for key, asset in both.assets.items()} == {"m-1": 2010}
    fitted = told("kit_fitted", T0 + 9)
    assert after(registered, fitted, retired).assets == {}, "a kit is no registration"


def test_largest_installed_base_fits_into_a_record() -> None:
    wide, kits = "\N{OLD ITALIC LETTER A}", range(MAX_KITS)
    large = [
        told(
            "asset_registered", T0 + n, asset_id=f"{n:03}{wide * 253}", model=wide * 256, serial=wide * 256,
            product_id=wide * 256, fitted_kits=[f"{kit:02}{wide * 62}" for kit in kits],
        )
        for n in range(MAX_ASSETS)
    ]  # fmt: skip
    profile = after(*large)
    names = sorted(profile.assets)
    assert len(encode_model(profile)) < MAX_RECORD_BYTES / 4
    assert len(names) > 20
    assert names[-1].startswith(f"{MAX_ASSETS - 1:03}"), "the earliest leave"
    assert names == sorted(
        large[n].properties["asset_id"] for n in range(MAX_ASSETS - len(names), MAX_ASSETS)
    )


def test_asset_without_id_goes_by_serial_or_model() -> None:
    profile = after(
        told("asset_registered", asset_id=None), told("asset_registered", asset_id=None, serial=None)
    )
    assert set(profile.assets) == {"X200-00417", "X200"}


def test_lot_stands_as_the_latest_says() -> None:
    bid, outbid = told("bid_placed", T0), told("bid_outbid", T0 + 1)
    for events in ((bid, outbid), (outbid, bid)):
        lot = after(*events).lots["l-8"]
        assert (lot.state, lot.amount) == ("outbid", 45.0)
    assert after(bid, told("lot_watched", T0 + 2)).lots["l-8"].state == "bid"
    assert after(bid, told("lot_ended", T0 + 3)).lots == {}
    assert after(bid, told("lot_won", T0 + 2), told("lot_ended", T0 + 3)).lots["l-8"].state == "won"
    assert after(bid).lots["l-8"].ends_at == 1_778_349_600_000


@pytest.mark.parametrize("name", sorted(EFFECTS))
def test_event_of_the_time_before_its_type_had_a_shape_counts_and_moves_nothing_else(name: str) -> None:
    odd = msgspec.structs.replace(
        told(name), properties={field: {"odd": 1} for field in VOCABULARY[name].example}
    )
    profile = after(odd)
    assert profile.totals == {name: 1}
    assert (profile.contacts, profile.reached, profile.consents, profile.satisfaction[1].weight) == (
        (),
        {},
        {},
        0.0,
    )
    assert (profile.cases, profile.lots, profile.assets, profile.account) == ({}, {}, {}, None)


@pytest.mark.parametrize("flags", [("gpc",), ("late",), ("automatic:crawler",)])
@pytest.mark.parametrize(
    ("event", "name"),
    [
        (told("consent_refused"), ""),
        (told("email_unsubscribed"), "marketing/email"),
        (told("email_complained"), "marketing/email"),
        (told("call_ended", disposition="do_not_call"), "marketing/phone"),
    ],
)
def test_an_objection_holds_even_where_nothing_is_learned(
    event: Touchpoint, name: str, flags: tuple[str, ...]
) -> None:
    properties = event.properties
    name = name or "/".join(properties[part] for part in ("purpose", "channel") if part in properties)
    ahead = replace(event, occurred_at=event.recorded_at + 1, learn=False, flags=flags)
    profile = after(ahead)
    word = profile.consents[name]
    assert (word.granted, word.at, word.recorded_at) == (False, event.recorded_at, event.recorded_at)
    assert profile.answer_hours == ()
    assert profile.contacts == ()
    granted = replace(told("consent_given"), learn=False, flags=flags)
    assert after(granted).consents == {}
