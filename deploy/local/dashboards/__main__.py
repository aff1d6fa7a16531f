"""`python -m deploy.local.dashboards`: writes every dashboard as JSON, for Grafana to be provisioned with."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.local.dashboards.honesty import honesty
from deploy.local.dashboards.loop import loop
from deploy.local.dashboards.pipes import pipes
from deploy.local.dashboards.runbook import runbook
from deploy.local.dashboards.services import SERVICES, service

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"


def dashboards() -> dict[str, str]:
    """Every dashboard by file name, as it should be now."""
    made: list[Dashboard] = [
        loop(),
        honesty(),
        pipes(),
        *(service(*one) for one in SERVICES.items()),
        runbook(),
    ]
    encoder = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False)
    found = {}
    for one in made:
        built = one.build()
        for number, panel in enumerate(built.panels or [], start=1):
            panel.id_val = panel.id_val or number
        found[f"{(built.uid or '').removeprefix('closedloop-')}.json"] = encoder.encode(built) + "\n"
    return found


def main() -> None:
    """Write them all, and take away what is none any more."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = dashboards()
    for path in FOLDER.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
