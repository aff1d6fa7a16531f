"""Settings of the collector, each declared once."""

from __future__ import annotations

from pydantic import Field

from libs.common.settings import PublishingSettings, service_config


class CollectorSettings(PublishingSettings):
    """What the collector is told beyond what every process is told."""

    model_config = service_config("collector")

    port: int = Field(8001, ge=0, le=65535, description="Port the collector listens on; 0 takes a free one")
    trust_browser_orders: bool = Field(
        False, description="Learn from orders, cancellations and returns reported with publishable keys"
    )
