"""The command line in this process, and records of platforms that run or do not."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner, Result

from deploy.local.cli import main
from deploy.local.running import PlatformRecord, ProcessRecord, process_record


@pytest.fixture(autouse=True)
def no_developer_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOSEDLOOP_DEV_KEY", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def said(result: Result) -> str:
    lines = result.output.strip().splitlines()
    assert len(lines) == 1, result.output
    return str(lines[0])


def record(pid: int, started: float) -> PlatformRecord:
    return PlatformRecord(
        clock="wall",
        urls={"analyzer": "http://127.0.0.1:1"},
        kafka="127.0.0.1:1",
        postgres="postgresql://127.0.0.1:1/none",
        processes={"up": ProcessRecord(pid, started)},
    )


def myself() -> PlatformRecord:
    me = process_record(os.getpid())
    assert me is not None
    return record(me.pid, me.started)
