"""How commands talk to a running platform: over HTTP with the operator's key, and plainly when it fails."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from deploy.local.operator_key import stored_key
from deploy.local.running import PlatformRecord, running_platform
from libs.common.errors import ClosedloopError, Misconfigured

PATIENCE = 30.0
SECONDS = 30.0


class Refused(ClosedloopError):
    """A service answered with something other than success; the message is its own words."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(describe_problem(status, problem))
        self.status = status
        self.problem = problem


class PlatformClient:
    """Calls the services of the platform that runs on a data directory; use as a context manager."""

    def __init__(self, data_dir: Path) -> None:
        import httpx

        self._httpx = httpx
        self.record: PlatformRecord = running_platform(data_dir)
        self._data_dir = data_dir
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {stored_key(data_dir)}"},
            timeout=httpx.Timeout(SECONDS, connect=5),
            trust_env=False,
        )

    def __enter__(self) -> PlatformClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, service: str, path: str) -> Any:
        """The JSON behind a path of a service."""
        return self._call("GET", service, path)

    def metrics(self, service: str) -> dict[str, float]:
        """The metrics of a service by name and labels."""
        found = {}
        for line in self._answered("GET", service, "/metrics").text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def post(
        self,
        service: str,
        path: str,
        body: bytes,
        content_type: str = "application/json",
        seconds: float = SECONDS,
    ) -> Any:
        """Post ``body``, at most for ``seconds``; what the service answered."""
        headers = {"Content-Type": content_type}
        timeout = self._httpx.Timeout(seconds, connect=5)
        return self._call("POST", service, path, content=body, headers=headers, timeout=timeout)

    def _call(self, method: str, service: str, path: str, **more: Any) -> Any:
        return self._answered(method, service, path, **more).json()

    def _answered(self, method: str, service: str, path: str, **more: Any) -> Any:
        url = self.record.urls[service] + path
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                response = self._client.request(method, url, **more)
            except self._httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise Misconfigured(
                        f"{service} does not answer at {url} ({type(error).__name__}): "
                        f"see {self._data_dir / 'logs' / (service + '.log')}"
                    ) from None
                time.sleep(0.5)
                continue
            if response.status_code in (429, 503) and time.monotonic() < deadline:
                time.sleep(min(5.0, float(response.headers.get("Retry-After", "1"))))
                continue
            if response.is_success:
                return response
            raise Refused(response.status_code, _problem(response))


def _problem(response: Any) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {"detail": response.text[:200]}
    return problem if isinstance(problem, dict) else {"detail": str(problem)[:200]}


def describe_problem(status: int, problem: dict[str, Any]) -> str:
    """A problem document in one line."""
    said = str(problem.get("detail") or problem.get("title") or "no reason given")
    code = problem.get("code")
    return f"{said} ({status}{f' {code}' if code else ''})"
