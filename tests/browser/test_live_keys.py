"""Publishable keys made, rotated and revoked while the platform runs; a change holds within a second."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.browser.rig import Shop, SiteKey, add_site_key
from tests.e2e.rig import Up, closedloop

ORIGIN = "https://pages.example"
WITHIN = 1.0
VIEW = {"type": "page_viewed", "channel": "web", "anonymous_id": "v-live"}


def say(up: Up, key: str) -> int:
    """What the collector answers to a page with this key."""
    headers = {"authorization": f"Bearer {key}", "origin": ORIGIN}
    return up.client.post(up.url("collector") + "/v1/touchpoints", json=VIEW, headers=headers).status_code


def preflight(up: Up, service: str, path: str) -> httpx.Response:
    """What a browser asks before a page of ``ORIGIN`` may post."""
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    return httpx.options(up.url(service) + path, headers=headers, trust_env=False, timeout=15)


def test_key_works_and_ends_within_a_second(up: Up) -> None:
    there = ["--data-dir", str(up.data_dir)]
    paths = {"collector": "/v1/consents", "recommender": "/v1/recommendations", "feedback": "/v1/outcomes"}
    assert {preflight(up, *one).status_code for one in paths.items()} == {403}
    old = add_site_key(up, "live-pages", ORIGIN)
    time.sleep(WITHIN)
    assert say(up, old.key) == 202
    for one in paths.items():
        answer = preflight(up, *one)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, ORIGIN)

    made = closedloop("keys", "add", "--rotate", "--name", "live-pages", *there)
    secret, new = made.stdout.splitlines()[-2:]
    assert secret == old.identity_secret
    time.sleep(WITHIN)
    assert [say(up, old.key), say(up, new)] == [202, 202]
    assert closedloop("keys", "revoke", "--replaced", "live-pages", *there).returncode == 0
    time.sleep(WITHIN)
    assert [say(up, old.key), say(up, new)] == [401, 202]
    assert closedloop("keys", "revoke", "live-pages", *there).returncode == 0
    time.sleep(WITHIN)
    assert say(up, new) == 401
    assert preflight(up, "recommender", paths["recommender"]).status_code == 403


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("recommender", "/v1/products/p1"),
        ("recommender", "/v1/decisions/x"),
        ("analyzer", "/v1/customers/c-1"),
        ("analyzer", "/v1/ledger"),
    ],
)
def test_page_reaches_nothing_else(up: Up, shop: Shop, site: SiteKey, service: str, path: str) -> None:
    headers = {"authorization": f"Bearer {site.key}", "origin": shop.origin}
    answer = up.client.get(up.url(service) + path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
