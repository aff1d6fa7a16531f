"""The certificate of an erasure: every store is named, with what was done there or when the rest goes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.local.erasing import certificate_of

DONE: dict[str, Any] = {
    "id": "e-1",
    "complete": True,
    "requested_at": "2026-01-01T00:00:00Z",
    "applied_at": "2026-01-01T00:00:01Z",
    "keys": 1,
    "mentions": 0,
    "events": 3,
    "lessons": 2,
    "dead_letters": 0,
}
AT = datetime(2026, 1, 2, tzinfo=UTC)


def lines(compacted: bool, rewritten: dict[str, list[str]] | None = None) -> dict[str, dict[str, Any]]:
    """The lines of a certificate, by store."""
    found = certificate_of(DONE, rewritten or {}, compacted, AT)["stores"]
    assert len({line["store"] for line in found}) == len(found)
    return {line["store"]: line for line in found}


@pytest.mark.parametrize("compacted", [False, True])
def test_certificate_names_what_is_deleted_and_when_the_rest_goes(compacted: bool) -> None:
    named = lines(compacted)
    deleted = {store for store, line in named.items() if line["done"] == "deleted"}
    assert deleted == {
        "events",
        "hashes of event ids",
        "lessons",
        "facts that insights are counted from",
        "trials, and outcomes that wait for their decision",
        "dead letters",
        "customer models",
        "views of the recommender",
        "decisions and their pools",
        "spools of collector, recommender and feedback",
    }
    later = {store: line["how"] for store, line in named.items() if line["done"] == "ages out"}
    assert later.keys() - {"deleted bytes in files"} == {
        "learned models",
        "journal and dead letters on Kafka",
        "customer models on Kafka",
        "write-ahead log of PostgreSQL",
        "backups",
    }
    assert ("deleted bytes in files" in later) is not compacted
    assert "2026-02-01" in later["journal and dead letters on Kafka"]
    assert ("checkpoint_timeout" in later["write-ahead log of PostgreSQL"]) is not compacted
    assert "archived" in later["write-ahead log of PostgreSQL"]


def test_certificate_says_what_could_not_be_cleared() -> None:
    named = lines(True, {"tables of the analyzer": ["statistics of the planner"], "spool of collector": []})
    assert named["tables of the analyzer"]["left"] == ["statistics of the planner"]
    assert "left" not in named["spool of collector"]
