"""What is asked and answered: the bodies of recommendations and decisions, as the contract names them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from libs.common.contracts.catalogue import AllKinds, Id, Kind

MAX_LIMIT = 100
MAX_EXCLUDE = 1_000
MAX_BATCH = 1_000
MAX_BASKET = 1_000

NO_OFFER = "none"
"""The offer id of "no offer" in a decision."""

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
WaitMillis = Annotated[int, Meta(ge=0, le=1_000)]
DecisionId = Annotated[str, Meta(min_length=1, max_length=128)]


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for offers; only ``placement`` must be said.

    ``context`` is free data, of which ``product_id`` (the page) and ``basket`` are understood.
    ``limit`` defaults to the placement's. ``customer_signature`` is what browsers prove a customer with.
    ``after`` is a position, ``at`` a time (scope ``manage``).
    """

    placement: Id
    customer_id: Id | None = None
    anonymous_id: Id | None = None
    channel: Annotated[str, Meta(min_length=1, max_length=64)] = "web"
    context: dict[str, Any] = {}
    limit: Limit | None = None
    kinds: list[Kind] | AllKinds | None = None
    exclude: Annotated[list[str], Meta(max_length=MAX_EXCLUDE)] = []
    after: str | None = None
    wait_ms: WaitMillis = 250
    at: str | None = None
    decision_id: DecisionId | None = None
    dry_run: bool = False
    customer_signature: str | None = None


class Offered(Struct, frozen=True, kw_only=True):
    """One offer of an answer. ``token`` is what its outcomes are reported with."""

    offer_id: str
    product_id: str | None
    kind: Kind
    rank: int
    score: float | None
    propensity: float | None
    reasons: list[str]
    product: msgspec.Raw
    token: str | None = None
    click_url: str | None = None
    pixel_url: str | None = None
    content: dict[str, Any] | UnsetType = UNSET


class Answer(Struct, frozen=True, kw_only=True):
    """The answer to an `Ask`."""

    decision_id: str
    group: str | None
    policy_version: str | None
    fresh: bool
    degraded: list[str]
    limited_by: list[str]
    offers: list[Offered]


class Chance(Struct, frozen=True):
    """One candidate of a slot's pool, with the probability that the draw had chosen it."""

    offer_id: str
    propensity: float


class DecidedSlot(Struct, frozen=True):
    """One draw of a decision: what it chose, and what it could have.

    ``swapped`` is the probability that this offer and the one above had been drawn the other way round, given
    these two.
    """

    rank: int
    offer_id: str
    propensity: float
    pool: list[Chance]
    swapped: float | msgspec.UnsetType = msgspec.UNSET


class Valued(Struct, frozen=True):
    """What makes a candidate's probability its value: times ``caused`` (the share of conversions that showing
    causes), ``margin`` (of an up-sell the difference) and 1 − ``returned`` (the share of sales that come
    back), less ``contact_cost``.
    """

    caused: float
    margin: float
    returned: float
    contact_cost: float


class Considered(Struct, frozen=True, kw_only=True):
    """One candidate of a decision.

    ``chance`` is P(choice), ``mean`` that of the probability that it is taken up when shown, ``variance``
    (null where nothing was drawn) how far the draws differ that fill the slots: nearer the mean than the
    posterior is. ``value`` is its score, ``rules`` what kept it from being placed.
    ``contributions``, of what was placed, says by feature what spoke for its choice (log odds against the
    mean of all candidates), the strongest first; ``worth``, of the same, what its value is made of.
    """

    offer_id: str
    product_id: str | None
    kind: str
    source: str
    chance: float
    mean: float
    variance: float | None
    value: float
    rules: list[str]
    contributions: dict[str, float] | UnsetType = UNSET
    worth: Valued | UnsetType = UNSET


class Versions(Struct, frozen=True):
    """What the decision was made with."""

    policy: str
    model: int
    catalogue: int


class DecisionReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A decision as ``GET /v1/decisions/{id}`` shows it.

    ``ghosts`` were drawn and taken out, see docs/glossary.md; ``withheld`` is what a customer of a holdout
    group would have been shown.
    """

    decision_id: str
    decided_at: str
    customer: str
    placement: str
    group: str
    objective: str
    versions: Versions
    seed: int
    slots: list[DecidedSlot]
    ghosts: list[DecidedSlot]
    candidates: list[Considered]
    rejected: dict[str, int]
    withheld: list[DecidedSlot] | None = None


EMPTY = msgspec.Raw(b"null")
