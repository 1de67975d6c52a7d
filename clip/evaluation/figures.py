"""Figures of scores in percent: curves with bands of standard deviations, or bars."""

import math
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which may need a screen
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from clip.evaluation.report import PERCENT, group_runs, title_of
from clip.utils.files import atomic_write

# Okabe and Ito's palette, which colour-blind readers can tell apart, and a longer one for more series.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MANY_COLOURS = matplotlib.colormaps["tab20"].colors
MARKERS = "osD^vPX*"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "dcp", "pdf.fonttype": 42, "font.size": 9, "axes.titlesize": 9.5}
STYLE |= {"axes.grid": True, "grid.alpha": 0.15, "axes.spines.top": False, "axes.spines.right": False}
ROUND = {"nbins": 6, "steps": [1, 2, 5, 10]}  # ticks
CONSTANT = {"color": "black", "linewidth": 1, "linestyle": ":"}
BAND = 0.15  # opacity
MANY_POINTS = 15  # of a curve; more have no markers


def draw(data: pd.DataFrame, x_label: str, metric: str, curves: bool, paths: list[Path], title: str = "") -> None:
    """Draw means and standard deviations as curves or bars, in one panel per value of "panel", to files.

    The data has one row per point: panel; series (one colour each); x; mean, std, published and constant_baseline in
    percent, NaN if unknown; and spread, what the standard deviation is taken over.
    """
    low, high, constant = data["mean"].min(), data["mean"].max(), data["constant_baseline"].max()
    if too_low := constant < low - 2 * (high - low):  # its line would hide the differences between the series
        data = data.assign(constant_baseline=math.nan)
    groups, names = list(data.groupby("panel", sort=False)), data["series"].unique().tolist()
    colours = cycle(COLOURS if len(names) <= len(COLOURS) else MANY_COLOURS)
    looks = zip(names, colours, cycle(MARKERS))  # zip stops at the names
    styles = {name: {"color": colour, "marker": marker, "markersize": 4} for name, colour, marker in looks}
    columns = min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    size = (max(7, 1 + 3 * columns), 1.1 + 2.7 * rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for plot, (heading, panel) in zip(grid.flat, groups, strict=False):
            (_plot_curves if curves else _plot_bars)(plot, panel, styles)
            plot.yaxis.set_major_locator(MaxNLocator(**ROUND))
            plot.set_xlabel(x_label)
            plot.set_title(heading)
        if not curves:  # an axis from 0 would hide the differences
            lowest = pd.concat([data["mean"] - data["std"].fillna(0), data["published"], data["constant_baseline"]])
            grid[0, 0].set_ylim(bottom=max(0, math.floor(lowest.min()) - 2))
        for plot in grid.flat[len(groups) :]:
            plot.set_axis_off()
        for plot in grid[:, 0]:
            plot.set_ylabel(f"{title_of(metric)} (%)")
        handles = [Patch(color=style["color"], label=name) for name, style in styles.items()]
        if curves:
            handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
        handles += _notes(data, curves)
        if too_low:
            handles.append(Line2D([], [], linestyle="", label=f"constant answer: {constant:.1f}"))
        ncols = min(5 if columns == 3 else 3, len(handles))
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols, frameon=False)
        figure.suptitle(title)
        for path in paths:
            form = path.suffix[1:]
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
            with atomic_write(path) as partial:
                figure.savefig(partial, format=form, dpi=150, metadata=metadata)


def _plot_curves(plot: Axes, panel: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    values = panel["x"].unique().tolist()
    if numeric := pd.api.types.is_numeric_dtype(panel["x"]):
        plot.xaxis.set_major_locator(MaxNLocator(**ROUND))
    else:
        plot.set_xticks(range(len(values)), values)
        panel = panel.assign(x=panel["x"].map(values.index))
    for name, style in styles.items():
        points = panel[panel["series"] == name]
        points = points.sort_values("x") if numeric else points
        x, mean, std = points["x"], points["mean"], points["std"]
        style = style | ({"marker": ""} if len(points) > MANY_POINTS else {})
        plot.plot(x, points["published"], "--", linewidth=1, markerfacecolor="white", **style)
        plot.fill_between(x, mean - std, mean + std, color=style["color"], alpha=BAND, linewidth=0)
        plot.plot(x, mean, **style)
    baseline = panel.groupby("x")["constant_baseline"].first()
    plot.plot(baseline.index, baseline, **CONSTANT)


def _plot_bars(plot: Axes, panel: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    width, values = 0.8 / len(styles), panel["x"].unique().tolist()
    plot.set_xticks(range(len(values)), values)
    for i, (name, style) in enumerate(styles.items()):
        points = panel[panel["series"] == name]
        x = points["x"].map(values.index) + (i - (len(styles) - 1) / 2) * width
        plot.bar(x, points["mean"], 0.9 * width, yerr=points["std"], capsize=2, color=style["color"])
        plot.plot(x, points["published"], "D", color="black", markerfacecolor="white", markersize=4)
    for value, baseline in panel.groupby("x")["constant_baseline"].first().items():
        place = values.index(value)
        plot.plot([place - 0.45, place + 0.45], [baseline, baseline], **CONSTANT)


def _notes(data: pd.DataFrame, curves: bool) -> list[Artist]:
    """Return the legend's entries for what is drawn besides the series."""
    handles, published = [], {"color": "black", "markerfacecolor": "white", "markersize": 4, "label": "published"}
    if data["std"].notna().any():
        label = f"± standard deviation over {data['spread'].iloc[0]}"
        bar = Line2D([], [], color="black", marker="|", linestyle="", label=label)
        handles.append(Patch(color="grey", alpha=2 * BAND, linewidth=0, label=label) if curves else bar)
    if data["published"].notna().any():
        handles.append(Line2D([], [], linestyle="--" if curves else "", marker="" if curves else "D", **published))
    if data["constant_baseline"].notna().any():
        handles.append(Line2D([], [], label="constant answer", **CONSTANT))
    return handles


def draw_sweep(results: pd.DataFrame, metric: str, dataset: str, folder: Path, name: str = "sweep") -> None:
    """Draw the results of ``sweep`` over the share of incomplete samples as NAME.png and NAME.pdf.

    One run has a curve per missing type. Several runs have a panel per missing type, as in the paper's Figure 3, and a
    curve per method (``group_runs``).
    """
    series, counts = group_runs(results)
    kind = "missing " + results["missing_type"]
    several = series.nunique() > 1
    data = results.assign(panel=kind if several else "", series=series if several else kind, spread=counts)
    groups = data.groupby(["panel", "series", "spread", "missing_ratio"], sort=False)
    points = PERCENT * groups[metric].agg(["mean", "std"])
    points["x"] = PERCENT * groups["incomplete"].mean()
    points["constant_baseline"] = PERCENT * groups["constant_baseline"].first()
    title = f"{dataset}: {', '.join(series.unique())} ({counts})"
    label = "incomplete samples of the test split (%)"
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    draw(points.assign(published=math.nan).reset_index(), label, metric, True, paths, title)
