"""Browsing, baskets, checkout, coupons and orders; names as in Segment's e-commerce specification."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from libs.common.contracts.vocabulary.values import (
    Amount,
    Count,
    Currency,
    Money,
    Name,
    Quantity,
    TouchpointType,
)


class Page(Struct, frozen=True):
    """A page of a website."""

    url: str | None = None
    path: str | None = None
    title: str | None = None
    referrer: str | None = None
    search: str | None = None
    name: str | None = None
    page_name: str | None = None
    category: str | None = None


class Screen(Struct, frozen=True):
    """A screen of an app."""

    name: str | None = None
    screen_name: str | None = None
    category: str | None = None


class OrderLine(Struct, frozen=True):
    """A product of an order, a cancellation, a return or a basket. ``price`` is per unit."""

    product_id: Name
    quantity: Quantity = 1.0
    price: Amount | None = None
    category: str | None = None


class Order(Struct, frozen=True):
    """An order; ``total`` counts where no line has a price."""

    order_id: Name
    products: Annotated[list[OrderLine], Meta(min_length=1, max_length=1000)]
    currency: Currency | None = None
    total: Amount | None = None
    coupon: str | None = None


class OrderChange(Struct, frozen=True):
    """What of an order did not last; without products the whole order."""

    order_id: Name
    products: Annotated[list[OrderLine], Meta(max_length=1000)] = []
    reason: str | None = None


class ProductSeen(Struct, frozen=True):
    """One product."""

    product_id: Name | None = None
    quantity: Quantity = 1.0
    price: Amount | None = None
    category: str | None = None


class ListedProduct(Struct, frozen=True):
    """A product of a list or a basket."""

    product_id: Name | None = None
    quantity: Quantity = 1.0
    price: Money | None = None


class ProductList(Struct, frozen=True):
    """A list or category of products; ``results`` is how many there were."""

    list_id: str | None = None
    category: str | None = None
    products: Annotated[list[ListedProduct], Meta(max_length=1000)] = []
    results: Count | None = None


class Search(Struct, frozen=True):
    """A search and how many ``results`` it had; 0 says that something is wanted and missing."""

    query: str | None = None
    results: Count | None = None


class Basket(Struct, frozen=True):
    """A basket, or the checkout of one."""

    cart_id: str | None = None
    order_id: str | None = None
    products: Annotated[list[ListedProduct], Meta(max_length=1000)] = []
    currency: Currency | None = None
    value: Money | None = None
    coupon: str | None = None


class CheckoutStep(Struct, frozen=True):
    """A step of a checkout."""

    checkout_id: str | None = None
    order_id: str | None = None
    step: Count | None = None
    shipping_method: str | None = None
    payment_method: str | None = None


class Promotion(Struct, frozen=True):
    """A banner or teaser that the shop shows by itself."""

    promotion_id: str | None = None
    name: str | None = None
    promotion_name: str | None = None
    creative: str | None = None
    position: str | None = None


class Coupon(Struct, frozen=True):
    """A coupon; ``discount`` is in the base currency."""

    coupon_id: str | None = None
    coupon_name: str | None = None
    order_id: str | None = None
    cart_id: str | None = None
    discount: Money | None = None
    reason: str | None = None


_PRODUCT = {"product_id": "coffee", "price": 7.5, "category": "grocery/coffee"}
_LINES = [{"product_id": "coffee", "quantity": 2, "price": 7.5}]
_COUPON = {"coupon_id": "SPRING", "order_id": "o-1", "discount": 1.5}
_STEP = {"checkout_id": "k-1", "step": 2, "shipping_method": "parcel"}
_TEASER = {"promotion_id": "spring", "position": "home/top"}
_BACK = {"order_id": "o-1", "products": _LINES, "reason": "too strong"}


def _on_web(name: str, shape: type[Struct], when: str, example: dict[str, Any]) -> TouchpointType:
    return TouchpointType(name, "web", shape, when, example)


TYPES = (
    _on_web("page_viewed", Page, "He looked at a page.", {"url": "https://shop.example/coffee"}),
    TouchpointType("screen_viewed", "app", Screen, "He looked at a screen.", {"screen_name": "home"}),
    _on_web("product_viewed", ProductSeen, "He looked at a product.", _PRODUCT),
    _on_web("product_clicked", ProductSeen, "He clicked a product in a list.", _PRODUCT),
    _on_web("product_shared", ProductSeen, "He told somebody of a product.", _PRODUCT),
    _on_web("product_liked", ProductSeen, "He said that he likes a product.", _PRODUCT),
    _on_web("product_added", ProductSeen, "He put a product into the basket.", _PRODUCT),
    _on_web("product_removed", ProductSeen, "He took a product out of the basket.", _PRODUCT),
    _on_web("product_added_to_wishlist", ProductSeen, "He put a product on a wish list.", _PRODUCT),
    _on_web("product_removed_from_wishlist", ProductSeen, "He took it off the list again.", _PRODUCT),
    _on_web("wishlist_product_added_to_cart", ProductSeen, "From the list into the basket.", _PRODUCT),
    _on_web("product_list_viewed", ProductList, "He looked at a list or category.", {"category": "grocery"}),
    _on_web("product_list_filtered", ProductList, "He filtered or sorted a list.", {"list_id": "new"}),
    _on_web("products_searched", Search, "He searched.", {"query": "decaf", "results": 0}),
    _on_web("promotion_viewed", Promotion, "A teaser of the shop was on his page.", _TEASER),
    _on_web("promotion_clicked", Promotion, "He clicked a teaser of the shop.", _TEASER),
    _on_web("cart_viewed", Basket, "He looked at his basket.", {"cart_id": "b-1", "products": _LINES}),
    _on_web("checkout_started", Basket, "He went to the checkout.", {"value": 15.0, "products": _LINES}),
    _on_web("checkout_step_viewed", CheckoutStep, "He came to a step of the checkout.", _STEP),
    _on_web("checkout_step_completed", CheckoutStep, "He finished a step of the checkout.", _STEP),
    _on_web("payment_info_entered", CheckoutStep, "He said how he pays; never with what.", _STEP),
    _on_web("coupon_entered", Coupon, "He entered a coupon.", _COUPON),
    _on_web("coupon_applied", Coupon, "The coupon was taken.", _COUPON),
    _on_web("coupon_denied", Coupon, "The coupon was refused.", {**_COUPON, "reason": "expired"}),
    _on_web("coupon_removed", Coupon, "He took the coupon out again.", _COUPON),
    _on_web(
        "order_completed",
        Order,
        "He bought.",
        {"order_id": "o-1", "currency": "EUR", "products": _LINES, "coupon": "SPRING"},
    ),
    _on_web("order_cancelled", OrderChange, "An order, or lines of it, will not be delivered.", _BACK),
    _on_web("order_returned", OrderChange, "Goods of an order came back.", _BACK),
    _on_web(
        "order_refunded",
        OrderChange,
        "Goods were paid back. Tell of a return once: as this or as order_returned.",
        _BACK,
    ),
)

ORDERS = frozenset({"order_completed"})
"""Types that tell of a sale."""
ORDER_CHANGES = frozenset({"order_cancelled", "order_returned", "order_refunded"})
"""Types that take one back."""
