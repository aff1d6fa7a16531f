"""What the recommender refuses beyond what every service refuses, and the words for what it lacked."""

from __future__ import annotations

from libs.common.errors import Invalid

STALE = "stale"
"""``degraded``: the customer's partition is more than five minutes behind; only the default was offered."""

UNRECORDED = "unrecorded"
"""``degraded``: the spool took no record, so that outcomes of this answer cannot be joined."""

PAGE_OR_BASKET = "page_or_basket"
"""``rejected``: the page's product or one in the basket, never offered."""
EXCLUDED = "excluded"
"""``rejected``: named in ``exclude``."""
UNAVAILABLE = "unavailable"
"""``rejected``: not in stock, or not within its time."""
PRODUCT_MISSING = "product_missing"
"""``rejected``: an authored offer whose product is not in the catalogue."""
KIND = "kind"
"""``rejected``: a candidate of a kind that was not asked for."""
SURPLUS = "surplus"
"""``rejected``: a candidate, but not among the best that may go on."""


class ForeignCurrency(Invalid):
    """An amount in a currency that cannot be compared with the others."""

    def __init__(self, base: str) -> None:
        reason = f"currency must be {base}, the base currency here: there are no exchange rates yet"
        super().__init__("not_supported", reason, "/currency")


class IdMismatch(Invalid):
    """The id in the body is not the one in the path."""

    def __init__(self, field: str) -> None:
        super().__init__("id_mismatch", f"{field} must be the id in the path, or be left out", f"/{field}")


class ReservedName(Invalid):
    """An id that the platform gives itself."""

    def __init__(self, field: str, prefixes: str) -> None:
        super().__init__("bad_string", f"{field} must not begin with {prefixes}", f"/{field}")
