"""Trials of many offers, and learners of responses that have folded them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from libs.common.contracts.learned_model import MAX_PART_BYTES
from libs.common.scoring.learned import LearnedAssembler
from libs.common.scoring.response import ResponseModel
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.logit import LogitParameters
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.learner.responses import ResponseLearner, ResponseParameters
from services.analyzer.model.lessons import TrialLesson, encode_lesson
from tests.unit.trial_world import HOUR, T0, ghost, in_order, life, vector

PARAMETERS = Parameters(
    response=ResponseParameters(half_life_days=30.0, logit=LogitParameters(revise_every=25))
)


def world(trials: int, seed: int = 1) -> list[TrialLesson]:
    """A mix of everything that happens to trials, over some weeks."""
    random = np.random.default_rng(seed)
    lives = []
    for n in range(trials):
        own, shared = vector(float(random.uniform(0.01, 0.4)), price=float(random.random()), orders=0.5)
        engaged = float(random.uniform(0, 0.5)) if random.random() < 0.2 else None
        converted = float(random.uniform(0, 1)) if random.random() < 0.1 else None
        facts: dict[str, Any] = {
            "offer_id": f"product:{random.integers(12)}",
            "offer_kind": str(random.choice(["cross_sell", "repeat", "up_sell"])),
            "placement": str(random.choice(["home", "mail"])),
            "rank": int(random.integers(1, 5)),
            "swapped": (n % 7 / 10, n % 5 / 10),
            "cell": int(random.integers(4)),
            "vector": own,
            "shared": shared,
        }
        shown = T0 + n * HOUR
        if random.random() < 0.15:
            lives.append(ghost(shown, bool(random.random() < 0.05), **facts))
        else:
            lives.append(life(shown, engaged=engaged, converted=converted, **facts))
    return in_order(lives)


def rows(lessons: Sequence[TrialLesson]) -> list[tuple[Place, bytes]]:
    return [(Place(one.at // 1000, 0, n), encode_lesson(one)) for n, one in enumerate(lessons)]


def folded(lessons: Sequence[TrialLesson]) -> Fold:
    fold = Fold(PARAMETERS)
    fold.learn_many(rows(lessons))
    return fold


def published(fold: Fold, version: int = 7) -> ResponseModel:
    assembler = LearnedAssembler()
    records, manifest = Publications().records(content_of(fold, T0, Solved()), version)
    for key, value, _ in records:
        assert len(value) <= MAX_PART_BYTES
        assembler.put(key, value)
    assembler.put(b"manifest", manifest)
    assert assembler.models.version == version
    assert assembler.models.trials == fold.trials
    return assembler.models.response


def learner(lessons: Sequence[TrialLesson]) -> ResponseLearner:
    made = ResponseLearner()
    for one in lessons:
        made.learn_one(one)
    return made
