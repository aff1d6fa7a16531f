"""A learner with its store, catalogue and bus in memory, and orders for it to learn from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import numpy as np

from libs.common.bus.memory import MemoryBus
from libs.common.clock import SECOND
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.learned_model import Manifest, decode_learned
from libs.common.contracts.marker import MARKER_KEY, Marker, decode_marker
from libs.common.contracts.topics import LEARNED_MODELS, TOPICS
from libs.common.scoring.learned import LearnedAssembler
from libs.common.telemetry import Metrics
from services.analyzer.learner.complements import ComplementParameters
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.goods import GoodsParameters
from services.analyzer.learner.loop import Learner
from services.analyzer.learner.memory import MemoryLearnerStore
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.model.lessons import LessonLine, OrderLesson, encode_lesson

T0 = 1_700_000_000_000
S0 = T0 // SECOND
SMALL = Parameters(
    goods=GoodsParameters(complements=ComplementParameters(ridge=2.0, support=2.0, neighbours=20))
)


def lesson(n: int, products: list[str], at: int) -> OrderLesson:
    lines = [LessonLine(product_id, 1.0, None) for product_id in products]
    return OrderLesson(customer=f"c{n}", at=at, occurred_at=at, order_id=f"o{n}", lines=lines)


def orders(count: int, products: int = 40, prefix: str = "p") -> list[OrderLesson]:
    random = np.random.default_rng(8)
    return [
        lesson(n, [f"{prefix}{p}" for p in random.choice(products, size=6, replace=False)], T0 + n * 137)
        for n in range(count)
    ]


def folded(lessons: list[OrderLesson]) -> Fold:
    fold = Fold(SMALL)
    for n, one in enumerate(lessons):
        fold.learn_one(Place(one.at // SECOND, 0, n), one)
        if (at := fold.goods.due(one.at)) is not None:
            fold.goods.accept(fold.goods.solve(at), at)
    return fold


def _twelve(n: int) -> int:
    return n % PARTITIONS


class Rig:
    """A learner's surroundings: store, bus, and a reader that follows the topic."""

    def __init__(self) -> None:
        self.store = MemoryLearnerStore()
        self.bus = MemoryBus()
        self.assembler = LearnedAssembler()
        self.manifests: list[Manifest] = []
        self.markers: list[Marker] = []

    @classmethod
    async def ready(cls, lessons: list[OrderLesson], partition_of: Callable[[int], int] = _twelve) -> Rig:
        rig = cls()
        await rig.bus.ensure_topics(TOPICS)
        for n, one in enumerate(lessons):
            rig.store.rows[Place(one.at // SECOND, partition_of(n), n)] = encode_lesson(one)
        return rig

    def passes(self, second: int) -> None:
        self.store.journal_times = dict.fromkeys(range(PARTITIONS), second * SECOND)

    def learner(self, **changes: Any) -> Learner:
        pauses: dict[str, Any] = {
            "poll_seconds": 0.001,
            "publish_seconds": 0.0,
            "checkpoint_seconds": 0.0,
            "watch_seconds": 0.01,
        }
        pauses |= changes
        return Learner(
            self.store, self.bus, LearnerMetrics(Metrics("learner")), Random(1), parameters=SMALL, **pauses
        )

    @asynccontextmanager
    async def running(self, learner: Learner) -> AsyncIterator[Learner]:
        task = asyncio.create_task(learner.run())
        yield learner
        await learner.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def read(self) -> None:
        for message in self.bus.records(LEARNED_MODELS):
            assert message.value is not None
            if message.key == MARKER_KEY:
                self.markers.append(decode_marker(message.value))
                continue
            self.assembler.put(message.key, message.value)
            record = decode_learned(message.value)
            if isinstance(record, Manifest):
                self.manifests.append(record)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.002)
