"""Erasing somebody from outside: ask for it, wait until it is applied everywhere, certify it."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any
from urllib.parse import quote

from deploy.local.client import PlatformClient, Refused
from deploy.local.running import PlatformRecord
from libs.common.clock import DAY
from libs.common.contracts.identity import ANONYMOUS
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.errors import ClosedloopError

FOLDER = "erasures"
APPLIED_WITHIN = 120.0
RELEASED_WITHIN = 30.0
COMPACT_SECONDS = 3_600.0
SPOOLERS = ("collector", "recommender", "feedback")


class Erasing:
    """Talks to a running platform about erasures; use as a context manager."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._client = PlatformClient(data_dir)

    def __enter__(self) -> Erasing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def request(self, customer: str) -> str:
        """Ask for the erasure of ``customer``; its id."""
        erasure = token_hex(16)
        visitor = customer.startswith(ANONYMOUS)
        named = {"anonymous_id": customer.removeprefix(ANONYMOUS)} if visitor else {"customer_id": customer}
        self._client.post("collector", "/v1/erasures", json.dumps({"id": erasure, **named}).encode())
        return erasure

    def certify(self, erasure: str, customer: str, compact: bool) -> dict[str, Any]:
        """Wait until ``erasure`` of ``customer`` is applied everywhere; its certificate, also kept in a file.

        Raises `ClosedloopError` where it is not within two minutes: it goes on all the same.
        """
        done = self._wait_applied(erasure)
        self._wait_forgotten(erasure, customer)
        rewritten = self._compact() if compact else {}
        certificate = certificate_of(done, rewritten, compact, now())
        _keep(self._data_dir, certificate)
        return certificate

    def _wait_applied(self, erasure: str) -> dict[str, Any]:
        deadline = time.monotonic() + APPLIED_WITHIN
        while True:
            try:
                done: dict[str, Any] = self._client.get("analyzer", f"/v1/erasures/{erasure}")
                if done["complete"]:
                    return done
            except Refused as refused:
                if refused.status != 404:
                    raise
            if time.monotonic() > deadline:
                raise ClosedloopError(
                    f"erasure {erasure} is accepted but not complete yet: see lag and errors of the analyzer"
                )
            time.sleep(0.1)

    def _wait_forgotten(self, erasure: str, customer: str) -> None:
        """Until the recommender has dropped his decisions; what spools hold of him goes as it is applied."""
        deadline = time.monotonic() + RELEASED_WITHIN
        path = f"/v1/decisions?customer={quote(customer, safe='')}"
        while self._client.get("recommender", path):
            if time.monotonic() > deadline:
                raise ClosedloopError(
                    f"erasure {erasure}: the recommender still has decisions of the customer"
                )
            time.sleep(0.1)

    def _compact(self) -> dict[str, list[str]]:
        """Have every service write its stores anew; by store what could not be cleared."""
        left: dict[str, list[str]] = {}
        for service in (*SPOOLERS, "analyzer"):
            answer = self._client.post(service, f"/v1/compactions/{service}", b"", seconds=COMPACT_SECONDS)
            for store in answer["stores"]:
                left[store["store"]] = [*store["left"], *others(self._client.record, service)]
        if (up := self._client.record.processes.get("up")) is not None:
            # The embedded broker has him in memory: `up` replaces it, and ignores this with a Kafka on disk.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(up.pid, signal.SIGUSR1)
        return left


def others(record: PlatformRecord, service: str) -> list[str]:
    """What a certificate must leave open where several instances may stand behind one address."""
    if "up" in record.processes:
        return []
    return [
        f"files of further instances of the {service}, where there are any: each is to be asked by itself"
    ]


def now() -> datetime:
    """The time on certificates."""
    return datetime.now(UTC)


def certificate_of(
    done: dict[str, Any], rewritten: dict[str, list[str]], compacted: bool, at: datetime
) -> dict[str, Any]:
    """What was done in which store, and when the rest goes.

    Parameters
    ----------
    done:
        What the analyzer answers about the erasure.
    rewritten:
        By store that was written anew: what could not be cleared.
    """
    when = at.isoformat(timespec="seconds").replace("+00:00", "Z")

    def deleted(store: str, rows: int | None = None) -> dict[str, Any]:
        line: dict[str, Any] = {"store": store, "done": "deleted", "at": done["applied_at"]}
        return line if rows is None else {**line, "rows": rows}

    stores = [
        deleted("events", done["events"]),
        deleted("hashes of event ids"),
        deleted("lessons", done["lessons"]),
        deleted("facts that insights are counted from"),
        deleted("trials, and outcomes that wait for their decision"),
        deleted("dead letters", done["dead_letters"]),
        deleted("customer models"),
        deleted("views of the recommender"),
        deleted("decisions and their pools"),
        deleted("spools of collector, recommender and feedback"),
        *({"store": store, "done": "ages out", "how": how} for store, how in _later(compacted, at).items()),
    ]
    for store, left in rewritten.items():
        stores.append(
            {"store": store, "done": "written anew", "at": when, **({"left": left} if left else {})}
        )
    return {
        "erasure": done["id"],
        "requested_at": done["requested_at"],
        "applied_at": done["applied_at"],
        "certified_at": when,
        "complete": done["complete"],
        "compacted": compacted,
        "keys": done["keys"],
        "mentions": done["mentions"],
        "stores": stores,
        "kept": "a keyed hash of each erased key, so that nothing under it is ever stored again",
    }


def _later(compacted: bool, at: datetime) -> dict[str, str]:
    """What holds something of him for a while yet, and how it goes."""
    retention = next(int(topic.config["retention.ms"]) for topic in TOPICS if topic.name == CUSTOMER_EVENTS)
    gone = (at + timedelta(days=retention / DAY)).date().isoformat()
    log = "its files go, or are written over, after two checkpoints (checkpoint_timeout, 5 min by default)"
    if compacted:
        log = "ended by a checkpoint; a server that uses its files again (wal_recycle) writes them over later"
    stores = {
        "learned models": "they hold no keys; his orders leave their counts at the next rebuild",
        "journal and dead letters on Kafka": f"by retention, until {gone}",
        "customer models on Kafka": "a tombstone is written; the log cleaner removes what lies before it, "
        "and it 30 days later",
        "write-ahead log of PostgreSQL": f"{log}; archived ones as long as you keep them",
        "backups": "as long as you keep them; a restored one is cleared before it serves",
    }
    if not compacted:
        stores["deleted bytes in files"] = "until they are overwritten, or erase --compact"
    return stores


def certificates(data_dir: Path) -> list[dict[str, Any]]:
    """All certificates kept under ``data_dir``, oldest first."""
    found = [json.loads(path.read_text()) for path in (data_dir / FOLDER).glob("*.json")]
    return sorted(found, key=lambda certificate: str(certificate["certified_at"]))


def _keep(data_dir: Path, certificate: dict[str, Any]) -> None:
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{certificate['erasure']}.json"
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(certificate, indent=2) + "\n")
    os.replace(draft, path)


def exported(data_dir: Path, customer: str) -> dict[str, Any]:
    """All that is held about ``customer``: the analyzer's export, and decisions with their pools."""
    with PlatformClient(data_dir) as client:
        found: dict[str, Any] = client.get("analyzer", f"/v1/customers/{quote(customer, safe='')}/export")
        keys = [customer, *(model["key"] for model in found["models"] if model["key"] != customer)]
        query = "&".join(f"customer={quote(key, safe='')}" for key in keys)
        return {**found, "decisions": client.get("recommender", f"/v1/decisions?{query}")}
