"""Touchpoints, links and consents: what callers send, checked, and the events it becomes."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
from msgspec import Meta, Struct

from libs.common.contracts.customer_event import ConsentGiven, Erasure, IdentityLinked, Touchpoint
from libs.common.contracts.flags import AUTOMATIC, GPC, UNVERIFIED
from libs.common.contracts.identity import (
    RESERVED_PREFIXES,
    CustomerKey,
    account_key,
    anonymous_key,
    may_be_frozen,
)
from libs.common.contracts.touchpoint import (
    OF_ACCOUNT,
    ORDER_CHANGES,
    ORDERS,
    TYPED,
    Name,
    Order,
    OrderChange,
    ProductSeen,
)
from libs.common.contracts.vocabulary.goods import Asset
from libs.common.errors import Invalid
from libs.common.intake import Admitted
from libs.common.items import invalid_from
from libs.common.personal import refuse_email, refuse_personal
from services.collector.errors import ForeignCurrency, FrozenName, NobodyNamed, ReservedName

ORDER_TYPES = ORDERS | ORDER_CHANGES
"""Types a browser cannot be believed about, and whose copies go under the visitor's key."""
IDENTIFIED = "identified"
UNLINKED = "unlinked"
GROUP_JOINED = "group_joined"
UNVERIFIED_ACCOUNT = "account_unverified"
"""A page named an account, which it is not believed about."""
ASSET_REGISTERED = "asset_registered"
ASSET_FIELDS = Asset.__struct_fields__

MAX_AMOUNT = 1e12
"""No price or total of a sane currency is higher; sums of bounded numbers stay finite."""

_WORD = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z")
_MAX_WORD = 100


class TouchpointIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A touchpoint as it is posted; ``customer_signature`` lets a browser speak for a customer.

    ``write_key`` is the sender's key in a beacon, which has no other place for it.
    """

    type: str
    channel: str
    id: Name | None = None
    customer_id: Name | None = None
    anonymous_id: Name | None = None
    account_id: Name | None = None
    occurred_at: str | None = None
    customer_signature: str | None = None
    write_key: str | None = None
    properties: dict[str, Any] | None = None
    context: dict[str, Any] | None = None


class IdentityIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer has said which visitor he is."""

    customer_id: Name
    anonymous_id: Name
    id: Name | None = None
    occurred_at: str | None = None
    customer_signature: str | None = None


class ConsentIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer allows or refuses a purpose; ``source`` says where he was asked."""

    purpose: Annotated[str, Meta(min_length=1, max_length=100)]
    granted: bool
    customer_id: Name | None = None
    anonymous_id: Name | None = None
    channel: str | None = None
    text_version: Name | None = None
    source: Name | None = None
    id: Name | None = None
    occurred_at: str | None = None
    customer_signature: str | None = None


class ErasureIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer, a visitor or both are to be forgotten. ``id`` is what the erasure is asked about later."""

    customer_id: Name | None = None
    anonymous_id: Name | None = None
    id: Name | None = None
    customer_signature: ClassVar[None] = None


class AssetIn(Asset, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine of the installed base, of a company or of a person; see touchpoint ``asset_registered``."""

    account_id: Name | None = None
    customer_id: Name | None = None
    channel: str = "field_service"
    id: Name | None = None
    occurred_at: str | None = None
    attributes: dict[str, Any] | None = None
    customer_signature: ClassVar[None] = None


class Sender(NamedTuple):
    """Who posts: the name of his key, what he may be believed, and how far his clock is behind ours (ms).

    ``browser``: he has a publishable key, which nobody has to keep secret. ``automatic`` is why no person
    made what he sends, ``gpc`` that his browser sends Global Privacy Control.
    """

    source: str
    imported: bool = False
    trusted: bool = True
    skew: int = 0
    browser: bool = False
    automatic: str | None = None
    gpc: bool = False


def check_touchpoint(item: TouchpointIn, currency: str) -> None:
    """Raises `Invalid` for what the shape alone does not catch."""
    if not (_is_word(item.type) and _is_word(item.channel)):
        check_word(item.type, "/type")
        check_word(item.channel, "/channel")
    check_ids(item.customer_id, item.anonymous_id, item.account_id)
    if item.id is not None:
        refuse_email(item.id, "/id")
    shape = TYPED.get(item.type)
    if shape is not None:
        check_properties(item.properties or {}, shape, currency)


def check_consent(item: ConsentIn) -> None:
    """Raises `Invalid` for what the shape alone does not catch."""
    check_ids(item.customer_id, item.anonymous_id)
    check_names(("/id", item.id))
    refuse_personal(item.purpose, "/purpose")
    if item.channel is not None:
        check_word(item.channel, "/channel")


def check_asset(item: AssetIn) -> None:
    """Raises `Invalid` for what the shape alone does not catch."""
    check_word(item.channel, "/channel")
    if item.customer_id is not None or item.account_id is None:
        check_ids(item.customer_id, None, item.account_id)
    else:
        refuse_personal(item.account_id, "/account_id")
    goods = [("/model", item.model), ("/serial", item.serial), ("/product_id", item.product_id)]
    kits = ((f"/fitted_kits/{at}", kit) for at, kit in enumerate(item.fitted_kits or ()))
    check_names(("/id", item.id), ("/asset_id", item.asset_id), *goods, *kits)


def check_word(word: str, field: str) -> None:
    """Types and channels are snake_case words."""
    if not _is_word(word):
        if len(word) > _MAX_WORD:
            raise Invalid("too_large", f"must have at most {_MAX_WORD} characters", field)
        name = field.lstrip("/")
        raise Invalid("bad_string", f"{name} must be a snake_case word, e.g. product_viewed or web", field)


@lru_cache(maxsize=1024)
def _is_word(word: str) -> bool:
    return len(word) <= _MAX_WORD and _WORD.match(word) is not None


def check_ids(customer_id: str | None, anonymous_id: str | None, account_id: str | None = None) -> None:
    """Somebody is named: not by a key of the platform's own making, nor by what identifies a person."""
    check_keys(customer_id, anonymous_id)
    if customer_id is not None:
        refuse_personal(customer_id, "/customer_id")
    if anonymous_id is not None:
        refuse_personal(anonymous_id, "/anonymous_id")
    if account_id is not None:
        refuse_personal(account_id, "/account_id")


def check_keys(customer_id: str | None, anonymous_id: str | None) -> None:
    """Somebody is named, not by a key of the platform's own making: what an erasure asks of its ids."""
    if customer_id is None and anonymous_id is None:
        raise NobodyNamed
    if customer_id is not None and customer_id.startswith(RESERVED_PREFIXES):
        raise ReservedName("/customer_id")
    if anonymous_id is not None:
        if anonymous_id.startswith(RESERVED_PREFIXES):
            raise ReservedName("/anonymous_id")
        if may_be_frozen(anonymous_id):
            raise FrozenName


def check_names(*named: tuple[str, str | None]) -> None:
    """What is kept beside the ids holds no e-mail address; pairs of field and value."""
    for field, name in named:
        if name is not None:
            refuse_email(name, field)


def check_properties(properties: dict[str, Any], shape: type[Struct], currency: str) -> None:
    """The properties of a known type have its shape, and every number in them is finite and sane."""
    try:
        typed = msgspec.convert(properties, shape)
    except msgspec.ValidationError as error:
        found = invalid_from(error, shape)
        raise Invalid(found.code, found.reason, f"/properties{found.field}") from None
    said = getattr(typed, "currency", None)
    if said is not None and said.upper() != currency:
        raise ForeignCurrency(currency)
    # Trap: not isinstance, which asks the metaclass of these structs where the answer is no.
    if type(typed) is Order:
        _check_amount(typed.total, "/properties/total")
    if type(typed) is Order or type(typed) is OrderChange:
        for index, line in enumerate(typed.products):
            _check_amount(line.price, f"/properties/products/{index}/price")
    elif type(typed) is ProductSeen:
        _check_amount(typed.price, "/properties/price")


def _check_amount(amount: float | None, field: str) -> None:
    # Trap: written so that NaN, which no JSON brings but a dialect might, fails too.
    if amount is not None and not amount <= MAX_AMOUNT:
        name = field.rsplit("/", 1)[1]
        raise Invalid("not_finite", f"{name} must be a finite number between 0 and {MAX_AMOUNT:.0f}", field)


def touchpoint_events(
    item: TouchpointIn, event_id: str, sender: Sender, times: Admitted
) -> list[Touchpoint | IdentityLinked]:
    """What one touchpoint becomes: itself, and for both ids an echo of an order or the link it made."""
    occurred_at, recorded_at, learn, flags = times
    visitor = item.anonymous_id
    if not sender.trusted and item.type in ORDER_TYPES:
        learn, flags = False, (*flags, UNVERIFIED)
    if sender.automatic is not None:
        learn, flags = False, (*flags, AUTOMATIC + sender.automatic)
    if sender.gpc:
        learn, flags = False, (*flags, GPC)
    account = item.account_id
    if sender.browser and (account is not None or item.type == GROUP_JOINED):
        account, flags = None, (*flags, UNVERIFIED_ACCOUNT)
        learn = learn and item.type != GROUP_JOINED
    event = Touchpoint(
        id=event_id,
        source=sender.source,
        customer=item.customer_id or anonymous_key(visitor or ""),
        occurred_at=occurred_at,
        recorded_at=recorded_at,
        type=item.type,
        channel=item.channel,
        properties=item.properties or {},
        context=item.context or {},
        customer_id=item.customer_id,
        anonymous_id=visitor,
        account_id=account,
        learn=learn,
        flags=flags,
    )
    if account is not None and item.type in OF_ACCOUNT:
        return [event, account_echo(event, account)]
    if item.customer_id is None or visitor is None:
        return [event]
    if item.type in ORDER_TYPES:
        echo = msgspec.structs.replace(event, customer=anonymous_key(visitor), internal=True, echo=True)
        return [event, echo]
    if item.type in (IDENTIFIED, UNLINKED):
        # Trap: the link needs an id of its own, or dedupe would take it for the touchpoint again.
        link = identity_events(
            item.customer_id,
            visitor,
            f"{event_id}/link",
            sender,
            times,
            unlinked=item.type == UNLINKED,
        )
        return [event, msgspec.structs.replace(link[0], internal=True), link[1]]
    return [event]


def account_echo(event: Touchpoint, account_id: str) -> Touchpoint:
    """``event`` for the model of the account; nothing in it names the person.

    Ids are unique within a customer only, and an account has many: so it gets another, made of both.
    """
    named = f"{event.customer}\0{event.id}".encode("utf-8", "surrogatepass")
    return msgspec.structs.replace(
        event,
        id=blake2b(named, digest_size=16).hexdigest(),
        customer=account_key(account_id),
        customer_id=None,
        anonymous_id=None,
        context={},
        internal=True,
    )


def asset_events(item: AssetIn, event_id: str, sender: Sender, times: Admitted) -> list[Touchpoint]:
    """A machine under the person who is named and under the account, or under the account alone."""
    told = {name: getattr(item, name) for name in ASSET_FIELDS}
    properties = {**(item.attributes or {}), **{name: it for name, it in told.items() if it is not None}}
    account = item.account_id
    event = Touchpoint(
        id=event_id,
        source=sender.source,
        customer=item.customer_id or account_key(account or ""),
        occurred_at=times.occurred_at,
        recorded_at=times.recorded_at,
        type=ASSET_REGISTERED,
        channel=item.channel,
        properties=properties,
        customer_id=item.customer_id,
        account_id=account,
        learn=times.learn,
        flags=times.flags,
    )
    if item.customer_id is None or account is None:
        return [event]
    return [event, account_echo(event, account)]


def identity_events(
    customer_id: str,
    anonymous_id: str,
    event_id: str,
    sender: Sender,
    times: Admitted,
    *,
    unlinked: bool = False,
) -> list[IdentityLinked]:
    """The link (or its end) under the customer, and the record under the visitor that names his owner."""

    def linked(key: CustomerKey, internal: bool) -> IdentityLinked:
        return IdentityLinked(
            id=event_id,
            source=sender.source,
            customer=key,
            occurred_at=times.occurred_at,
            recorded_at=times.recorded_at,
            internal=internal,
            customer_id=customer_id,
            anonymous_id=anonymous_id,
            unlinked=unlinked,
        )

    return [linked(customer_id, False), linked(anonymous_key(anonymous_id), True)]


def consent_event(item: ConsentIn, event_id: str, sender: Sender, times: Admitted) -> ConsentGiven:
    """What the customer said about one purpose."""
    return ConsentGiven(
        id=event_id,
        source=sender.source,
        customer=item.customer_id or anonymous_key(item.anonymous_id or ""),
        occurred_at=times.occurred_at,
        recorded_at=times.recorded_at,
        purpose=item.purpose,
        granted=item.granted,
        channel=item.channel,
        text_version=item.text_version,
        said_at=item.source,
    )


def erasure_events(item: ErasureIn, event_id: str, sender: Sender, times: Admitted) -> list[Erasure]:
    """An erasure under each key that is named."""
    visitor = None if item.anonymous_id is None else anonymous_key(item.anonymous_id)
    return [
        Erasure(
            id=event_id,
            source=sender.source,
            customer=key,
            occurred_at=times.occurred_at,
            recorded_at=times.recorded_at,
        )
        for key in (item.customer_id, visitor)
        if key is not None
    ]
