"""Write the report of an experiment: a self-contained HTML file, with figures and tables next to it."""

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
from clip.evaluation.costs import BASELINE, PARTS, count_by_part
from clip.evaluation.predictions import CasePredictions
from clip.experiments import figures
from clip.experiments.spec import CASE_AXES, Experiment
from clip.experiments.tables import ABSENT, Masks, mean_std, percent
from clip.missing import CASES
from clip.modules.objectives import TASKS, resolve_task
from clip.utils.files import write_text

MAIN_CASE = ("both", 0.7)  # the paper's default, at which methods are looked at more closely
CASE_NAMES = [case.replace("_", " ") for case in CASES]
MEASURED = ["seconds_per_step", "peak_memory_mb", "seconds_train", "steps"]  # of result.json
Records = dict[str, dict[str, Any]]  # run -> its run.json and result.json in one


def write_report(
    experiment: Experiment,
    scores: pd.DataFrame,
    masks: Masks,
    table: pd.DataFrame,
    folders: Mapping[str, Path],
    target: Path,
) -> Path:
    """Write report.html, and its figures and tables as svg and csv.

    Args:
        experiment: the experiment.
        scores: rows of ``collect``, at least one.
        masks: masks by their SHA-256.
        table: the experiment's table.
        folders: run -> its folder.
        target: folder to write to.
    """
    records: Records = {}
    for run in dict.fromkeys(scores["run"]):
        for name in ("run.json", "result.json"):
            records.setdefault(run, {}).update(json.loads((folders[run] / name).read_text(encoding="utf-8")))
    tasks = {run: resolve_task(record["config"]["task"], record["model_config"]) for run, record in records.items()}
    scores = scores.assign(
        _task=[records[run]["config"]["task"] for run in scores["run"]],
        _metric=[experiment.read.metric_of(tasks[run]) for run in scores["run"]],
    )
    axes = _method_axis_last(experiment)
    is_baseline = [records[run]["config"]["prompt_type"] == BASELINE for run in scores["run"]]
    baseline = (scores[is_baseline] if any(is_baseline) else scores)[axes[-1]].iloc[0]
    split = "test" if "test" in set(scores["split"]) else "val"
    main, methods = analyse(experiment, scores[scores["split"] == split], axes, masks, records, folders)
    shown = [method for method in methods if method["place"][:-1] == main]
    tables = {
        "cases": case_table(methods, axes),
        "classes": class_table(shown, records[shown[0]["runs"][0]]["model_config"].get("class_names")),
        "intervals": interval_table(methods, axes, baseline),
        "metrics": metric_table(scores, axes),
        "costs": cost_table(scores, axes, records),
        "masks": mask_table(scores, records),
    }
    for name, each in tables.items():
        write_text(target / f"{name}.csv", each.to_csv(index=False))
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("report.html")
    page = template.render(
        experiment=experiment,
        records=records,
        axes=axes,
        main=main,
        split=split,
        table=table,
        tables=tables,
        test_case=shown[0]["test case"],
        resamples=bootstrap.RESAMPLES,
        figures=draw_figures(experiment, scores, axes[-1], shown, target),
        runs=scores.drop_duplicates("run").to_dict("records"),
    )
    return write_text(target / "report.html", page)


def _method_axis_last(experiment: Experiment) -> list[str]:
    """Return the coordinates with that of the methods last: a figure's curves, or the last axis of a table."""
    laid_out = experiment.rows, experiment.columns
    down, across = ([axis for axis in part if axis in experiment.coordinates] for part in laid_out)
    axis = ((across or down) if experiment.figure == "none" else (down or across))[-1]
    return [*(other for other in (*down, *across) if other != axis), axis]


def _distance(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Return the distance of a test case from the paper's default, to sort by."""
    return row["test_type"] != MAIN_CASE[0], abs(row["test_ratio"] - MAIN_CASE[1])


def _nearest(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the row of each run whose test case is nearest to the paper's default."""
    order = rows.assign(_distance=[_distance(row) for row in rows.to_dict("records")])
    return order.sort_values("_distance", kind="stable").drop_duplicates("run").sort_values("seed")


@functools.lru_cache(maxsize=2)
def _weights(samples: int) -> np.ndarray:
    """Return the split itself and its resamples, (1 + R, samples)."""
    return np.vstack([np.ones((1, samples), dtype=np.int64), bootstrap.resample(samples)])


def analyse(
    experiment: Experiment,
    scores: pd.DataFrame,
    axes: list[str],
    masks: Masks,
    records: Records,
    folders: Mapping[str, Path],
) -> tuple[tuple, list[dict[str, Any]]]:
    """Look into the predictions of every method at the test case nearest to the paper's default.

    Returns:
        The main setting: values of all axes but the last. And for every method: place (values of
        all axes), runs, metric, test case, baseline; cases, the score if every sample were in one
        missing case, (seeds, 3); classes, the F1 or accuracy of each class, (C,); support, samples of
        each class, (C,); resampled, metric -> score of the split, then of its resamples, (1 + R,).
    """
    groups = [(place, _nearest(rows)) for place, rows in scores.groupby(axes, sort=False)]
    order = [(list(TASKS).index(rows["_task"].iloc[0]), _distance(rows.iloc[0])) for _, rows in groups]
    main, methods = groups[order.index(min(order))][0][:-1], []
    for place, rows in groups:
        first = rows.iloc[0]
        task = resolve_task(first["_task"], records[first["run"]]["model_config"])
        metric, cases, classes = experiment.read.metric_of(task), [], []
        # mAP and AUROC sort the samples anew for each class: all metrics in the main setting only.
        names = dict.fromkeys([metric, *(task.metrics(task.num_classes) if place[:-1] == main else ())])
        resampled = {name: [] for name in names if name in bootstrap.SCORES}
        for row in rows.to_dict("records"):
            found = CasePredictions.load(folders[row["run"]] / f"{row['split']}.arrow", row["_task"], row["split"])
            cases.append([task.score(logits, found.labels)[metric] for logits in found.logits])
            logits, truth = found.select(masks[row["missing_table"]]), found.labels.long().numpy()
            weights = _weights(len(truth))
            for name, values in resampled.items():
                values.append(bootstrap.resampled(name, task, logits, found.labels, weights))
            by_class = bootstrap.class_f1 if truth.ndim > 1 else bootstrap.class_accuracy
            classes.append(by_class(task.probabilities(logits.float()).numpy(), truth, weights[:1])[0])
        methods.append(
            {
                "place": place,
                "runs": list(rows["run"]),
                "metric": metric,
                "test case": f"{first['test_type']} {first['test_ratio']:g}",
                "baseline": rows["constant_baseline"].mean(),
                "cases": np.array(cases),
                "classes": np.mean(classes, axis=0),
                "support": truth.sum(0) if truth.ndim > 1 else np.bincount(truth, minlength=task.num_classes),
                "resampled": {name: np.mean(values, axis=0) for name, values in resampled.items()},
            }
        )
    return main, methods


def case_table(methods: list[dict[str, Any]], axes: list[str]) -> pd.DataFrame:
    """Score every sample of the split in each missing case."""
    rows = []
    for method in methods:
        scores = [mean_std(pd.Series(seeds)) for seeds in method["cases"].T]
        rows.append([*method["place"], method["metric"], *scores, percent(method["baseline"])])
    return pd.DataFrame(rows, columns=[*axes, "metric", *CASE_NAMES, "constant baseline"])


def class_table(methods: list[dict[str, Any]], names: list[str] | None) -> pd.DataFrame:
    """Score each class in one setting, best first."""
    scores = pd.DataFrame({str(method["place"][-1]): method["classes"] for method in methods})
    names = names or [f"class {i}" for i in range(len(scores))]
    table = scores.map(percent)
    table.insert(0, "class", names)
    table.insert(1, "samples", methods[0]["support"].astype(int))
    return table.loc[scores.mean(axis=1).sort_values(ascending=False, kind="stable").index]


def interval_table(methods: list[dict[str, Any]], axes: list[str], baseline: Any) -> pd.DataFrame:
    """Bootstrap intervals of each method, and of its difference to the baseline on the same resamples."""
    bases, rows = {method["place"]: method for method in methods}, []
    for method in methods:
        base = bases.get((*method["place"][:-1], baseline), method)
        for name, values in method["resampled"].items():
            gap = values - base["resampled"][name] if base is not method else np.full(2, np.nan)
            numbers = [percent(values[0]), _interval(values[1:]), percent(gap[0], "+.2f"), _interval(gap[1:], "+.2f")]
            rows.append([*method["place"], name, method["test case"], *numbers])
    header = ["metric", "test case", "score", "95 % interval", f"− {baseline}", f"95 % interval of − {baseline}"]
    return pd.DataFrame(rows, columns=[*axes, *header])


def _interval(values: np.ndarray, form: str = ".2f") -> str:
    low, high = bootstrap.interval(values)
    return ABSENT if np.isnan(low) else f"{percent(low, form)} to {percent(high, form)}"


def metric_table(scores: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Show all metrics of every method at the test case nearest to the paper's default."""
    first, last = scores.columns.get_loc(CASE_AXES[-1]) + 1, scores.columns.get_loc("constant_baseline")
    near = pd.concat([_nearest(rows) for _, rows in scores.groupby([*axes, "split"], sort=False)])
    groups = near.groupby([*axes, "split", *CASE_AXES], sort=False)
    return groups[list(scores.columns[first:last])].agg(mean_std).reset_index()


def cost_table(scores: pd.DataFrame, axes: list[str], records: Records) -> pd.DataFrame:
    """Show the trainable parameters by part and the mean cost of training."""
    rows = []
    for run in scores.drop_duplicates("run").to_dict("records"):
        record = records[run["run"]]
        parts = count_by_part(record["trainable"])
        total = sum(parts.values())
        share = 100 * total / record["total_parameters"]
        measured = [np.nan if record[name] is None else record[name] for name in MEASURED]
        rows.append([run["_task"], *(run[axis] for axis in axes), *parts.values(), total, share, *measured])
    keys = ["task of run", *axes]
    costs = pd.DataFrame(rows, columns=[*keys, *PARTS, "trainable", "share of all (%)", *MEASURED])
    means = costs.groupby(keys, sort=False).mean()
    texts = means.map(lambda value: f"{value:,.0f}" if value >= 1000 else f"{value:.4g}", na_action="ignore")
    return texts.astype(object).fillna(ABSENT).reset_index()


def mask_table(scores: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Show the SHA-256 of every mask, and how many scores or runs use it."""
    used = scores[["_task", "split", *CASE_AXES, "missing_table"]].to_numpy().tolist()
    for record in records.values():
        config = record["config"]
        case = config["missing_type"]["train"], config["missing_ratio"]["train"]
        used.append([config["task"], "train", *case, record["missing_tables"]["train"]])
    columns = ["task", "split", *CASE_AXES, "SHA-256 of the mask"]
    return pd.DataFrame(used, columns=columns).value_counts(sort=False).rename("used by").reset_index()


def draw_figures(
    experiment: Experiment, scores: pd.DataFrame, axis: str, methods: list[dict[str, Any]], target: Path
) -> dict[str, str]:
    """Draw the scores of each task, and those of the main setting by missing case; write svg and csv.

    Returns:
        Title -> SVG as base64.
    """
    axes = list(dict.fromkeys([*experiment.axes, "split"]))
    plots = {
        f"{metric}, {task}": (figures.average(rows, axes), metric, *figures.arrange(experiment, rows, axis))
        for (task, metric), rows in scores.groupby(["_task", "_metric"], sort=False)
    }
    cases = [
        {axis: method["place"][-1], "missing case": name, "score": score, "seed": seed, "published": np.nan}
        for method in methods
        for seed, by_case in enumerate(method["cases"])
        for name, score in zip(CASE_NAMES, by_case, strict=True)
    ]
    data = figures.average(pd.DataFrame(cases), [axis, "missing case"])
    plots["Every sample in one missing case"] = data, methods[0]["metric"], axis, "missing case", [], "none"
    images = {}
    for number, (title, (data, *how)) in enumerate(plots.items(), start=1):
        path = target / f"figure_{number}.svg"
        write_text(path.with_suffix(".csv"), data.to_csv(index=False))
        figures.draw(data, *how, path)
        images[f"{title} ({path.name})"] = base64.b64encode(path.read_bytes()).decode()
    return images
