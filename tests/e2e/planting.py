"""Personal data, and a harmless word beside it, put in at every door of a platform."""

from __future__ import annotations

import base64
import gzip
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from tests.e2e.rig import Up, closedloop, eventually

MAIL, NAME, STREET = "zz.planted@privacy-check.example", "Quartermain", "Planetree Lane"
PHONE, IPV4, IPV6 = "+49 1525 5550192", "203.0.113.77", "2001:db8:77::dead:beef"
TRACES = {
    "e-mail address": (b"planted@privacy", b"planted%40privacy", b"planted%2540privacy", b"zz.planted"),
    "name": (b"quartermain",),
    "street": (b"planetree",),
    "phone number": (b"1525 5550192", b"15255550192", b"1525-5550192", b"1525%205550192", b"+491525"),
    "IP address": (b"203.0.113.77", b"2001:db8:77:", b"dead:beef"),
    "packed": (base64.b64encode(MAIL.encode()).rstrip(b"=").lower(), MAIL.encode().hex().encode()),
}
HARMLESS = "zz-harmless-word"
PERSON = {
    "email": MAIL, "name": f"Zebedee {NAME}", "firstName": "Zebedee", "last_name": NAME, "phone": PHONE,
    "address": {"street": f"{STREET} 7", "city": "Springfield"}, "ip": IPV4, "username": NAME,
}  # fmt: skip
TEXT = f"please write to {MAIL} or call {PHONE}, seen from {IPV4} and {IPV6}"
NAMED = f"call {PHONE} of {MAIL}"
"""Where an id stands, or the name of a thing: digits with dots may be a version as well as an address."""
URL = f"https://shop.example/coffee?email={quote(MAIL)}&phone={quote(PHONE)}&name={NAME}&q={HARMLESS}#{MAIL}"
FREE = {
    **PERSON, "note": TEXT, "url": URL, "list": [TEXT, {"customer_name": NAME, "deep": {"contact": MAIL}}],
    MAIL: 1, "word": HARMLESS,
}  # fmt: skip
HEADERS = {
    "x-forwarded-for": f"{IPV4}, {IPV6}",
    "forwarded": f"for={IPV4}",
    "x-real-ip": IPV4,
    "user-agent": f"Mozilla/5.0 ({MAIL})",
    "referer": URL,
    "from": MAIL,
    "cookie": f"user={MAIL}",
    "x-request-id": MAIL,
    "traceparent": MAIL,
}
Post = Callable[..., httpx.Response]


def touch(**more: Any) -> dict[str, Any]:
    return {"type": "fitting_room_booked", "channel": "web", "customer_id": f"{HARMLESS}-1", **more}


def plant_at_collector(up: Up) -> None:
    """The native doors: what is free is cleaned, what is an id or a word is refused."""

    def refused(path: str, *bodies: dict[str, Any]) -> None:
        answer = up.post("collector", path, list(bodies))
        assert answer.status_code == 422, answer.text

    def taken(path: str, *bodies: dict[str, Any]) -> None:
        answer = up.post("collector", path, list(bodies))
        assert (answer.status_code, answer.json()["rejected"]) == (202, []), answer.text

    lines = [{"product_id": f"{HARMLESS}-p", "quantity": 1, "price": 7.5, "name": "Coffee", "gift_for": TEXT}]
    order = {"order_id": f"o {MAIL}", "products": lines, "currency": "EUR", "coupon": NAMED, **FREE}
    taken(
        "/v1/touchpoints?email=" + quote(MAIL),
        touch(id="t1", properties=FREE, context=FREE),
        touch(id="t2", type="order_completed", properties=order, context={"ip": IPV4, "traits": PERSON}),
        touch(id="t3", type="product_viewed", properties={**FREE, "product_id": f"{HARMLESS}-p"}),
        touch(
            id="t4",
            type="case_opened",
            channel="service",
            properties={**FREE, "case_id": MAIL, "reason": TEXT},
        ),
        touch(
            id="t5",
            type="call_ended",
            channel="phone",
            properties={**FREE, "agent_id": MAIL, "campaign_id": MAIL},
        ),
        touch(id="t6", type="email_clicked", channel="email", properties={**FREE, "link_url": URL}),
        touch(
            id="t7", type="review_posted", channel="social", properties={**FREE, "rating": 5, "text": TEXT}
        ),
        touch(id="t8", type="products_searched", properties={"query": TEXT, "results": 0}),
        touch(id="t9", properties={"word": HARMLESS}, anonymous_id=f"{HARMLESS}-v"),
    )
    for key in (MAIL, PHONE, IPV4, IPV6, quote(MAIL)):
        refused("/v1/touchpoints", touch(customer_id=key), touch(anonymous_id=key), touch(account_id=key))
        refused(
            "/v1/identities",
            {"customer_id": key, "anonymous_id": "v"},
            {"customer_id": "c", "anonymous_id": key},
        )
        refused("/v1/consents", {"customer_id": key, "purpose": "email", "granted": True})
        refused("/v1/assets", {"account_id": key, "model": "X200"})
        word = {"customer_id": f"{HARMLESS}-1", "purpose": "email", "granted": True}
        refused("/v1/consents", {**word, "purpose": key})
        taken("/v1/consents", {**word, "source": key}, {**word, "text_version": key})
    taken(
        "/v1/consents",
        {"customer_id": f"{HARMLESS}-1", "purpose": "post", "granted": True, "source": f"call from {PHONE}"},
        {
            "customer_id": f"{HARMLESS}-1",
            "purpose": "phone",
            "granted": True,
            "text_version": f"as seen from {IPV4}",
        },
    )
    word = {"purpose": "email", "source": f"told {TEXT}", "text_version": MAIL}
    taken("/v1/touchpoints", touch(id="t10", type="consent_given", properties=word))
    refused("/v1/touchpoints", touch(id=MAIL), touch(type=MAIL), touch(channel=MAIL))
    taken("/v1/assets", {"account_id": "acme", "model": "X200", "serial": "s-1", "attributes": FREE})
    table = f"asset_id,account_id,model,owner_email\nm-1,acme,X200,{MAIL}\n".encode()
    sent = up.client.post(
        up.url("collector") + "/v1/assets", content=table, headers={"content-type": "text/csv"}
    )
    assert sent.status_code in (202, 422)
    # The same id for something else: a dead letter, with all that was posted.
    taken("/v1/touchpoints", touch(id="t9", properties={**FREE, "word": f"{HARMLESS} again"}))


def plant_in_dialects(up: Up) -> None:
    """Segment's and CloudEvents' doors."""
    said = {
        "userId": f"{HARMLESS}-2", "anonymousId": f"{HARMLESS}-w", "traits": PERSON, "properties": FREE,
        "context": {
            "ip": IPV4, "traits": PERSON, "userAgent": f"Mozilla/5.0 {MAIL}", "locale": "de",
            "page": {"url": URL, "referrer": URL, "title": TEXT, "search": f"?email={MAIL}", "path": MAIL},
            "device": {"advertisingId": MAIL, "name": f"{NAME}'s phone"},
            "campaign": {"name": "spring", "term": MAIL},
        },
    }  # fmt: skip
    messages = [
        {**said, "type": "identify", "messageId": "s1"},
        {**said, "type": "track", "event": "Fitting Room Booked", "messageId": "s2"},
        {**said, "type": "page", "name": NAMED, "messageId": "s3"},
        {**said, "type": "screen", "name": NAMED, "messageId": "s4"},
        {**said, "type": "group", "groupId": "acme", "messageId": "s5"},
        {**said, "type": "alias", "previousId": MAIL, "messageId": "s6"},
        {**said, "type": "track", "event": TEXT, "messageId": "s7"},
        {**said, "type": "track", "event": "Seen", "messageId": MAIL},
        {**said, "type": "track", "event": "Seen", "userId": MAIL, "messageId": "s8"},
        {**said, "type": "track", "event": "Seen", "anonymousId": PHONE, "userId": None, "messageId": "s9"},
    ]
    packed = gzip.compress(json.dumps({"batch": messages, "context": said["context"]}).encode())
    url = up.url("collector")
    answer = up.client.post(f"{url}/v1/batch", content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] >= 5
    for path, message in zip(
        ("identify", "track", "page", "screen", "group", "alias"), messages, strict=False
    ):
        up.post("collector", f"/v1/{path}", {**message, "messageId": f"one-{message['messageId']}"})
    up.post("collector", "/v1/m", {"series": [{"metric": MAIL}]})
    event = {
        "specversion": "1.0", "id": "e1", "source": f"mailto:{MAIL}", "type": "shop.note_taken",
        "channel": "service", "subject": f"{HARMLESS}-3", "data": FREE, "customerphone": PHONE,
    }  # fmt: skip
    events = [
        event,
        {**event, "id": "e2", "subject": MAIL},
        {**event, "id": MAIL},
        {**event, "id": "e3", "data": TEXT},
    ]
    batch = {"content-type": "application/cloudevents-batch+json"}
    sent = up.client.post(f"{url}/v1/events", content=json.dumps(events).encode(), headers=batch)
    assert sent.status_code == 202, sent.text
    binary = {
        f"ce-{name}": str(event[name]) for name in ("specversion", "source", "type", "subject", "channel")
    }
    binary |= {"ce-id": "e4", "ce-note": quote(MAIL), "content-type": "application/json"}
    assert (
        up.client.post(f"{url}/v1/events", content=json.dumps(FREE).encode(), headers=binary).status_code
        == 202
    )


def plant_in_pages(up: Up) -> None:
    """The site tag's doors: beacons with a publishable key."""
    added = closedloop(
        "keys",
        "add",
        "--publishable",
        "--origin",
        "https://shop.example",
        "--name",
        "pages",
        "--data-dir",
        str(up.data_dir),
    )
    key = added.stdout.split()[-1]
    view = {"type": "page_viewed", "channel": "web", "anonymous_id": f"{HARMLESS}-v"}
    items = [
        {**view, "properties": {"url": URL, "title": TEXT, "word": HARMLESS}, "context": FREE},
        {**view, **PERSON},
    ]
    body = json.dumps({"write_key": key, "touchpoints": items})
    page = httpx.Client(headers={**HEADERS, "origin": "https://shop.example"}, trust_env=False)

    def beaconed() -> bool:
        sent = page.post(
            f"{up.url('collector')}/v1/touchpoints", content=body, headers={"content-type": "text/plain"}
        )
        return sent.status_code == 202

    eventually(beaconed, 5.0)
    asked = {"placement": "home", "anonymous_id": f"{HARMLESS}-v", "context": FREE}
    auth = {"authorization": f"Bearer {key}"}
    assert (
        page.post(f"{up.url('recommender')}/v1/recommendations", json=asked, headers=auth).status_code == 200
    )
    page.close()


def plant_at_recommender_and_feedback(up: Up) -> None:
    """Questions, decisions, outcomes, and a customer's page."""
    product = {
        "product_id": f"{HARMLESS}-p",
        "name": "Coffee",
        "category": "a/b",
        "price": 5.0,
        "currency": "EUR",
    }
    assert (
        up.post("recommender", "/v1/products", [product, {**product, "product_id": "p2"}]).status_code == 200
    )
    asked = {
        "placement": "home",
        "customer_id": f"{HARMLESS}-1",
        "context": {**FREE, "basket": [MAIL], "product_id": MAIL},
    }

    def stocked() -> bool:
        answer = up.post("recommender", "/v1/recommendations", {**asked, "dry_run": True})
        return bool(answer.json()["offers"])

    eventually(stocked, 5.0)
    answer = up.post(
        "recommender",
        "/v1/recommendations",
        {**asked, "exclude": [MAIL, PHONE], "decision_id": f"{HARMLESS}-d"},
    )
    assert answer.status_code == 200, answer.text
    offers = answer.json()["offers"]
    assert offers
    for name in ("customer_id", "anonymous_id", "decision_id", "placement", "channel"):
        # What callers number decisions by may look like a phone, as an order's number may.
        for value in (MAIL, PHONE, IPV4) if name != "decision_id" else (MAIL,):
            up.post("recommender", "/v1/recommendations", {**asked, name: value})
            up.get(
                "recommender", f"/v1/recommendations?placement=home&{name}={quote(value)}&email={quote(MAIL)}"
            )
    up.post(
        "recommender",
        "/v1/recommendations/batch",
        {"requests": [{**asked, "customer_id": MAIL}, {**asked, **PERSON}]},
    )
    token = offers[0]["token"]
    outcomes: list[dict[str, Any]] = [
        {"token": token, "outcome": "clicked"},
        {"token": token, "outcome": MAIL},
        {"token": token, "outcome": "accepted", "order_id": MAIL},
        {"token": token, "outcome": "shown", "customer_id": MAIL},
        {"token": token, "outcome": "opened", **PERSON},
        {"token": MAIL, "outcome": "shown"},
        {"decision_id": MAIL, "offer_id": MAIL, "customer_id": PHONE, "outcome": "shown"},
    ]
    assert up.post("feedback", f"/v1/outcomes?email={quote(MAIL)}", outcomes).json()["accepted"] == 1
    url = up.url("feedback")
    assert up.client.get(f"{url}/u/{token}?email={quote(MAIL)}").status_code == 200
    said = {"List-Unsubscribe": "One-Click", "email": MAIL}
    assert up.client.post(f"{url}/u/{token}", data=said).status_code == 200
    assert up.client.get(f"{url}/u/{quote(MAIL)}").status_code == 422


def plant_in_what_is_refused(up: Up) -> None:
    """Bodies that cannot be read, paths that are not there, keys that nobody has, and no HTTP at all."""
    torn = [
        f'{{"type": "seen", "properties": {{"email": "{MAIL}"'.encode(),
        f'{{"email": "{MAIL}", "n": NaN}}'.encode(),
        f'"{MAIL}"'.encode(),
        f"email={MAIL}&phone={PHONE}".encode(),
        f'{{"touchpoints": [{{"type": "seen", "{MAIL}": 1}}, "{MAIL}", 7]}}'.encode(),
        json.dumps(
            [touch(type="email_bounced", properties={"bounce_type": MAIL}), touch(occurred_at=MAIL)]
        ).encode(),
        b'{"type": "seen", "channel": "web", "customer_id": "\xff' + MAIL.encode() + b'"}',
    ]
    paths = [
        (
            "collector",
            ("touchpoints", "identities", "consents", "assets", "erasures", "batch", "track", "events"),
        ),
        ("recommender", ("recommendations", "recommendations/batch", "products", "placements")),
        ("feedback", ("outcomes",)),
    ]
    for service, names in paths:
        for name in names:
            for body in torn:
                for kind in ("application/json", "application/x-ndjson", "text/plain"):
                    sent = up.client.post(
                        f"{up.url(service)}/v1/{name}", content=body, headers={"content-type": kind}
                    )
                    assert sent.status_code < 500, (name, body, sent.text)
    for service in ("collector", "analyzer", "recommender", "feedback", "learner"):
        for path in (
            quote(MAIL),
            f"v1/customers/{quote(MAIL)}",
            f"v1/{quote(PHONE)}?ip={IPV4}",
            f"v1/decisions/{quote(MAIL)}",
        ):
            assert up.get(service, f"/{path}").status_code < 500
        wrong = {"authorization": f"Bearer {MAIL}"}
        assert httpx.get(f"{up.url(service)}/v1/ledger", headers=wrong, trust_env=False).status_code in (
            401,
            404,
        )
        host, port = up.url(service).removeprefix("http://").split(":")
        for junk in (
            f"GET /{MAIL} NONSENSE\r\n\r\n",
            f"GET / HTTP/1.1\r\n{NAME} {MAIL}\r\n\r\n",
            f"POST / HTTP/1.1\r\nFrom: {MAIL}",
        ):
            with socket.create_connection((host, int(port)), timeout=5) as line:
                line.sendall(junk.encode())
