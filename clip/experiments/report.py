"""The report of an experiment: one self-contained HTML file, and its figures as files next to it."""

import base64
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from clip.evaluation import bootstrap
from clip.evaluation.classes import class_scores, confusion
from clip.evaluation.figures import draw
from clip.evaluation.predictions import CasePredictions
from clip.evaluation.report import PERCENT, title_of
from clip.experiments.spec import CASE_AXES, Experiment
from clip.experiments.tables import ABSENT, AXIS_TITLES, Masks, best_of, mean_std, percent, place_text, value_text
from clip.missing import CASES
from clip.modules.objectives import TASKS, Task, resolve_task
from clip.utils.errors import UserError
from clip.utils.files import parse_object, write_text

MAIN_CASE = ("both", 0.7)  # the paper's default, at which methods are looked at more closely
cached_resample = functools.lru_cache(maxsize=2)(bootstrap.resample)
MOST_CONFUSED = 60  # classes of a confusion matrix that fits on a page
MEASURED = {  # of result.json: title, unit
    "seconds_per_step": ("seconds per step", 1),
    "steps": ("steps", 1),
    "seconds_train": ("minutes of training", 60),
    "peak_memory_mb": ("peak memory (GiB)", 1024),
}


def write_report(
    experiment: Experiment,
    scores: pd.DataFrame,
    masks: Masks,
    results: tuple[pd.DataFrame, pd.DataFrame],
    folders: Mapping[str, Path],
    target: Path,
) -> Path:
    """Write report.html and its figures to ``target``, from ``collect``, ``layout`` and the folder of each run."""
    records = {}  # run -> its run.json and result.json in one
    for run in scores["run"].unique():
        files = (folders[run] / "run.json", folders[run] / "result.json")
        try:
            record, result = (parse_object(path.read_bytes(), str(path)) for path in files)
        except UserError as error:
            remedy = f"remove {files[1]} and repeat the command, which writes both again"
            raise UserError(f"{str(error).partition(';')[0]}; {remedy}") from None
        records[run] = record | result
    tasks = {run: resolve_task(record["config"]["task"], record["model_config"]) for run, record in records.items()}
    scores = scores.assign(
        _task=[records[run]["config"]["task"] for run in scores["run"]],
        _metric=[experiment.read.metric_of(tasks[run]) for run in scores["run"]],
        _kind=scores["test_type"] != MAIN_CASE[0],
        _gap=(scores["test_ratio"] - MAIN_CASE[1]).abs(),
    )
    axis = experiment.compared
    others = [
        name for name in (*experiment.rows, *experiment.columns) if name in experiment.coordinates and name != axis
    ]
    axes = [*others, axis]  # the methods last
    is_baseline = scores["run"].map(lambda run: records[run]["config"]["prompt_type"] == "none")
    baseline = (scores[is_baseline] if is_baseline.any() else scores)[axis].iloc[0]
    split = "test" if "test" in set(scores["split"]) else "val"
    # Of each run the test case nearest to the paper's default; then the setting whose test case is nearest to it.
    near = scores[scores["split"] == split].sort_values(["_kind", "_gap"], kind="stable")
    near = near.drop_duplicates([*axes, "seed"]).sort_index()
    rank = near["_task"].map(list(TASKS).index)
    main = near.assign(_task=rank).sort_values(["_task", "_kind", "_gap"], kind="stable").iloc[0]
    near["test case"] = [place_text(case) for case in near[list(CASE_AXES)].to_dict("records")]
    near["_main"] = (near[others] == main[others]).all(axis=1)
    cases, classes, counts, resampled = analyse(near, axes, tasks, masks, folders)
    write_text(target / "classes.csv", classes.reset_index().to_csv(index=False))
    shown_score = "average_precision" if main["_metric"] == "mAP" else "F1"
    by_class = classes[shown_score].unstack(0, sort=False)
    by_class = by_class.loc[by_class.mean(axis=1).sort_values(ascending=False, kind="stable").index]  # best first
    support = classes["support"].groupby("class").first()[by_class.index].astype(int)
    by_class = by_class.map(percent).reset_index()
    by_class.insert(1, "samples", support.to_numpy())
    confused, best_method = pd.DataFrame(), str(near[near["_main"]].groupby(axis)["score"].mean().idxmax())
    if counts:
        write_text(target / "confusion.csv", pd.concat(counts, names=[axis, "true"]).reset_index().to_csv(index=False))
        if len(by_class) <= MOST_CONFUSED:
            confused = counts[best_method]
            confused = confused.div(confused.sum(axis=1), axis=0).map(percent, form=".0f").reset_index()
    by_case = cases.groupby([*axes, "metric", "constant answer", "missing case"], sort=False)["score"].agg(mean_std)
    by_case = by_case.unstack(sort=False).reset_index()
    first, last = scores.columns.get_loc(CASE_AXES[-1]) + 1, scores.columns.get_loc("constant_baseline")
    by_metric = near.groupby([*axes, "split", "test case"], sort=False)[list(scores.columns[first:last])].agg(mean_std)
    by_metric = by_metric.rename(columns=title_of).reset_index().assign(split=title_of(split))
    shown = cases[cases["_main"]]
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    text = jinja2.Template(template, autoescape=True).render(
        experiment=experiment,
        records=records,
        axes=axes,
        place_text=place_text,
        facts={"Tasks": scores["_task"].map(title_of).unique(), "Metric": scores["_metric"].map(title_of).unique()},
        main=place_text({name: main[name] for name in (*others, *CASE_AXES)}),
        split=title_of(split),
        results=results,
        cases=(by_case, best_rows(by_case, others, len(axes) + 2)),
        classes=by_class,
        class_score=shown_score.replace("_", " "),
        confused=confused,
        best_method=best_method,
        intervals=interval_table(resampled, axes, baseline),
        metrics=(by_metric, best_rows(by_metric, others, len(axes) + 2)),
        costs=cost_table(scores, axes, records),
        masks=mask_table(scores, records),
        resamples=bootstrap.RESAMPLES,
        figures=draw_figures(experiment, scores, shown, folders, target),
        runs=scores.drop_duplicates("run").to_dict("records"),
    )
    return write_text(target / "report.html", text)


def best_rows(table: pd.DataFrame, others: list[str], labels: int) -> pd.DataFrame:
    """Return whether each cell is the best of its column among the rows that are equal in ``others``, all scores."""
    best = pd.DataFrame(False, table.index, table.columns)
    numbers = table.iloc[:, labels:].map(lambda text: float(text.split()[0]) if text != ABSENT else np.nan)
    best.iloc[:, labels:] = numbers.apply(best_of, groups=[str(row) for row in table[others].to_numpy().tolist()])
    return best


def analyse(
    near: pd.DataFrame, axes: list[str], tasks: Mapping[str, Task], masks: Masks, folders: Mapping[str, Path]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame], dict[tuple, list[np.ndarray]]]:
    """Score the predictions of every run at its test case in ``near``, those marked ``_main`` more closely.

    Returns:
        The score if every sample were in one missing case: one row per run and case; ``class_scores`` of the marked
        runs by the last axis and class, mean over the seeds; ``confusion`` likewise, with one class per sample; and
        (axes, test case, metric) -> for each seed, the score of the split, then of its resamples, (1 + R,).
    """
    cases, classes, counts, resampled = [], [], {}, {}
    for row in near.to_dict("records"):
        task, metric, place = tasks[row["run"]], row["_metric"], {name: row[name] for name in axes}
        found = CasePredictions.load(folders[row["run"]] / f"{row['split']}.arrow", row["_task"], row["split"])
        shared = {"metric": title_of(metric), "constant answer": percent(row["constant_baseline"]), "seed": row["seed"]}
        for case, logits in zip(CASES, found.logits, strict=True):
            score = {"missing case": case.replace("_", " "), "score": task.score(logits, found.labels)[metric]}
            last = {key: row[key] for key in ("constant_baseline", "_metric", "_main")} | {"published": np.nan}
            cases.append(place | shared | score | last)
        logits, truth = found.select(masks[row["missing_table"]]), found.labels.long().numpy()
        # mAP and AUROC sort the samples anew for each class: all metrics in the main setting only.
        for name in dict.fromkeys([metric, *(task.metrics(task.num_classes) if row["_main"] else ())]):
            if name in bootstrap.SCORES:
                key = (*place.values(), row["test case"], name)
                values = bootstrap.resampled(name, task, logits, found.labels, cached_resample(len(truth)))
                resampled.setdefault(key, []).append(np.append(row[name], values))
        if row["_main"]:
            method, names = str(row[axes[-1]]), task.class_names(found.model_config)
            shown = task, task.probabilities(logits.float()), found.labels, names
            classes.append(class_scores(*shown).assign(**{axes[-1]: method}))
            if not task.multilabel:
                counts.setdefault(method, []).append(confusion(*shown).set_index("true"))
    classes = pd.concat(classes).groupby([axes[-1], "class"], sort=False).mean()
    counts = {method: sum(tables) / len(tables) for method, tables in counts.items()}
    return pd.DataFrame(cases), classes, counts, resampled


def interval_table(resampled: dict[tuple, list[np.ndarray]], axes: list[str], baseline: Any) -> pd.DataFrame:
    """Return bootstrap intervals of each method, and of its difference to the baseline on the same resamples."""
    rows = []
    for (*others, method, case, metric), seeds in resampled.items():
        values = np.mean(seeds, axis=0)
        base = [np.nan] if method == baseline else resampled.get((*others, baseline, case, metric), [np.nan])
        gap = values - np.mean(base, axis=0)
        numbers = [percent(values[0]), _interval(values[1:]), percent(gap[0], "+.2f"), _interval(gap[1:], "+.2f")]
        rows.append([*others, method, case, title_of(metric), *numbers])
    header = ["test case", "metric", "score", "95 % interval", f"− {baseline}", f"95 % interval of − {baseline}"]
    return pd.DataFrame(rows, columns=[*axes, *header])


def _interval(values: np.ndarray, form: str = ".2f") -> str:
    low, high = bootstrap.interval(values)
    return ABSENT if np.isnan(low) else f"{percent(low, form)} to {percent(high, form)}"


def cost_table(scores: pd.DataFrame, axes: list[str], records: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Return the trainable parameters and the mean cost of training."""
    costs = scores.drop_duplicates([*axes, "seed"])[[*axes, "run"]]
    used = [records[run] for run in costs.pop("run")]
    costs["trainable parameters"] = [sum(record["trainable"].values()) for record in used]
    costs["share of all (%)"] = PERCENT * costs["trainable parameters"] / [rec["total_parameters"] for rec in used]
    for name, (title, unit) in MEASURED.items():
        costs[title] = np.array([record[name] for record in used], float) / unit  # None becomes NaN
    means = costs.groupby(axes, sort=False).mean()
    texts = means.map(lambda value: f"{value:,.0f}" if value >= 1000 else f"{value:.3g}", na_action="ignore")
    return texts.astype(object).fillna(ABSENT).reset_index()


def mask_table(scores: pd.DataFrame, records: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Return the SHA-256 of every mask, and how many scores or runs use it."""
    columns = ["task", "split", *CASE_AXES]
    used = scores[["_task", "split", *CASE_AXES, "missing_table"]].to_numpy().tolist()
    for record in records.values():
        config = record["config"]
        case = config["missing_type"]["train"], config["missing_ratio"]["train"]
        used.append([config["task"], "train", *case, record["missing_tables"]["train"]])
    used = [[*(value_text(*pair) for pair in zip(columns, row[:4], strict=True)), row[4]] for row in used]
    masks = pd.DataFrame(used, columns=[*(AXIS_TITLES.get(name, name) for name in columns), "SHA-256 of the mask"])
    return masks.value_counts(sort=False).rename("used by").reset_index()


def average(scores: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Average scores over the seeds: the axes, then mean, std, published, constant_baseline and spread, in percent."""
    groups = scores.groupby(axes, sort=False)
    points = (PERCENT * groups["score"].agg(["mean", "std"])).join(groups["published"].first())
    points["constant_baseline"] = PERCENT * groups["constant_baseline"].first()
    return points.assign(spread=f"{groups['seed'].nunique().max()} seeds").reset_index()


def read_curves(scores: pd.DataFrame, axes: list[str], metric: str, folders: Mapping[str, Path]) -> pd.DataFrame:
    """Return the validation scores of the runs during training: the axes, seed, step, score and constant_baseline."""
    curves = []
    for row in scores.drop_duplicates("run").to_dict("records"):
        training, name = folders[row["run"]] / "training", f"val/{metric}"
        logs = [pd.read_csv(path) for path in sorted(training.glob("*/version_*/metrics.csv"))]
        logs = [log[["step", name]].dropna() for log in logs if name in log]
        ended = next(training.glob("*/version_*/metrics.json"), None)
        baseline = parse_object(ended.read_bytes(), str(ended)).get("constant_baseline", {}) if ended else {}
        if logs:
            log = pd.concat(logs).drop_duplicates("step", keep="last").rename(columns={name: "score"})
            place = {key: row[key] for key in (*axes, "seed")}
            curves.append(log.assign(**place, published=np.nan, constant_baseline=baseline.get(metric, np.nan)))
    return pd.concat(curves) if curves else pd.DataFrame()


def draw_figures(
    experiment: Experiment, scores: pd.DataFrame, cases: pd.DataFrame, folders: Mapping[str, Path], target: Path
) -> dict[str, str]:
    """Draw the scores and the learning curves of each task, and the rows of ``cases`` by missing case, as SVG and PDF.

    The result maps titles to SVG in base64.
    """
    axes, axis, plots = list(dict.fromkeys([*experiment.axes, "split"])), experiment.compared, {}
    curves = experiment.figure == "curves"
    for (task, metric), rows in scores.groupby(["_task", "_metric"], sort=False):
        varied = [name for name in axes if rows[name].nunique() > 1]
        series, along = axis, next((name for name in reversed(varied) if name not in (axis, "split")), "split")
        if curves:
            series, along = experiment.rows[-1], experiment.columns[-1]
        panels, title = (
            [name for name in varied if name not in (series, along)],
            f"{title_of(metric)}, {title_of(task)}",
        )
        plots[title] = average(rows, axes), metric, series, along, panels, curves
        log = read_curves(rows, experiment.coordinates, metric, folders)
        if len(log):
            panels = [name for name in varied if name in experiment.coordinates and name != axis]
            log = average(log, [*experiment.coordinates, "step"])
            plots[f"{title}: validation during training"] = log, metric, axis, "step", panels, True
    data = average(cases, [axis, "missing case"])
    others = cases.iloc[0][[name for name in experiment.coordinates if name != axis]].to_dict()  # equal in all rows
    title = ", ".join(filter(None, ["Every sample in one missing case", place_text(others)]))
    plots[title] = data, cases["_metric"].iloc[0], axis, "missing case", [], False
    images = {}
    for number, (title, (data, metric, series, along, panels, lines)) in enumerate(plots.items(), start=1):
        paths = [target / f"figure_{number}.svg", target / f"figure_{number}.pdf"]
        label = AXIS_TITLES.get(along, along) + (" (%)" if along == "test_ratio" and lines else "")
        draw(to_points(data, series, along, panels, lines), label, metric, lines, paths)
        images[f"{title} ({paths[0].name})"] = base64.b64encode(paths[0].read_bytes()).decode()
    return images


def to_points(data: pd.DataFrame, series: str, along: str, panels: list[str], curves: bool) -> pd.DataFrame:
    """Add to averaged scores what ``draw`` needs: panel, series and x, as a number or in words."""
    x = data[along]
    if not curves or not pd.api.types.is_numeric_dtype(x):
        x = [value_text(along, value) for value in x]
    return data.assign(
        panel=[place_text(place) for place in data[panels].to_dict("records")],
        series=[place_text({series: value}) for value in data[series]],
        x=PERCENT * x if along == "test_ratio" and curves else x,
    )
