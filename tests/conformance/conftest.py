"""The three buses that must keep the same promises."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from deploy.local.broker import ApacheBroker, EmbeddedBroker
from deploy.local.program import Program
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Bus, TopicSpec
from libs.common.errors import Transient
from tests.freezing import freeze, thaw

PARTITIONS = 4
PATIENCE = 30.0
KINDS = [
    pytest.param("memory", id="memory"),
    pytest.param("embedded", id="embedded", marks=pytest.mark.embedded),
    # The first run fetches Kafka.
    pytest.param("apache", id="apache", marks=[pytest.mark.apache, pytest.mark.timeout(600)]),
]


class Broker(ABC):
    """A broker that tests can hurt, and buses connected to it."""

    survives: bool
    """Whether it comes back with the same cluster after a crash."""

    @abstractmethod
    def connect(self, timeout: float = 5.0) -> Bus: ...

    @abstractmethod
    def hang(self) -> None:
        """Answer nobody until `wake`."""

    @abstractmethod
    def wake(self) -> None: ...

    @abstractmethod
    async def crash(self) -> None: ...

    @abstractmethod
    async def restart(self) -> None: ...


class ProgramBroker(Broker):
    def __init__(self, program: Program, survives: bool) -> None:
        self.program = program
        self.survives = survives

    def connect(self, timeout: float = 5.0) -> Bus:
        return KafkaBus(self.program.address, timeout=timeout)

    def hang(self) -> None:
        freeze(self._pid)

    def wake(self) -> None:
        thaw(self._pid)

    async def crash(self) -> None:
        await self.program.kill()

    async def restart(self) -> None:
        await self.program.start(60)

    @property
    def _pid(self) -> int:
        assert self.program.pid is not None
        return self.program.pid


class MemoryBroker(Broker):
    survives = False

    def __init__(self) -> None:
        self.bus = MemoryBus()

    def connect(self, timeout: float = 5.0) -> Bus:
        return self.bus.connect()

    def hang(self) -> None:
        self.bus.go_away()

    def wake(self) -> None:
        self.bus.come_back()

    async def crash(self) -> None:
        self.bus.go_away()

    async def restart(self) -> None:
        self.bus.replace_cluster(f"memory-{uuid.uuid4().hex[:8]}")
        self.bus.come_back()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def broker(kind: str, request: pytest.FixtureRequest) -> Broker:
    """The shared broker of this kind: it may be made to hang, but not crash."""
    if kind == "memory":
        return MemoryBroker()
    return ProgramBroker(request.getfixturevalue(f"{kind}_broker"), survives=kind == "apache")


@pytest.fixture
async def fragile(
    kind: str, tmp_path: Path, start_apache: Callable[[Path], Awaitable[ApacheBroker]]
) -> AsyncIterator[Broker]:
    """A broker of this test's own, to be crashed."""
    if kind == "memory":
        yield MemoryBroker()
        return
    program: Program
    if kind == "embedded":
        program = EmbeddedBroker(tmp_path)
        await program.start()
    else:
        program = await start_apache(tmp_path)
    yield ProgramBroker(program, survives=kind == "apache")
    await program.kill()


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[Bus]:
    bus = broker.connect()
    yield bus
    await bus.close()


@pytest.fixture
async def topic(bus: Bus) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await bus.ensure_topics([TopicSpec(name, PARTITIONS, {"cleanup.policy": "delete"})])
                return name
            except Transient:
                # A broker that was made to hang may need a moment to be leader again.
                await asyncio.sleep(0.2)
