"""``python -m tests.survival.breakages``: break the product on purpose, and see which test goes red.

Each breakage is a substitution in a scratch copy of the tree. One whose text is not there any more, or
whose test stays green, fails the command: either the guarantee has another mechanism by now, or no test
holds it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_COPIED = (".venv", ".git", "build", "*_cache", "__pycache__", ".closedloop*", "dist")
SECONDS = 420


@dataclass(frozen=True)
class Breakage:
    """``old`` becomes ``new`` in ``file``; ``test`` is a pytest node, or ``trial: NAME`` of the catalogue."""

    name: str
    file: str
    old: str
    new: str
    test: str


BREAKAGES = (
    Breakage(
        "no fsync before 202",
        "libs/common/spool/file.py",
        '_connect(path, "FULL")',
        '_connect(path, "NORMAL")',
        "trial: power cut",
    ),
    Breakage(
        "answer before the commit",
        "libs/common/spool/journal.py",
        "            await position.pack.committed()\n        else:",
        "            pass\n        else:",
        "tests/unit/test_spool.py::test_append_is_on_disk_when_durable",
    ),
    Breakage(
        "offset committed before the rows of its slice",
        "services/analyzer/store/postgres.py",
        "                await self._pass(connection, slice_, rows)\n            return\n",
        "                await self._pass(connection, slice_, {})\n"
        "                await connection.execute(*following(self._schema, rows))\n            return\n",
        "trial: kill analyzer",
    ),
    Breakage(
        "dedupe by id off",
        "services/analyzer/handlers/fates.py",
        "    if seen is not None and draft.journal_time - seen.at <= DEDUPE_WINDOW:",
        "    if seen is None and draft.journal_time < 0:",
        "trial: no fault",
    ),
    Breakage(
        "an id used for something else passes as a duplicate",
        "services/analyzer/handlers/fates.py",
        "        if seen.content and said.content and seen.content != said.content:",
        "        if not seen.content and seen.content != said.content:",
        "tests/integration/test_analyzer_letters.py::"
        "test_id_with_other_content_is_a_dead_letter_and_a_retry_is_not",
    ),
    Breakage(
        "dedupe by spool number off",
        "services/analyzer/handlers/fates.py",
        "    if seq <= known:\n",
        "    if seq < 0:\n",
        "tests/integration/test_analyzer_slices.py::test_redelivery_is_skipped_and_not_counted",
    ),
    Breakage(
        "fence off: whoever writes last wins",
        "services/analyzer/store/fenced.py",
        "WHERE partition = $1 AND epoch = $2 AND (next_offset, number, journal_time) = ($12, $13, $14)",
        "WHERE partition = $1 AND $2::bigint IS NOT NULL AND $12::bigint + $13::bigint + $14::bigint >= 0",
        "tests/integration/test_analyzer_zombies.py::test_zombie_is_fenced_and_changes_nothing",
    ),
    Breakage(
        "revision check of views off",
        "libs/common/view/entries.py",
        "        return revision is None or revision >= self.revision",
        "        return True",
        "tests/unit/test_view.py::test_lower_revision_is_ignored_also_after_a_deletion",
    ),
    Breakage(
        "progress published before the commit",
        "services/analyzer/consumer.py",
        "        await self._store.write(replace(slice_.write, state=state))\n",
        "        self._publisher.offer(state, slice_.write.models, urgent=True)\n"
        "        await self._store.write(replace(slice_.write, state=state))\n",
        # Not a trial: whoever holds the slice in memory writes it when the database is back.
        "tests/integration/test_analyzer_publication.py::"
        "test_nothing_is_told_of_a_slice_before_it_is_committed",
    ),
    Breakage(
        "spool rows released when shipped, not when applied",
        "libs/common/spool/journal.py",
        "                    held.store.release(applied)",
        "                    held.store.release(held.shipper.shipped())",
        "trial: embedded broker lost while the database is away",
    ),
    Breakage(
        "another cluster is not met from the beginning",
        "libs/common/spool/shipper.py",
        "            lane.restart(max(self._applied[lane.partition], self._store.floor[lane.partition]))\n",
        "",
        # Not the trial: the repair of lost records puts it right, seconds later.
        "tests/unit/test_shipper.py::test_another_cluster_gets_all_that_is_not_applied",
    ),
    Breakage(
        "gap passed over",
        "services/analyzer/handlers/fates.py",
        '                extra={"partition": draft.state.partition, "spool": spool, "after": known},\n'
        "            )\n"
        "        return False\n",
        '                extra={"partition": draft.state.partition, "spool": spool, "after": known},\n'
        "            )\n",
        "trial: journal lost records",
    ),
    Breakage(
        "records the bus lost are not shipped again",
        "libs/common/spool/shipper.py",
        "        background.spawn(self._mend())\n",
        "",
        "trial: journal lost records",
    ),
    Breakage(
        "failed batch is skipped",
        "libs/common/spool/shipper.py",
        "                    await asyncio.sleep(backoff.failed())\n"
        "                    continue\n                except (Exception",
        "                    await asyncio.sleep(backoff.failed())\n"
        "                    lane.sent(rows)\n"
        "                    continue\n                except (Exception",
        "tests/unit/test_shipper.py::test_no_partition_ever_has_a_gap_on_a_flaky_bus",
    ),
    Breakage(
        "models are not published after a crash between commit and bus",
        "services/analyzer/consumer.py",
        "            if not rows:\n                break\n",
        "            break\n",
        "tests/integration/test_analyzer_publication.py::"
        "test_heir_publishes_what_the_owner_committed_and_did_not_publish",
    ),
    Breakage(
        "suppressed keys are not read",
        "services/analyzer/handlers/erasing.py",
        "    if not draft.suppressed or type(known) is Tick",
        "    if draft.suppressed is not None or type(known) is Tick",
        "tests/integration/test_analyzer_erasures.py::"
        "test_late_events_are_dropped_as_erased_and_the_ledger_balances",
    ),
    Breakage(
        "spool quota off",
        "libs/common/spool/room.py",
        "        if self.used + grown >= limits.quota:",
        "        if self.used + grown < 0:",
        "tests/unit/test_spool_room.py::test_full_spool_refuses_events_takes_ticks_and_recovers_by_itself",
    ),
    Breakage(
        "unreadable records are skipped without a dead letter",
        "services/analyzer/handlers/fates.py",
        '        raise arrival.error or Invalid("undecodable", "no event")\n',
        "        return\n",
        "trial: poison 1 % and a burst",
    ),
    Breakage(
        "a fold reads the machine's clock",
        "services/analyzer/model/fold.py",
        "    at = event.occurred_at\n    lesson",
        '    at = event.occurred_at + __import__("time").time_ns() % 7\n    lesson',
        "trial: no fault",
    ),
)


def main() -> int:
    """Print the table; exit status 1 where a breakage could not be made or stayed green."""
    parser = argparse.ArgumentParser(prog="python -m tests.survival.breakages", description=__doc__)
    parser.add_argument("--only", default="", help="breakages whose name contains this")
    parser.add_argument("--control", action="store_true", help="run the same tests on the tree as it is")
    parser.add_argument("--report", type=Path, default=ROOT / "build" / "breakages.md")
    options = parser.parse_args()
    rows: list[str] = []
    wrong = 0
    for breakage in (each for each in BREAKAGES if options.only in each.name):
        began = time.monotonic()
        red, how = attempt(breakage, control=options.control)
        good = red is not options.control
        wrong += not good
        state = ("red" if red else "green") + ("" if good else " (!)")
        test = breakage.test.rpartition("/")[2]
        rows.append(f"| {breakage.name} | `{breakage.file}` | {test} | {state} | {how} |")
        print(f"{state:<9} {breakage.name}: {how} ({time.monotonic() - began:.0f} s)", flush=True)
        _write(options.report, rows)
    print("\n" + _write(options.report, rows))
    return int(wrong > 0 or not rows)


def _write(report: Path, rows: list[str]) -> str:
    head = ["| breakage | where | test | became | what it said |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *rows]) + "\n"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(table)
    return table


def attempt(breakage: Breakage, *, control: bool) -> tuple[bool, str]:
    """Whether the test went red on the broken tree (on the whole one for a control), and what it said."""
    text = (ROOT / breakage.file).read_text()
    if text.count(breakage.old) != 1:
        return False, f"the text to break is there {text.count(breakage.old)} times"
    with tempfile.TemporaryDirectory(prefix="closedloop-broken-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        # PostgreSQL's own user must reach what tests make below it.
        Path(folder).chmod(0o755)
        if not control:
            (tree / breakage.file).write_text(text.replace(breakage.old, breakage.new))
        try:
            done = subprocess.run(
                _command(breakage.test), cwd=tree, capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return True, f"did not end within {SECONDS} s"
    return done.returncode == 1, _last_word(done.stdout + done.stderr)


def _command(test: str) -> tuple[str, ...]:
    if test.startswith("trial: "):
        options = ("--once", "--exactly", test.removeprefix("trial: "), "--report", "build/survival.md")
        return (sys.executable, "-m", "tests.survival", *options)
    return (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", test)


def _last_word(output: str) -> str:
    """The line that says most: what the judge found, or pytest's summary."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    judged = [line for line in lines if re.match(rf"({'|'.join(_guarantees())}): \d+ of \d+", line)]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))]
    chosen = judged[:1] or failed[-1:] or lines[-1:] or ["nothing"]
    return chosen[0].replace("|", "/")[:160]


def _guarantees() -> list[str]:
    from tests.survival.judge import GUARANTEES

    return list(GUARANTEES)


if __name__ == "__main__":
    sys.exit(main())
