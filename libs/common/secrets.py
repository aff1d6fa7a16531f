"""Secrets of a data directory: made once by whoever comes first, readable by the owner alone."""

from __future__ import annotations

from pathlib import Path


class Secrets:
    """The secrets under ``<data_dir>/secrets``. All processes of a data directory see the same bytes."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "secrets"

    def token_key(self) -> bytes:
        """32 bytes that seal offer tokens; made on first use."""
        ...

    def holdout_salt(self) -> bytes:
        """32 bytes that spread customers over holdout groups and ghosts; made on first use."""
        ...
