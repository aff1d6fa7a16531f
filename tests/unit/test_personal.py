"""What identifies a person is told by names of fields and by patterns; what does not stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from libs.common.personal import Screen, is_personal, refuse_personal


def words(text: str) -> list[str]:
    return text.split()


PERSONAL_FIELDS = words(
    "email E-Mail eMail customerEmail email_address contact.email phone phoneNumber phone_no mobile tel fax "
    "name Name first_name firstName lastName surname full_name userName username contactName vorname "
    "address billing_address address1 addressLine2 street streetName postcode postal_code zip zipCode plz "
    "birthday dateOfBirth birth_date dob ip ipAddress remote_addr lat longitude userAgent device_id iban "
    "password"
)

KEPT_FIELDS = words(
    "product_id product_name category_name form_name page_name email_id email_subject campaign city country "
    "phone_model age plan title serial_number order_number emailHash rating"
)


@pytest.mark.parametrize("field", PERSONAL_FIELDS)
def test_field_that_names_a_person_is_dropped_wherever_it_stands(field: str) -> None:
    screen = Screen()
    assert screen({field: "Anna", "kept": 1}) == {"kept": 1}
    assert screen({"traits": {"deep": [{field: {"first": "Anna"}}]}}) == {"traits": {"deep": [{}]}}
    assert screen({field: 4_917_112}) == {}
    assert screen({field: True}) == {field: True}, "that he has one is no secret"
    assert screen.dropped == 3


@pytest.mark.parametrize("field", KEPT_FIELDS)
def test_field_that_names_nobody_is_kept(field: str) -> None:
    data = {field: "something"}
    assert Screen()(data) is data


def test_names_of_things_are_kept() -> None:
    data = {"products": [{"name": "Monopoly", "product_id": "p1"}], "campaign": {"name": "Autumn"}}
    assert Screen()(data) is data


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to Anna.S+x@mail.example.co.uk!", "write to [e-mail]!"),
        ("anna%40example.com", "[e-mail]"),
        ("call +49 (0)171 123-4567 now", "call [phone] now"),
        ("+491711234567", "[phone]"),
        ("0049 171 1234567", "[phone]"),
        ("0171/1234567 or 01 23 45 67 89", "[phone] or [phone]"),
        ("(555) 123-4567", "[phone]"),
        ("came from 203.0.113.77.", "came from 203.0.113.0."),
        ("2001:db8::8a2e:370:7334", "[ip]"),
        ("https://shop.example/a?email=anna&q=milk&last_name=Meyer", "https://shop.example/a?email=&q=milk&last_name="),
    ],
)  # fmt: skip
def test_personal_parts_of_texts_are_masked(text: str, kept: str) -> None:
    assert Screen()({"note": text, "deep": [[text]]}) == {"note": kept, "deep": [[kept]]}


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T10:37:19.123+00:00",
        "2026-11-22 10:37:19",
        "01.02.2026 10:00",
        "10:37:19",
        "1.234,56",
        "lego 75313 0-3",
        "GA1.2.1234567890.1600000000",
        "https://shop.example/p/1234-5678?q=12-34&page=2",
        "a & b, 100 % (50)",
        "550e8400-e29b-41d4-a716-446655440000",
    ],
)
def test_dates_numbers_and_addresses_of_pages_are_no_persons(text: str) -> None:
    data = {"note": text}
    assert Screen()(data) is data
    assert not is_personal(text)


def test_ids_in_properties_are_not_taken_for_phone_numbers() -> None:
    data = {"product_id": "0171-1234567", "sku": "555-123-4567", "serial": "10.0.0.1"}
    assert Screen()(data) is data
    assert Screen()({"case_id": "anna@example.com"}) == {"case_id": "[e-mail]"}


def test_clean_text_is_remembered_without_becoming_blind() -> None:
    screen = Screen()
    for _ in range(2):
        assert screen({"product_id": "0171-1234567"}) == {"product_id": "0171-1234567"}
        assert screen({"note": "0171-1234567"}) == {"note": "[phone]"}


def test_joins_are_keyed_hashes_the_same_however_it_is_written() -> None:
    screen = Screen(("email", "phone"), b"k" * 32)
    one = screen({"email": " Anna@Example.com", "phone": "+49 171 1234567"})
    assert one == screen({"E-Mail": "anna@example.com", "mobile": "0049171-1234567"})
    assert set(one) == {"email_hash", "phone_hash"}
    assert one != Screen(("email", "phone"), b"j" * 32)(
        {"email": "anna@example.com", "phone": "+491711234567"}
    )
    assert Screen(("phone",), b"k")({"email": "anna@example.com"}) == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("anna@example.com", "e-mail"),
        ("mailto:anna@example.com", "e-mail"),
        ("anna%40example.com", "e-mail"),
        ("+491711234567", "phone"),
        ("tel:+491711234567", "phone"),
        ("0171 1234567", "phone"),
        ("(555) 123-4567", "phone"),
        ("203.0.113.7", "IP"),
        ("2001:db8::1", "IP"),
    ],
)
def test_id_that_names_a_person_is_refused_with_field_and_reason(text: str, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        refuse_personal(text, "/customer_id")
    assert (caught.value.code, caught.value.field) == ("bad_string", "/customer_id")
    assert what in caught.value.reason
    assert text not in caught.value.reason


@pytest.mark.parametrize(
    "text", ["c1", "0001234567", "01711234567", "anon-7:x", "a@b", "user 12", "2026-001-1234"]
)
def test_plain_ids_are_taken(text: str) -> None:
    refuse_personal(text, "/customer_id")


_TEXT = st.text("ab.@+019: -/()%4?=", max_size=40)
_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["note", "email", "products", "name", "id"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "email"]), _DATA, max_size=4))
def test_screening_twice_changes_nothing_more(data: dict[str, Any]) -> None:
    screen = Screen()
    once = screen(data)
    assert Screen()(once) == once
    assert screen(data) == once
