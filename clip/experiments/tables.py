"""Score the finished runs of an experiment and format its table with the published values."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clip.cli import build
from clip.evaluation.predictions import CasePredictions, score_grid
from clip.evaluation.report import PERCENT, title_of
from clip.experiments.plan import PlannedRun, masks_of
from clip.experiments.spec import CASE_AXES, Coordinate, Experiment
from clip.missing.masks import mask_hash
from clip.utils.files import write_text

ABSENT = "–"
LAST = ("constant_baseline", "incomplete", "missing_table", "score", "run", "published")
AXIS_TITLES = {"test_type": "missing at test", "test_ratio": "rate at test"}
Masks = dict[str, np.ndarray]
Results = tuple[pd.DataFrame, pd.DataFrame]  # a table's cells as text, and whether each is the best


def value_text(axis: str, value: Coordinate) -> str:
    """Return a value of an axis in words: "70 %", "validation"."""
    if axis == "test_ratio":
        return f"{PERCENT * value:g} %"
    if axis in ("split", "task"):
        return title_of(str(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def place_text(at: Mapping[str, Coordinate]) -> str:
    """Return a place on some axes in words: "test, missing both, rate 70 %"."""
    words = []
    for axis, value in at.items():
        name = {"test_type": "missing", "test_ratio": "rate"}.get(axis, axis)
        alone = isinstance(value, str) and name != "missing"  # "DCP" needs no name, but "both" and 36 do
        words.append(value_text(axis, value) if alone else f"{name} {value_text(axis, value)}")
    return ", ".join(words)


def percent(value: float, form: str = ".2f") -> str:
    """Format a fraction in percent; a dash if it is undefined."""
    return format(PERCENT * value, form) if math.isfinite(value) else ABSENT


def mean_std(values: pd.Series) -> str:
    """Format the mean over the seeds, and the standard deviation if there are several."""
    spread = values.std()
    return percent(values.mean()) + (f" ± {percent(spread)}" if math.isfinite(spread) else "")


def best_of(percents: pd.Series, groups: Sequence[Any]) -> pd.Series:
    """Return whether each score, rounded as it is printed, is the largest of at least two of the same group."""
    grouped = percents.round(2).groupby(np.array(groups, dtype=object))
    return percents.round(2).eq(grouped.transform("max")) & (grouped.transform("count") > 1)


def collect(experiment: Experiment, planned: Iterable[PlannedRun]) -> tuple[pd.DataFrame, Masks]:
    """Score the finished runs of an experiment from their predictions.

    Returns:
        One row per run, split and test case: the coordinates, seed, split, test_type, test_ratio, all metrics of the
        task as fractions, constant_baseline (score of the best constant prediction), incomplete (share of the samples
        that are not complete), missing_table (SHA-256 of the mask), score (the metric that is evaluated), run (its
        key), published (in percent or NaN); and masks by hash.
    """
    first, rows, masks = [*experiment.coordinates, "seed", "split", *CASE_AXES], [], {}
    cases = experiment.read.cases
    for run, split in itertools.product(planned, experiment.read.splits):
        if not run.finished:
            continue
        config, seed = run.config, run.config.missing_seed
        task, _ = build.task_from_data(config)
        predictions = CasePredictions.load(run.folder / f"{split}.arrow", config.task, split)
        metric = experiment.read.metric_of(task)
        drawn = {(config.missing_type[split], config.missing_ratio[split], seed): masks_of(config)[split]}
        if cases:
            data = build.build_data(config, task, 1, tokenize=list)
            grid = itertools.product(cases.types, map(float, cases.ratios), [seed])
            drawn = {case: data.draw(split, predictions.observed, *case) for case in grid}
        masks |= {mask_hash(mask): mask for mask in drawn.values()}
        scores = score_grid(predictions, task, drawn, metric).drop(columns="missing_seed")
        scores = scores.rename(columns={"missing_type": "test_type", "missing_ratio": "test_ratio"})
        for score in scores.to_dict("records"):
            row = run.at | {"seed": config.seed, "split": split} | score
            published = experiment.published_values.get(tuple(row[axis] for axis in experiment.axes), math.nan)
            rows.append(row | {"score": row[metric], "run": run.key, "published": published})
    metrics = dict.fromkeys(name for row in rows for name in row if name not in (*first, *LAST))
    return pd.DataFrame(rows, columns=[*first, *metrics, *LAST]), masks


def layout(experiment: Experiment, scores: pd.DataFrame, planned: Iterable[PlannedRun]) -> Results:
    """Lay out an experiment as in the paper, as text in percent; the cells of unfinished runs are empty.

    If anything is published, there is "ours" (mean ± standard deviation over the seeds) and "paper" for each value of
    ``columns``, otherwise our values only. Ours are compared among those that differ in ``compared`` only.
    """
    axes, cases, published = experiment.axes, experiment.read.cases, experiment.published_values
    groups = dict(list(scores.groupby(axes, sort=False)["score"])) if len(scores) else {}
    ours = {place: mean_std(group) for place, group in groups.items()}
    means = pd.Series([PERCENT * group.mean(skipna=False) for group in groups.values()], dtype=float)
    others = [i for i, axis in enumerate(axes) if axis != experiment.compared]
    is_best = dict(zip(groups, best_of(means, [str([place[i] for i in others]) for place in groups]), strict=True))
    grid = [experiment.read.splits, cases.types if cases else [None], cases.ratios if cases else [None]]
    places = [
        run.at | dict(zip(("split", *CASE_AXES), case, strict=True))
        for run, case in itertools.product(planned, itertools.product(*grid))
    ]
    table: dict[tuple, dict[str, str]] = {}
    best: dict[tuple, dict[str, bool]] = {}
    for at in [*places, *(dict(zip(axes, place, strict=True)) for place in published)]:
        place, key = tuple(at[axis] for axis in axes), tuple(at[axis] for axis in experiment.rows)
        name = place_text({axis: at[axis] for axis in experiment.columns})
        cells = table.setdefault(
            key, {AXIS_TITLES.get(axis, axis): value_text(axis, at[axis]) for axis in experiment.rows}
        )
        column = f"{name} ours".strip() if published else name or "score"
        cells[column] = ours.get(place, "")
        best.setdefault(key, {})[column] = is_best.get(place, False)
        if published:
            cells[f"{name} paper".strip()] = f"{published[place]:.2f}" if place in published else ""
    made = pd.DataFrame(table.values()).fillna("")
    return made, pd.DataFrame(best.values()).reindex(columns=made.columns).eq(True)


def to_markdown(table: pd.DataFrame, best: pd.DataFrame) -> str:
    """Format a table in Markdown, the best values bold."""
    cells = table.astype(str).where(~best, "**" + table.astype(str) + "**")
    rows = [table.columns, ["---"] * table.shape[1], *cells.itertuples(index=False)]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def to_latex(table: pd.DataFrame, best: pd.DataFrame, labels: int) -> str:
    r"""Format a table for LaTeX's booktabs, the best values bold; the first ``labels`` columns are left-aligned."""
    style = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    style = style.apply(lambda _: np.where(best, "textbf:--rwrap;", ""), axis=None)
    form = "l" * labels + "r" * (table.shape[1] - labels)
    text = style.to_latex(hrules=True, column_format=form).replace("±", r"$\pm$")
    return "% \\usepackage{booktabs}\n" + text


def write(
    experiment: Experiment, scores: pd.DataFrame, results: Results, planned: list[PlannedRun], target: Path
) -> str:
    """Write scores.csv, table.csv, table.md and table.tex to a folder, and return the text of table.md."""
    seeds, finished = sorted({run.config.seed for run in planned}), sum(run.finished for run in planned)
    spread = f", mean ± standard deviation over the seeds {seeds}" if len(seeds) > 1 else ""
    published = '; "paper" is the published value' if experiment.published else ""
    metrics = dict.fromkeys(title_of(experiment.read.metric_of(build.task_from_data(run.config)[0])) for run in planned)
    text = (
        f"## {experiment.title} ({experiment.source})\n\n{', '.join(metrics)} in percent{spread}{published}.\n\n"
        f"{to_markdown(*results)}\n{finished} of {len(planned)} runs finished.\n"
    )
    write_text(target / "scores.csv", scores.to_csv(index=False))
    write_text(target / "table.csv", results[0].to_csv(index=False))
    write_text(target / "table.md", text)
    write_text(target / "table.tex", to_latex(*results, len(experiment.rows)))
    return text
