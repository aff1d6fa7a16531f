"""Header ``Closedloop-Durability``: how safe what was accepted must be before the answer goes out."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from libs.common.errors import Invalid
from libs.common.http.batches import Batch, BatchAnswer
from libs.common.http.calls import Call
from libs.common.journal import Durability
from libs.common.position import Position

HEADER = "closedloop-durability"


class DurableAnswer(BatchAnswer, frozen=True, omit_defaults=True):
    """The answer to a batch; ``durability`` says what was reached, where the request asked for a level."""

    durability: Durability | None = None


class BadDurability(Invalid):
    """The header holds a word that is not known."""

    def __init__(self) -> None:
        super().__init__("wrong_type", "must be spool or bus", f"/{HEADER}")


def asked_level(call: Call) -> Durability | None:
    """The level a request asks for, None where it leaves that to us; raises `BadDurability`."""
    asked = call.header(HEADER)
    if asked is None:
        return None
    try:
        return Durability(asked.strip().lower())
    except ValueError:
        raise BadDurability from None


def durable_answer(
    batch: Batch[Any],
    position: Position,
    asked: Durability | None,
    reached: Durability,
    status: int = 202,
    **more: Any,
) -> Response:
    """The 202 of ``batch``, with ``more`` members; says the level ``reached`` where one was ``asked`` for."""
    if asked is not None:
        more["durability"] = reached
    return batch.answer(position.encode(), status, **more)
