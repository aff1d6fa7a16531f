"""Zero outcomes: as long as nothing was ever shown, the answers are those of the choice model alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from deploy.local.demo.data import Basket
from deploy.local.demo.feed import CHANNEL
from deploy.local.demo.scores import SIZE, Scoreboard, score
from libs.common.contracts.catalogue import Product
from libs.common.scoring.features import Scene, ScoringTables, Shelf, candidate_features
from libs.common.scoring.learned import LearnedModels
from libs.common.scoring.sources.look import Look
from libs.common.scoring.sources.union import candidates
from tests.benchmarks.quality.exam import Rivals, request_before
from tests.benchmarks.quality.loop import Request
from tests.benchmarks.quality.shadow import Shadow
from tests.benchmarks.quality.table import Claim

NAME = "zero outcomes"
ANSWERED, ALONE = "answered", "choice alone"
CLAIM = Claim(NAME, ANSWERED, ALONE, within=0.003)


class ZeroOutcomes:
    """What is answered before any outcome, against the same candidates by the choice model alone.

    Parameters
    ----------
    shadow:
        Hears the same orders.
    """

    def __init__(self, products: Sequence[dict[str, Any]], shadow: Shadow) -> None:
        self.name = NAME
        self.board = Scoreboard()
        self._shadow = shadow
        self._shelf = Shelf([msgspec.convert(product, Product) for product in products])
        self._open = np.ones(len(self._shelf), dtype=np.bool_)
        self._tables = ScoringTables.align(self._shelf, LearnedModels())

    def requests(self, basket: Basket, rivals: Rivals) -> dict[str, Request]:
        return {ANSWERED: request_before(basket)}

    def mark(self, basket: Basket, rivals: Rivals, lists: dict[str, list[str]]) -> None:
        lists[ALONE] = self._best(basket)
        scores = {name: score(ranked, basket.products) for name, ranked in lists.items()}
        self.board.add(basket.customer, basket.week, scores)

    def _best(self, basket: Basket) -> list[str]:
        learned = self._shadow.learned
        if self._tables.learned is not learned:
            self._tables = ScoringTables.align(self._shelf, learned, self._tables)
        items = self._shadow.of(basket.customer).items.items
        scene = Scene.of(self._tables, items, basket.at, channel=CHANNEL)
        found = candidates(Look(scene, self._open, None, ())).positions
        utility = learned.choice.utilities(candidate_features(scene, found))
        best = found[np.argsort(-utility, kind="stable")[:SIZE]]
        return [self._shelf.ids[position] for position in best.tolist()]
