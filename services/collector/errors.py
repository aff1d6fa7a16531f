"""What the collector refuses beyond what every service refuses."""

from __future__ import annotations

from libs.common.errors import Invalid


class BadMode(Invalid):
    """``?mode=`` holds a word that is not known."""

    def __init__(self) -> None:
        super().__init__("wrong_type", "mode must be import, or be left out", "/mode")


class NobodyNamed(Invalid):
    """An event that says of nobody that he did it."""

    def __init__(self) -> None:
        super().__init__("missing", "customer_id or anonymous_id must be given", "/customer_id")


class ReservedName(Invalid):
    """An id that looks like a key the platform makes itself."""

    def __init__(self, field: str) -> None:
        super().__init__("bad_string", "must not begin with anon:, event: or account:", field)


class FrozenName(Invalid):
    """A visitor whose id looks like a part of another visitor's model."""

    def __init__(self) -> None:
        super().__init__("bad_string", "must not end in ~ and a number", "/anonymous_id")


class ForeignCurrency(Invalid):
    """An amount in a currency that cannot be added to the others."""

    def __init__(self, base: str) -> None:
        reason = f"currency must be {base}, the base currency here: there are no exchange rates yet"
        super().__init__("not_supported", reason, "/properties/currency")
