"""What goes with the page, with the basket, and with what the customer buys."""

from __future__ import annotations

import numpy as np

from services.recommender.model.situation import Floats, Positions, Situation, top_of

COMPLEMENTS = 40


def of_page(here: Situation) -> Positions:
    return _best(here, here.scene.page if here.page is not None else None)


def of_basket(here: Situation) -> Positions:
    return _best(here, here.scene.basket if here.basket else None)


def of_history(here: Situation) -> Positions:
    return _best(here, here.scene.history if here.items else None)


def _best(here: Situation, scores: Floats | None) -> Positions:
    if scores is None:
        return np.empty(0, dtype=np.int64)
    found = ((scores > 0.0) & here.open).nonzero()[0]
    return top_of(found, scores[found], COMPLEMENTS)
