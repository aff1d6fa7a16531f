"""Settings of the analyzer, each declared once."""

from __future__ import annotations

from pydantic import Field

from libs.common.settings import CommonSettings, service_config


class AnalyzerSettings(CommonSettings):
    """What the analyzer is told beyond what every process is told."""

    model_config = service_config("analyzer")

    port: int = Field(
        default=8002, ge=0, le=65535, description="Port the analyzer listens on; 0 takes a free one"
    )
    slice_records: int = Field(
        default=1_000, ge=1, le=100_000, description="Most records polled at once, and so the longest slice"
    )
    concurrency: int = Field(default=4, ge=1, le=64, description="Partitions processed side by side")
    cache_bytes: int = Field(
        default=48_000_000,
        ge=0,
        description="Encoded size of the customer models kept in memory; as objects they take ten times that",
    )
    dead_letter_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of dead letters among the latest records above which consuming stops; 1: never",
    )
    panel_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of customers whose orders are learned with what was known of them before, for the"
        " learner of choice; by a hash of the key. Lessons of orders grow by their items (5 kB typically)."
        " Another share changes lessons only after a rebuild",
    )
    rebuild_processes: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Partitions folded side by side by a rebuild; 0: as many as there are cores",
    )
