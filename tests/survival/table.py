"""Faults × guarantees: events or trials, failures, and what share of failures the count excludes."""

from __future__ import annotations

from collections.abc import Sequence

from tests.survival.bounds import upper_bound
from tests.survival.judge import GUARANTEES, Count
from tests.survival.trial import Outcome


def cell(count: Count | None) -> str:
    """``n`` where nothing failed, else ``failures/n``; then the 95 % bound."""
    if count is None or count.n == 0:
        return "–"
    bound = f"{upper_bound(count.failures, count.n):.1g}"
    n = f"{count.n:,}" if not count.failures else f"**{count.failures:,}/{count.n:,}**"
    return f"{n} (<{bound})"


def survival_table(outcomes: Sequence[Outcome]) -> str:
    """The table in Markdown, a row for each kind of fault and one for all, then what failed."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.trial.name, []).append(outcome)
    used = [name for name in GUARANTEES if any(name in outcome.verdict for outcome in outcomes)]
    lines = ["| fault | trials | signals | " + " | ".join(used) + " |", "|---" * (len(used) + 3) + "|"]
    for name, group in [*rows.items(), ("**all**", list(outcomes))]:
        judged = [outcome for outcome in group if not outcome.skipped]
        counts = [cell(_sum(judged, guarantee)) for guarantee in used]
        signals = sum(outcome.kills for outcome in judged)
        lines.append(f"| {name} | {len(judged)} | {signals} | " + " | ".join(counts) + " |")
    lines += ["", "A cell is n, or failures/n in bold, and in brackets the share of failures that n does"]
    lines += ["not exclude (Clopper-Pearson, one-sided, 95 %).", ""]
    lines += [f"- *{name}*: {GUARANTEES[name]}" for name in used]
    troubled = [outcome.describe() for outcome in outcomes if outcome.failed or outcome.skipped]
    if troubled:
        lines += ["", "```", *troubled, "```"]
    return "\n".join(lines) + "\n"


def _sum(outcomes: Sequence[Outcome], guarantee: str) -> Count | None:
    total = Count()
    for outcome in outcomes:
        if guarantee in outcome.verdict:
            total += outcome.verdict[guarantee]
    return total if total.n else None
