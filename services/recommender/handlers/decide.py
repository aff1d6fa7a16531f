"""One decision, from question to answer and record: no waiting, nothing read but memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from libs.common.clock import Millis
from libs.common.contracts.catalogue import Placement
from libs.common.contracts.customer_event import Decision
from libs.common.contracts.customer_model import Item, refuses_analytics
from libs.common.contracts.identity import CustomerKey, is_nobody
from libs.common.scoring.features import Histories
from libs.common.scoring.sources.popular import popular
from libs.common.tokens import OfferToken
from services.recommender.candidates.explain import explainers
from services.recommender.candidates.gather import Where, gather
from services.recommender.candidates.pool import Chosen, Pool
from services.recommender.errors import STALE
from services.recommender.handlers.honesty import PolicyHonesty
from services.recommender.handlers.record import (
    Slate,
    basket_of,
    page_of,
    records_of,
    window_of,
)
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.assortment import Assortment, offer_id_of
from services.recommender.model.consent import Allowed, Policy, allowed
from services.recommender.model.ghosts import is_ghost
from services.recommender.model.groups import Group, group_of
from services.recommender.model.policy import (
    NOBODY,
    POLICY_VERSION,
    Exploration,
    Slots,
    fill_all,
    seed_of,
)
from services.recommender.model.situation import Situation, Visit, scenes, situation
from services.recommender.model.steps import Steps, side_by_side, together
from services.recommender.model.tables import TableMaker, Tables
from services.recommender.model.who import Who
from services.recommender.model.wire import EMPTY, Answer, Ask, Offered
from services.recommender.ports import KeptDecision

_encoder = msgspec.json.Encoder()

ROOM = 400_000
"""Products times questions that are decided at once: each pair takes some ten numbers of memory."""


class Holdout(NamedTuple):
    """Shares of customers held out, and the salt that says who."""

    salt: bytes
    baseline: float
    none: float


class Question(NamedTuple):
    """A request with everything that was found out about it before the decision.

    ``now`` is the moment decided for, ``recorded_at`` the platform's present.
    """

    ask: Ask
    decision_id: str
    who: Who
    now: Millis
    recorded_at: Millis
    fresh: bool
    stale: bool = False
    replay: bool = False
    group: Group | None = None


class Decided(NamedTuple):
    """A decision made but not recorded yet; of a dry run there is nothing to record."""

    answer: Answer
    event: Decision | None
    pool: bytes

    def kept(self, answer: bytes) -> KeptDecision:
        """What is kept, with ``answer`` as it goes out."""
        assert self.event is not None
        return KeptDecision(
            self.answer.decision_id, self.event.customer, self.event.occurred_at, answer, self.pool
        )


class Decider:
    """Makes decisions.

    Parameters
    ----------
    assortment, tables:
        What there is to offer, and what was learned about it.
    seal:
        Makes the token that outcomes of an offer are reported with.
    holdout:
        Who is held out; a forced group passes it by.
    consent:
        What holds for customers who were never asked.
    people:
        How many customers' histories are kept for their next request.
    """

    def __init__(
        self,
        assortment: Assortment,
        tables: TableMaker,
        seal: Callable[[OfferToken], str],
        holdout: Holdout,
        consent: Policy,
        metrics: RecommenderMetrics,
        people: int = 2_000,
    ) -> None:
        self._assortment = assortment
        self._tables = tables
        self._seal = seal
        self._holdout = holdout
        self._consent = consent
        self._metrics = metrics
        self._histories = Histories(people)
        self.honesty = PolicyHonesty(metrics)

    def forget(self, customers: Sequence[CustomerKey]) -> None:
        """Drop what memory holds of ``customers``."""
        self._histories.drop(customers)

    def decide(self, questions: Sequence[Question]) -> list[Decided | Exception]:
        """Choose the offers and say why; equal questions to equal models have equal answers.

        The questions have nothing to do with each other, but are decided `side_by_side`, as many as there
        is `ROOM` for.
        """
        tables = self._tables.now()
        most = max(ROOM // max(len(tables.scoring.shelf), 1), 1)
        return [
            decided
            for first in range(0, len(questions), most)
            for decided in side_by_side(
                self._decide(question, tables) for question in questions[first : first + most]
            )
        ]

    def _decide(self, question: Question, tables: Tables) -> Steps[Decided]:
        ask, whom = question.ask, question.who
        placement = self._placement(ask)
        may = self._allowed(whom, ask) if whom.keys else None
        personal = may is not None and may.personal and not question.stale
        group = question.group or group_of(whom.key, *self._holdout)
        slate = yield from self._slate(question, tables, placement, group, _items(whom) if personal else {})
        offers = yield from together(self._offers, (slate, ask))
        answer = Answer(
            decision_id=question.decision_id,
            group=group,
            policy_version=POLICY_VERSION,
            fresh=question.fresh,
            degraded=[STALE] if question.stale else [],
            limited_by=list(may.limited_by) if may is not None else [],
            offers=offers,
        )
        if ask.dry_run:
            return Decided(answer, None, b"")
        noted = slate.draws, placement.exploration, slate.pool.offer_ids
        yield from together(self.honesty.note, noted)
        event, pool = yield from together(records_of, (slate, ask))
        return Decided(answer, event, pool)

    def _allowed(self, whom: Who, ask: Ask) -> Allowed:
        orders = 0 if whom.profile is None else whom.profile.purchases.orders
        gpc = ask.context.get("gpc") is True
        return allowed(whom.consents, ask.channel, self._consent, orders=orders, gpc=gpc)

    def _placement(self, ask: Ask) -> Placement:
        placement = self._assortment.placements.get(ask.placement)
        if placement is None:
            self._metrics.unknown_placements.add()
            return Placement(placement_id=ask.placement)
        return placement

    def _slate(
        self,
        question: Question,
        tables: Tables,
        placement: Placement,
        group: Group,
        items: Mapping[str, Item],
    ) -> Steps[Slate]:
        ask = question.ask
        page, basket = page_of(ask), basket_of(ask)
        traces = self._histories.traces(question.who.key, tables.scoring, items)
        visit = Visit(tables.scoring, traces, question.now, page, basket, ask.channel)
        scene = yield from together(scenes, visit)
        here = situation(
            self._assortment,
            tables.scoring,
            items,
            question.now,
            page,
            basket,
            ask.exclude,
            scene,
        )
        limit = placement.limit if ask.limit is None else ask.limit
        silent = question.stale and placement.fallback == "none"
        also = _baseline(here, placement, limit) if group == "baseline" and not silent else []
        where = Where(placement, ask.channel, ask.context, limit, _kinds(ask, placement), also)
        pool = yield from gather(here, tables, where)
        seed, window = seed_of(question.decision_id), window_of(placement, ask.channel)
        slots = self._slots(question, placement, group, pool, limit, seed, window)
        draws = [] if silent else (yield from together(fill_all, slots))
        instead = _instead(group, pool, also, limit)
        shown = [(draw.chosen, draw.propensity, draw.swapped) for draw in draws if not draw.ghost]
        if instead is not None:
            shown = [(at, 1.0, 0.0) for at in instead]
        shown = [row for row in shown if row[0] != NOBODY]
        chosen = pool.chosen([at for at, _, _ in shown])
        return Slate(
            decision_id=question.decision_id,
            key=question.who.key,
            group=group,
            placement=placement,
            window=window,
            pool=pool,
            draws=draws,
            instead=instead,
            placed=[
                (one, propensity, swapped)
                for one, (_, propensity, swapped) in zip(chosen, shown, strict=True)
            ],
            seed=seed,
            decided_at=question.now,
            recorded_at=question.recorded_at,
            replay=question.replay,
            forced=question.group is not None,
            analysed=not refuses_analytics(question.who.consents),
        )

    def _slots(
        self,
        question: Question,
        placement: Placement,
        group: Group,
        pool: Pool,
        limit: int,
        seed: int,
        window: Millis,
    ) -> Slots:
        """What the policy is to fill; of a holdout group too, so that it is known what it did not see."""
        products, share, salt = pool.product_ids, placement.ghosts, self._holdout.salt

        def withheld(at: int) -> list[int]:
            product = products[at]
            about = pool.offer_ids[at] if product is None else offer_id_of(product)
            if not is_ghost(question.who.key, about, question.now, window, share, salt):
                return []
            return [at] if product is None else pool.alike(at)

        # Nobody can be seen to do without an offer who is not known, or sees none of them.
        judged = group == "treatment" and not is_nobody(question.who.key)
        return Slots(
            pool.by,
            pool.worlds,
            limit,
            Exploration(placement.exploration, placement.near_best),
            seed,
            no_offer=placement.contact_cost > 0.0,
            ghosts=withheld if judged and placement.ghosts > 0.0 else None,
            # What the response model is told of P(choice) is cut off, and equal for all that are unlikely.
            ties=pool.chance,
        )

    def _offers(self, asked: Sequence[tuple[Slate, Ask]]) -> list[list[Offered]]:
        """What is answered of several slates to what was asked."""
        # One step after the other for all of them, see `side_by_side`.
        chosen = [[one for one, _, _ in slate.placed] for slate, _ in asked]
        why = explainers([(slate.pool, some) for (slate, _), some in zip(asked, chosen, strict=True)])
        reasons = [list(map(one.reasons, some)) for one, some in zip(why, chosen, strict=True)]
        tokens = [
            [None if ask.dry_run else self._token(slate, one, ask) for one in some]
            for (slate, ask), some in zip(asked, chosen, strict=True)
        ]
        return [
            [
                self._offer(one, propensity, rank, text, token)
                for rank, ((one, propensity, _), text, token) in enumerate(
                    zip(slate.placed, said, sealed, strict=True), start=1
                )
            ]
            for (slate, _), said, sealed in zip(asked, reasons, tokens, strict=True)
        ]

    def _token(self, slate: Slate, one: Chosen, ask: Ask) -> str:
        return self._seal(
            OfferToken(
                decision_id=slate.decision_id,
                offer_id=one.offer_id,
                customer=slate.key,
                placement=slate.placement.placement_id,
                issued_at=slate.recorded_at,
                product_id=one.product_id,
                price=one.price,
                channel=ask.channel,
            )
        )

    def _offer(
        self, one: Chosen, propensity: float, place: int, reasons: list[str], token: str | None
    ) -> Offered:
        content = msgspec.UNSET if one.offer is None or not one.offer.content else one.offer.content
        return Offered(
            offer_id=one.offer_id,
            product_id=one.product_id,
            kind=one.kind,
            rank=place,
            score=one.score,
            propensity=propensity,
            reasons=reasons,
            product=EMPTY if one.product_id is None else self._assortment.cards[one.position],
            token=token,
            content=content,
        )


def encode_answer(answer: Answer) -> bytes:
    return _encoder.encode(answer)


def _items(whom: Who) -> Mapping[str, Item]:
    return {} if whom.items is None else whom.items.items


def _kinds(ask: Ask, placement: Placement) -> Collection[str] | None:
    if ask.kinds is None or ask.kinds == "all":
        return placement.kinds
    return ask.kinds if placement.kinds is None else set(ask.kinds) & set(placement.kinds)


def _instead(group: Group, pool: Pool, also: Sequence[str], limit: int) -> list[int] | None:
    """What a holdout group is shown in place of what the policy drew."""
    if group == "treatment":
        return None
    if group == "none":
        return [NOBODY]
    ids = {offer_id: at for at, offer_id in enumerate(pool.offer_ids)}
    return [ids[offer_id] for offer_id in also if offer_id in ids][:limit]


def _baseline(here: Situation, placement: Placement, limit: int) -> list[str]:
    """Ids of what the placement's baseline would offer, each once, in its order."""
    if placement.baseline == "none":
        return []
    if placement.baseline == "popular":
        # Twice as many, because kinds that were not asked for fall out later.
        own = here.assortment.offer_ids
        return [own[at] for at in popular(here.look, 2 * limit).tolist()]
    return list(dict.fromkeys(placement.baseline))
