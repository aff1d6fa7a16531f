"""A shelf, customers with favourites who shop from it, and a learner that folds what they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from libs.common.bus.ports import Message
from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product, encode_entry, entry_key
from libs.common.contracts.customer_model import Items
from libs.common.contracts.topics import CATALOGUE
from libs.common.contracts.touchpoint import OrderLine
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.complements import ComplementParameters
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.goods import GoodsParameters
from services.analyzer.model.items import bought
from services.analyzer.model.lessons import LessonLine, OrderLesson

T0 = 1_700_000_000_000
FEW = GoodsParameters(complements=ComplementParameters(ridge=2.0, support=2.0, neighbours=8))
SMALL = Parameters(goods=FEW)
Lessons = list[tuple[Place, OrderLesson]]


def product(product_id: str, category: str = "food", price: float = 2.0) -> Product:
    return Product(product_id=product_id, name=product_id, category=category, price=price, currency="EUR")


def stocked(*products: Product) -> Catalogue:
    catalogue = Catalogue()
    catalogue.on_batch([message(one.product_id, encode_entry(one)) for one in products])
    return catalogue


def message(product_id: str, value: bytes | None, kind: str = "product") -> Message:
    return Message(CATALOGUE, 0, 0, entry_key(kind, product_id), value, (), 0)


def shop(products: int = 40) -> Catalogue:
    shelf = [product(f"p{n}", f"c{n % 5}", 1.0 + n % 7) for n in range(products)]
    return stocked(*shelf, product("bread"), product("butter"))


def shopping(orders: int, customers: int = 12, seed: int = 3, products: int = 40) -> Lessons:
    """Customers with favourites, who take butter with bread; with what was known before each order."""
    random = np.random.default_rng(seed)
    taste = random.dirichlet(np.full(products, 0.15), size=customers)
    known = [Items(customer=f"c{n}") for n in range(customers)]
    made: Lessons = []
    for n in range(orders):
        who, at = int(random.integers(customers)), T0 + n * DAY // 6
        size = int(random.integers(1, 6))
        basket = [
            f"p{p}"
            for p in random.choice(products, size=size, replace=False, p=taste[who] * 0.9 + 0.1 / products)
        ]
        basket += ["bread", "butter"] if random.random() < 0.4 else []
        lesson = order(basket, at, f"c{who}", n, known[who])
        known[who] = bought(known[who], [OrderLine(product_id=key, quantity=1.0) for key in basket], at)
        made.append((Place(at // 1000, who % 12, n), lesson))
    return made


def order(
    products: Sequence[str], at: int = T0, customer: str = "c", n: int = 0, before: Items | None = None
) -> OrderLesson:
    return OrderLesson(
        customer=customer,
        at=at,
        occurred_at=at,
        order_id=f"o{n}",
        lines=[LessonLine(product_id, 1.0, 2.0) for product_id in products],
        channel="phone" if n % 4 == 0 else "web",
        before=before,
    )


def run(fold: Fold, lessons: Lessons) -> Fold:
    for place, lesson in lessons:
        fold.settle(lesson.at)
        fold.learn_one(place, lesson)
    fold.settle(fold.goods.last_at)
    return fold
