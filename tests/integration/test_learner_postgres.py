"""The learner on a real PostgreSQL: canonical order, elections, checkpoints, what is published."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from pydantic import SecretStr

from libs.common.bus.memory import MemoryBus
from libs.common.clock import SECOND
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.marker import MARKER_KEY
from libs.common.contracts.topics import LEARNED_MODELS, TOPICS
from libs.common.db import Database
from libs.common.errors import Fenced
from libs.common.runtime import running
from libs.common.scoring.learned import LearnedAssembler
from libs.common.telemetry import Metrics
from services.analyzer.learner.app import create_service
from services.analyzer.learner.complements import ComplementParameters
from services.analyzer.learner.fold import Parameters, Place
from services.analyzer.learner.goods import GoodsParameters
from services.analyzer.learner.loop import Learner
from services.analyzer.learner.memory import MemoryLearnerStore
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.learner.settings import LearnerSettings
from services.analyzer.learner.store import PostgresLearnerStore
from services.analyzer.model.lessons import LessonLine, OrderLesson, encode_lesson
from services.analyzer.store.reading import PostgresReadStore

pytestmark = pytest.mark.embedded

T0 = 1_700_000_000_000
S0 = T0 // SECOND
SMALL = Parameters(
    goods=GoodsParameters(complements=ComplementParameters(ridge=2.0, support=2.0, neighbours=20))
)


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_url, size=6)
    yield database
    await database.close()


@pytest.fixture
async def schema(database: Database) -> str:
    name = "learner_" + "".join(chr(ord("a") + int(digit, 16)) for digit in uuid.uuid4().hex[:8])
    await PostgresLearnerStore(database, name).prepare()
    return name


def rows() -> list[tuple[Place, bytes]]:
    random = np.random.default_rng(4)
    made = []
    for n in range(300):
        products = [f"p{p}" for p in random.choice(40, size=5, replace=False)]
        lesson = OrderLesson(
            customer=f"c{n}",
            at=T0 + n * 137,
            occurred_at=T0 + n * 137,
            order_id=f"o{n}",
            lines=[LessonLine(product_id, 1.0, None) for product_id in products],
        )
        made.append((Place(lesson.at // SECOND, int(random.integers(PARTITIONS)), n), encode_lesson(lesson)))
    return made


async def write(database: Database, schema: str, lessons: list[tuple[Place, bytes]]) -> None:
    shuffled = [lessons[at] for at in np.random.default_rng(1).permutation(len(lessons))]
    async with database.bulk() as connection:
        await connection.executemany(
            f"INSERT INTO {schema}.lessons (second, partition, number, part, kind, body)"
            " VALUES ($1, $2, $3, $4, 'order', $5)",
            [(*place, body) for place, body in shuffled],
        )


async def passes(database: Database, schema: str, second: int, partitions: int = PARTITIONS) -> None:
    async with database.bulk() as connection:
        await connection.execute(f"DELETE FROM {schema}.partitions")
        columns = await connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = $1 AND table_name = 'partitions' AND is_nullable = 'NO'",
            schema,
        )
        given = {"smallint": "0", "bigint": "0", "text": "''", "jsonb": "'{}'", "boolean": "false"}
        names = [row[0] for row in columns]
        for partition in range(partitions):
            own = {"partition": str(partition), "journal_time": str(second * SECOND)}
            values = [own.get(row[0], given.get(row[1], "DEFAULT")) for row in columns]
            await connection.execute(
                f"INSERT INTO {schema}.partitions ({', '.join(names)}) VALUES ({', '.join(values)})"
            )


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def learner_on(store: PostgresLearnerStore | MemoryLearnerStore, bus: MemoryBus) -> Learner:
    return Learner(
        store,
        bus,
        LearnerMetrics(Metrics("learner")),
        Random(1),
        parameters=SMALL,
        poll_seconds=0.01,
        publish_seconds=0.05,
        checkpoint_seconds=0.0,
    )


async def until_folded(learner: Learner, second: int) -> None:
    task = asyncio.create_task(learner.run())
    await until(lambda: learner.passed >= second * SECOND)
    await learner.stop()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def stored(database: Database, schema: str) -> tuple[Place, bytes]:
    async with database.connection() as connection:
        row = await connection.fetchrow(f"SELECT second, partition, number, body FROM {schema}.learner_state")
    return Place(*row[:3]), row[3]


async def test_state_equals_that_of_a_learner_in_memory_restarts_included(
    database: Database, schema: str
) -> None:
    lessons = rows()
    await write(database, schema, lessons)
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    for second in (S0 + 5, S0 + 20, S0 + 60):
        await passes(database, schema, second)
        await until_folded(learner_on(PostgresLearnerStore(database, schema), bus), second)
    twin = MemoryLearnerStore()
    twin.rows = dict(lessons)
    twin.journal_times = dict.fromkeys(range(PARTITIONS), (S0 + 60) * SECOND)
    await until_folded(learner_on(twin, bus), S0 + 60)
    place, body = await stored(database, schema)
    assert place == max(place for place, _ in lessons) == twin.place
    assert body == twin.body


async def test_nothing_is_folded_while_a_partition_was_never_heard_of(
    database: Database, schema: str
) -> None:
    store = PostgresLearnerStore(database, schema)
    assert await store.watermark() is None
    await passes(database, schema, S0, PARTITIONS - 1)
    assert await store.watermark() is None
    await passes(database, schema, S0)
    assert await store.watermark() == S0


async def test_one_learner_is_elected_and_the_next_fences_it_off(database: Database, schema: str) -> None:
    first, second = PostgresLearnerStore(database, schema), PostgresLearnerStore(database, schema)
    entered = asyncio.Event()

    async def wait() -> int:
        async with second.leadership() as claim:
            entered.set()
            return claim.epoch

    async with first.leadership() as claim:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.7)
        assert not entered.is_set()
        await first.checkpoint(claim.epoch, Place(1, 2, 3), b"state")
        assert await first.next_version(claim.epoch) == 1
    assert await waiting == claim.epoch + 1
    with pytest.raises(Fenced):
        await first.checkpoint(claim.epoch, Place(9, 9, 9), b"zombie")
    with pytest.raises(Fenced):
        await first.next_version(claim.epoch)
    assert await stored(database, schema) == (Place(1, 2, 3), b"state")
    async with second.leadership() as later:
        assert (later.version, later.checkpoint) == (1, b"state")


async def test_service_publishes_what_the_models_page_says(
    postgres_url: str, database: Database, tmp_path: Path
) -> None:
    """The learner as put together for real, on the analyzer's own schema."""
    bus = MemoryBus()
    settings = LearnerSettings(
        data_dir=tmp_path, postgres=SecretStr(postgres_url), poll_seconds=0.02, publish_seconds=0.1
    )
    async with running(create_service(settings, bus=bus)):
        await write(database, "analyzer", rows())
        await passes(database, "analyzer", S0 + 60)
        reading = PostgresReadStore(database)
        async with asyncio.timeout(20):
            while (said := await reading.learned()) is None or said.orders != 300:
                await asyncio.sleep(0.05)
    assembler = LearnedAssembler()
    for message in bus.records(LEARNED_MODELS):
        assert message.value is not None
        if message.key != MARKER_KEY:
            assembler.put(message.key, message.value)
    models = assembler.models
    assert (models.version, models.journal_time) == (said.version, said.journal_time)
    assert models.journal_time == (S0 + 60) * SECOND
    assert models.orders == 300
    assert len(models.popularity.products) == 40
    assert models.complements.of(models.popularity.products[0])
