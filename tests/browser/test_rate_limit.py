"""The site tag at a collector that lets one request a second in: what a page has to say waits."""

from __future__ import annotations

import time
from pathlib import Path

from playwright.sync_api import Browser, Response

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.customer_event import Touchpoint
from libs.common.keys import KeyFile
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service
from libs.common.spool.memory import MemoryJournal
from services.collector.app import create_service
from services.collector.settings import CollectorSettings
from tests.browser.rig import AGENT, Shop
from tests.served import served

SAID = 100
SAY = "closedloop.track('product_liked', {product_id: `p${n}`})"
USE_UP = """([to, key]) => Promise.all(Array.from({length: 12}, () => fetch(to, {
    method: "POST", headers: {"Content-Type": "text/plain"}, body: JSON.stringify({write_key: key}),
})))"""
"""What all pages of the key may send together is used up."""


def is_refused(answer: Response) -> bool:
    """Whether the tag was held back."""
    return answer.status == 429 and "product_liked" in (answer.request.post_data or "")


def test_a_page_that_is_held_back_says_everything_once(chromium: Browser, shop: Shop, tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add_publishable("pages", [shop.origin]).key
    journal = MemoryJournal()

    def create() -> Service:
        settings = CollectorSettings(data_dir=tmp_path, rate_address=0, rate_publishable=1)
        return create_service(settings, bus=MemoryBus(), journal=journal, board=ProgressBoard())

    def liked() -> list[str]:
        events = [event for event in journal.events if isinstance(event, Touchpoint)]
        return [event.properties["product_id"] for event in events if event.type == "product_liked"]

    with served(create) as collector:
        tag = f'<script src="{collector}/closedloop.js" data-key="{key}"></script>'
        address = shop.serve("/busy", f"<!doctype html><title>Shop</title>{tag}")
        context = chromium.new_context(user_agent=AGENT)
        try:
            page = context.new_page()
            refused: list[Response] = []
            page.on("response", lambda answer: refused.append(answer) if is_refused(answer) else None)
            page.goto(address)
            page.evaluate(USE_UP, [f"{collector}/v1/touchpoints", key])
            page.evaluate(f"for (let n = 0; n < {SAID}; n++) {SAY}")
            deadline = time.monotonic() + 60
            while len(liked()) < SAID and time.monotonic() < deadline:
                if not refused:
                    page.evaluate(USE_UP, [f"{collector}/v1/touchpoints", key])
                page.wait_for_timeout(50)
            assert refused
            assert liked() == [f"p{number}" for number in range(SAID)], "all of it, once, in order"
        finally:
            context.close()
