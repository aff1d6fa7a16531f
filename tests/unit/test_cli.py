"""The command line: one plain line for a bad situation, no traceback; files read as written."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from deploy.local import program
from deploy.local.cli import main
from deploy.local.doctor import examine
from deploy.local.files import BATCH_ITEMS, Item, batches, nested, read_items, send
from deploy.local.ledger import broken_hop, hops, in_order, rows, settle, spool_of
from deploy.local.operator_key import operator_key, stored_key
from deploy.local.platform import Options
from deploy.local.reporting import report_lines
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
from libs.common.keys import KeyRing, Scope


@pytest.fixture(autouse=True)
def _no_developer_key(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    "command", [["verify"], ["rebuild"], ["dead-letters", "list"], ["report"], ["evaluate"]]
)
def test_commands_say_that_no_platform_is_running(command: list[str], tmp_path: Path) -> None:
    result = run(*command, "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "no platform is running" in said(result)
    assert f"closedloop up --data-dir {tmp_path}" in said(result)


def test_import_says_that_no_platform_is_running(tmp_path: Path) -> None:
    result = run("products", "import", "x.jsonl", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "no platform is running" in said(result)


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


def test_keys_are_added_listed_and_revoked(tmp_path: Path) -> None:
    there = ["--data-dir", str(tmp_path)]
    added = run("keys", "add", "--scopes", "collect,recommend", "--name", "shop", *there)
    key = added.output.splitlines()[-1]
    found = KeyRing(tmp_path).find(key)
    assert found is not None
    assert found.scopes == {Scope.COLLECT, Scope.RECOMMEND}
    assert "shop: collect,recommend (secret)" in run("keys", "list", *there).output
    assert run("keys", "revoke", "shop", *there).exit_code == 0
    assert KeyRing(tmp_path).find(key) is None
    again = run("keys", "revoke", "shop", *there)
    assert again.exit_code == 1
    assert "no key called shop" in said(again)


def test_publishable_key_prints_the_identity_secret_before_itself(tmp_path: Path) -> None:
    arguments = ["--publishable", "--origin", "https://shop.example", "--name", "web"]
    lines = run("keys", "add", *arguments, "--data-dir", str(tmp_path)).output.splitlines()
    assert lines[-1].startswith("pk_")
    found = KeyRing(tmp_path).find(lines[-1])
    assert found is not None
    assert found.identity_secret == lines[-2]


def test_key_is_rotated_and_its_elder_revoked(tmp_path: Path) -> None:
    there = ["--data-dir", str(tmp_path)]
    site = ["--publishable", "--origin", "https://shop.example", "--name", "web"]
    old = run("keys", "add", *site, *there).output.splitlines()
    new = run("keys", "add", "--rotate", "--name", "web", *there).output.splitlines()
    assert new[-2] == old[-2]
    assert "replaced" in run("keys", "list", *there).output.splitlines()[0]
    assert run("keys", "revoke", "--replaced", "web", *there).exit_code == 0
    assert KeyRing(tmp_path).find(old[-1]) is None
    assert KeyRing(tmp_path).find(new[-1]) is not None
    again = run("keys", "revoke", "--replaced", "web", *there)
    assert again.exit_code == 1
    assert "nothing is revoked" in said(again)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "x"],
        ["--name", "x", "--rotate"],
        ["--name", "x", "--rotate", "--scopes", "collect"],
        ["--name", "x", "--scopes", "everything"],
        ["--name", "x", "--publishable"],
        ["--name", "x", "--scopes", "collect", "--origin", "https://a.example"],
    ],
)
def test_keys_add_refuses_what_makes_no_key(arguments: list[str], tmp_path: Path) -> None:
    result = run("keys", "add", *arguments, "--data-dir", str(tmp_path))
    assert result.exit_code != 0
    assert "Traceback" not in result.output


def test_taken_key_name_is_one_plain_line(tmp_path: Path) -> None:
    arguments = ["keys", "add", "--scopes", "ops", "--name", "twice", "--data-dir", str(tmp_path)]
    assert run(*arguments).exit_code == 0
    assert run(*arguments).exit_code == 1
    assert "twice" in said(run(*arguments))


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


def test_operator_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no operator key"):
        stored_key(tmp_path)
    key = operator_key(tmp_path)
    assert operator_key(tmp_path) == stored_key(tmp_path) == key
    found = KeyRing(tmp_path).find(key)
    assert found is not None
    assert found.scopes == set(Scope)
    assert stat.S_IMODE((tmp_path / "secrets" / "operator.key").stat().st_mode) == 0o600


def test_revoked_operator_key_is_made_anew(tmp_path: Path) -> None:
    key = operator_key(tmp_path)
    assert run("keys", "revoke", "operator", "--data-dir", str(tmp_path)).exit_code == 0
    anew = operator_key(tmp_path)
    assert anew != key
    assert KeyRing(tmp_path).find(anew) is not None


def test_developer_key_is_shown_and_commands_work_without_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSEDLOOP_DEV_KEY", "for-development")
    assert stored_key(tmp_path) == "for-development"
    assert operator_key(tmp_path) == "for-development"
    monkeypatch.delenv("CLOSEDLOOP_DEV_KEY")
    found = KeyRing(tmp_path).find(stored_key(tmp_path))
    assert found is not None
    assert found.scopes == set(Scope)


def test_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    item = {"product_id": "1", "price": 2.5}
    written = {
        "a.jsonl": json.dumps(item) + "\n\n" + json.dumps(item) + "\n",
        "b.json": json.dumps([item, item]),
        "c.json": json.dumps({"products": [item, item]}),
        "d.csv": "product_id,price\n1,2.5\n1,2.5\n",
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text)
        assert [json.loads(each.body) for each in read_items(tmp_path / name)] == [item, item], name
    assert [each.place for each in read_items(tmp_path / "a.jsonl")] == ["line 1", "line 3"]


def test_unreadable_files_are_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "latin.csv").write_bytes(b"product_id\n\xe9\n")
    for name, reason in (("none.jsonl", "cannot read"), ("bad.json", "not JSON"), ("latin.csv", "not UTF-8")):
        with pytest.raises(Misconfigured, match=reason):
            list(read_items(tmp_path / name))


def test_csv_columns_nest_and_ids_stay_text() -> None:
    row = {"id": "007", "price": "2", "brand": "", "properties.order_id": "1e5", "properties.total": "NaN"}
    assert nested(row) == {"id": "007", "price": 2, "properties": {"order_id": "1e5", "total": "NaN"}}


def test_batches_hold_what_a_service_takes() -> None:
    items = [Item(f"line {n}", b"{}") for n in range(BATCH_ITEMS + 1)]
    assert [len(batch) for batch in batches(items)] == [BATCH_ITEMS, 1]
    big = [Item("line 1", b"x" * 3_000_000), Item("line 2", b"x" * 3_000_000)]
    assert [len(batch) for batch in batches(big)] == [1, 1]


def test_refused_items_are_named_by_their_place() -> None:
    def post(body: bytes) -> dict[str, Any]:
        refused = {"index": 1, "id": None, "code": "missing", "field": "/name", "reason": "is missing"}
        return {"accepted": body.count(b"\n"), "rejected": [refused]}

    outcome = send([Item("line 4", b"{}"), Item("line 9", b"{}")], post)
    assert (outcome.accepted, outcome.rejected) == (1, [("line 9", "missing", "/name is missing")])


LEDGER = {
    "accepted": 10,
    "applied": 7,
    "duplicate": 1,
    "rejected": 1,
    "dead_lettered": 1,
    "erased": 0,
    "in_flight": 0,
    "balanced": True,
    "by_source": [{"source": "shop", "accepted": 10, "applied": 7, "duplicate": 2, "dead_lettered": 1}],
}


def test_ledger_is_in_order_only_when_all_ends_are_known() -> None:
    assert in_order(LEDGER)
    assert not in_order({**LEDGER, "balanced": False})
    assert not in_order({**LEDGER, "in_flight": 1, "applied": 6})
    assert not in_order({**LEDGER, "applied": 6})


def test_verify_waits_until_nothing_is_in_flight_or_time_is_up() -> None:
    busy = [{**LEDGER, "accepted": 2, "applied": 2}, {**LEDGER, "in_flight": 3, "applied": 4}]
    answers = iter([*busy, *[LEDGER] * 20])
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    told = settle(lambda: next(answers), monotonic=lambda: now[0], sleep=sleep)
    assert told == {**LEDGER, "watched": now[0]}
    assert 1.5 <= now[0] <= 3.0
    stuck = {**LEDGER, "in_flight": 3, "applied": 4}
    told = settle(lambda: stuck, seconds=30, monotonic=lambda: now[0], sleep=sleep)
    assert told["in_flight"] == 3
    assert now[0] >= 30


def test_verify_waits_for_what_was_in_a_spool_before_it_looked() -> None:
    """The ledger knows nothing of it: what a spool accepted is told on the very bus that hangs."""
    now, applied_at = [0.0], 6.0

    def ask() -> dict[str, Any]:
        hung = {"records": 62, "unshipped": 62, "age": now[0] + 0.2}
        return {**LEDGER, "spools": {"collector": hung if now[0] < applied_at else QUIET}}

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert in_order(settle(ask, seconds=30, monotonic=lambda: now[0], sleep=sleep))
    assert applied_at <= now[0] <= applied_at + 1
    now[0], applied_at = 0.0, 60.0
    left = settle(ask, seconds=4, monotonic=lambda: now[0], sleep=sleep)
    assert (broken_hop(left) or "").startswith("collector → bus: 62 ")


def test_ledger_table_has_a_row_for_each_hop() -> None:
    head, *body = rows(LEDGER)
    assert head == ("", "all", "shop", "meaning")
    assert [row[0] for row in body][:3] == ["accepted", "applied", "duplicate"]
    assert body[0][1:3] == ("10", "10")


def test_doctor_has_a_line_for_each_check(tmp_path: Path) -> None:
    findings = examine(tmp_path / "new", 8000)
    assert all(line.count("\n") == 0 for line in (finding.line for finding in findings))
    assert any("Python" in finding.line for finding in findings)
    assert any("data directory" in finding.line and finding.good for finding in findings)
    (tmp_path / "file").write_text("")
    blocked = examine(tmp_path / "file", 8000)
    assert any(finding.fatal and "data directory" in finding.line for finding in blocked)


def test_key_is_not_added_to_a_directory_that_is_not_there(tmp_path: Path) -> None:
    result = run("keys", "add", "--name", "shop", "--scopes", "collect", "--data-dir", str(tmp_path / "typo"))
    assert result.exit_code == 1
    assert "there is no directory" in said(result)
    assert list(tmp_path.iterdir()) == []


def test_holdout_is_given_or_refused_but_not_both() -> None:
    result = run("up", "--ephemeral", "--postgres", "nowhere", "--holdout", "0.1,0.1", "--no-holdout")
    assert result.exit_code == 2
    assert "either --holdout" in result.output


def test_operator_key_chosen_outside_is_made_known_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "operator_key"
    monkeypatch.setenv("CLOSEDLOOP_OPERATOR_KEY_FILE", str(file))
    arguments = ("keys", "operator", "--data-dir", str(tmp_path))
    assert run(*arguments).exit_code == 1
    for key in ("a" * 32, "b" * 32, "b" * 32):
        file.write_text(key + "\n")
        assert run(*arguments).exit_code == 0
        found = KeyRing(tmp_path).find(key)
        assert found is not None
        assert (found.name, found.scopes) == ("operator", set(Scope))
        assert stored_key(tmp_path) == key
    assert KeyRing(tmp_path).find("a" * 32) is None
    file.write_text("short")
    assert "at least 32" in said(run(*arguments))


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


QUIET = {"records": 12, "unshipped": 12, "age": 0.4}


@pytest.mark.parametrize(
    ("change", "hop"),
    [
        ({}, None),
        ({"spools": {"collector": QUIET}}, None),
        ({"spools": {"collector": {"records": 90, "unshipped": 80, "age": 9.0}}}, "collector → bus: 80 "),
        ({"spools": {"feedback": {"records": 90, "unshipped": 0, "age": 9.0}}}, "bus → analyzer: 90 "),
        (
            {"balanced": False, "unbalanced": [{"spool": "ab", "partition": 3, "applied": 9, "fates": 8}]},
            "analyzer: 9 numbers of spool ab are applied in partition 3, and 8 of them",
        ),
        ({"in_flight": 1, "applied": 6}, "bus → analyzer: 1 events of all"),
        ({"applied": 6}, "analyzer: 10 events of all are accepted, 9 have a fate"),
        ({"balanced": False}, "analyzer: the ledger says"),
    ],
)
def test_hop_that_does_not_balance_is_named(change: dict[str, Any], hop: str | None) -> None:
    by_source = [{**LEDGER, "source": "shop"}]
    found = broken_hop({**LEDGER, "watched": 5.0, "by_source": by_source, **change})
    assert (found or "").startswith(hop or "")
    assert (found is None) == (hop is None)


def test_hops_tell_of_spools_from_their_metrics() -> None:
    metrics = {
        "closedloop_collector_spool_records": 90.0,
        "closedloop_collector_spool_unshipped_records": 80.0,
        "closedloop_collector_spool_age_seconds": 2.5,
    }
    spool = spool_of("collector", metrics)
    assert spool == {"records": 90, "unshipped": 80, "age": 2.5}
    lines = hops({**LEDGER, "spools": {"collector": spool}})
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["in", "the", "spool", "80"],
        ["on", "the", "bus", "10"],
    ]


def leaves(group: click.Group) -> list[click.Command]:
    found: list[click.Command] = []
    for command in group.commands.values():
        found += leaves(command) if isinstance(command, click.Group) else [command]
    return found


@pytest.mark.parametrize("command", leaves(main), ids=lambda command: command.name)
def test_every_command_takes_a_data_directory(command: click.Command) -> None:
    assert "--data-dir" in {option for parameter in command.params for option in parameter.opts}
