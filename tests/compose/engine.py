"""A Docker engine to run the compose file on, and the images it names: pulled, or stood in for."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).with_name("stand_ins")
FOUNDATION = "closedloop-standin/debian"
PACKAGES = ("docker.io", "docker-compose", "debootstrap", "iptables")


class NoEngine(Exception):
    """No Docker engine can run here; the message says why."""


def call(*command: str | Path, check: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command, its output kept; raises with its last lines where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)  # type: ignore[call-overload]
    if check and done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said}")
    return done  # type: ignore[no-any-return]


class Engine:
    """The Docker engine of this machine; started here where none runs, and then stopped again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Have an engine that answers; raises `NoEngine`."""
        if shutil.which("dockerd") is None or compose_command() is None:
            if os.geteuid() != 0 or shutil.which("apt-get") is None:
                raise NoEngine("there is no Docker engine with compose, and this user cannot install one")
            self._say(f"installing {' '.join(PACKAGES)}")
            call("apt-get", "update", "-qq")
            call("apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES)
        if self._answers():
            return
        self._say("starting dockerd")
        log = Path(tempfile.gettempdir()) / "closedloop-dockerd.log"
        with log.open("wb") as output:
            self._daemon = subprocess.Popen(["dockerd"], stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise NoEngine(f"dockerd does not start: {' | '.join(log.read_text().splitlines()[-3:])}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the engine where it was started here."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(60)

    def _answers(self) -> bool:
        return call("docker", "version", check=False).returncode == 0

    def have(self, images: Sequence[str]) -> list[str]:
        """Have all ``images``; returns those that are stand-ins."""
        return [image for image in images if self._stood_in(image)]

    def _stood_in(self, image: str) -> bool:
        name = image.rpartition("/")[2].partition(":")[0]
        recipe = _digest(STAND_INS / name)
        label = '{{index .Config.Labels "closedloop.standin"}}'
        known = call("docker", "image", "inspect", "--format", label, image, check=False)
        if known.returncode == 0 and known.stdout.strip() in ("", recipe):
            return known.stdout.strip() == recipe
        if call("docker", "pull", "--quiet", image, check=False, timeout=600).returncode == 0:
            return False
        self._foundation()
        self._say(f"no registry gives {image}: making a stand-in")
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder) / name
            shutil.copytree(STAND_INS / name, context)
            if name == "kafka":
                shutil.copytree(_kafka_jars(), context / "libs")
            call(
                "docker",
                "build",
                "--quiet",
                "--label",
                f"closedloop.standin={recipe}",
                "--tag",
                image,
                context,
            )
        return True

    def _foundation(self) -> None:
        """Debian's smallest root file system, with this machine's certificates and package settings."""
        if call("docker", "image", "inspect", FOUNDATION, check=False).returncode == 0:
            return
        self._say("making a Debian root file system")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root"
            call("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root)
            for name in (
                "etc/ssl/certs/ca-certificates.crt",
                "etc/pip.conf",
                "etc/apt/sources.list.d/debian.sources",
            ):
                if (Path("/") / name).exists():
                    shutil.copy(Path("/") / name, root / name)
            archive = Path(folder) / "root.tar"
            call("tar", "-C", root, "-cf", archive, ".")
            call("docker", "import", archive, FOUNDATION)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _kafka_jars() -> Path:
    from deploy.local.broker import kafka_libs

    return kafka_libs()


def compose_command() -> tuple[str, ...] | None:
    """How compose is called here: the plugin, or the older program; None where there is neither."""
    if shutil.which("docker") and call("docker", "compose", "version", check=False).returncode == 0:
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else None


def base_images() -> list[str]:
    """Every image that is named in the compose file and the Dockerfile and not built here."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    named = [service["image"] for service in services if "build" not in service]
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    python = next(line for line in dockerfile.splitlines() if line.startswith("ARG PYTHON_IMAGE="))
    return [*named, python.partition("=")[2]]
