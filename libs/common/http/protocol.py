"""uvicorn's httptools protocol with what it lacks: a limit for headers, and time limits for slow senders."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


@dataclass(frozen=True)
class Limits:
    """What a connection may take. Times in seconds, sizes in bytes.

    ``discard`` is how much of a body nobody wants any more is read before the connection is closed.
    """

    header_bytes: int = 16_384
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    discard_bytes: int = 64 * 1_048_576


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Timers run only while a request is incomplete, so whole requests cost nothing."""

    limits = Limits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = False
        self._in_body = False
        self._begun = 0
        self._head_bytes = 0
        self._partial_bytes = 0
        self._discarded = 0
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline(self.limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        idle, was_in_head, begun = not self._in_head and not self._in_body, self._in_head, self._begun
        super().data_received(data)
        if self._refused:
            return
        if self._in_head:
            # The parser keeps a header to itself until its line ends, so what it was fed is counted too. Of a
            # chunk that also held the end of an earlier request it is not known how much belongs to this one.
            fresh = idle and self._begun == begun + 1
            if self._begun != begun and not fresh:
                self._partial_bytes = 0
            else:
                self._partial_bytes = (self._partial_bytes if was_in_head else 0) + len(data)
            if self._partial_bytes > self.limits.header_bytes:
                self._refuse_head()
                return
        self._watch(was_in_head, begun)

    def _watch(self, was_in_head: bool, begun: int) -> None:
        if not self._in_head and not self._in_body:
            self._clear_deadline()
        elif self._begun != begun or self._deadline is None or (was_in_head and not self._in_head):
            self._set_deadline(self.limits.header_seconds if self._in_head else self.limits.body_seconds)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_body = True, False
        self._begun += 1
        self._head_bytes = 0
        self._discarded = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        if self._head_bytes > self.limits.header_bytes:
            self._refuse_head()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        super().on_body(body)
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > self.limits.discard_bytes:
                self.transport.close()

    def on_message_complete(self) -> None:
        self._in_body = False
        if not self._refused:
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        # Trap: an answer given before its request was read leaves the sender busy; the deadline rules him.
        if not self._in_head and not self._in_body:
            super().timeout_keep_alive_handler()

    def _refuse_head(self) -> None:
        self._refused = True
        self._clear_deadline()
        self._say(b"431 Request Header Fields Too Large", b"The header block is larger than allowed.")

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        self._refused = True
        answered = self.cycle is not None and (self.cycle.response_started or self.pipeline)
        if self._begun and not answered:
            self._say(b"408 Request Timeout", b"The request took too long to arrive.")
        else:
            self.transport.close()

    def _say(self, status: bytes, text: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete or self._in_body:
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: "
                b"%d\r\nconnection: close\r\n\r\n%b" % (len(text), text)
            )
        self.transport.close()

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def protocol_with(limits: Limits) -> type[LimitedProtocol]:
    """A protocol class with these limits, for uvicorn's ``http`` setting."""
    return type("Protocol", (LimitedProtocol,), {"limits": limits})
