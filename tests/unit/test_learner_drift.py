"""Drift detectors: an alarm where a model begins to foresee worse, none by chance or where it learns."""

from __future__ import annotations

import numpy as np

from services.analyzer.learner.drift import DriftWatch


def losses(count: int, mean: float, seed: int = 1) -> list[float]:
    drawn: list[float] = np.random.default_rng(seed).gamma(mean**2, 1 / mean, count).tolist()
    return drawn


def test_loss_that_rises_raises_an_alarm_within_some_hundred_orders() -> None:
    watch = DriftWatch()
    assert watch.alarms(losses(5_000, 2.2)) == 0
    assert watch.alarms(losses(600, 2.6, seed=2)) >= 1


def test_neither_chance_nor_learning_raises_an_alarm() -> None:
    watch = DriftWatch()
    assert watch.alarms(losses(20_000, 2.2)) == 0
    for mean in (2.1, 2.0, 1.9):
        assert watch.alarms(losses(2_000, mean)) == 0
