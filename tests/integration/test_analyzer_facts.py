"""Facts and lessons that are written with the event that tells them."""

from __future__ import annotations

import msgspec
import pytest

from deploy.local.postgres import EmbeddedPostgres
from libs.common.db import Database
from services.analyzer.model.facts import Decided, Ordered, SoldLine, decode_fact
from services.analyzer.model.lessons import OrderLesson, decode_lesson
from services.analyzer.store.postgres import PostgresAnalyzerStore
from services.analyzer.store.reading import PostgresReadStore
from tests.integration.analyzer_world import C7, T0, Rig, decision, lessons, order, story, word


async def test_lesson_is_written_with_the_order(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*story()))
    rows = await lessons(rig.stores)
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [(C7, 2, (T0 + 1_005) // 1000, "order")]
    lesson = decode_lesson(rows[0][4])
    assert isinstance(lesson, OrderLesson)
    assert lesson.at == T0 + 1_005
    assert lesson.lines == [("coffee", 2.0, 7.5), ("filter", 1.0, None)]


@pytest.mark.embedded
async def test_facts_are_read_by_an_index_and_for_longer_than_other_statements(
    embedded_postgres: EmbeddedPostgres,
) -> None:
    database, hasty = (
        Database(embedded_postgres.address, size=2),
        Database(embedded_postgres.address, size=2, timeout=0.3),
    )
    schema = f"analyzer_{word()}"
    await PostgresAnalyzerStore(database, schema).prepare()
    async with database.bulk() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = await connection.fetch(
            f"EXPLAIN SELECT * FROM {schema}.facts WHERE kind = 'ordered' ORDER BY partition, number"
        )
        assert "facts_kind" in str(plan)
        assert "Sort" not in str(plan)
        await connection.execute(
            f"ALTER TABLE {schema}.facts RENAME TO many;"
            f"INSERT INTO {schema}.many VALUES (1, 2, 'c', 3, 'ordered', 'x');"
            f"CREATE VIEW {schema}.facts AS SELECT many.* FROM {schema}.many, pg_sleep(0.8)"
        )
    rows = [row async for rows in PostgresReadStore(hasty, schema).facts() for row in rows]
    assert [row.number for row in rows] == [2]
    await hasty.close()
    await database.close()


async def test_facts_are_written_with_what_tells_them(rig: Rig) -> None:
    await rig.claim(C7)
    left_out = [
        msgspec.structs.replace(decision("d-forced", T0 + 8_000), forced=True),
        msgspec.structs.replace(decision("d-replay", T0 + 8_001), replay=True),
        msgspec.structs.replace(order("o-unsure", T0 + 8_002, ("tea", 1, 1.0)), learn=False),
        msgspec.structs.replace(order("o-echo", T0 + 8_003, ("tea", 1, 1.0)), echo=True),
    ]
    await rig.processor.process(C7, rig.messages(*story(), *left_out))
    rows = [row async for rows in rig.stores.reading.facts() for row in rows]
    assert [(row.number, row.customer, row.kind) for row in rows] == [
        (3, "c-7", "decided"),
        (2, "c-7", "ordered"),
    ]
    decided, ordered = (decode_fact(row.body) for row in rows)
    assert decided == Decided("basket", "treatment")
    assert ordered == Ordered("o-1", (SoldLine("coffee", 2.0, 7.5), SoldLine("filter", 1.0, None)))
    await rig.processor.process(C7, rig.messages(decision("d-2", T0 + 9_000), first=20))
    rows = [row async for rows in rig.stores.reading.facts() for row in rows if row.kind == "decided"]
    assert min(row.at for row in rows) == T0 + 3_000
    assert {row.number for row in rows} >= {3}
