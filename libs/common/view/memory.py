"""A view without disk: for what is small and soon read again, and for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from libs.common.bus.ports import Bus, Message
from libs.common.contracts.topics import HEADER_REVISION
from libs.common.view.entries import Entry, entry_of, is_dropped
from libs.common.view.follower import Follower, OnBatch
from libs.common.view.places import Places


class MemoryView(Follower):
    """The same as `View` without disk: filled by `put` or, where a bus is given, from its topic."""

    def __init__(self, bus: Bus | None = None, topic: str = "", on_batch: OnBatch | None = None) -> None:
        super().__init__(bus, topic, on_batch)
        self._entries: dict[bytes, Entry] = {}
        self._forgotten: dict[bytes, int] = {}

    def put(
        self, key: bytes, value: bytes | None, revision: int | None = None, *more: tuple[str, bytes]
    ) -> None:
        """Set (None: delete) one entry; a revision lower than the stored one is ignored."""
        headers = more if revision is None else ((HEADER_REVISION, b"%d" % revision), *more)
        message = Message(self._topic, 0, 0, key, value, headers, 0)
        if self._store(self._places, [message]) and self._on_batch is not None:
            self._on_batch([message])

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry.body

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with ``prefix``, in byte order."""
        found = [
            (key, entry.body)
            for key, entry in self._entries.items()
            if entry.body is not None and key.startswith(prefix)
        ]
        return iter(sorted(found))

    def gone(self) -> list[bytes]:
        """As `View.gone`."""
        return [
            key
            for key, entry in self._entries.items()
            if entry.body is None and self._forgotten.get(key, -1) < entry.revision
        ]

    def was_deleted(self, key: bytes) -> bool:
        """As `View.was_deleted`."""
        entry = self._entries.get(key)
        return entry is not None and entry.body is None

    async def forget(self, keys: Sequence[bytes]) -> None:
        """As `View.forget`; keys in memory need no hash."""
        for key in self.gone():
            if key in keys:
                self._forgotten[key] = self._entries[key].revision

    async def compact(self) -> None:
        """As `View.compact`: there is no file."""

    def _store(self, places: Places, messages: Sequence[Message]) -> list[Message]:
        news = []
        for message in messages:
            held = self._entries.get(message.key)
            if held is not None and not held.takes(message):
                continue
            if is_dropped(message):
                if held is not None and held.body is not None:
                    del self._entries[message.key]
                    news.append(message)
                continue
            entry = self._entries[message.key] = entry_of(message, places.round)
            if held is None or (held.revision, held.body) != (entry.revision, entry.body):
                news.append(message)
        return news

    def _drop(self, places: Places, first: bytes, limit: int) -> tuple[list[Message], bytes | None]:
        keys = sorted(key for key in self._entries if key >= first)
        dropped = []
        for key in keys[:limit]:
            entry = self._entries[key]
            partition = entry.partition
            if partition in places.due and entry.body is not None and entry.round < places.began(partition):
                self._entries[key] = entry._replace(round=places.round, body=None)
                dropped.append(Message(self._topic, partition, -1, key, None, (), 0))
        return dropped, keys[limit] if len(keys) > limit else None
