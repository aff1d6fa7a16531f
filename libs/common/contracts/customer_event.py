"""The journal: one tagged union of everything that happens to a customer, in one order per customer key."""

from __future__ import annotations

from typing import Any, final

import msgspec
from msgspec import Struct

from libs.common.clock import DAY, Millis
from libs.common.contracts.identity import CustomerKey

SCHEMA = b"customer-event/1"


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What all events about a customer share.

    Parameters
    ----------
    id:
        Idempotency key: counts once per (source, customer, id) for 30 days.
    source:
        Who said so: the name of the API key, or the service (``recommender``, ``feedback``).
    customer:
        The customer key; record key on the bus, and what the partition is chosen by.
    occurred_at, recorded_at:
        Event time, and the publishing service's clock when it accepted the event.
    internal:
        Made by the platform itself (echoes, owner records); the ledger counts these apart.
    """

    id: str
    source: str
    customer: CustomerKey
    occurred_at: Millis
    recorded_at: Millis
    internal: bool = False


@final
class Touchpoint(Event, frozen=True, kw_only=True, omit_defaults=True, tag="touchpoint"):
    """A customer did something at a channel.

    ``learn`` is false for what is kept but must not move a model (outside the time window, unverified).
    ``flags`` says why, in words of the contract: ``out_of_window``, ``unverified``, ``imported``.
    ``echo`` marks a copy of an order under the visitor's key, for attribution only.
    """

    type: str
    channel: str
    properties: dict[str, Any] = {}
    context: dict[str, Any] = {}
    customer_id: str | None = None
    anonymous_id: str | None = None
    account_id: str | None = None
    learn: bool = True
    flags: tuple[str, ...] = ()
    echo: bool = False


@final
class IdentityLinked(Event, frozen=True, kw_only=True, omit_defaults=True, tag="identity"):
    """``anonymous_id`` and ``customer_id`` are the same person, from here on.

    Written twice in one spool transaction: under the customer (adds a link), and, ``internal``, under
    the visitor's key (names its owner). ``unlinked`` takes such a link back.
    """

    customer_id: str
    anonymous_id: str
    unlinked: bool = False


@final
class ConsentGiven(Event, frozen=True, kw_only=True, omit_defaults=True, tag="consent"):
    """The customer allows or refuses a purpose, for one channel or for all of them.

    ``text_version`` names the text he was shown, ``said_at`` where he was asked.
    """

    purpose: str
    granted: bool
    channel: str | None = None
    text_version: str | None = None
    said_at: str | None = None


class DecidedOffer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One offer of a slate, with what was known about it when it was chosen.

    Parameters
    ----------
    rank:
        The slot, from 1.
    score, mean, chance:
        Expected incremental margin; the model's estimate that it is taken up, before exploration; the
        probability that the customer buys its product next, shown or not.
    propensity:
        Probability with which the slot's draw chose it, given the slots above.
    vector:
        The features of this offer alone, packed; `vectors.trial_vector` reads them.
    cell:
        Number of kind × category × price tier: offers of one cell start from the same belief.
    swapped:
        Given this offer and the one above it, the probability that the draws place them the other way round;
        0 where they cannot, or nothing was drawn. Where an offer stands would otherwise say how good it is.
    features:
        The same as plain numbers, with their names in ``Decision.feature_names``: how they were written
        before they were packed.
    """

    offer_id: str
    product_id: str | None
    kind: str
    rank: int
    score: float
    propensity: float
    mean: float
    source: str
    price: float | None = None
    features: tuple[float, ...] = ()
    chance: float = 0.0
    vector: bytes = b""
    cell: int = 0
    swapped: float = 0.0


@final
class Decision(Event, frozen=True, kw_only=True, omit_defaults=True, tag="decision"):
    """The recommender answered: which offers, for whom, where, why, with what probability.

    At most 4 kB, for which vectors of lower ranks are left out; only slates of some 15 offers and more, which
    keep the vectors of their first ranks too, take more: about 230 bytes for each offer.

    Parameters
    ----------
    replay, forced:
        Made with ``at`` on a wall clock, for a forced group; both stay out of lift.
    assumed_shown:
        So many offers, from the first on, count as shown without a report.
    shared:
        The features that all offers share, packed.
    feature_set:
        Names the columns of `vectors.trial_vector` and their order; vectors of different sets do not compare.
    ghosts:
        Offers that were drawn for slot ``rank`` and taken out, so that it can be seen what comes of not
        showing them. One counts as shown when the offer in its place does.
    window:
        So long after it was shown an order can be the offer's, in milliseconds.
    analysed:
        Whether it may be learned from and counted: false for who refuses analytics, under any key of his.
    """

    placement: str
    channel: str
    group: str
    policy_version: str
    model_version: int
    catalogue_version: int
    seed: int
    objective: str
    offers: tuple[DecidedOffer, ...] = ()
    feature_names: tuple[str, ...] = ()
    context: dict[str, Any] = {}
    customer_id: str | None = None
    anonymous_id: str | None = None
    assumed_shown: int = 0
    replay: bool = False
    forced: bool = False
    shared: bytes = b""
    feature_set: str = ""
    ghosts: tuple[DecidedOffer, ...] = ()
    window: Millis = 7 * DAY
    analysed: bool = True


@final
class Outcome(Event, frozen=True, kw_only=True, omit_defaults=True, tag="outcome"):
    """What came of an offer. ``id`` is ``decision/offer/outcome``, so each counts once whoever says it.

    ``learn`` and ``flags`` as in `Touchpoint`. ``channel`` is where the offer was made, known from a token
    alone: it proves that there was such a decision.
    """

    decision_id: str
    offer_id: str
    outcome: str
    product_id: str | None = None
    value: float | None = None
    order_id: str | None = None
    placement: str | None = None
    channel: str | None = None
    learn: bool = True
    flags: tuple[str, ...] = ()


@final
class Erasure(Event, frozen=True, kw_only=True, omit_defaults=True, tag="erasure"):
    """The customer asked to be forgotten; everything under this key goes, and stays away.

    With ``linked`` it is a notice of the analyzer to another key: ``linked`` is erased, and nothing here may
    name it any more. ``owned`` says that this visitor was linked to it: he goes too, unless he is another's.
    ``erasure`` is then the id of the erasure it follows from.
    """

    linked: CustomerKey | None = None
    owned: bool = False
    erasure: str | None = None


@final
class Tick(Struct, frozen=True, kw_only=True, tag_field="kind", tag="tick"):
    """Time passes in this partition too: moves journal time, is never stored."""

    partition: int
    recorded_at: Millis


@final
class SpoolReported(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="spool"):
    """What a spool has accepted so far, by source and kind, internal records left out.

    Sent by every spool at most once a second when it changed, to partition ``crc32(spool) % 12``; the
    ledger compares it with what became of the records. A spool that is given up sends a last one to every
    partition, ``ended``: nothing of it comes after that. Those outside its own partition count nothing.
    """

    spool: str
    service: str
    recorded_at: Millis
    accepted: dict[str, int]
    ended: bool = False


CustomerEvent = (
    Touchpoint | IdentityLinked | ConsentGiven | Decision | Outcome | Erasure | Tick | SpoolReported
)
"""The union on topic ``customer-events``, told apart by ``kind``."""

AboutCustomer = Touchpoint | IdentityLinked | ConsentGiven | Decision | Outcome | Erasure
"""Those of the union that are about a customer and are stored."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[CustomerEvent] = msgspec.json.Decoder(CustomerEvent)


def encode_event(event: CustomerEvent) -> bytes:
    """The bytes of ``event`` on the bus."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> CustomerEvent:
    """Read an event from the bus; raises msgspec.DecodeError (or its ValidationError) or RecursionError."""
    return _decoder.decode(data)
