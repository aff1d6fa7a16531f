"""``/docs``: Swagger UI from this very process, so that it works where nothing else can be reached."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

_ASSETS = "docs/assets"


def add_docs(app: FastAPI) -> None:
    """Serve the page at ``/docs`` and what it loads below it.

    Addresses in the page are relative, so that it works behind a proxy that adds a prefix.
    """
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
    )

    async def show(request: Request) -> Response:
        return page

    app.add_route("/docs", show, include_in_schema=False)
    app.mount(f"/{_ASSETS}", StaticFiles(directory=Path(str(files("fastapi_swagger"))) / "resources"))
