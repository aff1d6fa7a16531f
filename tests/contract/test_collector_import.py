"""Old events: the window of thirty days, and imports, which take any past time from who may manage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from libs.common.clock import DAY
from libs.common.keys import KeyFile, Scope
from tests.contract.collector_world import ISO_NOW, NOW, VIEW, Collector, collecting


@pytest.mark.parametrize(
    ("occurred_at", "learned"),
    [
        (ISO_NOW, True),
        ("2025-09-09T08:53:20Z", True),
        ("2025-09-09T08:53:19Z", False),
        ("2025-10-09T08:58:20", True),
        ("2025-10-09T08:58:21", False),
        ("0001-01-01T00:00:00Z", False),
        ("9999-12-31T23:59:59.999Z", False),
    ],
)
async def test_event_outside_the_window_is_kept_flagged_and_not_learned(
    collector: Collector, occurred_at: str, learned: bool
) -> None:
    assert (await collector.post({**VIEW, "occurred_at": occurred_at})).status_code == 202
    (event,) = collector.touchpoints
    assert (event.learn, event.flags) == (learned, () if learned else ("out_of_window",))
    assert event.recorded_at == NOW


async def test_import_takes_any_past_time(collector: Collector) -> None:
    old = {**VIEW, "occurred_at": "1999-05-01"}
    answer = await collector.post(old, "/v1/touchpoints?mode=import")
    assert answer.status_code == 202
    (event,) = collector.touchpoints
    assert (event.learn, event.flags) == (True, ("imported",))


async def test_import_without_manage_is_named_what_it_lacks(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("shop", [Scope.COLLECT]).key
    async with collecting(tmp_path) as collector:
        collector.http.headers["authorization"] = f"Bearer {key}"
        answer = await collector.post({**VIEW, "occurred_at": "1999-05-01"}, "/v1/touchpoints?mode=import")
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
        assert "manage" in answer.json()["detail"]


async def test_import_needs_no_other_scope_than_manage(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("loader", [Scope.MANAGE]).key
    headers = {"authorization": f"Bearer {key}"}
    async with collecting(tmp_path) as collector:
        answer = await collector.post(VIEW, "/v1/touchpoints?mode=import", headers=headers)
        assert answer.status_code == 202
        answer = await collector.post(VIEW, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_unknown_mode_is_refused(collector: Collector) -> None:
    answer = await collector.post(VIEW, "/v1/touchpoints?mode=replay")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "/mode")


async def test_import_takes_bodies_up_to_ten_megabytes(collector: Collector) -> None:
    item = {**VIEW, "context": {"page": "x" * 8_000}}
    body = json.dumps([item] * 400)
    headers = {"content-type": "application/json"}
    assert (await collector.http.post("/v1/touchpoints", content=body, headers=headers)).status_code == 413
    answer = await collector.http.post("/v1/touchpoints?mode=import", content=body, headers=headers)
    assert (answer.status_code, answer.json().get("accepted")) == (202, 400)


async def test_thirty_days_is_the_edge_of_the_window(collector: Collector) -> None:
    collector.clock.tick(30 * DAY)
    await collector.post({**VIEW, "occurred_at": ISO_NOW})
    collector.clock.tick(1)
    await collector.post({**VIEW, "occurred_at": ISO_NOW})
    assert [event.learn for event in collector.touchpoints] == [True, False]
