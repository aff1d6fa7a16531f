"""Secrets of an installation: derived from the one it is given, else made once in its data directory."""

from __future__ import annotations

import hmac
import os
import secrets as random_secrets
from pathlib import Path

from pydantic import SecretStr

from libs.common.errors import Misconfigured

_SIZE = 32


class Secrets:
    """All processes of an installation see the same bytes.

    Parameters
    ----------
    data_dir:
        Secrets are made on first use under its ``secrets``, readable by the owner alone.
    installation_secret:
        Where given, every secret is derived from it and none is looked for in ``data_dir``.
    """

    def __init__(self, data_dir: Path, installation_secret: SecretStr | None = None) -> None:
        self._folder = data_dir / "secrets"
        self._root = installation_secret

    def token_key(self) -> bytes:
        """32 bytes that seal offer tokens."""
        return self._load("token.key")

    def holdout_salt(self) -> bytes:
        """32 bytes that spread customers over holdout groups and ghosts."""
        return self._load("salt.key")

    def erasure_key(self) -> bytes:
        """32 bytes that erased customer keys are hashed with; made on first use."""
        return self._load("erasure.key")

    def join_key(self) -> bytes:
        """32 bytes that e-mail addresses and phone numbers are hashed with: as ids, and to join records."""
        return self._load("join.key")

    def _load(self, name: str) -> bytes:
        if self._root is not None:
            return hmac.digest(
                self._root.get_secret_value().encode(), f"closedloop {name}".encode(), "sha256"
            )
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
