"""The stack of docker-compose.yml, started and looked at from outside."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx

from tests.compose.engine import ROOT, call, compose_command

PROJECT = "closedloopcheck"
APIS = ("collector", "analyzer", "recommender", "feedback")
OURS = (*APIS, "learner")
SERVERS = ("kafka", "postgres", "prometheus", "grafana")
JOBS = ("topics", "migrate", "operator")
SECRETS = ("database_password", "installation_secret", "operator_key", "grafana_password")


class Failed(AssertionError):
    """What was promised did not hold."""


def demand(holds: object, what: str) -> None:
    """Raise `Failed` unless it holds."""
    if not holds:
        raise Failed(what)


def until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> float:
    """Wait until it holds; returns the seconds it took, raises `Failed` with ``what`` when they are over."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - began


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Stack:
    """The compose file as a project of its own, on free ports and with secrets of its own.

    Keeps the client's own ledger: how many events of each customer were answered 202.
    """

    def __init__(self, folder: Path) -> None:
        self.ports = dict(zip((*APIS, "grafana"), free_ports(5), strict=True))
        self.secrets = folder / "secrets"
        call(ROOT / "deploy/docker/secrets.sh", self.secrets)
        command = compose_command()
        assert command is not None
        self._command = (*command, "--project-name", PROJECT, "--file", str(ROOT / "docker-compose.yml"))
        self.variables = {
            "CLOSEDLOOP_SECRETS": str(self.secrets),
            "CLOSEDLOOP_IMAGE": "closedloop:check",
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            **{f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
        }
        self.http = httpx.Client(timeout=20, trust_env=False)
        self.key = ""
        self.accepted: Counter[str] = Counter()

    def compose(self, *arguments: str, check: bool = True, seconds: float = 1200) -> str:
        """Run compose; what it wrote to stdout."""
        done = call(
            *self._command,
            *arguments,
            check=check,
            timeout=seconds,
            env={**os.environ, **self.variables},
            cwd=ROOT,
        )
        return done.stdout

    def up(self) -> float:
        """Start everything and wait until all of it is healthy; returns the seconds."""
        began = time.monotonic()
        self.compose("up", "--detach")
        for service in (*SERVERS, *OURS):
            self.until_healthy(service)
        for job in JOBS:
            state = self.inspect(job)["State"]
            demand(state["Status"] == "exited" and state["ExitCode"] == 0, f"{job}: {state}")
        return time.monotonic() - began

    def until_healthy(self, service: str, seconds: float = 180) -> float:
        """Wait for a container that is healthy; returns the seconds."""
        return until(lambda: self.health(service) == "healthy", f"{service} healthy", seconds)

    def health(self, service: str) -> str:
        """What the engine's own health check says."""
        found = self.inspect(service)
        return str(found["State"].get("Health", {}).get("Status")) if found else ""

    def healthy(self, service: str) -> int:
        """How many containers of a service are healthy."""
        arguments = ("--filter", f"label=com.docker.compose.service={service}", "--filter", "health=healthy")
        project = ("--filter", f"label=com.docker.compose.project={PROJECT}")
        return len(call("docker", "ps", "--quiet", *project, *arguments).stdout.split())

    def container(self, service: str) -> str:
        """Id of the newest container of a service, running or not; empty where there is none."""
        labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
        arguments = [word for label in labels for word in ("--filter", f"label={label}")]
        return call("docker", "ps", "--all", "--quiet", *arguments).stdout.split("\n")[0]

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        container = self.container(service)
        if not container:
            return {}
        found: list[dict[str, Any]] = json.loads(call("docker", "inspect", container).stdout)
        return found[0]

    def kill(self, service: str) -> None:
        """End a container's first process by its id here, as a crash would; `docker kill` is a stop."""
        os.kill(int(self.inspect(service)["State"]["Pid"]), 9)

    def inside(self, service: str, script: str) -> tuple[int, str]:
        """Run a shell script in a container: exit status, and what it said."""
        done = call("docker", "exec", self.container(service), "sh", "-c", script, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    def cli(self, *arguments: str) -> str:
        """A command of closedloop in the running platform, as docs/deploy.md tells it; its last line."""
        return self.compose("run", "--rm", "-T", "cli", *arguments, seconds=180).strip().split("\n")[-1]

    def logs(self, service: str) -> list[dict[str, Any]]:
        """The JSON lines a service has written."""
        done = call("docker", "logs", self.container(service), check=False)
        lines = (done.stdout + done.stderr).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def call(self, method: str, service: str, path: str, **more: Any) -> httpx.Response:
        """A call with the shop's key over the published port."""
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"http://127.0.0.1:{self.ports[service]}{path}"
        return self.http.request(method, url, headers=headers, **more)

    def post_views(self, customer: str, count: int = 1) -> str:
        """Post touchpoints until they are accepted, as a sender does; returns the last position."""
        position = ""
        for _ in range(count):
            touchpoint = {
                "id": f"{customer}-{self.accepted[customer]}",
                "type": "product_viewed",
                "channel": "web",
                "customer_id": customer,
                "properties": {"product_id": "coffee"},
            }
            position = self._accepted(touchpoint)
            self.accepted[customer] += 1
        return position

    def _accepted(self, touchpoint: dict[str, Any], seconds: float = 60.0) -> str:
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = self.call("POST", "collector", "/v1/touchpoints", json=touchpoint)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                return str(answer.json()["position"])
            demand(answer is None or answer.status_code == 503, f"refused: {answer and answer.text}")
            demand(time.monotonic() < deadline, "an event was not accepted within a minute")
            time.sleep(0.1)

    def counted(self, customer: str) -> int:
        """How many views of a customer are in his model."""
        try:
            answer = self.call("GET", "analyzer", f"/v1/customers/{customer}")
        except httpx.TransportError:
            return -1
        if answer.status_code != 200:
            return -1
        return int(answer.json()["totals"].get("product_viewed", 0))

    def settled(self) -> bool:
        """Whether every event answered 202 is counted exactly once."""
        return all(self.counted(customer) == count for customer, count in self.accepted.items())

    def tell(self, services: Iterable[str]) -> str:
        """The end of the logs of some services, for a report of a failure."""
        text = ""
        for service in services:
            done = call("docker", "logs", "--tail", "12", self.container(service), check=False)
            text += f"--- {service}\n{done.stdout}{done.stderr}"
        return text
