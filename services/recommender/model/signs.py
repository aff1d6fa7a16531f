"""What the response model is told of products, by shelf position: made off the request path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.features import Shelf
from libs.common.scoring.trial import SKETCH, category_codes, offer_sketch


class Signs(NamedTuple):
    """Arrays over the ``n`` positions of one shelf.

    Parameters
    ----------
    sketch:
        Array (n, `SKETCH`) of products' attributes.
    codes:
        Array (n,): category and price tier as one number.
    """

    sketch: NDArray[np.float64]
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, shelf: Shelf) -> Signs:
        """What is told of the products of ``shelf``."""
        sketch = [offer_sketch(product.attributes) for product in shelf.products]
        return cls(
            sketch=np.array(sketch, dtype=np.float64).reshape(-1, SKETCH),
            codes=category_codes([product.category for product in shelf.products], shelf.comparables.tier),
        )
