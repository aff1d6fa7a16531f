"""P(this customer buys this product next): a linear score over the features, softmax over the candidates."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIRST = ("popularity", "history", "trend", "page", "basket")
"""Features that weigh otherwise where a customer would buy a product for the first time."""

FEATURES = (
    "habit",
    "recency",
    "due",
    "popularity",
    "page",
    "basket",
    "history",
    "viewed",
    "category",
    "tier",
    "trend",
    "times",
    "season",
    "aisle",
    "usual",
    "first",
    "hour_fit",
    "channel_fit",
    "size_fit",
    "trip",
    *(f"first_{name}" for name in FIRST),
    "first_rate",
)
"""What candidates are judged by: columns of the matrix of `candidate_features`.

Trap: the order is part of the models' versions and of floating-point results.
"""
FEATURE_SET = blake2b(" ".join(FEATURES).encode(), digest_size=4).hexdigest()
"""Name of these columns in this order."""

START_WEIGHTS: Mapping[str, float] = {
    "habit": 0.2,
    "recency": 0.3,
    "due": 0.4,
    "popularity": 0.1,
    "page": 1.5,
    "basket": 1.5,
    "history": 0.0,
    "viewed": 0.5,
    "category": 0.6,
    "tier": 0.1,
    "trend": 0.35,
    "times": -0.5,
    "season": -0.5,
    "aisle": 0.75,
    "usual": 1.3,
    "first": 0.0,
    "hour_fit": 0.0,
    "channel_fit": 0.0,
    "size_fit": 0.3,
    "trip": 0.5,
    "first_popularity": 0.1,
    "first_history": 0.35,
    "first_trend": 0.9,
    "first_page": 0.9,
    "first_basket": 0.9,
    "first_rate": 0.5,
}
"""Weights before anything was learned about choices.

What the learner made of groceries (two times 400 households of The Complete Journey, none of which is scored
anywhere), drawn towards nothing and rounded. That data holds no pages and views: a page weighs like a basket,
a view by judgement.
"""


class ChoiceModel:
    """A conditional logit with given weights (McFadden 1974).

    Parameters
    ----------
    weights:
        By feature name; features not named weigh nothing. No unit: log odds per unit of the feature.
    """

    def __init__(self, weights: Mapping[str, float] = START_WEIGHTS) -> None:
        self._weights: Floats = np.array([weights.get(name, 0.0) for name in FEATURES])

    @property
    def weights(self) -> Floats:
        """Array (`FEATURES`,). Not to be written to."""
        return self._weights

    def utilities(self, features: Floats) -> Floats:
        """Scores (n,) of a matrix (n, `FEATURES`): only differences mean something."""
        return features @ self._weights

    def contributions(self, features: Floats) -> Floats:
        """What each feature adds to a score, against the mean of all: (n, `FEATURES`), log odds."""
        if not len(features):
            return features
        return np.asarray((features - features.sum(axis=0) / len(features)) * self._weights)

    def probabilities(self, features: Floats) -> Floats:
        """P(buys this one next) among the candidates, (n,), summing to 1 where there are any."""
        scores = self.utilities(features)
        if not len(scores):
            return scores
        odds = np.exp(scores - scores.max())
        return np.asarray(odds / odds.sum())


START = ChoiceModel()
"""The model before anything was learned about choices."""
