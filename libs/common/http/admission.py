"""How many requests a key or an address may send: token buckets, in bounded memory, before any work is done.

Secret keys are for servers, which send for all their customers: they are limited only where that is set.
Whoever has none (a page with a publishable key, a token, nothing) is limited by his address, and all pages of
a publishable key are limited together. Addresses are in memory only, those of IPv6 cut to the network of a
site, and in no log and no metric. The sites of one /48, of which whoever has one may be any, have together
what `SITES` of them have.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, NamedTuple

from starlette.types import Scope

from libs.common.http.problems import Refused
from libs.common.keys import Key
from libs.common.settings import CommonSettings

if TYPE_CHECKING:
    from libs.common.telemetry import Counter

BURST_SECONDS = 10
"""A bucket holds what its rate gives in so many seconds."""
MOST_NAMES = 32_768
"""Names of one generation; two are kept, some 10 MB where somebody sends from that many addresses."""

SITES = 10
"""As many sites of one network of IPv6 may send at their full rate."""

PUBLISHABLE, SECRET, ADDRESS = LIMITS = ("publishable_key", "secret_key", "address")
"""What a refusal and the metric call the limits."""

_FORWARDED = b"x-forwarded-for"
_log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network


class Rates(NamedTuple):
    """Requests a second, 0 for no limit, and the proxies that are believed about addresses."""

    publishable: int = 0
    secret: int = 0
    address: int = 0
    proxies: Sequence[Network] = ()

    @classmethod
    def of(cls, settings: CommonSettings) -> Rates:
        """As ``settings`` say."""
        proxies = settings.trusted_proxies
        return cls(settings.rate_publishable, settings.rate_server, settings.rate_address, proxies)


NO_LIMITS = Rates()


class Buckets:
    """A token bucket for each name (GCRA: one number tells how full it is).

    A name that was not heard of for `BURST_SECONDS` has a full bucket, which is what unknown ones have; so
    the older of two generations can be forgotten when the younger is full. Where `MOST_NAMES` come within
    less than that time, whoever was limited is forgotten with the older generation.
    """

    def __init__(self, rate: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / rate
        self._monotonic = monotonic
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def take(self, name: str) -> float:
        """Take a token of ``name``: 0, or after how many seconds there will be one."""
        now = self._monotonic()
        full_at = self._full_at(name, now)
        wait = full_at - now - BURST_SECONDS
        if wait > 1e-9:
            return wait
        if name not in self._young and len(self._young) >= MOST_NAMES:
            self._old, self._young = self._young, {}
        self._young[name] = full_at
        return 0.0

    def wait(self, name: str) -> float:
        """What `take` would say; nothing is taken."""
        now = self._monotonic()
        wait = self._full_at(name, now) - now - BURST_SECONDS
        return wait if wait > 1e-9 else 0.0

    def _full_at(self, name: str, now: float) -> float:
        """When the bucket of ``name`` were full again, with one token less than now."""
        full_at = self._young.get(name)
        if full_at is None:
            full_at = self._old.get(name, now)
        return max(full_at, now) + self._interval


class Admission:
    """Whether a request is let in, by its key and by where it comes from."""

    def __init__(
        self, rates: Rates, refused: Counter, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._rates = rates
        self._refused = refused
        per_second = zip(LIMITS, rates[:3], strict=True)
        self._buckets = {name: Buckets(rate, monotonic) for name, rate in per_second if rate}
        self._networks = Buckets(rates.address * SITES, monotonic) if rates.address else None
        self._warned = False

    def admit(self, key: Key | None, scope: Scope) -> None:
        """Let a request of ``key`` (None: none is known) in, or raise 429; a page goes on to `admit_page`."""
        if key is not None and not key.publishable:
            self._take(SECRET, key.name, self._rates.secret)
        elif self._networks is not None:
            site = self._address(scope)
            network = network_of(site)
            if network is None:
                self._take(ADDRESS, site, self._rates.address)
                return
            # Trap: asked first, taken last. A site that is held back must not use up what its neighbours
            # share, and a network that is held back must not bring new names.
            self._hold_back(ADDRESS, self._networks.wait(network), self._rates.address * SITES)
            self._take(ADDRESS, site, self._rates.address)
            self._networks.take(network)

    def admit_page(self, key: Key) -> None:
        """Let a request of ``key`` in as far as all its pages are limited together, or raise 429."""
        # Trap: last of all. Who is refused for his rate, origin or scope must not use up what they share.
        if key.publishable:
            self._take(PUBLISHABLE, key.name, self._rates.publishable)

    def _take(self, limit: str, name: str, rate: int) -> None:
        buckets = self._buckets.get(limit)
        if buckets is None:
            return
        self._hold_back(limit, buckets.take(name), rate)

    def _hold_back(self, limit: str, wait: float, rate: int) -> None:
        """Raise 429 for whoever has ``wait`` seconds to wait, if any."""
        if wait:
            self._refused.add(1, limit)
            raise Refused(
                429,
                "rate_limited",
                f"too many requests by this {limit.replace('_', ' ')}: {rate} a second may come, "
                f"{rate * BURST_SECONDS} at once",
                headers={"retry-after": str(math.ceil(wait))},
                more={"limit": limit},
            )

    def _address(self, scope: Scope) -> str:
        """The address of whoever sends, as far as trusted proxies tell it."""
        host, _ = scope.get("client") or ("", 0)
        peer = site_of(host) or ""
        told = [value for name, value in scope["headers"] if name == _FORWARDED]
        if not told:
            return peer
        if not self._is_proxy(host):
            self._warn()
            return peer
        # From the last on, which the proxy before us wrote; what stands before the first that is no proxy of
        # ours was written by whoever likes.
        for hop in reversed(b",".join(told).decode("latin-1").split(",")):
            site = site_of(hop)
            if site is None:
                break
            peer = site
            if not self._is_proxy(hop):
                break
        return peer

    def _is_proxy(self, address: str) -> bool:
        return bool(self._rates.proxies) and is_one_of(address, tuple(self._rates.proxies))

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "requests come through a proxy that is not trusted: all who come by it share one limit; "
                "name it in CLOSEDLOOP_TRUSTED_PROXIES"
            )


@lru_cache(maxsize=4_096)
def site_of(text: str) -> str | None:
    """What an address is limited by: itself, of IPv6 its network of 64 bits; None where it is no address."""
    address = _parsed(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return None if address is None else str(address)


@lru_cache(maxsize=4_096)
def network_of(site: str) -> str | None:
    """The network of 48 bits that a `site_of` IPv6 lies in; None for others."""
    return str(IPv6Network(site).supernet(new_prefix=48)) if site.endswith("/64") else None


@lru_cache(maxsize=4_096)
def is_one_of(text: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address lies in one of ``networks``."""
    address = _parsed(text)
    return address is not None and any(address in network for network in networks)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    host = text.strip().strip('"')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        # With a port, as some proxies write it.
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
