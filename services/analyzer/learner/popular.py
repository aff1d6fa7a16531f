"""How popular products are, as it is published."""

from __future__ import annotations

import numpy as np

from libs.common.contracts.learned_model import Popular
from services.analyzer.learner.goods import GoodsLearner

MAX_POPULAR = 20_000
"""Products whose popularity is published, the most popular."""


def popular_of(goods: GoodsLearner) -> list[Popular]:
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
    return [
        Popular(counts.products[number], fresh, part, counts.seen[number], recent)
        for number, fresh, part, recent in zip(
            numbers.tolist(), weight, share, late.astype(np.float32).tolist(), strict=True
        )
    ]
