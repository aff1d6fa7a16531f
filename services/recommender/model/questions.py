"""Requests for offers as they come in: from a query, checked, and answers as a browser may see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from libs.common.errors import Invalid
from libs.common.items import MAX_ITEM_BYTES
from libs.common.personal import refuse_email, refuse_personal
from services.recommender.model.entries import check_caller
from services.recommender.model.wire import MAX_BASKET, Ask

_LISTS = ("kinds", "exclude")
_NUMBERS = ("limit", "wait_ms")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_SECRET = ("score", "propensity")


def from_query(query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The members of an `Ask` named by a query; what does not fit is left as it is, to be refused by name.

    Lists may be repeated as well as separated by commas; of anything else the last counts.
    """
    raw: dict[str, Any] = {}
    context: dict[str, Any] = {}
    for name, text in query:
        if name == "product_id":
            context[name] = text
        elif name == "basket":
            context[name] = [*context.get(name, ()), *_list(text)]
        elif name in _LISTS:
            if found := _list(text):
                raw[name] = [*raw.get(name, ()), *found]
        elif name in _NUMBERS:
            raw[name] = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
        elif name == "dry_run":
            raw[name] = _TRUTH.get(text.lower(), text)
        elif name != "context":
            raw[name] = text
        else:
            raise Invalid("unknown_field", "say product_id and basket by name in a query", "/context")
    if context:
        raw["context"] = context
    if raw.get("kinds") == ["all"]:
        raw["kinds"] = "all"
    return raw


def check_ask(ask: Ask) -> None:
    """Raise `Invalid` for what the types do not say."""
    check_caller("customer_id", ask.customer_id)
    check_caller("anonymous_id", ask.anonymous_id)
    refuse_personal(ask.placement, "/placement")
    refuse_personal(ask.channel, "/channel")
    if ask.decision_id is not None:
        refuse_email(ask.decision_id, "/decision_id")
    if ask.decision_id is not None and not ask.decision_id.isprintable():
        raise Invalid("bad_string", "decision_id must hold printable characters only", "/decision_id")
    free = {name: value for name, value in ask.context.items() if name != "basket"}
    if free and len(msgspec.json.encode(free)) > MAX_ITEM_BYTES:
        raise Invalid("too_large", f"context may have {MAX_ITEM_BYTES} bytes beside the basket", "/context")
    page = ask.context.get("product_id")
    if page is not None and not isinstance(page, str):
        raise Invalid("wrong_type", "product_id must be a string", "/context/product_id")
    basket = ask.context.get("basket")
    if basket is None:
        return
    if not isinstance(basket, list):
        raise Invalid("wrong_type", "basket must be a list of product ids", "/context/basket")
    if len(basket) > MAX_BASKET:
        raise Invalid("too_large", f"basket may hold {MAX_BASKET} products", "/context/basket")
    for at, line in enumerate(basket):
        if not isinstance(line.get("product_id") if isinstance(line, dict) else line, str):
            raise Invalid("wrong_type", "must be a product id", f"/context/basket/{at}")


def without_secrets(answer: bytes) -> bytes:
    """An answer for a browser: no scores, propensities, group or policy."""
    document = msgspec.json.decode(answer)
    for name in ("group", "policy_version"):
        document.pop(name, None)
    for offer in document["offers"]:
        for name in _SECRET:
            offer.pop(name, None)
    return msgspec.json.encode(document)


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]
