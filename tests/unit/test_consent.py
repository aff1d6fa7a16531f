"""What consents allow on which channel, and which purpose is named where something is missing."""

from __future__ import annotations

import pytest

from libs.common.contracts.customer_model import Consent
from services.recommender.model.consent import Policy, allowed

YES, NO = Consent(True, 1), Consent(False, 1)


@pytest.mark.parametrize(
    ("consents", "channel", "limited_by"),
    [
        ({}, "web", ()),
        ({}, "email", ("consent_unknown:email",)),
        ({}, "sms", ("consent_unknown:phone",)),
        ({}, "direct_mail", ("consent_unknown:post",)),
        ({"email": YES}, "email", ()),
        ({"email": YES}, "phone", ("consent_unknown:phone",)),
        ({"email": NO}, "web", ()),
        ({"email": NO, "personalise": YES}, "email", ("consent_refused:email",)),
        ({"email": YES, "personalise": NO}, "email", ("consent_refused:personalise",)),
        ({"phone": NO}, "sms", ("consent_refused:phone",)),
        ({"personalise/email": NO}, "web", ()),
        ({"personalise/email": NO, "email": YES}, "email", ("consent_refused:personalise/email",)),
        ({"marketing/post": NO, "marketing": YES}, "direct_mail", ("consent_refused:marketing/post",)),
        ({"marketing/phone": NO, "marketing": YES}, "sms", ("consent_refused:marketing/phone",)),
        ({"marketing/phone": NO, "marketing": YES}, "email", ()),
        ({"analytics": NO}, "web", ()),
        ({"recommendations": NO}, "web", ("consent_refused:recommendations",)),
    ],
)
def test_purpose_and_channel(consents: dict[str, Consent], channel: str, limited_by: tuple[str, ...]) -> None:
    assert allowed(consents, channel, Policy()) == (not limited_by, limited_by)


def test_contextual_by_setting_names_what_is_missing() -> None:
    assert allowed({}, "web", Policy("contextual")).limited_by == ("consent_unknown:personalise",)


def test_existing_customers_may_be_addressed_until_they_object() -> None:
    policy = Policy(existing=frozenset({"email"}))
    assert allowed({}, "email", policy, orders=1).personal
    assert not allowed({}, "email", policy, orders=0).personal
    assert not allowed({}, "phone", policy, orders=1).personal
    assert allowed({"email": NO}, "email", policy, orders=1).limited_by == ("consent_refused:email",)


def test_global_privacy_control_holds_against_consent() -> None:
    assert allowed({"personalise": YES}, "web", Policy(), gpc=True).limited_by == ("gpc",)
