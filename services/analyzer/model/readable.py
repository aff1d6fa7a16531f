"""Models as people and scripts read them over HTTP."""

from __future__ import annotations

from msgspec import Struct

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Consent, Decayed, Items, Profile, Reach
from libs.common.contracts.identity import CustomerKey
from libs.common.scoring.decay import (
    HALF_LIFE_DAY,
    HALF_LIFE_FORTNIGHT,
    HALF_LIFE_SEASON,
    faded,
    joined,
)
from libs.common.scoring.merge import installed_base
from libs.common.times import format_time

MOST_ITEMS = 100


class ActivityView(Struct, frozen=True):
    """Touchpoints of one channel and type; counts that fade with half-lives of 1, 14 and 120 days."""

    channel: str
    type: str
    total: int
    last_at: str
    day: float
    fortnight: float
    season: float


class PurchasesView(Struct, frozen=True):
    """All orders; amounts in the base currency, ``recent_value`` with a half-life of 120 days."""

    orders: int
    value: float
    first_at: str | None
    last_at: str | None
    recent_value: float


class ConsentView(Struct, frozen=True):
    """The latest word on a purpose, for one channel or all, with what proves it.

    ``at`` is when he gave it, ``recorded_at`` when it was accepted, ``told_by`` the name of the key (or the
    service) that told it, ``source`` where he gave it, ``text_version`` the text he was shown.
    """

    purpose: str
    channel: str | None
    granted: bool
    at: str
    recorded_at: str | None
    told_by: str | None
    source: str | None
    text_version: str | None


class RecentView(Struct, frozen=True):
    """One of the latest touchpoints."""

    type: str
    channel: str
    occurred_at: str
    product_id: str | None


class DecisionView(Struct, frozen=True):
    """A decision that may still find outcomes, and those it found."""

    decision_id: str
    decided_at: str
    placement: str
    offers: list[str]
    outcomes: list[str]


class ItemView(Struct, frozen=True):
    """A product in the customer's life; ``bought`` (120 days) and ``viewed`` (14 days) fade by half-lives."""

    product_id: str
    orders: int
    bought: float
    last_bought_at: str | None
    cycle_days: float | None
    quantity: float
    price: float | None
    viewed: float
    last_viewed_at: str | None


class ContactView(Struct, frozen=True):
    """A time he was contacted, and whether he answered that."""

    at: str
    channel: str
    type: str
    campaign: str | None
    answered: bool


class ReachView(Struct, frozen=True):
    """A channel that he was contacted by. ``responsiveness`` is the share of contacts he answered, both
    fading with a half-life of 120 days; ``undeliverable_at`` is set while the channel does not reach him."""

    channel: str
    contacts: int
    last_contact_at: str | None
    answers: int
    last_answer_at: str | None
    responsiveness: float | None
    undeliverable_at: str | None


class CaseView(Struct, frozen=True):
    """An open case."""

    case_id: str
    open_since: str


class LotView(Struct, frozen=True):
    """A lot of an auction: listed, watched, bid, outbid or won."""

    lot_id: str
    state: str
    product_id: str | None
    amount: float | None
    ends_at: str | None
    at: str


class AssetView(Struct, frozen=True):
    """A machine of the installed base; ``of_account`` where it belongs to his company."""

    asset_id: str
    model: str
    serial: str | None
    year_built: int | None
    fitted_kits: list[str]
    product_id: str | None
    defects: int
    last_defect_at: str | None
    told_at: str
    of_account: bool


class AccountView(Struct, frozen=True):
    """The company he belongs to: how often all of its people were contacted, and when last."""

    account_id: str
    contacts: int
    last_contact_at: str | None


class CustomerView(Struct, frozen=True):
    """What is known about a customer, his visitor keys included.

    Fading counts are told as of ``last_at``. ``totals`` are events by type; ``recent`` the latest
    touchpoints, newest first; ``hours`` touchpoints by hour of day in UTC; ``satisfaction`` from -1 to 1;
    ``items`` the most recent products; ``contacts`` the ledger of contacts, newest first; ``answer_hours`` at
    which hours he answers; ``sentiment`` what he says in public, from -1 to 1; ``assets`` his installed base
    and that of his ``account``.
    """

    customer: CustomerKey
    owner: CustomerKey | None
    links: list[CustomerKey]
    first_at: str | None
    last_at: str | None
    totals: dict[str, int]
    recent: list[RecentView]
    activity: list[ActivityView]
    purchases: PurchasesView
    hours: dict[str, float]
    satisfaction: float | None
    consents: list[ConsentView]
    decisions: list[DecisionView]
    items: list[ItemView]
    contacts: list[ContactView]
    reached: list[ReachView]
    answer_hours: dict[str, float]
    sentiment: float | None
    cases: list[CaseView]
    lots: list[LotView]
    assets: list[AssetView]
    account: AccountView | None


def readable(profile: Profile, items: Items, account: Profile | None = None) -> CustomerView:
    """A (merged) model for people; ``account`` is the model of his company, where he has one."""
    at = profile.last_at
    return CustomerView(
        customer=profile.customer,
        owner=profile.owner or None,
        links=list(profile.links),
        first_at=_time(profile.first_at),
        last_at=_time(at),
        totals=profile.totals,
        recent=[
            RecentView(touch.type, touch.channel, format_time(touch.at), touch.product_id)
            for touch in reversed(profile.recent)
        ],
        activity=_activity(profile, at),
        purchases=_purchases(profile, at),
        hours=_hours(profile.hours, at),
        satisfaction=_mean(profile.satisfaction),
        consents=[_consent(name, word) for name, word in sorted(profile.consents.items())],
        decisions=[
            DecisionView(
                made.decision_id,
                format_time(made.at),
                made.placement,
                list(made.offers),
                list(made.outcomes),
            )
            for made in reversed(profile.decisions)
        ],
        items=_items(items, at),
        contacts=[
            ContactView(format_time(one.at), one.channel, one.type, one.campaign, one.answered)
            for one in reversed(profile.contacts)
        ],
        reached=[_reach(channel, reach) for channel, reach in sorted(profile.reached.items())],
        answer_hours=_hours(profile.answer_hours, at),
        sentiment=_mean(profile.sentiment),
        cases=[CaseView(case_id, format_time(since)) for case_id, since in sorted(profile.cases.items())],
        lots=[
            LotView(lot_id, lot.state, lot.product_id, lot.amount, _time(lot.ends_at), format_time(lot.at))
            for lot_id, lot in sorted(profile.lots.items(), key=lambda entry: (-entry[1].at, entry[0]))
        ],
        assets=_assets(profile, account),
        account=_account(profile, account),
    )


def _consent(name: str, word: Consent) -> ConsentView:
    purpose, _, channel = name.partition("/")
    return ConsentView(
        purpose=purpose,
        channel=channel or None,
        granted=word.granted,
        at=format_time(word.at),
        recorded_at=_time(word.recorded_at),
        told_by=word.told_by or None,
        source=word.source,
        text_version=word.text_version,
    )


def _hours(hours: tuple[Decayed, ...], at: Millis) -> dict[str, float]:
    return {
        str(hour): _rounded(count, at, HALF_LIFE_SEASON)
        for hour, count in enumerate(hours)
        if count.weight > 0.0
    }


def _reach(channel: str, reach: Reach) -> ReachView:
    contacted = joined(reach.contacted, Decayed(0.0, reach.answered.at), HALF_LIFE_SEASON)
    answered = faded(reach.answered, contacted.at, HALF_LIFE_SEASON)
    return ReachView(
        channel=channel,
        contacts=reach.contacts,
        last_contact_at=_time(reach.last_contact_at),
        answers=reach.answers,
        last_answer_at=_time(reach.last_answer_at),
        responsiveness=round(min(1.0, answered / contacted.weight), 4) if contacted.weight > 0.0 else None,
        undeliverable_at=_time(reach.undeliverable_at),
    )


def _assets(profile: Profile, account: Profile | None) -> list[AssetView]:
    of_account = account.assets if account is not None else {}
    return [
        AssetView(
            asset_id=asset_id,
            model=asset.model,
            serial=asset.serial,
            year_built=asset.year_built,
            fitted_kits=list(asset.fitted_kits),
            product_id=asset.product_id,
            defects=asset.defects,
            last_defect_at=_time(asset.last_defect_at),
            told_at=format_time(asset.at),
            of_account=asset_id in of_account,
        )
        for asset_id, asset in sorted(installed_base(profile, account).items())
    ]


def _account(profile: Profile, account: Profile | None) -> AccountView | None:
    if profile.account is None:
        return None
    reached = account.reached.values() if account is not None else ()
    return AccountView(
        account_id=profile.account,
        contacts=sum(reach.contacts for reach in reached),
        last_contact_at=_time(max((reach.last_contact_at for reach in reached), default=0)),
    )


def _time(at: Millis) -> str | None:
    return format_time(at) if at else None


def _rounded(count: Decayed, at: Millis, half_life: Millis) -> float:
    return round(faded(count, at, half_life), 4)


def _activity(profile: Profile, at: Millis) -> list[ActivityView]:
    views = []
    for name, activity in sorted(profile.activity.items()):
        channel, _, type_ = name.partition("/")
        views.append(
            ActivityView(
                channel=channel,
                type=type_,
                total=activity.total,
                last_at=format_time(activity.last_at),
                day=_rounded(activity.day, at, HALF_LIFE_DAY),
                fortnight=_rounded(activity.fortnight, at, HALF_LIFE_FORTNIGHT),
                season=_rounded(activity.season, at, HALF_LIFE_SEASON),
            )
        )
    return views


def _purchases(profile: Profile, at: Millis) -> PurchasesView:
    bought = profile.purchases
    return PurchasesView(
        orders=bought.orders,
        value=round(bought.value, 2),
        first_at=_time(bought.first_at),
        last_at=_time(bought.last_at),
        recent_value=round(faded(bought.recent_value, at, HALF_LIFE_SEASON), 2),
    )


def _mean(told: tuple[Decayed, Decayed]) -> float | None:
    total, weight = told
    return round(total.weight / weight.weight, 4) if weight.weight > 0.0 else None


def _items(items: Items, at: Millis) -> list[ItemView]:
    ranked = sorted(
        items.items.items(),
        key=lambda entry: (-max(entry[1].last_bought_at, entry[1].last_viewed_at), entry[0]),
    )
    return [
        ItemView(
            product_id=product_id,
            orders=item.orders,
            bought=_rounded(item.bought, at, HALF_LIFE_SEASON),
            last_bought_at=_time(item.last_bought_at),
            cycle_days=round(item.cycle / DAY, 2) if item.cycle else None,
            quantity=round(item.quantity, 4),
            price=item.price or None,
            viewed=_rounded(item.viewed, at, HALF_LIFE_FORTNIGHT),
            last_viewed_at=_time(item.last_viewed_at),
        )
        for product_id, item in ranked[:MOST_ITEMS]
    ]
