"""The ledger: every record a service accepted has a fate, or is still on its way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

FATES = ("applied", "duplicate", "rejected", "dead_lettered", "erased")
UNKNOWN = "unknown"
"""Source of records that cannot be read far enough to know it."""


class SourceLine(Struct, frozen=True, kw_only=True):
    """Records of one source: ``accepted`` is the sum of all the others."""

    source: str
    accepted: int
    applied: int = 0
    duplicate: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    erased: int = 0
    in_flight: int = 0


class Unbalanced(Struct, frozen=True, kw_only=True):
    """A spool of which not every number up to ``applied`` has one fate in this partition."""

    spool: str
    partition: int
    applied: int
    fates: int


class Ledger(Struct, frozen=True, kw_only=True):
    """All sources together, and each.

    ``internal`` are records of the platform itself (ticks, echoes, owner records, reports), which are in no
    other figure. ``balanced``: for every spool and partition the fates add up to exactly as many records as
    its highest sequence number says. ``redelivered``, ``gaps`` and ``unmatched`` are told beside it: records
    that came again after a loss of the broker; records passed over because one before them was missing, which
    are in flight until their spool has sent all again; outcomes without known decision.
    """

    accepted: int
    applied: int
    duplicate: int
    rejected: int
    dead_lettered: int
    erased: int
    in_flight: int
    balanced: bool
    internal: int
    redelivered: int
    gaps: int
    unmatched: int
    by_source: list[SourceLine]
    unbalanced: list[Unbalanced]


def ledger(
    fates: Iterable[tuple[int, str, str, str, int]],
    accepted: Iterable[Mapping[str, int]],
    applied: Mapping[tuple[int, str], int],
    notes: Mapping[str, int],
) -> Ledger:
    """Sum up.

    Parameters
    ----------
    fates:
        (partition, spool, source, fate, number of records).
    accepted:
        What each spool said last it had accepted, by source.
    applied:
        Highest sequence number with a fate, by (partition, spool).
    notes:
        Counts told beside the fates.
    """
    by_source: dict[str, dict[str, int]] = {}
    decided = dict.fromkeys(applied, 0)
    internal = 0
    for partition, spool, source, fate, amount in fates:
        if (partition, spool) in decided:
            # Spools that have left are complete, and no number of theirs is kept to compare with.
            decided[partition, spool] += amount
        if fate == "internal":
            internal += amount
            continue
        counts = by_source.setdefault(source or UNKNOWN, {})
        counts[fate] = counts.get(fate, 0) + amount
    told: dict[str, int] = {}
    for report in accepted:
        for source, amount in report.items():
            told[source] = told.get(source, 0) + amount
    lines = [
        _line(source, by_source.get(source, {}), told.get(source, 0)) for source in sorted(by_source | told)
    ]
    unbalanced = [
        Unbalanced(spool=spool, partition=partition, applied=seq, fates=decided[partition, spool])
        for (partition, spool), seq in sorted(applied.items())
        if decided[partition, spool] != seq
    ]
    whole = {name: sum(getattr(line, name) for line in lines) for name in (*FATES, "accepted", "in_flight")}
    return Ledger(
        **whole,
        balanced=not unbalanced and all(line.in_flight >= 0 for line in lines),
        internal=internal,
        redelivered=notes.get("redelivered", 0),
        gaps=notes.get("gaps", 0),
        unmatched=notes.get("unmatched", 0),
        by_source=lines,
        unbalanced=unbalanced,
    )


def _line(source: str, counts: Mapping[str, int], told: int) -> SourceLine:
    done = sum(counts.values())
    # The report of a spool may be a second older than what has already been applied.
    accepted = max(told, done)
    return SourceLine(source=source, accepted=accepted, in_flight=accepted - done, **counts)
