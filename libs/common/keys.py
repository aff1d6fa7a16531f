"""API keys: who may call what. Secrets are stored hashed; changes to the file are seen within a second."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import secrets as random_secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from libs.common.errors import Invalid, Misconfigured
from libs.common.secrets import make_private_folder

_log = logging.getLogger(__name__)

DEV_SOURCE = "dev"
RESERVED_NAMES = frozenset({DEV_SOURCE, "recommender", "feedback"})
"""Sources of the platform's own: a key of that name would mix its events with theirs in ledger and dedupe."""

_CHECK_EVERY = 0.5
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
"""What browsers leave out of an origin."""


class Scope(StrEnum):
    """What a key may do."""

    COLLECT = "collect"
    RECOMMEND = "recommend"
    FEEDBACK = "feedback"
    MANAGE = "manage"
    CUSTOMERS = "customers"
    OPS = "ops"


PUBLISHABLE_SCOPES = frozenset({Scope.COLLECT, Scope.RECOMMEND})
"""All that a key in a browser can ever do."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its bearer is known: ``name`` is the source of what he sends.

    ``publishable`` keys are for browsers: bound to ``origins``, they act for an ``anonymous_id``, and for a
    ``customer_id`` only with a signature made with ``identity_secret``. A ``replaced`` key still works
    beside the newer one of its name.
    """

    name: str
    scopes: frozenset[Scope]
    publishable: bool = False
    origins: tuple[str, ...] = ()
    identity_secret: str | None = None
    replaced: bool = False

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a call from ``origin`` (the header) may use this key; secret keys ask for none."""
        return not self.publishable or (origin is not None and origin.lower() in self.origins)

    def signed(self, customer_id: str, signature: str | None) -> bool:
        """Whether this caller may speak for ``customer_id``: always for secret keys, else by signature."""
        if not self.publishable:
            return True
        if self.identity_secret is None or signature is None:
            return False
        right = hmac.new(self.identity_secret.encode(), customer_id.encode(), hashlib.sha256).hexdigest()
        return hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is shown once, when a key is made."""

    key: str
    identity_secret: str | None = None


class _StoredKey(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]
    scopes: list[Scope]
    publishable: bool = False
    origins: list[str] = []
    identity_secret: str | None = None
    replaced: bool = False

    def key(self) -> Key:
        scopes = frozenset(self.scopes)
        return Key(
            name=self.name,
            scopes=scopes & PUBLISHABLE_SCOPES if self.publishable else scopes,
            publishable=self.publishable,
            origins=tuple(self.origins),
            identity_secret=self.identity_secret,
            replaced=self.replaced,
        )


class _StoredKeys(msgspec.Struct, frozen=True):
    keys: list[_StoredKey] = []


class KeyRing:
    """The keys of a data directory as a service sees them; cheap to ask on every request."""

    def __init__(
        self, data_dir: Path, dev_key: str | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = _keys_path(data_dir)
        self._monotonic = monotonic
        self._always: dict[bytes, Key] = {}
        if dev_key:
            self._always[_digest(dev_key)] = Key(DEV_SOURCE, frozenset(Scope))
        self._by_digest: dict[bytes, Key] = dict(self._always)
        self._origins: frozenset[str] = frozenset()
        self._seen: tuple[int, int, int] | None = None
        self._damaged: tuple[int, int, int] | None = None
        self._check_at = float("-inf")

    def find(self, presented: str) -> Key | None:
        """The key with this secret, or None; a file that changed is read again, looked at twice a second."""
        self._refresh()
        # A look-up by digest gives nothing away by its timing: who can choose the digest has the key.
        return self._by_digest.get(_digest(presented))

    def admits(self, origin: str) -> bool:
        """Whether some publishable key may be used from ``origin``: all that a preflight can be told."""
        self._refresh()
        return origin.lower() in self._origins

    def _refresh(self) -> None:
        now = self._monotonic()
        if now < self._check_at:
            return
        self._check_at = now + _CHECK_EVERY
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._take([])
            self._seen = None
            return
        except OSError:
            return
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen == self._seen:
            return
        try:
            stored = _read(self._path)
        except Misconfigured as error:
            # Keys that worked go on working while somebody mends the file; it is told of once.
            if seen != self._damaged:
                _log.error("keys stay as they were: %s", error)
            self._damaged = seen
            return
        self._take(stored.keys)
        self._seen = seen

    def _take(self, stored: Iterable[_StoredKey]) -> None:
        found = {bytes.fromhex(entry.sha256): entry.key() for entry in stored}
        self._by_digest = found | self._always
        self._origins = frozenset(origin for key in found.values() for origin in key.origins)


class KeyFile:
    """``secrets/keys.json`` for the command line: add, list, revoke, under a lock, replaced atomically."""

    def __init__(self, data_dir: Path) -> None:
        self._path = _keys_path(data_dir)

    def add(self, name: str, scopes: Iterable[Scope], key: str | None = None) -> NewKey:
        """Make a secret key, or store the ``key`` that somebody chose.

        Raises `Invalid` where the name is taken or no scope is given.
        """
        wanted = sorted(set(scopes))
        if not wanted:
            raise Invalid("missing", f"a key needs scopes out of {', '.join(Scope)}", "/scopes")
        made = _new_key(publishable=False) if key is None else NewKey(key)
        self._store(_StoredKey(name, _digest(made.key).hex(), wanted))
        return made

    def add_publishable(self, name: str, origins: Iterable[str]) -> NewKey:
        """Make a publishable key with scopes collect and recommend, and its identity secret."""
        allowed = sorted({_origin(origin) for origin in origins})
        if not allowed:
            raise Invalid(
                "missing", "a publishable key needs an origin, e.g. https://shop.example", "/origins"
            )
        made = _new_key(publishable=True, identity_secret=random_secrets.token_urlsafe(32))
        self._store(
            _StoredKey(
                name,
                _digest(made.key).hex(),
                sorted(PUBLISHABLE_SCOPES),
                publishable=True,
                origins=allowed,
                identity_secret=made.identity_secret,
            )
        )
        return made

    def rotate(self, name: str) -> NewKey:
        """Make a second key like the one called ``name``: same source, scopes, origins and identity secret.

        Both work until the older one is revoked. Raises `Invalid` where there is no key of that name, or two.
        """
        with self._locked():
            stored = _read(self._path)
            older = [entry for entry in stored.keys if entry.name == name]
            if not older:
                raise Invalid("wrong_type", f"there is no key called {name}", "/name")
            if len(older) > 1:
                raise Invalid("wrong_type", f"two keys are called {name}: revoke the older one", "/name")
            made = _new_key(older[0].publishable, older[0].identity_secret)
            newer = msgspec.structs.replace(older[0], sha256=_digest(made.key).hex())
            left = [
                msgspec.structs.replace(entry, replaced=True) if entry.name == name else entry
                for entry in stored.keys
            ]
            self._replace(_StoredKeys([*left, newer]))
        return made

    def list(self) -> list[Key]:
        """All keys in the order they were made."""
        return [entry.key() for entry in _read(self._path).keys]

    def revoke(self, name: str, *, replaced_only: bool = False) -> bool:
        """Take the keys of a name away, or the replaced one alone; False where there is none."""
        with self._locked():
            stored = _read(self._path)
            left = [
                entry for entry in stored.keys if entry.name != name or (replaced_only and not entry.replaced)
            ]
            if len(left) == len(stored.keys):
                return False
            self._replace(_StoredKeys(left))
            return True

    def _store(self, entry: _StoredKey) -> None:
        if not entry.name or len(entry.name) > 128 or not entry.name.isprintable():
            raise Invalid("wrong_type", "a key's name has 1 to 128 printable characters", "/name")
        with self._locked():
            stored = _read(self._path)
            if entry.name in RESERVED_NAMES:
                raise Invalid("wrong_type", f"{entry.name} is a name of the platform's own", "/name")
            if any(other.name == entry.name for other in stored.keys):
                raise Invalid(
                    "wrong_type", f"{entry.name} is the name of a key: --rotate adds a second", "/name"
                )
            self._replace(_StoredKeys([*stored.keys, entry]))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            make_private_folder(self._path.parent)
            handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Misconfigured(f"cannot write {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _replace(self, stored: _StoredKeys) -> None:
        draft = self._path.with_suffix(".new")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(stored)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)


def _new_key(publishable: bool, identity_secret: str | None = None) -> NewKey:
    return NewKey(("pk_" if publishable else "sk_") + random_secrets.token_urlsafe(32), identity_secret)


def _keys_path(data_dir: Path) -> Path:
    return data_dir / "secrets" / "keys.json"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> _StoredKeys:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_StoredKeys)
    except FileNotFoundError:
        return _StoredKeys()
    except OSError as error:
        raise Misconfigured(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Misconfigured(f"{path} is damaged: restore it or remove it and add the keys again") from None


def _origin(text: str) -> str:
    origin = text.strip().lower().rstrip("/")
    scheme, separator, host = origin.partition("://")
    if scheme not in ("http", "https") or not separator or not host or any(c in host for c in "/?#@ "):
        raise Invalid("wrong_type", f"not an origin: {text}; write e.g. https://shop.example", "/origins")
    if "*" in host:
        raise Invalid("wrong_type", f"{text}: every origin is named by itself, without *", "/origins")
    if not host.isascii():
        raise Invalid("wrong_type", f"write {text} as browsers do, its host as xn--…", "/origins")
    try:
        port = urlsplit(origin).port
    except ValueError:
        port = 0
    # Trap: browsers write ports without zeros before them, and origins are compared as text.
    if port == 0 or (port is None and origin.endswith(":")) or (port and not origin.endswith(f":{port}")):
        raise Invalid("wrong_type", f"not a port from 1 to 65535 as browsers write it: {text}", "/origins")
    return origin.removesuffix(_DEFAULT_PORTS[scheme])
