"""Names, addresses and numbers of people: never on the journal, and never confused with ordinary ids."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.collector_world import VIEW, Collector


async def test_what_identifies_a_person_never_reaches_the_journal(collector: Collector) -> None:
    personal = {"email": "anna@example.com", "firstName": "Annabel", "deep": [{"phone": "+49 171 1234567"}]}
    free = {"product_id": "p1", "note": "ask anna@example.com", "traits": personal}
    answer = await collector.post(VIEW | {"properties": free, "context": {"ip": "203.0.113.7", "os": "x"}})
    assert answer.json()["accepted"] == 1
    (event,) = collector.touchpoints
    assert event.properties == {"product_id": "p1", "note": "ask [e-mail]", "traits": {"deep": [{}]}}
    assert event.context == {"os": "x"}
    metrics = (await collector.http.get("/metrics")).text
    assert "closedloop_collector_personal_withheld_total 5.0" in metrics
    assert "anna" not in metrics


@pytest.mark.parametrize(
    ("path", "item", "field"),
    [
        ("/v1/touchpoints", VIEW | {"customer_id": "anna@example.com"}, "/customer_id"),
        ("/v1/touchpoints", VIEW | {"anonymous_id": "+49 171 1234567"}, "/anonymous_id"),
        ("/v1/touchpoints", VIEW | {"account_id": "anna@example.com"}, "/account_id"),
        ("/v1/touchpoints", VIEW | {"id": "anna@example.com"}, "/id"),
        ("/v1/identities", {"customer_id": "c", "anonymous_id": "203.0.113.7"}, "/anonymous_id"),
        ("/v1/consents", {"customer_id": "c", "purpose": "p", "granted": True, "id": "a@b.org"}, "/id"),
        ("/v1/erasures", {"customer_id": "c", "id": "anna@example.com"}, "/id"),
    ],
)  # fmt: skip
async def test_id_that_names_a_person_is_refused(
    collector: Collector, path: str, item: dict[str, Any], field: str
) -> None:
    answer = await collector.post(item, path)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["code"], error["field"]) == ("bad_string", field)
    assert "anna" not in answer.json()["detail"]
    assert collector.events == []


async def test_customer_taken_under_an_address_once_can_be_erased(collector: Collector) -> None:
    for item in ({"customer_id": "anna@example.com"}, {"anonymous_id": "203.0.113.7"}):
        assert (await collector.post(item, "/v1/erasures")).status_code == 202
    assert len(collector.events) == 2


async def test_numbers_of_customers_and_orders_are_no_phone_numbers(collector: Collector) -> None:
    """Nor are firmware versions addresses of computers, where they are ids."""
    for name in ("0815-42", "0170-123456", "012-34", "1:2:3", "00:1a:2b:3c:4d:5e"):
        ids = {"customer_id": name, "anonymous_id": name, "account_id": name, "id": name}
        assert (await collector.post(VIEW | ids)).status_code == 202, name
    for name in ("+49 171 1234567", "203.0.113.7"):
        assert (await collector.post(VIEW | {"id": name})).status_code == 202, name


async def test_accounts_named_by_addresses_stay_apart(collector: Collector) -> None:
    for name in ("anna@example.com", "bob@example.com", "Anna@example.com"):
        await collector.post(VIEW | {"type": "team_joined", "properties": {"group_id": name}})
    anna, bob, same = (event.properties["group_id"] for event in collector.touchpoints)
    assert anna == same != bob
    assert "@" not in anna + bob
