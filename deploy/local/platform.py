"""The embedded platform: broker, PostgreSQL, four services and the learner as processes of one `up`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import asyncpg
import msgspec

from deploy.local.broker import ApacheBroker, EmbeddedBroker
from deploy.local.operator_key import operator_key
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.program import Command, Program
from deploy.local.recycling import BrokerKeeper
from deploy.local.running import (
    SERVICES,
    PlatformRecord,
    ProcessRecord,
    check_ports,
    claim,
    forget_record,
    process_record,
    stop_leftovers,
    write_record,
)
from deploy.local.scraping import write_scraping
from deploy.local.supervisor import GaveUp, Supervised, Supervisor, tail_of
from libs.common.bus.kafka import KafkaBus
from libs.common.contracts.topics import TOPICS
from libs.common.db import Database
from libs.common.errors import Misconfigured, Transient

MODULES = {name: f"services.{name}" for name in SERVICES} | {"learner": "services.analyzer.learner"}
PORTS = {name: offset for offset, name in enumerate(SERVICES, start=1)}
PORT_VARIABLES = {name: f"CLOSEDLOOP_{name.upper()}_PORT" for name in SERVICES}
RATES = ("CLOSEDLOOP_RATE_PUBLISHABLE", "CLOSEDLOOP_RATE_ADDRESS", "CLOSEDLOOP_RATE_SERVER")
READY_WITHIN = 60.0
STOP_SERVICES_WITHIN = 10.0
STOP_APACHE_WITHIN = 4.0
STOP_POSTGRES_WITHIN = 5.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Options:
    """What a person can choose about a platform; the flags of ``closedloop up``.

    Parameters
    ----------
    data_dir:
        None for a temporary one that is removed at the end.
    port_base:
        The services listen on the five ports after it.
    holdout:
        ``BASELINE,NONE``: shares of the customers.
    kafka, postgres:
        Servers that exist; None to start our own.
    broker_memory:
        MB of memory above which the embedded broker is replaced by an empty one.
    """

    data_dir: Path | None = Path(".closedloop")
    port_base: int = 8000
    clock: str = "wall"
    holdout: str = "0.05,0.05"
    kafka: str | None = None
    postgres: str | None = None
    broker: str = "embedded"
    currency: str | None = None
    broker_memory: int = 512

    @property
    def ports(self) -> dict[str, int]:
        """The port of each service."""
        return {name: self.port_base + offset for name, offset in PORTS.items()}


@dataclass
class Platform:
    """One platform in this process's care: `start` it, wait for its `failure`, `stop` it.

    Parameters
    ----------
    say:
        Hears one line for each thing a person should know of.
    """

    options: Options
    say: Callable[[str], None]
    data_dir: Path = field(init=False)
    key: str = field(init=False, default="")
    _lock: IO[bytes] | None = field(init=False, default=None)
    _supervisor: Supervisor | None = field(init=False, default=None)
    _kafka: str = field(init=False, default="")
    _postgres: str = field(init=False, default="")
    _ready: bool = field(init=False, default=False)
    _refilled: bool = field(init=False, default=False)
    _keeping: asyncio.Task[None] | None = field(init=False, default=None)
    _keeper: BrokerKeeper | None = field(init=False, default=None)

    @property
    def urls(self) -> dict[str, str]:
        """Base URL of each service."""
        return {name: f"http://127.0.0.1:{port}" for name, port in self.options.ports.items()}

    async def start(self) -> None:
        """Start everything and wait until every service says it is ready.

        Raises `Misconfigured` for what a person must mend, `GaveUp` where a process keeps dying.
        """
        chosen = self.options.data_dir
        self.data_dir = (chosen or Path(tempfile.mkdtemp(prefix="closedloop-"))).absolute()
        self._lock = claim(self.data_dir)
        self._refilled = self.options.postgres is not None or (self.data_dir / "postgres").exists()
        for name in stop_leftovers(self.data_dir):
            self.say(f"stopped {name}, left behind by an earlier run")
        check_ports(self.options.ports)
        self.key = operator_key(self.data_dir)
        write_scraping(self.data_dir, self.options.ports)
        # Trap: before the record says where we are: unheard, the signal would end the process.
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.recycle_broker)
        self._supervisor = Supervisor(self.say, self._record)
        await self._check_postgres()
        await self._start_servers()
        for name in SERVICES:
            await self._supervisor.start(self._service(name))
        await self._or_failure(asyncio.gather(*(self._until_ready(name) for name in SERVICES)))
        self._ready = True
        self._keep_broker_small()
        self._record()

    def _keep_broker_small(self) -> None:
        assert self._supervisor is not None
        supervisor = self._supervisor
        if self.options.kafka is None and self.options.broker == "embedded":
            limit, pid = self.options.broker_memory << 20, lambda: supervisor.pids.get("broker")
            self._keeper = BrokerKeeper(limit, pid, self._replace_broker, self.say, refilled=self._refilled)
            self._keeping = asyncio.create_task(self._keeper.run(), name="keep the broker small")

    def recycle_broker(self) -> None:
        """Have the embedded broker replaced now; nothing happens where there is none."""
        if self._keeper is not None:
            self._keeper.ask()

    async def _replace_broker(self) -> None:
        assert self._supervisor is not None
        self._supervisor.replace("broker")
        try:
            await _until(self._made_topics, "the broker does not come back", 10.0)
        except Misconfigured as error:
            # The services wait for it, and the next look finds it or its successor.
            self.say(str(error))

    async def _made_topics(self) -> bool:
        try:
            await self._make_topics()
        except Misconfigured:
            return False
        return True

    async def failure(self) -> GaveUp:
        """Wait until a process has died too often; raises what the care of the broker died of."""
        assert self._supervisor is not None
        failing = asyncio.ensure_future(self._supervisor.failure())
        waiting: set[asyncio.Future[Any]] = {failing} if self._keeping is None else {failing, self._keeping}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._keeping is not None and self._keeping.done():
                self._keeping.result()
            return await failing
        finally:
            failing.cancel()

    async def stop(self) -> None:
        """Stop services, then the broker, then PostgreSQL; under 20 seconds in all."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._supervisor is not None:
            await self._supervisor.stop(*SERVICES)
            await self._supervisor.stop("broker")
            await self._supervisor.stop("postgres")
        if self._lock is not None:
            forget_record(self.data_dir)
            self._lock.close()
            if self.options.data_dir is None:
                shutil.rmtree(self.data_dir, ignore_errors=True)

    async def _check_postgres(self) -> None:
        """Say at once what is wrong with a database that was given; never with its password."""
        if self.options.postgres is None:
            return
        database = Database(self.options.postgres, size=1)
        try:
            await database.ping()
        except (Transient, asyncpg.PostgresError) as error:
            raise Misconfigured(f"no PostgreSQL serves us at {database.place}: {error}") from None
        finally:
            await database.close()

    async def _start_servers(self) -> None:
        starts = []
        if self.options.kafka is None:
            starts.append(self._start_server(*self._broker()))
        if self.options.postgres is None:
            # SIGINT asks PostgreSQL for a fast shutdown: without waiting for clients, with a checkpoint.
            server = EmbeddedPostgres(self.data_dir)
            starts.append(self._start_server(server, signal.SIGINT, STOP_POSTGRES_WITHIN))
        started = dict(await asyncio.gather(*starts))
        self._kafka = self.options.kafka or started["broker"]
        await self._make_topics()
        self._postgres = self.options.postgres or started["postgres"]

    def _broker(self) -> tuple[Program, signal.Signals, float]:
        if self.options.broker == "apache":
            return ApacheBroker(self.data_dir), signal.SIGTERM, STOP_APACHE_WITHIN
        # The embedded broker keeps its log in memory: there is nothing it could save by ending slowly.
        return EmbeddedBroker(self.data_dir), signal.SIGKILL, 1.0

    async def _make_topics(self) -> None:
        bus = KafkaBus(self._kafka, client_id="closedloop-up")
        try:
            await bus.ensure_topics(TOPICS)
        except Transient as error:
            raise Misconfigured(f"no Kafka answers at {self._kafka}: {error}") from None
        finally:
            await bus.close()

    async def _start_server(
        self, server: Program, stop_signal: signal.Signals, seconds: float
    ) -> tuple[str, str]:
        assert self._supervisor is not None
        await asyncio.to_thread(server.prepare)
        death_signal = signal.SIGINT if stop_signal == signal.SIGINT else signal.SIGKILL
        await self._supervisor.start(
            Supervised(
                server.name,
                server.command,
                server.log,
                stop_signal=stop_signal,
                stop_seconds=seconds,
                death_signal=death_signal,
            )
        )
        await self._or_failure(_until(server.ready, f"{server.name} does not answer: see {server.log}"))
        return server.name, server.address

    def _service(self, name: str) -> Supervised:
        command = Command((sys.executable, "-m", MODULES[name]), self._environment(name))
        log = self.data_dir / "logs" / f"{name}.log"
        return Supervised(name, lambda: command, log, cwd=ROOT, stop_seconds=STOP_SERVICES_WITHIN)

    def _environment(self, name: str) -> dict[str, str]:
        environment = {
            "CLOSEDLOOP_DATA_DIR": str(self.data_dir),
            "CLOSEDLOOP_KAFKA": self._kafka,
            "CLOSEDLOOP_POSTGRES": self._postgres,
            "CLOSEDLOOP_CLOCK": self.options.clock,
            "CLOSEDLOOP_HOLDOUT": self.options.holdout,
            "CLOSEDLOOP_HOST": "127.0.0.1",
            PORT_VARIABLES[name]: str(self.options.ports[name]),
            "PYTHONUNBUFFERED": "1",
            # Six processes share few cores: threads of the linear algebra would only get in each other's way.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        # For a look and for tests, from one address: no limits, unless somebody sets them.
        environment |= {rate: "0" for rate in RATES if not {rate, f"{rate}_FILE"} & os.environ.keys()}
        if self.options.currency is not None:
            environment["CLOSEDLOOP_CURRENCY"] = self.options.currency
        return environment

    async def _until_ready(self, name: str) -> None:
        port = self.options.ports[name]
        log = self.data_dir / "logs" / f"{name}.log"
        try:
            await _until(lambda: answers_ready(port, name), f"{name} does not become ready: see {log}")
        except Misconfigured:
            self.say(tail_of(log))
            raise

    async def _or_failure(self, work: Awaitable[object]) -> None:
        assert self._supervisor is not None
        doing = asyncio.ensure_future(work)
        failing = asyncio.ensure_future(self._supervisor.failure())
        try:
            await asyncio.wait({doing, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done() and not doing.done():
                raise failing.result()
            await doing
        finally:
            doing.cancel()
            failing.cancel()
            await asyncio.gather(doing, failing, return_exceptions=True)

    def _record(self) -> None:
        assert self._supervisor is not None
        processes: dict[str, ProcessRecord] = {}
        for name, pid in {"up": os.getpid(), **self._supervisor.pids}.items():
            known = process_record(pid)
            if known is not None:
                processes[name] = known
        write_record(
            self.data_dir,
            PlatformRecord(
                clock=self.options.clock,
                urls=self.urls,
                kafka=self._kafka,
                postgres=self._postgres,
                processes=processes,
                ready=self._ready,
                holdout=self.options.holdout,
                broker_recycled=self._keeper.recycled if self._keeper is not None else 0,
            ),
        )


async def _until(asked: Callable[[], Awaitable[bool]], otherwise: str, seconds: float = READY_WITHIN) -> None:
    deadline = time.monotonic() + seconds
    while not await asked():
        if time.monotonic() > deadline:
            raise Misconfigured(otherwise)
        await asyncio.sleep(0.05)


async def answers_ready(port: int, name: str) -> bool:
    """Whether the service on ``port`` says that it is ready; the analyzer also that it has work.

    An analyzer is ready to answer before it owns partitions, but until then the loop is open: the first
    events of a newcomer would wait for it.
    """
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        if b" 200 " not in head.partition(b"\r\n")[0]:
            return False
        return name != "analyzer" or owns_partitions(msgspec.json.decode(body))
    except (OSError, TimeoutError, msgspec.DecodeError):
        return False


def owns_partitions(report: dict[str, Any]) -> bool:
    """Whether an analyzer's readiness report says that partitions are its own."""
    return not str(report.get("notes", {}).get("partitions", "")).startswith("0 ")
