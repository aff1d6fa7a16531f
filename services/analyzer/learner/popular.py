"""How popular products are, as it is published."""

from __future__ import annotations

import numpy as np

from libs.common.contracts.learned_model import USUAL_FIRST, Popular
from services.analyzer.learner.firsts import FirstPurchases
from services.analyzer.learner.goods import GoodsLearner

MAX_POPULAR = 20_000
"""Products whose popularity is published, the most popular."""


def popular_of(goods: GoodsLearner, firsts: FirstPurchases) -> list[Popular]:
    """Rows of the most popular products, in the order they were first bought."""
    counts = goods.counts
    if not counts.orders:
        return []
    weights = np.array(counts.popular)
    numbers = np.flatnonzero(weights > 0.0)
    if len(numbers) > MAX_POPULAR:
        numbers = np.sort(numbers[np.lexsort((numbers, -weights[numbers]))[:MAX_POPULAR]])
    scale = 1.0 / counts.popularity_decay.weight(goods.last_at)
    weight = (weights[numbers] * scale).astype(np.float32).tolist()
    share = np.minimum(weights[numbers] / counts.total, 1.0).astype(np.float32).tolist()
    late = np.array(counts.recent)[numbers] / counts.recent_decay.weight(goods.last_at)
    rates, products = firsts.rates(), [counts.products[number] for number in numbers.tolist()]
    found = zip(
        products,
        weight,
        share,
        [counts.seen[number] for number in numbers.tolist()],
        late.astype(np.float32).tolist(),
        [rates.get(product_id, USUAL_FIRST) for product_id in products],
        strict=True,
    )
    return [Popular(*row) for row in found]
