"""The learners' regressions pass river's checks of estimators, as classifiers of features by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pytest
from river import base, checks
from river.datasets import Phishing

from services.analyzer.learner.logit import BayesianLogit, Seen
from services.analyzer.learner.multinomial import ConditionalLogit

COLUMNS = 64


def columns_of(x: dict[Any, Any]) -> np.ndarray:
    """Features by name as a row with an intercept: the learners know columns, not names."""
    row = np.zeros(COLUMNS)
    row[0] = 1.0
    for name, value in sorted(x.items(), key=lambda pair: str(pair[0])):
        # Bounded, as `libs.common.scoring` bounds every feature.
        row[1 + crc32(str(name).encode()) % (COLUMNS - 1)] += np.tanh(float(value) / 10.0) * 3.0
    return row


class ResponseClassifier(base.Classifier):
    """`BayesianLogit`, one head of the response model, as a classifier of river.

    Parameters
    ----------
    deviation
        Prior standard deviation of the weights.
    """

    def __init__(self, deviation: float = 1.0) -> None:
        self.deviation = deviation
        self._head = BayesianLogit(np.zeros(COLUMNS), np.full(COLUMNS, deviation))

    def learn_one(self, x: dict[Any, Any], y: Any) -> None:
        self._head.learn_one(Seen(columns_of(x), "offer"), float(bool(y)), 1.0)

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[Any, float]:
        yes = 1.0 / (1.0 + float(np.exp(-self._head.predict_one(Seen(columns_of(x), "offer")))))
        return {False: 1.0 - yes, True: yes}

    @property
    def _multiclass(self) -> bool:
        return False


class ChoiceClassifier(base.Classifier):
    """`ConditionalLogit` as a classifier of river: the choice between what ``x`` says and nothing.

    Parameters
    ----------
    doubt
        Standard deviation of the prior, in log odds per spread of a feature.
    memory
        Sets after which one has faded to 1/e.
    """

    _nothing: ClassVar[np.ndarray] = np.zeros(COLUMNS)

    def __init__(self, doubt: float = 1.0, memory: float = 5_000.0) -> None:
        self.doubt = doubt
        self.memory = memory
        self._model = ConditionalLogit(np.zeros(COLUMNS), np.full(COLUMNS, 0.5), doubt, memory)

    def learn_one(self, x: dict[Any, Any], y: Any) -> None:
        taken = bool(y)
        self._model.learn_one(self._both(x), np.array([taken, not taken]))

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[Any, float]:
        yes, no = self._model.predict_one(self._both(x)).tolist()
        return {False: no, True: yes}

    def _both(self, x: dict[Any, Any]) -> np.ndarray:
        return np.stack([columns_of(x), self._nothing])

    @property
    def _multiclass(self) -> bool:
        return False


def all_checks() -> list[tuple[base.Classifier, Callable[[Any], object]]]:
    """What river would ask of each; on a data set that comes with it, since others need scikit-learn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_yield_datasets", lambda model, scale=1: [list(Phishing().take(100 * scale))])
        return [
            (model, check)
            for model in (ResponseClassifier(), ChoiceClassifier())
            for check in checks.yield_checks(model)
        ]


def name_of(value: Any) -> str:
    return type(value).__name__ if isinstance(value, base.Classifier) else str(value.__name__)


@pytest.mark.parametrize(("model", "check"), all_checks(), ids=name_of)
def test_learner_passes_rivers_checks(model: base.Classifier, check: Callable[[Any], object]) -> None:
    check(model.clone())
