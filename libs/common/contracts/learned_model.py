"""What the learner has learned from everybody, ready to use: parts of at most 256 kB under one version.

Parts are published under ``NAME/N``; the `Manifest` (key ``manifest``) closes a version: readers switch
when they hold every part of the manifest's version.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from libs.common.clock import Millis

SCHEMA = b"learned-model/1"
MAX_PART_BYTES = 256_000
MANIFEST_KEY = b"manifest"

POPULARITY = "popularity"
COMPLEMENTS = "complements"
PAIRS = "pairs"
OCCASIONS = "occasions"
CHOICE = "choice"
RESPONSE = "response"
INTERCEPTS = "intercepts"
CAUSED = "caused"


USUAL_FIRST = 0.001
"""Share of orders in which a product is bought for the first time, where nothing is known of it."""


class Popular(Struct, array_like=True, frozen=True, gc=False):
    """How often a product is in orders: decayed number (half-life 60 days), share of orders, orders seen.

    ``recent`` is the decayed number with a half-life of 7 days: what is bought of late. ``first`` is the
    share of orders with it among those of customers who never had it.
    """

    product_id: str
    weight: float
    share: float
    orders: int
    recent: float = 0.0
    first: float = USUAL_FIRST


class Neighbour(Struct, array_like=True, frozen=True, gc=False):
    """A product that goes with another.

    ``weight`` is the model's: among complements a coefficient of EASE, among pairs the shrunken excess over
    chance. The two may be added.
    ``together`` is how many of 100 orders with the first product also have this one, ``lift`` how
    many times more than chance.
    """

    product_id: str
    weight: float
    together: float
    lift: float


class PopularityPart(Struct, frozen=True, kw_only=True, tag="popularity"):
    """A share of all products, most popular first."""

    version: int
    part: int
    products: list[Popular]


class ComplementsPart(Struct, frozen=True, kw_only=True, tag="complements"):
    """Neighbour lists by product, solved over all orders; they change with each solve.

    ``method`` names products whose list was not made by EASE, and how it was.
    """

    version: int
    part: int
    neighbours: dict[str, list[Neighbour]]
    method: dict[str, str] = {}


class PairsPart(Struct, frozen=True, kw_only=True, tag="pairs"):
    """Neighbour lists of products that the solution lacks, from their pairs alone; made as they are bought.

    A product may be in several parts: the list in the highest one is the newest, and the only one that
    counts, also where it is empty.
    """

    version: int
    part: int
    neighbours: dict[str, list[Neighbour]]


class OccasionsPart(Struct, frozen=True, kw_only=True, tag="occasions"):
    """What is bought more than usual at an hour, by a channel, or in an order of a size.

    ``fits`` are floats (categories, eight times of the day then channels): log of how much more of the orders
    at that time, or by that channel, hold the category than of all orders. Times of the day are three hours
    apart from midnight UTC on; all parts of a version have the same channels. ``sizes`` are the same of
    orders of 1, 2, 4 … 128 products: floats (categories, eight sizes), or nothing.
    """

    version: int
    part: int
    channels: list[str]
    categories: list[str]
    fits: bytes
    sizes: bytes = b""


class ChoicePart(Struct, frozen=True, kw_only=True, tag="choice"):
    """Weights of the choice model: log odds per unit of the feature of that name, learned from ``samples``
    orders. A feature that is not named weighs nothing."""

    version: int
    part: int
    names: list[str]
    weights: list[float]
    samples: int


class ResponsePart(Struct, frozen=True, kw_only=True, tag="response"):
    """One head of the response model: weights and how sure they are.

    Parameters
    ----------
    head:
        ``engaged``, ``converted_engaged`` or ``converted_alone``.
    names:
        The features, in the order of the numbers.
    mean:
        Weights, doubles.
    root:
        Lower triangle, row by row, of a square root of their covariance, floats.
    offer_variance, cell_variance:
        Of the intercepts that nothing is known of yet: of an offer, and of offers that are alike.
    """

    version: int
    part: int
    head: str
    names: list[str]
    mean: bytes
    root: bytes
    offer_variance: float
    cell_variance: float


class InterceptsPart(Struct, frozen=True, kw_only=True, tag="intercepts"):
    """What offers, and cells of offers that are alike, have beyond their features.

    ``numbers`` are floats (offers then cells, heads, 2): mean and variance, the heads in the order of
    `ResponsePart.head`. ``returned`` says how much of what is sold comes back: ``returned_everywhere`` of all
    sales, floats of each cell, and before them of each offer how many times the share of its cell.
    """

    version: int
    part: int
    offers: list[str]
    cells: list[int]
    numbers: bytes
    returned: bytes = b""
    returned_everywhere: float = 0.0


class CausedPart(Struct, frozen=True, kw_only=True, tag="caused"):
    """What showing causes, where it is seen and when it shows.

    Parameters
    ----------
    shares:
        By placement (empty: all of them) and kind: the share of conversions that showing causes.
    slots:
        By placement: odds of being engaged with, from the first slot on, those of the first being 1.
    delays:
        By placement (empty: all of them): share of conversions seen by 1/64, 1/16, 1/4, all of the window.
    """

    version: int
    part: int
    shares: dict[str, dict[str, float]]
    slots: dict[str, list[float]] = {}
    delays: dict[str, list[float]] = {}


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="manifest"):
    """Closes a version.

    ``parts`` tells how many parts of each name belong to it; ``journal_time`` up to where the learner had
    folded; ``orders`` and ``trials`` from how much it learned. ``versions`` tells the version each part
    carries, where parts that did not change were not published again; a name left out there carries this
    version throughout. A name left out of ``parts`` is not learned yet: readers use what they start with. A
    later ``journal_time`` with the same ``version`` says that nothing else changed.
    """

    version: int
    journal_time: Millis
    orders: int
    trials: int
    parts: dict[str, int]
    versions: dict[str, list[int]] = {}

    def part_versions(self, name: str) -> list[int]:
        """The version of every part of ``name`` that belongs to this version."""
        return self.versions.get(name) or [self.version] * self.parts.get(name, 0)


LearnedPart = (
    PopularityPart
    | ComplementsPart
    | PairsPart
    | OccasionsPart
    | ChoicePart
    | ResponsePart
    | InterceptsPart
    | CausedPart
)
LearnedModel = LearnedPart | Manifest

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder: msgspec.msgpack.Decoder[LearnedModel] = msgspec.msgpack.Decoder(LearnedModel)


def part_key(name: str, part: int) -> bytes:
    return f"{name}/{part}".encode()


def encode_learned(model: LearnedModel) -> bytes:
    return _encoder.encode(model)


def decode_learned(data: bytes) -> LearnedModel:
    return _decoder.decode(data)
