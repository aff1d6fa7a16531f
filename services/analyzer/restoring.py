"""Before anything is served: erasures that the database does not know of, because it was restored."""

from __future__ import annotations

import logging
from dataclasses import replace

from libs.common.contracts.customer_event import Erasure
from libs.common.contracts.identity import PARTITIONS
from services.analyzer.handlers.slices import SliceHandler
from services.analyzer.model.erased import KeyHasher
from services.analyzer.model.erasures import SuppressedRow
from services.analyzer.ports import ErasedKeys, RestoreStore

_log = logging.getLogger(__name__)


class Restoring:
    """Applies again what the file of erased keys says and the database does not.

    Erases every customer whose hash is among it, as the erasure did at its time; who else named him hears
    of it by notices. Run at each start, before partitions are claimed: nearly always there is nothing to do.
    """

    def __init__(self, store: RestoreStore, file: ErasedKeys, hasher: KeyHasher) -> None:
        self._store = store
        self._file = file
        self._hasher = hasher

    async def apply(self) -> int:
        """Make database and file say the same; answers how many customers were erased again.

        Raises `Fenced` where somebody claims a partition meanwhile: what is done stays, the rest is to be
        done again.
        """
        async with self._store.restoring():
            return await self._apply()

    async def _apply(self) -> int:
        wanted = self._file.read()
        again = 0
        known: list[SuppressedRow] = []
        for partition in range(PARTITIONS):
            rows = await self._store.suppressed(partition)
            known += [SuppressedRow(partition, hashed, erasure) for hashed, erasure in rows.items()]
            missing = {row.hash: row.erasure for row in wanted if row.partition == partition}
            missing = {hashed: erasure for hashed, erasure in missing.items() if hashed not in rows}
            if missing:
                again += await self._erase(partition, missing)
        self._file.add(known)
        return again

    async def _erase(self, partition: int, missing: dict[bytes, str]) -> int:
        _log.warning(
            "the database does not know of erasures: it was restored, they are applied again",
            extra={"partition": partition, "count": len(missing)},
        )
        handler = SliceHandler(self._store, self._hasher)
        keys = await self._store.keys_in(partition)
        # Trap: not before the keys are read, which may take minutes: its owner would have it back by then.
        state = await self._store.seize(partition)
        again = 0
        for key in keys:
            if (hashed := self._hasher(key)) not in missing:
                continue
            event = Erasure(
                id=missing[hashed],
                source="analyzer",
                customer=key,
                occurred_at=state.journal_time,
                recorded_at=state.journal_time,
                internal=True,
            )
            write = await handler.erase(state, event)
            await self._store.write(write)
            state = replace(write.state)
            again += 1
        await self._store.suppress(SuppressedRow(partition, *row) for row in missing.items())
        # Who claimed it meanwhile has not read those.
        await self._store.seize(partition)
        return again
