"""Dead letters as values: where a record came from, why it is dead, and what became of it since."""

from __future__ import annotations

from typing import NamedTuple

from libs.common.clock import Millis


class DeadLetter(NamedTuple):
    """A record that can never be processed: where it came from, and why."""

    partition: int
    cluster: str
    offset: int
    spool: str
    seq: int
    source: str
    code: str
    reason: str
    journal_time: Millis
    key: bytes
    value: bytes | None


class Buried(NamedTuple):
    """A dead letter in its table: how often it was replayed in vain, and when (journal time) it left."""

    id: int
    letter: DeadLetter
    asked: bool = False
    attempts: int = 0
    replayed_at: Millis | None = None


class Replayed(NamedTuple):
    """What a replay made of a dead letter; ``code`` and ``reason`` say why it stays one, where it does."""

    id: int
    code: str = ""
    reason: str = ""


class LetterFilter(NamedTuple):
    """Which dead letters: all that is given must hold; ``since`` and ``until`` are journal times."""

    id: int | None = None
    code: str | None = None
    partition: int | None = None
    since: Millis | None = None
    until: Millis | None = None

    def holds(self, row: Buried) -> bool:
        """Whether a dead letter is one of them."""
        letter = row.letter
        return (
            self.id in (None, row.id)
            and self.code in (None, letter.code)
            and self.partition in (None, letter.partition)
            and (self.since is None or letter.journal_time >= self.since)
            and (self.until is None or letter.journal_time < self.until)
        )
