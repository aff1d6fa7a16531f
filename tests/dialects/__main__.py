"""``python -m tests.dialects [EVENTS]``: each official client posts EVENTS (1,000), twice."""

from __future__ import annotations

import sys

from tests.dialects.clients import NODE, PYTHON, install_node_clients, post_twice
from tests.e2e.rig import Up


def main() -> None:
    """Start a platform, run all clients, print what came of it."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    install_node_clients()
    up = Up("--ephemeral")
    try:
        up.wait_ready()
        for client, command in (PYTHON | NODE).items():
            post_twice(up, client, command, events)
        ledger = up.get("analyzer", "/v1/ledger").json()
        print({name: ledger[name] for name in ("accepted", "applied", "duplicate", "rejected", "balanced")})
    finally:
        up.close()


if __name__ == "__main__":
    main()
