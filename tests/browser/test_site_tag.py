"""The site tag in a real Chromium, on a shop's pages, against the real platform at other origins."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Browser

from tests.browser.rig import Shop, SiteKey, Visit, begin_visit, body_of
from tests.e2e.rig import Up

STYLE = """
  body { font: 16px sans-serif; margin: 2em; color: #222 }
  [data-placement] { display: flex; gap: 1em }
  [data-placement] a { border: 1px solid #ccc; border-radius: 8px; padding: 1em; width: 9em; color: inherit }
  [data-placement] img { width: 100%; height: 5em; display: block }
  [data-placement] span { display: block }
"""


def page_of(up: Up, site: SiteKey, body: str = "", script: str = "") -> str:
    """A page of the shop with the tag at its end."""
    tag = (
        f'<script src="{up.url("collector")}/closedloop.js" data-key="{site.key}" '
        f'data-recommender=":{up.base + 3}" data-feedback="{up.url("feedback")}"></script>'
    )
    return (
        f'<!doctype html><html lang="de"><meta charset="utf-8"><title>Shop</title><style>{STYLE}</style>'
        f"<h1>Coffee shop</h1>{body}{tag}<script>{script}</script></html>"
    )


def storage_of(visit: Visit) -> tuple[Any, ...]:
    """All that a page has left on the device."""
    left = visit.page.evaluate("[Object.entries(localStorage), Object.entries(sessionStorage)]")
    return left[0], left[1], visit.context.cookies()


EMPTY: tuple[Any, ...] = ([], [], [])


def test_visitor_is_offered_sees_clicks_and_leaves(up: Up, shop: Shop, site: SiteKey, visit: Visit) -> None:
    below = '<p style="height: 900px">A long story about beans.</p><div data-placement="home">Loading</div>'
    shop.serve("/products/p1", "<h1>Product</h1>")
    for number in range(2, 7):
        shop.serve(f"/products/p{number}", "<h1>Product</h1>")
    address = shop.serve("/", page_of(up, site, below, 'closedloop.recommend("home", {product_id: "p1"})'))
    visit.page.goto(address + "?email=anna@example.com#top")
    visitor = f"anon:{visit.anonymous_id}"
    visit.page.wait_for_selector('[data-placement="home"] a')
    visit.picture("home-above")

    (view,) = visit.posts("/v1/touchpoints")
    seen = body_of(view)
    assert (seen["type"], seen["channel"], f"anon:{seen['anonymous_id']}") == ("page_viewed", "web", visitor)
    assert seen["properties"] == {"url": shop.origin + "/", "path": "/"}
    assert "text/plain" in view.headers["content-type"]
    offers = visit.page.locator('[data-placement="home"] a')
    assert offers.count() == 5
    assert "€" in offers.first.inner_text()
    answer = visit.posts("/v1/recommendations")[0].response()
    assert answer is not None
    told = answer.json()
    assert not {"group", "policy_version"} & set(told)
    assert not {"score", "propensity"} & set(told["offers"][0])

    visit.page.wait_for_timeout(1500)
    assert visit.posts("/v1/outcomes") == []
    visit.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    visit.wait(lambda: visit.words(visitor).count("shown") == 5)
    visit.picture("home-below")
    wanted = offers.nth(1).get_attribute("href") or ""
    offers.nth(1).click()
    visit.page.wait_for_url(f"**{wanted}")
    visit.wait(lambda: "clicked" in visit.words(visitor))
    words = visit.words(visitor)
    assert words.count("page_viewed") == 1
    clicked = next(entry for entry in visit.timeline(visitor) if entry["type"] == "clicked")
    assert clicked["kind"] == "outcome"
    assert storage_of(visit) == EMPTY
    assert visit.errors == []


def test_what_is_told_last_leaves_with_the_page(up: Up, shop: Shop, site: SiteKey, visit: Visit) -> None:
    visit.page.goto(shop.serve("/leave", page_of(up, site)))
    visitor = f"anon:{visit.anonymous_id}"
    visit.wait(lambda: visit.posts("/v1/touchpoints"))
    visit.page.evaluate(
        'closedloop.track("product_liked", {product_id: "p2"}); closedloop.track("basket_shared"); '
        "location.href = 'about:blank'"
    )
    visit.wait(lambda: {"product_liked", "basket_shared"} <= set(visit.words(visitor)))


def refusals(up: Up) -> float:
    """How many posts of touchpoints the collector has answered with 403."""
    wanted = 'http_requests_total{route="/v1/touchpoints",status="403"} '
    lines = up.get("collector", "/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if wanted in line)


def test_page_of_another_origin_is_refused(up: Up, shop: Shop, site: SiteKey, visit: Visit) -> None:
    before = refusals(up)
    shop.serve("/stolen", page_of(up, site, '<div data-placement="home">Nothing</div>'))
    visit.page.goto(shop.foreign + "/stolen")
    visitor = f"anon:{visit.anonymous_id}"
    assert visit.page.evaluate('closedloop.recommend("home")') == []
    visit.wait(lambda: refusals(up) > before)
    assert visit.page.inner_text("[data-placement]") == "Nothing"
    visit.page.goto("about:blank")
    visit.page.wait_for_timeout(1000)
    assert visit.words(visitor) == []


def test_page_speaks_for_the_customer_who_logged_in_and_no_other(
    up: Up, shop: Shop, site: SiteKey, visit: Visit
) -> None:
    visit.page.goto(shop.serve("/login", page_of(up, site)))
    visitor = visit.anonymous_id
    refused: list[tuple[int, str]] = []
    visit.page.on(
        "response",
        lambda response: refused.append((response.status, response.url)) if response.status == 403 else None,
    )
    forged = site.signature("c-mine")
    visit.page.evaluate(f'closedloop.identify("c-yours", "{forged}")')
    visit.wait(lambda: refused)
    assert visit.page.evaluate('closedloop.recommend("home")') == []
    assert len(refused) == 2
    visit.page.evaluate("closedloop.identify(null)")
    second = visit.anonymous_id
    assert second != visitor
    visit.page.evaluate('closedloop.track("basket_shared")')
    visit.page.evaluate(f'closedloop.identify("c-mine", "{forged}"); closedloop.track("account_opened")')
    visit.wait(lambda: {"identified", "account_opened"} <= set(visit.words("c-mine")))
    assert visit.page.evaluate('closedloop.recommend("home")') != []
    asked = body_of(visit.posts("/v1/recommendations")[-1])
    assert (asked["customer_id"], asked["anonymous_id"]) == ("c-mine", second)
    assert asked["after"], "what was just told is to count already"
    assert visit.words("c-yours") == []
    assert up.get("analyzer", "/v1/customers/c-mine").json()["links"] == [f"anon:{second}"]
    visit.page.evaluate("closedloop.identify(null)")
    assert visit.anonymous_id != second


def test_pages_of_a_customer_who_is_known_from_the_start_link_nothing(
    up: Up, shop: Shop, site: SiteKey, visit: Visit
) -> None:
    signature = site.signature("c-known")
    early = f'window.closedloop = [["recommend", "home"], ["identify", "c-known", "{signature}"]]'
    address = shop.serve("/known", page_of(up, site, f"<script>{early}</script>"))
    for _ in range(2):
        visit.page.goto(address)
        visitor = visit.anonymous_id
        visit.wait(lambda: visit.posts("/v1/recommendations"))
        view = body_of(visit.posts("/v1/touchpoints")[-1])
        assert (view["type"], view["customer_id"], view["anonymous_id"]) == (
            "page_viewed",
            "c-known",
            visitor,
        )
    visit.wait(lambda: visit.words("c-known").count("page_viewed") == 2)
    assert up.get("analyzer", "/v1/customers/c-known").json()["links"] == []
    asked = body_of(visit.posts("/v1/recommendations")[-1])
    assert asked["customer_id"] == "c-known"
    assert asked["after"], "the view of this page counts for what it is offered"

    # Once his id is kept on the device, what other pages do with it is his: told once.
    visit.page.evaluate("closedloop.consent(true)")
    plain = shop.serve("/unknown", page_of(up, site))
    for _ in range(2):
        visit.page.goto(plain)
        assert visit.anonymous_id == visitor
        visit.wait(lambda: "page_viewed" in visit.words(f"anon:{visitor}"))
        visit.page.evaluate(f'closedloop.identify("c-known", "{signature}"); closedloop.track("seen_again")')
        visit.wait(lambda: "seen_again" in visit.words("c-known"))
    visit.wait(lambda: visit.words("c-known").count("seen_again") == 2)
    assert visit.words("c-known").count("identified") == 1
    assert up.get("analyzer", "/v1/customers/c-known").json()["links"] == [f"anon:{visitor}"]


def test_page_cannot_report_a_sale(up: Up, shop: Shop, site: SiteKey, visit: Visit) -> None:
    visit.page.goto(shop.serve("/sale", page_of(up, site, '<div data-placement="home"></div>')))
    visitor = f"anon:{visit.anonymous_id}"
    offers = visit.page.evaluate('closedloop.recommend("home")')
    line = {"product_id": offers[0]["product_id"], "quantity": 9, "price": 1.0}
    order = {"order_id": "forged", "currency": "EUR", "products": [line]}
    visit.page.evaluate(f'closedloop.track("order_completed", {json.dumps(order)})')
    visit.wait(lambda: "order_completed" in visit.words(visitor))
    model = up.get("analyzer", f"/v1/customers/{visitor}").json()
    assert model["totals"]["order_completed"] == 1
    assert model["items"] == []
    for key, refusal in ((None, [401, "key_missing"]), (site.key, [403, "scope_missing"])):
        sale = {"token": offers[0]["token"], "outcome": "converted", "value": 1.0}
        told = visit.page.evaluate(
            """async ([url, key, body]) => {
                const headers = {"Content-Type": "application/json"};
                if (key) headers.Authorization = `Bearer ${key}`;
                const answer = await fetch(url, {method: "POST", headers, body: JSON.stringify(body)});
                return [answer.status, (await answer.json()).code];
            }""",
            [up.url("feedback") + "/v1/outcomes", key, sale],
        )
        assert told == refusal
    assert "converted" not in visit.words(visitor)


def test_visitor_is_known_again_once_he_consents(up: Up, shop: Shop, site: SiteKey, visit: Visit) -> None:
    address = shop.serve("/consent", page_of(up, site))
    visit.page.goto(address)
    first = visit.anonymous_id
    visit.page.reload()
    assert visit.anonymous_id != first
    assert storage_of(visit) == EMPTY
    known = visit.anonymous_id
    visit.page.evaluate('closedloop.consent({personalise: true, email: false}, {text_version: "7"})')
    visit.wait(
        lambda: visit.words(f"anon:{known}").count("consent") == 2 or len(visit.posts("/v1/consents")) > 0
    )
    visit.wait(lambda: "personalise" in str(up.get("analyzer", f"/v1/customers/anon:{known}").json()))
    visit.page.reload()
    assert visit.anonymous_id == known
    visit.page.evaluate('closedloop.consent({personalise: true, email: false}, {text_version: "7"})')
    visit.page.wait_for_timeout(600)
    assert len(visit.posts("/v1/consents")) == 1
    visit.page.evaluate("closedloop.consent(false)")
    visit.wait(lambda: len(visit.posts("/v1/consents")) == 2)
    assert storage_of(visit) == EMPTY
    visit.page.reload()
    assert visit.anonymous_id != known


def test_global_privacy_control_keeps_the_device_clean(
    chromium: Browser, up: Up, shop: Shop, site: SiteKey
) -> None:
    visit = begin_visit(chromium, up)
    visit.context.add_init_script("Object.defineProperty(navigator, 'globalPrivacyControl', {value: true})")
    visit.page.goto(shop.serve("/gpc", page_of(up, site)))
    visit.page.evaluate("closedloop.consent(true)")
    visit.page.evaluate('closedloop.recommend("home")')
    visit.wait(lambda: visit.posts("/v1/recommendations"))
    assert body_of(visit.posts("/v1/touchpoints")[0])["context"] == {"gpc": True}
    assert body_of(visit.posts("/v1/recommendations")[0])["context"] == {"gpc": True}
    assert storage_of(visit) == EMPTY
    visit.context.close()


def test_what_happens_offline_is_told_later(up: Up, shop: Shop, site: SiteKey, visit: Visit) -> None:
    address = shop.serve("/offline", page_of(up, site))
    visit.page.goto(address)
    visit.page.evaluate("closedloop.consent(true)")
    visitor = f"anon:{visit.anonymous_id}"
    visit.wait(lambda: "page_viewed" in visit.words(visitor))
    visit.context.set_offline(True)
    visit.page.evaluate('closedloop.track("product_liked", {product_id: "p3"})')
    visit.page.wait_for_timeout(1000)
    assert "product_liked" not in visit.words(visitor)
    visit.context.set_offline(False)
    visit.wait(lambda: "product_liked" in visit.words(visitor))

    visit.context.set_offline(True)
    visit.page.evaluate('closedloop.track("product_removed", {product_id: "p3"})')
    visit.page.goto("about:blank")
    visit.context.set_offline(False)
    visit.page.goto(address)
    visit.wait(lambda: "product_removed" in visit.words(visitor))
    assert visit.words(visitor).count("product_removed") == 1


def test_calls_made_before_the_tag_was_there_are_played(
    up: Up, shop: Shop, site: SiteKey, visit: Visit
) -> None:
    early = 'window.closedloop = [["track", "coupon_redeemed", {code: "x"}]]'
    body = f"<script>{early}</script>"
    item = '<li><a data-offer="url"><b data-offer="name"></b></a></li>'
    template = f'<ul data-placement="home"><template>{item}</template></ul>'
    visit.page.goto(shop.serve("/early", page_of(up, site, body + template)))
    visit.wait(lambda: {"page_viewed", "coupon_redeemed"} <= set(visit.words(f"anon:{visit.anonymous_id}")))
    visit.page.evaluate('closedloop.recommend("home", {}, document.querySelector("ul"))')
    assert visit.page.locator("ul > li > a > b").count() == 5
    assert visit.page.locator("ul > li > a[href]").count() == 5
    assert visit.page.locator("ul > template").count() == 1
