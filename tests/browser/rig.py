"""A shop's web server, a key for its pages, a Chromium to visit them with, and the real platform."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request

from tests.e2e.rig import Up, closedloop, eventually

ARGUMENTS = ["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage"]
"""Tests run as root, without a proxy, in containers with little shared memory."""


AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
)
"""A person's Chromium: one that calls itself headless is taken for a machine."""


def find_chromium() -> str:
    """Where Chromium is; skips the test without, but never in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "there is no Chromium: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Shop:
    """A web server with the pages it is given; ``origin`` has a publishable key, ``foreign`` has none."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        pages = self.pages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, body = pages.get(self.path.partition("?")[0], ("text/plain", b"not here"))
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *values: Any) -> None:
                return None

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        port = self._server.server_port
        self.origin = f"http://127.0.0.1:{port}"
        self.foreign = f"http://localhost:{port}"

    def serve(self, path: str, body: str | bytes, kind: str = "text/html; charset=utf-8") -> str:
        """Serve ``body`` at ``path``; its address."""
        self.pages[path] = (kind, body.encode() if isinstance(body, str) else body)
        return self.origin + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class SiteKey:
    """A publishable key and what signs customers for it."""

    key: str
    identity_secret: str

    def signature(self, customer_id: str) -> str:
        """What the shop's server hands to the page of a customer who has logged in."""
        return hmac.new(self.identity_secret.encode(), customer_id.encode(), hashlib.sha256).hexdigest()


def add_site_key(up: Up, name: str, *origins: str) -> SiteKey:
    """Make a publishable key beside the running platform."""
    arguments = [part for origin in origins for part in ("--origin", origin)]
    made = closedloop(
        "keys", "add", "--publishable", *arguments, "--name", name, "--data-dir", str(up.data_dir)
    )
    assert made.returncode == 0, made.stderr
    secret, key = made.stdout.splitlines()[-2:]
    return SiteKey(key, secret)


@dataclass
class Visit:
    """One visitor's browser, and what its pages sent to the platform."""

    page: Page
    context: BrowserContext
    up: Up
    sent: list[Request] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def anonymous_id(self) -> str:
        found: str = self.page.evaluate("closedloop.visitor()")
        return found

    def posts(self, path: str) -> list[Request]:
        """Requests other than preflights to a path of the platform."""
        return [one for one in self.sent if one.url.endswith(path) and one.method != "OPTIONS"]

    def timeline(self, customer: str) -> list[dict[str, Any]]:
        """What the platform holds of a customer, oldest first."""
        answer = self.up.get("analyzer", f"/v1/customers/{quote(customer, safe='')}/timeline?limit=100")
        return answer.json()[::-1] if answer.status_code == 200 else []

    def words(self, customer: str) -> list[str]:
        """Types of what the platform holds of a customer, oldest first."""
        return [entry["type"] for entry in self.timeline(customer)]

    def wait(self, holds: Callable[[], object], seconds: float = 30.0) -> None:
        """Let the page live until something holds."""

        def look() -> object:
            # Trap: the page's requests are told to us only while we are in Playwright's hands.
            self.page.wait_for_timeout(50)
            return holds()

        eventually(look, seconds)

    def picture(self, name: str) -> None:
        """Keep a screenshot where ``CLOSEDLOOP_SCREENSHOTS`` says."""
        if folder := os.environ.get("CLOSEDLOOP_SCREENSHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))


def begin_visit(browser: Browser, up: Up, **options: Any) -> Visit:
    """A visitor nobody has seen before."""
    options = {"viewport": {"width": 900, "height": 600}, "locale": "en-GB", "user_agent": AGENT} | options
    context = browser.new_context(**options)
    context.set_default_timeout(15_000)
    visit = Visit(context.new_page(), context, up)
    ports = {f":{up.base + offset}/" for offset in range(1, 6)}

    def note(request: Request) -> None:
        if any(port in request.url for port in ports):
            visit.sent.append(request)

    context.on("request", note)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    return visit


def body_of(request: Request) -> dict[str, Any]:
    """The JSON a page posted."""
    found: dict[str, Any] = msgspec.json.decode(request.post_data or "null")
    return found
