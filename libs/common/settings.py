"""Settings: each one declared once, read from the environment, frozen, shown masked at start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from libs.common.errors import Misconfigured

_MASK = "********"


def service_config(service: str) -> SettingsConfigDict:
    """The ``model_config`` of a service's settings: own fields are read as ``CLOSEDLOOP_<SERVICE>_<NAME>``."""
    return SettingsConfigDict(
        env_prefix=f"CLOSEDLOOP_{service.upper()}_",
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
    )


def _common(variable: str, default: Any, description: str, **more: Any) -> Any:
    return Field(default, validation_alias=variable, description=description, **more)


class CommonSettings(BaseSettings):
    """What every process of the platform is told.

    A service subclasses it, sets ``model_config = service_config("collector")``, gives ``port`` its default
    and adds fields of its own. Common fields keep their names whatever the prefix. For tests:
    ``CollectorSettings(data_dir=tmp_path, kafka="")``.
    """

    model_config = service_config("common")

    data_dir: Path = _common(
        "CLOSEDLOOP_DATA_DIR", Path(".closedloop"), "Directory of spools, views, secrets and logs"
    )
    kafka: str = _common("CLOSEDLOOP_KAFKA", "127.0.0.1:9092", "Address of the Kafka broker, host:port")
    postgres: SecretStr = _common(
        "CLOSEDLOOP_POSTGRES",
        SecretStr("postgresql://postgres@127.0.0.1:5432/closedloop"),
        "URL of the PostgreSQL database; `postgres.get_secret_value()` gives it",
    )
    clock: Literal["wall", "journal"] = _common(
        "CLOSEDLOOP_CLOCK", "wall", "Which time the platform lives in: wall, or journal for replays and tests"
    )
    dev_key: SecretStr | None = _common(
        "CLOSEDLOOP_DEV_KEY", None, "A key with every scope, for development; its source name is dev"
    )
    host: str = _common("CLOSEDLOOP_HOST", "127.0.0.1", "Address the service listens on")
    currency: str = _common(
        "CLOSEDLOOP_CURRENCY", "EUR", "Base currency of this installation", pattern="^[A-Z]{3}$"
    )
    holdout: Annotated[tuple[float, float], NoDecode] = _common(
        "CLOSEDLOOP_HOLDOUT",
        (0.05, 0.05),
        "Shares of customers in the groups baseline and none, as BASELINE,NONE; 0,0 for no holdout",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _common(
        "CLOSEDLOOP_LOG_LEVEL", "info", "Least severity that is logged"
    )
    port: int = Field(0, ge=0, le=65535, description="Port the service listens on; 0 takes a free one")
