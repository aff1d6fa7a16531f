"""Platforms on this machine: ports, data directories, records of who runs, and leftovers."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from deploy.local import program
from deploy.local.platform import Options
from deploy.local.running import (
    FILE,
    PlatformRecord,
    ProcessRecord,
    check_ports,
    claim,
    process_record,
    read_record,
    running_platform,
    stop_leftovers,
    write_record,
)
from libs.common.errors import Misconfigured
from tests.unit.cli_world import myself, record


def test_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=rf"port {port} \(collector\) is in use: .*--port-base"):
            check_ports({"collector": port})


def test_a_forked_copy_of_a_probe_is_nobody_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []

    class Forked(socket.socket):
        """A probe of which a process that is being forked holds a copy when it is closed."""

        def __exit__(self, *error: object) -> None:
            copies.append(os.dup(self.fileno()))
            super().__exit__(*error)

    monkeypatch.setattr(program.socket, "socket", Forked)
    port = program.free_port()
    program.require_free(port, "postgres")
    for copy in copies:
        os.close(copy)


def test_ports_follow_the_base() -> None:
    assert Options(port_base=9000).ports == {
        "collector": 9001,
        "analyzer": 9002,
        "recommender": 9003,
        "feedback": 9004,
        "learner": 9005,
    }


def test_second_platform_on_a_directory_is_refused(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(Misconfigured, match="already running"):
        claim(tmp_path)
    claim(tmp_path).close()


def test_unusable_data_directory_is_one_plain_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(Misconfigured, match="cannot be used"):
        claim(blocked / "inside")


def test_record_of_a_dead_platform_is_not_a_running_one(tmp_path: Path) -> None:
    write_record(tmp_path, myself())
    assert running_platform(tmp_path) == myself()
    write_record(tmp_path, record(os.getpid(), started=1.0))
    with pytest.raises(Misconfigured, match="no platform is running"):
        running_platform(tmp_path)


def test_record_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    write_record(tmp_path, myself())
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_broken_record_is_no_record(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    assert read_record(tmp_path) is None


def test_leftovers_are_stopped_only_where_they_are_ours(tmp_path: Path) -> None:
    ours, foreign = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    try:
        known = process_record(ours.pid)
        assert known is not None
        processes = {"collector": known, "learner": ProcessRecord(foreign.pid, known.started - 500)}
        left = PlatformRecord(clock="wall", urls={}, kafka="", postgres="", processes=processes)
        write_record(tmp_path, left)
        assert stop_leftovers(tmp_path) == ["collector"]
        assert process_record(ours.pid) is None
        assert foreign.poll() is None
    finally:
        for process in (ours, foreign):
            process.kill()
            process.wait()
