"""The client under all Kafka parts leaves no connection behind, wherever it is cancelled."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from contextlib import suppress

import pytest
import uvloop

from deploy.local.broker import EmbeddedBroker
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.kafka.client import BROKEN, BoundClient
from libs.common.errors import Transient


class StallingDoor:
    """Passes bytes to a broker and back, and after ``answers`` answers of a connection nothing more."""

    def __init__(self, target: str, answers: int) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._answers = answers
        self._server: asyncio.Server | None = None
        self.stalled = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        try:
            for _ in range(self._answers):
                back.write(await frame(reader))
                writer.write(await frame(there))
            await frame(reader)
            self.stalled += 1
            await reader.read()
        except asyncio.IncompleteReadError:
            pass
        finally:
            back.close()
            writer.close()


async def frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))


@pytest.mark.embedded
@pytest.mark.parametrize("answers", [0, 1])
async def test_connection_that_is_given_up_while_it_waits_is_closed(
    embedded_broker: EmbeddedBroker, answers: int
) -> None:
    door = StallingDoor(embedded_broker.address, answers)
    async with door as address:
        bus = KafkaBus(address, timeout=0.3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(Transient):
                await bus.cluster_id()
            await bus.close()
            gc.collect()
        assert door.stalled == 1
    assert not [str(warning.message) for warning in caught]


@pytest.mark.embedded
@pytest.mark.parametrize("moments", range(4))
def test_connection_that_was_just_reset_is_a_broker_that_is_away(
    embedded_broker: EmbeddedBroker, moments: int
) -> None:
    """On uvloop, as services run: for a moment aiokafka takes what was cut for a connection."""

    async def cut_and_ask() -> None:
        client = BoundClient(cluster=None, bootstrap_servers=embedded_broker.address)
        await client.bootstrap()
        try:
            for connection in client._conns.values():
                transport = connection._writer.transport
                lost = transport.get_protocol().connection_lost
                transport.get_protocol().connection_lost = lambda _, lost=lost: lost(ConnectionResetError())
                transport.abort()
            for _ in range(moments):
                await asyncio.sleep(0)
            with suppress(*BROKEN):
                await client.fetch_all_metadata()
            assert (await client.fetch_all_metadata()).brokers()
        finally:
            await client.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(cut_and_ask())


@pytest.mark.embedded
async def test_bus_keeps_nothing_that_was_closed(embedded_broker: EmbeddedBroker) -> None:
    bus = KafkaBus(embedded_broker.address)
    for make in (bus.producer, lambda: bus.reader("t"), lambda: bus.consumer("t", "g")):
        part = make()
        gone = weakref.ref(part)
        await part.close()
        del part
        gc.collect()
        assert gone() is None
    await bus.close()
