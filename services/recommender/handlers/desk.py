"""Where questions meet: those that come while others are served are decided and recorded together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.recommender.handlers.decide import Question

MOST = 20
"""Questions that are answered together, before others get their turn."""
PATIENCE = 0.01
"""Seconds that a question waits for those before it to be answered: a disk may be slow."""

Answers = Sequence[bytes | Exception]


class Desk:
    """Hands questions on, up to `MOST` at a time, and gives each its answer.

    Who comes while nobody is served waits for nobody. Who comes while others are served waits until their
    answers are out, at most `PATIENCE`, or until a round is full: the busier it is, the more share a round,
    as appended events share a commit.

    Parameters
    ----------
    serve:
        Gives the answers to some questions in their order, an exception for each that failed.
    """

    def __init__(self, serve: Callable[[Sequence[Question]], Awaitable[Answers]]) -> None:
        self._answers = serve
        self._line: list[tuple[Question, asyncio.Future[bytes]]] = []
        self._busy: set[asyncio.Task[None]] = set()
        self._patience: asyncio.TimerHandle | None = None

    async def answer(self, question: Question) -> bytes:
        """The answer to ``question``; raises what kept it from being made."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bytes] = loop.create_future()
        self._line.append((question, waiter))
        if len(self._line) == (MOST if self._busy else 1):
            # Not at once: whoever else asks in this round of the event loop comes along.
            loop.call_soon(self._next)
        elif len(self._line) == 1:
            self._patience = loop.call_later(PATIENCE, self._next)
        return await waiter

    def _next(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        # Who has gone meanwhile is not decided for: his id may be asked for again.
        self._line = [one for one in self._line if not one[1].done()]
        if not self._line:
            return
        some, self._line = self._line[:MOST], self._line[MOST:]
        task = asyncio.create_task(self._serve(some))
        self._busy.add(task)
        task.add_done_callback(self._served)
        if self._line:
            # Trap: not in this round of the event loop, or who asks for anything else waits for all of them.
            asyncio.get_running_loop().call_soon(self._next)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._next()

    async def _serve(self, some: Sequence[tuple[Question, asyncio.Future[bytes]]]) -> None:
        answers: Answers
        try:
            answers = await self._answers([question for question, _ in some])
        except Exception as error:
            answers = [error] * len(some)
        for (_, waiter), answer in zip(some, answers, strict=True):
            if waiter.done():
                continue
            if isinstance(answer, bytes):
                waiter.set_result(answer)
            else:
                waiter.set_exception(answer)
