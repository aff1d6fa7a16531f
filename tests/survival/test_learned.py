"""The short proof that learned models are one, whoever folds the journal and whatever dies meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.survival.learned import SHORT, prove_learned
from tests.survival.world import forget_template

pytestmark = pytest.mark.embedded


@pytest.fixture(autouse=True)
def _template() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    forget_template()


@pytest.mark.timeout(900)
def test_one_digest_of_what_was_learned_by_one_and_four_analyzers_killed_and_rebuilt() -> None:
    said: list[str] = []
    wrong = prove_learned(SHORT, seed=1, rounds=1, say=said.append, worlds=(1, 4))
    assert not wrong, "\n".join([*wrong, *said])
