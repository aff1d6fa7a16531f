"""OpenAPI entries of endpoints, made from the msgspec types they take and give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from libs.common.http.batches import BatchDecoder
from libs.common.http.calls import Endpoint
from libs.common.http.problems import Problem

_REF = "#/components/schemas/{name}"


def describe(document: dict[str, Any], endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Add ``endpoints`` to an OpenAPI ``document``; returns it."""
    types: list[Any] = [Problem]
    for endpoint in endpoints:
        types += [endpoint.takes.type] if endpoint.takes is not None else []
        types += [endpoint.gives] if endpoint.gives is not None else []
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    schema_of = dict(zip(unique, schemas, strict=True))
    parts = document.setdefault("components", {})
    parts.setdefault("schemas", {}).update(components)
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic", "description": "The key as user name, no password"},
    }
    paths = document.setdefault("paths", {})
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of)
    return document


def _operation(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_")
    good: dict[str, Any] = {"description": "What was asked for"}
    if endpoint.gives is not None:
        good["content"] = {"application/json": {"schema": schema_of[endpoint.gives]}}
    bad = {
        "description": "Refused: a problem document (RFC 9457)",
        "content": {"application/problem+json": {"schema": schema_of[Problem]}},
    }
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": endpoint.summary,
        "responses": {str(endpoint.status): good, "default": bad},
    }
    parameters = [
        {"name": found, "in": "path", "required": True, "schema": {"type": "string"}}
        for found in re.findall(r"\{(\w+)\}", endpoint.path)
    ] + [
        {"name": query, "in": "query", "description": text, "schema": {"type": "string"}}
        for query, text in endpoint.query.items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.takes is not None:
        operation["requestBody"] = {"required": True, "content": _content(endpoint, schema_of)}
    if endpoint.scope is not None:
        operation["description"] = f"Needs a key with scope `{endpoint.scope.value}`."
        operation["security"] = [{"bearer": []}, {"basic": []}] + ([{}] if endpoint.key_optional else [])
    return operation


def _content(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    item = schema_of[endpoint.takes.type]
    if not isinstance(endpoint.takes, BatchDecoder):
        return {"application/json": {"schema": item}}
    many = {"type": "array", "items": item, "maxItems": endpoint.takes.max_items}
    envelope = {
        "type": "object",
        "properties": {endpoint.takes.plural: many},
        "required": [endpoint.takes.plural],
    }
    return {
        "application/json": {"schema": {"anyOf": [item, many, envelope]}},
        "application/x-ndjson": {"schema": item},
    } | ({"text/csv": {"schema": {"type": "string"}}} if endpoint.tables else {})
