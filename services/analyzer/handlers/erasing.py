"""Erasures: what goes, what must not come back, and who else must be told.

An erasure is a slice of its own, so that everything before it is stored. Each partition takes out what lies
in it; other partitions hear by notices, rows of the same transaction that are put on the journal until they
have acted on them. Whatever order all this arrives in, the end is the same: what names the erased is
removed where it is stored, and dropped where it comes later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import msgspec

from libs.common.clock import Millis
from libs.common.contracts.customer_event import (
    AboutCustomer,
    Erasure,
    SpoolReported,
    Tick,
    Touchpoint,
    decode_event,
    encode_event,
)
from libs.common.contracts.customer_model import ITEMS, PROFILE
from libs.common.contracts.identity import ANONYMOUS, CustomerKey, frozen_key, is_anonymous
from libs.common.errors import Invalid
from services.analyzer.handlers.draft import ERASED, INTERNAL, Draft
from services.analyzer.handlers.folding import Changed, drop_idle, fire, fold_into
from services.analyzer.model.arrival import (
    FIRST_TIME,
    LAST_TIME,
    UNREADABLE,
    Arrival,
    id_hash,
    is_internal,
)
from services.analyzer.model.erased import echoed_under, links_to, named_by, nobodys, without
from services.analyzer.model.erasures import Erased, EventRow, Notice
from services.analyzer.model.fold import Models
from services.analyzer.model.owners import time_of
from services.analyzer.ports import (
    ModelRow,
    StoredEvent,
)


def spare(draft: Draft, arrival: Arrival) -> Arrival | None:
    """``arrival`` as far as it is about nobody erased; None where it is dropped, and counted."""
    known = arrival.event
    if not draft.suppressed or type(known) is Tick or type(known) is SpoolReported or type(known) is Erasure:
        return arrival
    event: AboutCustomer | None = known
    if event is None:
        key = (arrival.message.key or b"").decode("utf-8", "replace")
        if draft.hasher(key) not in draft.suppressed:
            return arrival
        draft.count(arrival, ERASED)
        return None
    if (erasure := draft.suppressed.get(draft.hasher(event.customer))) is not None:
        draft.notices += _notices(draft, erasure, event, [event])
        _drop(draft, arrival, event)
        return None
    for key in named_by(event):
        if draft.hasher(key) not in draft.suppressed:
            continue
        left = without(event, key) or _owner_gone(draft, event, key)
        if left is None:
            _drop(draft, arrival, event)
            return None
        event = left
    if event is arrival.event:
        return arrival
    message = arrival.message._replace(value=encode_event(event))
    return arrival._replace(event=event, message=message, hash=id_hash(event))


def _owner_gone(draft: Draft, event: AboutCustomer, key: CustomerKey) -> AboutCustomer | None:
    """A visitor who belongs to somebody is nobody's from here on, where an erased customer claims him."""
    left = nobodys(event, key)
    return left if left is not None and draft.customers[event.customer].models.profile.owner else None


def _drop(draft: Draft, arrival: Arrival, event: AboutCustomer) -> None:
    draft.journal_time = max(draft.journal_time, event.recorded_at)
    draft.count(arrival, INTERNAL if is_internal(event) else ERASED)


def erase(draft: Draft, event: Erasure) -> None:
    """Take out what ``event`` asks for; ``draft.past`` holds all events of its customer."""
    draft.number += 1
    linked = event.linked
    profile = draft.customers[event.customer].models.profile
    if linked is None:
        _erase_whole(draft, event, event.customer)
    elif (
        event.owned
        and is_anonymous(event.customer)
        and profile.owner in (None, linked)
        and profile.frozen.count(linked) == len(profile.frozen)
    ):
        _erase_whole(draft, event, event.customer, linked)
    else:
        _forget(draft, event, linked)


def _erase_whole(draft: Draft, event: Erasure, *about: CustomerKey) -> None:
    key, erasure = event.customer, event.erasure or event.id
    past = [known for stored in draft.past if (known := _decoded(stored)) is not None]
    profile = draft.customers[key].models.profile
    draft.erased = Erased(
        customer=key,
        erasure=erasure,
        mark=draft.hasher(*about),
        suppressed=draft.hasher(key),
        recorded_at=event.recorded_at,
        journal_time=draft.journal_time,
        whole=True,
        events=[EventRow(stored.recorded_at, stored.number) for stored in draft.past],
        ids=[id_hash(known) for known in past],
        times=[(FIRST_TIME, LAST_TIME)],
    )
    # Links that the events no longer tell of (a model without its events) count too.
    draft.notices += _notices(draft, erasure, event, past, profile.links)
    keys = [key, *(frozen_key(key, n) for n in range(1, len(profile.frozen) + 1))]
    _withdraw(draft, keys)
    del draft.customers[key]


def _withdraw(draft: Draft, keys: Iterable[CustomerKey]) -> None:
    draft.withdrawn += [
        ModelRow(draft.state.partition, key, part, draft.number, b"")
        for key in sorted(keys)
        for part in (ITEMS, PROFILE)
    ]


def _forget(draft: Draft, event: Erasure, linked: CustomerKey) -> None:
    """The customer stays, but nothing of his names ``linked`` any more; where links go he is folded anew.

    Of a visitor key that several share, what it did in the time of ``linked`` goes with him.
    """
    key = event.customer
    gone: list[EventRow] = []
    rewritten: list[EventRow] = []
    kept: list[tuple[StoredEvent, AboutCustomer]] = []
    naming = msgspec.json.encode(linked.removeprefix(ANONYMOUS))
    refold = False
    read = [(stored, _decoded(stored)) for stored in draft.past]
    his = time_of(linked, ((stored.number, known) for stored, known in read if known is not None))
    for stored, known in read:
        if known is not None and (ownerless := nobodys(known, linked)) is not None:
            refold = True
            rewritten.append(EventRow(stored.recorded_at, stored.number, encode_event(ownerless)))
            kept.append((stored, ownerless))
        elif event.owned and any(stored.number in time for time in his):
            refold = True
            gone.append(EventRow(stored.recorded_at, stored.number))
        elif known is None:
            if naming in stored.body:
                gone.append(EventRow(stored.recorded_at, stored.number))
        elif linked not in named_by(known):
            kept.append((stored, known))
        elif (left := without(known, linked)) is None:
            # An echo tells of an order: trials are not converted by what nobody knows of any more.
            refold |= links_to(known, linked) or (type(known) is Touchpoint and known.echo)
            gone.append(EventRow(stored.recorded_at, stored.number))
        else:
            rewritten.append(EventRow(stored.recorded_at, stored.number, encode_event(left)))
            kept.append((stored, left))
    draft.erased = Erased(
        customer=key,
        erasure=event.erasure or event.id,
        mark=draft.hasher(key, linked),
        suppressed=draft.hasher(linked),
        recorded_at=event.recorded_at,
        journal_time=draft.journal_time,
        whole=False,
        events=gone,
        rewritten=rewritten,
        naming=naming,
        times=_journal_times(draft.past, his) if event.owned else (),
    )
    if refold:
        _fold_anew(draft, key, kept)


def _journal_times(past: Sequence[StoredEvent], times: Sequence[range]) -> list[tuple[Millis, Millis]]:
    """From and to, of ``times`` in numbers of events."""
    at = {stored.number: stored.journal_time for stored in past}
    return [(at.get(time.start, FIRST_TIME), at.get(time.stop, LAST_TIME)) for time in times]


def _fold_anew(draft: Draft, key: CustomerKey, kept: list[tuple[StoredEvent, AboutCustomer]]) -> None:
    """The model of ``key`` and its frozen parts, as what is ``kept`` of its events tells them."""
    anew = {key: Changed(Models.new(key))}
    for stored, known in kept:
        # As a rebuild does: what the present code cannot fold any more must not stop an erasure.
        with contextlib.suppress(Invalid):
            fold_into(anew, known, stored.journal_time, stored.number)
    # What falls due is not learned again.
    fire(anew, draft.state.partition, draft.state.journal_time)
    drop_idle(anew, draft.state.journal_time, draft.number)
    changed = draft.customers[key]
    frozen = len(changed.models.profile.frozen)
    refolded, before = anew.pop(key), changed.models.items.items
    changed.models, changed.profile, changed.erased = refolded.models, draft.number, True
    if refolded.items or before:
        changed.items = draft.number
    _withdraw(draft, {frozen_key(key, n) for n in range(1, frozen + 1)} - anew.keys())
    for part, models in anew.items():
        draft.customers[part] = Changed(models.models, draft.number, draft.number, erased=True)


def _notices(
    draft: Draft,
    erasure: str,
    cause: AboutCustomer,
    events: Iterable[AboutCustomer],
    links: Sequence[CustomerKey] = (),
) -> list[Notice]:
    """Whom ``events`` name: they may name the customer of ``cause``, and must hear that he is erased."""
    key = cause.customer
    owned = dict.fromkeys(links, True)
    for event in events:
        for other in echoed_under(event):
            owned[other] = owned.get(other, False) or links_to(event, other)
    return [
        Notice(
            partition=draft.state.partition,
            erasure=erasure,
            mark=draft.hasher(target, key),
            target=target,
            linked=key,
            owned=is_his,
            recorded_at=cause.recorded_at,
        )
        for target, is_his in owned.items()
        if not (type(cause) is Erasure and target == cause.linked)
    ]


def _decoded(stored: StoredEvent) -> AboutCustomer | None:
    """None for what the present code cannot read."""
    try:
        event = decode_event(stored.body)
    except UNREADABLE:
        return None
    return None if (type(event) is Tick or type(event) is SpoolReported) else event


def notice_event(notice: Notice) -> Erasure:
    """``notice`` as a record of the journal; its id is the same however often it is sent."""
    return Erasure(
        id=f"{notice.erasure}/{notice.mark.hex()}",
        source="analyzer",
        customer=notice.target,
        occurred_at=notice.recorded_at,
        recorded_at=notice.recorded_at,
        internal=True,
        linked=notice.linked,
        owned=notice.owned,
        erasure=notice.erasure,
    )
