"""The operator's key: made at the first start with every scope, kept for the commands, shown to its owner."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.local.running import unreadable
from libs.common.errors import Misconfigured
from libs.common.keys import KeyFile, Scope

NAME = "operator"
VARIABLE = "CLOSEDLOOP_DEV_KEY"


def operator_key(data_dir: Path) -> str:
    """A key that may do everything: ``CLOSEDLOOP_DEV_KEY``, else the stored one, else a new one."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    try:
        stored = _stored(data_dir)
        if stored is not None:
            return stored
        keys = KeyFile(data_dir)
        keys.revoke(NAME)
        made = keys.add(NAME, list(Scope)).key
        _store(data_dir, made)
    except OSError as error:
        raise unreadable(data_dir, error) from None
    return made


def stored_key(data_dir: Path) -> str:
    """The key commands use; raises `Misconfigured` where this data directory has none."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    try:
        stored = _stored(data_dir)
    except OSError as error:
        raise unreadable(data_dir, error) from None
    if stored is None:
        raise Misconfigured(
            f"{data_dir} has no operator key: start  closedloop up --data-dir {data_dir}  once"
        )
    return stored


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
