"""Lessons of trials as the analyzer would write them, from a world whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from libs.common.clock import DAY, HOUR
from libs.common.contracts.vectors import pack
from libs.common.scoring.trial import FEATURE_SET, RESPONSE_FEATURES, SHARED_FEATURES
from services.analyzer.learner.delays import AGES
from services.analyzer.model.lessons import TrialLesson

T0 = 1_700_000_000_000
WINDOW = 7 * DAY


def vector(chance: float = 0.1, **features: float) -> tuple[bytes, bytes]:
    """An offer's own features and the shared ones, packed."""
    own, shared = np.zeros(len(RESPONSE_FEATURES)), np.zeros(len(SHARED_FEATURES))
    own[0] = np.log(chance / (1 - chance))
    shared[0] = 1.0
    for name, value in features.items():
        if name in RESPONSE_FEATURES:
            own[RESPONSE_FEATURES.index(name)] = value
        else:
            shared[SHARED_FEATURES.index(name)] = value
    return pack(own[None, :])[0], pack(shared[None, :])[0]


PLAIN = vector()


def lesson(at: int = T0, **changes: Any) -> TrialLesson:
    fields: dict[str, Any] = {
        "customer": "c",
        "at": at,
        "occurred_at": at,
        "step": "shown",
        "decision_id": "d",
        "offer_id": "product:a",
        "product_id": "a",
        "offer_kind": "cross_sell",
        "placement": "home",
        "channel": "web",
        "group": "treatment",
        "rank": 1,
        "propensity": 0.5,
        "chance": 0.1,
        "feature_set": FEATURE_SET,
        "vector": PLAIN[0],
        "shared": PLAIN[1],
        "window": WINDOW,
    }
    return TrialLesson(**{**fields, **changes})


def life(
    shown: int,
    *,
    engaged: float | None = None,
    converted: float | None = None,
    until: float = 1.0,
    bought: bool | None = None,
    **facts: Any,
) -> Iterator[TrialLesson]:
    """The lessons of one trial: ages as shares of the window; ``until`` is how far it has come."""
    yield lesson(shown, **facts)
    events: list[tuple[float, str]] = [(age, "look") for age in AGES]
    if engaged is not None:
        events.append((engaged, "engaged"))
    if converted is not None:
        events.append((converted, "converted"))
    before, had_engaged, had_converted = 0.0, False, False
    for age, step in sorted(events):
        if age > until:
            return
        at = shown + int(age * WINDOW)
        spent: dict[str, Any] = {"age_to": int(age * WINDOW), "engaged": had_engaged, **facts}
        if step == "look":
            judged = age == 1.0
            if had_converted and not judged:
                continue
            spent["age_from"] = int((age if had_converted else before) * WINDOW)
            spent["judged"] = judged
            spent["bought"] = judged and (had_converted if bought is None else bought)
            before = age
        elif step == "engaged":
            had_engaged = spent["engaged"] = True
        else:
            had_converted = True
            spent["seen_to"] = int(before * WINDOW)
        yield lesson(at, step=step, **spent)


def ghost(shown: int, bought: bool, **facts: Any) -> Iterator[TrialLesson]:
    """The lessons of a ghost: that it began, and what was bought within the window."""
    yield lesson(shown, ghost=True, **facts)
    end = shown + WINDOW
    yield lesson(
        end, step="look", ghost=True, age_from=WINDOW, age_to=WINDOW, judged=True, bought=bought, **facts
    )


def in_order(lives: list[Iterator[TrialLesson]]) -> list[TrialLesson]:
    """All lessons in journal time, those of one moment in the sequence given."""
    return sorted((one for each in lives for one in each), key=lambda one: one.at)


__all__ = ["DAY", "HOUR", "T0", "WINDOW", "TrialLesson", "ghost", "in_order", "lesson", "life", "vector"]
