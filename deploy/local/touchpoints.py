"""docs/touchpoints.md: every touchpoint type, its properties, an example, and what it does to the model.

What it does is told by the folds themselves: the first line of each, and which parts of a model change when
the example is folded into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import msgspec
from msgspec import Struct

from libs.common.clock import MINUTE, SECOND, Millis
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.touchpoint import ORDER_CHANGES, ORDERS, VOCABULARY
from libs.common.contracts.vocabulary import goods, outreach, person, public, service, shop
from libs.common.contracts.vocabulary.values import TouchpointType
from services.analyzer.model import automatic
from services.analyzer.model import items as item_folds
from services.analyzer.model import profile as profile_folds
from services.analyzer.model.effects import EFFECTS
from services.analyzer.model.fold import LOOKS, Models, fold
from services.analyzer.model.readable import CustomerView, readable

ROOMS: tuple[ModuleType, ...] = (shop, outreach, service, goods, public, person)

BEFORE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(ORDER_CHANGES, ("order_completed",)),
    "email_opened": ("email_sent",),
    "email_clicked": ("email_sent",),
    "card_returned": ("direct_mail_sent",),
    "code_scanned": ("direct_mail_sent",),
    "survey_answered": ("survey_sent",),
    "case_closed": ("case_opened",),
    "asset_retired": ("asset_registered",),
    "kit_fitted": ("asset_registered",),
    "kit_removed": ("asset_registered",),
    "defect_reported": ("asset_registered",),
    "bid_outbid": ("bid_placed",),
    "lot_won": ("bid_placed",),
    "lot_ended": ("lot_watched",),
}
"""What must have happened before for an example to show all that its type does."""

COUNTED = frozenset({"totals", "activity"})
"""Parts of the model that every touchpoint changes."""
ACTIVE = frozenset({"hours", "recent", "first_at", "last_at"})
"""Those that all but what was done to a customer change as well."""

_T0: Millis = 1_790_000_000_000

_HEAD = """# Touchpoints

<!-- Written by `make docs`; do not edit. -->

Post to `/v1/touchpoints` as in [integrate](integrate.md). The types below are known: their properties are
checked, and a property that does not fit refuses the touchpoint with its place and the reason, e.g.
`/3/properties/rating`. Properties that are not named here are free and are kept. A type that is not named
here is kept with whatever it has, counted in the customer's totals and in the metric
`closedloop_collector_unknown_types_total`. Times are RFC 3339; amounts are in the base currency.

## What every touchpoint does

It counts in `totals` (by type) and `activity` (by channel and type, fading with half-lives of 1, 14 and 120
days). What the customer did himself also moves `hours` (of the day, UTC), `recent`, `first_at` and
`last_at`; what was done to him (marked *to him*) does not. What more a type does stands with it, and which
parts of `GET /v1/customers/{id}` change when its example is posted, after the touchpoints that belong
before it.

With `account_id` he belongs to that account from then on. What is said of the installed base is then the
account's: it is in the answer for each of its people (`of_account`), and under `account:` + the id by
itself. E-mails, letters, calls, surveys and visits are counted for the account too, without a name.
Consents and the ledger of contacts stay with the person. A page with a publishable key is not believed
about accounts: the touchpoint is kept without it, flagged `account_unverified`.

Machines of many companies are posted to `/v1/assets`: [integrate](integrate.md#machines-in-the-field).

## What no person did

is kept, stands in the timeline with the reason among its `flags`, and is not learned from:

| flag | told by | counted in `totals` |
|---|---|---|
| `automatic:crawler`, `automatic:headless` | user agent, or `context.user_agent` | no: it makes no customer |
| `automatic:prefetch` | a browser's `Sec-Purpose`, `Purpose` or `X-Moz` | no |
| `automatic:rate` | over RATE views of somebody in a minute of event time, and REST minutes after it | yes |
| `automatic:mail_scanner` | a SCANNED link of one mail within SCAN seconds, and more in that time | yes |

Views are PACED. Mails are told apart by `email_id`, else `campaign_id`; what the clicks
before the SCANNED changed is taken back, and they stand in the timeline without the flag.
Both are told from a few numbers in the customer's model, so a rebuild labels alike. Views may come late by
two minutes in which there were others; older ones are not judged, and neither are imports, many of which
happened at midnight. Clicks at a full minute are not judged: a date without time becomes that. Of mails
clicked at once the last MAILS are told apart. Orders are never taken for a machine's by their rate. All of
it goes by `occurred_at`, which whoever sends chooses: views spread over other times are not found.
"""


def page() -> str:
    """The whole page."""
    return _machines(_HEAD) + "".join(_room(room) for room in ROOMS)


def _machines(text: str) -> str:
    """``text`` with the figures by which machines are told from people."""
    paced = ", ".join(f"`{name}`" for name in sorted(automatic.VIEWS))
    figures = {
        "RATE": automatic.MOST_VIEWS,
        "PACED": paced,
        "REST": automatic.REST // MINUTE,
        "SCANNED": {3: "third"}[automatic.SCANNED],
        "MAILS": {4: "four"}[automatic.MAILS],
        "SCAN": automatic.SCAN // SECOND,
    }
    return re.sub(r"\b(RATE|PACED|REST|SCANNED|SCAN|MAILS)\b", lambda found: str(figures[found[0]]), text)


def changes(type_: str) -> tuple[str, ...]:
    """Parts of the model that the example of a type changes, after what belongs before it."""
    models = Models.new("c-1")
    for place, name in enumerate(BEFORE.get(type_, ())):
        models = fold(models, _example(VOCABULARY[name], place), _T0).models
    before = readable(models.profile, models.items)
    models = fold(models, _example(VOCABULARY[type_], len(BEFORE.get(type_, ()))), _T0).models
    return differing(before, readable(models.profile, models.items))


def differing(before: CustomerView, after: CustomerView) -> tuple[str, ...]:
    """The fields in which two views of a customer differ, in their order."""
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    return tuple(name for name in new if new[name] != old[name])


def _example(one: TouchpointType, place: int) -> Touchpoint:
    at = _T0 + place * MINUTE
    return Touchpoint(
        id=one.name,
        source="shop",
        customer="c-1",
        occurred_at=at,
        recorded_at=at,
        type=one.name,
        channel=one.channel,
        properties=one.example,
    )


def _room(room: ModuleType) -> str:
    types: tuple[TouchpointType, ...] = room.TYPES
    text = f"\n## {_first_line(room.__doc__).split(';')[0].rstrip('.')}\n\n"
    text += "| type | when | more that it does | changes |\n|---|---|---|---|\n"
    for one in types:
        when = f"{one.when} *(to him)*" if one.outbound else one.when
        parts = [part for part in changes(one.name) if part not in COUNTED | ACTIVE]
        told = " ".join(dict.fromkeys(_first_line(deed.__doc__) for deed in _deeds(one.name)))
        cells = (f"`{one.name}`", when, told.replace("``", "`") or "–", ", ".join(f"`{p}`" for p in parts))
        text += "| " + " | ".join(cell or "–" for cell in cells) + " |\n"
    text += "\n| properties of | name | what |\n|---|---|---|\n"
    for shape in dict.fromkeys(one.shape for one in types):
        named = ", ".join(f"`{one.name}`" for one in types if one.shape is shape)
        text += _shape_rows(shape, f"{named}: {_first_line(shape.__doc__)}".replace("``", "`"))
    text += "\n```json\n"
    for one in types:
        body = {"type": one.name, "channel": one.channel, "customer_id": "c-1", "properties": one.example}
        text += json.dumps(body, ensure_ascii=False) + "\n"
    return text + "```\n"


def _deeds(type_: str) -> Iterable[Callable[..., Any]]:
    """The folds a type has beyond those of every touchpoint."""
    if type_ in ORDERS:
        yield from (profile_folds.bought, item_folds.bought)
    if type_ in ORDER_CHANGES:
        yield item_folds.unbought
    if type_ in LOOKS:
        yield item_folds.viewed
    yield from EFFECTS.get(type_, ())


def _first_line(doc: str | None) -> str:
    return (doc or "").partition("\n")[0]


def _shape_rows(shape: type[Struct], named: str) -> str:
    schema = msgspec.json.schema(shape)
    defs: dict[str, Any] = schema["$defs"]
    own = defs[shape.__name__]
    rows = ""
    for name, said in own["properties"].items():
        needed = ", **required**" if name in own.get("required", ()) else ""
        rows += f"| {named} | `{name}` | {_said(said, defs)}{needed} |\n"
        named = ""
    return rows


_WORDS = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true or false"}


def _said(schema: dict[str, Any], defs: dict[str, Any]) -> str:
    """A property's schema in words."""
    if "anyOf" in schema:
        kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(_said(kind, defs) for kind in kinds)
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"])
    if "$ref" in schema:
        inner = defs[schema["$ref"].rpartition("/")[2]]
        return "{" + ", ".join(f"`{name}`" for name in inner["properties"]) + "}"
    if schema.get("type") == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list of {_said(schema['items'], defs)}{most}"
    if schema.get("format") == "date-time":
        return "time"
    return _WORDS.get(schema.get("type", ""), "anything") + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" from {low:g} on"
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']:g}, at most {high:g}"
    if "maxLength" in schema:
        return f", at most {schema['maxLength']} characters"
    return ""
