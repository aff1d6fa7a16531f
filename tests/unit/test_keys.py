"""API keys: what is stored, who is found, and how soon a change is seen."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from libs.common.errors import Invalid, Misconfigured
from libs.common.keys import KeyFile, KeyRing, Scope
from libs.common.secrets import Secrets


class Seconds:
    """A monotonic clock turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_added_key_is_found_by_its_secret_alone(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add("shop", [Scope.COLLECT, Scope.RECOMMEND])
    ring = KeyRing(tmp_path)
    key = ring.find(made.key)
    assert key is not None
    assert (key.name, key.scopes) == ("shop", {Scope.COLLECT, Scope.RECOMMEND})
    assert ring.find("shop") is None
    assert ring.find("") is None
    assert ring.find(made.key + "x") is None
    assert ring.find("\udc80") is None


def test_file_is_private_and_holds_no_secret(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add("shop", [Scope.COLLECT])
    path = tmp_path / "secrets" / "keys.json"
    assert made.key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_change_is_seen_within_a_second_by_a_running_ring(tmp_path: Path) -> None:
    seconds = Seconds()
    ring = KeyRing(tmp_path, monotonic=seconds)
    assert ring.find("nothing yet") is None
    first = KeyFile(tmp_path).add("first", [Scope.OPS])
    seconds.now += 1
    assert ring.find(first.key) is not None
    second = KeyFile(tmp_path).add("second", [Scope.OPS])
    KeyFile(tmp_path).revoke("first")
    seconds.now += 1
    assert ring.find(first.key) is None
    assert ring.find(second.key) is not None


def test_damaged_file_leaves_known_keys_working(tmp_path: Path) -> None:
    seconds = Seconds()
    made = KeyFile(tmp_path).add("shop", [Scope.OPS])
    ring = KeyRing(tmp_path, monotonic=seconds)
    assert ring.find(made.key) is not None
    (tmp_path / "secrets" / "keys.json").write_text("{")
    seconds.now += 1
    assert ring.find(made.key) is not None
    with pytest.raises(Misconfigured, match="damaged"):
        KeyFile(tmp_path).list()


def test_dev_key_has_every_scope_and_outlives_reloads(tmp_path: Path) -> None:
    seconds = Seconds()
    ring = KeyRing(tmp_path, "open-sesame", monotonic=seconds)
    KeyFile(tmp_path).add("shop", [Scope.OPS])
    seconds.now += 1
    key = ring.find("open-sesame")
    assert key is not None
    assert (key.name, key.scopes) == ("dev", frozenset(Scope))


def test_names_are_unique_and_the_source_of_the_dev_key_is_taken(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    keys.add("shop", [Scope.OPS])
    for name in ("shop", "dev", "", "a\nb", "x" * 200):
        with pytest.raises(Invalid):
            keys.add(name, [Scope.OPS])
    with pytest.raises(Invalid):
        keys.add("without scopes", [])
    assert [key.name for key in keys.list()] == ["shop"]


def test_adding_at_the_same_time_loses_no_key(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=KeyFile(tmp_path).add, args=(f"key-{number}", [Scope.OPS]))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in KeyFile(tmp_path).list()} == {f"key-{number}" for number in range(12)}


def test_publishable_key_is_bound_to_origins_scopes_and_signatures(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("site", ["https://Shop.example/", "http://127.0.0.1:8080"])
    assert made.key.startswith("pk_")
    assert made.identity_secret
    key = KeyRing(tmp_path).find(made.key)
    assert key is not None
    assert key.scopes == {Scope.COLLECT, Scope.RECOMMEND}
    assert key.allows_origin("https://shop.example")
    assert not key.allows_origin("https://evil.example")
    assert not key.allows_origin(None)
    signature = hmac.new(made.identity_secret.encode(), b"c-1", hashlib.sha256).hexdigest()
    assert key.signed("c-1", signature)
    assert not key.signed("c-2", signature)
    assert not key.signed("c-1", "é")
    assert not key.signed("c-1", None)


def test_origins_are_written_as_browsers_write_them(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("site", ["https://Shop.Example:443/", "http://[::1]:80"])
    key = KeyRing(tmp_path).find(made.key)
    assert key is not None
    assert key.origins == ("http://[::1]", "https://shop.example")


@pytest.mark.parametrize(
    "origin",
    [
        "https://*.shop.example",
        "https://shop.example:0443",
        "https://shop.example:",
        "https://shop.example:0",
        "https://shop.example:99999",
        "https://shop.example:x",
        "shop.example",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(Invalid) as refused:
        KeyFile(tmp_path).add_publishable("site", ["https://shop.example:8443", origin])
    assert origin in refused.value.reason
    assert KeyFile(tmp_path).list() == []


@pytest.mark.parametrize("digest", ["zz", "ab", "é" * 64, "a" * 63, "g" * 64, "a" * 64 + "\n"])
def test_damaged_digest_leaves_known_keys_working_and_is_told_of_once(
    tmp_path: Path, digest: str, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = Seconds()
    made = KeyFile(tmp_path).add("shop", [Scope.OPS])
    ring = KeyRing(tmp_path, "open-sesame", monotonic=seconds)
    assert ring.find(made.key) is not None
    path = tmp_path / "secrets" / "keys.json"
    stored = json.loads(path.read_text())
    stored["keys"].append({**stored["keys"][0], "name": "other", "sha256": digest})
    path.write_text(json.dumps(stored))
    for _ in range(3):
        seconds.now += 1
        assert ring.find(made.key) is not None
        assert ring.find("open-sesame") is not None
        assert ring.find("nobody's") is None
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    with pytest.raises(Misconfigured, match="damaged"):
        KeyFile(tmp_path).list()


def test_preflights_are_answered_for_origins_of_live_publishable_keys_alone(tmp_path: Path) -> None:
    seconds = Seconds()
    ring = KeyRing(tmp_path, "open-sesame", monotonic=seconds)
    assert not ring.admits("https://shop.example")
    KeyFile(tmp_path).add_publishable("site", ["https://shop.example"])
    KeyFile(tmp_path).add("server", [Scope.COLLECT])
    seconds.now += 1
    assert ring.admits("https://shop.example")
    assert not ring.admits("https://evil.example")
    assert not ring.admits("null")
    KeyFile(tmp_path).revoke("site")
    seconds.now += 1
    assert not ring.admits("https://shop.example")


def test_rotated_key_lives_beside_its_elder_until_that_is_revoked(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    old = keys.add_publishable("site", ["https://shop.example"])
    keys.add("other", [Scope.OPS])
    new = keys.rotate("site")
    assert new.key.startswith("pk_")
    assert new.key != old.key
    assert new.identity_secret == old.identity_secret
    first, second = KeyRing(tmp_path).find(old.key), KeyRing(tmp_path).find(new.key)
    assert first is not None
    assert second is not None
    assert (first.replaced, second.replaced) == (True, False)
    assert (first.name, first.origins, first.identity_secret) == (
        second.name,
        second.origins,
        new.identity_secret,
    )
    with pytest.raises(Invalid, match="revoke the older"):
        keys.rotate("site")
    assert keys.revoke("site", replaced_only=True)
    ring = KeyRing(tmp_path)
    assert ring.find(old.key) is None
    assert ring.find(new.key) is not None
    assert not keys.revoke("site", replaced_only=True)
    assert not keys.revoke("other", replaced_only=True)
    keys.rotate("site")
    assert keys.revoke("site")
    assert [key.name for key in keys.list()] == ["other"]
    with pytest.raises(Invalid, match="no key called"):
        keys.rotate("site")


def test_rotated_secret_key_keeps_its_scopes(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    keys.add("server", [Scope.COLLECT, Scope.CUSTOMERS])
    made = keys.rotate("server")
    key = KeyRing(tmp_path).find(made.key)
    assert key is not None
    assert made.key.startswith("sk_")
    assert made.identity_secret is None
    assert (key.name, key.scopes, key.publishable) == ("server", {Scope.COLLECT, Scope.CUSTOMERS}, False)


@pytest.mark.parametrize(
    "origin",
    ["https://käse.example", "", "shop.example", "ftp://x", "https://", "https://a/b", "https://u@h"],
)
def test_origin_that_is_none_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(Invalid):
        KeyFile(tmp_path).add_publishable("site", [origin])


def test_secrets_are_made_once_private_and_differ(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(Secrets(tmp_path).token_key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert found[0] != Secrets(tmp_path).holdout_salt()
    assert stat.S_IMODE((tmp_path / "secrets" / "token.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "secrets").iterdir()) == ["salt.key", "token.key"]


def test_damaged_secret_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    Secrets(tmp_path).token_key()
    (tmp_path / "secrets" / "token.key").write_bytes(b"short")
    with pytest.raises(Misconfigured, match=r"token\.key is damaged"):
        Secrets(tmp_path).token_key()


@pytest.mark.parametrize("name", ["dev", "recommender", "feedback"])
def test_key_cannot_take_a_name_of_the_platform(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="the platform's own"):
        KeyFile(tmp_path).add(name, [Scope.COLLECT])
    assert KeyFile(tmp_path).list() == []


def test_installation_secret_gives_the_same_secrets_on_every_machine(tmp_path: Path) -> None:
    root = SecretStr("x" * 32)
    here, there = Secrets(tmp_path / "a", root), Secrets(tmp_path / "b", root)
    assert here.token_key() == there.token_key()
    assert here.holdout_salt() == there.holdout_salt()
    assert (
        len({here.token_key(), here.holdout_salt(), Secrets(tmp_path, SecretStr("y" * 32)).token_key()}) == 3
    )
    assert not (tmp_path / "a").exists()
