"""Files that people import: JSON Lines, JSON or CSV, sent in bulk; what is refused is named by its place."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.common.errors import Misconfigured

BATCH_ITEMS = 1_000
BATCH_BYTES = 4_000_000
TEXT_COLUMNS = frozenset(
    {
        "product_id",
        "offer_id",
        "id",
        "customer_id",
        "anonymous_id",
        "account_id",
        "name",
        "category",
        "brand",
        "unit",
        "comparable_group",
        "occurred_at",
        "order_id",
    }
)
"""Columns that stay text even where they look like numbers."""


@dataclass
class Outcome:
    """What became of an import: ``rejected`` holds (place in the file, code, reason)."""

    accepted: int = 0
    rejected: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Item:
    """One thing of a file, as JSON, and where it stood."""

    place: str
    body: bytes


def read_items(path: Path) -> Iterator[Item]:
    """The items of ``path``, by its suffix: .csv, .json (a list, one object, or one object holding a list),
    anything else JSON Lines. Raises `Misconfigured` for a file that cannot be read."""
    try:
        if path.suffix == ".csv":
            yield from _csv(path)
        elif path.suffix == ".json":
            yield from _json(path)
        else:
            yield from _lines(path)
    except OSError as error:
        raise Misconfigured(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path} is not UTF-8: convert it first") from None


def _lines(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Item(f"line {number}", line.strip())


def _json(path: Path) -> Iterator[Item]:
    try:
        whole = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Misconfigured(f"{path} is not JSON ({error}); JSON Lines want the suffix .jsonl") from None
    if isinstance(whole, dict) and len(whole) == 1 and isinstance(next(iter(whole.values())), list):
        whole = next(iter(whole.values()))
    for number, item in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        yield Item(f"item {number}", json.dumps(item).encode())


def _csv(path: Path) -> Iterator[Item]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield Item(f"line {reader.line_num}", json.dumps(nested(row)).encode())


def nested(row: dict[str, Any]) -> dict[str, Any]:
    """A row as an object: ``properties.order_id`` goes into ``properties``; empty cells are left out."""
    item: dict[str, Any] = {}
    for column, cell in row.items():
        if column is None or not isinstance(cell, str) or cell == "":
            continue
        *path, last = column.strip().split(".")
        inner = item
        for step in path:
            inner = inner.setdefault(step, {})
        inner[last] = cell if last in TEXT_COLUMNS else _value(cell)
    return item


def _value(cell: str) -> Any:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    # Trap: json.loads takes NaN and Infinity, which no service does; and huge integers are ids, not numbers.
    return cell if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """``items`` cut into bodies that the services take."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) == BATCH_ITEMS or size + len(item.body) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.body) + 1
    if batch:
        yield batch


def send(items: Iterable[Item], post: Callable[[bytes], dict[str, Any]]) -> Outcome:
    """Send ``items`` as JSON Lines through ``post``, which answers like a batch endpoint of ours."""
    outcome = Outcome()
    for batch in batches(items):
        answer = post(b"\n".join(item.body for item in batch))
        outcome.accepted += int(answer.get("accepted", 0))
        for refused in answer.get("rejected", []):
            place = batch[refused["index"]].place
            field_ = refused.get("field") or ""
            reason = f"{field_} {refused.get('reason', '')}".strip()
            outcome.rejected.append((place, refused.get("code", ""), reason))
    return outcome
