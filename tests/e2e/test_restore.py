"""A restored backup that is older than an erasure brings nobody back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from deploy.local.postgres import binaries
from tests.e2e.rig import Up, closedloop, eventually
from tests.e2e.test_will import PRODUCTS, bought


def decided(up: Up, customer: str) -> bool:
    """Whether a decision about a customer is stored everywhere."""
    totals = up.get("analyzer", f"/v1/customers/{customer}").json().get("totals", {})
    pools = up.get("recommender", f"/v1/decisions?customer={customer}").json()
    return totals.get("decision_made") == len(pools) == 1


def sql(address: str, program: str, *arguments: str, given: bytes = b"") -> bytes:
    """What a program of PostgreSQL prints."""
    done = subprocess.run(
        [str(binaries() / program), *arguments, address],
        input=given,
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout


def cli(*words: object) -> str:
    done = closedloop(*map(str, words))
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_restored_backup_brings_no_erased_customer_back(start: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    up: Up = start("--data-dir", str(data), "--no-holdout").wait_ready()
    up.post("recommender", "/v1/products", PRODUCTS)
    for customer, visitor in (("zz-erased-zz", "zz-cookie-zz"), ("stays", "stays-cookie")):
        up.post("collector", "/v1/touchpoints", bought(customer, visitor))
        up.post("collector", "/v1/identities", {"customer_id": customer, "anonymous_id": visitor})
        up.post("recommender", "/v1/recommendations", {"placement": "home", "customer_id": customer})
        eventually(lambda customer=customer: decided(up, customer))
    dump = tmp_path / "dump.sql"
    cli("backup", dump, "--data-dir", data)
    assert b"zz-erased-zz" in dump.read_bytes()
    assert dump.stat().st_mode & 0o077 == 0
    erased = closedloop("erase", "zz-erased-zz", "--data-dir", str(data))
    assert erased.returncode == 0, erased.stderr
    refused = closedloop("restore", str(dump), "--data-dir", str(data))
    assert refused.returncode == 1, "a running platform was restored"
    assert up.stop() == 0
    broken = tmp_path / "broken.sql"
    broken.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2] + b"\nNONSENSE;")
    assert closedloop("restore", str(broken), "--data-dir", str(data)).returncode == 1
    cli("restore", dump, "--data-dir", data)

    again: Up = start("--data-dir", str(data), "--no-holdout").wait_ready()
    assert again.get("analyzer", "/v1/customers/zz-erased-zz").status_code == 404
    assert again.get("analyzer", "/v1/customers/stays").json()["totals"]["order_completed"] == 3
    eventually(lambda: again.get("recommender", "/v1/decisions?customer=zz-erased-zz").json() == [])
    again.post("collector", "/v1/touchpoints", bought("zz-erased-zz"))
    more = again.post("collector", "/v1/touchpoints", bought("stays"))
    assert more.status_code == 202

    def clean() -> bool:
        stored = sql(again.record["postgres"], "pg_dump")
        return b"zz-erased" not in stored and b"zz-cookie" not in stored

    eventually(clean, 20)
    kept = again.get("analyzer", "/v1/customers/stays").json()
    assert kept["totals"]["order_completed"] >= 3
    assert len(again.get("recommender", "/v1/decisions?customer=stays").json()) == 1
    assert b"applied again" in (data / "logs" / "analyzer.log").read_bytes()
