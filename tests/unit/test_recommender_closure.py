"""Loop closure: measured where progress and view meet."""

from __future__ import annotations

import pytest

from libs.common.bus.ports import Message
from libs.common.clock import ManualClock
from libs.common.contracts.progress import Progress
from libs.common.progress import ProgressBoard
from libs.common.telemetry import Metrics
from libs.common.view import MemoryView
from services.recommender.closure import ClosureWatch
from services.recommender.metrics import RecommenderMetrics

NOW = 1_700_000_000_000


class ModelsView(MemoryView):
    """A view of which a test says how far it is."""

    def reach(self, partition: int, offset: int) -> None:
        self._places.offsets[partition] = offset


@pytest.fixture
def registry() -> Metrics:
    return Metrics("recommender")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def board() -> ProgressBoard:
    return ProgressBoard()


@pytest.fixture
def view() -> ModelsView:
    return ModelsView()


@pytest.fixture
def watch(registry: Metrics, clock: ManualClock, board: ProgressBoard, view: ModelsView) -> ClosureWatch:
    watch = ClosureWatch(board, clock, RecommenderMetrics(registry))
    watch.follow(view)
    return watch


def progress(models_offset: int, journal_time: int) -> Progress:
    return Progress(
        partition=3, cluster="", epoch=1, applied={}, journal_time=journal_time, models_offset=models_offset
    )


def closed(registry: Metrics) -> tuple[float, float]:
    """How many closures were seen, and their sum in seconds."""
    lines = dict(line.rsplit(" ", 1) for line in registry.render().decode().splitlines() if line[0] != "#")
    name = "closedloop_recommender_closure_seconds"
    return float(lines[f"{name}_count"]), float(lines[f"{name}_sum"])


MODEL = Message("customer-models", 3, 9, b"c-1/profile", b"", (), 0)


def test_loop_closes_when_the_view_has_what_progress_tells_of(
    registry: Metrics, clock: ManualClock, board: ProgressBoard, view: ModelsView, watch: ClosureWatch
) -> None:
    board.put(progress(9, NOW - 1_000))
    view.reach(3, 9)
    board.put(progress(10, NOW - 50))
    assert closed(registry) == (0, 0)
    assert watch.missing() == 1
    clock.tick(150)
    view.reach(3, 10)
    watch.on_models([MODEL])
    assert closed(registry) == (1, pytest.approx(0.2))
    assert watch.missing() == 0
    watch.on_models([MODEL])
    assert closed(registry)[0] == 1


def test_view_that_is_faster_than_progress_closes_the_loop_at_once(
    registry: Metrics, board: ProgressBoard, view: ModelsView, watch: ClosureWatch
) -> None:
    board.put(progress(9, NOW - 1_000))
    view.reach(3, 10)
    board.put(progress(10, NOW - 80))
    assert closed(registry) == (1, pytest.approx(0.08))


def test_ticks_and_what_was_published_before_the_start_are_left_out(
    registry: Metrics, board: ProgressBoard, view: ModelsView, watch: ClosureWatch
) -> None:
    view.reach(3, 10)
    board.put(progress(10, NOW - 86_400_000))
    board.put(progress(10, NOW))
    assert closed(registry) == (0, 0)
