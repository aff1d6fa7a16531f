"""Segment's identify, alias and group: links of visitors, and accounts."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

from libs.common.contracts.customer_event import IdentityLinked
from libs.common.keys import KeyFile
from tests.contract.collector_world import Collector, collecting
from tests.contract.segment_world import TRACK, only


async def test_identify_links_the_visitor(collector: Collector) -> None:
    message = {"userId": "c1", "anonymousId": "v1", "traits": {"plan": "gold"}, "messageId": "m1"}
    answer = await collector.post(message, "/v1/identify")
    assert answer.json()["accepted"] == 1
    (said,) = collector.touchpoints
    links = [event for event in collector.events if isinstance(event, IdentityLinked)]
    assert (said.type, said.customer, said.properties) == ("identified", "c1", {"plan": "gold"})
    assert [(link.customer, link.customer_id, link.anonymous_id) for link in links] == [
        ("c1", "c1", "v1"),
        ("anon:v1", "c1", "v1"),
    ]


async def test_identify_of_a_known_customer_links_nothing(collector: Collector) -> None:
    event = await only(collector, {"userId": "c1", "traits": []}, "/v1/i")
    assert (event.type, event.customer) == ("identified", "c1")
    assert len(collector.events) == 1


async def test_rudderstack_says_traits_in_the_context(collector: Collector) -> None:
    event = await only(collector, {"userId": "c1", "context": {"traits": {"plan": "gold"}}}, "/v1/identify")
    assert (event.properties, event.context) == ({"plan": "gold"}, {})
    refused = await collector.post({"userId": "c1", "context": {"traits": "gold"}}, "/v1/identify")
    assert refused.json()["errors"][0]["field"] == "/traits"


async def test_alias_links_the_previous_id(collector: Collector) -> None:
    answer = await collector.post({"userId": "c1", "previousId": "v1", "messageId": "m1"}, "/v1/alias")
    assert answer.json()["accepted"] == 1
    assert [
        (event.customer, event.customer_id, event.anonymous_id, event.internal)
        for event in collector.events
        if isinstance(event, IdentityLinked)
    ] == [("c1", "c1", "v1", False), ("anon:v1", "c1", "v1", True)]
    assert collector.touchpoints == []
    refused = await collector.post({"userId": "c1"}, "/v1/a")
    assert refused.json()["errors"][0]["field"] == "/previousId"
    refused = await collector.post({"anonymousId": "v1", "previousId": "v2"}, "/v1/a")
    (error,) = refused.json()["errors"]
    assert (error["field"], error["reason"]) == ("/userId", "userId must be given")


async def test_group_names_the_account(collector: Collector) -> None:
    event = await only(collector, {"userId": "c1", "groupId": 12, "traits": {"plan": "gold"}}, "/v1/group")
    assert (event.type, event.account_id) == ("group_joined", "12")
    assert event.properties == {"plan": "gold", "group_id": "12"}
    refused = await collector.post({"userId": "c1"}, "/v1/g")
    assert refused.json()["errors"][0]["field"] == "/groupId"


async def test_later_calls_carry_the_account_in_their_context(collector: Collector) -> None:
    event = await only(collector, {**TRACK, "context": {"groupId": "acme"}})
    assert event.account_id == "acme"


async def test_a_browser_speaks_for_a_customer_by_signature_only(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    assert made.identity_secret is not None
    signature = hmac.new(made.identity_secret.encode(), b"c1", hashlib.sha256).hexdigest()
    headers = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    seen = {"anonymousId": "v1", "userId": "c1", "event": "Seen"}
    async with collecting(tmp_path) as collector:

        async def post(message: dict[str, Any], path: str = "/v1/t") -> int:
            return (await collector.post(message, path, headers=headers)).status_code

        assert await post(seen) == 200
        assert await post({**seen, "context": {"customer_signature": "0" * 64}}) == 200
        assert await post({**seen, "context": {"customer_signature": signature}}) == 200
        assert [event.customer for event in collector.touchpoints] == ["anon:v1", "anon:v1", "c1"]
        assert [event.customer_id for event in collector.touchpoints] == [None, None, "c1"]
        assert await post({"userId": "c1", "event": "Seen"}) == 422
        assert await post({"userId": "c1", "previousId": "v1"}, "/v1/a") == 422
        assert await post({"userId": "c1", "anonymousId": "v1"}, "/v1/i") == 200
        assert not [event for event in collector.events if isinstance(event, IdentityLinked)]
        metrics = (await collector.http.get("/metrics")).text
        assert "closedloop_collector_unsigned_customers_total 5.0" in metrics
