"""The sections of docs/runbook.md: what panels link to, and which panel of the runbook's page shows each."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path(__file__).parents[3] / "docs" / "runbook.md"


def sections() -> dict[str, str]:
    """Text by title, in the order of the page."""
    found = {}
    for part in re.split(r"(?m)^## ", FILE.read_text())[1:]:
        title, _, text = part.partition("\n")
        found[title.strip()] = text.strip()
    return found


def place_of(title: str) -> int:
    """The id of the panel that shows section ``title``; raises ValueError where there is none."""
    return 1 + list(sections()).index(title)
