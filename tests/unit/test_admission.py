"""Token buckets: what they let in, how soon again, how much memory; and whose address counts."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.http import admission
from libs.common.http.admission import BURST_SECONDS, LIMITS, SITES, Admission, Buckets, Rates, site_of
from libs.common.http.problems import Refused
from libs.common.keys import Key, Scope
from libs.common.telemetry import Metrics

SECRET = Key("shop", frozenset(Scope))
PAGES = Key("pages", frozenset({Scope.COLLECT}), publishable=True, origins=("https://shop.example",))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def scope(client: str | None = "203.0.113.9", *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return {"type": "http", "headers": headers, "client": (client, 4711) if client else None}


def made(clock: Clock, metrics: Metrics | None = None, **rates: Any) -> Admission:
    counter = (metrics or Metrics("x")).counter("http_rate_limited_total", "x", {"limit": LIMITS})
    return Admission(Rates(**rates), counter, clock)


def passed(one: Admission, key: Key | None, where: dict[str, Any], most: int = 10_000) -> int:
    """How many requests come through before the first that does not."""
    for number in range(most):
        try:
            one.admit(key, where)
            if key is not None:
                one.admit_page(key)
        except Refused:
            return number
    return most


def test_burst_then_rate() -> None:
    clock = Clock()
    buckets = Buckets(5, clock)
    taken = [buckets.take("a") for _ in range(5 * BURST_SECONDS)]
    assert taken == [0.0] * 50
    assert buckets.take("a") == pytest.approx(0.2)
    assert buckets.take("b") == 0.0
    clock.now += 1.0
    assert [buckets.take("a") == 0.0 for _ in range(6)] == [True] * 5 + [False]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.lists(st.floats(0, 5), max_size=200))
def test_never_more_than_burst_and_rate_in_any_span(rate: int, gaps: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(rate, clock)
    let_in: list[float] = []
    for gap in gaps:
        clock.now += gap
        if buckets.take("a") == 0.0:
            let_in.append(clock.now)
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            span = let_in[last] - let_in[first]
            assert last - first + 1 <= rate * (BURST_SECONDS + span) + 1e-6


def test_refused_requests_do_not_keep_somebody_out() -> None:
    clock = Clock()
    buckets = Buckets(1, clock)
    while buckets.take("a") == 0.0:
        pass
    for _ in range(1_000):
        buckets.take("a")
    clock.now += 1.0
    assert buckets.take("a") == 0.0


def test_memory_is_bounded_and_who_is_limited_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_NAMES", 100)
    buckets = Buckets(1, Clock())
    while buckets.take("busy") == 0.0:
        pass
    for number in range(150):
        assert buckets.take(f"name {number}") == 0.0
        assert buckets.take("busy") > 0.0, "forgotten by the first change of generations"
    for number in range(5_000):
        buckets.take(f"other {number}")
        assert len(buckets) <= 200


def test_a_network_of_ipv6_cannot_free_its_sites_by_a_flood_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "MOST_NAMES", 100)
    one = made(Clock(), address=1)
    held_back = scope("2001:db8:7:1::1")
    assert passed(one, None, held_back) == BURST_SECONDS
    through = sum(passed(one, None, scope(f"2001:db8:7:{n:x}::1"), 1) for n in range(2, 400))
    assert through == BURST_SECONDS * (SITES - 1)
    assert passed(one, None, held_back) == 0, "forgotten in the flood"
    assert passed(one, None, scope("2001:db8:8:1::1")) == BURST_SECONDS, "another network"


def test_a_site_that_is_held_back_costs_its_neighbours_nothing() -> None:
    one = made(Clock(), address=1)
    for _ in range(1_000):
        passed(one, None, scope("2001:db8:7:1::1"), 100)
    assert passed(one, None, scope("2001:db8:7:2::1")) == BURST_SECONDS


def test_a_server_has_no_limit_unless_it_is_set() -> None:
    assert passed(made(Clock(), address=1, publishable=1), SECRET, scope()) == 10_000
    assert passed(made(Clock(), secret=3), SECRET, scope()) == 30


def test_pages_are_limited_by_address_and_together() -> None:
    one = made(Clock(), address=2, publishable=5)
    assert passed(one, PAGES, scope("192.0.2.1")) == 20
    assert passed(one, PAGES, scope("192.0.2.2")) == 20
    assert passed(one, PAGES, scope("192.0.2.3")) == 10, "all pages of the key: 50"
    assert passed(one, SECRET, scope("192.0.2.1")) == 10_000


def test_who_is_held_back_by_address_costs_the_other_pages_nothing() -> None:
    one = made(Clock(), address=1, publishable=2)
    for _ in range(5):
        assert passed(one, PAGES, scope("192.0.2.1"), 100) in (0, 10)
    assert passed(one, PAGES, scope("192.0.2.2")) == 10


def test_refusal_names_the_limit_and_when_to_come_again() -> None:
    metrics = Metrics("x")
    one = made(Clock(), metrics, address=1)
    passed(one, None, scope())
    with pytest.raises(Refused) as caught:
        one.admit(None, scope())
    refused = caught.value
    assert (refused.status, refused.code, refused.more) == (429, "rate_limited", {"limit": "address"})
    assert refused.headers == {"retry-after": "1"}
    assert "1 a second" in refused.detail
    rendered = metrics.render().decode()
    assert 'closedloop_x_http_rate_limited_total{limit="address"} 2.0' in rendered
    assert "203.0.113" not in rendered + refused.detail


@pytest.mark.parametrize(
    ("peer", "forwarded", "counts_as"),
    [
        ("203.0.113.9", (), "203.0.113.9"),
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.1.1.1, 198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.1.1.1, 198.51.100.1, 10.9.9.9",), "198.51.100.1"),
        ("10.0.0.1", ("1.1.1.1", "198.51.100.1", "10.9.9.9"), "198.51.100.1"),
        ("10.0.0.1", ("10.3.3.3, 10.9.9.9",), "10.3.3.3"),
        ("10.0.0.1", ("198.51.100.1:5555",), "198.51.100.1"),
        ("10.0.0.1", ("::ffff:198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("[2001:db8:1:2:3::4]:443",), "2001:db8:1:2::/64"),
        ("10.0.0.1", ("1.1.1.1, unknown",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("2001:db8:1:2:aaaa::1", (), "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        (None, (), ""),
        (None, ("198.51.100.1",), ""),
    ],
)
def test_whose_address_counts(peer: str | None, forwarded: tuple[str, ...], counts_as: str) -> None:
    one = made(Clock(), address=1, proxies=(ip_network("10.0.0.0/8"),))
    assert one._address(scope(peer, *forwarded)) == counts_as


def test_proxy_that_nobody_named_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    one = made(Clock(), address=1)
    for _ in range(3):
        one.admit(None, scope("203.0.113.9", "198.51.100.1"))
    assert [
        record.message for record in caplog.records if "CLOSEDLOOP_TRUSTED_PROXIES" in record.message
    ] != []
    assert len(caplog.records) == 1
    assert "198.51" not in caplog.text


@given(st.text(max_size=60))
def test_no_text_is_too_strange_to_be_an_address(text: str) -> None:
    site_of(text)
