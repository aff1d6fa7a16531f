"""What a rebuild teaches anew: learned models, and trials judged alike live and anew."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from libs.common.clock import DAY, SECOND
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_event import Touchpoint
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.store import PostgresLearnerStore
from services.analyzer.model.lessons import TrialLesson, decode_lesson
from services.analyzer.rebuild.run import rebuild
from tests.integration.rebuild_world import T0, Live, apart, lessons_of, offered, story, ticks

pytestmark = pytest.mark.embedded


async def elect(live: Live, catalogue: Catalogue | None = None) -> tuple[PostgresLearnerStore, int]:
    """A learner that has learned all there is and left a checkpoint."""
    store = PostgresLearnerStore(live.database)
    async with store.leadership() as claim:
        fold = Fold(catalogue=catalogue)
        watermark = await store.watermark()
        assert watermark is not None
        fold.learn_many(await store.lessons(Place(), watermark, 100_000))
        await store.checkpoint(claim.epoch, fold.place, checkpoint.save(fold))
    return store, claim.epoch


async def test_learned_models_are_the_same_where_nothing_changed(live: Live) -> None:
    await live.take(*story(900))
    await live.tick(T0 + 2_000 * SECOND)
    store, epoch = await elect(live)
    before = await store.lineage()
    assert (await rebuild(live.plan())).learned is True
    assert await store.lineage() == before
    assert before is not None
    assert before.epoch == epoch


async def test_choices_are_learned_anew_with_the_catalogue_of_the_live_learner(live: Live) -> None:
    await live.take(*story(900))
    await live.tick(T0 + 2_000 * SECOND)
    catalogue = Catalogue()
    products = [
        Product(product_id=f"p{n}", name="-", category=f"c{n % 4}", price=1.0 + n, currency="EUR")
        for n in range(30)
    ]
    catalogue.remember(products)
    store, _ = await elect(live, catalogue)
    lineage = await store.lineage()
    assert lineage is not None
    learned = checkpoint.restore(lineage.checkpoint, Parameters())
    assert learned is not None
    assert learned.choice.logit.samples > 50
    assert (await rebuild(live.plan())).learned is True


async def test_who_is_gone_from_the_events_is_gone_from_the_learned_models(live: Live) -> None:
    secret = {"order_id": "o-secret", "products": [{"product_id": "only-his", "price": 1.0}]}
    about: dict[str, Any] = {"source": "shop", "customer": "u-1", "occurred_at": T0, "recorded_at": T0}
    his = Touchpoint(**about, id="x", type="order_completed", channel="web", properties=secret)
    await live.take(his, *story(900))
    await live.tick(T0 + 2_000 * SECOND)
    store, epoch = await elect(live)
    lineage = await store.lineage()
    assert lineage is not None
    assert b"only-his" in (lineage.checkpoint or b"")
    async with live.database.bulk() as connection:
        await connection.execute("DELETE FROM analyzer.events WHERE customer = 'u-1'")
    outcome = await rebuild(live.plan())
    assert outcome.learned is False
    after = await store.lineage()
    assert after is not None
    assert after.checkpoint is not None
    assert b"only-his" not in after.checkpoint
    assert after.epoch == epoch + 1
    assert await live.rows("SELECT 1 FROM analyzer.lessons WHERE body LIKE '%only-his%'::bytea") == []
    assert (await rebuild(live.plan())).learned is True


async def test_trials_are_judged_alike_live_and_anew_for_those_too_who_never_come_back(live: Live) -> None:
    events = [*offered(400), *ticks(T0 + 60 * DAY)]
    draw = random.Random(9)
    rest = events
    while rest:
        size = draw.randint(1, 90)
        await live.take(*rest[:size])
        rest = rest[size:]
        if rest and draw.random() < 0.3:
            await live.tick(max(event.recorded_at for event in events[: len(events) - len(rest)]))
    digest, lessons = await apart(events)
    assert await live.digest() == digest
    told = await lessons_of(live)
    assert told == lessons
    steps = Counter(trial.step for trial in trials_of(told))
    assert min(steps[step] for step in ("shown", "look", "engaged", "converted")) > 3
    assert any(trial.judged and trial.ghost for trial in trials_of(told))
    outcome_ = await rebuild(live.plan())
    assert (outcome_.live, outcome_.rebuilt, outcome_.models, outcome_.lessons) == (digest, digest, 0, 0)
    assert await lessons_of(live) == told


def trials_of(rows: Sequence[tuple[Any, ...]]) -> list[TrialLesson]:
    found = [decode_lesson(row[4]) for row in rows]
    return [lesson for lesson in found if isinstance(lesson, TrialLesson)]


async def test_trials_that_were_damaged_are_served_anew_and_go_on(live: Live) -> None:
    events = [*offered(200, days=3), *ticks(T0 + 4 * DAY)]
    await live.take(*events)
    digest, told = await live.digest(), await lessons_of(live)
    async with live.database.connection() as connection:
        await connection.execute("UPDATE analyzer.trials SET due = 1, body = 'x' WHERE number % 2 = 0")
        await connection.execute("DELETE FROM analyzer.trials WHERE number % 3 = 0")
        await connection.execute("DELETE FROM analyzer.lessons WHERE kind = 'trial' AND number % 2 = 0")
    outcome_ = await rebuild(live.plan())
    assert (outcome_.live == digest, outcome_.rebuilt) == (False, digest)
    assert outcome_.models > 0 < outcome_.lessons
    assert (await live.digest(), await lessons_of(live)) == (digest, told)
    more = [*offered(50, seed=6, first=500, days=3), *ticks(T0 + 30 * DAY)]
    later = [msgspec.structs.replace(event, recorded_at=event.recorded_at + 4 * DAY) for event in more]
    await live.take(*later)
    whole, lessons = await apart([*events, *later])
    assert await live.digest() == whole
    # A switch takes order numbers of its own, so that only what was taught is compared.
    assert [row[4] for row in await lessons_of(live)] == [row[4] for row in lessons]
