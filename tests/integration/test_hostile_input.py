"""Hostile callers at all four services: nothing answers 5xx, each refusal says why, others do not notice.

Some hundred cases each; five thousand, at a whole platform, by ``python -m tests.hostile``.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

import pytest

from tests.hostile import beside
from tests.hostile.bad_inputs import BAD, Bad, as_agreed, post
from tests.hostile.fuzz import by_bytes, by_document, stands
from tests.hostile.stage import KEY, Stage, staged


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage")) as one:
        yield one
        assert stands(one) == []


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.service} {bad.name}" for bad in BAD])
def test_each_bad_input_has_its_reason(stage: Stage, bad: Bad) -> None:
    heard = post(stage, bad)
    assert as_agreed(bad, heard), heard


@pytest.mark.timeout(300)
def test_requests_made_of_the_openapi_document(stage: Stage) -> None:
    told = by_document(stage, "feedback", examples=2)
    assert told.failures == [], "\n".join(told.failures)
    assert told.cases >= 4
    assert told.server_errors == 0


@pytest.mark.timeout(300)
def test_bodies_spoiled_at_every_place(stage: Stage) -> None:
    told = by_bytes(stage, 200)
    assert [failure for one in told.values() for failure in one.failures] == []
    assert sum(one.cases for one in told.values()) == 200


@pytest.mark.timeout(120)
def test_slow_senders_and_huge_headers_are_cut_off_and_hurt_nobody(stage: Stage) -> None:
    async def run() -> tuple[beside.Latencies, dict[str, tuple[str, float]]]:
        ends = asyncio.create_task(beside.cut_off(stage.url("collector"), f"Bearer {KEY}"))
        found = await beside.measure(
            stage.url("collector"), f"Bearer {KEY}", slow=100, huge=4, seconds=2.0, rounds=2
        )
        return found, await ends

    found, ends = asyncio.run(run())
    print(beside.table(found), ends)
    assert set(found.statuses) == {202}
    assert found.others.keys() <= {"431", "408", "closed"}
    assert ends["64 kB head"][0] in ("431", "closed")
    assert ends["slow head"][0] in ("408", "closed")
    assert 8 < ends["slow head"][1] < 60
    assert ends["slow body"][0] in ("408", "closed")
    assert 25 < ends["slow body"][1] < 90
    # Whatever else this machine does: a service that waited for them would answer after seconds.
    assert statistics.median(found.beside) < 1_000
