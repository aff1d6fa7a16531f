"""One platform, one Chromium and one shop for all tests of this folder; each test is a new visitor."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.rig import ARGUMENTS, Shop, SiteKey, Visit, add_site_key, begin_visit, find_chromium
from tests.e2e.rig import Up, eventually

PRODUCTS = [
    {
        "product_id": f"p{n}",
        "name": name,
        "category": "grocery/coffee",
        "price": 2.5 * n,
        "currency": "EUR",
        "image_url": "/cup.svg",
        "url": f"/products/p{n}",
    }
    for n, name in enumerate(("Coffee, 500 g", "Espresso", "Filters", "Grinder", "Cup", "Kettle"), 1)
]


CUP = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path fill="#7a4a21" d="M1 2h5v4H1z"/></svg>'


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The machine's Chromium."""
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def everybody_is_served(up: Up) -> bool:
    """Whether the shelf and every partition's progress have reached the recommender."""
    asks = [{"placement": "home", "anonymous_id": f"early-{n}", "dry_run": True} for n in range(60)]
    answers = up.post("recommender", "/v1/recommendations/batch", {"requests": asks}).json()["answers"]
    return all(answer["offers"] and not answer["degraded"] for answer in answers)


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    """A platform with a shelf of coffee, without holdout, so that everybody gets offers."""
    find_chromium()
    up = Up("--ephemeral", "--no-holdout")
    try:
        up.wait_ready()
        answer = up.post("recommender", "/v1/products", PRODUCTS)
        assert (answer.status_code, answer.json()["accepted"]) == (200, len(PRODUCTS))
        eventually(lambda: everybody_is_served(up), 60.0)
        yield up
    finally:
        up.close()


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """The shop's web server, an origin of its own."""
    shop = Shop()
    shop.serve("/cup.svg", CUP, "image/svg+xml")
    yield shop
    shop.close()


@pytest.fixture(scope="session")
def site(up: Up, shop: Shop) -> SiteKey:
    """The publishable key of the shop's origin, once every service knows it."""
    made = add_site_key(up, "shop-pages", shop.origin)
    time.sleep(1.0)
    return made


@pytest.fixture
def visit(chromium: Browser, up: Up) -> Iterator[Visit]:
    """A visitor nobody has seen before."""
    visit = begin_visit(chromium, up)
    yield visit
    visit.context.close()
