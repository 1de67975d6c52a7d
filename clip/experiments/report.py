"""The report of an experiment: one self-contained HTML file, and its figures as files next to it."""

import base64
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from clip.evaluation import bootstrap
from clip.evaluation.figures import draw
from clip.evaluation.predictions import CasePredictions
from clip.evaluation.report import PERCENT
from clip.experiments.spec import CASE_AXES, Experiment
from clip.experiments.tables import ABSENT, Masks, mean_std, percent
from clip.missing import CASES
from clip.modules.objectives import TASKS, Task, resolve_task
from clip.utils.files import write_text

MAIN_CASE = ("both", 0.7)  # the paper's default, at which methods are looked at more closely
cached_resample = functools.lru_cache(maxsize=2)(bootstrap.resample)
MEASURED = ["seconds_per_step", "peak_memory_mb", "seconds_train", "steps"]  # of result.json


def write_report(
    experiment: Experiment,
    scores: pd.DataFrame,
    masks: Masks,
    table: pd.DataFrame,
    folders: Mapping[str, Path],
    target: Path,
) -> Path:
    """Write report.html and its figures to ``target``, from the results of ``collect`` and the folder of each run."""
    records = {}  # run -> its run.json and result.json in one
    for run in scores["run"].unique():
        files = (folders[run] / "run.json", folders[run] / "result.json")
        record, result = (json.loads(path.read_text(encoding="utf-8")) for path in files)
        records[run] = record | result
    tasks = {run: resolve_task(record["config"]["task"], record["model_config"]) for run, record in records.items()}
    scores = scores.assign(
        _task=[records[run]["config"]["task"] for run in scores["run"]],
        _metric=[experiment.read.metric_of(tasks[run]) for run in scores["run"]],
        _kind=scores["test_type"] != MAIN_CASE[0],
        _gap=(scores["test_ratio"] - MAIN_CASE[1]).abs(),
    )
    # The coordinate of the methods, last: that of a figure's curves, or of the last axis of a table.
    down, across = (
        [name for name in part if name in experiment.coordinates] for part in (experiment.rows, experiment.columns)
    )
    axis = ((across or down) if experiment.figure == "none" else (down or across))[-1]
    others = [name for name in (*down, *across) if name != axis]
    axes = [*others, axis]
    is_baseline = scores["run"].map(lambda run: records[run]["config"]["prompt_type"] == "none")
    baseline = (scores[is_baseline] if is_baseline.any() else scores)[axis].iloc[0]
    split = "test" if "test" in set(scores["split"]) else "val"
    # Of each run the test case nearest to the paper's default; then the setting whose test case is nearest to it.
    near = scores[scores["split"] == split].sort_values(["_kind", "_gap"], kind="stable")
    near = near.drop_duplicates([*axes, "seed"]).sort_index()
    rank = near["_task"].map(list(TASKS).index)
    main = near.assign(_task=rank).sort_values(["_task", "_kind", "_gap"], kind="stable").iloc[0]
    near["_main"] = (near[others] == main[others]).all(axis=1)
    cases, classes, support, resampled = analyse(near, axes, tasks, masks, folders)
    names = records[main["run"]]["model_config"].get("class_names") or [f"class {i}" for i in classes.index]
    by_class = pd.concat([pd.DataFrame({"class": names, "samples": support}), classes.map(percent)], axis=1)
    by_case = cases.groupby([*axes, "metric", "constant baseline", "missing case"], sort=False)["score"].agg(mean_std)
    first, last = scores.columns.get_loc(CASE_AXES[-1]) + 1, scores.columns.get_loc("constant_baseline")
    by_metric = near.groupby([*axes, "split", *CASE_AXES], sort=False)[list(scores.columns[first:last])]
    shown = cases[cases["_main"]]
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    text = jinja2.Template(template, autoescape=True).render(
        experiment=experiment,
        records=records,
        axes=axes,
        main=main,
        split=split,
        results=table,
        cases=by_case.unstack(sort=False).reset_index(),
        classes=by_class.loc[classes.mean(axis=1).sort_values(ascending=False, kind="stable").index],  # best first
        intervals=interval_table(resampled, axes, baseline),
        metrics=by_metric.agg(mean_std).reset_index(),
        costs=cost_table(scores, axes, records),
        masks=mask_table(scores, records),
        resamples=bootstrap.RESAMPLES,
        figures=draw_figures(experiment, scores, shown, axis, target),
        runs=scores.drop_duplicates("run").to_dict("records"),
    )
    return write_text(target / "report.html", text)


def analyse(
    near: pd.DataFrame, axes: list[str], tasks: Mapping[str, Task], masks: Masks, folders: Mapping[str, Path]
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, dict[tuple, list[np.ndarray]]]:
    """Score the predictions of every run at its test case in ``near``, those marked ``_main`` more closely.

    Returns:
        The score if every sample were in one missing case: one row per run and case; the F1 or accuracy of each class
        of the marked runs, (rows, classes), and the samples of each class; and (axes, test case, metric) -> for each
        seed, the score of the split, then of its resamples, (1 + R,).
    """
    cases, classes, resampled = [], {}, {}
    for row in near.to_dict("records"):
        task, metric, place = tasks[row["run"]], row["_metric"], {name: row[name] for name in axes}
        found = CasePredictions.load(folders[row["run"]] / f"{row['split']}.arrow", row["_task"], row["split"])
        shared = {"metric": metric, "constant baseline": percent(row["constant_baseline"]), "seed": row["seed"]}
        for case, logits in zip(CASES, found.logits, strict=True):
            score = {"missing case": case.replace("_", " "), "score": task.score(logits, found.labels)[metric]}
            cases.append(place | shared | score | {"published": np.nan, "_main": row["_main"]})
        logits, truth = found.select(masks[row["missing_table"]]), found.labels.long().numpy()
        # mAP and AUROC sort the samples anew for each class: all metrics in the main setting only.
        for name in dict.fromkeys([metric, *(task.metrics(task.num_classes) if row["_main"] else ())]):
            if name in bootstrap.SCORES:
                key = (*place.values(), f"{row['test_type']} {row['test_ratio']:g}", name)
                values = bootstrap.resampled(name, task, logits, found.labels, cached_resample(len(truth)))
                resampled.setdefault(key, []).append(np.append(row[name], values))
        if row["_main"]:
            by_class = bootstrap.class_f1 if truth.ndim > 1 else bootstrap.class_accuracy
            values = by_class(task.probabilities(logits.float()).numpy(), truth, np.ones((1, len(truth))))[0]
            classes.setdefault(str(row[axes[-1]]), []).append(values)
            support = truth.sum(0) if truth.ndim > 1 else np.bincount(truth, minlength=task.num_classes)
    classes = pd.DataFrame({name: np.mean(each, axis=0) for name, each in classes.items()})
    return pd.DataFrame(cases), classes, support, resampled


def interval_table(resampled: dict[tuple, list[np.ndarray]], axes: list[str], baseline: Any) -> pd.DataFrame:
    """Return bootstrap intervals of each method, and of its difference to the baseline on the same resamples."""
    rows = []
    for (*others, method, case, metric), seeds in resampled.items():
        values = np.mean(seeds, axis=0)
        base = [np.nan] if method == baseline else resampled.get((*others, baseline, case, metric), [np.nan])
        gap = values - np.mean(base, axis=0)
        numbers = [percent(values[0]), _interval(values[1:]), percent(gap[0], "+.2f"), _interval(gap[1:], "+.2f")]
        rows.append([*others, method, case, metric, *numbers])
    header = ["test case", "metric", "score", "95 % interval", f"− {baseline}", f"95 % interval of − {baseline}"]
    return pd.DataFrame(rows, columns=[*axes, *header])


def _interval(values: np.ndarray, form: str = ".2f") -> str:
    low, high = bootstrap.interval(values)
    return ABSENT if np.isnan(low) else f"{percent(low, form)} to {percent(high, form)}"


def cost_table(scores: pd.DataFrame, axes: list[str], records: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Return the trainable parameters and the mean cost of training."""
    costs = scores.drop_duplicates([*axes, "seed"])[[*axes, "run"]]
    used = [records[run] for run in costs.pop("run")]
    costs["trainable"] = [sum(record["trainable"].values()) for record in used]
    costs["share of all (%)"] = 100 * costs["trainable"] / [record["total_parameters"] for record in used]
    costs[MEASURED] = np.array([[record[name] for name in MEASURED] for record in used], float)  # None becomes NaN
    means = costs.groupby(axes, sort=False).mean()
    texts = means.map(lambda value: f"{value:,.0f}" if value >= 1000 else f"{value:.4g}", na_action="ignore")
    return texts.astype(object).fillna(ABSENT).reset_index()


def mask_table(scores: pd.DataFrame, records: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Return the SHA-256 of every mask, and how many scores or runs use it."""
    used = scores[["_task", "split", *CASE_AXES, "missing_table"]].to_numpy().tolist()
    for record in records.values():
        config = record["config"]
        case = config["missing_type"]["train"], config["missing_ratio"]["train"]
        used.append([config["task"], "train", *case, record["missing_tables"]["train"]])
    columns = ["task", "split", *CASE_AXES, "SHA-256 of the mask"]
    return pd.DataFrame(used, columns=columns).value_counts(sort=False).rename("used by").reset_index()


def average(scores: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Average scores over the seeds: one row per point with the axes, mean, std and published, in percent."""
    groups = scores.groupby(axes, sort=False)
    return (PERCENT * groups["score"].agg(["mean", "std"])).join(groups["published"].first()).reset_index()


def draw_figures(
    experiment: Experiment, scores: pd.DataFrame, cases: pd.DataFrame, axis: str, target: Path
) -> dict[str, str]:
    """Draw the scores of each task, and the rows of ``cases`` by missing case; return title -> SVG as base64."""
    axes, curves, plots = list(dict.fromkeys([*experiment.axes, "split"])), experiment.figure == "curves", {}
    for (task, metric), rows in scores.groupby(["_task", "_metric"], sort=False):
        varied = [name for name in axes if rows[name].nunique() > 1]
        series, along = axis, next((name for name in reversed(varied) if name not in (axis, "split")), "split")
        if curves:
            series, along = experiment.rows[-1], experiment.columns[-1]
        panels = [name for name in varied if name not in (series, along)]
        plots[f"{metric}, {task}"] = average(rows, axes), metric, series, along, panels, curves
    data = average(cases, [axis, "missing case"])
    plots["Every sample in one missing case"] = data, cases["metric"].iloc[0], axis, "missing case", [], False
    images = {}
    for number, (title, what) in enumerate(plots.items(), start=1):
        path = target / f"figure_{number}.svg"
        draw(*what, path)
        images[f"{title} ({path.name})"] = base64.b64encode(path.read_bytes()).decode()
    return images
