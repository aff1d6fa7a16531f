"""Codes of what the recommender refuses or could not do, beside those that all services share."""

from __future__ import annotations

CURRENCY_NOT_SUPPORTED = "currency_not_supported"
"""An amount in another currency than the base currency: there is no exchange rate."""

ID_MISMATCH = "id_mismatch"
"""The id in the body is not the one in the path."""

RESERVED_ID = "reserved_id"
"""An id that the platform gives itself."""

NOT_FOUND = "not_found"

STALE = "stale"
"""``degraded``: the customer's partition is more than five minutes behind; only the default was offered."""

UNRECORDED = "unrecorded"
"""``degraded``: the spool took no record, so that outcomes of this answer cannot be joined."""

UNAVAILABLE = "unavailable"
"""``rejected``: not in stock, not within its time, or of a product that is not in the catalogue."""

PAGE_OR_BASKET = "page_or_basket"
EXCLUDED = "excluded"
KIND_NOT_ASKED = "kind_not_asked"
SURPLUS = "surplus"
"""``rejected``: a candidate, but not among the best that may go on."""
