"""``python -m tests.compose [CHECK…]``: docker-compose.yml on an engine, driven from outside, by hand."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.compose.engine import Engine, NoEngine, base_images, call
from tests.compose.stack import APIS, JOBS, OURS, PROJECT, SECRETS, SERVERS, Failed, Stack, demand, until

PRODUCTS = [
    {"product_id": "coffee", "name": "Coffee", "category": "grocery/coffee", "price": 7.5, "currency": "EUR"},
    {
        "product_id": "filter",
        "name": "Filters",
        "category": "grocery/coffee",
        "price": 3.0,
        "currency": "EUR",
    },
    {"product_id": "mill", "name": "Mill", "category": "kitchen/mills", "price": 89.0, "currency": "EUR"},
]
KEY_WITHIN = 1.0
SETTLED_WITHIN = 300.0


def starts(stack: Stack) -> str:
    """Everything gets healthy, one-shot jobs end well."""
    return f"healthy after {stack.up():.0f} s: {', '.join((*SERVERS, *OURS))}; done: {', '.join(JOBS)}"


def key_works_at_once(stack: Stack) -> str:
    """A key made by the one-liner works within a second."""
    scopes = "collect,recommend,feedback,manage,customers,ops"
    stack.key = stack.cli("keys", "add", "--name", "shop", "--scopes", scopes)
    seconds = until(lambda: stack.call("GET", "analyzer", "/v1/ledger").status_code == 200, "key", KEY_WITHIN)
    listed = stack.cli("keys", "list")
    demand("shop" in listed, f"keys list says {listed}")
    return f"accepted {seconds:.2f} s after the command"


def loop_closes(stack: Stack) -> str:
    """Products, a view, a recommendation that has seen it, an outcome by its token, all in the timeline."""
    stored = stack.call("POST", "recommender", "/v1/products", json={"products": PRODUCTS})
    demand(stored.status_code == 200 and stored.json()["accepted"] == 3, stored.text)
    ask = {"placement": "home", "customer_id": "anna", "limit": 2}

    def answer(**more: object) -> dict[str, object]:
        headers = {"Closedloop-Group": "treatment"}
        url = f"http://127.0.0.1:{stack.ports['recommender']}/v1/recommendations"
        headers["Authorization"] = f"Bearer {stack.key}"
        return dict(stack.http.post(url, json=ask | more, headers=headers).json())

    until(lambda: answer().get("offers"), "offers", 30)
    # On a machine that does much else the second that an answer waits may be too short: then he asks again.
    questions, given = 0, {"fresh": False}
    while not given["fresh"] and questions < 20:
        questions += 1
        position = stack.post_views("anna")
        began = time.monotonic()
        given = answer(after=position, wait_ms=1000)
        seconds = time.monotonic() - began
    demand(given["fresh"] is True, f"not fresh: {given}")
    token = given["offers"][0]["token"]  # type: ignore[index]
    for outcome in ("shown", "clicked"):
        said = stack.http.post(
            f"http://127.0.0.1:{stack.ports['feedback']}/v1/outcomes",
            json={"token": token, "outcome": outcome},
        )
        demand(said.status_code == 202 and said.json()["accepted"] == 1, said.text)
    timeline = "/v1/customers/anna/timeline"

    def kinds() -> set[str]:
        return {entry["type"] for entry in stack.call("GET", "analyzer", timeline).json()}

    until(lambda: {"product_viewed", "shown", "clicked"} <= kinds(), "outcomes in the timeline", 20)
    said = f"fresh after {seconds * 1000:.0f} ms (question {questions})"
    return f"{said}, token taken without a key, timeline complete"


def ledger_balances(stack: Stack) -> str:
    """`closedloop verify`, run as an operator runs it, and the client's own count."""
    until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    said = stack.cli("verify")
    demand("balances" in said, said)
    return (
        f"{sum(stack.accepted.values())} events of {len(stack.accepted)} customers, each counted once; {said}"
    )


def is_locked_down(stack: Stack) -> str:
    """No root, nothing written but spool and views, limits, only what is meant to be published."""
    for service in OURS:
        found = stack.inspect(service)
        host = found["HostConfig"]
        demand(host["ReadonlyRootfs"] and host["Memory"] and host["NanoCpus"] and host["PidsLimit"], service)
        demand(host["CapDrop"] == ["ALL"], f"{service} keeps capabilities")
        demand(stack.inside(service, "id -u")[1] == "10001", f"{service} runs as another user")
        for path in ("/x", "/opt/x", "/data/x", "/data/secrets/x"):
            demand(stack.inside(service, f"touch {path}")[0] != 0, f"{service} can write {path}")
    for service in APIS:
        demand(stack.inside(service, f"touch /data/{service}/x && rm /data/{service}/x")[0] == 0, service)
    published = {
        (service, port["HostIp"], port["HostPort"])
        for service in (*OURS, *SERVERS)
        for ports in (stack.inspect(service)["NetworkSettings"]["Ports"] or {}).values()
        for port in ports or ()
    }
    wanted = {(service, "127.0.0.1", str(stack.ports[service])) for service in (*APIS, "grafana")}
    demand(published == wanted, f"published: {published}")
    network = json.loads(call("docker", "network", "inspect", f"{PROJECT}_data").stdout)[0]
    demand(network["Internal"], "the data network has a way out")
    inner = {
        service
        for service in (*OURS, *SERVERS)
        if len(stack.inspect(service)["NetworkSettings"]["Networks"]) == 1
    }
    demand(inner == {"learner", "kafka", "postgres", "prometheus"}, f"only on the data network: {inner}")
    return f"user 10001, read-only root, no capabilities, published only {sorted(stack.ports)} on 127.0.0.1"


def keeps_secrets(stack: Stack) -> str:
    """No secret in an environment or a log."""
    values = [(stack.secrets / name).read_text() for name in SECRETS] + [stack.key]
    for service in (*OURS, *SERVERS, *JOBS):
        text = json.dumps(stack.inspect(service))
        logs = call("docker", "logs", stack.container(service), check=False)
        demand(not any(value in text + logs.stdout + logs.stderr for value in values), f"{service} shows one")
    containers = len((*OURS, *SERVERS, *JOBS))
    return f"{len(values)} secrets, in no environment, command line or log of {containers} containers"


def is_watched(stack: Stack) -> str:
    """Prometheus scrapes every process, Grafana has data source and dashboards."""

    def targets() -> dict[str, str]:
        said = stack.inside("prometheus", "wget -qO- http://127.0.0.1:9090/api/v1/targets")[1]
        active = json.loads(said)["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in active}

    until(
        lambda: {name for name, health in targets().items() if health == "up"} >= set(OURS), "targets up", 60
    )
    rules = json.loads(stack.inside("prometheus", "wget -qO- http://127.0.0.1:9090/api/v1/rules")[1])
    count = sum(len(group["rules"]) for group in rules["data"]["groups"])
    demand(count, "Prometheus has no rules")
    grafana = f"http://127.0.0.1:{stack.ports['grafana']}"
    login = httpx_auth(stack)
    boards = stack.http.get(f"{grafana}/api/search", params={"type": "dash-db"}, auth=login).json()
    sources = stack.http.get(f"{grafana}/api/datasources", auth=login).json()
    demand(boards and sources, f"Grafana has dashboards {boards} and data sources {sources}")
    return f"{len(targets())} targets up, {count} rules, {len(boards)} dashboards on {sources[0]['url']}"


def httpx_auth(stack: Stack) -> tuple[str, str]:
    """Grafana's administrator."""
    return "admin", (stack.secrets / "grafana_password").read_text()


def survives_restarts(stack: Stack) -> str:
    """Every container stopped and started in turn, events posted meanwhile."""
    took = []
    for service in (*OURS, "kafka", "postgres", "prometheus", "grafana"):
        stack.post_views("ben", 3)
        began = time.monotonic()
        call("docker", "restart", "--time", "25", stack.container(service))
        stack.post_views("ben", 3)
        stack.until_healthy(service)
        took.append(f"{service} {time.monotonic() - began:.0f} s")
    until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    return ", ".join(took)


def survives_kills(stack: Stack) -> str:
    """Every container killed in turn; its supervisor is the engine's restart policy."""
    for service in (*OURS, "kafka", "postgres"):
        before = stack.inspect(service)["RestartCount"]
        stack.post_views("cleo", 3)
        stack.kill(service)
        stack.post_views("cleo", 10)
        until(
            lambda service=service, n=before: stack.inspect(service)["RestartCount"] > n, f"{service} again"
        )  # type: ignore[misc]
        stack.until_healthy(service)
    until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    return f"{len(OURS) + 2} kills, {stack.accepted['cleo']} events accepted meanwhile, each counted once"


def outlasts_servers(stack: Stack) -> str:
    """Broker and database away for 20 s each: events are accepted, offers given, the log stays short."""
    for server in ("kafka", "postgres"):
        before = {service: len(stack.logs(service)) for service in OURS}
        call("docker", "stop", "--time", "30", stack.container(server))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            stack.post_views("dora")
            given = stack.call(
                "POST",
                "recommender",
                "/v1/recommendations",
                json={"placement": "home", "customer_id": "dora"},
            )
            demand(given.status_code == 200, f"no offers while {server} is away: {given.text}")
            time.sleep(0.2)
        written = {service: len(stack.logs(service)) - before[service] for service in OURS}
        demand(max(written.values()) < 60, f"lines written in 20 s without {server}: {written}")
        call("docker", "start", stack.container(server))
        stack.until_healthy(server)
        until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    return f"{stack.accepted['dora']} events accepted and answered meanwhile; lines logged at last: {written}"


def commands_work(stack: Stack) -> str:
    """What an operator runs beside the platform, files of his included."""
    file = stack.secrets.parent / "products.jsonl"
    file.write_text("".join(json.dumps(product) + "\n" for product in PRODUCTS))
    file.chmod(0o644)
    stack.secrets.parent.chmod(0o755)
    imported = stack.compose(
        "run",
        "--rm",
        "-T",
        "--volume",
        f"{file}:/tmp/products.jsonl:ro",
        "cli",
        "products",
        "import",
        "/tmp/products.jsonl",
    )
    demand("3 products accepted" in imported, imported)
    stack.cli("dead-letters", "list")
    rebuilt = stack.cli("rebuild")
    stack.post_views("gone", 3)
    until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    stack.cli("erase", "gone")
    until(lambda: stack.counted("gone") <= 0, "the erased customer gone", 30)
    del stack.accepted["gone"]
    ledger_balances(stack)
    return f"import, dead-letters list, erase, rebuild: {rebuilt}"


def scales_out(stack: Stack) -> str:
    """Two analyzers share the partitions, two collectors one volume; events count once all the same."""
    scaled = ("analyzer", "collector")
    first = 23_000 + os.getpid() % 5_000
    for service in scaled:
        first = free_range(first + 2)
        stack.ports[service] = first
        stack.variables[f"{service.upper()}_PORT"] = f"{first}-{first + 1}"
    stack.compose(
        "up", "--detach", "--scale", "analyzer=2", "--scale", "collector=2", "analyzer", "collector"
    )
    for service in (*scaled, "recommender"):
        until(lambda service=service: stack.healthy(service) == (2 if service in scaled else 1), service, 120)  # type: ignore[misc]

    def owned() -> list[int]:
        """Partitions of each analyzer, as it tells at /readyz."""
        answers = [
            stack.http.get(f"http://127.0.0.1:{stack.ports['analyzer'] + n}/readyz").json() for n in (0, 1)
        ]
        return sorted(int(answer["notes"]["partitions"].split()[0]) for answer in answers)

    until(lambda: owned() == [6, 6], "the partitions shared", 60)
    first = stack.ports["collector"]
    for number in range(40):
        stack.ports["collector"] = first + number % 2
        stack.post_views(f"fred-{number % 7}")
    until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    stack.ports["collector"] = first
    return f"{owned()} partitions, 40 events through two collectors, each counted once"


def free_range(first: int) -> int:
    """A port from ``first`` on that is free together with the one after it."""
    for port in range(first, 60_000, 2):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue
    raise Failed("no two free ports in a row")


def keeps_data(stack: Stack) -> str:
    """`down` and `up`: keys, products, customers and counts are there."""
    before = cluster(stack)
    stack.compose("down")
    seconds = stack.up()
    demand(cluster(stack) == before, "the broker has another name though its volume is there")
    until(lambda: stack.call("GET", "recommender", "/v1/products/mill").status_code == 200, "the product", 30)
    until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    stack.post_views("anna")
    until(stack.settled, "one more event", 30)
    return f"up again after {seconds:.0f} s with everything"


def survives_the_loss_of_the_broker(stack: Stack) -> str:
    """The broker's volume is lost: what was not applied is sent again, nothing counts twice."""
    call("docker", "stop", stack.container("analyzer"))
    stack.post_views("eve", 20)
    before = cluster(stack)
    stack.compose("down")
    call("docker", "volume", "rm", f"{PROJECT}_kafka")
    stack.up()
    after = cluster(stack)
    demand(before != after, "the new broker has the name of the lost one")
    stack.post_views("eve", 5)
    until(stack.settled, "every accepted event counted once", SETTLED_WITHIN)
    return f"cluster {before} is now {after}, 20 events waited in the spool, 25 are counted"


def cluster(stack: Stack) -> str:
    """Name of the broker's cluster."""
    return stack.inside("kafka", "sed -n s/^cluster.id=//p /var/lib/kafka/data/meta.properties")[1]


CHECKS: tuple[Callable[[Stack], str], ...] = (
    starts,
    key_works_at_once,
    loop_closes,
    ledger_balances,
    is_locked_down,
    keeps_secrets,
    is_watched,
    survives_restarts,
    survives_kills,
    outlasts_servers,
    commands_work,
    keeps_data,
    survives_the_loss_of_the_broker,
    scales_out,
    ledger_balances,
    keeps_secrets,
)


FIRST = (starts, key_works_at_once, loop_closes)
"""Checks on which all others stand."""


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    """Run all checks in turn; 0 where all hold, 2 where no engine can start."""
    engine = Engine(say)
    try:
        engine.start()
    except NoEngine as error:
        say(f"NO ENGINE: {error}")
        say("the file is checked without one by  pytest tests/architecture/test_compose.py")
        return 2
    with tempfile.TemporaryDirectory(prefix="closedloop-compose-") as folder:
        stack = Stack(Path(folder))
        try:
            return run(engine, stack)
        finally:
            stack.compose("down", "--volumes", "--remove-orphans", check=False)
            engine.stop()


def run(engine: Engine, stack: Stack) -> int:
    """Images, then every check."""
    stood_in = engine.have(base_images())
    say(f"stand-ins: {', '.join(stood_in) or 'none, all images are the real ones'}")
    stack.compose("config", "--quiet")
    say("ok    compose config")
    stack.compose("down", "--volumes", "--remove-orphans", check=False)
    say("building the image")
    stack.compose("build", "collector")
    wanted = sys.argv[1:]
    chosen = [check for check in CHECKS if not wanted or check in FIRST or check.__name__ in wanted]
    for check in chosen:
        try:
            say(f"ok    {check.__name__}: {check(stack)}")
        except Exception as error:
            say(f"FAIL  {check.__name__}: {type(error).__name__}: {error}")
            print(stack.tell((*OURS, *SERVERS)))
            return 1
    say(f"all {len(chosen)} checks hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
