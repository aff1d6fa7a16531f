"""Settings of the recommender."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from libs.common.settings import PublishingSettings, service_config


class RecommenderSettings(PublishingSettings):
    """What the recommender is told; read from ``CLOSEDLOOP_RECOMMENDER_*`` and the common variables."""

    model_config = service_config("recommender")

    port: int = Field(8003, ge=0, le=65535, description="Port the service listens on; 0 takes a free one")
    unknown_consent: Literal["personal", "contextual"] = Field(
        "personal",
        description="What a customer gets on own channels who was never asked for consent; "
        "by e-mail, phone and post it is contextual always",
    )
    existing_customer: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Channels on which customers who have bought count as consenting until they object "
        "(legal basis: existing customer), separated by commas, e.g. `email`",
    )
    decision_days: int = Field(30, ge=1, description="Days that the pools of decisions are kept")
    answers: int = Field(10_000, ge=0, description="First answers kept in memory for repeated decision ids")
    people: int = Field(2_000, ge=0, description="Decoded customer models kept in memory")

    @field_validator("existing_customer", mode="before")
    @classmethod
    def _read_channels(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value
