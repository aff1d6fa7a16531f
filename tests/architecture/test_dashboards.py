"""The dashboards of Grafana are what the code says, and every panel says what it shows and what to do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.local.dashboards.__main__ import FOLDER, dashboards
from deploy.local.dashboards.sections import sections

MADE = dashboards()
PANELS = [
    (name, panel)
    for name, text in MADE.items()
    for panel in json.loads(text)["panels"]
    if panel["type"] not in ("row", "text")
]


@pytest.mark.parametrize("name", sorted(MADE))
def test_dashboard_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text() == MADE[name], "run `make docs`"


def test_no_dashboard_is_left_over() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(MADE)


@pytest.mark.parametrize("name", sorted(MADE))
def test_panels_fill_their_rows_and_do_not_lie_on_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(MADE[name])["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in json.loads(MADE[name])["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_panel_says_what_it_shows(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 15
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["expr"]
        assert target["legendFormat"]
    if named := re.search(r"Runbook: (.*)\.$", panel["description"]):
        assert named.group(1) in sections()
        (link,) = panel["links"]
        place = int(link["url"].rpartition("=")[2])
        shown = [one for one in json.loads(MADE["runbook.json"])["panels"] if one["id"] == place]
        assert [one["title"] for one in shown] == [named.group(1)]


def test_dashboards_ask_only_for_what_the_services_declare() -> None:
    """A typing error in a query shows as an empty panel, and only to whoever looks."""
    reference = (FOLDER.parents[2] / "docs" / "reference" / "metrics.md").read_text()
    declared = set(re.findall(r"`(closedloop_\w+)`", reference))
    rules = (FOLDER.parents[1] / "prometheus" / "rules" / "recording.yml").read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    for name, panel in PANELS:
        for target in panel["targets"]:
            for asked in re.findall(r"\bclosedloop[:_][a-z0-9_:]+", target["expr"]):
                plain = re.sub(r"_(bucket|sum|count)$", "", asked)
                assert {asked, plain} & (declared | recorded), f"{name}: {panel['title']}: {asked}"


@pytest.mark.parametrize("name", sorted(MADE))
def test_dashboard_is_what_grafana_reads(name: str) -> None:
    """Read by the schema of Grafana's SDK and written again, nothing of it is gone."""
    register_default_plugins()
    written = json.loads(MADE[name])
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    assert not lost(written, read)


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """What of ``before`` is not in ``after``; defaults that were filled in do not matter."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line for key, value in before.items() for line in lost(value, after.get(key), f"{path}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for at, (old, new) in pairs for line in lost(old, new, f"{path}/{at}")]
    return [] if before == after else [path]
