"""Figures of scores in percent: curves over the missing rate, or bars."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from clip.evaluation.report import PERCENT
from clip.utils.files import atomic_write

matplotlib.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKERS = "osD^vPX*"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "dcp", "font.size": 9, "axes.titlesize": 9.5}
STYLE |= {"axes.grid": True, "grid.alpha": 0.15, "axes.spines.top": False, "axes.spines.right": False}


def draw(
    data: pd.DataFrame, metric: str, axis: str, along: str, panels: list[str], curves: bool, path: Path, title: str = ""
) -> None:
    """Draw means with standard deviations as error bars, as curves or bars, in one panel per value of ``panels``.

    The data has one row per point: its value of ``axis`` (one colour each), ``along`` (x) and ``panels``; mean, std and
    published; and constant_baseline if it is drawn.
    """
    groups = list(data.groupby(panels, sort=False)) if panels else [((), data)]
    names = data[axis].unique()
    width, columns = 0.8 / len(names), min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    size = (max(7, 1 + 3 * columns), 0.9 + 2.8 * rows)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(rows, columns, squeeze=False, sharey=True, layout="constrained", figsize=size)
        for plot, (place, panel) in zip(grid.flat, groups, strict=False):
            values = panel[along].unique().tolist()
            numeric = curves and all(isinstance(value, int | float) for value in values)
            places = np.array(values if numeric else range(len(values)))
            for i, name in enumerate(names):
                points = panel[panel[axis] == name].set_index(along).reindex(values)
                mean, std, published = points["mean"], points["std"].fillna(0), points["published"]
                style = {"color": COLOURS[i % len(COLOURS)], "markersize": 4}
                if curves:
                    style["marker"] = MARKERS[i % len(MARKERS)]
                    plot.plot(places, published, "--", linewidth=1, markerfacecolor="white", **style)
                    plot.errorbar(places, mean, std, capsize=2, label=_text(name), **style)
                else:
                    x = places + (i - (len(names) - 1) / 2) * width
                    plot.bar(x, mean, 0.9 * width, yerr=std, capsize=2, color=style["color"], label=_text(name))
                    plot.plot(x, published, "D", color="black", markerfacecolor="white", markersize=4)
            if "constant_baseline" in panel:
                plot.axhline(panel["constant_baseline"].iloc[0], color="grey", linewidth=1, label="constant baseline")
            plot.set_xticks(places, map(_text, values))
            plot.set_xlabel(along)
            plot.set_title(", ".join(f"{key} {_text(value)}" for key, value in zip(panels, place, strict=True)))
        if not curves:  # from 0 on, the differences could not be seen
            lowest = pd.concat([data["mean"] - data["std"].fillna(0), data["published"]]).min()
            grid[0, 0].set_ylim(bottom=max(0, math.floor(lowest) - 2))
        for plot in grid.flat[len(groups) :]:
            plot.set_axis_off()
        for plot in grid[:, 0]:
            plot.set_ylabel(f"{metric} (%)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
        figure.suptitle(title)
        form = path.suffix[1:]
        with atomic_write(path) as partial:
            figure.savefig(partial, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    plt.close(figure)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def draw_sweep(results: pd.DataFrame, metric: str, path: Path, title: str = "") -> None:
    """Draw a metric of ``sweep`` over the missing rate, as in the paper's Figure 3.

    With a column "method" there is one panel per missing type and one curve per method, otherwise one curve per type.
    """
    axis, panels = ("method", ["missing_type"]) if "method" in results else ("missing_type", [])
    rate = "missing rate of the test split (%)"
    groups = results.assign(**{rate: PERCENT * results["missing_ratio"]}).groupby([*panels, axis, rate], sort=False)
    data = PERCENT * groups[metric].agg(["mean", "std"]).join(groups["constant_baseline"].first())
    draw(data.assign(published=np.nan).reset_index(), metric, axis, rate, panels, True, path, title)
