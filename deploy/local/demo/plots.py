"""Plots of the report as SVG text, so that the report stays one file."""

from __future__ import annotations

import io
from typing import Any

from deploy.local.demo.figures import MEASURE_NAMES, RANKINGS, Figures

COLOURS = {"learned": "#0b6e4f", "habit": "#c08a2d", "popular": "#8a8f98"}


def weekly(figures: Figures, measure: str) -> str:
    """One measure by week, a line for each ranking."""
    figure, axes = _axes(6.4, 2.9)
    weeks = list(figures.weekly)
    for layer, (name, label) in enumerate(RANKINGS.items()):
        values = [figures.weekly[week][name][measure] for week in weeks]
        style = {"color": COLOURS[name], "label": label, "marker": "o", "markersize": 3, "linewidth": 1.6}
        axes.plot(weeks, values, zorder=5 - layer, **style)
    axes.set_xlabel("week")
    axes.set_title(f"{MEASURE_NAMES[measure]} by week", loc="left", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, loc="lower right", ncols=3)
    return _svg(figure)


def overall(figures: Figures) -> str:
    """NDCG@10 of each ranking with its interval."""
    figure, axes = _axes(6.4, 1.9)
    names = list(RANKINGS)[::-1]
    for row, name in enumerate(names):
        mean, low, high = figures.means[name]["ndcg"]
        axes.barh(row, mean, color=COLOURS[name], height=0.6)
        axes.plot([low, high], [row, row], color="#222222", linewidth=1.4)
    axes.set_yticks(range(len(names)), [RANKINGS[name] for name in names], fontsize=9)
    axes.set_title("NDCG@10 over all scored baskets, with 95 % intervals", loc="left", fontsize=10)
    return _svg(figure)


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="tight")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
