"""JSON Schemas of everything on the bus, and the rule by which a schema may grow."""

from __future__ import annotations

from typing import Any

import msgspec

from libs.common.contracts.catalogue import CatalogueEntry
from libs.common.contracts.customer_event import CustomerEvent
from libs.common.contracts.customer_model import Items, Profile
from libs.common.contracts.learned_model import LearnedModel
from libs.common.contracts.marker import Marker
from libs.common.contracts.progress import Progress
from libs.common.contracts.touchpoint import TYPED

Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """JSON Schema by topic record, named ``TOPIC.VERSION`` (``customer-models`` has two records)."""
    return {
        "customer-events.1": msgspec.json.schema(CustomerEvent),
        "customer-models.profile.1": msgspec.json.schema(Profile),
        "customer-models.items.1": msgspec.json.schema(Items),
        "learned-models.1": msgspec.json.schema(LearnedModel),
        "catalogue.1": msgspec.json.schema(CatalogueEntry),
        "marker.1": msgspec.json.schema(Marker),
        "progress.1": msgspec.json.schema(Progress),
        "touchpoint-properties.1": {
            "oneOf": [{"title": name, **msgspec.json.schema(shape)} for name, shape in TYPED.items()]
        },
    }


def breaking_changes(old: Schema, new: Schema, path: str = "") -> list[str]:
    """What in ``new`` would hurt a reader or writer of ``old``: within a version only optional additions.

    Returns one line per change, empty when ``new`` is compatible.
    """
    found: list[str] = []
    for name, schema in old.get("$defs", {}).items():
        if name not in new.get("$defs", {}):
            found.append(f"{path}/{name}: removed")
        else:
            found += breaking_changes(schema, new["$defs"][name], f"{path}/{name}")
    named = {one["title"]: one for one in new.get("oneOf", ())}
    for one in old.get("oneOf", ()):
        if one["title"] in named:
            found += breaking_changes(one, named[one["title"]], f"{path}/{one['title']}")
        else:
            found.append(f"{path}/{one['title']}: removed")
    properties = new.get("properties", {})
    for name, schema in old.get("properties", {}).items():
        if name not in properties:
            found.append(f"{path}/{name}: removed")
        elif _shape(schema) != _shape(properties[name]):
            found.append(f"{path}/{name}: changed from {_shape(schema)} to {_shape(properties[name])}")
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        found.append(f"{path}/{name}: became required")
    if "prefixItems" in old:
        found += _breaking_array(old, new, path)
    return found


def _breaking_array(old: Schema, new: Schema, path: str) -> list[str]:
    """Structs written as arrays: fields keep their places, new ones come last and are optional."""
    before = [_shape(item) for item in old["prefixItems"]]
    after = [_shape(item) for item in new.get("prefixItems", ())]
    if after[: len(before)] != before:
        return [f"{path}: fields moved, changed or went"]
    if new.get("minItems", 0) > old.get("minItems", 0):
        return [f"{path}: a new field is required"]
    return []


def _shape(schema: Schema) -> str:
    """A property without its prose, in canonical text."""
    bare = {key: value for key, value in schema.items() if key not in {"title", "description", "default"}}
    return msgspec.json.encode(bare, order="sorted").decode()
