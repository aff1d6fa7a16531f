"""The four services on real sockets in one process, the loop closed in memory: quick to start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import httpx

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.topics import TOPICS
from libs.common.http.protocol import Limits
from libs.common.runtime import Patience, Service, _serve, running
from services.analyzer.app import create_service as create_analyzer
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.memory import MemoryAnalyzerStore
from services.collector.app import create_service as create_collector
from services.collector.settings import CollectorSettings
from services.feedback.app import create_service as create_feedback
from services.feedback.settings import FeedbackSettings
from services.recommender.app import create_service as create_recommender
from services.recommender.settings import RecommenderSettings
from tests.contract.recommender_world import MemoryView, Stores

KEY = "dev-key"


class Stage:
    """What a test asks of them, as of a platform (`tests.e2e.rig.Up`)."""

    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self.client = httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False)

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self._ports[service]}"

    def get(self, service: str, path: str) -> httpx.Response:
        return self.client.get(self.url(service) + path)

    def ready(self, service: str) -> bool:
        return self.get(service, "/readyz").status_code == 200


def services(folder: Path, bus: MemoryBus) -> dict[str, Service]:
    """All four on one bus, with limits of rate off: everything comes from one address."""
    common: dict[str, Any] = {"data_dir": folder, "dev_key": KEY, "rate_address": 0, "rate_publishable": 0}
    return {
        "collector": create_collector(CollectorSettings(**common), bus=bus),
        "analyzer": create_analyzer(AnalyzerSettings(**common), bus=bus, store=MemoryAnalyzerStore()),
        "recommender": create_recommender(
            RecommenderSettings(**common, holdout=(0.0, 0.0)),
            bus=bus,
            stores=Stores(),
            make_view=lambda topic, hear: MemoryView(bus, topic, hear),
        ),
        "feedback": create_feedback(FeedbackSettings(**common), bus=bus),
    }


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """The four services, started; stopped at the end. Raises what their background tasks died of."""
    sockets: dict[str, socket] = {}
    for name in ("collector", "analyzer", "recommender", "feedback"):
        sockets[name] = socket()
        sockets[name].bind(("127.0.0.1", 0))
        sockets[name].listen(256)
    ready, ended = threading.Event(), threading.Event()
    ends: list[Callable[[], object]] = []
    died: list[BaseException] = []

    async def live() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(asked.set))
        bus = MemoryBus()
        await bus.ensure_topics(TOPICS)
        async with AsyncExitStack() as stack:
            serving = []
            for name, service in services(folder, bus).items():
                await stack.enter_async_context(running(service))
                server = _serve(service.app, Limits(), Patience())
                serving.append((server, asyncio.create_task(server.serve(sockets=[sockets[name]]))))
            ready.set()
            await asked.wait()
            for server, task in serving:
                server.should_exit = True
                await task

    def run() -> None:
        try:
            asyncio.run(live())
        except Exception as error:
            # Readers that are closed at the end may complain of it; what happens before is what counts.
            if not ended.is_set():
                died.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(120), "the services do not start"
        stage = Stage({name: one.getsockname()[1] for name, one in sockets.items()})
        yield stage
        stage.client.close()
    finally:
        ended.set()
        for end in ends:
            end()
        thread.join()
        if died:
            raise died[0]
