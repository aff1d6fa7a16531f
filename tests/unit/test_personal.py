"""What identifies a person is told by names of fields and by patterns; what does not stays as it is."""

from __future__ import annotations

from contextlib import suppress
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from libs.common.personal import Screen, is_email, refuse_personal


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
        ("030 12 34 56 78, (030) 123 456 or 0170-123456", "[phone], [phone] or [phone]"),
        ("+49\u00a0170\u00a01234567", "[phone]"),
        ("0170\u20131234567", "[phone]"),
        ("+49\u2011170\u20111234567", "[phone]"),
        ("anna%2540x.de", "[e-mail]"),
        ("93.1.2.3", "93.1.2.0"),
        ("1.2.3.4:80", "1.2.3.0:80"),
        ("?redirect=/a?access_token=x&b=1", "?redirect=/a?access_token=&b=1"),
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
        "https://shop.example/teile/0261-230-045?code=0815-47112",
        "/search?q=bosch+4006381333931",
        "/a?hotel=a&filename=b&hostname=c&product_name=d&list_name=e&page_token=f",
        "img/logo@2x.png",
        *words("9:30:00 1:02:03 00:01:02:03 4:3:2 Face:Add:Dead 00:1a:2b:3c:4d:5e"),
        "550e8400-e29b-41d4-a716-446655440000",
    ],
)
def test_dates_numbers_and_addresses_of_pages_are_no_persons(text: str) -> None:
    data = {"note": text}
    assert Screen()(data) is data
    refuse_personal(text, "/customer_id")


def test_ids_in_properties_are_not_taken_for_phone_numbers() -> None:
    data = {"product_id": "0171-1234567", "sku": "555-123-4567", "serial": "10.0.0.1"}
    assert Screen()(data) is data


def test_phone_in_the_name_of_a_thing_becomes_a_keyed_hash() -> None:
    screen = Screen((), b"k" * 32)
    kept = screen(
        {"page_name": "call +49 171 1234567 now", "order_id": "+49 171 1234567", "coupon": "a 10.0.0.1"}
    )
    hashed = screen.join_hash("phone", "+491711234567")
    assert kept == {"page_name": f"call {hashed} now", "order_id": "+49 171 1234567", "coupon": "a 10.0.0.1"}


def test_address_as_an_id_becomes_a_keyed_hash_of_its_own() -> None:
    screen = Screen((), b"k" * 32)
    anna, bob = screen({"case_id": "anna@example.com"}), screen({"case_id": "bob@example.com"})
    assert anna == {"case_id": screen.join_hash("email", "Anna@example.com")}
    assert anna != bob
    assert anna != Screen((), b"j" * 32)({"case_id": "anna@example.com"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, "0261-230-045") for name in words("kit part_number product_number variant invoice_number")),
        *((name, "0815-47112") for name in words("code case_number reference coupon couponCode")),
        ("slot", "0900-1800"),
        ("dims", "210 297 1000"),
        ("firmware", "2.1.0.15"),
        ("version", "2.1.0.15"),
        ("category", "10.20.30.40"),
        ("product_name", "Bosch 0242-235-666"),
        ("kits", ["0261-230-045"]),
    ],
)
def test_numbers_of_goods_and_papers_stay(field: str, value: object) -> None:
    data = {field: value, "deep": [{field: value}]}
    assert Screen()(data) is data


def test_names_of_goods_stay() -> None:
    for data in (
        {"product_id": "p1", "name": "Coffee 0242-235-666"},
        {"cart": [{"name": "Coffee"}], "basket": [{"name": "Tea"}], "plan": {"name": "Pro"}},
    ):
        assert Screen()(data) is data
    asked = {"product_id": "p1", "name": "Anna", "email": "anna@example.com"}
    assert Screen()(asked) == {"product_id": "p1"}


ADVERSARIAL = ["012 |1 ", "|0123 ", "| +1", "|1 ", "012| |1", "1|) |a"]
ADVERSARIAL += words(
    "012-|1|a 012-0|12-|a |012-|a |0123|a |+1|a +|1-|a |+|a |(|a 1|.|a |1.|a 1.2.3.|4a|b |a:|g |:|g |::|g "
    "a|a|: ?|birth|a |?birth|a |?|a ?|%5B|a |&a=|b |a@|b |a%40|b |%25|40 |%2540|b |＠a|b a@|b.|1 a@|b|1 |@|a "
    "|a|@ 1|(|a |a=@b|c |%|a 01|-23|a |555-|a 555-123-|1|a"
)


@pytest.mark.parametrize("text", ADVERSARIAL)
def test_time_is_linear_in_the_text(text: str) -> None:
    """Milliseconds, where one pattern that gives back takes minutes: hence the generous bound."""
    head, middle, tail = [*text.split("|"), ""][:3]
    long = head + middle * (32_768 // len(middle)) + tail
    began = process_time()
    Screen()({"note": long, "id": long + "@"})
    is_email(long)
    with suppress(Invalid):
        refuse_personal(long, "/customer_id")
    assert process_time() - began < 1


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
        ("tel:0171 1234567", "phone"),
        ("0049 171 1234567", "phone"),
        ("203.0.113.7", "IP"),
        ("2001:db8::1", "IP"),
        ("2001:db8:1:2:3:4:5:6", "IP"),
        ("anna%2540x.de", "e-mail"),
    ],
)
def test_id_that_names_a_person_is_refused_with_field_and_reason(text: str, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        refuse_personal(text, "/customer_id")
    assert (caught.value.code, caught.value.field) == ("bad_string", "/customer_id")
    assert what in caught.value.reason
    assert text not in caught.value.reason


@pytest.mark.parametrize(
    "text",
    [
        *words(
            "c1 0001234567 01711234567 anon-7:x a@b 2026-001-1234 0815-42 0170-123456 012-34 +49-12 10.0.0.1"
        ),
        *words("1:2:3 00:1a:2b:3c:4d:5e 9:30:00 Face:Add:Dead 192.168.1.20 img/logo@2x.png"),
        "user 12",
    ],
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
