"""Long computations beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What ``function`` returns, computed in a thread.

    A thread cannot be ended from outside: who is cancelled waits for it first, so that nobody finds what it
    works on half done.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        # Whatever came of the work, nobody waits for it any more; asked for, so that it is not complained of.
        work.exception()
        raise asyncio.CancelledError
    return work.result()
