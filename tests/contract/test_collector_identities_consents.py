"""What customers say of themselves: identities, links that events bring along, and consents."""

from __future__ import annotations

import pytest

from libs.common.contracts.customer_event import ConsentGiven, IdentityLinked, SpoolReported, Tick, Touchpoint
from tests.contract.collector_world import ISO_NOW, NOW, ORDER, VIEW, Collector


@pytest.mark.parametrize("kind", ["order_completed", "order_cancelled", "order_returned"])
async def test_order_with_both_ids_is_echoed_in_the_same_transaction(collector: Collector, kind: str) -> None:
    await collector.post({**ORDER, "type": kind, "anonymous_id": "v1", "id": "i"})
    ((event, echo),) = collector.journal.transactions
    assert isinstance(event, Touchpoint)
    assert isinstance(echo, Touchpoint)
    assert (event.customer, event.echo, event.internal) == ("c1", False, False)
    assert (echo.customer, echo.echo, echo.internal, echo.id) == ("anon:v1", True, True, "i")
    assert collector.journal.accepted() == {"dev": 1}


async def test_view_with_both_ids_makes_neither_echo_nor_link(collector: Collector) -> None:
    await collector.post({**VIEW, "anonymous_id": "v1"})
    assert [event.customer for event in collector.touchpoints] == ["c1"]
    assert len(collector.events) == 1


async def test_identity_is_a_link_and_an_owner_in_one_transaction(collector: Collector) -> None:
    answer = await collector.post({"customer_id": "c1", "anonymous_id": "v1"}, "/v1/identities")
    assert answer.status_code == 202
    ((link, owner),) = collector.journal.transactions
    assert isinstance(link, IdentityLinked)
    assert isinstance(owner, IdentityLinked)
    assert (link.customer, link.internal) == ("c1", False)
    assert (owner.customer, owner.internal) == ("anon:v1", True)
    assert collector.journal.accepted() == {"dev": 1}


async def test_identified_touchpoint_links_in_the_same_transaction(collector: Collector) -> None:
    await collector.post({"type": "identified", "channel": "web", "customer_id": "c1", "anonymous_id": "v1"})
    ((touchpoint, link, owner),) = collector.journal.transactions
    assert isinstance(touchpoint, Touchpoint)
    assert isinstance(link, IdentityLinked)
    assert (link.customer, owner.customer if not isinstance(owner, Tick | SpoolReported) else "") == (
        "c1",
        "anon:v1",
    )
    assert collector.journal.accepted() == {"dev": 1}


@pytest.mark.parametrize("missing", ["customer_id", "anonymous_id"])
async def test_identity_needs_both_ids(collector: Collector, missing: str) -> None:
    body = {"customer_id": "c1", "anonymous_id": "v1"}
    del body[missing]
    answer = await collector.post(body, "/v1/identities")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"/{missing}")


async def test_consent_is_kept(collector: Collector) -> None:
    said = {"customer_id": "c1", "purpose": "personalisation", "granted": False, "channel": "email"}
    answer = await collector.post({**said, "text_version": "v3", "source": "desk"}, "/v1/consents")
    assert answer.status_code == 202
    (event,) = collector.events
    assert isinstance(event, ConsentGiven)
    assert (event.customer, event.purpose, event.granted, event.channel) == (
        "c1", "personalisation", False, "email",
    )  # fmt: skip
    assert (event.text_version, event.said_at) == ("v3", "desk")
    assert (await collector.post({**said, "granted": "no"}, "/v1/consents")).status_code == 422


@pytest.mark.parametrize("proof", ["text_version", "source"])
@pytest.mark.parametrize(
    ("said", "kept"),
    [("3.1.0.2", "3.1.0.0"), ("+49 170 1234567", "[phone]"), ("a@shop.example", "[e-mail]")],
)
async def test_a_refusal_is_kept_whatever_its_proof_looks_like(
    collector: Collector, proof: str, said: str, kept: str
) -> None:
    body = {"customer_id": "c1", "purpose": "email", "granted": False, proof: said}
    assert (await collector.post(body, "/v1/consents")).status_code == 202
    (event,) = collector.events
    assert isinstance(event, ConsentGiven)
    assert (event.granted, event.text_version or event.said_at) == (False, kept)


@pytest.mark.parametrize(
    ("said", "kept"),
    [("9999-12-31T00:00:00Z", NOW), ("2001-01-01T00:00:00Z", 978_307_200_000), (ISO_NOW, NOW)],
)
async def test_word_given_in_the_far_future_can_be_taken_back(
    collector: Collector, said: str, kept: int
) -> None:
    body = {"customer_id": "c1", "purpose": "personalisation", "granted": True, "occurred_at": said}
    assert (await collector.post(body, "/v1/consents")).status_code == 202
    link = {"customer_id": "c1", "anonymous_id": "v1", "occurred_at": said}
    assert (await collector.post(link, "/v1/identities")).status_code == 202
    about = [event for event in collector.events if isinstance(event, ConsentGiven | IdentityLinked)]
    assert [event.occurred_at for event in about] == [kept] * 3


@pytest.mark.parametrize("path", ["/v1/identities", "/v1/consents"])
async def test_only_touchpoints_are_read_without_content_type(collector: Collector, path: str) -> None:
    answer = await collector.http.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
