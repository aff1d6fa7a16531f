"""``python -m services.collector``: the collector as a process."""

from __future__ import annotations

from libs.common.runtime import run
from services.collector.app import create
from services.collector.settings import CollectorSettings

if __name__ == "__main__":
    run(CollectorSettings, create, "collector")
