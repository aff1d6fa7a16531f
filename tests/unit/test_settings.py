"""Settings: where they come from, what a wrong one says, what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError

from libs.common.errors import Misconfigured
from libs.common.settings import (
    CommonSettings,
    list_declared,
    list_settings,
    load_settings,
    service_config,
    unknown_variables,
)


class ShelfSettings(CommonSettings):
    """Settings of a service that exists only here."""

    model_config = service_config("shelf")

    port: int = Field(default=8100, description="Port")
    boards: int = Field(default=3, ge=1, description="How many boards")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("CLOSEDLOOP_")]:
        monkeypatch.delenv(name)


def test_common_names_hold_in_every_service_and_own_names_have_its_prefix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOSEDLOOP_DATA_DIR", "/srv/data")
    monkeypatch.setenv("CLOSEDLOOP_SHELF_BOARDS", "7")
    monkeypatch.setenv("CLOSEDLOOP_SHELF_PORT", "9")
    monkeypatch.setenv("CLOSEDLOOP_HOLDOUT", "0,0.1")
    settings = load_settings(ShelfSettings)
    assert settings.data_dir == Path("/srv/data")
    assert (settings.boards, settings.port) == (7, 9)
    assert settings.holdout == (0.0, 0.1)


def test_defaults_need_no_environment_and_are_frozen() -> None:
    settings = load_settings(ShelfSettings)
    assert (settings.port, settings.clock, settings.holdout) == (8100, "wall", (0.05, 0.05))
    with pytest.raises(ValidationError):
        settings.port = 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CLOSEDLOOP_SHELF_BOARDS", "many"),
        ("CLOSEDLOOP_SHELF_BOARDS", "0"),
        ("CLOSEDLOOP_CLOCK", "sundial"),
        ("CLOSEDLOOP_HOLDOUT", "0.7,0.7"),
        ("CLOSEDLOOP_HOLDOUT", "nan,0"),
        ("CLOSEDLOOP_HOLDOUT", "0.1"),
        ("CLOSEDLOOP_CURRENCY", "euro"),
    ],
)
def test_wrong_setting_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured) as caught:
        load_settings(ShelfSettings)
    assert str(caught.value).startswith(f"{variable}: ")
    assert "\n" not in str(caught.value)


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    settings = ShelfSettings(
        dev_key=SecretStr("open-sesame"), postgres=SecretStr("postgresql://u:hush@h/d"), boards=4
    )
    shown = {line.variable: line.value for line in list_settings(settings)}
    assert "open-sesame" not in str(shown)
    assert "hush" not in str(shown)
    assert shown["CLOSEDLOOP_SHELF_BOARDS"] == "4"
    assert shown["CLOSEDLOOP_HOLDOUT"] == "0.05,0.05"


def test_every_setting_explains_itself() -> None:
    lines = list_declared(ShelfSettings)
    assert all(line.description for line in lines)
    assert {"CLOSEDLOOP_SHELF_PORT", "CLOSEDLOOP_KAFKA"} <= {line.variable for line in lines}


def test_misspelt_variables_of_the_service_are_noticed() -> None:
    names = ["CLOSEDLOOP_SHELF_BORDS", "CLOSEDLOOP_SHELF_PORT", "CLOSEDLOOP_OTHER_X", "PATH"]
    assert unknown_variables(ShelfSettings, names) == ["CLOSEDLOOP_SHELF_BORDS"]


def test_setting_is_read_from_the_file_its_variable_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "boards").write_text("9\n")
    monkeypatch.setenv("CLOSEDLOOP_SHELF_BOARDS_FILE", str(tmp_path / "boards"))
    (tmp_path / "key").write_text("for-development\n")
    monkeypatch.setenv("CLOSEDLOOP_DEV_KEY_FILE", str(tmp_path / "key"))
    settings = load_settings(ShelfSettings)
    assert settings.boards == 9
    assert settings.dev_key is not None
    assert settings.dev_key.get_secret_value() == "for-development"
    assert unknown_variables(ShelfSettings) == []


@pytest.mark.parametrize(("content", "says"), [(None, "cannot read"), (b"", "empty"), (b"\xff", "not text")])
def test_file_of_a_setting_that_cannot_be_used_is_named(
    content: bytes | None, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "boards").write_bytes(content)
    monkeypatch.setenv("CLOSEDLOOP_SHELF_BOARDS_FILE", str(tmp_path / "boards"))
    with pytest.raises(Misconfigured, match=f"CLOSEDLOOP_SHELF_BOARDS_FILE.*{says}"):
        load_settings(ShelfSettings)


def test_setting_given_twice_starts_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "boards").write_text("9")
    monkeypatch.setenv("CLOSEDLOOP_SHELF_BOARDS_FILE", str(tmp_path / "boards"))
    monkeypatch.setenv("CLOSEDLOOP_SHELF_BOARDS", "9")
    with pytest.raises(Misconfigured, match="both set"):
        load_settings(ShelfSettings)


def test_database_password_is_put_into_its_url_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    monkeypatch.setenv("CLOSEDLOOP_POSTGRES_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("CLOSEDLOOP_POSTGRES", "postgresql://me@db:1/closedloop")
    settings = load_settings(ShelfSettings)
    assert settings.postgres.get_secret_value() == "postgresql://me:p%40ss%2Fword@db:1/closedloop"
    assert "p@ss" not in repr(list_settings(settings))
    assert "p%40ss" not in repr(list_settings(settings))
    monkeypatch.setenv("CLOSEDLOOP_POSTGRES", "postgresql://me:own@db:1/closedloop")
    assert load_settings(ShelfSettings).postgres.get_secret_value() == "postgresql://me:own@db:1/closedloop"
