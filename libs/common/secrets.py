"""Secrets of a data directory: made once by whoever comes first, readable by the owner alone."""

from __future__ import annotations

import os
import secrets as random_secrets
from pathlib import Path

from libs.common.errors import Misconfigured

_SIZE = 32


class Secrets:
    """The secrets under ``<data_dir>/secrets``. All processes of a data directory see the same bytes."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "secrets"

    def token_key(self) -> bytes:
        """32 bytes that seal offer tokens; made on first use."""
        return self._load("token.key")

    def holdout_salt(self) -> bytes:
        """32 bytes that spread customers over holdout groups and ghosts; made on first use."""
        return self._load("salt.key")

    def _load(self, name: str) -> bytes:
        path = self._folder / name
        try:
            make_private_folder(self._folder)
            if not path.exists():
                _make(path)
            value = path.read_bytes()
        except OSError as error:
            raise Misconfigured(f"cannot use secret {path}: {error.strerror}") from None
        if len(value) != _SIZE:
            raise Misconfigured(f"{path} is damaged: {_SIZE} bytes expected, {len(value)} found")
        return value


def make_private_folder(folder: Path) -> None:
    """Make ``folder`` where missing, for the owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make(path: Path) -> None:
    # Trap: opening the final name with O_EXCL would let another process read a file still empty. A link
    # appears complete, and only one of two processes wins.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{random_secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, random_secrets.token_bytes(_SIZE))
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
