"""From POST to the model: what is posted to the collector is read at the analyzer, type by type."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from deploy.local.touchpoints import ACTIVE, BEFORE, COUNTED, changes
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.touchpoint import VOCABULARY
from libs.common.http.tables import lines_of
from libs.common.keys import KeyFile
from services.collector.model import AssetIn
from tests.contract.collector_world import Collector, collecting
from tests.contract.test_analyzer_api import Caller, analyzing

DAY_1, DAY_2 = "2025-10-07T09:00:00Z", "2025-10-08T10:00:00Z"


class Loop:
    """A collector and an analyzer; what the first takes is carried to the second."""

    def __init__(self, collector: Collector, analyzer: Caller) -> None:
        self.collector = collector
        self.analyzer = analyzer
        self._carried = 0

    async def post(self, body: Any, path: str = "/v1/touchpoints") -> None:
        answer = await self.collector.post(body, path)
        assert (answer.status_code, answer.json()["rejected"]) == (202, []), answer.text
        await self.carry()

    async def carry(self) -> None:
        events = self.collector.events[self._carried :]
        self._carried += len(events)
        await self.analyzer.happen(*events)

    async def customer(self, key: str) -> dict[str, Any]:
        view: dict[str, Any] = await self.analyzer.get(f"/v1/customers/{key}")
        return view


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[Loop]:
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(collecting(tmp_path / "c"))
        analyzer = await stack.enter_async_context(analyzing(tmp_path / "a"))
        yield Loop(collector, analyzer)


def said(type_: str, customer: str, at: str = DAY_2, **more: Any) -> dict[str, Any]:
    """The example of a type, of this customer."""
    one = VOCABULARY[type_]
    body = {"type": type_, "channel": one.channel, "customer_id": customer, "occurred_at": at}
    return {**body, "properties": {**one.example, **more.pop("properties", {})}, **more}


async def test_each_example_changes_what_its_page_says_and_stands_in_the_timeline(loop: Loop) -> None:
    await loop.post([said("page_viewed", name, DAY_1) for name in VOCABULARY])
    await loop.post([said(past, name, DAY_1) for name, pasts in BEFORE.items() for past in pasts])
    before = {name: await loop.customer(name) for name in VOCABULARY}
    await loop.post([said(name, name) for name in VOCABULARY])
    table: dict[str, set[str]] = {}
    for name, one in VOCABULARY.items():
        after = await loop.customer(name)
        table[name] = {part for part in after if after[part] != before[name][part]}
        assert after["totals"][name] == before[name]["totals"].get(name, 0) + 1
        newest = (await loop.analyzer.get(f"/v1/customers/{name}/timeline"))[0]
        assert (newest["type"], newest["channel"], newest["properties"]) == (name, one.channel, one.example)
    # Counts fade between the two days, and who was there yesterday is not new: those are left out.
    always = COUNTED | ACTIVE | {"items"}
    told = {name: set(changes(name)) - always for name in VOCABULARY}
    assert {name: parts - always for name, parts in table.items()} == told
    for name, one in VOCABULARY.items():
        assert table[name] >= COUNTED
        assert ("recent" in table[name]) is not (one.outbound or name == "call_missed"), name


async def test_what_is_answered_is_a_contact_of_its_campaign(loop: Loop) -> None:
    await loop.post([said("email_sent", "c-1", DAY_1, id=f"s{i}", properties={"campaign_id": c}) for i, c in
                     enumerate("abb")])  # fmt: skip
    await loop.post([said("email_clicked", "c-1", id=f"k{i}", properties={"campaign_id": "a"}) for i in "12"])
    written = said("email_delivered", "c-1", "2025-10-09T08:00:00Z")
    await loop.post(written)
    view = await loop.customer("c-1")
    assert [(one["campaign"], one["answered"]) for one in view["contacts"]] == [
        ("b", False), ("b", False), ("a", True),
    ]  # fmt: skip
    (reach,) = view["reached"]
    assert (reach["channel"], reach["contacts"], reach["answers"]) == ("email", 3, 1)
    assert 0.3 < reach["responsiveness"] < 0.34
    assert list(view["answer_hours"]) == ["10"]
    assert view["last_at"].startswith("2025-10-08"), "being written to is not being active"


async def test_objections_are_refusals_that_a_later_word_takes_back(loop: Loop) -> None:
    await loop.post(
        [
            said("email_unsubscribed", "c-1"),
            said("email_complained", "c-2"),
            said("call_ended", "c-3", properties={"disposition": "do_not_call"}),
            said("consent_refused", "c-4", properties={"purpose": "phone"}),
        ]
    )
    for key, *name in (("c-1", "marketing", "email"), ("c-2", "marketing", "email"),
                       ("c-3", "marketing", "phone"), ("c-4", "phone", None)):  # fmt: skip
        (consent,) = (await loop.customer(key))["consents"]
        assert [consent["purpose"], consent["channel"], consent["granted"]] == [*name, False]
    yes = {"customer_id": "c-1", "purpose": "marketing", "channel": "email", "granted": True}
    await loop.post({**yes, "occurred_at": DAY_1}, "/v1/consents")
    assert not (await loop.customer("c-1"))["consents"][0]["granted"], "an older word changes nothing"
    await loop.post(yes, "/v1/consents")
    assert (await loop.customer("c-1"))["consents"][0]["granted"]


async def test_consents_are_shown_with_what_proves_them(loop: Loop) -> None:
    word = {"purpose": "email", "granted": True, "text_version": "2026-03", "source": "newsletter form"}
    await loop.post({**word, "customer_id": "c-1", "occurred_at": DAY_1}, "/v1/consents")
    told = {"purpose": "phone", "channel": "sms", "text_version": "v7"}
    await loop.post(
        [
            said("consent_given", "c-1", channel="store", properties=told),
            said("consent_refused", "c-1", properties={"purpose": "post", "source": "letter"}),
            said("email_unsubscribed", "c-1"),
        ]
    )
    shown = await loop.analyzer.get("/v1/consents/c-1")
    assert shown["customer"] == "c-1"
    recorded = {one.pop("recorded_at") for one in shown["consents"]}
    assert len(recorded) == 1
    assert recorded != {None}
    told_by = {one.pop("told_by") for one in shown["consents"]}
    assert told_by == {"dev"}
    day_1, day_2 = (day.replace("Z", ".000Z") for day in (DAY_1, DAY_2))
    assert shown["consents"] == [
        {"purpose": "email", "channel": None, "granted": True, "at": day_1,
         "source": "newsletter form", "text_version": "2026-03"},
        {"purpose": "marketing", "channel": "email", "granted": False, "at": day_2,
         "source": "email_unsubscribed", "text_version": None},
        {"purpose": "phone", "channel": "sms", "granted": True, "at": day_2,
         "source": "store", "text_version": "v7"},
        {"purpose": "post", "channel": None, "granted": False, "at": day_2,
         "source": "letter", "text_version": "2026-03"},
    ]  # fmt: skip


async def test_installed_base_is_the_accounts_and_consent_the_persons(loop: Loop) -> None:
    await loop.post(
        [
            # The same ids: they are unique within a customer only, and all three must count for the account.
            said("asset_registered", "c-1", id="1", account_id="acme"),
            said("asset_registered", "c-2", id="1", account_id="acme", properties={"asset_id": "m-2"}),
            said("email_sent", "c-1", id="2", account_id="acme"),
            said("email_sent", "c-2", id="2", account_id="acme"),
            said("email_unsubscribed", "c-2", account_id="acme"),
            said("asset_registered", "c-3", properties={"asset_id": "mine"}),
        ]
    )
    await loop.post(said("kit_fitted", "c-2", account_id="acme"))
    for key in ("c-1", "c-2"):
        view = await loop.customer(key)
        assert [(one["asset_id"], one["of_account"]) for one in view["assets"]] == [
            ("m-1", True), ("m-2", True),
        ]  # fmt: skip
        assert view["assets"][0]["fitted_kits"] == ["guard-2", "drive-3"]
        assert (view["account"]["account_id"], view["account"]["contacts"]) == ("acme", 2)
        assert len(view["contacts"]) == 1
        assert [one["channel"] for one in view["consents"]] == (["email"] if key == "c-2" else [])
    assert [(a["asset_id"], a["of_account"]) for a in (await loop.customer("c-3"))["assets"]] == [
        ("mine", False)
    ]
    company = await loop.customer("account:acme")
    assert (company["consents"], len(company["assets"]), company["totals"]["email_sent"]) == ([], 2, 2)
    echoes = [event for event in loop.collector.touchpoints if event.customer == "account:acme"]
    assert len(echoes) == 5
    assert all(e.internal and e.customer_id is None and e.anonymous_id is None for e in echoes)
    assert not any(b"c-1" in str(e).encode() or "c-2" in str(e) for e in echoes), "nobody is named"


async def test_who_joins_a_group_sees_what_it_has(loop: Loop) -> None:
    await loop.post({"account_id": "acme", "model": "X200", "serial": "S1"}, "/v1/assets")
    await loop.post(said("group_joined", "c-9"))
    view = await loop.customer("c-9")
    assert [(one["asset_id"], one["model"]) for one in view["assets"]] == [("S1", "X200")]


CSV = """asset_id,model,year_built,serial,fitted_kits,account_id,customer_id
m-1,X200,2009,00417,guard-2; drive-3,acme,
m-2,"X ""Pro"", large",1998,,,acme,c-1

m-3,X300,soon,,,acme,
m-4,X300,,,,,
m-5,X300,2001,,,,c-5,surplus
m-6,,2001,,,acme,
"""


async def test_assets_come_as_a_table(loop: Loop) -> None:
    answer = await loop.collector.http.post(
        "/v1/assets", content="\ufeff" + CSV, headers={"content-type": "text/csv; charset=utf-8"}
    )
    body = answer.json()
    assert (answer.status_code, body["accepted"]) == (202, 2), answer.text
    assert [(bad["index"], bad["id"], bad["code"], bad["field"]) for bad in body["rejected"]] == [
        (2, "m-3", "wrong_type", "/year_built"),
        (3, "m-4", "missing", "/customer_id"),
        (4, "m-5", "unknown_field", "/a cell without a column"),
        (5, "m-6", "missing", "/model"),
    ]
    await loop.carry()
    first, second = (await loop.customer("account:acme"))["assets"]
    assert first["fitted_kits"] == ["guard-2", "drive-3"]
    assert (first["year_built"], first["serial"]) == (2009, "00417")
    assert (second["model"], second["year_built"]) == ('X "Pro", large', 1998)
    timeline = await loop.analyzer.get("/v1/customers/c-1/timeline")
    assert [entry["type"] for entry in timeline] == ["asset_registered"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"asset_id": "m-1", "model": "X", "account_id": "a", "attributes": {"h": 7}}\n' * 2,
         "application/x-ndjson"),
        ('[{"asset_id": "m-1", "model": "X", "account_id": "a", "attributes": {"h": 7}}]',
         "application/json"),
        ('{"assets": [{"asset_id": "m-1", "model": "X", "account_id": "a", "attributes": {"h": 7}}]}',
         "application/json"),
        ('{"asset_id": "m-1", "model": "X", "account_id": "a", "attributes": {"h": 7}}', "application/json"),
    ],
)  # fmt: skip
async def test_assets_come_in_every_form(loop: Loop, content: str, kind: str) -> None:
    answer = await loop.collector.http.post("/v1/assets", content=content, headers={"content-type": kind})
    assert answer.status_code == 202, answer.text
    await loop.carry()
    (asset,) = (await loop.customer("account:a"))["assets"]
    assert asset["asset_id"] == "m-1"
    (entry, *_) = await loop.analyzer.get("/v1/customers/account:a/timeline")
    assert entry["properties"] == {"h": 7, "model": "X", "asset_id": "m-1"}


@pytest.mark.parametrize("content", [b"model\n\xff\n", b'model\n"' + b"x" * 200_000 + b'"\n'])
async def test_what_is_no_table_is_400(loop: Loop, content: bytes) -> None:
    answer = await loop.collector.http.post(
        "/v1/assets", content=content, headers={"content-type": "text/csv"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_csv")


@pytest.mark.parametrize(("content", "status"), [("", 400), ("model,account_id\n", 422), ("model\n\n", 422)])
async def test_a_table_without_rows_is_an_empty_batch_and_nothing_an_empty_body(
    loop: Loop, content: str, status: int
) -> None:
    kind = {"content-type": "text/csv"}
    answer = await loop.collector.http.post("/v1/assets", content=content, headers=kind)
    assert answer.status_code == status
    assert [error["code"] for error in answer.json()["errors"]] == (["missing"] if status == 422 else [])


async def test_a_wide_table_is_400_and_a_long_one_is_413(loop: Loop) -> None:
    kind = {"content-type": "text/csv"}
    wide = ",".join(["model", *"x" * 64])
    answer = await loop.collector.http.post("/v1/assets", content=f"{wide}\n" + "a\n" * 9, headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_csv")
    assert "64 columns" in answer.json()["detail"]
    long = "model,account_id\n" + "a,b\n" * 2_501
    answer = await loop.collector.http.post("/v1/assets", content=long, headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_items")


def test_what_a_short_row_lacks_costs_nothing() -> None:
    head = ",".join(["model", *(f"c{at}" for at in range(63))]).encode()
    lines = lines_of(head + b"\na\n\nb,,1\n" + b"c\n" * 9, AssetIn, 2).split(b"\n")
    assert lines == [b'{"model":"a"}', b'{"model":"b","c1":"1"}', b'{"model":"c"}'], "two, and one more"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"account_id": "jo@acme.example"}, "/account_id"),
        ({"asset_id": "jo@acme.example"}, "/asset_id"),
        ({"account_id": "+49 421 5512 8890"}, "/account_id"),
        ({"account_id": "+49 421 5512 8890", "customer_id": "c-1"}, "/account_id"),
        ({"id": "jo@acme.example"}, "/id"),
        ({"customer_id": "jo%40acme.example"}, "/customer_id"),
        ({"serial": "jo@acme.example"}, "/serial"),
        ({"model": "jo@acme.example"}, "/model"),
        ({"product_id": "jo@acme.example"}, "/product_id"),
        ({"fitted_kits": ["guard-2", "jo@acme.example"]}, "/fitted_kits/1"),
    ],
)
async def test_a_machine_names_nobody(loop: Loop, more: dict[str, Any], field: str) -> None:
    machine = {"model": "X200", "account_id": "acme", "serial": "+49 421 5512 8890", "id": "8.8.8.8"}
    answer = await loop.collector.post([machine, {**machine, **more}], "/v1/assets")
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text
    (bad,) = answer.json()["rejected"]
    assert (bad["index"], bad["code"], bad["field"]) == (1, "bad_string", field)


async def test_a_table_elsewhere_or_in_another_charset_is_415(loop: Loop) -> None:
    for path, kind in (("/v1/consents", "text/csv"), ("/v1/assets", "text/csv; charset=latin1")):
        answer = await loop.collector.http.post(path, content=CSV, headers={"content-type": kind})
        assert answer.status_code == 415


async def test_a_page_is_not_believed_about_accounts(tmp_path: Path) -> None:
    secret = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"]).key
    page = {"authorization": f"Bearer {secret}", "origin": "https://shop.example"}
    async with collecting(tmp_path) as collector:
        body = {**said("asset_registered", ""), "account_id": "acme", "anonymous_id": "v-1"}
        del body["customer_id"]
        assert (await collector.post(body, headers=page)).status_code == 202
        (event,) = collector.touchpoints
        assert isinstance(event, Touchpoint)
        assert (event.account_id, event.flags) == (None, ("account_unverified",))
        group = {"type": "group_joined", "channel": "web", "anonymous_id": "v-1"}
        group["properties"] = {"group_id": "acme"}
        assert (await collector.post(group, headers=page)).status_code == 202
        joined = collector.touchpoints[-1]
        assert (joined.learn, joined.flags) == (False, ("account_unverified",))
        asset = {"model": "X200", "account_id": "acme"}
        refused = await collector.post(asset, "/v1/assets", headers=page)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        assert "collect" in refused.json()["detail"]
        table = {**page, "content-type": "text/csv"}
        refused = await collector.http.post("/v1/assets", content=b"\xff", headers=table)
        assert refused.status_code == 403, "before anything is read"
        for named in ({"customer_id": "account:acme"}, {"anonymous_id": "account:acme"}):
            answer = await collector.post({**said("page_viewed", "x"), **named})
            assert answer.json()["code"] == "bad_string"
