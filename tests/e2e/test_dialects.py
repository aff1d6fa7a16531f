"""Official clients of other platforms, unmodified, change one URL: all they post is counted, once."""

from __future__ import annotations

import pytest

from tests.dialects.clients import NODE, PYTHON, need_node_clients, post_twice
from tests.e2e.rig import Up

EVENTS = 100
"""A thousand by ``python -m tests.dialects``."""


@pytest.fixture(scope="module")
def node_clients() -> None:
    """The clients for Node, installed; skips without Node, but never in CI."""
    need_node_clients()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("client", PYTHON)
def test_a_client_for_python_counts_once(platform: Up, client: str) -> None:
    post_twice(platform, client, PYTHON[client], EVENTS)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("client", NODE)
def test_a_client_for_node_counts_once(platform: Up, node_clients: None, client: str) -> None:
    post_twice(platform, client, NODE[client], EVENTS)
