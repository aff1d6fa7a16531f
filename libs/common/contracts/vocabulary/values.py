"""What the properties of touchpoints are made of, and what is said about each type."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Amount = Annotated[float, Meta(ge=0)]
Quantity = Annotated[float, Meta(gt=0, le=1_000_000)]
Currency = Annotated[str, Meta(min_length=3, max_length=3)]

# Trap: as in the catalogue, to the letter. Written as an integer it is equal to that one, `typing` hands out
# whichever was made first, and the reference hangs on the order of imports.
Money = Annotated[float, Meta(ge=0, le=1e12)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=100_000_000)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Grade = Annotated[float, Meta(ge=0, le=10)]
"""Satisfaction from 0 (worst) to 10 (best)."""
Stars = Annotated[float, Meta(ge=1, le=5)]
Sentiment = Annotated[float, Meta(ge=-1, le=1)]
Year = Annotated[int, Meta(ge=1800, le=2200)]
When = datetime
"""RFC 3339; without a zone it is UTC."""


@dataclass(frozen=True)
class TouchpointType:
    """A touchpoint type the platform understands.

    Attributes
    ----------
    name, channel:
        The type, and the channel it usually comes from.
    shape:
        Struct of its properties. Extra properties are free data and are kept.
    when:
        One sentence: when it is to be posted.
    example:
        Properties that are all right.
    outbound:
        It tells of something done to the customer, not by him: it goes into the contact ledger and does not
        make him active.
    """

    name: str
    channel: str
    shape: type[Struct]
    when: str
    example: dict[str, Any] = field(default_factory=dict)
    outbound: bool = False
