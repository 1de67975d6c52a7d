"""Draw the SVG figures of an experiment: bar charts with error bars, or curves over the missing rate."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from clip.evaluation.report import MARKERS, PERCENT
from clip.experiments.spec import Experiment
from clip.utils.files import atomic_write

matplotlib.use("Agg")  # no display is needed
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

# Okabe and Ito's colour-blind-safe palette.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "dcp", "font.size": 9, "axes.titlesize": 9.5}
STYLE |= {"axes.grid": True, "grid.alpha": 0.15, "axes.spines.top": False, "axes.spines.right": False}


def average(scores: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Average scores over the seeds; return one row per point with the axes, mean, std, n and published (percent)."""
    groups = scores.groupby(axes, sort=False)
    table = PERCENT * groups["score"].agg(["mean", "std"])
    return table.assign(n=groups["seed"].nunique(), published=groups["published"].first()).reset_index()


def arrange(experiment: Experiment, scores: pd.DataFrame, axis: str) -> tuple[str, str, list[str], str]:
    """Return the axes of a figure (series, x, panels) and its kind."""
    if experiment.figure == "curves":
        axis, along = experiment.rows[-1], experiment.columns[-1]
    else:
        rest = [name for name in experiment.axes if name not in (axis, "split") and scores[name].nunique() > 1]
        along = rest[-1] if rest else "split"
    names = dict.fromkeys(["split", *experiment.axes])
    panels = [name for name in names if name not in (axis, along) and scores[name].nunique() > 1]
    return axis, along, panels, experiment.figure


def draw(data: pd.DataFrame, metric: str, axis: str, along: str, panels: list[str], kind: str, path: Path) -> None:
    """Draw one panel for each combination of the panels' axes.

    Args:
        data: rows of ``average``.
        metric: label of the y axis.
        axis: axis of the series; each series has its own colour.
        along: axis shown along x.
        panels: axes of the panels.
        kind: "curves", or "none" for bars.
        path: SVG file to write.
    """
    groups = list(data.groupby(panels, sort=False)) if panels else [((), data)]
    names = list(dict.fromkeys(data[axis]))
    width, columns = 0.8 / len(names), min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    size = (max(7, 1 + 3 * columns), 0.9 + 2.8 * rows)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(rows, columns, squeeze=False, sharey=True, layout="constrained", figsize=size)
        for plot, (place, panel) in zip(grid.flat, groups, strict=False):
            values = list(dict.fromkeys(panel[along]))
            numeric = kind == "curves" and all(isinstance(value, int | float) for value in values)
            places = np.array(values if numeric else range(len(values)))
            for i, name in enumerate(names):
                rows = panel[panel[axis] == name].set_index(along).reindex(values)
                style = {"color": COLOURS[i % len(COLOURS)], "label": _text(name)}
                published = {"color": style["color"], "markerfacecolor": "white", "markersize": 4}
                if kind == "curves":
                    style["marker"] = published["marker"] = MARKERS[i % len(MARKERS)]
                    plot.plot(places, rows["published"], linestyle="--", linewidth=1, **published)
                    plot.errorbar(places, rows["mean"], rows["std"].fillna(0), capsize=2, markersize=4.5, **style)
                else:
                    x = places + (i - (len(names) - 1) / 2) * width
                    plot.bar(x, rows["mean"], 0.9 * width, yerr=rows["std"].fillna(0), capsize=2, **style)
                    plot.plot(x, rows["published"], "D", **published | {"color": "black"})
            plot.set_xticks(places, map(_text, values))
            plot.set_xlabel(along)
            plot.set_title(", ".join(f"{key} {_text(value)}" for key, value in zip(panels, place, strict=True)))
        if kind == "none":  # starting at 0 would hide the differences
            lowest = pd.concat([data["mean"] - data["std"].fillna(0), data["published"]]).min()
            grid[0, 0].set_ylim(bottom=max(0, math.floor(lowest) - 2))
        for plot in grid.flat[len(groups) :]:
            plot.set_axis_off()
        for plot in grid[:, 0]:
            plot.set_ylabel(f"{metric} (%)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
        with atomic_write(path) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None})
    plt.close(figure)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
