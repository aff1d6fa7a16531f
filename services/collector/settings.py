"""Settings of the collector, each declared once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from libs.common.settings import PublishingSettings, service_config


class CollectorSettings(PublishingSettings):
    """What the collector is told beyond what every process is told."""

    model_config = service_config("collector")

    port: int = Field(8001, ge=0, le=65535, description="Port the collector listens on; 0 takes a free one")
    trust_browser_orders: bool = Field(
        False, description="Learn from orders, cancellations and returns reported with publishable keys"
    )
    join_keys: Annotated[tuple[Literal["email", "phone"], ...], NoDecode] = Field(
        (),
        description="Personal traits that stay as a keyed hash (`email_hash`, `phone_hash`), to join records "
        "by: `email`, `phone` or both; the others are dropped",
    )

    @field_validator("join_keys", mode="before")
    @classmethod
    def _read_joins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value
