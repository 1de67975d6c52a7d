"""Scores as text."""

import math

import pandas as pd

PERCENT = 100


def baseline_text(baseline: dict[str, float]) -> str:
    """Return one line with the scores of the best constant prediction."""
    return f"best constant prediction: {', '.join(f'{name} {PERCENT * s:.2f}' for name, s in baseline.items())}"


def format_score(name: str, value: float) -> str:
    """Return a score with two decimals: a loss as it is, everything else in percent."""
    return f"{value if name.endswith('loss') else PERCENT * value:.2f}"


def metrics_text(metrics: dict[str, float]) -> str:
    """Return a table of metrics: losses as they are, everything else in percent."""
    rows = {name: format_score(name, value) for name, value in metrics.items()}
    rows |= {name: "undefined: all labels are equal" for name, value in metrics.items() if math.isnan(value)}
    return pd.Series(rows).to_string()


def sweep_text(results: pd.DataFrame, metric: str) -> str:
    """Return one metric of ``sweep`` in percent as a table of methods (if any) and missing types by missing rates."""
    keys = [key for key in ("method", "missing_type") if key in results]
    scores = results.groupby([*keys, "missing_ratio"], sort=False)[metric]
    table = (PERCENT * scores.mean().unstack("missing_ratio", sort=False).sort_index(axis=1)).round(2)
    table.columns = [f"{PERCENT * ratio:g} %" for ratio in table.columns]
    baseline, seeds = PERCENT * results["constant_baseline"].iloc[0], results["missing_seed"].nunique()
    spread = f"; mean of {seeds} masks, standard deviation <= {PERCENT * scores.std().max():.2f}" if seeds > 1 else ""
    return (
        f"{metric} in percent, by missing rate of the test split "
        f"(constant baseline: {baseline:.2f}{spread})\n{table.to_string()}"
    )
