"""Settings: each one declared once, read from the environment or a file, frozen, shown masked at start.

Any setting may be read from a file: ``CLOSEDLOOP_X_FILE`` names the file that holds what ``CLOSEDLOOP_X``
would say, as containers are given their secrets. Where both are set nothing starts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from libs.common.errors import Misconfigured

_MASK = "********"
_FILE = "_FILE"


def service_config(service: str) -> SettingsConfigDict:
    """The ``model_config`` of a service's settings: its variables are ``CLOSEDLOOP_<SERVICE>_<NAME>``."""
    return SettingsConfigDict(
        env_prefix=f"CLOSEDLOOP_{service.upper()}_",
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
    )


class _Files(PydanticBaseSettingsSource):
    """Settings whose variable with ``_FILE`` at its end names a file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = _variable(self.settings_cls, field_name, field)
        named = os.environ.get(variable + _FILE)
        if named is None:
            return None, field_name, False
        if variable in os.environ:
            raise Misconfigured(f"{variable} and {variable}{_FILE} are both set: keep one of them")
        try:
            value = Path(named).read_text().strip()
        except OSError as error:
            raise Misconfigured(f"{variable}{_FILE}: cannot read {named}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise Misconfigured(f"{variable}{_FILE}: {named} is not text") from None
        if not value:
            raise Misconfigured(f"{variable}{_FILE}: {named} is empty")
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(info, name)[0] for name, info in self._fields()}
        return {name: value for name, value in values.items() if value is not None}

    def _fields(self) -> list[tuple[str, FieldInfo]]:
        return list(self.settings_cls.model_fields.items())


def _common(variable: str, default: Any, description: str, **more: Any) -> Any:
    return Field(default, validation_alias=variable, description=description, **more)


class CommonSettings(BaseSettings):
    """What every process of the platform is told.

    A service subclasses it, sets ``model_config = service_config("collector")``, gives ``port`` its default
    and adds fields of its own (``Field(default=…, description=…)``: mypy wants ``default`` by name). Common
    fields keep their variables whatever the prefix. For tests:
    ``CollectorSettings(data_dir=tmp_path, kafka="")``.
    """

    model_config = service_config("common")

    data_dir: Path = _common(
        "CLOSEDLOOP_DATA_DIR", Path(".closedloop"), "Directory of spools, views, secrets and logs"
    )
    kafka: str = _common("CLOSEDLOOP_KAFKA", "127.0.0.1:9092", "Address of the Kafka broker, host:port")
    kafka_replication: int = _common(
        "CLOSEDLOOP_KAFKA_REPLICATION", 1, "Replicas of the topics that are made on the cluster", ge=1, le=10
    )
    postgres_password: SecretStr | None = _common(
        "CLOSEDLOOP_POSTGRES_PASSWORD", None, "Password of the database, where it is not in the URL"
    )
    postgres: SecretStr = _common(
        "CLOSEDLOOP_POSTGRES",
        SecretStr("postgresql://postgres@127.0.0.1:5432/closedloop"),
        "URL of the PostgreSQL database; `postgres.get_secret_value()` gives it",
    )
    installation_secret: SecretStr | None = _common(
        "CLOSEDLOOP_INSTALLATION_SECRET",
        None,
        "At least 32 characters from which all secrets of the installation are derived; "
        "without, they are made once in the data directory",
        min_length=32,
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
    rate_publishable: int = _common(
        "CLOSEDLOOP_RATE_PUBLISHABLE",
        1_000,
        "Requests a second by all pages of a publishable key, ten times as many at once; 0: no limit",
        ge=0,
        le=1_000_000,
    )
    rate_address: int = _common(
        "CLOSEDLOOP_RATE_ADDRESS",
        100,
        "Requests a second by one address (IPv6: /64) without a secret key, ten times as many at once; "
        "0: no limit",
        ge=0,
        le=1_000_000,
    )
    rate_server: int = _common(
        "CLOSEDLOOP_RATE_SERVER",
        0,
        "Requests a second by one secret key, ten times as many at once; 0: no limit",
        ge=0,
        le=1_000_000,
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = _common(
        "CLOSEDLOOP_TRUSTED_PROXIES",
        (),
        "Addresses and networks of proxies whose X-Forwarded-For is believed: `10.0.0.0/8,192.0.2.7`",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _common(
        "CLOSEDLOOP_LOG_LEVEL", "info", "Least severity that is logged"
    )
    port: int = Field(
        default=0, ge=0, le=65535, description="Port the service listens on; 0 takes a free one"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then files named in the environment."""
        return init_settings, env_settings, _Files(settings_cls)

    @field_validator("postgres")
    @classmethod
    def _put_in_password(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        # Whoever connects needs one URL; the password comes by itself where it is somebody else's secret too.
        password: SecretStr | None = info.data.get("postgres_password")
        if password is None:
            return value
        try:
            url = make_url(value.get_secret_value())
        except (ArgumentError, ValueError):
            return value
        if url.password is None:
            url = url.set(password=password.get_secret_value())
        return SecretStr(url.render_as_string(hide_password=False))

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _read_networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        return value

    @field_validator("holdout", mode="before")
    @classmethod
    def _read_shares(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return value

    @field_validator("holdout")
    @classmethod
    def _check_shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        # Written so that NaN fails too.
        if not (0 <= value[0] <= 1 and 0 <= value[1] <= 1 and value[0] + value[1] <= 1):
            raise ValueError("two shares from 0 to 1 that add up to at most 1, e.g. 0.05,0.05")
        return value


class PublishingSettings(CommonSettings):
    """What every process with a spool is told."""

    spool_bytes: int = _common(
        "CLOSEDLOOP_SPOOL_BYTES",
        8 << 30,
        "Quota of each service's spool; above it new events are refused with 503 `spool_full`",
        ge=1 << 20,
    )
    spool_free_bytes: int = _common(
        "CLOSEDLOOP_SPOOL_FREE_BYTES",
        512 << 20,
        "Least free bytes of the disk the spool is on; below it new events are refused with 503 `spool_full`",
        ge=0,
    )


S = TypeVar("S", bound=CommonSettings)


@dataclass(frozen=True)
class SettingLine:
    """A setting as shown in the start-up log and in the reference: secrets are masked."""

    variable: str
    value: str
    default: str
    description: str


def load_settings(settings_type: type[S]) -> S:
    """Read settings from the environment; raises `Misconfigured`, one line that names the variable."""
    try:
        return settings_type()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        variable = _variable_at(settings_type, str(first["loc"][0]) if first["loc"] else "")
        reason = first["msg"].removeprefix("Value error, ").replace("\n", " ")
        raise Misconfigured(f"{variable}: {reason}") from None
    except SettingsError as error:
        raise Misconfigured(" ".join(str(error).split())) from None


def list_settings(settings: CommonSettings) -> list[SettingLine]:
    """Every setting with its value, secrets masked: for the log line at start."""
    return [_line(type(settings), name, getattr(settings, name)) for name in type(settings).model_fields]


def list_declared(settings_type: type[CommonSettings]) -> list[SettingLine]:
    """Every setting with its default: for the generated reference."""
    return [
        _line(settings_type, name, info.get_default(call_default_factory=True, validated_data={}))
        for name, info in settings_type.model_fields.items()
    ]


def unknown_variables(settings_type: type[CommonSettings], environ: Sequence[str] | None = None) -> list[str]:
    """Variables with this service's prefix that no setting reads: most likely misspelt."""
    known = {variable_name(settings_type, name) for name in settings_type.model_fields}
    known |= {variable + _FILE for variable in known}
    prefix = str(settings_type.model_config.get("env_prefix", ""))
    names = os.environ if environ is None else environ
    return sorted(name for name in names if name.upper().startswith(prefix) and name.upper() not in known)


def variable_name(settings_type: type[CommonSettings], field: str) -> str:
    """The environment variable a field is read from."""
    return _variable(settings_type, field, settings_type.model_fields[field])


def _variable(settings_type: type[BaseSettings], name: str, info: FieldInfo) -> str:
    alias = info.validation_alias
    if isinstance(alias, str):
        return alias
    return f"{settings_type.model_config.get('env_prefix', '')}{name.upper()}"


def _variable_at(settings_type: type[CommonSettings], location: str) -> str:
    if location in settings_type.model_fields:
        return variable_name(settings_type, location)
    return location if location.startswith("CLOSEDLOOP_") else f"setting {location!r}"


def _line(settings_type: type[CommonSettings], name: str, value: object) -> SettingLine:
    info: FieldInfo = settings_type.model_fields[name]
    default = info.get_default(call_default_factory=True, validated_data={})
    return SettingLine(
        variable=variable_name(settings_type, name),
        value=_shown(value),
        default=_shown(default),
        description=info.description or "",
    )


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return _MASK
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return str(value)
