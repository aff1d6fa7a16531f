"""closedloop's own learning and drawing, in process: the very functions that serve and learn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from libs.common.clock import DAY, HOUR, MINUTE, Millis
from libs.common.contracts.catalogue import KINDS
from libs.common.contracts.vectors import pack
from libs.common.scoring.choice import FEATURES, ChoiceModel
from libs.common.scoring.response import ResponseModel, response_of
from libs.common.scoring.trial import (
    FEATURE_SET,
    Told,
    category_codes,
    cells_of,
    context_sketch,
    crossed,
    offer_sketch,
    own_features,
    shared_features,
    source_groups,
)
from services.analyzer.learner import response_parts
from services.analyzer.learner.responses import ResponseLearner
from services.analyzer.model.lessons import TrialLesson
from services.recommender.model.policy import Draw, Exploration, fill_slots, seed_of
from tests.benchmarks.bandits.offers import TIERS, Floats, Offers

PLACEMENT = "market"
KIND = "cross_sell"
EXPLORATION = Exploration(0.02)
BEGIN = 1_767_225_600_000
WINDOW = 7 * DAY
PUBLISHED_EVERY = 50
"""Rounds from one version of the model to the next: on a wall clock it is a second."""


class Publisher:
    """What the learner knows as the model that serves it, a version after the other."""

    def __init__(self) -> None:
        self._contents = response_parts.ResponseContents()
        self._version = 0

    def model(self, learner: ResponseLearner) -> ResponseModel:
        """The learner's state as it would be published and read."""
        self._version += 1
        version, content = self._version, self._contents.of(learner)
        return response_of(
            version,
            [response_parts.response_part(version, at, head) for at, head in enumerate(content.heads)],
            [response_parts.intercepts_part(version, at, rows) for at, rows in enumerate(content.intercepts)],
            [response_parts.caused_part(version, at, rows) for at, rows in enumerate(content.caused)],
        )


class Ours:
    """Posterior draws of the response model, learned from trials that are judged at once."""

    name = "closedloop"

    def __init__(self, offers: Offers) -> None:
        self._offers = offers
        self.learner, self._publisher = ResponseLearner(), Publisher()
        self._model = ResponseModel()
        count = len(offers)
        self._ids = [f"product:p{at}" for at in range(count)]
        self._kinds = np.full(count, KINDS.index(KIND), dtype=np.int8)
        codes = category_codes([f"shop/{at}" for at in offers.category.tolist()], offers.tier / TIERS)
        self._cells = cells_of(self._kinds, codes)
        self._sketches = np.stack([offer_sketch({"category": str(at)}) for at in offers.category.tolist()])
        self._known: dict[int, tuple[Floats, Floats]] = {}
        self._rounds = 0
        self._own: Floats = np.empty((0, 0))
        self._shared: Floats = np.empty(0)
        self._chances: Floats = np.empty(0)

    def choose(self, round_: int, customer: int) -> tuple[int, float]:
        [one] = self.slate(round_, customer, 1)
        return one.chosen, one.propensity

    def slate(self, round_: int, customer: int, slots: int) -> list[Draw]:
        """What is drawn for the slots from above, as it is served."""
        if round_ % PUBLISHED_EVERY == 0 and round_:
            self._model = self._publisher.model(self.learner)
        self._rounds = round_
        self._own, self._shared = self._features(customer, round_)
        return fill_slots(
            # The mean is asked for only where nothing is drawn, or only near the best.
            np.zeros(len(self._ids)),
            lambda: self._model.draws(self._own, self._shared, self._ids, self._cells),
            slots,
            EXPLORATION,
            seed_of(f"{self._offers.seed}-{round_}"),
        )

    def learn_one(self, customer: int, offer: int, propensity: float, responded: bool) -> None:
        self.learn_slot(1, offer, propensity, responded)

    def learn_slot(
        self,
        rank: int,
        offer: int,
        propensity: float,
        responded: bool,
        swapped: tuple[float, float] = (0.0, 0.0),
        *,
        clicked: bool = False,
    ) -> None:
        """What came of an offer of the last slate; ``clicked``: on the way to what was bought."""
        for lesson in trial_lessons(
            at=BEGIN + self._rounds * MINUTE,
            offer_id=self._ids[offer],
            kind=KIND,
            propensity=propensity,
            own=self._own[offer],
            shared=self._shared,
            cell=int(self._cells[offer]),
            bought=responded,
            rank=rank,
            swapped=swapped,
            clicked=clicked,
        ):
            self.learner.learn_one(lesson)

    def _features(self, customer: int, round_: int) -> tuple[Floats, Floats]:
        """Own and shared features of all offers; of a customer they are computed once."""
        found = self._known.get(customer)
        if found is None:
            found = self._known[customer] = self._of(customer)
        own, context = found
        told = Told("web", PLACEMENT, BEGIN + round_ * MINUTE, context, orders=5.0, on_page=False, basket=0)
        [shared] = shared_features([told])
        return own, shared

    def _of(self, customer: int) -> tuple[Floats, Floats]:
        """What the recommender would know of a customer who has bought by his taste, but none of these."""
        offers = self._offers
        count = len(offers)
        matrix = np.zeros((count, len(FEATURES)))
        matrix[:, FEATURES.index("habit")] = math.log(0.3)
        matrix[:, FEATURES.index("category")] = offers.taste[customer][offers.category]
        above = offers.tier - offers.limit[customer]
        matrix[:, FEATURES.index("tier")] = -np.abs(above) / TIERS
        context = context_sketch({"limit": str(offers.limit[customer])})
        own = own_features(
            matrix,
            FEATURES,
            chance=ChoiceModel().probabilities(matrix),
            kinds=self._kinds,
            groups=np.broadcast_to(source_groups(["popular"]), count),
            price=offers.price,
            margin=0.4 * offers.price,
            tier_step=above / TIERS,
            seen=np.full(count, 100.0),
            offers=self._sketches,
            crosses=crossed(self._sketches, context),
        )
        return own, context


def trial_lessons(
    *,
    at: Millis,
    offer_id: str,
    kind: str,
    propensity: float,
    own: Floats,
    shared: Floats,
    cell: int,
    bought: bool,
    ghost: bool = False,
    rank: int = 1,
    swapped: tuple[float, float] = (0.0, 0.0),
    clicked: bool = False,
) -> Iterator[TrialLesson]:
    """The lessons of one trial or ghost: bought within the hour, or not within the window."""
    common: dict[str, Any] = {
        "customer": "c",
        "at": at,
        "occurred_at": at,
        "decision_id": str(at),
        "offer_id": offer_id,
        "product_id": offer_id.removeprefix("product:"),
        "offer_kind": kind,
        "placement": PLACEMENT,
        "channel": "web",
        "group": "treatment",
        "rank": rank,
        "swapped": swapped,
        "propensity": propensity,
        "chance": 0.0,
        "feature_set": FEATURE_SET,
        "vector": pack(own[None, :])[0],
        "shared": pack(shared[None, :])[0],
        "window": WINDOW,
        "cell": cell,
        "ghost": ghost,
    }
    if clicked:
        yield TrialLesson(**common, step="engaged", age_to=HOUR, engaged=True)
    if bought and not ghost:
        yield TrialLesson(**common, step="converted", age_to=HOUR, engaged=clicked)
    spent = WINDOW if bought or ghost else 0
    yield TrialLesson(
        **common, step="look", age_from=spent, age_to=WINDOW, engaged=clicked, judged=True, bought=bought
    )
