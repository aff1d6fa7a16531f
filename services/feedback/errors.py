"""What feedback refuses beyond what every service refuses."""

from __future__ import annotations

from libs.common.errors import ClosedloopError, Invalid


class KeyNeeded(ClosedloopError):
    """A token alone may not report this: the whole request is 401 ``key_missing``."""


class TokenMismatch(Invalid):
    """An id beside the token says something else than the token."""

    def __init__(self, field: str) -> None:
        super().__init__("token_mismatch", "does not agree with the token", field)


class UnknownWord(Invalid):
    """An outcome nobody has heard of."""

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__("wrong_type", f"outcome must be one of {', '.join(words)}", "/outcome")


class Missing(Invalid):
    """A field without which nobody knows which offer is meant, or to whom it was made."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__("missing", reason, field)


class ReservedName(Invalid):
    """An id that looks like a key the platform makes itself."""

    def __init__(self, field: str) -> None:
        super().__init__("bad_string", "must not begin with anon: or event:", field)
