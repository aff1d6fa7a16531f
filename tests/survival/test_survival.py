"""The short run: every kind of fault at least once, judged by the client's own books."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from tests.survival.catalogue import SHORT
from tests.survival.trial import Trial, run
from tests.survival.world import forget_template

pytestmark = pytest.mark.apache


@pytest.fixture(scope="module", autouse=True)
def _template() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    forget_template()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("trial", SHORT, ids=lambda trial: trial.name)
def test_every_accepted_event_counts_once(trial: Trial) -> None:
    seed = int(os.environ.get("CLOSEDLOOP_SURVIVAL_SEED", "1"))
    outcome = run(trial, seed)
    if outcome.skipped and os.environ.get("CI") != "true":
        pytest.skip(outcome.skipped)
    assert not outcome.skipped
    assert not outcome.failed, outcome.describe()
