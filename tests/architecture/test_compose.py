"""docker-compose.yml and the image: what they name exists, nothing lies open, secrets are only in files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.cli import main
from libs.common.settings import CommonSettings, variable_name
from services.analyzer.learner.settings import LearnerSettings
from services.analyzer.settings import AnalyzerSettings
from services.collector.settings import CollectorSettings
from services.feedback.settings import FeedbackSettings
from services.recommender.settings import RecommenderSettings

ROOT = Path(__file__).parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
PORTS = {"collector": 8001, "analyzer": 8002, "recommender": 8003, "feedback": 8004}
SETTINGS: dict[str, type[CommonSettings]] = {
    "collector": CollectorSettings,
    "analyzer": AnalyzerSettings,
    "recommender": RecommenderSettings,
    "feedback": FeedbackSettings,
    "learner": LearnerSettings,
}
OURS = [name for name, service in SERVICES.items() if "build" in service]
COMMAND_LINE = {"CLOSEDLOOP_OPERATOR_KEY", "CLOSEDLOOP_URLS"}
"""What the command line reads beside the settings of services."""


def variables(name: str) -> set[str]:
    model = SETTINGS.get(name, CommonSettings)
    return {variable_name(model, field) for field in model.model_fields}


def test_every_process_of_the_platform_is_there() -> None:
    assert {*SETTINGS, "kafka", "postgres", "topics", "migrate", "prometheus", "grafana"} <= set(SERVICES)


@pytest.mark.parametrize("name", OURS)
def test_command_of_a_service_exists(name: str) -> None:
    command = [*SERVICES[name].get("entrypoint", []), *SERVICES[name]["command"]]
    if command[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(command[2]) is not None
        assert importlib.util.find_spec(f"{command[2]}.__main__") is not None
        return
    found: Any = main
    assert command[0] == "closedloop"
    for word in command[1:]:
        if not word.startswith("-"):
            found = found.commands[word]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_that_is_given_is_read(name: str) -> None:
    for variable in SERVICES[name].get("environment", {}):
        known = variables(name) | (COMMAND_LINE if name not in SETTINGS else set())
        assert variable.removesuffix("_FILE") in known, f"{name} does not read {variable}"


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_are_files_and_never_in_an_environment(name: str) -> None:
    service = SERVICES[name]
    given = set(service.get("secrets", []))
    read = set()
    for variable, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|_KEY|TOKEN", variable):
            assert variable.endswith("_FILE"), f"{variable} holds a secret"
            assert str(value).startswith("/run/secrets/")
            read.add(str(value).removeprefix("/run/secrets/"))
        assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), f"{variable} holds a password"
    assert read == given, "each service is given the secrets it reads, and no others"


def test_installation_secret_is_given_to_whoever_seals_or_hashes() -> None:
    for name in SETTINGS:
        source = "".join(path.read_text() for path in _sources(name))
        if "installation_secret" in source:
            assert "installation_secret" in SERVICES[name].get("secrets", []), f"{name} derives secrets"


def _sources(name: str) -> list[Path]:
    module = SERVICES[name]["command"][2].replace(".", "/")
    folder = ROOT / module
    inner = folder / "learner"
    return [path for path in folder.rglob("*.py") if name == "learner" or not path.is_relative_to(inner)]


def test_whoever_needs_the_database_can_reach_it() -> None:
    for name in SETTINGS:
        if "settings.postgres" in "".join(path.read_text() for path in _sources(name)):
            assert "CLOSEDLOOP_POSTGRES" in SERVICES[name]["environment"], name


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    tag = re.sub(r"^\$\{[A-Z_]+:-(.*)\}$", r"\1", image).rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+", tag), f"{image} can change under our feet"


def test_versions_agree_with_those_that_are_tested() -> None:
    pom = (ROOT / "deploy/kafka/pom.xml").read_text()
    assert SERVICES["kafka"]["image"].partition(":")[2] in pom
    project = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert project is not None
    assert f"closedloop:{project[1]}" in SERVICES["collector"]["image"]
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim", dockerfile, re.MULTILINE)


def test_image_is_made_of_the_very_versions_that_are_tested() -> None:
    tested, shipped = (
        _pins(ROOT / "requirements.lock"),
        _pins(ROOT / "deploy/docker/requirements.lock"),
    )
    assert shipped.items() <= tested.items(), "run `make lock`"
    assert all(hashes for hashes in shipped.values())


def _pins(lock: Path) -> dict[str, frozenset[str]]:
    entries = re.split(r"\n(?=\S)", lock.read_text().replace("\\\n", ""))
    return {
        entry.split("--hash=")[0].strip(): frozenset(re.findall(r"--hash=(\S+)", entry))
        for entry in entries
        if entry.strip()
    }


def test_only_the_apis_and_grafana_are_published_on_the_loopback_address() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if service.get("ports")}
    assert set(published) == {*PORTS, "grafana"}
    for name, port in {**PORTS, "grafana": 3000}.items():
        assert len(published[name]) == 1
        assert re.fullmatch(
            rf"\$\{{CLOSEDLOOP_BIND:-127\.0\.0\.1\}}:\$\{{[A-Z]+_PORT:-{port}\}}:{port}", published[name][0]
        )
    assert FILE["networks"]["data"] == {"internal": True}
    outside = {name for name, service in SERVICES.items() if "edge" in service.get("networks", [])}
    assert outside == set(published)


@pytest.mark.parametrize("name", SETTINGS)
def test_service_is_asked_whether_it_is_ready_on_its_own_port(name: str) -> None:
    port = SETTINGS[name].model_fields["port"].default
    assert PORTS.get(name, port) == port
    assert SERVICES[name]["healthcheck"]["test"][-1] == str(port)
    assert '"/readyz"' in (ROOT / "deploy/docker/healthy.py").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_bounded_and_has_no_rights_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert all(service.get(limit) for limit in ("mem_limit", "cpus", "pids_limit", "restart", "logging"))
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    if name in OURS:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    else:
        assert "healthcheck" in service


@pytest.mark.parametrize("name", SETTINGS)
def test_service_waits_for_topics_tables_and_the_operators_key_and_has_time_to_stop(name: str) -> None:
    service = SERVICES[name]
    waits = {job: how["condition"] for job, how in service["depends_on"].items()}
    assert waits == dict.fromkeys(("topics", "migrate", "operator"), "service_completed_successfully")
    assert service["stop_grace_period"] == "25s"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.partition(":")[0]
        assert (ROOT / source).is_dir() if source.startswith("./") else source in FILE["volumes"], source


def test_data_of_a_service_is_in_a_volume_that_is_its_own() -> None:
    homes = {"collector", "analyzer", "recommender", "feedback"}
    for name in SETTINGS:
        mounted = {volume for volume in SERVICES[name].get("volumes", []) if not volume.endswith(":ro")}
        assert mounted == ({f"{name}:/data/{name}"} if name in homes else set())
        assert "keys:/data/secrets:ro" in SERVICES[name]["volumes"]
        written = "".join(path.read_text() for path in _sources(name))
        assert set(re.findall(r'data_dir / "(\w+)"', written)) <= {name}, (
            f"{name} writes where nothing is mounted"
        )
    made = re.search(r"for folder in secrets erasures (.*);", (ROOT / "deploy/docker/Dockerfile").read_text())
    assert made is not None
    assert set(made[1].split()) == homes


def test_secrets_script_makes_each_secret_once_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = ROOT / "deploy/docker/secrets.sh"
    subprocess.run([script, folder], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(FILE["secrets"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(re.fullmatch(r"[0-9a-f]{64}", secret) for secret in made.values())
    assert len(set(made.values())) == len(made)
    (folder / "operator_key").unlink()
    subprocess.run([script, folder], check=True, capture_output=True)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"operator_key"}


def test_example_environment_names_every_variable_and_its_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = dict(re.findall(r"(?<!\$)\$\{([A-Z_]+):-([^}]*)\}", text))
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines if line and not line.startswith("#")) == used


def test_compose_itself_reads_the_file(tmp_path: Path) -> None:
    commands = [["docker", "compose"], ["docker-compose"]]
    working = [
        command
        for command in commands
        if shutil.which(command[0])
        and subprocess.run([*command, "version"], capture_output=True).returncode == 0
    ]
    if not working:
        pytest.skip("no compose on this machine")
    environ = {**os.environ, "CLOSEDLOOP_SECRETS": str(tmp_path)}
    done = subprocess.run(
        [*working[0], "-f", ROOT / "docker-compose.yml", "config", "--quiet"],
        env=environ,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
