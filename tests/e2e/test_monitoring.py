"""A real Prometheus watches a real platform: every panel, rule and alert of ours gets its data.

The list of all panels with what each query returned is printed, and written where CLOSEDLOOP_PANELS says.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from deploy.local.scraping import write_scraping
from tests.e2e.rig import Up, eventually
from tests.prometheus_tools import ROOT, rules_without_intervals, tool

DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
WINDOW = "10s"
"""What Grafana would take for $__rate_interval at scrapes of a second."""


class Prometheus:
    """A Prometheus that scrapes a platform every second."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        write_scraping(folder, ports, "1s")
        config = json.loads((folder / "prometheus.yml").read_text())
        config["rule_files"] = rules_without_intervals(folder)
        (folder / "prometheus.yml").write_text(json.dumps(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10, trust_env=False)

    def get(self, path: str, **query: str) -> Any:
        try:
            answer = self._client.get(path, params=query)
        except httpx.TransportError:
            return None
        if answer.status_code == 503:
            return None
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return answer.json()["data"]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found = self.get("/query", query=expr)
        return found["result"] if found else []

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._client.close()
            self._log.close()


class Watched(NamedTuple):
    """A platform in which something has happened, and who watched it."""

    up: Up
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    tool("prometheus")
    up = Up("--ephemeral", "--holdout", "0.3,0.3")
    try:
        up.wait_ready()
        ports = {name: int(url.rpartition(":")[2]) for name, url in up.record["urls"].items()}
        prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), ports)
        try:
            eventually(lambda: len(prometheus.ask("up == 1")) == len(ports), 20)
            for turn in range(4):
                turn_the_loop(up, turn)
                time.sleep(1.5)
            meet_many(up)
            yield Watched(up, prometheus)
        finally:
            prometheus.stop()
    finally:
        up.close()


def turn_the_loop(up: Up, turn: int) -> None:
    """Everything there is a panel for: offers made and taken, repeats, refusals, a record nobody can read."""
    products = [
        {"product_id": f"p-{n}", "name": f"P {n}", "category": "a/b", "price": 2 + n, "currency": "EUR"}
        for n in range(6)
    ]
    assert up.post("recommender", "/v1/products", products).status_code == 200
    for n in range(6):
        lines = [{"product_id": f"p-{m % 6}", "quantity": 1, "price": 2 + m % 6} for m in (n, n + 1, n + 2)]
        order = {"order_id": f"o-{turn}-{n}", "currency": "EUR", "products": lines}
        seen = {
            "type": "product_viewed",
            "channel": "store",
            "customer_id": f"c-{n}",
            "properties": {"product_id": "p-1"},
        }
        bought = {
            "id": f"{turn}-{n}",
            "type": "order_completed",
            "channel": "web",
            "customer_id": f"c-{n}",
            "properties": order,
        }
        # One of them twice, and one that is refused.
        answer = up.post("collector", "/v1/touchpoints", [seen, bought, bought, {"type": "seen"}])
        assert answer.status_code == 202
        ask = {
            "placement": "home",
            "customer_id": f"c-{n}",
            "after": answer.json()["position"],
            "wait_ms": 1000,
        }
        for offer in up.post("recommender", "/v1/recommendations", ask).json()["offers"][:1]:
            for word in ("shown", "clicked", "accepted"):
                outcome = {"token": offer["token"], "outcome": word}
                assert up.post("feedback", "/v1/outcomes", outcome).status_code == 202
    assert up.post("feedback", "/v1/outcomes", {"token": "forged", "outcome": "shown"}).status_code == 422
    link = {"customer_id": "c-1", "anonymous_id": "v-1"}
    assert up.post("collector", "/v1/identities", link).status_code == 202
    produce_nonsense(up.record["kafka"])


CUSTOMERS = 240
"""So many that of each group, three tenths of them or more, nobody is left with fewer than 30."""


def meet_many(up: Up) -> None:
    """What takes days in a shop: trials judged when their window ends, ghosts, lift of whole groups."""
    short = {"window": 2, "ghosts": 0.3, "exploration": 0.2}
    assert up.put("recommender", "/v1/placements/shop", short).status_code == 200
    time.sleep(1.0)
    for turn in range(2):
        asked = {"requests": [{"placement": "shop", "customer_id": f"m-{n}"} for n in range(CUSTOMERS)]}
        answers = up.post("recommender", "/v1/recommendations/batch", asked).json()["answers"]
        outcomes, orders = [], []
        for n, answer in enumerate(answers):
            offers = answer["offers"][:2]
            outcomes += [{"token": offer["token"], "outcome": "shown"} for offer in offers]
            outcomes += [{"token": offer["token"], "outcome": "clicked"} for offer in offers[: n % 2]]
            if n % 3 == 0:
                bought = offers[0]["product_id"] if offers else "p-0"
                lines = [{"product_id": bought, "quantity": 1 + n % 4, "price": 3}]
                orders.append(
                    {
                        "type": "order_completed",
                        "channel": "web",
                        "customer_id": f"m-{n}",
                        "properties": {"order_id": f"m-{turn}-{n}", "currency": "EUR", "products": lines},
                    }
                )
        assert up.post("feedback", "/v1/outcomes", outcomes).status_code == 202
        assert up.post("collector", "/v1/touchpoints", orders).status_code == 202
        time.sleep(2.5)


def produce_nonsense(kafka: str) -> None:
    """A record on the journal that is no event."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka})
    producer.produce("customer-events", value=b"{", key=b"c-1", partition=3)
    assert producer.flush(10) == 0


class Asked(NamedTuple):
    """A query of a panel as Grafana would send it."""

    dashboard: str
    panel: str
    legend: str
    expr: str


def expanded(expr: str) -> str:
    """``expr`` with all template variables at All, and the windows of a young Prometheus."""
    for name, value in {
        "$__rate_interval": WINDOW,
        "$__range": "30s",
        "$source": ".*",
        "$instance": ".*",
        "$placement": ".*",
    }.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def queries() -> list[Asked]:
    return [
        Asked(board["title"], panel["title"], target["legendFormat"], expanded(target["expr"]))
        for board in (json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json")))
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


def spoken(series: list[dict[str, Any]]) -> str:
    """The values of a query, each with its labels."""
    said = []
    for one in series:
        labels = ",".join(
            f"{k}={v}" for k, v in one["metric"].items() if k not in ("__name__", "job", "instance")
        )
        said.append(f"{labels or one['metric'].get('job', '')} {float(one['value'][1]):.4g}".strip())
    return " | ".join(said)


COUNTED = [
    ("closedloop: Pipes", "Dead letters by reason"),
    ("closedloop: Pipes", "Duplicates"),
    ("closedloop: Pipes", "Items refused at the door"),
    ("closedloop: Pipes", "Outcomes refused at the door"),
]
"""Panels that must show more than 0: each has been given something."""


def test_every_panel_shows_data(watched: Watched) -> None:
    """Not only a series: a number. A quantile of a histogram that nobody fed is NaN, and an empty panel.

    Takes up to a minute where the machine is not busy: as often is the lift counted.
    """
    asked = queries()
    shown: dict[Asked, list[dict[str, Any]]] = {}

    def all_there() -> bool:
        for query in asked:
            if query not in shown:
                series = [
                    s for s in watched.prometheus.ask(query.expr) if s["value"][1] not in ("NaN", "+Inf")
                ]
                if series:
                    shown[query] = series
        if len(shown) < len(asked):
            turn_the_loop(watched.up, int(time.time()))
            time.sleep(1.0)
        return len(shown) == len(asked)

    try:
        eventually(all_there, 240)
    finally:
        lines = [
            f"{query.dashboard} / {query.panel} [{query.legend}]: {spoken(shown.get(query, [])) or 'NO DATA'}"
            for query in asked
        ]
        text = f"{len(asked)} queries, {len(shown)} with data\n" + "\n".join(lines) + "\n"
        print(text)
        if path := os.environ.get("CLOSEDLOOP_PANELS"):
            Path(path).write_text(text)

    def counted() -> bool:
        turn_the_loop(watched.up, int(time.time()))
        time.sleep(1.0)
        series = {
            panel: [s for query in asked if query[:2] == panel for s in watched.prometheus.ask(query.expr)]
            for panel in COUNTED
        }
        return all(sum(float(s["value"][1]) for s in some) > 0 for some in series.values())

    eventually(counted, 20)


def test_template_variables_find_their_values(watched: Watched) -> None:
    for path in DASHBOARDS.glob("*.json"):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.match(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
                assert watched.prometheus.get(f"/label/{label}/values", **{"match[]": metric}), variable[
                    "query"
                ]


def test_every_rule_evaluates_and_every_recording_has_data(watched: Watched) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = watched.prometheus.get("/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    eventually(lambda: all(rule["health"] == "ok" for rule in rules()), 15)
    kinds = {rule["type"] for rule in rules()}
    assert kinds == {"recording", "alerting"}
    for rule in rules():
        if rule["type"] == "recording":
            assert watched.prometheus.ask(rule["name"]), rule["name"]
        else:
            watched.prometheus.ask(rule["query"])


def test_a_platform_in_order_raises_no_alarm_but_that_of_dead_letters(watched: Watched) -> None:
    alerts = watched.prometheus.get("/alerts")["alerts"]
    names = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert names <= {"DeadLetters", "DeadLettersBurst"}
    assert "DeadLetters" in names


def test_metrics_show_the_ledger_of_the_api(watched: Watched) -> None:
    def both() -> bool:
        ledger = watched.up.get("analyzer", "/v1/ledger").json()
        shown = {
            s["metric"]["end"]: float(s["value"][1])
            for s in watched.prometheus.ask("closedloop:ledger_records:max")
        }
        return (
            ledger["in_flight"] == 0
            and all(ledger[end] == value for end, value in shown.items())
            and len(shown) == 7
        )

    eventually(both, 15)
