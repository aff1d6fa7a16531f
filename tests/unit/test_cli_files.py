"""Files that are imported: read as written, in batches, what is refused named by its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.local.files import BATCH_ITEMS, Item, batches, nested, read_items, send
from libs.common.errors import Misconfigured
from tests.unit.cli_world import no_developer_key, run, said

__all__ = ["no_developer_key"]


def test_import_says_that_no_platform_is_running(tmp_path: Path) -> None:
    result = run("products", "import", "x.jsonl", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "no platform is running" in said(result)


def test_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    item = {"product_id": "1", "price": 2.5}
    written = {
        "a.jsonl": json.dumps(item) + "\n\n" + json.dumps(item) + "\n",
        "b.json": json.dumps([item, item]),
        "c.json": json.dumps({"products": [item, item]}),
        "d.csv": "product_id,price\n1,2.5\n1,2.5\n",
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text)
        assert [json.loads(each.body) for each in read_items(tmp_path / name)] == [item, item], name
    assert [each.place for each in read_items(tmp_path / "a.jsonl")] == ["line 1", "line 3"]


def test_unreadable_files_are_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "latin.csv").write_bytes(b"product_id\n\xe9\n")
    for name, reason in (("none.jsonl", "cannot read"), ("bad.json", "not JSON"), ("latin.csv", "not UTF-8")):
        with pytest.raises(Misconfigured, match=reason):
            list(read_items(tmp_path / name))


def test_csv_columns_nest_and_ids_stay_text() -> None:
    row = {"id": "007", "price": "2", "brand": "", "properties.order_id": "1e5", "properties.total": "NaN"}
    assert nested(row) == {"id": "007", "price": 2, "properties": {"order_id": "1e5", "total": "NaN"}}


def test_batches_hold_what_a_service_takes() -> None:
    items = [Item(f"line {n}", b"{}") for n in range(BATCH_ITEMS + 1)]
    assert [len(batch) for batch in batches(items)] == [BATCH_ITEMS, 1]
    big = [Item("line 1", b"x" * 3_000_000), Item("line 2", b"x" * 3_000_000)]
    assert [len(batch) for batch in batches(big)] == [1, 1]


def test_refused_items_are_named_by_their_place() -> None:
    def post(body: bytes) -> dict[str, Any]:
        refused = {"index": 1, "id": None, "code": "missing", "field": "/name", "reason": "is missing"}
        return {"accepted": body.count(b"\n"), "rejected": [refused]}

    outcome = send([Item("line 4", b"{}"), Item("line 9", b"{}")], post)
    assert (outcome.accepted, outcome.rejected) == (1, [("line 9", "missing", "/name is missing")])
