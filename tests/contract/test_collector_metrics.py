"""What the collector shows of who posts what, and what it never shows."""

from __future__ import annotations

from pathlib import Path

from tests.contract.collector_world import collecting


async def test_events_are_counted_by_key_and_known_channel(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector:
        seen = {"type": "product_viewed", "customer_id": "c-1"}
        for channel in ("web", "web", "store", "hologram"):
            await collector.post({**seen, "channel": channel})
        order = {"type": "order_completed", "channel": "web", "customer_id": "c-1", "anonymous_id": "v-1"}
        line = {"product_id": "p", "quantity": 1, "price": 2}
        await collector.post({**order, "properties": {"order_id": "o", "products": [line]}})
        await collector.post({"customer_id": "c-1", "anonymous_id": "v-1"}, "/v1/identities")
        text = (await collector.http.get("/metrics")).text
    name = "closedloop_collector_events_total"
    assert f'{name}{{channel="web",source="dev"}} 3.0' in text
    assert f'{name}{{channel="store",source="dev"}} 1.0' in text
    assert f'{name}{{channel="other",source="dev"}} 1.0' in text
    assert f'{name}{{channel="none",source="dev"}} 1.0' in text
    assert 'closedloop_collector_last_accepted_timestamp_seconds{source="dev"}' in text
    assert "hologram" not in text
    assert "c-1" not in text
