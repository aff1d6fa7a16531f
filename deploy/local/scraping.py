"""What a Prometheus on this machine needs to watch the platform of a data directory."""

from __future__ import annotations

import json
from pathlib import Path

RULES = Path(__file__).parents[1] / "prometheus" / "rules"
FILE = "prometheus.yml"


def write_scraping(data_dir: Path, ports: dict[str, int], interval: str = "5s") -> None:
    """Write ``prometheus.yml``: the processes as targets, rules and alerts as deploy/prometheus has them."""
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(RULES / "*.yml")],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, port in ports.items()
        ],
    }
    # JSON is YAML too.
    (data_dir / FILE).write_text(json.dumps(config, indent=2) + "\n")
