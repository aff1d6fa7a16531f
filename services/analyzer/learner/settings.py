"""Settings of the learner, each declared once."""

from __future__ import annotations

from pydantic import Field

from libs.common.settings import CommonSettings, service_config


class LearnerSettings(CommonSettings):
    """What the learner is told beyond what every process is told."""

    model_config = service_config("learner")

    port: int = Field(
        default=8005, ge=0, le=65535, description="Port the learner listens on; 0 takes a free one"
    )
    poll_seconds: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="How often new lessons are looked for while there are none; by default 0.05, on a journal"
        " clock 0.02",
    )
    publish_seconds: float | None = Field(
        default=None,
        ge=0,
        le=60,
        description="Least time between two publications; by default 1, on a journal clock 0.1",
    )
    half_life_days: float = Field(
        default=180.0,
        ge=0,
        le=36_500,
        description="Journal days after which a trial counts half in the response model, 0 for never;"
        " another value learns everything anew",
    )
    checkpoint_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="Least time between two checkpoints"
    )
