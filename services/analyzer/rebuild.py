"""``python -m services.analyzer.rebuild``: fold all stored events anew, and compare digests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from hashlib import sha256

from libs.common.contracts.customer_event import SpoolReported, Tick, decode_event
from libs.common.contracts.identity import PARTITIONS, is_nobody
from libs.common.db import Database
from libs.common.errors import ClosedloopError
from services.analyzer.errors import NotEmpty
from services.analyzer.handlers.folding import Changed, assemble, fold_into, lesson_row, model_rows
from services.analyzer.model.cache import ModelCache
from services.analyzer.model.fold import Models
from services.analyzer.ports import LessonRow, RebuildStore, StoredEvent
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.rebuilding import PostgresRebuildStore

SCRATCH = "analyzer_rebuild"
"""Schema beside the live one where models are folded anew for a comparison."""

ATTEMPTS = 3


async def models_digest(store: RebuildStore) -> str:
    """SHA-256 over all (customer, part, body) in order: equal digests mean equal models."""
    digest = sha256()
    async for rows in store.all_models():
        for row in rows:
            for piece in (row.customer.encode(), row.part.encode(), row.body):
                digest.update(len(piece).to_bytes(8, "big"))
                digest.update(piece)
    return digest.hexdigest()


async def rebuild(source: RebuildStore, target: RebuildStore, *, cache_bytes: int = 64_000_000) -> str:
    """Fold the events of all partitions in ``source`` from nothing into ``target``, which must be empty.

    Writes models and lessons; returns the digest of the models. Raises `NotEmpty`.
    """
    if not await target.is_empty():
        raise NotEmpty("a rebuild needs empty tables: drop the target schema or name another")
    for partition in range(PARTITIONS):
        cache = ModelCache(cache_bytes)
        async for events in source.events(partition):
            await _fold_slice(target, partition, cache, events)
    return await models_digest(target)


async def _fold_slice(
    target: RebuildStore, partition: int, cache: ModelCache, events: Sequence[StoredEvent]
) -> None:
    customers = await _models(target, partition, cache, events)
    lessons: list[LessonRow] = []
    for stored in events:
        event = decode_event(stored.body)
        if isinstance(event, Tick | SpoolReported):
            continue
        learned = fold_into(customers, event, stored.journal_time, stored.number)
        if learned.row is not None:
            lessons.append(lesson_row(partition, stored.number, stored.journal_time, learned.row))
    rows = model_rows(partition, customers)
    await target.put(rows, lessons)
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.customer] = sizes.get(row.customer, 0) + len(row.body)
    for key, changed in customers.items():
        cache.put(key, changed.models, sizes.get(key, 0))


async def _models(
    target: RebuildStore, partition: int, cache: ModelCache, events: Sequence[StoredEvent]
) -> dict[str, Changed]:
    keys = {event.customer for event in events if not is_nobody(event.customer)}
    found = {key: models for key in sorted(keys) if (models := cache.get(key)) is not None}
    missing = sorted(keys - found.keys())
    stored = assemble(await target.models(partition, missing)) if missing else {}
    found |= {key: stored.get(key) or Models.new(key) for key in missing}
    return {key: Changed(models) for key, models in found.items()}


async def compare(postgres: str) -> tuple[str, str]:
    """Digest of the live models, and of those folded anew in a scratch schema that is dropped again.

    Where events went on arriving meanwhile it is done again, as a comparison would mean nothing.
    """
    database = Database(postgres, size=4, timeout=60.0)
    live, scratch = PostgresRebuildStore(database), PostgresRebuildStore(database, SCRATCH)
    try:
        for _ in range(ATTEMPTS):
            before = await live.events_stored()
            await scratch.drop()
            await scratch.prepare()
            rebuilt = await rebuild(live, scratch)
            digest = await models_digest(live)
            if await live.events_stored() == before:
                break
        await scratch.drop()
    finally:
        await database.close()
    return digest, rebuilt


def main() -> int:
    """Print both digests; exit status 1 where they differ, 2 where it cannot be done."""
    settings = AnalyzerSettings()
    try:
        live, rebuilt = asyncio.run(compare(settings.postgres.get_secret_value()))
    except ClosedloopError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"live {live}\nrebuilt {rebuilt}")
    return 0 if live == rebuilt else 1


if __name__ == "__main__":
    sys.exit(main())
