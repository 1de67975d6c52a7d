"""Tables to read, csv files to keep, and figures in the paper's form."""

import math
from pathlib import Path

import matplotlib
import pandas as pd

from clip.utils.files import atomic_write

matplotlib.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

PERCENT = 100
UNDEFINED = "undefined: the labels are all the same"
MARKERS = "osD^vP"
LINES = ("-", "--", ":", "-.")


def baseline_text(floor: dict[str, float]) -> str:
    """Say in one line what a predictor that ignores its input would score."""
    scores = ", ".join(f"{name} {PERCENT * value:.2f}" for name, value in floor.items())
    return f"a predictor that ignores its input (best constant answer): {scores}"


def as_text(results: pd.DataFrame, headline: str) -> str:
    """Lay out a sweep as a table, types by rates, of the headline metric in percent."""
    keys = [key for key in ("method", "missing_type") if key in results]
    cells = results.groupby([*keys, "missing_ratio"], sort=False)[headline]
    table = cells.mean().unstack("missing_ratio")
    order = results[keys].drop_duplicates()
    index = pd.MultiIndex.from_frame(order) if len(keys) > 1 else pd.Index(order[keys[0]])
    table = (PERCENT * table.loc[index]).round(2)
    table.columns = [f"{PERCENT * ratio:g} %" for ratio in table.columns]
    floor = PERCENT * results["constant_baseline"].iloc[0]
    seeds = results["missing_seed"].nunique()
    spread = PERCENT * cells.std().max()
    tables = f"; mean of {seeds} tables, deviation up to {spread:.2f}" if seeds > 1 else ""
    return (
        f"{headline} in percent, by missing rate of the test split "
        f"(input ignored: {floor:.2f}{tables})\n{table.to_string()}"
    )


def metrics_text(metrics: dict[str, float]) -> str:
    """Lay out one evaluation as a table; all but losses in percent."""
    rows = {
        name: UNDEFINED if math.isnan(value)
        else f"{value if name.endswith('loss') else PERCENT * value:.2f}"
        for name, value in metrics.items()
    }  # fmt: skip
    return pd.Series(rows).to_string()


def draw_sweep(results: pd.DataFrame, headline: str, path: Path, title: str = "") -> None:
    """Draw the headline metric over the missing rate, as in the paper's Figure 3.

    Args:
        results: rows of ``evaluation.sweep``, perhaps with a column "method". One panel a type
            where there are several methods, else one curve a type.
        headline: column to draw.
        path: picture to write.
        title: of the figure.
    """
    several = "method" in results
    panels = list(results.groupby("missing_type", sort=False)) if several else [("", results)]
    figure, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, layout="constrained",
                                figsize=(1.2 + 3.6 * len(panels), 3.6))  # fmt: skip
    for axis, (panel, rows) in zip(axes[0], panels, strict=True):
        curves = rows.groupby("method" if several else "missing_type", sort=False)
        for number, (name, cells) in enumerate(curves):
            curve = PERCENT * cells.groupby("missing_ratio")[headline].agg(["mean", "min", "max"])
            rates = PERCENT * curve.index
            axis.fill_between(rates, curve["min"], curve["max"], alpha=0.15, linewidth=0)
            axis.plot(rates, curve["mean"], label=name,
                      marker=MARKERS[number % len(MARKERS)], markersize=5, linewidth=1.6,
                      linestyle=LINES[number % len(LINES)])  # fmt: skip
        floor = PERCENT * rows["constant_baseline"].iloc[0]
        axis.axhline(floor, color="grey", linewidth=1, label="input ignored")
        axis.set_xlabel("missing rate of the test split (%)")
        axis.set_title(f"missing {panel}" if panel else title, fontsize=10)
        axis.grid(alpha=0.25)
        if axis is axes[0, 0]:
            axis.legend(title="" if several else "missing", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel(f"{headline} (%)")
    if several:
        figure.suptitle(title, fontsize=11)
    with atomic_write(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)
    plt.close(figure)
