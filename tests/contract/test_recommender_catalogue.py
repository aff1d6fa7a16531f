"""The catalogue over HTTP: stored, shown, served, withdrawn, refused by field."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from libs.common.bus.ports import Record
from libs.common.contracts.catalogue import Product, decode_entry, encode_entry
from libs.common.contracts.marker import MARKER_KEY
from libs.common.contracts.topics import CATALOGUE, TOPICS
from libs.common.keys import KeyFile, Scope
from tests.contract.recommender_world import World, ask, products, until

PRODUCT: dict[str, Any] = {
    "product_id": "p1", "name": "One", "category": "a/b", "price": 10, "currency": "EUR",
}  # fmt: skip


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    await made.bus.ensure_topics(TOPICS)
    return made


async def served(client: httpx.AsyncClient, *wanted: str) -> None:
    """Wait until exactly these products are offered, at most the second that is promised."""
    async with asyncio.timeout(1.0):
        while sorted(products(await ask(client, limit=100, dry_run=True))) != sorted(wanted):
            await asyncio.sleep(0.005)


async def test_product_is_stored_shown_served_and_withdrawn(world: World) -> None:
    async with world.up() as client:
        stored = await client.put("/v1/products/p1", json=PRODUCT)
        assert stored.status_code == 200, stored.text
        assert (stored.json()["margin"], stored.json()["flags"]) == (3.0, ["margin_assumed"])
        await served(client, "p1")
        assert (await client.get("/v1/products/p1")).json() == stored.json()
        await client.put("/v1/products/p1", json=PRODUCT | {"stock": 0, "margin": 2})
        await served(client)
        shown = (await client.get("/v1/products/p1")).json()
        assert (shown["margin"], shown["flags"], shown["stock"]) == (2.0, [], 0.0)
        await client.put("/v1/products/p1", json=PRODUCT | {"stock": 5})
        await served(client, "p1")
        assert (await client.delete("/v1/products/p1")).status_code == 204
        await served(client)
        assert (await client.get("/v1/products/p1")).status_code == 404
        assert (await client.delete("/v1/products/p1")).status_code == 404
        await client.put("/v1/products/p1", json=PRODUCT)
        await served(client, "p1")


async def test_product_whose_id_holds_a_slash_is_stored_shown_and_withdrawn(world: World) -> None:
    async with world.up() as client:
        for kind, body in (
            ("products", PRODUCT | {"product_id": "a/b c"}),
            ("offers", {"offer_id": "a/b c", "kind": "cross_sell", "product_id": "a/b c"}),
            ("placements", {"placement_id": "a/b c"}),
        ):
            path = f"/v1/{kind}/a%2Fb%20c"
            stored = await client.put(path, json=body)
            assert stored.status_code == 200, stored.text
            assert "a/b c" in (await client.get(path)).json().values()
            assert (await client.delete(path)).status_code == 204
            assert (await client.get(path)).status_code == 404


async def test_bulk_answers_like_a_batch_and_keeps_the_good_part(world: World) -> None:
    async with world.up() as client:
        rows = [
            PRODUCT,
            PRODUCT | {"product_id": "p2", "price": -1},
            PRODUCT | {"product_id": "p3", "currency": "USD"},
            PRODUCT | {"product_id": "p4", "eligibility": "x"},
            PRODUCT | {"product_id": "p5", "available_from": "someday"},
            {"product_id": "p6", "name": "x", "category": "", "price": 0, "currency": "EUR"},
            7,
        ]
        answer = await client.post("/v1/products", json={"products": rows})
        assert answer.status_code == 200
        body = answer.json()
        assert (body["accepted"], body.get("position")) == (2, None)
        assert [(r["index"], r["id"], r["code"], r["field"]) for r in body["rejected"]] == [
            (1, "p2", "not_finite", "/price"),
            (2, "p3", "not_supported", "/currency"),
            (3, "p4", "unknown_field", "/eligibility"),
            (4, "p5", "bad_time", "/available_from"),
            (6, None, "wrong_type", ""),
        ]
        await served(client, "p1", "p6")
        lines = "\n".join(json.dumps(PRODUCT | {"product_id": f"l{n}"}) for n in range(3))
        more = await client.post(
            "/v1/products", content=lines, headers={"content-type": "application/x-ndjson"}
        )
        assert more.json()["accepted"] == 3
        bad = await client.post("/v1/products", json=[{"product_id": "x"}])
        assert (bad.status_code, bad.json()["code"]) == (422, "missing")
        assert (await client.post("/v1/products", content=b"")).status_code == 415
        big = [PRODUCT | {"product_id": f"p{n}"} for n in range(2501)]
        assert (await client.post("/v1/products", json=big)).status_code == 413


async def test_of_a_repeated_id_the_last_counts(world: World) -> None:
    async with world.up() as client:
        rows = [PRODUCT | {"name": "first"}, PRODUCT | {"name": "last"}]
        assert (await client.post("/v1/products", json=rows)).json()["accepted"] == 2
        assert (await client.get("/v1/products/p1")).json()["name"] == "last"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("products/p1", {"product_id": "p2"}, "id_mismatch"),
        ("products/p1", {"price": "10"}, "wrong_type"),
        ("products/p1", {"price": 1e13}, "not_finite"),
        ("products/p1", {"currency": "usd"}, "wrong_type"),
        ("products/p1", {"currency": "USD"}, "not_supported"),
        ("products/p1", {"colour": "red"}, "unknown_field"),
        ("products/p1", {"name": "a\0"}, "bad_string"),
        ("products/p1", {"size": 0}, "not_finite"),
        ("offers/o1", {"kind": "gift"}, "wrong_type"),
        ("offers/o1", {"eligibility": "true"}, "not_supported"),
        ("offers/o1", {"caps": {}}, "not_supported"),
        ("offers/o1", {"windows": {}}, "not_supported"),
        ("offers/o1", {"retrofit": {}}, "not_supported"),
        ("offers/product:x", {}, "bad_string"),
        ("offers/none", {}, "bad_string"),
        ("placements/x", {"near_best": 1.5}, "not_finite"),
        ("placements/x", {"ghosts": -0.02}, "not_finite"),
        ("placements/x", {"window": 0}, "wrong_type"),
        ("placements/x", {"limit": 0}, "wrong_type"),
        ("placements/x", {"objective": "fame"}, "wrong_type"),
        ("placements/x", {"exploration": 2}, "not_finite"),
    ],
)
async def test_wrong_entry_is_refused_by_field(
    world: World, path: str, body: dict[str, Any], code: str
) -> None:
    start = {"products": PRODUCT | {"product_id": "p1"}, "offers": {"kind": "cross_sell"}, "placements": {}}
    async with world.up() as client:
        answer = await client.put(f"/v1/{path}", json=start[path.split("/")[0]] | body)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
        assert (await client.get(f"/v1/{path}")).status_code == 404


async def test_offers_and_placements_are_served(world: World) -> None:
    async with world.up() as client:
        await client.put("/v1/products/p1", json=PRODUCT)
        offer = {"kind": "service", "content": {"title": "Check-up"}, "value": 40}
        assert (await client.put("/v1/offers/checkup", json=offer)).status_code == 200
        orphan = {"offer_id": "orphan", "kind": "cross_sell", "product_id": "missing"}
        assert (await client.post("/v1/offers", json=[orphan])).json()["accepted"] == 1
        sure = {"exploration": 0, "ghosts": 0, "limit": 1, "objective": "uplift", "baseline": "none"}
        assert (await client.put("/v1/placements/sure", json=sure)).json()["limit"] == 1
        await until(lambda: len(list(world.views[CATALOGUE].scan())) == 4)
        async with asyncio.timeout(1.0):
            # What is read is not yet served: the tables are made anew beside the requests.
            while len((await ask(client, limit=9, dry_run=True))["offers"]) < 2:
                await asyncio.sleep(0.005)
        answer = await ask(client)
        assert [offer["offer_id"] for offer in answer["offers"]] == ["product:p1"]
        both = await ask(client, limit=9)
        assert {offer["offer_id"] for offer in both["offers"]} == {"product:p1", "checkup"}
        content = next(offer for offer in both["offers"] if offer["offer_id"] == "checkup")
        assert (content["content"], content["product"]) == ({"title": "Check-up"}, None)


async def test_everything_is_published_again_on_another_cluster(world: World) -> None:
    async with world.up() as client:
        await client.put("/v1/products/p1", json=PRODUCT)
        await client.put("/v1/products/p2", json=PRODUCT | {"product_id": "p2"})
        await client.delete("/v1/products/p2")
        await served(client, "p1")
        # An entry the catalogue does not have (any more), left over on the broker that is lost.
        stray = Product(product_id="p3", name="stray", category="c", price=1.0, currency="EUR")
        record = Record(b"product/p3", encode_entry(stray), (("revision", b"7"),))
        await world.bus.producer().send(CATALOGUE, 0, [record])
        await served(client, "p1", "p3")
        world.bus.replace_cluster("memory-2")
        async with asyncio.timeout(5.0):
            while len(world.bus.records(CATALOGUE)) < 3:
                await asyncio.sleep(0.02)
            while world.views[CATALOGUE].outstanding():
                await asyncio.sleep(0.02)
        await served(client, "p1")
        assert "product:p3" not in {offer["offer_id"] for offer in (await ask(client, limit=9))["offers"]}
    assert world.bus.records(CATALOGUE)[-1].key == MARKER_KEY
    records = {record.key: record for record in world.bus.records(CATALOGUE)[:-1]}
    assert set(records) == {b"product/p1", b"product/p2"}
    assert decode_entry(records[b"product/p1"].value or b"").__class__.__name__ == "Product"
    assert decode_entry(records[b"product/p2"].value or b"").__class__.__name__ == "Withdrawn"


async def test_store_away_is_503_and_answers_go_on(world: World) -> None:
    async with world.up() as client:
        await client.put("/v1/products/p1", json=PRODUCT)
        await served(client, "p1")
        world.stores.catalogue.away = True
        refused = await client.put("/v1/products/p2", json=PRODUCT | {"product_id": "p2"})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert products(await ask(client)) == ["p1"]
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("kind", ["product", "offer", "placement"])
async def test_entries_are_shown_as_the_openapi_document_says(world: World, kind: str) -> None:
    sent = {
        "product": {"name": "Coffee", "category": "food", "price": 5.0, "currency": "EUR"},
        "offer": {"kind": "content"},
        "placement": {},
    }
    async with world.up() as client:
        document = (await client.get("/openapi.json")).json()
        path = f"/v1/{kind}s/shown"
        answers = [await client.put(path, json=sent[kind]), await client.get(path)]
    for method, answer in zip(("put", "get"), answers, strict=True):
        said = document["paths"][f"/v1/{kind}s/{{id}}"][method]["responses"]["200"]
        schema = said["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})


async def test_catalogue_needs_manage_and_appears_in_openapi(world: World) -> None:
    key = KeyFile(world.folder).add("shop", [Scope.RECOMMEND]).key
    async with world.up() as client:
        shop = {"authorization": f"Bearer {key}"}
        for method, path in (("PUT", "/v1/products/x"), ("POST", "/v1/offers"), ("GET", "/v1/placements/x")):
            refused = await client.request(method, path, json={}, headers=shop)
            assert refused.status_code == 403
        document = (await client.get("/openapi.json")).json()
    assert {"/v1/recommendations", "/v1/recommendations/batch", "/v1/decisions/{id}"} <= set(
        document["paths"]
    )
    assert set(document["paths"]["/v1/products/{id}"]) == {"put", "get", "delete"}
