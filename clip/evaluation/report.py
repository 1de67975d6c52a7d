"""Scores as text."""

import math

import numpy as np
import pandas as pd

PERCENT = 100
TITLES = {  # of metrics, data sets, methods and splits
    "F1_Macro": "Macro F1",
    "F1_Micro": "Micro F1",
    "F1_Samples": "Samples F1",
    "F1_Weighted": "Weighted F1",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "mmimdb": "MM-IMDb",
    "food101": "UPMC Food-101",
    "hatememes": "Hateful Memes",
    "manifest": "own data",
    "dcp": "DCP",
    "mmp": "MMP",
    "mmp_attention": "MMP attention",
    "maple": "MaPLe",
    "coop": "CoOp",
    "dept": "DePT",
    "msp": "MSP",
    "memprompt": "MemPrompt",
    "aoept": "AOEPT",
    "dpl": "DPL",
    "lora": "LoRA",
    "dora": "DoRA",
    "bitfit": "BitFit",
    "mora": "MoRA",
    "none": "baseline",
    "finetune": "fine-tuning",
    "val": "validation",
}


def title_of(name: str) -> str:
    """Return the title of a metric, data set, method or split; a name without one keeps its words."""
    return TITLES.get(name, name.replace("_", " "))


def format_score(name: str, value: float) -> str:
    """Return a score with two decimals: a loss as it is, everything else in percent."""
    return f"{value if name.endswith('loss') else PERCENT * value:.2f}"


def metrics_text(metrics: dict[str, float]) -> str:
    """Return a table of metrics: losses as they are, everything else in percent."""
    rows = {name: format_score(name, value) for name, value in metrics.items()}
    rows |= {name: "undefined: all labels are equal" for name, value in metrics.items() if math.isnan(value)}
    return pd.Series(rows).to_string()


def group_runs(results: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return the method of each row of ``sweep``, and what its scores are averaged over ("3 training seeds").

    Runs whose paths differ in their seed only belong together; the path is added to a method with other runs as well.
    """
    same = results["run"].str.replace(r"_seed\d+(?=/|$)", "", regex=True)
    methods = results["method"].map(title_of)
    ambiguous = same.groupby(methods).transform("nunique") > 1
    names = methods.where(~ambiguous, methods + " (" + same.str.replace(r"/checkpoints/.*", "", regex=True) + ")")
    seeds, masks = results["run"].groupby(names).nunique().max(), results["missing_seed"].nunique()
    counts = [f"{seeds} training seeds"] if seeds > 1 else []
    counts += [f"{masks} masks"] if masks > 1 else []
    return names, " and ".join(counts) or "1 training seed"


def robustness(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return how a metric of a sweep holds as more is missing, one row per run and missing type.

    ``relative_R`` is the score at the rate R divided by that at rate 0; ``effective`` is the area under the scores over
    the rates (trapezoids), divided by the range of the rates. Scores are means over the seeds of the masks; what a
    grid without rate 0, or with a single rate, cannot give is NaN.
    """
    scores = results.groupby(["run", "method", "missing_type", "missing_ratio"], sort=False)[metric].mean()
    grid = scores.unstack("missing_ratio").sort_index(axis=1)
    rates = grid.columns.to_numpy(dtype=float)
    table = grid.div(grid.get(0.0, np.nan), axis=0).rename(columns="relative_{:g}".format)
    width = rates[-1] - rates[0]
    table["effective"] = np.trapezoid(grid, rates, axis=1) / width if width else np.nan
    return table.reset_index()


def sweep_text(results: pd.DataFrame, metric: str) -> str:
    """Return one metric in percent as a table of methods, if several, and missing types by missing rates."""
    method, counts = group_runs(results)
    keys = ["method"] * (method.nunique() > 1) + ["missing_type"]
    scores = results.assign(method=method).groupby([*keys, "missing_ratio"], sort=False)[metric]
    table = (PERCENT * scores.mean().unstack("missing_ratio", sort=False).sort_index(axis=1)).round(2)
    table.columns = [f"{PERCENT * ratio:g} %" for ratio in table.columns]
    baseline, deviation = PERCENT * results["constant_baseline"].iloc[0], PERCENT * scores.std().max()
    spread = f"; mean of {counts}, standard deviation <= {deviation:.2f}" if deviation >= 0 else ""
    return (
        f"{title_of(metric)} in percent, by missing rate of the test split "
        f"(constant baseline: {baseline:.2f}{spread})\n{table.to_string()}"
    )
