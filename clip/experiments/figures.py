"""The paper's curves, ours beside the published ones, as SVG for light and dark pages."""

import io
import math
import re
from typing import Any

import matplotlib
import pandas as pd

from clip.evaluation.report import PERCENT
from clip.experiments.layout import name_of
from clip.experiments.schema import Experiment

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

INK = "#010203"  # stands for the page's own colour of text
# Okabe and Ito's palette, which colour-blind readers can tell apart; the page has them as
# --c0 to --c6, a little lighter on a dark ground.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKERS = "osD^vPX*"
STYLE = {
    "svg.fonttype": "none", "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": INK, "font.size": 9,
}  # fmt: skip


def axes_of(experiment: Experiment) -> tuple[list[str], str, str]:
    """Give the axes of the panels, of the curves and along x."""
    *panels, curve = experiment.rows
    *more, along = experiment.columns
    return [*panels, *more], curve, along


def points(experiment: Experiment, cells: pd.DataFrame) -> pd.DataFrame:
    """Average the cells over the seeds: one row a point, scores in percent.

    Returns:
        Columns: the axes, "split", "mean", "std", "n", "published".
    """
    panels, curve, along = axes_of(experiment)
    keys = list(dict.fromkeys((*panels, "split", curve, along)))
    grouped = cells.groupby(keys, sort=False)
    out = (PERCENT * grouped["score"].agg(["mean", "std"])).assign(
        n=grouped["seed"].nunique(), published=grouped["published"].first()
    )
    return out.reset_index()


def _places(values: pd.Series) -> list[float]:
    """Give places along x: numbers as they are, names in their order."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        order = list(dict.fromkeys(values))
        return [float(order.index(value)) for value in values]


def _draw_curve(axis: Any, rows: pd.DataFrame, along: str, number: int, label: str) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    places = _places(rows[along])
    spread = rows["std"].fillna(0)
    axis.errorbar(places, rows["mean"], yerr=spread, color=colour, marker=marker, label=label,
                  markersize=4.5, linewidth=1.6, capsize=2, elinewidth=0.9)  # fmt: skip
    if rows["published"].notna().any():
        axis.plot(places, rows["published"], color=colour, marker=marker, markersize=3.5,
                  markerfacecolor="none", linewidth=1.1, linestyle=(0, (4, 2.5)))  # fmt: skip


def draw(experiment: Experiment, data: pd.DataFrame, metric: str, number: int) -> str:
    """Draw one panel for each value of the panels' axes, one curve for each of the curves' axis.

    Args:
        experiment: says which axis is which.
        data: of ``points``.
        metric: along y.
        number: of the figure on the page, which keeps its ids apart from others'.

    Returns:
        An ``<svg>`` element: its text takes the colour of the page, its curves --c0, --c1 ...
    """
    panels, curve, along = axes_of(experiment)
    keys = [*panels, *(["split"] if "split" not in panels and data["split"].nunique() > 1 else [])]
    groups = list(data.groupby(keys, sort=False)) if keys else [((), data)]
    order = list(dict.fromkeys(data[curve]))
    wide = min(3, len(groups))
    deep = math.ceil(len(groups) / wide)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(deep, wide, squeeze=False, sharey=True, layout="constrained",
                                    figsize=(1 + 3 * wide, 0.7 + 2.9 * deep))  # fmt: skip
        for axis, (place, panel) in zip(grid.flat, groups, strict=False):
            for name, rows in panel.groupby(curve, sort=False):
                _draw_curve(axis, rows, along, order.index(name), name_of(name))
            shown = ", ".join(f"{key} {name_of(value)}"
                              for key, value in zip(keys, place, strict=True))  # fmt: skip
            _dress(axis, panel, along, shown)
        for axis in list(grid.flat)[len(groups) :]:
            axis.set_axis_off()
        for row in grid:
            row[0].set_ylabel(f"{metric} (%)")
        handles, names = grid[0, 0].get_legend_handles_labels()
        dashed = plt.Line2D([], [], color=INK, linestyle=(0, (4, 2.5)), linewidth=1.1)
        paper = ([dashed], ["published"]) if data["published"].notna().any() else ([], [])
        figure.legend(handles + paper[0], names + paper[1], loc="outside lower center",
                      ncols=min(5, len(names) + len(paper[1])), frameon=False)  # fmt: skip
        return themed(figure, number)


def _dress(axis: Any, panel: pd.DataFrame, along: str, title: str) -> None:
    places = dict(zip(_places(panel[along]), map(name_of, panel[along]), strict=True))
    axis.set_xticks(list(places), list(places.values()))
    axis.set_xlabel(along)
    axis.set_title(title, fontsize=9.5)
    axis.grid(alpha=0.15)
    axis.spines[["top", "right"]].set_visible(False)


def themed(figure: Any, number: int) -> str:
    """Write a figure as SVG whose colours are the page's, and close it."""
    figure.patch.set_visible(False)
    for axis in figure.axes:
        axis.patch.set_visible(False)
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": f"figure {number}", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg")
    plt.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>f{number}-", svg)  # ids are the page's
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for place, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--c{place})")
    return svg.replace(INK, "currentColor")
