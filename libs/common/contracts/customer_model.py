"""What the platform knows about one customer: two records, changed by every event, readable by everybody.

`Profile` (who he is and how he reacts) and `Items` (what he bought and looked at) are published under
``KEY/profile`` and ``KEY/items``. Models of linked keys are merged when read (`libs.common.scoring.merge`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey, frozen_key

SCHEMA = b"customer-model/1"
MAX_ITEMS = 1_000
MAX_LINKS = 32
MAX_RECENT = 20
MAX_DAYS = 16
"""Days of orders that are kept of a product."""
MAX_DECISIONS = 32
MAX_FROZEN = 32
"""Owners a visitor key may change; one that more people share is nobody's."""
MAX_CONTACTS = 32
MAX_CHANNELS = 16
NEVER: Millis = -(1 << 53)
"""Before all times: nobody said so."""
MAX_CASES = 16
MAX_CLOSED = 32
"""Cases whose last words are remembered, so that late ones change nothing."""
MAX_LOTS = 32
MAX_ASSETS = 96
MAX_ASSET_BYTES = 200_000
"""Of all texts of the assets together: a profile must fit into a record."""


# Values, so they cannot form cycles: ``gc=False`` keeps the garbage collector from walking through hundreds
# of them for each model a process holds.
class Decayed(Struct, array_like=True, frozen=True, gc=False):
    """A count that fades: ``weight`` as of ``at``, halving with a half-life its owner names."""

    weight: float = 0.0
    at: Millis = 0


class Activity(Struct, array_like=True, frozen=True, gc=False):
    """Touchpoints of one channel and type: total, last time, counts with half-lives of 1, 14, 120 days."""

    total: int
    last_at: Millis
    day: Decayed
    fortnight: Decayed
    season: Decayed


class Purchases(Struct, array_like=True, frozen=True, gc=False):
    """Recency, frequency and monetary value over all orders, in the base currency."""

    orders: int = 0
    value: float = 0.0
    first_at: Millis = 0
    last_at: Millis = 0
    recent_value: Decayed = Decayed()


class Consent(Struct, array_like=True, frozen=True, gc=False):
    """The latest word on a purpose (and channel, where one was named), with what proves it.

    ``recorded_at`` is when it was accepted, ``told_by`` the key or service that told it; ``source`` is where
    he gave it (a channel, or what he did that says so), ``text_version`` the text he was shown.
    """

    granted: bool
    at: Millis
    recorded_at: Millis = 0
    told_by: str = ""
    source: str | None = None
    text_version: str | None = None


class RecentTouch(Struct, array_like=True, frozen=True, gc=False):
    """One of the latest touchpoints: enough to know what the customer is busy with."""

    at: Millis
    type: str
    channel: str
    product_id: str | None = None


class MadeDecision(Struct, array_like=True, frozen=True, gc=False):
    """A decision made for this customer that may still find outcomes, and the outcomes it found."""

    decision_id: str
    at: Millis
    placement: str
    offers: tuple[str, ...]
    outcomes: tuple[str, ...] = ()
    channel: str = ""


class Contact(Struct, array_like=True, frozen=True, gc=False):
    """A time he was contacted: an entry of the ledger that caps are counted from.

    ``campaign`` is what it was part of, where that was said; ``answered`` whether he opened, clicked or
    replied.
    """

    at: Millis
    channel: str
    type: str
    campaign: str | None = None
    answered: bool = False


class Reach(Struct, array_like=True, frozen=True, gc=False):
    """What went out to him by one channel, and what of it he answered; counts with a half-life of 120 days.

    ``undeliverable_at`` is when something came back for good, 0 where nothing did or he answered since.
    """

    contacts: int = 0
    last_contact_at: Millis = 0
    contacted: Decayed = Decayed()
    answers: int = 0
    last_answer_at: Millis = 0
    answered: Decayed = Decayed()
    undeliverable_at: Millis = 0


class CaseWords(Struct, array_like=True, frozen=True, gc=False):
    """When somebody said last that a case is open, and that it is closed."""

    opened_at: Millis = NEVER
    closed_at: Millis = NEVER

    @property
    def open(self) -> bool:
        """Whether it is open; of two words at the same moment the closing holds."""
        return self.opened_at > self.closed_at


class Asset(Struct, array_like=True, frozen=True, gc=False):
    """A machine of the installed base, as last told of ``at`` and registered ``registered_at``."""

    model: str
    at: Millis
    serial: str | None = None
    year_built: int | None = None
    fitted_kits: tuple[str, ...] = ()
    product_id: str | None = None
    defects: int = 0
    last_defect_at: Millis = 0
    registered_at: Millis = 0


class Pace(Struct, array_like=True, frozen=True, gc=False):
    """How fast he looks at pages: views by minute of event time, the newest few minutes.

    Too fast for a person from ``since`` on; until ``until`` views are taken for a machine's.
    """

    minutes: tuple[tuple[int, int], ...] = ()
    since: Millis = 0
    until: Millis = 0


class Clicks(Struct, array_like=True, frozen=True, gc=False):
    """Clicks in one mail, within seconds of ``at``: which links (hashed), and what to take back.

    ``held`` are the times of those learned from; ``answered`` the time of the contact that the first of them
    answered, 0 where none was, and ``before`` when the channel was answered last before it. ``first_at``,
    ``last_at``, ``active_at`` (of clicks by this channel) and ``undeliverable_at`` are what the profile said
    before the clicks.
    """

    mail: str = ""
    at: Millis = 0
    links: tuple[int, ...] = ()
    held: tuple[Millis, ...] = ()
    answered: Millis = 0
    before: Millis = 0
    first_at: Millis = 0
    last_at: Millis = 0
    active_at: Millis = 0
    undeliverable_at: Millis = 0


class Lot(Struct, array_like=True, frozen=True, gc=False):
    """A lot of an auction, and how it stands for him: listed, watched, bid, outbid or won.

    ``amount`` is the latest he or somebody offered, ``ends_at`` 0 where nobody said.
    """

    state: str
    at: Millis
    product_id: str | None = None
    amount: float | None = None
    ends_at: Millis = 0


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A customer, without his items.

    ``activity`` is keyed ``channel/type``; ``hours`` are touchpoints by hour of day (UTC), half-life
    120 days; ``consents`` are keyed ``purpose`` or ``purpose/channel``; ``satisfaction`` is a decayed sum of
    ratings in [−1, 1] and its weight; ``links`` are visitor keys of a customer; ``owner`` is the customer
    a visitor turned out to be, or `identity.NOBODYS`. ``frozen`` are earlier owners of a visitor key: what it
    did in the time of the n-th is the model `identity.frozen_key` of n.

    ``contacts`` is the ledger of what was done to him, oldest first; ``reached`` by channel; ``answer_hours``
    at which hours of the day (UTC) he answers, as ``hours``; ``sentiment`` what he says in public, as
    ``satisfaction``; ``cases`` his open cases and since when, ``case_words`` the last words on these and on
    closed ones; ``account`` the company he belongs to, whose own model is under `account_key`; ``assets`` by
    asset id: of a person those that belong to no account; ``retired`` when others left.
    ``seen_at`` is the journal time of the latest event that moved the model of a visitor, 0 for others.
    ``pace``, ``clicks`` (of the mail clicked last) and ``other_clicks`` (of a few before it) tell machines
    from him, and nothing else reads them.
    """

    customer: CustomerKey
    first_at: Millis = 0
    last_at: Millis = 0
    totals: dict[str, int] = {}
    activity: dict[str, Activity] = {}
    purchases: Purchases = Purchases()
    hours: tuple[Decayed, ...] = ()
    satisfaction: tuple[Decayed, Decayed] = (Decayed(), Decayed())
    consents: dict[str, Consent] = {}
    links: tuple[CustomerKey, ...] = ()
    owner: CustomerKey | None = None
    frozen: tuple[CustomerKey, ...] = ()
    recent: tuple[RecentTouch, ...] = ()
    decisions: tuple[MadeDecision, ...] = ()
    contacts: tuple[Contact, ...] = ()
    reached: dict[str, Reach] = {}
    answer_hours: tuple[Decayed, ...] = ()
    sentiment: tuple[Decayed, Decayed] = (Decayed(), Decayed())
    cases: dict[str, Millis] = {}
    lots: dict[str, Lot] = {}
    assets: dict[str, Asset] = {}
    account: str | None = None
    case_words: dict[str, CaseWords] = {}
    retired: dict[str, Millis] = {}
    pace: Pace = Pace()
    clicks: Clicks = Clicks()
    other_clicks: tuple[Clicks, ...] = ()
    seen_at: Millis = 0


class Item(Struct, array_like=True, frozen=True, gc=False):
    """One product in a customer's life.

    Parameters
    ----------
    bought:
        Decayed number of orders with it (half-life 120 days); ``orders`` the plain number.
    last_bought_at, cycle:
        Time of the latest order with it, and the running mean gap between orders, in ms (0: unknown).
    quantity:
        Usual quantity per order (running mean).
    price:
        Unit price last paid, or 0 where none was said.
    viewed, last_viewed_at:
        Decayed number of views (half-life 14 days), and the latest.
    days:
        Days since 1970 (UTC) on which it was ordered, ascending, the latest `MAX_DAYS`. Which order is undone
        is not known: the latest day goes, unless another order may be of it.
    """

    orders: int = 0
    bought: Decayed = Decayed()
    last_bought_at: Millis = 0
    cycle: float = 0.0
    quantity: float = 0.0
    price: float = 0.0
    viewed: Decayed = Decayed()
    last_viewed_at: Millis = 0
    days: tuple[int, ...] = ()


class Items(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The products of a customer, at most `MAX_ITEMS`; the least recent leave first."""

    customer: CustomerKey
    items: dict[str, Item] = {}


MARKETING = "marketing"
"""The purpose that an objection refuses, for its channel."""
ANALYTICS = "analytics"
"""The purpose that allows to learn from somebody for others, and to count him in insights."""


def refuses_analytics(consents: Mapping[str, Consent]) -> bool:
    """Whether ``consents`` refuse analytics: for one channel is for all, since what is learned has none."""
    return bool(consents) and any(
        not word.granted and name.partition("/")[0] == ANALYTICS for name, word in consents.items()
    )


def frozen_of(visitor: Profile, owner: CustomerKey) -> list[CustomerKey]:
    """Keys of the frozen parts of ``visitor`` that are ``owner``'s."""
    return [frozen_key(visitor.customer, n) for n, his in enumerate(visitor.frozen, start=1) if his == owner]


PROFILE = "profile"
ITEMS = "items"

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_profiles = msgspec.msgpack.Decoder(Profile)
_items = msgspec.msgpack.Decoder(Items)


def model_key(customer: CustomerKey, part: str) -> bytes:
    """Record key of a part of a model on ``customer-models``."""
    return f"{customer}/{part}".encode("utf-8", "surrogatepass")


def encode_model(model: Profile | Items) -> bytes:
    """Canonical bytes: equal models have equal bytes, so digests can be compared."""
    return _encoder.encode(model)


def decode_profile(data: bytes) -> Profile:
    return _profiles.decode(data)


def decode_items(data: bytes) -> Items:
    return _items.decode(data)
