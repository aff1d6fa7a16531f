"""A service as a process: limits of a connection, and how it starts, stops and crashes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libs.common.runtime import Patience

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, os
from pydantic import Field
from msgspec import Struct
from libs.common.errors import Misconfigured
from libs.common.http.batches import BatchDecoder
from libs.common.http.calls import reply
from libs.common.http.factory import create_http
from libs.common.http.health import Lifecycle
from libs.common.http.protocol import Limits
from libs.common.keys import KeyRing
from libs.common.runtime import Patience, Service, run
from libs.common.settings import CommonSettings, service_config
from libs.common.telemetry import Metrics

WAY = os.environ["WAY"]

class ThingIn(Struct, frozen=True, forbid_unknown_fields=True):
    name: str

class ShelfSettings(CommonSettings):
    model_config = service_config("shelf")
    port: int = Field(default=0, description="Port")

async def start():
    if WAY == "misconfigured":
        raise Misconfigured("the shelf\\nhas no boards")
    if WAY == "hangs":
        await asyncio.sleep(3600)
    while WAY == "deaf":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def stop():
    if WAY == "stuck":
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

async def work():
    if WAY == "crashes":
        await asyncio.sleep(0.1)
        raise RuntimeError("the board broke")
    if WAY == "ends":
        return
    await asyncio.sleep(3600)

def create(settings):
    things = BatchDecoder(ThingIn, "things")
    app = create_http("shelf", keys=KeyRing(settings.data_dir), metrics=Metrics("shelf"),
                      lifecycle=Lifecycle())

    async def post(call):
        return things.decode(call.body).answer(None)

    async def wait(call):
        await asyncio.sleep(1)
        return reply({"waited": True})

    async def show(call):
        return reply({"id": call.path["id"]})

    app.endpoint("GET", "/v1/things/{id}", show, summary="Show")
    app.endpoint("POST", "/v1/things", post, summary="Post", takes=things)
    app.endpoint("GET", "/v1/wait", wait, summary="Wait")
    return Service("shelf", app, start=start, stop=stop, background=[work])

run(ShelfSettings, create, "shelf", Limits(header_seconds=0.5, body_seconds=0.8), Patience(total=3.0))
"""


class Process:
    """The program above, running."""

    def __init__(self, folder: Path, way: str, **environ: str) -> None:
        self.log = folder / f"{way}.log"
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                cwd=ROOT,
                stderr=log,
                env={**os.environ, "WAY": way, "CLOSEDLOOP_DATA_DIR": str(folder), **environ},
            )

    def port(self) -> int:
        """Where it listens, once it runs."""
        return int(self._said("running")["port"])

    def wait_for(self, message: str) -> None:
        self._said(message)

    def _said(self, message: str) -> dict[str, str]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for line in self.log.read_text().splitlines():
                if line.startswith("{") and json.loads(line)["message"] == message:
                    found: dict[str, str] = json.loads(line)
                    return found
            assert self.popen.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"never said {message}: {self.log.read_text()}")

    def ends(self, within: float = 20) -> int:
        return self.popen.wait(within)


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(way: str, **environ: str) -> Process:
        started.append(Process(tmp_path_factory.mktemp(way), way, **environ))
        return started[-1]

    yield start
    for process in started:
        process.popen.kill()
        process.popen.wait()


@pytest.fixture(scope="module")
def port(launch: Callable[..., Process]) -> int:
    return launch("serves").port()


def talk(port: int, *parts: bytes, pause: float = 0.0, patience: float = 5.0) -> tuple[bytes, float]:
    """Send ``parts``, then read until the server closes; what it said, and after how many seconds."""
    began = time.monotonic()
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while chunk := connection.recv(65_536):
                said += chunk
        except ConnectionError:
            pass
    return said, time.monotonic() - began


def request(body: bytes = b'{"name": "a"}', *headers: bytes, length: int | None = None) -> bytes:
    lines = [b"POST /v1/things HTTP/1.1", b"host: shelf", b"content-type: application/json", *headers]
    lines.append(b"content-length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CLOSE = b"connection: close"


def test_good_request_is_answered_however_it_is_cut(port: int) -> None:
    whole = request(b'{"name": "a"}', CLOSE)
    for parts in ([whole], [whole[:20], whole[20:70], whole[70:]], [bytes([byte]) for byte in whole]):
        said, _ = talk(port, *parts, pause=0.0005)
        assert said.startswith(b"HTTP/1.1 202"), said


def test_pipelined_requests_are_all_answered(port: int) -> None:
    many = request() * 400 + request(b'{"name": "a"}', CLOSE)
    said, _ = talk(port, many[:50_001], many[50_001:])
    assert said.count(b"HTTP/1.1 202") == 401


def test_header_block_up_to_16_kb_is_taken_and_more_is_refused(port: int) -> None:
    assert talk(port, request(b'{"name": "a"}', b"x-a: " + b"a" * 16_000, CLOSE))[0].startswith(
        b"HTTP/1.1 202"
    )
    for headers in ([b"x-a: " + b"a" * 17_000], [b"x-%d: 1" % number for number in range(3_000)]):
        assert talk(port, request(b'{"name": "a"}', *headers))[0].startswith(b"HTTP/1.1 431")
    long_path = b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nhost: shelf\r\n\r\n"
    assert talk(port, long_path)[0].startswith(b"HTTP/1.1 431")


def test_header_that_never_ends_is_refused_while_it_comes(port: int) -> None:
    said, seconds = talk(port, b"GET / HTTP/1.1\r\nx-a: ", *[b"a" * 4_000] * 6, pause=0.01)
    assert said.startswith(b"HTTP/1.1 431")
    assert seconds < 0.5


def test_slow_senders_are_cut_off(port: int) -> None:
    whole = request()
    for parts in ([], [whole[:30]], [bytes([byte]) for byte in whole]):
        said, seconds = talk(port, *parts, pause=0.03)
        assert b"202" not in said
        assert seconds < 0.5 + len(parts) * 0.04 + 1
    said, seconds = talk(port, whole[:-3])
    assert said.startswith(b"HTTP/1.1 408")
    assert 0.5 < seconds < 2


def test_slow_second_request_is_cut_off_too(port: int) -> None:
    said, seconds = talk(port, request(), b"POST /v1/things HTTP/1.1\r\n", pause=0.1)
    assert said.startswith(b"HTTP/1.1 202")
    assert seconds < 2


def test_body_nobody_waits_for_gets_its_answer_and_the_connection_lives(port: int) -> None:
    body = b'"' + b"x" * 3_000_000 + b'"'
    said, _ = talk(port, request(body), request(b'{"name": "a"}', CLOSE))
    assert said.startswith(b"HTTP/1.1 413")
    assert b'"code":"body_too_large"' in said
    assert said.count(b"HTTP/1.1 202") == 1


def test_endless_chunked_body_is_cut_off(port: int) -> None:
    head = b"POST /v1/things HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\n"
    said, seconds = talk(
        port,
        head + b"transfer-encoding: chunked\r\n\r\n",
        *[b"10000\r\n" + b" " * 65_536 + b"\r\n"] * 60,
        pause=0.03,
    )
    assert said.startswith(b"HTTP/1.1 413") or said == b""
    assert seconds < 4


def test_port_in_use_is_one_line_that_says_what_to_do(launch: Callable[..., Process], port: int) -> None:
    process = launch("second", CLOSEDLOOP_SHELF_PORT=str(port))
    assert process.ends() == 2
    last = process.log.read_text().splitlines()[-1]
    assert last.startswith(f"closedloop shelf: port {port} is in use")
    assert "CLOSEDLOOP_SHELF_PORT" in last


def test_misconfiguration_is_one_line_and_exit_2(launch: Callable[..., Process]) -> None:
    process = launch("misconfigured")
    assert process.ends() == 2
    lines = process.log.read_text().splitlines()
    assert lines[-1] == "closedloop shelf: the shelf has no boards"
    assert not any("Traceback" in line for line in lines)
    wrong = launch("serves", CLOSEDLOOP_SHELF_PORT="high")
    assert wrong.ends() == 2
    assert wrong.log.read_text().startswith("closedloop shelf: CLOSEDLOOP_SHELF_PORT: ")


@pytest.mark.parametrize("way", ["crashes", "ends"])
def test_background_task_that_is_gone_ends_the_process(launch: Callable[..., Process], way: str) -> None:
    assert launch(way).ends() == 1


def test_request_in_flight_is_answered_before_the_stop(launch: Callable[..., Process]) -> None:
    process = launch("serves")
    with socket.create_connection(("127.0.0.1", process.port()), timeout=5) as connection:
        connection.sendall(b"GET /v1/wait HTTP/1.1\r\nhost: shelf\r\n\r\n")
        time.sleep(0.2)
        process.popen.send_signal(signal.SIGTERM)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert process.ends(5) == 0


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a%2Fb", "a/b"),
        ("a%2fb%2Fc", "a/b/c"),
        ("%2F", "/"),
        ("a%252Fb", "a%2Fb"),
        ("caf%C3%A9%20au%20lait?x=/y", "café au lait"),
    ],
)
def test_id_in_a_path_may_hold_any_character(port: int, path: str, shown: str) -> None:
    request = f"GET /v1/things/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    answer, _ = talk(port, request)
    assert b" 200 " in answer.partition(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"id": shown}
    refused, _ = talk(port, b"GET /v1/things/a/b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 404 " in refused.partition(b"\r\n")[0]


def test_start_that_hears_no_cancellation_is_ended_by_force(launch: Callable[..., Process]) -> None:
    process = launch("deaf")
    process.wait_for("starting")
    time.sleep(0.5)
    process.popen.send_signal(signal.SIGTERM)
    assert process.ends(12) == 1


def test_start_that_hangs_can_be_interrupted(launch: Callable[..., Process]) -> None:
    process = launch("hangs")
    process.wait_for("starting")
    time.sleep(0.5)
    process.popen.send_signal(signal.SIGINT)
    assert process.ends(5) == 0


def test_stop_that_hangs_is_ended_by_force(launch: Callable[..., Process]) -> None:
    assert Patience().total < 20
    assert Patience().requests + Patience().stop < Patience().total
    process = launch("stuck")
    process.port()
    process.popen.send_signal(signal.SIGTERM)
    assert process.ends(5) == 1
