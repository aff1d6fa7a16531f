"""The demo's side of HTTP: what a shop's systems would send, and what they get back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from deploy.local.client import Refused, describe_problem
from libs.common.errors import ClosedloopError

if TYPE_CHECKING:
    import httpx

PATIENCE = 60.0
_BUSY = (429, 503)


class Calls:
    """Calls the four services with one key; all JSON over HTTP, as any channel system does it."""

    def __init__(self, urls: dict[str, str], key: str) -> None:
        import httpx

        self._urls = urls
        self._errors = httpx.TransportError
        self._client: httpx.AsyncClient = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(60, connect=5),
            limits=httpx.Limits(max_connections=16),
            trust_env=False,
        )

    async def __aenter__(self) -> Calls:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, service: str, path: str) -> Any:
        """The JSON behind a path."""
        return await self._call("GET", service, path, None)

    async def text(self, service: str, path: str) -> str:
        """The text behind a path, such as a service's metrics."""
        response = await self._client.get(self._urls[service] + path)
        return str(response.raise_for_status().text)

    async def post(self, service: str, path: str, body: Any) -> Any:
        """Post ``body``; a batch of which anything was refused is an error here, nothing of ours may be."""
        answer = await self._call("POST", service, path, msgspec.json.encode(body))
        refused = answer.get("rejected") if isinstance(answer, dict) else None
        if refused:
            raise ClosedloopError(f"{service} refused {len(refused)} items of {path}, first: {refused[0]}")
        return answer

    async def put(self, service: str, path: str, body: Any) -> None:
        """Store one thing."""
        await self._call("PUT", service, path, msgspec.json.encode(body))

    async def recommend(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers to many requests at once; raises where one of them failed."""
        if not requests:
            return []
        answer = await self.post("recommender", "/v1/recommendations/batch", {"requests": requests})
        answers: list[dict[str, Any]] = answer["answers"]
        for each in answers:
            if "offers" not in each:
                raise ClosedloopError(f"no recommendation: {describe_problem(each.get('status', 500), each)}")
        return answers

    async def _call(self, method: str, service: str, path: str, body: bytes | None) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                response = await self._client.request(method, self._urls[service] + path, content=body)
            except self._errors as error:
                if time.monotonic() > deadline:
                    raise ClosedloopError(f"{service} does not answer: {type(error).__name__}") from None
                await asyncio.sleep(0.2)
                continue
            if response.status_code in _BUSY and time.monotonic() < deadline:
                await asyncio.sleep(min(5.0, float(response.headers.get("Retry-After", "1"))))
                continue
            if response.is_success:
                return msgspec.json.decode(response.content) if response.content else None
            try:
                problem = dict(response.json())
            except ValueError:
                problem = {"detail": response.text[:200]}
            raise Refused(response.status_code, {"detail": f"{service} {path}: {problem}"})
