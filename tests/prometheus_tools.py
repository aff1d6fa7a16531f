"""Prometheus and promtool as Debian packages them; without them tests fail in CI, else are skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "rules"


def rules_without_intervals(folder: Path) -> list[str]:
    """Copies of all rule files, the groups of which are evaluated as often as all others."""
    copies = []
    for path in sorted(RULES.glob("*.yml")):
        copy = folder / path.name
        lines = path.read_text().splitlines(keepends=True)
        copy.write_text("".join(line for line in lines if not line.strip().startswith("interval:")))
        copies.append(str(copy))
    return copies


def tool(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
