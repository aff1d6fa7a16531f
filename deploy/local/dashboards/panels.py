"""The vocabulary of the dashboards: what a panel of each kind looks like, so that all look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.local.dashboards.sections import place_of

RATE = "$__rate_interval"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOK = "closedloop-runbook"
"""The dashboard that shows docs/runbook.md."""

GREEN, YELLOW, RED = "green", "orange", "red"

PanelBuilder: TypeAlias = Builder[model.Panel]


class Query(NamedTuple):
    """A PromQL expression and the legend of its series (``{{label}}`` is replaced)."""

    expr: str
    legend: str


class Limits(NamedTuple):
    """From which value on a panel turns orange and red; with ``falling`` values below turn red."""

    warn: float
    bad: float
    falling: bool = False


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Limits | None = None,
    runbook: str | None = None,
    stacked: bool = False,
    negative: bool = False,
    width: int = 8,
) -> timeseries.Panel:
    """Values over time; the legend is a table with the last and the greatest value of each series.

    The axis begins at 0, except where values may be ``negative``.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(_explained(description, runbook))
        .datasource(SOURCE)
        .unit(unit)
        .height(8)
        .span(width)
        .line_width(1)
        .fill_opacity(20 if stacked else 8)
        .show_points(options.VisibilityMode.NEVER)
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.TABLE)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
    )
    if not negative:
        panel = panel.min(0)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if limits is not None:
        panel = panel.thresholds(_thresholds(limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        )
    if runbook is not None:
        panel = panel.links([_runbook_link(runbook)])
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number))
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    limits: Limits | None = None,
    runbook: str | None = None,
    words: dict[int, tuple[str, str]] | None = None,
    width: int = 3,
) -> stat.Panel:
    """One number, green, orange or red; ``words`` stand for values, each with its colour."""
    panel = (
        stat.Panel()
        .title(title)
        .description(_explained(description, runbook))
        .datasource(SOURCE)
        .unit(unit)
        .height(4)
        .span(width)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_mode(options.BigValueColorMode.BACKGROUND if words else options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE if words else options.BigValueGraphMode.AREA)
        .thresholds(_thresholds(limits))
        .with_target(_target(Query(expr, title), 0))
    )
    if words is not None:
        results = {
            str(value): model.ValueMappingResult(text=text, color=color)
            for value, (text, color) in words.items()
        }
        panel = panel.mappings([model.ValueMap(options=results)])
    if runbook is not None:
        panel = panel.links([_runbook_link(runbook)])
    return panel


def bars(title: str, description: str, unit: str, *queries: Query, width: int = 8) -> bargauge.Panel:
    """Numbers of the chosen time range side by side."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .decimals(0)
        .min(0)
        .height(8)
        .span(width)
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(_thresholds(None))
    )
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number, instant=True))
    return panel


def columns(
    title: str, description: str, unit: str, by: str, column: str, query: Query, width: int = 24
) -> table.Panel:
    """A table of one moment: a row for each value of label ``by``, a column for each of ``column``."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .height(8)
        .span(width)
        .with_target(_target(query, 0, instant=True).format(PromQueryFormat.TABLE))
        .transformations(
            [
                model.DataTransformerConfig(
                    id_val="groupingToMatrix",
                    options={"rowField": by, "columnField": column, "valueField": "Value"},
                )
            ]
        )
    )


def row(title: str) -> dashboard.Row:
    """A heading."""
    return dashboard.Row(title)


def page(
    uid: str, title: str, description: str, variables: Sequence[Builder[model.VariableModel]] = ()
) -> dashboard.Dashboard:
    """An empty dashboard with the choice of data source, ``variables`` and links to its like."""
    found = (
        dashboard.Dashboard(f"closedloop: {title}")
        .uid(uid)
        .description(description)
        .tags(["closedloop"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("10s")
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            dashboard.DashboardLink("closedloop")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["closedloop"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for variable in variables:
        found = found.with_variable(variable)
    return found


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable with the values of ``query`` (``label_values(…)``), several or all at once."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def here(name: str, more: str = "") -> str:
    """The selector of the chosen instances of process ``name``."""
    return f'job="{name}", instance=~"$instance"' + (f", {more}" if more else "")


def quantiles(name: str, selector: str, by: str = "") -> tuple[Query, Query]:
    """Median and 99th percentile of a histogram, for each value of label ``by`` where one is given."""
    grouped = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    rate = f"sum by ({grouped}) (rate({name}_bucket{{{selector}}}[{RATE}]))"
    return (
        Query(f"histogram_quantile(0.5, {rate})", f"{legend}p50"),
        Query(f"histogram_quantile(0.99, {rate})", f"{legend}p99"),
    )


def _target(query: Query, number: int, *, instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(65 + number))
    target = target.datasource(SOURCE)
    return target.instant() if instant else target.range()


def _thresholds(limits: Limits | None) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color=GREEN)]
    if limits is not None and limits.falling:
        steps = [
            model.Threshold(value=None, color=RED),
            model.Threshold(value=limits.bad, color=YELLOW),
            model.Threshold(value=limits.warn, color=GREEN),
        ]
    elif limits is not None:
        steps += [
            model.Threshold(value=limits.warn, color=YELLOW),
            model.Threshold(value=limits.bad, color=RED),
        ]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _explained(description: str, runbook: str | None) -> str:
    return description if runbook is None else f"{description} Runbook: {runbook}."


def _runbook_link(section: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"Runbook: {section}")
        .type(model.DashboardLinkType.LINK)
        .url(f"/d/{RUNBOOK}?viewPanel={place_of(section)}")
        .target_blank(True)
    )
