"""The operator's key: made at the first start with every scope, kept for the commands, shown to its owner."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.local.running import unreadable
from libs.common.errors import Misconfigured
from libs.common.keys import KeyFile, KeyRing, Scope

NAME = "operator"
VARIABLE = "CLOSEDLOOP_DEV_KEY"
FILE_VARIABLE = "CLOSEDLOOP_OPERATOR_KEY_FILE"
"""Names the file of a key that was chosen outside, as containers are given their secrets."""

_SHORTEST = 32


def operator_key(data_dir: Path) -> str:
    """A key that may do everything: ``CLOSEDLOOP_DEV_KEY``, else the stored one, else a new one.

    One is stored in any case: commands run from another shell, where the variable is not set.
    """
    given = os.environ.get(VARIABLE)
    try:
        stored = _stored(data_dir)
        if stored is None:
            keys = KeyFile(data_dir)
            keys.revoke(NAME)
            stored = keys.add(NAME, list(Scope)).key
            _store(data_dir, stored)
    except OSError as error:
        raise unreadable(data_dir, error) from None
    return given or stored


def register_operator_key(data_dir: Path) -> None:
    """Let services know the key in ``CLOSEDLOOP_OPERATOR_KEY_FILE``; the one it replaces is gone.

    Does nothing where they know it. Raises `Misconfigured` where there is no such key or it is short.
    """
    key = _chosen()
    if key is None:
        raise Misconfigured(f"{FILE_VARIABLE} must name the file of the operator's key")
    try:
        found = KeyRing(data_dir).find(key)
        if found is None or found.name != NAME:
            keys = KeyFile(data_dir)
            keys.revoke(NAME)
            keys.add(NAME, list(Scope), key)
    except OSError as error:
        raise unreadable(data_dir, error) from None


def _chosen() -> str | None:
    named = os.environ.get(FILE_VARIABLE)
    if named is None:
        return None
    try:
        key = Path(named).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{FILE_VARIABLE}: cannot read {named}: {error}") from None
    if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise Misconfigured(f"{FILE_VARIABLE}: {named} must hold at least {_SHORTEST} printable characters")
    return key


def stored_key(data_dir: Path) -> str:
    """The key commands use: the one chosen outside, the stored one, else ``CLOSEDLOOP_DEV_KEY``.

    Raises `Misconfigured` where there is none.
    """
    if chosen := _chosen():
        return chosen
    try:
        key = _stored(data_dir) or os.environ.get(VARIABLE)
    except OSError as error:
        raise unreadable(data_dir, error) from None
    if not key:
        raise Misconfigured(
            f"{data_dir} has no operator key: start  closedloop up --data-dir {data_dir}  once"
        )
    return key


def _path(data_dir: Path) -> Path:
    return data_dir / "secrets" / "operator.key"


def _stored(data_dir: Path) -> str | None:
    try:
        key = _path(data_dir).read_text().strip()
    except FileNotFoundError:
        return None
    return key if any(known.name == NAME for known in KeyFile(data_dir).list()) else None


def _store(data_dir: Path, key: str) -> None:
    path = _path(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(key + "\n")
