"""Makes the FastAPI application of a service: one place for refusals, limits, health, metrics and keys."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from libs.common.errors import ClosedloopError, FieldError
from libs.common.http.admission import LIMITS, NO_LIMITS, Admission, Rates
from libs.common.http.answers import Answer
from libs.common.http.batches import BatchDecoder
from libs.common.http.calls import Call, Endpoint, Handler
from libs.common.http.docs import add_docs
from libs.common.http.edge import Edge, Table
from libs.common.http.health import Lifecycle
from libs.common.http.objects import ObjectDecoder
from libs.common.http.openapi import describe
from libs.common.http.problems import Refused, problem_response, refusal_of
from libs.common.items import pointer
from libs.common.keys import KeyRing, Scope
from libs.common.telemetry import Metrics
from libs.common.vitals import Vitals

BODY_LIMIT = 1_048_576
IMPORT_LIMIT = 10 * BODY_LIMIT
_STATUSES = tuple(
    map(str, (200, 201, 202, 204, 302, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503))
)
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


class HttpApp(FastAPI):
    """A FastAPI application whose endpoints are plain functions of a `Call`, yet appear in OpenAPI."""

    def __init__(
        self,
        service: str,
        *,
        keys: KeyRing,
        metrics: Metrics,
        lifecycle: Lifecycle,
        rates: Rates,
        summary: str,
    ) -> None:
        super().__init__(
            title=f"closedloop {service}",
            summary=summary or None,
            version=_version(),
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self.keys = keys
        self.metrics = metrics
        self.lifecycle = lifecycle
        self.vitals = Vitals(metrics)
        self._rates = rates
        self._table = Table()

    def endpoint(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        summary: str,
        scope: Scope | None = None,
        key_optional: bool = False,
        takes: BatchDecoder[Any] | ObjectDecoder[Any] | None = None,
        gives: Any = None,
        status: int = 200,
        lenient: bool = False,
        limit: int = BODY_LIMIT,
        imports: bool = False,
        always: bool = False,
        beacon: bool = False,
        untyped: bool = False,
        message: bool = False,
        tables: bool = False,
        secret: bool = False,
        query: Mapping[str, str] | None = None,
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
            Largest body in bytes, unpacked.
        imports:
            ``?mode=import`` needs scope manage in place of ``scope``, and allows 10 MB.
        always:
            Answered also before the service has started.
        beacon:
            Without Authorization, which ``sendBeacon`` cannot send, the key is read from the body's
            ``write_key`` (or Segment's ``writeKey``).
        untyped:
            A body without Content-Type comes through; the handler says what it is.
        message:
            Problem documents say what is wrong in ``message`` too, where clients of Segment look for it.
        tables:
            CSV with a head line is read as well (text/csv).
        secret:
            Publishable keys are refused, whatever their scopes, before the body is read.
        query:
            Query parameters for OpenAPI: name and description.
        """
        # size: every option once as a parameter, once explained, once handed on.
        self._table.add(
            Endpoint(
                method=method,
                path=path,
                handler=handler,
                summary=summary,
                scope=scope,
                key_optional=key_optional,
                takes=takes,
                gives=gives,
                status=status,
                lenient=lenient,
                limit=limit,
                import_limit=max(limit, IMPORT_LIMIT) if imports else limit,
                batch=isinstance(takes, BatchDecoder),
                always=always,
                beacon=beacon,
                untyped=untyped,
                message=message,
                tables=tables,
                secret=secret,
                query=dict(query or {}),
            )
        )

    def not_supported(self, method: str, path: str, what: str, *, scope: Scope | None = None) -> None:
        """Add a path that is agreed on and not built yet: 404 ``not_supported``, unlike a wrong path."""

        async def refuse(call: Call) -> Response:
            raise Refused(404, "not_supported", f"{what} is not supported yet")

        self.endpoint(method, path, refuse, scope=scope, summary=f"Not supported yet: {what}")

    def build_middleware_stack(self) -> ASGIApp:
        """The Edge around everything FastAPI does; built once, at the first request."""
        routes = [endpoint.path for endpoint in self._table.endpoints]
        requests = self.metrics.counter(
            "http_requests_total",
            "Requests answered",
            {"route": routes, "status": _STATUSES},
        )
        limited = self.metrics.counter(
            "http_rate_limited_total", "Requests refused with 429, by the limit they met", {"limit": LIMITS}
        )
        seconds = self.metrics.histogram("http_request_seconds", "Time to answer", {"route": routes})
        inner = super().build_middleware_stack()
        admission = Admission(self._rates, limited)
        return Edge(inner, self._table, self.keys, self.lifecycle, admission, requests, seconds)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, endpoints included."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(super().openapi(), self._table.endpoints)
        return self.openapi_schema


def create_http(
    service: str,
    *,
    keys: KeyRing,
    metrics: Metrics,
    lifecycle: Lifecycle,
    rates: Rates = NO_LIMITS,
    summary: str = "",
) -> HttpApp:
    """The application of ``service`` with /healthz, /readyz, /metrics, /docs and /openapi.json."""
    app = HttpApp(service, keys=keys, metrics=metrics, lifecycle=lifecycle, rates=rates, summary=summary)
    for kind in (HTTPException, RequestValidationError, ClosedloopError):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(Exception, _on_error)

    add_docs(app)

    async def healthz(call: Call) -> Response:
        return Answer({"status": "ok"})

    async def readyz(call: Call) -> Response:
        ready, report = lifecycle.report()
        if not ready:
            raise Refused(503, "not_ready", f"the service is {report['phase']}", more=report)
        return Answer(report)

    async def render_metrics(call: Call) -> Response:
        return Answer(await metrics.scrape(), media_type=_PROMETHEUS)

    app.endpoint("GET", "/healthz", healthz, summary="Is the process alive?", always=True)
    app.endpoint("GET", "/readyz", readyz, summary="Can the service do its work?", always=True)
    app.endpoint("GET", "/metrics", render_metrics, summary="Metrics for Prometheus", always=True)
    return app


def _on_error(request: Request, error: Exception) -> Response:
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    if isinstance(error, RequestValidationError):
        return problem_response(_validation(error), request_id)
    if isinstance(error, HTTPException) and error.status_code == 404:
        error = Refused(404, "not_found", "there is nothing at this path")
    return problem_response(refusal_of(error), request_id)


def _validation(error: RequestValidationError) -> Refused:
    errors = [
        FieldError(
            pointer(*item["loc"][1:]), "missing" if item["type"] == "missing" else "wrong_type", item["msg"]
        )
        for item in error.errors()
    ]
    return Refused(422, errors[0].code, "the request is not what this path takes", errors)


def _version() -> str:
    try:
        return version("closedloop")
    except PackageNotFoundError:
        return "0"
