"""The market's part of the report, and the same for the screen."""

from __future__ import annotations

from html import escape

from deploy.local.demo.report import bars_table, page, table
from deploy.local.market.figures import LEVEL, MarketFigures

Rows = list[tuple[str, ...]]

TRUTH = (
    "Customers, their tastes and what an offer causes are made up, so that the truth is known: to the "
    "market, never to the platform, which hears over HTTP what any shop would tell it."
)
LIFT_HEAD = ("margin a customer, treated against", "customers", "estimated", f"{LEVEL:.0%} interval", "truth")
PART_HEAD = ("share of the possible incremental margin", "treated", "popularity", "drawn evenly")
CAUSED_HEAD = ("share of sales that showing caused", "learned", "truth", "looked at")
CALIBRATION_HEAD = ("incremental margin of an offer looked at", "expected", "truth", "looked at")


def lift_rows(figures: MarketFigures) -> Rows:
    """A row for each group that was held out."""
    return [
        (
            {"none": "no offers", "baseline": "popularity"}[lift.against],
            f"{lift.customers[0]:,} / {lift.customers[1]:,}",
            f"{lift.estimate:+.2f}",
            f"[{lift.low:+.2f}, {lift.high:+.2f}]",
            f"{lift.truth:+.2f}" + ("" if lift.covers else " (outside)"),
        )
        for lift in figures.lifts
    ]


def part_rows(figures: MarketFigures) -> Rows:
    """A row for each part of the run."""
    return [
        (part, *(f"{shares[name]:.0%}" for name in ("treatment", "baseline", "evenly")))
        for part, shares in figures.possible.items()
    ]


def caused_rows(figures: MarketFigures) -> Rows:
    """A row for each kind of offer."""
    return [
        (
            row.kind,
            "–" if row.learned is None else f"{row.learned:.2f}",
            f"{row.truth:.2f}",
            f"{row.trials:,}",
        )
        for row in figures.caused
    ]


def calibration_rows(figures: MarketFigures) -> Rows:
    """A row for each kind of offer."""
    return [
        (row.kind, f"{row.expected:.3f}", f"{row.truth:.3f}", f"{row.shown:,}") for row in figures.calibration
    ]


def audit_line(figures: MarketFigures) -> str:
    """Whether stated propensities are the true ones."""
    audit = figures.audit
    return (
        f"Propensities: the mean weight of a policy that draws evenly is {audit.mean_weight:.3f} ± "
        f"{audit.error:.3f} over {audit.draws:,} draws (1 is right, {audit.off:.1f} standard errors off); "
        f"its effective sample is {audit.sample_share:.1%} of what was logged."
    )


def drift_line(figures: MarketFigures) -> str:
    """How it got over other tastes."""
    return (
        f"At half time tastes moved on; at the end it reaches {figures.recovery:.0%} of what it reached just "
        "before."
    )


def size_line(figures: MarketFigures) -> str:
    """How much went on, and how fast."""
    return (
        f"Market {figures.seed}: {figures.customers} customers over {figures.days} days of offers, "
        f"{figures.decisions:,} decisions and {figures.events:,} events in {figures.seconds:.0f} s."
    )


def tables(figures: MarketFigures) -> list[tuple[tuple[str, ...], Rows]]:
    """All tables with their heads."""
    return [
        (LIFT_HEAD, lift_rows(figures)),
        (PART_HEAD, part_rows(figures)),
        (CAUSED_HEAD, caused_rows(figures)),
        (CALIBRATION_HEAD, calibration_rows(figures)),
    ]


def lines(figures: MarketFigures) -> list[str]:
    """What is said beside the tables."""
    return [size_line(figures), audit_line(figures), drift_line(figures)]


def section(figures: MarketFigures) -> str:
    """The market's part of a report."""
    return "\n".join(
        [
            "<h2>A market with known truth</h2>",
            f'<p class="quiet">{escape(TRUTH)}</p>',
            *(table(head, rows) for head, rows in tables(figures)),
            *(f"<p>{escape(line)}</p>" for line in lines(figures)),
            "<h3>Promises of this market</h3>",
            bars_table(figures.bars),
        ]
    )


def html(figures: MarketFigures) -> str:
    """A report of the market alone."""
    return page(
        "a market with known truth", ["<h1>A loop in a market with known truth</h1>", section(figures)]
    )
