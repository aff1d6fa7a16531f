"""How far a view has read, in which cluster, and what a marker will make it drop."""

from __future__ import annotations

import logging

import msgspec
from msgspec import Struct

from libs.common.bus.ports import Message
from libs.common.contracts.marker import MARKER_KEY, decode_marker

_log = logging.getLogger(__name__)


class Places(Struct, frozen=True, array_like=True):
    """Kept beside the content, in the same transaction.

    Every entry carries the round in which it was last seen. A round begins when a topic, or one partition
    of it, has to be read from its start again: on another cluster, or when the log was made anew. Once the
    marker of a partition has come and all was read, entries of earlier rounds are gone.

    Parameters
    ----------
    cluster:
        What ``offsets`` belong to; empty before the first contact.
    offsets:
        By partition: the next offset to read.
    round:
        The newest round; entries that are written now carry it.
    base:
        Round in which all partitions began anew last; ``begun`` holds those that did so later.
    marked:
        By partition: number of the newest marker ever seen, over all clusters.
    due:
        Partitions whose marker of this round has come, and that are not swept yet.
    swept:
        By partition: the round up to which it is swept; ``whole`` holds for those not named.
    """

    cluster: str = ""
    offsets: dict[int, int] = {}
    round: int = 0
    base: int = 0
    begun: dict[int, int] = {}
    marked: dict[int, int] = {}
    due: frozenset[int] = frozenset()
    swept: dict[int, int] = {}
    whole: int = 0

    def began(self, partition: int) -> int:
        """The round from which on entries of ``partition`` are of the present log."""
        return max(self.base, self.begun.get(partition, 0))

    def is_swept(self, partition: int) -> bool:
        """Whether ``partition`` holds nothing of an earlier log."""
        return self.began(partition) <= max(self.whole, self.swept.get(partition, 0))

    def met(self, cluster: str) -> Places:
        """After another cluster than before was met; on the first contact there is nothing to sweep."""
        return msgspec.structs.replace(
            self,
            cluster=cluster,
            offsets={},
            round=self.round + 1,
            base=self.round + 1,
            begun={},
            due=frozenset(),
            whole=self.whole if self.cluster else self.round + 1,
        )

    def after(self, messages: list[Message]) -> Places:
        """After ``messages`` were read: offsets, logs that began anew, and markers."""
        offsets, begun, marked = dict(self.offsets), dict(self.begun), dict(self.marked)
        due, newest = set(self.due), self.round
        unnoticed = set()
        for message in messages:
            partition = message.partition
            if message.offset < offsets.get(partition, 0):
                _log.warning("%s/%d was made anew", message.topic, partition)
                newest += 1
                begun[partition] = newest
                due.discard(partition)
            offsets[partition] = message.offset + 1
            number, before = self._marker(message), marked.get(partition)
            if number < (before or 0):
                continue
            marked[partition] = number
            if max(self.base, begun.get(partition, 0)) > max(self.whole, self.swept.get(partition, 0)):
                due.add(partition)
            elif before is not None and number > before:
                unnoticed.add(partition)
        for partition in unnoticed:
            # The log was made anew and has grown past our place: what came before it was never read.
            newest += 1
            begun[partition] = newest
            offsets[partition] = 0
        return msgspec.structs.replace(
            self, offsets=offsets, begun=begun, marked=marked, due=frozenset(due), round=newest
        )

    def cleared(self, partitions: frozenset[int]) -> Places:
        """After ``partitions`` were swept."""
        swept = {**self.swept, **{partition: self.began(partition) for partition in partitions}}
        return msgspec.structs.replace(self, swept=swept, due=self.due - partitions)

    def _marker(self, message: Message) -> int:
        """The number of a marker of this cluster; −1 for anything else."""
        if message.key != MARKER_KEY or message.value is None:
            return -1
        try:
            marker = decode_marker(message.value)
        except msgspec.DecodeError:
            _log.error("a marker of %s is unreadable", message.topic)
            return -1
        return marker.number if marker.cluster == self.cluster else -1


_decoder = msgspec.msgpack.Decoder(Places)


def encode_places(places: Places) -> bytes:
    return msgspec.msgpack.encode(places)


def decode_places(data: bytes) -> Places:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(data)
