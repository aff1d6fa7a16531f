"""The command line: one plain line for a bad situation, no traceback, whatever is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from deploy.local.cli import main
from deploy.local.doctor import examine
from deploy.local.reporting import report_lines
from deploy.local.running import running_platform
from libs.common.errors import Misconfigured
from tests.unit.cli_world import no_developer_key, run, said

__all__ = ["no_developer_key"]


@pytest.mark.parametrize(
    "command", [["verify"], ["rebuild"], ["dead-letters", "list"], ["report"], ["evaluate"]]
)
def test_commands_say_that_no_platform_is_running(command: list[str], tmp_path: Path) -> None:
    result = run(*command, "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "no platform is running" in said(result)
    assert f"closedloop up --data-dir {tmp_path}" in said(result)


def test_commands_about_somebody_or_something_need_to_be_told(tmp_path: Path) -> None:
    for command in (["export"], ["erase"], ["dead-letters", "replay"]):
        assert run(*command, "--data-dir", str(tmp_path)).exit_code == 2


def test_report_says_what_is_known_and_what_is_not() -> None:
    def row(difference: float | None, interval: list[float] | None) -> dict[str, Any]:
        groups = {"treatment": {"customers": 1200, "mean": 3.0}, "control": {"customers": 40, "mean": 2.0}}
        kind = {"placement": "home", "against": "none", "level": 0.95}
        return {**kind, **groups, "difference": difference, "interval": interval}

    ends = dict.fromkeys(("applied", "duplicate", "rejected", "dead_lettered", "erased", "in_flight"), 0)
    sources = [{"source": "shop", "accepted": 1234}]
    ledger = {"accepted": 1234, **ends, "balanced": False, "by_source": sources}
    learned = {"version": 1, "journal_time": 1_790_000_000_000, "orders": 20, "trials": 3}
    rows = [row(1.0, [0.25, 1.75]), row(1.0, None), row(None, None)]
    told = list(report_lines({"ledger": ledger, "learned": learned, "lift": {"rows": rows}}))
    assert "  the ledger does NOT balance: see closedloop verify" in told
    assert "  1,234 from shop" in told
    assert "  20 orders and 3 trials, until 2026-09-21T14:13:20.000Z" in told
    held = "1,200 treated, 40 held out"
    assert told[-3:] == [
        f"  home against none: +1.00 (+0.25 to +1.75, 95%); {held}",
        f"  home against none: +1.00, of too few customers to say how sure; {held}",
        f"  home against none: not known; {held}",
    ]
    fresh = {"version": 0, "journal_time": 0, "orders": 0, "trials": 0}
    told = list(
        report_lines({"ledger": {**ledger, "balanced": True}, "learned": fresh, "lift": {"rows": []}})
    )
    assert {"  the ledger balances", "  nothing yet", "  no decisions yet"} <= set(told)


@pytest.mark.parametrize("holdout", ["0.5", "a,b", "0.5,0.5", "-0.1,0", "nan,0"])
def test_holdout_must_leave_somebody(holdout: str) -> None:
    result = run("up", "--holdout", holdout)
    assert result.exit_code == 2
    assert "two shares" in result.output


@pytest.mark.parametrize("weeks", ["40", "0-3", "9-3", "1-99", "a-b"])
def test_demo_weeks_must_be_a_range(weeks: str, tmp_path: Path) -> None:
    result = run("demo", "--weeks", weeks, "--data-dir", str(tmp_path / "demo"))
    assert result.exit_code == 1
    assert "--weeks wants" in said(result)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:secret@127.0.0.1:1/shop", "no PostgreSQL serves us at 127.0.0.1:1/shop"),
        ("me:secret@127.0.0.1", "the URL of PostgreSQL cannot be read"),
        ("postgresql://me:secret@127.0.0.1:port/shop", "the URL of PostgreSQL cannot be read"),
    ],
)
def test_database_that_cannot_be_used_is_one_line_without_its_password(url: str, says: str) -> None:
    result = run("up", "--ephemeral", "--port-base", "0", "--postgres", url)
    assert result.exit_code == 1
    assert says in said(result)
    assert "secret" not in result.output


def test_doctor_has_a_line_for_each_check(tmp_path: Path) -> None:
    findings = examine(tmp_path / "new", 8000)
    assert all(line.count("\n") == 0 for line in (finding.line for finding in findings))
    assert any("Python" in finding.line for finding in findings)
    assert any("data directory" in finding.line and finding.good for finding in findings)
    (tmp_path / "file").write_text("")
    blocked = examine(tmp_path / "file", 8000)
    assert any(finding.fatal and "data directory" in finding.line for finding in blocked)


def test_holdout_is_given_or_refused_but_not_both() -> None:
    result = run("up", "--ephemeral", "--postgres", "nowhere", "--holdout", "0.1,0.1", "--no-holdout")
    assert result.exit_code == 2
    assert "either --holdout" in result.output


def test_commands_work_on_a_platform_that_others_keep_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSEDLOOP_URLS", "collector=http://collector:8001, analyzer=http://analyzer:8002/")
    monkeypatch.setenv("CLOSEDLOOP_KAFKA", "kafka:9092")
    monkeypatch.setenv("CLOSEDLOOP_POSTGRES", "postgresql://me@postgres/closedloop")
    found = running_platform(tmp_path)
    assert found.urls == {"collector": "http://collector:8001", "analyzer": "http://analyzer:8002"}
    assert (found.kafka, found.postgres) == ("kafka:9092", "postgresql://me@postgres/closedloop")
    assert (found.clock, found.holdout) == ("wall", "0.05,0.05")
    for wrong in ("collector", "collecter=http://x", "collector=x:1"):
        monkeypatch.setenv("CLOSEDLOOP_URLS", wrong)
        with pytest.raises(Misconfigured, match="CLOSEDLOOP_URLS"):
            running_platform(tmp_path)


def leaves(group: click.Group) -> list[click.Command]:
    found: list[click.Command] = []
    for command in group.commands.values():
        found += leaves(command) if isinstance(command, click.Group) else [command]
    return found


@pytest.mark.parametrize("command", leaves(main), ids=lambda command: command.name)
def test_every_command_takes_a_data_directory(command: click.Command) -> None:
    assert "--data-dir" in {option for parameter in command.params for option in parameter.opts}
