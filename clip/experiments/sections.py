"""What a report says: each function lays out one section from what was read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clip.evaluation import bootstrap
from clip.evaluation.costs import PARTS, by_part
from clip.experiments.evidence import STATE_NAMES
from clip.experiments.layout import (
    ABSENT,
    Cell,
    Section,
    Table,
    labels,
    name_of,
    percent,
    with_spread,
)
from clip.experiments.records import Compared, Reading, Record, nearest

MANY_CLASSES = 30
SHOWN_CLASSES = 10  # the best and as many of the worst, where there are many


def _title(what: Compared, setting: tuple[Any, ...]) -> str:
    pairs = zip(what.others, setting, strict=True)
    return ", ".join(f"{axis} {name_of(value)}" for axis, value in pairs)


def _floor(reading: Reading) -> Cell:
    return Cell(percent(reading.cells["constant_baseline"].mean()))


def states(what: Compared, readings: Iterable[Reading]) -> Section:
    """Every sample of the split in each of its three states."""
    header = [[*what.others, what.axis, "metric", *STATE_NAMES, "input ignored"]]
    rows = [
        [*labels((*reading.setting, reading.method)), Cell(reading.goal.headline),
         *(Cell(percent(score)) for score in reading.found.states), _floor(reading)]
        for reading in readings
    ]  # fmt: skip
    text = (f"Every sample of the {what.split} split, scored in each of the three states it can be "
            "in, whatever the masks say; the mean over the seeds. One that really lacks its image "
            "or text is scored without it in all three. The last column is what the best constant "
            "answer reaches.")  # fmt: skip
    return Section("Scores by state", text, tables=[Table(header, rows, len(what.others) + 1)])


def classes(what: Compared, readings: Sequence[Reading], setting: tuple[Any, ...], names: Sequence[str]) -> Section:
    """The score of each class in one setting, best first."""
    shown = [reading for reading in readings if reading.setting == setting]
    first = shown[0]
    kind = "F1 at 0.5" if "F1_Macro" in first.goal.metrics(2) else "Share of right answers"
    scores = np.stack([reading.found.classes for reading in shown], axis=1)  # (C, methods)
    defined = ~np.isnan(scores)
    total = np.where(defined, scores, 0).sum(1)
    level = np.where(defined.any(1), total / np.maximum(1, defined.sum(1)), -1)
    order = np.argsort(-level, kind="stable")
    text = f"{kind} of each class ({first.case}), best first by the mean over the methods."
    if len(order) > MANY_CLASSES:
        order = np.concatenate([order[:SHOWN_CLASSES], order[-SHOWN_CLASSES:]])
        text += f" The best and the worst {SHOWN_CLASSES} of {len(scores)}."
    header = [["class", "samples", *(name_of(reading.method) for reading in shown)]]
    rows = [
        [Cell(names[place] if place < len(names) else f"class {place}"),
         Cell(f"{int(first.found.support[place]):,}"), *(Cell(percent(s)) for s in scores[place])]
        for place in order
    ]  # fmt: skip
    table = Table(header, rows, title=_title(what, setting))
    return Section("Scores by class", text, tables=[table])


def _interval(scores: np.ndarray, sign: bool = False) -> str:
    low, high = bootstrap.interval(scores)
    if math.isnan(low):
        return ABSENT
    return f"{percent(low, sign)} to {percent(high, sign)}"


def _interval_row(reading: Reading, base: Reading | None, metric: str) -> list[Cell]:
    name = [*labels((*reading.setting, reading.method)), Cell(metric), Cell(reading.case)]
    if metric not in reading.found.resampled:
        return [*name, *[Cell(ABSENT)] * 4]
    point, scores = reading.found.point[metric], reading.found.resampled[metric]
    row = [*name, Cell(percent(point[0])), Cell(_interval(scores))]
    if base is None or base.method == reading.method or metric not in base.found.resampled:
        return [*row, Cell(ABSENT), Cell(ABSENT)]
    gap = scores - base.found.resampled[metric]
    return [*row, Cell(percent(point[0] - base.found.point[metric][0], sign=True)),
            Cell(_interval(gap, sign=True))]  # fmt: skip


def intervals(what: Compared, readings: Sequence[Reading]) -> Section:
    """Bootstrap intervals of each method, and of its difference to the baseline."""
    bases = {r.setting: r for r in readings if r.method == what.baseline}
    metrics = list(dict.fromkeys(name for r in readings for name in r.found.resampled))
    header = [[*what.others, what.axis, "metric", "case", "score", "95 % interval",
               f"− {name_of(what.baseline)}", "95 % interval"]]  # fmt: skip
    rows = [
        _interval_row(reading, bases.get(reading.setting), metric)
        for metric in metrics or [""]
        for reading in readings
        if metric in reading.found.resampled or not reading.found.resampled
    ]
    text = (f"What depends on which samples are in the {what.split} split: percentile intervals of "
            f"{bootstrap.RESAMPLES:,} resamples with replacement (seed {bootstrap.SEED}). A score "
            "is the mean over the seeds, and a difference is taken on the same resamples for both "
            "methods. The intervals say nothing about other seeds of training, and a repeated "
            "sample lifts mAP a little. A dash: masks that "
            "cannot be drawn again from the run's settings, or nothing to compare with."
            )  # fmt: skip
    return Section("Intervals", text, tables=[Table(header, rows, len(what.others) + 1)])


def metrics(what: Compared, cells: pd.DataFrame, records: Mapping[str, Record]) -> Section:
    """All metrics of each task, at 0.5 and without a threshold."""
    tables = []
    keys = [*what.others, what.axis, "split"]
    for name in dict.fromkeys(records[run].task for run in cells["run"]):
        own = cells[[records[run].task == name for run in cells["run"]]]
        goal = records[own["run"].iloc[0]].goal
        shown = list(goal.metrics(goal.num_classes))
        rows = []
        for key, group in own.groupby(keys, sort=False):
            at = nearest(group)
            case = f"{at['test_type'].iloc[0]} {name_of(float(at['test_ratio'].iloc[0]))}"
            rows.append([*labels(key), Cell(case), *(Cell(with_spread(at[m])) for m in shown)])
        tables.append(Table([[*keys, "case", *shown]], rows, len(keys), title=name))
    text = ("Mean ± standard deviation over the seeds, at the test case nearest to missing both at "
            "70\u00a0%. F1 depends on the threshold 0.5; mAP and AUROC need none.")  # fmt: skip
    return Section("All metrics", text, tables=tables)


def _average(records: Iterable[Record], key: str) -> float:
    found = [record.result.get(key) for record in records]
    known = [float(value) for value in found if value is not None]
    return sum(known) / len(known) if known else math.nan


def _number(value: float, form: str) -> str:
    return ABSENT if math.isnan(value) else format(value, form)


def costs(what: Compared, cells: pd.DataFrame, records: Mapping[str, Record]) -> Section:
    """What trains and what a step takes: by method, where nothing else decides what trains."""
    runs = cells.drop_duplicates("run")
    runs = runs.assign(
        _task=[records[run].task for run in runs["run"]],
        _trains=[str(records[run].about["trainable"]) for run in runs["run"]],
    )
    alone = runs.groupby(["_task", what.axis])["_trains"].nunique().max() == 1
    axes = [what.axis] if alone else [*what.others, what.axis]
    header = [["task", *axes, *PARTS, "trainable", "share of all", "step, ms",
               "peak memory, MB", "training, min", "steps"]]  # fmt: skip
    rows = []
    for key, group in runs.groupby(["_task", *axes], sort=False):
        of = [records[run] for run in group["run"]]
        parts = by_part(of[0].about["trainable"])
        total = sum(parts.values())
        rows.append([
            *labels(key), *(Cell(f"{parts[part]:,}") for part in PARTS),
            Cell(f"{total:,}"), Cell(f"{100 * total / of[0].about['total_parameters']:.2f} %"),
            Cell(_number(1000 * _average(of, "seconds_per_step"), ".1f")),
            Cell(_number(_average(of, "peak_memory_mb"), ",.0f")),
            Cell(_number(_average(of, "seconds_train") / 60, ".1f")),
            Cell(_number(_average(of, "steps"), ",.0f")),
        ])  # fmt: skip
    text = ("Parameters that train, by part, and what training took on the machines that did it: "
            "the mean over the runs. A step is one of the optimiser.")  # fmt: skip
    return Section("Costs", text, tables=[Table(header, rows, len(axes) + 1)])


def masks(cells: pd.DataFrame, records: Mapping[str, Record]) -> Section:
    """The SHA-256 of every missing table, in training and testing."""
    seen: dict[tuple[str, ...], int] = {}
    for _, row in cells.iterrows():
        case = f"{row['test_type']} {name_of(float(row['test_ratio']))}"
        key = (records[row["run"]].task, row["split"], case, row["missing_table"])
        seen[key] = seen.get(key, 0) + 1
    for record in records.values():
        settings = record.about["settings"]
        if "train" in record.about["missing_tables"]:
            kind, ratio = (settings[k]["train"] for k in ("missing_type", "missing_ratio"))
            key = (record.task, "train", f"{kind} {name_of(float(ratio))}",
                   record.about["missing_tables"]["train"])  # fmt: skip
            seen[key] = seen.get(key, 0) + 1
    rows = [[*map(Cell, key), Cell(str(count))] for key, count in seen.items()]
    text = "Equal hashes mean equal masks: SHA-256 over one byte a row of the arrow file."
    header = [["task", "split", "case", "SHA-256 of the table", "used by"]]
    return Section("Masks", text, tables=[Table(header, rows, labels=4)])


def commands(what: Compared, cells: pd.DataFrame, records: Mapping[str, Record]) -> Section:
    """The command of every run."""
    out = []
    for _, row in cells.drop_duplicates("run").iterrows():
        place = ", ".join(f"{axis} {name_of(row[axis])}" for axis in (*what.others, what.axis))
        out.append((f"{place}, seed {row['seed']} ({row['run']})", records[row["run"]].about["command"]))
    text = "Each run alone, as it would be typed at the root of the project."
    return Section("Commands", text, commands=out)
