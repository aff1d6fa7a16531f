"""A finished draft as the write of one transaction."""

from __future__ import annotations

from dataclasses import replace

from libs.common.clock import DAY
from services.analyzer.handlers.draft import Draft
from services.analyzer.handlers.fates import DEDUPE_WINDOW
from services.analyzer.handlers.folding import model_rows
from services.analyzer.ports import SliceWrite


def written(draft: Draft) -> SliceWrite:
    """All that ``draft`` changes, for one transaction."""
    counters = dict(draft.state.counters)
    for key, amount in draft.fates.items():
        counters[key.fate] = counters.get(key.fate, 0) + amount
    state = replace(
        draft.state,
        next_offset=draft.next_offset,
        number=draft.number,
        journal_time=draft.journal_time,
        applied=draft.applied,
        counters=counters,
        notes=draft.notes,
    )
    new_day = draft.journal_time // DAY > draft.state.journal_time // DAY
    return SliceWrite(
        state=state,
        events=draft.events,
        ids=draft.ids,
        models=model_rows(draft.state.partition, draft.customers),
        lessons=draft.lessons,
        dead_letters=draft.dead_letters,
        reports=list(draft.reports.values()),
        fates=draft.fates,
        forget_before=draft.journal_time - DEDUPE_WINDOW if new_day else None,
    )
