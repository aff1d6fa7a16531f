"""Services in this process that most tests of this folder speak to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.collector_world import Collector, collecting
from tests.contract.recommender_world import World, stocked


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Collector]:
    """A collector with nothing on its journal."""
    async with collecting(tmp_path) as one:
        yield one


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A recommender with a shelf and placements, not yet started."""
    return await stocked(tmp_path)
