"""Personal data is planted at every door, and a byte search over everything that keeps anything finds none.

Searched are the topics of the bus, all rows of PostgreSQL, all files of the data directory (spools, views,
logs, the database's own), what the platform printed, and the metrics of all services. A harmless word goes
through the same doors and must be found, so that a search that sees nothing fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from libs.common.contracts.topics import TOPICS
from tests.e2e.planting import (
    HARMLESS,
    HEADERS,
    IPV6,
    MAIL,
    NAME,
    PHONE,
    STREET,
    TRACES,
    plant_at_collector,
    plant_at_recommender_and_feedback,
    plant_in_dialects,
    plant_in_pages,
    plant_in_what_is_refused,
)
from tests.e2e.rig import Up, eventually
from tests.survival.reader import read_topic


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform on a directory that is not removed."""
    up = Up("--data-dir", str(tmp_path_factory.mktemp("personal") / "data"), "--no-holdout")
    try:
        yield up.wait_ready()
    finally:
        up.close()


@pytest.mark.timeout(300)
def test_nothing_personal_is_kept_anywhere(platform: Up) -> None:
    platform.client.headers.update(HEADERS)
    plant_at_collector(platform)
    plant_in_dialects(platform)
    plant_in_pages(platform)
    plant_at_recommender_and_feedback(platform)
    plant_in_what_is_refused(platform)
    settle(platform)
    kept = dict(everything(platform))
    found = {place: traces(text) for place, text in kept.items()}
    assert {place: named for place, named in found.items() if named} == {}
    seen = {place.partition(" ")[0] for place, text in kept.items() if HARMLESS.encode() in text}
    assert seen >= {"topic", "table", "file"}
    tables = {
        place for place, text in kept.items() if HARMLESS.encode() in text and place.startswith("table")
    }
    assert tables >= {"table analyzer.models", "table analyzer.dead_letters"}
    assert any("views" in place for place, text in kept.items() if HARMLESS.encode() in text)
    print({place: len(text) for place, text in kept.items() if not place.startswith("file postgres")})


def settle(up: Up) -> None:
    """Wait until all that was accepted is applied, and decisions lie in the database."""

    def done() -> bool:
        ledger = up.get("analyzer", "/v1/ledger").json()
        return bool(ledger["balanced"] and ledger["in_flight"] == 0 and ledger["dead_lettered"] >= 1)

    eventually(done, 30)
    eventually(lambda: len(up.get("recommender", f"/v1/decisions?customer={HARMLESS}-1").json()) >= 1, 20)


def everything(up: Up) -> Iterator[tuple[str, bytes]]:
    """All that is kept, by place."""
    topics: dict[str, bytes] = {topic.name: b"" for topic in TOPICS}
    for one in read_topic(up.record["kafka"], *topics):
        parts = (one.key(), one.value(), str(one.headers()).encode())
        topics[one.topic()] += b"\n".join(part for part in parts if part)
    yield from ((f"topic {name}", text) for name, text in topics.items())
    yield from asyncio.run(rows_of(up.record["postgres"]))
    for service in ("collector", "analyzer", "recommender", "feedback", "learner"):
        yield f"metrics {service}", up.get(service, "/metrics").content
    yield "printed", up.output.encode()
    for path in up.data_dir.rglob("*"):
        if path.is_file():
            yield f"file {path.relative_to(up.data_dir)}", path.read_bytes()


async def rows_of(postgres: str) -> list[tuple[str, bytes]]:
    """All rows of all tables: in its files the database keeps long values packed."""
    connection = await asyncpg.connect(postgres, timeout=30)
    found = []
    try:
        names = await connection.fetch(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for schema, table in names:
            rows = await connection.fetch(f'SELECT * FROM "{schema}"."{table}"')
            values = [value for row in rows for value in row.values()]
            texts = [
                value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
                for value in values
            ]
            found.append((f"table {schema}.{table}", b"\n".join(texts)))
    finally:
        await connection.close(timeout=5)
    return found


def traces(text: bytes) -> list[str]:
    """What is personal in ``text``, with what stands around it."""
    small = text.lower()
    places = [(kind, small.find(trace)) for kind, all_of in TRACES.items() for trace in all_of]
    return [f"{kind}: {text[max(0, at - 60) : at + 60]!r}" for kind, at in places if at >= 0]


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    planted = {
        "e-mail address": MAIL,
        "name": NAME,
        "street": STREET,
        "phone number": PHONE,
        "IP address": IPV6,
    }
    for kind, value in planted.items():
        assert [one.partition(":")[0] for one in traces(b"\x00..." + value.encode() + b"...")] == [
            kind
        ] or kind in str(traces(value.encode()))
