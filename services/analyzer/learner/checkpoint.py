"""Checkpoints: the whole state of the fold as canonical bytes, msgpack and arrays, never pickles."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.clock import Millis
from services.analyzer.learner.complements import Solution
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.pairs import Lists, PairLog

FORMAT = 2


class _Counts(Struct, frozen=True, kw_only=True):
    landmarks: tuple[Millis, Millis]
    orders: int
    totals: tuple[float, float]
    products: list[str]
    seen: bytes
    popular: bytes
    support: bytes
    pair_keys: bytes
    pair_values: bytes


class _Solution(Struct, frozen=True, kw_only=True):
    products: list[str]
    width: int
    places: bytes
    weight: bytes
    together: bytes
    lift: bytes


class _Pairs(Struct, frozen=True, kw_only=True):
    parts: list[Lists]
    added: int
    touched: list[str]


class _Checkpoint(Struct, frozen=True, kw_only=True):
    format: int
    parameters: Parameters
    place: tuple[int, int, int]
    last_at: Millis
    solved_orders: int
    solved_at: Millis
    counts: _Counts
    solution: _Solution
    pairs: _Pairs


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(_Checkpoint)


def save(fold: Fold) -> bytes:
    """The state of ``fold``: equal states give equal bytes."""
    counts, solution = fold.counts, fold.solution
    keys, values = counts.pair_arrays()
    checkpoint = _Checkpoint(
        format=FORMAT,
        parameters=fold.parameters,
        place=(fold.place.second, fold.place.partition, fold.place.number),
        last_at=fold.last_at,
        solved_orders=fold.solved_orders,
        solved_at=fold.solved_at,
        counts=_Counts(
            landmarks=(counts.popularity_decay.landmark, counts.pairs_decay.landmark),
            orders=counts.orders,
            totals=(counts.total, counts.total_pairs),
            products=counts.products,
            seen=_bytes(np.array(counts.seen), "<i8"),
            popular=_bytes(np.array(counts.popular), "<f8"),
            support=_bytes(np.array(counts.support), "<f8"),
            pair_keys=_bytes(keys, "<i8"),
            pair_values=_bytes(values, "<f8"),
        ),
        solution=_Solution(
            products=list(solution.products),
            width=solution.places.shape[1],
            places=_bytes(solution.places, "<i4"),
            weight=_bytes(solution.weight, "<f4"),
            together=_bytes(solution.together, "<f4"),
            lift=_bytes(solution.lift, "<f4"),
        ),
        pairs=_Pairs(parts=fold.pair_log.parts, added=fold.pair_log.added, touched=list(fold.touched)),
    )
    return _encoder.encode(checkpoint)


def restore(body: bytes | None, parameters: Parameters) -> Fold | None:
    """The fold as it was saved; None where there is nothing, or what was saved has other parameters."""
    if body is None:
        return None
    try:
        saved = _decoder.decode(body)
    except msgspec.DecodeError:
        return None
    if saved.format != FORMAT or saved.parameters != parameters:
        return None
    fold = Fold(parameters)
    fold.place = Place(*saved.place)
    fold.last_at = saved.last_at
    fold.solved_orders = saved.solved_orders
    fold.solved_at = saved.solved_at
    _restore_counts(fold, saved.counts)
    fold.solution = _restore_solution(saved.solution)
    fold.pair_log = PairLog(saved.pairs.parts, saved.pairs.added)
    fold.touched = dict.fromkeys(saved.pairs.touched)
    fold.sort_out()
    return fold


def digest(fold: Fold) -> str:
    """SHA-256 of the state: equal for equal lessons in canonical order."""
    return hashlib.sha256(save(fold)).hexdigest()


def _restore_counts(fold: Fold, saved: _Counts) -> None:
    counts = fold.counts
    counts.popularity_decay.landmark, counts.pairs_decay.landmark = saved.landmarks
    counts.orders = saved.orders
    counts.total, counts.total_pairs = saved.totals
    counts.products = saved.products
    counts.index = {product_id: number for number, product_id in enumerate(saved.products)}
    counts.seen = np.frombuffer(saved.seen, "<i8").tolist()
    counts.popular = np.frombuffer(saved.popular, "<f8").tolist()
    counts.support = np.frombuffer(saved.support, "<f8").tolist()
    keys = np.frombuffer(saved.pair_keys, "<i8").tolist()
    counts.pairs = dict(zip(keys, np.frombuffer(saved.pair_values, "<f8").tolist(), strict=True))


def _restore_solution(saved: _Solution) -> Solution:
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
