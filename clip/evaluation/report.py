"""Format scores as text and draw the figure of a sweep."""

import math
from pathlib import Path

import matplotlib
import pandas as pd

from clip.utils.files import atomic_write

matplotlib.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

PERCENT = 100
MARKERS = "osD^vPX*"
LINES = ("-", "--", ":", "-.")


def baseline_text(baseline: dict[str, float]) -> str:
    """Return one line with the scores of the best constant prediction."""
    return f"best constant prediction: {', '.join(f'{name} {PERCENT * s:.2f}' for name, s in baseline.items())}"


def metrics_text(metrics: dict[str, float]) -> str:
    """Return a table of metrics: losses as they are, everything else in percent."""
    rows = {name: f"{value if name.endswith('loss') else PERCENT * value:.2f}" for name, value in metrics.items()}
    rows |= {name: "undefined: all labels are equal" for name, value in metrics.items() if math.isnan(value)}
    return pd.Series(rows).to_string()


def sweep_text(results: pd.DataFrame, metric: str) -> str:
    """Return a sweep as a table of missing types by missing rates, one metric in percent.

    Args:
        results: rows of ``sweep``, with an optional column "method".
        metric: column to show.
    """
    keys = [key for key in ("method", "missing_type") if key in results]
    scores = results.groupby([*keys, "missing_ratio"], sort=False)[metric]
    table = (PERCENT * scores.mean().unstack("missing_ratio")).round(2)
    order = results[keys].drop_duplicates()
    table = table.loc[pd.MultiIndex.from_frame(order) if len(keys) > 1 else pd.Index(order[keys[0]])]
    table.columns = [f"{PERCENT * ratio:g} %" for ratio in table.columns]
    baseline, seeds = PERCENT * results["constant_baseline"].iloc[0], results["missing_seed"].nunique()
    spread = f"; mean of {seeds} masks, standard deviation <= {PERCENT * scores.std().max():.2f}" if seeds > 1 else ""
    return (
        f"{metric} in percent, by missing rate of the test split "
        f"(constant baseline: {baseline:.2f}{spread})\n{table.to_string()}"
    )


def draw_sweep(results: pd.DataFrame, metric: str, path: Path, title: str = "") -> None:
    """Draw a metric over the missing rate, as in the paper's Figure 3.

    Args:
        results: rows of ``sweep``. With a column "method" there is one panel per missing type and
            one curve per method, otherwise one curve per missing type.
        metric: column to draw.
        path: image file to write.
        title: title of the figure.
    """
    by_method = "method" in results
    panels = list(results.groupby("missing_type", sort=False)) if by_method else [("", results)]
    size = (1.2 + 3.6 * len(panels), 3.6)
    figure, grid = plt.subplots(1, len(panels), sharey=True, squeeze=False, layout="constrained", figsize=size)
    for axis, (panel, rows) in zip(grid[0], panels, strict=True):
        for i, (name, cells) in enumerate(rows.groupby("method" if by_method else "missing_type", sort=False)):
            curve = PERCENT * cells.groupby("missing_ratio")[metric].agg(["mean", "min", "max"])
            style = {"marker": MARKERS[i % len(MARKERS)], "linestyle": LINES[i % len(LINES)]}
            axis.fill_between(PERCENT * curve.index, curve["min"], curve["max"], alpha=0.15, linewidth=0)
            axis.plot(PERCENT * curve.index, curve["mean"], label=name, markersize=5, linewidth=1.6, **style)
        baseline = PERCENT * rows["constant_baseline"].iloc[0]
        axis.axhline(baseline, color="grey", linewidth=1, label="constant baseline")
        axis.set_xlabel("missing rate of the test split (%)")
        axis.set_title(f"missing {panel}" if panel else title, fontsize=10)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    grid[0, 0].legend(title="" if by_method else "missing", fontsize=9)
    grid[0, 0].set_ylabel(f"{metric} (%)")
    if by_method:
        figure.suptitle(title, fontsize=11)
    with atomic_write(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)
    plt.close(figure)
