"""A finished draft as the write of one transaction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from libs.common.clock import DAY, Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.handlers.draft import Draft
from services.analyzer.handlers.fates import DEDUPE_WINDOW
from services.analyzer.handlers.folding import idle_timers, model_rows, trial_rows
from services.analyzer.ports import SliceWrite

SILENCE: Millis = 30 * DAY
"""How long a spool stays in `applied` that sends nothing, in journal time."""


def written(draft: Draft, looked_at: Collection[CustomerKey] = ()) -> SliceWrite:
    """All that ``draft`` changes, for one transaction; the timers of ``looked_at`` are over."""
    counters = dict(draft.state.counters)
    for key, amount in draft.fates.items():
        counters[key.fate] = counters.get(key.fate, 0) + amount
    applied, leaves = _staying(draft)
    state = replace(
        draft.state,
        next_offset=draft.next_offset,
        number=draft.number,
        journal_time=draft.journal_time,
        applied=applied,
        leaves=leaves,
        counters=counters,
        notes=draft.notes,
    )
    new_day = draft.journal_time // DAY > draft.state.journal_time // DAY
    return SliceWrite(
        state=state,
        before=draft.state,
        events=draft.events,
        ids=draft.ids,
        models=[*model_rows(draft.state.partition, draft.customers), *draft.withdrawn],
        trials=trial_rows(draft.state.partition, draft.customers),
        timers=idle_timers(draft.state.partition, draft.customers, looked_at, draft.journal_time),
        lessons=draft.lessons,
        facts=draft.facts,
        dead_letters=draft.dead_letters,
        reports=list(draft.reports.values()),
        fates=draft.fates,
        forget_before=draft.journal_time - DEDUPE_WINDOW if new_day else None,
        waiting=draft.waiting,
        met=draft.met,
        replays=draft.replays,
        erased=draft.erased,
        notices=draft.notices,
    )


def _staying(draft: Draft) -> tuple[dict[str, int], dict[str, Millis]]:
    """`applied` without the spools whose time is over, which keeps progress bounded; and who leaves when."""
    # By days, so that what is stored changes once a day only.
    silent = (draft.journal_time // DAY + 1) * DAY + SILENCE
    leaves = dict.fromkeys(draft.applied, silent)
    leaves.update(draft.state.leaves)
    leaves.update(dict.fromkeys(draft.sent, silent))
    leaves.update(dict.fromkeys(draft.ended & draft.applied.keys(), draft.journal_time + DAY))
    # Trap: not those of whom this slice is the first to tell; their spools are to learn of it once.
    now = draft.state.journal_time
    gone = {spool for spool, at in draft.state.leaves.items() if at <= now and at == leaves[spool]}
    applied = {spool: seq for spool, seq in draft.applied.items() if spool not in gone}
    return applied, {spool: at for spool, at in leaves.items() if spool not in gone}
