"""The runbook inside Grafana: one panel for each section, so that a link from a panel opens just that."""

from __future__ import annotations

import re

from grafana_foundation_sdk.builders import dashboard, text
from grafana_foundation_sdk.models.text import TextMode

from deploy.local.dashboards.panels import RUNBOOK, page
from deploy.local.dashboards.sections import place_of, sections

_LINK = re.compile(r"\[([^\]]*)\]\((?!#)[^)]*\)")
_JUMP = re.compile(r"\[([^\]]*)\]\(#([a-z0-9-]+)\)")


def runbook() -> dashboard.Dashboard:
    """The dashboard."""
    found = page(RUNBOOK, "Runbook", "What to do when something is wrong: docs/runbook.md of this version.")
    places = {title.lower().replace(" ", "-"): place_of(title) for title in sections()}
    for title, body in sections().items():
        body = _JUMP.sub(lambda jump: f"[{jump[1]}](/d/{RUNBOOK}?viewPanel={places[jump[2]]})", body)
        # Links to other pages lead nowhere from inside Grafana; their words stay.
        panel = text.Panel().id(place_of(title)).title(title).mode(TextMode.MARKDOWN)
        found = found.with_panel(
            panel.content(_LINK.sub(r"\1", body) if "/d/" not in body else body).height(9).span(12)
        )
    return found
