"""Makes the FastAPI application of a service: one place for refusals, limits, health, metrics and keys."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from libs.common.http.calls import Handler
from libs.common.http.health import Lifecycle
from libs.common.keys import KeyRing, Scope
from libs.common.telemetry import Metrics

BODY_LIMIT = 1_000_000
IMPORT_LIMIT = 10_000_000


class HttpApp(FastAPI):
    """A FastAPI application whose endpoints are plain functions of a `Call`, yet appear in OpenAPI."""

    lifecycle: Lifecycle
    keys: KeyRing

    def endpoint(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        summary: str,
        scope: Scope | None = None,
        key_optional: bool = False,
        takes: Any = None,
        gives: Any = None,
        status: int = 200,
        lenient: bool = False,
        limit: int | None = None,
        query: dict[str, str] | None = None,
    ) -> None:
        """Add an endpoint.

        Parameters
        ----------
        scope:
            What the key must be allowed to do; None leaves the endpoint open.
        key_optional:
            A call without any key passes (``call.key`` is None); one with a key needs ``scope``.
        takes:
            A `BatchDecoder`, an `ObjectDecoder`, or None for an endpoint without body.
        gives:
            Struct (or any msgspec type) of the answer, for OpenAPI.
        lenient:
            text/plain, form-urlencoded and a missing Content-Type are read as JSON.
        limit:
            Largest body in bytes, unpacked; 1 MB where not given. ``?mode=import`` allows 10 MB.
        query:
            Query parameters for OpenAPI: name and description.
        """
        ...


def create_http(
    service: str, *, keys: KeyRing, metrics: Metrics, lifecycle: Lifecycle, summary: str = ""
) -> HttpApp:
    """The application of ``service`` with /healthz, /readyz, /metrics, /docs and /openapi.json."""
    ...
