"""Keys on the command line: added, listed, rotated, revoked; the operator's and the developer's own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy.local.operator_key import operator_key, stored_key
from libs.common.errors import Misconfigured
from libs.common.keys import KeyRing, Scope
from tests.unit.cli_world import no_developer_key, run, said

__all__ = ["no_developer_key"]


def test_keys_are_added_listed_and_revoked(tmp_path: Path) -> None:
    there = ["--data-dir", str(tmp_path)]
    added = run("keys", "add", "--scopes", "collect,recommend", "--name", "shop", *there)
    key = added.output.splitlines()[-1]
    found = KeyRing(tmp_path).find(key)
    assert found is not None
    assert found.scopes == {Scope.COLLECT, Scope.RECOMMEND}
    assert "shop: collect,recommend (secret)" in run("keys", "list", *there).output
    assert run("keys", "revoke", "shop", *there).exit_code == 0
    assert KeyRing(tmp_path).find(key) is None
    again = run("keys", "revoke", "shop", *there)
    assert again.exit_code == 1
    assert "no key called shop" in said(again)


def test_publishable_key_prints_the_identity_secret_before_itself(tmp_path: Path) -> None:
    arguments = ["--publishable", "--origin", "https://shop.example", "--name", "web"]
    lines = run("keys", "add", *arguments, "--data-dir", str(tmp_path)).output.splitlines()
    assert lines[-1].startswith("pk_")
    found = KeyRing(tmp_path).find(lines[-1])
    assert found is not None
    assert found.identity_secret == lines[-2]


def test_key_is_rotated_and_its_elder_revoked(tmp_path: Path) -> None:
    there = ["--data-dir", str(tmp_path)]
    site = ["--publishable", "--origin", "https://shop.example", "--name", "web"]
    old = run("keys", "add", *site, *there).output.splitlines()
    new = run("keys", "add", "--rotate", "--name", "web", *there).output.splitlines()
    assert new[-2] == old[-2]
    assert "replaced" in run("keys", "list", *there).output.splitlines()[0]
    assert run("keys", "revoke", "--replaced", "web", *there).exit_code == 0
    assert KeyRing(tmp_path).find(old[-1]) is None
    assert KeyRing(tmp_path).find(new[-1]) is not None
    again = run("keys", "revoke", "--replaced", "web", *there)
    assert again.exit_code == 1
    assert "nothing is revoked" in said(again)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "x"],
        ["--name", "x", "--rotate"],
        ["--name", "x", "--rotate", "--scopes", "collect"],
        ["--name", "x", "--scopes", "everything"],
        ["--name", "x", "--publishable"],
        ["--name", "x", "--scopes", "collect", "--origin", "https://a.example"],
    ],
)
def test_keys_add_refuses_what_makes_no_key(arguments: list[str], tmp_path: Path) -> None:
    result = run("keys", "add", *arguments, "--data-dir", str(tmp_path))
    assert result.exit_code != 0
    assert "Traceback" not in result.output


def test_taken_key_name_is_one_plain_line(tmp_path: Path) -> None:
    arguments = ["keys", "add", "--scopes", "ops", "--name", "twice", "--data-dir", str(tmp_path)]
    assert run(*arguments).exit_code == 0
    assert run(*arguments).exit_code == 1
    assert "twice" in said(run(*arguments))


def test_operator_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no operator key"):
        stored_key(tmp_path)
    key = operator_key(tmp_path)
    assert operator_key(tmp_path) == stored_key(tmp_path) == key
    found = KeyRing(tmp_path).find(key)
    assert found is not None
    assert found.scopes == set(Scope)
    assert stat.S_IMODE((tmp_path / "secrets" / "operator.key").stat().st_mode) == 0o600


def test_revoked_operator_key_is_made_anew(tmp_path: Path) -> None:
    key = operator_key(tmp_path)
    assert run("keys", "revoke", "operator", "--data-dir", str(tmp_path)).exit_code == 0
    anew = operator_key(tmp_path)
    assert anew != key
    assert KeyRing(tmp_path).find(anew) is not None


def test_developer_key_is_shown_and_commands_work_without_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSEDLOOP_DEV_KEY", "for-development")
    assert stored_key(tmp_path) == "for-development"
    assert operator_key(tmp_path) == "for-development"
    monkeypatch.delenv("CLOSEDLOOP_DEV_KEY")
    found = KeyRing(tmp_path).find(stored_key(tmp_path))
    assert found is not None
    assert found.scopes == set(Scope)


def test_key_is_not_added_to_a_directory_that_is_not_there(tmp_path: Path) -> None:
    result = run("keys", "add", "--name", "shop", "--scopes", "collect", "--data-dir", str(tmp_path / "typo"))
    assert result.exit_code == 1
    assert "there is no directory" in said(result)
    assert list(tmp_path.iterdir()) == []


def test_operator_key_chosen_outside_is_made_known_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "operator_key"
    monkeypatch.setenv("CLOSEDLOOP_OPERATOR_KEY_FILE", str(file))
    arguments = ("keys", "operator", "--data-dir", str(tmp_path))
    assert run(*arguments).exit_code == 1
    for key in ("a" * 32, "b" * 32, "b" * 32):
        file.write_text(key + "\n")
        assert run(*arguments).exit_code == 0
        found = KeyRing(tmp_path).find(key)
        assert found is not None
        assert (found.name, found.scopes) == ("operator", set(Scope))
        assert stored_key(tmp_path) == key
    assert KeyRing(tmp_path).find("a" * 32) is None
    file.write_text("short")
    assert "at least 32" in said(run(*arguments))
