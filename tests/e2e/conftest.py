"""Platforms for the tests of this folder: one for a whole file, or one for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.rig import Up


@pytest.fixture
def start() -> Iterator[Callable[..., Up]]:
    """Starts platforms and ends what a test has left running."""
    started: list[Up] = []

    def begin(*arguments: str) -> Up:
        started.append(Up(*arguments))
        return started[-1]

    yield begin
    for up in started:
        up.close()


@pytest.fixture(scope="module")
def platform() -> Iterator[Up]:
    """One platform for all tests of a file, without holdout, so that everybody gets offers."""
    up = Up("--ephemeral", "--no-holdout")
    try:
        yield up.wait_ready()
    finally:
        up.close()
