"""Whoever is called finds what to do: every alert leads to a section of the runbook that knows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text().split("- alert: ")[1:]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def anchor_of(title: str) -> str:
    """The anchor that Markdown gives a heading."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).strip().replace(" ", "-")


SECTIONS = {anchor_of(section.partition("\n")[0]): section for section in re.split(r"(?m)^## ", RUNBOOK)[1:]}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.partition("\n")[0])
def test_alert_says_what_it_is_and_where_to_read_on(alert: str) -> None:
    name = alert.partition("\n")[0].strip()
    assert re.search(r"severity: (critical|warning)", alert)
    assert re.search(r'summary: "\S', alert)
    assert re.search(r'description: "\S', alert)
    link = re.search(r"runbook_url: docs/runbook\.md#(\S+)", alert)
    assert link is not None
    section = SECTIONS[link.group(1)]
    assert f"`{name}`" in section
    for part in ("**It means**", "**Look first**", "**Do**", "**It is over when**"):
        assert part in section


def test_links_within_the_runbook_lead_somewhere() -> None:
    assert set(re.findall(r"\]\(#([a-z0-9-]+)\)", RUNBOOK)) <= SECTIONS.keys()
