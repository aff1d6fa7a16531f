"""`closedloop up`: runs a platform in the foreground until it is told to stop or cannot go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable

from deploy.local.platform import Options, Platform
from deploy.local.supervisor import GaveUp
from libs.common.errors import ClosedloopError

_STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(options: Options, say: Callable[[str], None]) -> int:
    """Run a platform until SIGINT or SIGTERM; the exit status of the process."""
    quiet_libraries()
    return asyncio.run(_serve(options, say))


def quiet_libraries() -> None:
    """Keep what Kafka clients log while a broker is coming up off the person's screen."""
    logging.getLogger().addHandler(logging.NullHandler())


async def _serve(options: Options, say: Callable[[str], None]) -> int:
    stop = stop_signal()
    platform = Platform(options, say)
    began = time.monotonic()
    farewell = "stopped"
    try:
        starting = asyncio.create_task(platform.start())
        if await first_of(starting, stop):
            announce(platform, say, time.monotonic() - began)
            failing = asyncio.create_task(platform.failure())
            if await first_of(failing, stop):
                raise failing.result()
        say("stopping")
        return 0
    except GaveUp as gave_up:
        say(gave_up.tail().rstrip())
        say(f"closedloop stops: {gave_up}")
        return 1
    except ClosedloopError as error:
        say(f"Error: {error}")
        farewell = ""
        return 1
    finally:
        await platform.stop()
        if farewell:
            say(farewell)


def stop_signal() -> asyncio.Event:
    """Set when the process is told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPPERS:
        loop.add_signal_handler(number, stop.set)
    return stop


async def first_of(work: asyncio.Task[object] | asyncio.Task[None], stop: asyncio.Event) -> bool:
    """Wait for ``work`` or the stop; whether the work came first. What loses is cancelled."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return True
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClosedloopError):
            await work
        return False
    finally:
        stopping.cancel()


def announce(platform: Platform, say: Callable[[str], None], seconds: float) -> None:
    """Say where everything is and how to get in; the last line is the one scripts wait for."""
    for name, url in platform.urls.items():
        say(f"{name:<12} {url}" + ("/docs" if name != "learner" else ""))
    say(f"{'data':<12} {platform.data_dir}")
    say(f"{'key':<12} {platform.key}")
    say(f"started in {seconds:.1f} s; Ctrl-C stops it")
    say("closedloop is ready")
