"""@segment/analytics-next as it comes, in a real Chromium on a shop's page, posting to the collector."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.browser.rig import Shop, SiteKey, Visit, add_site_key
from tests.dialects.clients import HERE, line, need_node_clients, settled
from tests.dialects.clients import timeline as timeline_of
from tests.e2e.rig import Up

BUNDLES = HERE / "node_modules" / "@segment" / "analytics-next" / "dist" / "umd"
EVENTS = int(os.environ.get("EVENTS", "20"))
"""Of a page; a thousand by ``EVENTS=1000``."""

PAGE = """<!doctype html><meta charset="utf-8"><title>Shop</title><script>
  window.analytics = [];
  analytics._writeKey = KEY;
  analytics._cdn = location.origin;
  analytics._loadOptions = {integrations: {"Segment.io": OPTIONS}};
  for (const name of ["page", "identify", "track", "ready", "on"])
    analytics[name] = (...values) => analytics.push([name, ...values]);
</script><script src="/standalone.js"></script><h1>Shop</h1>"""


@dataclass
class SegmentPage:
    """A page of the shop with Segment's snippet and bundle, and the name and key it posts with."""

    address: str
    name: str
    site: SiteKey

    @property
    def customer(self) -> str:
        return f"{self.name}-customer"


@pytest.fixture(scope="module", params=["single", "batching"])
def page(request: pytest.FixtureRequest, up: Up, shop: Shop) -> SegmentPage:
    """A page that posts each event by itself, and one that posts them together."""
    need_node_clients()
    for bundle in BUNDLES.glob("*.js"):
        folder = "/" if bundle.name == "standalone.js" else "/analytics-next/bundles/"
        shop.serve(folder + bundle.name, bundle.read_bytes(), "text/javascript")
    name = f"segment-{request.param}"
    site = add_site_key(up, name, shop.origin)
    delivery = {"strategy": request.param, "config": {"size": 10, "timeout": 200}}
    host = up.url("collector").removeprefix("http://") + "/v1"
    options = {"apiHost": host, "protocol": "http", "deliveryStrategy": delivery}
    settings = {
        "integrations": {"Segment.io": {"apiKey": site.key, **options}},
        "metrics": {"sampleRate": 1, "flushTimer": 500},
        "plan": {},
    }
    shop.serve(f"/v1/projects/{site.key}/settings", json.dumps(settings), "application/json")
    html = PAGE.replace("KEY", json.dumps(site.key)).replace("OPTIONS", json.dumps(options))
    return SegmentPage(shop.serve(f"/{name}", html), name, site)


SCRIPT = """async ([events, customer, signature]) => {
  await analytics.page("Home");
  const said = [];
  for (let n = 3; n < events; n++)
    said.push(analytics.track(n % 2 ? "Product Viewed" : "Fitting Room Booked", {product_id: "p" + n}));
  await Promise.all(said);
  const traits = {plan: "gold", email: "kim@shop.example"};
  await analytics.identify(customer, traits);
  await analytics.identify(customer, traits, {context: {customer_signature: signature}});
  return analytics.user().anonymousId();
}"""
AGAIN = """async (posts) => {
  for (const [url, headers, body] of posts)
    await fetch(url, {method: "post", headers: {...headers, "X-Retry-Count": "1"}, body});
}"""


@pytest.mark.timeout(150 + EVENTS // 4)
def test_page_with_the_script_of_segment_counts_once(up: Up, page: SegmentPage, visit: Visit) -> None:
    visit.page.goto(page.address)
    visit.page.wait_for_function("window.analytics && analytics.initialized")
    signature = page.site.signature(page.customer)
    visitor = visit.page.evaluate(SCRIPT, [EVENTS, page.customer, signature])
    booked = (EVENTS - 3) // 2
    viewed = EVENTS - 3 - booked
    wanted = {"page_viewed": 1, "product_viewed": viewed, "fitting_room_booked": booked, "identified": 2}
    visit.wait(lambda: Counter(visit.words(page.customer))["identified"] == 2, 60)

    posts = [post for path in "tpib" for post in visit.posts(f"/v1/{path}")]
    assert len(posts) == EVENTS or "batching" in page.name
    assert all(post.headers["content-type"].startswith("text/plain") for post in posts)
    again = [
        (one.url, {name: one.headers[name] for name in ("authorization", "content-type")}, one.post_data)
        for one in posts
    ]
    visit.page.evaluate(AGAIN, again)
    visit.wait(lambda: settled(up, page.name, 2 * EVENTS), 60)
    ledger = line(up, page.name)
    assert (ledger["applied"], ledger["duplicate"], ledger["rejected"]) == (EVENTS, EVENTS, 0)
    timeline = timeline_of(up, page.customer)
    found = Counter(entry["type"] for entry in timeline if entry["kind"] == "touchpoint")
    assert found == wanted
    assert "kim@" not in json.dumps(timeline)
    # Without a signature he was nobody but the visitor.
    own = [entry["type"] for entry in timeline_of(up, f"anon:{visitor}")]
    assert own.count("identified") == 1
    assert visit.errors == []
    print(json.dumps(ledger), dict(found))

    visit.wait(lambda: visit.posts("/v1/m"), 20)
    answer = visit.posts("/v1/m")[0].response()
    assert answer is not None
    assert answer.status == 200
