"""Settings of feedback, each declared once."""

from __future__ import annotations

from pydantic import Field

from libs.common.settings import PublishingSettings, service_config


class FeedbackSettings(PublishingSettings):
    """What feedback is told beyond what every process is told."""

    model_config = service_config("feedback")

    port: int = Field(8004, ge=0, le=65535, description="Port feedback listens on; 0 takes a free one")
    token_seconds: int = Field(
        90 * 24 * 3600, gt=0, description="Seconds for which an offer's token may be handed back"
    )
