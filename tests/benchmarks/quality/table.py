"""The claims about quality, and what an examination says of each: as a table, a page and rows of a CSV."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.demo.scores import Interval
from tests.benchmarks.quality.exam import Subject
from tests.benchmarks.quality.loop import ROOT

PAGE = ROOT / "docs" / "quality.md"
NOTES = "## Reading it"
"""From this heading on the page is written by hand, and kept."""
RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = ("when", "run", "what", "measured", "against", "by", "low", "high", "bar", "holds")


@dataclass(frozen=True)
class Claim:
    """Of one subject, how much better one ranking is than another.

    Parameters
    ----------
    at_least:
        Of the ratio of the two means, or of their difference where ``differs``; None: shown, not promised.
    within:
        The difference may be this much in either direction; in place of ``at_least``.
    """

    subject: str
    ranking: str
    rival: str
    at_least: float | None = None
    differs: bool = False
    within: float | None = None
    measure: str = "ndcg"


@dataclass(frozen=True)
class Verdict:
    """A claim with its figures."""

    claim: Claim
    baskets: int
    figure: Interval
    rival: Interval
    by: Interval

    @property
    def holds(self) -> bool | None:
        """Whether the claim is kept; None where nothing was promised."""
        claim = self.claim
        if claim.within is not None:
            return abs(self.by.mean) <= claim.within
        return None if claim.at_least is None else self.by.mean >= claim.at_least

    @property
    def bar(self) -> str:
        """The promise in a few characters."""
        claim = self.claim
        if claim.within is not None:
            return f"± {claim.within:g}"
        if claim.at_least is None:
            return "–"
        return f"≥ {claim.at_least:+.3f}" if claim.differs else f"≥ {claim.at_least:g} ×"


def judge(claims: Iterable[Claim], examined: Sequence[Subject]) -> list[Verdict]:
    """The verdicts on the claims whose subject and rankings were examined."""
    subjects = {subject.name: subject for subject in examined}
    found = []
    for claim in claims:
        subject = subjects.get(claim.subject)
        if subject is None or not len(subject.board) or claim.rival not in subject.board.rows:
            continue
        board = subject.board
        if claim.differs or claim.within is not None:
            by = board.interval(claim.ranking, claim.measure, minus=claim.rival)
        else:
            by = board.ratio(claim.ranking, claim.rival, claim.measure)
        figure, rival = (board.interval(name, claim.measure) for name in (claim.ranking, claim.rival))
        found.append(Verdict(claim, len(board), figure, rival, by))
    return found


def table(verdicts: Sequence[Verdict]) -> str:
    """Everything in Markdown."""
    head = "| what | baskets | ranking | | against | | by | bar | |\n" + "|---" * 9 + "|\n"
    return head + "".join(_line(verdict) for verdict in verdicts)


def _line(verdict: Verdict) -> str:
    claim, by = verdict.claim, verdict.by
    sign, times = ("+", "") if claim.differs or claim.within is not None else ("", " ×")
    digits = 4 if sign else 2
    span = f"{by.mean:{sign}.{digits}f}{times} ({by.low:{sign}.{digits}f} to {by.high:{sign}.{digits}f})"
    holds = {True: "holds", False: "**missed**", None: ""}[verdict.holds]
    return (
        f"| {claim.subject} | {verdict.baskets:,} | {claim.ranking} | {verdict.figure.mean:.4f} "
        f"| {claim.rival} | {verdict.rival.mean:.4f} | {span} | {verdict.bar} | {holds} |\n"
    )


def keep(verdicts: Sequence[Verdict], run: str, path: Path = RESULTS) -> None:
    """Add the figures of this run to the CSV."""
    fresh = not path.exists()
    when = time.strftime("%Y-%m-%dT%H:%M")
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(COLUMNS)
        for verdict in verdicts:
            claim, by = verdict.claim, verdict.by
            writer.writerow(
                [
                    *(when, run, f"{claim.subject}: {claim.ranking} / {claim.rival}"),
                    *(round(number, 5) for number in (verdict.figure.mean, verdict.rival.mean, *by)),
                    *(verdict.bar, verdict.holds),
                ]
            )


def write_page(verdicts: Sequence[Verdict], run: str, path: Path = PAGE) -> None:
    """Write the page anew, but for what was written by hand."""
    _, heading, notes = path.read_text().partition(NOTES) if path.exists() else ("", NOTES, "\n")
    head = f"{INTRO}Last run: {time.strftime('%Y-%m-%d')}, {run}.\n\n{table(verdicts)}\n"
    path.write_text(f"{head}{heading}{notes}")


INTRO = """# Quality

Written by `make bench-quality`. A platform of its own replays a year of shopping over HTTP on a journal
clock: The Complete Journey, simulated from real shopping patterns, product types as products. From week 40
on it is asked before each day's baskets, by dry runs with `objective: acceptance` and equal margins, and each
list of ten is scored against the basket that followed (NDCG@10, from 0 to 1). Baselines are told the same
orders at the same moments. Intervals: 95 of 100 samples of whole households, the same samples for both
rankings. History: `tests/benchmarks/quality/results.csv`.

"""
