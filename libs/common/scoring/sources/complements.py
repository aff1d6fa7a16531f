"""What goes with the page, with the basket, and with what the customer buys."""

from __future__ import annotations

from libs.common.scoring.sources.look import NONE, Floats, Look, Positions, top_of

COMPLEMENTS = 40


def of_page(look: Look) -> Positions:
    return _best(look, look.scene.page if look.page is not None else None)


def of_basket(look: Look) -> Positions:
    return _best(look, look.scene.basket if look.basket else None)


def of_history(look: Look) -> Positions:
    return _best(look, look.scene.history if look.scene.past.traces.items else None)


def _best(look: Look, scores: Floats | None) -> Positions:
    if scores is None:
        return NONE
    found = ((scores > 0.0) & look.open).nonzero()[0]
    return top_of(found, scores[found], COMPLEMENTS)
