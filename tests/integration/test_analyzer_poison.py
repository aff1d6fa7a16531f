"""Strings that a database refuses, and keys that fit nowhere: dead letters, never a crash at every start."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from libs.common.contracts.customer_event import Erasure, IdentityLinked, Touchpoint
from libs.common.contracts.identity import partition_of
from tests.integration.analyzer_world import C7, Rig, base, clicked, decision, ledger_of, view

pytestmark = pytest.mark.embedded

LONG = "".join(chr(0x4E00 + 7 * n) for n in range(1_200))


@pytest.mark.parametrize("bad", ["v\x00", LONG], ids=["nul", "long"])
async def test_ids_no_table_can_hold_are_dead_letters(rig: Rig, bad: str) -> None:
    await rig.claim(C7)
    poison: list[Any] = [
        clicked(bad),
        view("v-1", anonymous_id=bad),
        view("v-2", customer_id=bad),
        msgspec.structs.replace(decision("d-1"), anonymous_id=bad),
        decision(bad),
        IdentityLinked(**base("l-1"), customer_id="c-7", anonymous_id=bad),
        Erasure(**base("e-1"), linked=bad),
        Erasure(**base("e-2"), erasure=bad),
        Erasure(**base(bad)),
    ]
    undecodable = msgspec.json.encode({"kind": "nothing", "source": bad})
    await rig.processor.process(C7, rig.messages(*poison, undecodable, view("v-3")))
    await rig.processor.process(C7, rig.messages(Erasure(**base("e-3")), first=len(poison) + 3))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.dead_lettered) == (2, len(poison) + 1)


@pytest.mark.parametrize(
    ("field", "number"),
    [("cell", 1 << 70), ("cell", -1), ("rank", 1 << 70), ("rank", -(1 << 63) - 1), ("assumed_shown", 10**12)],
)
async def test_numbers_nothing_can_hold_are_dead_letters(rig: Rig, field: str, number: int) -> None:
    await rig.claim(C7)
    good = msgspec.structs.replace(decision("d-1"), assumed_shown=1)
    if field == "assumed_shown":
        poison = [msgspec.structs.replace(good, assumed_shown=number)]
    else:
        offers = (msgspec.structs.replace(good.offers[0], **{field: number}),)
        poison = [msgspec.structs.replace(good, offers=offers), msgspec.structs.replace(good, ghosts=offers)]
    async with asyncio.timeout(20):
        await rig.processor.process(C7, rig.messages(*poison, good))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.dead_lettered) == (1, len(poison))


async def test_longest_ids_the_contract_allows_are_applied(rig: Rig) -> None:
    """256 characters, of whatever script."""
    longest = "\U0001f600" * 256
    key = next(k for n in range(100) if partition_of(k := f"anon:{n:04}{longest[4:]}") == C7)
    await rig.claim(C7)
    both = {"customer": key, "anonymous_id": key.removeprefix("anon:"), "source": longest}
    events = [
        msgspec.structs.replace(decision("\U0001f600" * 128), customer=key),
        Touchpoint(**{**base("v-1"), **both}, type="t", channel="web"),
        Touchpoint(**{**base(longest), **both}, customer_id=longest, type="t", channel="web"),
        msgspec.structs.replace(clicked(longest[:128]), customer=key),
        Erasure(**{**base(longest), "customer": key}),
    ]
    messages = rig.messages(*events)
    await rig.processor.process(C7, messages)
    assert (await ledger_of(rig)).applied == 5
