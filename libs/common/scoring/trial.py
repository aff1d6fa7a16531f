"""What a trial looks like to the response model: one vector of the offer's own features and those all share.

`own_features` and `shared_features` are computed once, when the decision is made, and kept in its record;
who learns from the trial reads them there. Both are rounded, so that what was scored is what is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis
from libs.common.contracts.catalogue import KINDS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.int8]

SKETCH = 8
"""Columns that free fields are hashed into."""
MOST_FIELDS = 16
"""So many free fields are looked at, the first by name."""
DECIMALS = 3
"""More than a weight can tell apart."""
LIMIT = 30.0
"""No feature is further from 0."""

SOURCE_GROUPS: Mapping[str, tuple[str, ...]] = {
    "situation": ("page", "basket"),
    "person": ("repeat", "viewed", "history"),
    "crowd": ("popular", "trending"),
    "newcomer": ("new",),
}
"""Sources of candidates that count as one; of others the kind says enough."""

_TAKEN = ("habit", "recency", "due", "viewed", "page", "basket", "category")
"""Columns of the choice model's matrix that are taken as they are."""

RESPONSE_FEATURES: tuple[str, ...] = (
    "logit_choice",
    *(f"kind_{kind}" for kind in KINDS),
    *(f"source_{group}" for group in SOURCE_GROUPS),
    "price",
    "tier_step",
    "margin_share",
    "new",
    *_TAKEN,
    *(f"offer_{column}" for column in range(SKETCH)),
    *(f"cross_{column}" for column in range(SKETCH)),
)
"""Columns of an offer's own features."""

SHARED_FEATURES: tuple[str, ...] = (
    "intercept",
    "hour_sine",
    "hour_cosine",
    "weekend",
    "known",
    "orders",
    "on_page",
    "basket_size",
    *(f"channel_{column}" for column in range(SKETCH)),
    *(f"placement_{column}" for column in range(SKETCH)),
    *(f"context_{column}" for column in range(SKETCH)),
)
"""Columns of the features that all offers of a decision share."""

TRIAL_FEATURES = RESPONSE_FEATURES + SHARED_FEATURES
"""Columns of a trial's vector. Trap: what was learned hangs on their order; whoever changes what is in a
column counts up its name, and the learner's parameters with it."""
FEATURE_SET = blake2b(" ".join(TRIAL_FEATURES).encode(), digest_size=4).hexdigest()
"""Name of these columns in this order; vectors of others teach nothing."""

_KINDS = len(KINDS)
_DEAREST = 1e12
_FREE = RESPONSE_FEATURES.index("offer_0")
_NUMBERS = RESPONSE_FEATURES.index("price")
_SAID = SHARED_FEATURES.index("channel_0")
_SHIFTS = (np.arange(SKETCH)[None, :] - np.arange(SKETCH)[:, None]) % SKETCH
_GROUP_CODES = {source: code for code, names in enumerate(SOURCE_GROUPS.values()) for source in names}


def source_groups(sources: Sequence[str]) -> Ints:
    """Array (len(sources),): the group of each source, −1 for those without."""
    return np.array([_GROUP_CODES.get(source, -1) for source in sources], dtype=np.int64)


def own_features(
    matrix: Floats,
    names: Sequence[str],
    *,
    chance: Floats,
    kinds: Codes,
    groups: Ints,
    price: Floats,
    margin: Floats,
    tier_step: Floats,
    seen: Floats,
    offers: Floats,
    crosses: Floats | None = None,
) -> Floats:
    """The matrix (m, `RESPONSE_FEATURES`) of ``m`` candidates; every number is finite and within `LIMIT`.

    Parameters
    ----------
    matrix, names:
        The choice model's features (m, names), from which some columns are taken.
    chance:
        Array (m,): P(choice).
    kinds, groups:
        Arrays (m,): codes of `KINDS`, and of `source_groups`.
    price, margin:
        Arrays (m,), in the base currency; of an up-sell the margin is the difference.
    tier_step:
        Array (m,): price tier above the product replaced, or above his usual tier; in [−1, 1].
    seen:
        Array (m,): orders with the product so far, for its newness.
    offers, crosses:
        `sketch` of each offer's attributes (m, `SKETCH`), and what `crossed` makes of it with the free
        context; None where nothing was said.
    """
    x = np.zeros((len(matrix), len(RESPONSE_FEATURES)))
    rows = np.arange(len(matrix))
    likely = np.minimum(np.maximum(chance, 1e-6), 1.0 - 1e-6)
    x[:, 0] = np.log(likely / (1.0 - likely))
    x[rows, 1 + kinds] = 1.0
    grouped = groups >= 0
    x[rows[grouped], 1 + _KINDS + groups[grouped]] = 1.0
    at = _NUMBERS
    paid = np.minimum(np.maximum(price, 0.01), _DEAREST)
    x[:, at] = 0.25 * np.log1p(paid)
    x[:, at + 1] = tier_step
    x[:, at + 2] = np.minimum(np.maximum(margin, -paid), paid) / paid
    x[:, at + 3] = 1.0 / (1.0 + 0.1 * np.maximum(seen, 0.0))
    x[:, at + 4 : at + 4 + len(_TAKEN)] = matrix[:, _taken(tuple(names))]
    x[:, _FREE : _FREE + SKETCH] = offers
    if crosses is not None:
        x[:, _FREE + SKETCH :] = crosses
    return _bounded(x)


def crossed(offers: Floats, context: Floats) -> Floats:
    """Sketches of offers (m, `SKETCH`) with that of the free context (`SKETCH`,): of all pairs of fields.

    It is their circular convolution (Pham & Pagh 2013).
    """
    return np.asarray(offers @ context[_SHIFTS])


class Told(NamedTuple):
    """What all offers of a decision share.

    Parameters
    ----------
    at:
        The moment decided for.
    context:
        `sketch` of the free context, see `context_sketch`.
    orders:
        The customer's decayed orders; 0 of one nothing is known of.
    on_page, basket:
        Whether a product is looked at, and how many are in the basket.
    """

    channel: str
    placement: str
    at: Millis
    context: Floats
    orders: float
    on_page: bool
    basket: int


def shared_features(decisions: Sequence[Told]) -> Floats:
    """The matrix (decisions, `SHARED_FEATURES`); every number is finite and within `LIMIT`."""
    x = np.empty((len(decisions), len(SHARED_FEATURES)))
    x[:, :_SAID] = [_said(told) for told in decisions]
    x[:, _SAID:] = [
        (*_one("channel", told.channel), *_one("placement", told.placement), *told.context.tolist())
        for told in decisions
    ]
    return _bounded(x)


def _said(told: Told) -> tuple[float, ...]:
    at, orders, basket = told.at, told.orders, told.basket
    hour = 2.0 * math.pi * (at % DAY) / DAY
    # The epoch began on a Thursday.
    weekday = (at // DAY + 3) % 7
    return (
        1.0,
        math.sin(hour),
        math.cos(hour),
        weekday >= 5,
        orders > 0.0,
        0.25 * math.log1p(max(orders, 0.0)),
        told.on_page,
        0.25 * math.log1p(max(basket, 0)),
    )


def context_sketch(context: Mapping[str, Any]) -> Floats:
    """`sketch` of the free fields of a request's context; page and basket have features of their own."""
    return sketch({key: context[key] for key in context if key not in ("product_id", "basket")}, "context")


def offer_sketch(attributes: Mapping[str, Any]) -> Floats:
    """`sketch` of the attributes of an offer or of its product."""
    return sketch(attributes, "offer")


def sketch(fields: Mapping[str, Any], salt: str) -> Floats:
    """Free fields as an array (`SKETCH`,) of length about 1 (feature hashing, Weinberger et al. 2009).

    Words and truth values count as what they are, numbers by their size, squeezed; what is neither, or not
    finite, counts nothing. Only the first `MOST_FIELDS` by name are looked at.
    """
    x = np.zeros(SKETCH)
    taken = 0
    for name in sorted(key for key in fields if isinstance(key, str))[:MOST_FIELDS]:
        token, amount = _token(name, fields[name])
        if amount:
            place, sign = _place(salt, token)
            x[place] += sign * amount
            taken += 1
    return x / math.sqrt(taken) if taken else x


def category_codes(categories: Sequence[str], tiers: Floats) -> Ints:
    """Array (n,): a number for the first two levels of each product's category and the third its tier is in.

    With its kind, see `cells_of`, it says which offers are alike before anything is known of them.
    """
    bands = np.clip((tiers * 3).astype(np.int64), 0, 2)
    return np.array(
        [_code(category, band) for category, band in zip(categories, bands.tolist(), strict=True)],
        dtype=np.int64,
    )


def cells_of(kinds: Codes, codes: Ints) -> Ints:
    """Array (m,): kind × category × tier of each candidate, from `category_codes` (0: no product)."""
    return np.asarray(codes * 8 + kinds, dtype=np.int64)


@lru_cache(maxsize=16)
def _taken(names: tuple[str, ...]) -> list[int]:
    """Where the columns of `_TAKEN` stand among ``names``."""
    return [names.index(name) for name in _TAKEN]


def _token(name: str, value: Any) -> tuple[str, float]:
    name = name[:64]
    if isinstance(value, bool):
        return f"{name}={value}", 1.0
    if isinstance(value, str):
        return f"{name}={value[:64]}", 1.0
    if isinstance(value, int | float):
        amount = float(value) if abs(value) < 1e300 else math.nan
        if not math.isfinite(amount):
            return name, 0.0
        return name, math.copysign(min(math.log1p(abs(amount)), 4.0), amount)
    return name, 0.0


@lru_cache(maxsize=8192)
def _place(salt: str, token: str) -> tuple[int, float]:
    digest = blake2b(f"{salt}\0{token}".encode("utf-8", "surrogatepass"), digest_size=2).digest()
    return digest[0] % SKETCH, 1.0 if digest[1] & 1 else -1.0


@lru_cache(maxsize=8192)
def _code(category: str, band: int) -> int:
    near = "/".join(category.split("/")[:2])
    digest = blake2b(f"{near}\0{band}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return 1 + int.from_bytes(digest)


@lru_cache(maxsize=1024)
def _one(salt: str, word: str) -> tuple[float, ...]:
    x = [0.0] * SKETCH
    place, sign = _place(salt, word[:64])
    x[place] = sign
    return tuple(x)


def _bounded(x: Floats) -> Floats:
    bounded = np.minimum(np.maximum(x, -LIMIT), LIMIT)
    if (unknown := np.isnan(bounded)).any():
        bounded[unknown] = 0.0
    # Adding 0 makes a negative zero positive: the record must read back as what was scored.
    return np.asarray(bounded.round(DECIMALS) + 0.0)
