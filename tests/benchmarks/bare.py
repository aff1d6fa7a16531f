"""The yardstick: a FastAPI application that parses a JSON body and returns a small constant."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI


def create() -> FastAPI:
    """One endpoint, nothing else."""
    app = FastAPI()

    @app.post("/bare")
    async def bare(body: Annotated[Any, Body()]) -> dict[str, bool]:
        return {"ok": True}

    return app


if __name__ == "__main__":
    uvicorn.run(
        create(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
