"""API keys: who may call what. Secrets are stored hashed; changes to the file are seen within a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Scope(StrEnum):
    """What a key may do."""

    COLLECT = "collect"
    RECOMMEND = "recommend"
    FEEDBACK = "feedback"
    MANAGE = "manage"
    CUSTOMERS = "customers"
    OPS = "ops"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its bearer is known: ``name`` is the source of what he sends.

    ``publishable`` keys are for browsers: bound to ``origins``, they act for an ``anonymous_id``, and for a
    ``customer_id`` only with a signature made with ``identity_secret``.
    """

    name: str
    scopes: frozenset[Scope]
    publishable: bool = False
    origins: tuple[str, ...] = ()
    identity_secret: str | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is shown once, when a key is made."""

    key: str
    identity_secret: str | None = None


class KeyRing:
    """The keys of a data directory as a service sees them; cheap to ask on every request."""

    def __init__(
        self, data_dir: Path, dev_key: str | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None: ...

    def find(self, presented: str) -> Key | None:
        """The key with this secret, or None; a file that changed is read again, at most twice a second."""
        ...


class KeyFile:
    """``secrets/keys.json`` for the command line: add, list, revoke, under a lock, replaced atomically."""

    def __init__(self, data_dir: Path) -> None: ...

    def add(self, name: str, scopes: Iterable[Scope]) -> NewKey:
        """Make a secret key; raises `Invalid` where the name is taken or no scope is given."""
        ...

    def add_publishable(self, name: str, origins: Iterable[str]) -> NewKey:
        """Make a publishable key with scopes collect and recommend, and its identity secret."""
        ...

    def list(self) -> list[Key]:
        """All keys in the order they were made."""
        ...

    def revoke(self, name: str) -> bool:
        """Take a key away; False where there is none of that name."""
        ...
