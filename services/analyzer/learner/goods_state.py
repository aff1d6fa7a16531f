"""The state of what is learned about goods, as it stands in a checkpoint: arrays as bytes."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.clock import Millis
from services.analyzer.learner.complements import Solution
from services.analyzer.learner.counts import OrderCounts
from services.analyzer.learner.goods import GoodsLearner
from services.analyzer.learner.pairs import Lists, PairLog


class CountsState(Struct, frozen=True, kw_only=True):
    landmarks: tuple[Millis, Millis, Millis]
    orders: int
    totals: tuple[float, float]
    products: list[str]
    seen: bytes
    popular: bytes
    recent: bytes
    support: bytes
    pair_keys: bytes
    pair_values: bytes


class SolutionState(Struct, frozen=True, kw_only=True):
    products: list[str]
    width: int
    places: bytes
    weight: bytes
    together: bytes
    lift: bytes


class PairsState(Struct, frozen=True, kw_only=True):
    parts: list[Lists]
    added: int
    touched: list[str]


class GoodsState(Struct, frozen=True, kw_only=True):
    last_at: Millis
    solved_orders: int
    solved_at: Millis
    counts: CountsState
    solution: SolutionState
    pairs: PairsState


def state_of(goods: GoodsLearner) -> GoodsState:
    """Everything ``goods`` knows; equal knowledge gives equal states."""
    counts, solution, log = goods.counts, goods.solution, goods.pair_log
    keys, values = counts.pair_arrays()
    return GoodsState(
        last_at=goods.last_at,
        solved_orders=goods.solved_orders,
        solved_at=goods.solved_at,
        counts=CountsState(
            landmarks=(
                counts.popularity_decay.landmark,
                counts.recent_decay.landmark,
                counts.pairs_decay.landmark,
            ),
            orders=counts.orders,
            totals=(counts.total, counts.total_pairs),
            products=counts.products,
            seen=_bytes(np.array(counts.seen), "<i8"),
            popular=_bytes(np.array(counts.popular), "<f8"),
            recent=_bytes(np.array(counts.recent), "<f8"),
            support=_bytes(np.array(counts.support), "<f8"),
            pair_keys=_bytes(keys, "<i8"),
            pair_values=_bytes(values, "<f8"),
        ),
        solution=SolutionState(
            products=list(solution.products),
            width=solution.places.shape[1],
            places=_bytes(solution.places, "<i4"),
            weight=_bytes(solution.weight, "<f4"),
            together=_bytes(solution.together, "<f4"),
            lift=_bytes(solution.lift, "<f4"),
        ),
        pairs=PairsState(parts=log.parts, added=log.added, touched=list(goods.touched)),
    )


def restore(goods: GoodsLearner, saved: GoodsState) -> None:
    """Put ``goods``, which is new, where it was when it was ``saved``."""
    goods.last_at = saved.last_at
    goods.solved_orders = saved.solved_orders
    goods.solved_at = saved.solved_at
    _restore_counts(goods.counts, saved.counts)
    goods.solution = _restore_solution(saved.solution)
    goods.pair_log = PairLog(saved.pairs.parts, saved.pairs.added)
    goods.touched = dict.fromkeys(saved.pairs.touched)
    goods.sort_out()


def _restore_counts(counts: OrderCounts, saved: CountsState) -> None:
    for decay, landmark in zip(
        (counts.popularity_decay, counts.recent_decay, counts.pairs_decay), saved.landmarks, strict=True
    ):
        decay.landmark = landmark
    counts.orders = saved.orders
    counts.total, counts.total_pairs = saved.totals
    counts.products = saved.products
    counts.index = {product_id: number for number, product_id in enumerate(saved.products)}
    counts.seen = np.frombuffer(saved.seen, "<i8").tolist()
    counts.popular = np.frombuffer(saved.popular, "<f8").tolist()
    counts.recent = np.frombuffer(saved.recent, "<f8").tolist()
    counts.support = np.frombuffer(saved.support, "<f8").tolist()
    keys = np.frombuffer(saved.pair_keys, "<i8").tolist()
    counts.pairs = dict(zip(keys, np.frombuffer(saved.pair_values, "<f8").tolist(), strict=True))


def _restore_solution(saved: SolutionState) -> Solution:
    shape = (len(saved.products), saved.width)
    return Solution(
        products=saved.products,
        places=np.frombuffer(saved.places, "<i4").reshape(shape),
        weight=np.frombuffer(saved.weight, "<f4").reshape(shape),
        together=np.frombuffer(saved.together, "<f4").reshape(shape),
        lift=np.frombuffer(saved.lift, "<f4").reshape(shape),
    )


def _bytes(array: NDArray[np.generic], dtype: str) -> bytes:
    return array.astype(dtype).tobytes()
