"""The platform as processes, behind proxies, on servers of its own: everything can be killed one by one."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from deploy.local.broker import ApacheBroker, EmbeddedBroker
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.program import LOOPBACK, Command, Program
from libs.common.bus.kafka import KafkaBus
from libs.common.contracts.topics import TOPICS
from tests.survival.injection import PowerCut, SteppingClock, build_shim, small_disk
from tests.survival.load import Caller, Reply
from tests.survival.proxy import FaultProxy
from tests.survival.roles import Keeper, Role, tails

KEY = "survival-key-0123456789"
START_SECONDS = 150.0
ROOT = Path(__file__).parents[2]


class ProxiedApache(ApacheBroker):
    """Tells its clients to come through the proxy; has a second door for the judge."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, quiet_port())
        self.proxy_port = 0
        self.direct_port = quiet_port()

    @property
    def port(self) -> int:
        return self._port

    def prepare(self) -> None:
        super().prepare()
        here, through = f"{LOOPBACK}:{self._port}", f"{LOOPBACK}:{self.proxy_port}"
        direct = f"DIRECT://{LOOPBACK}:{self.direct_port}"
        text = self._properties.read_text()
        controller = f":{self._controller_port}"
        self._controller_port = quiet_port()
        text = text.replace(controller, f":{self._controller_port}")
        for old, new in (
            (f"listeners=PLAINTEXT://{here},", f"listeners=PLAINTEXT://{here},{direct},"),
            (
                f"advertised.listeners=PLAINTEXT://{here}",
                f"advertised.listeners=PLAINTEXT://{through},{direct}",
            ),
            ("map=PLAINTEXT:PLAINTEXT,", "map=PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT,"),
            ("inter.broker.listener.name=PLAINTEXT", "inter.broker.listener.name=DIRECT"),
        ):
            assert old in text, f"{old} is not in server.properties any more"
            text = text.replace(old, new)
        self._properties.write_text(text)


class ProxiedEmbedded(EmbeddedBroker):
    """Tells its clients to come through the proxy."""

    proxy_port = 0

    @property
    def port(self) -> int:
        return self._port

    @property
    def direct_port(self) -> int:
        return self.proxy_port

    def command(self) -> Command:
        command = super().command()
        argv = list(command.argv)
        at = argv.index("--advertised-listener-url")
        argv[at + 1] = f"tcp://{LOOPBACK}:{self.proxy_port}"
        return command._replace(argv=tuple(argv))


_ports = Random(os.getpid())


def quiet_port() -> int:
    """A free port below those that the kernel gives to outgoing connections, so that it stays free."""
    while True:
        port = _ports.randrange(10_000, 20_000)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port


@dataclass(frozen=True)
class Shape:
    """What a world is made of; ``environment`` is added to that of every service."""

    broker: str = "apache"
    analyzers: int = 1
    clock: str = "wall"
    seed: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    shim: bool = False
    """Whether clocks can be stepped and the collector's power be cut."""
    disk: int = 0
    """Megabytes of a disk of its own for the collector's spool; 0: the disk of the data directory."""


class World:
    """A platform; use as a context manager. ``base`` is its folder, removed by whoever made it."""

    def __init__(self, base: Path, shape: Shape) -> None:
        self.shape = shape
        self.data_dir = base / "data"
        self.key = KEY
        self.keeper = Keeper()
        self._ports: dict[str, int] = {}
        self._servers: dict[str, Program] = {}
        self.proxies: dict[str, FaultProxy] = {}
        self.poisoned = 0
        self._injected = ExitStack()
        self._preload: dict[str, str] = {}
        self.clock: SteppingClock | None = None
        self.power: PowerCut | None = None

    # --- what trials ask

    @property
    def analyzers(self) -> list[str]:
        return [f"analyzer-{n}" for n in range(1, self.shape.analyzers + 1)]

    @property
    def services(self) -> list[str]:
        return ["collector", *self.analyzers, "learner", "recommender", "feedback"]

    def port(self, name: str) -> int:
        """Where ``name`` listens; ``analyzer`` is the first of them."""
        return self._ports["analyzer-1" if name == "analyzer" else name]

    @property
    def kafka(self) -> str:
        """The judge's way to the broker, past all faults."""
        return f"{LOOPBACK}:{self._servers['broker'].direct_port}"  # type: ignore[attr-defined]

    @property
    def postgres(self) -> str:
        """The judge's way to the database, past all faults."""
        return self._servers["postgres"].address

    def call(self, service: str, method: str, path: str, body: Any = None) -> Reply:
        """One request on a connection of its own."""
        caller = Caller(lambda: self.port(service), self.key)
        try:
            return caller.call(method, path, body)
        finally:
            caller.close()

    def get(self, service: str, path: str) -> Any:
        """The JSON of an answer, None where there is none to be had."""
        reply = self.call(service, "GET", path)
        return reply.body if reply.status == 200 else None

    def kill(self, name: str, down: float | None = None) -> bool:
        """kill -9 of one process; it comes back by itself after ``down`` seconds."""
        return self.keeper.kill(name, down)

    def life(self, name: str) -> tuple[int, bool]:
        """How often ``name`` was started, and whether it lives."""
        role = self.keeper.roles[name]
        return role.starts, role.alive

    def alive(self, name: str) -> bool:
        """Whether ``name`` lives."""
        return self.keeper.roles[name].alive

    def ready(self, name: str) -> bool:
        """Whether a service says so."""
        body = self.get(name, "/readyz")
        return body is not None

    def owned(self) -> int:
        """How many partitions the analyzers own together."""
        total = 0
        for name in self.analyzers:
            note = str((self.get(name, "/readyz") or {}).get("notes", {}).get("partitions", "0"))
            total += int(note.split()[0])
        return total

    def logs(self) -> str:
        return tails(self.keeper.roles)

    # --- its life

    def __enter__(self) -> World:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Servers, topics, services; returns when all are ready and every partition has an owner."""
        self.data_dir.mkdir(parents=True)
        self._inject()
        threads = [
            threading.Thread(target=self._start_broker),
            threading.Thread(target=self._start_postgres),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(START_SECONDS)
        assert set(self._servers) == {"broker", "postgres"}, (
            "broker or database did not start: " + self.logs()
        )
        asyncio.run(self._make_topics())
        for name in self.services:
            self._add_service(name)
        for name in self.services:
            wait(lambda name=name: self.ready(name), START_SECONDS, self.logs)
        wait(lambda: self.owned() == 12, START_SECONDS, self.logs)

    def close(self) -> None:
        """Stop everything by process id."""
        try:
            self.keeper.close(last=("broker", "postgres"))
        finally:
            for proxy in self.proxies.values():
                proxy.close()
            self._injected.close()

    @property
    def spools(self) -> Path:
        """Where the collector keeps its spool."""
        return self.data_dir / "collector"

    def _inject(self) -> None:
        if self.shape.disk:
            self._injected.enter_context(small_disk(self.spools, self.shape.disk))
        if self.shape.shim:
            self.clock = SteppingClock(self.data_dir / "clock")
            self._injected.callback(self.clock.close)
            self.power = PowerCut(self.data_dir / "power", self.spools)
            library = build_shim(self.data_dir)
            self._preload = {"LD_PRELOAD": str(library), "SURVIVAL_CLOCK": str(self.clock.path)}

    def _start_broker(self) -> None:
        broker: Any = ProxiedApache(self.data_dir) if self.shape.broker == "apache" else None
        if broker is None:
            broker = ProxiedEmbedded(self.data_dir, quiet_port())
        proxy = FaultProxy(0, self.shape.seed, quiet_port())
        self.proxies["broker"] = proxy
        broker.proxy_port = proxy.port
        broker.prepare()
        proxy.target = broker.port
        self._run_server("broker", broker)

    def _start_postgres(self) -> None:
        template = postgres_template()
        for name in ("postgres", "secrets"):
            subprocess.run(("cp", "-a", str(template / name), str(self.data_dir)), check=True)
        server = EmbeddedPostgres(self.data_dir, quiet_port())
        server.prepare()
        self._run_server("postgres", server)
        self.proxies["postgres"] = FaultProxy(server._port, self.shape.seed + 1, quiet_port())

    def _run_server(self, name: str, server: Program) -> None:
        self.keeper.add(Role(name, server.command, server.log, server.stop_signal))
        deadline = time.monotonic() + START_SECONDS
        while not asyncio.run(server.ready()):
            assert time.monotonic() < deadline, f"{name} does not start: {server.tail()}"
            time.sleep(0.1)
        self._servers[name] = server

    async def _make_topics(self) -> None:
        bus = KafkaBus(self.kafka, client_id="survival")
        try:
            await bus.ensure_topics(TOPICS)
        finally:
            await bus.close()

    def _add_service(self, name: str) -> None:
        self._ports[name] = quiet_port()
        kind = name.partition("-")[0]
        module = "services.analyzer.learner" if kind == "learner" else f"services.{kind}"
        command = Command((sys.executable, "-m", module), self.environment(name))
        log = self.data_dir / "logs" / f"{name}.log"
        role = Role(name, lambda: command, log)
        if name == "collector" and self.power is not None:
            role.before = self.power.strike
        self.keeper.add(role)

    def environment(self, name: str) -> dict[str, str]:
        """What a service is told: through the proxies, never past them."""
        kind = name.partition("-")[0]
        url = self.postgres.replace(
            f":{self._servers['postgres']._port}/", f":{self.proxies['postgres'].port}/"
        )  # type: ignore[attr-defined]
        environment = {
            "CLOSEDLOOP_DATA_DIR": str(self.data_dir),
            "CLOSEDLOOP_KAFKA": f"{LOOPBACK}:{self.proxies['broker'].port}",
            "CLOSEDLOOP_POSTGRES": url,
            "CLOSEDLOOP_CLOCK": self.shape.clock,
            "CLOSEDLOOP_HOLDOUT": "0,0",
            "CLOSEDLOOP_HOST": LOOPBACK,
            "CLOSEDLOOP_DEV_KEY": KEY,
            f"CLOSEDLOOP_{kind.upper()}_PORT": str(self._ports[name]),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        if kind == "collector" and self.power is not None:
            environment["SURVIVAL_POWER"] = str(self.power.folder)
        return environment | self._preload | self.shape.environment


_template_lock = threading.Lock()
_template: list[Path] = []


def postgres_template() -> Path:
    """An empty database made once per process, to be copied: initdb takes seconds."""
    with _template_lock:
        if not _template:
            folder = Path(mkdtemp())
            EmbeddedPostgres(folder).prepare()
            _template.append(folder)
        return _template[0]


def forget_template() -> None:
    """Remove the copied-from database."""
    while _template:
        shutil.rmtree(_template.pop(), ignore_errors=True)


def mkdtemp() -> str:
    """A folder that the database's own user may reach."""
    import tempfile

    folder = tempfile.mkdtemp(prefix="closedloop-survival-")
    Path(folder).chmod(0o755)
    return folder


def wait(condition: Callable[[], object], seconds: float, otherwise: Callable[[], str]) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {otherwise()}"
        time.sleep(0.1)
