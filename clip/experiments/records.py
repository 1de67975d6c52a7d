"""The runs of an experiment as a report reads them: records, scores, one test case a method."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clip.evaluation import bootstrap
from clip.evaluation.costs import BASELINE
from clip.evaluation.predictions import CasePredictions
from clip.experiments import evidence
from clip.experiments.evidence import Evidence
from clip.experiments.layout import name_of
from clip.experiments.schema import CASE_AXES, Experiment
from clip.modules.objectives import TASKS, Task, resolve_task

MAIN_CASE = ("both", 0.7)  # the paper's default, where a report looks closer


@dataclass(frozen=True)
class Record:
    """The files of one run's folder.

    Attributes:
        folder: the run's.
        about: of run.json.
        result: of result.json.
    """

    folder: Path
    about: dict[str, Any]
    result: dict[str, Any]

    @property
    def task(self) -> str:
        """Key of ``TASKS``."""
        return self.about["settings"]["task"]

    @property
    def goal(self) -> Task:
        """The task, with the classes of the run's own data."""
        return resolve_task(self.task, self.about["model_config"])

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in their order; none where the run's files did not say them."""
        return self.about["model_config"].get("class_names", [])


def read_records(folders: Mapping[str, Path]) -> dict[str, Record]:
    """Read run.json and result.json of each run."""
    return {
        key: Record(folder, *(json.loads((folder / name).read_text(encoding="utf-8"))
                              for name in ("run.json", "result.json")))
        for key, folder in folders.items()
    }  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """What is compared with what.

    Attributes:
        axis: the coordinate whose values are the methods.
        others: the other coordinates of a run; each combination is a setting.
        baseline: the method that the others are compared with.
        split: of which predictions are looked at.
    """

    axis: str
    others: tuple[str, ...]
    baseline: Any
    split: str


def compared(experiment: Experiment, cells: pd.DataFrame, records: Mapping[str, Record]) -> Compared:
    """Find the axis of the methods: a figure's curves, or the last axis across or down a table."""
    own = [axis for axis in (*experiment.rows, *experiment.columns)
           if axis not in ("split", *CASE_AXES)]  # fmt: skip
    across = [axis for axis in experiment.columns if axis in own]
    down = [axis for axis in experiment.rows if axis in own]
    axis = ((across or down) if experiment.figure == "none" else (down or across))[-1]
    plain = [records[run].about["settings"]["prompt_type"] == BASELINE for run in cells["run"]]
    first = cells[axis][plain] if any(plain) else cells[axis]
    split = "test" if (cells["split"] == "test").any() else cells["split"].iloc[0]
    return Compared(axis, tuple(a for a in own if a != axis), first.iloc[0], split)


@dataclass(frozen=True)
class Reading:
    """One method in one setting at one test case, over its seeds.

    Attributes:
        setting: values of ``Compared.others``.
        method: value of ``Compared.axis``.
        cells: a row a seed, at the case nearest to the paper's default.
        task: key of ``TASKS``.
        goal: the task.
        found: what the predictions say.
    """

    setting: tuple[Any, ...]
    method: Any
    cells: pd.DataFrame
    task: str
    goal: Task
    found: Evidence

    @property
    def case(self) -> str:
        """The test case in words."""
        row = self.cells.iloc[0]
        return f"{row['test_type']} {name_of(float(row['test_ratio']))}"


def distance(row: pd.Series) -> tuple[bool, float]:
    """Tell how far a test case is from the paper's default."""
    return row["test_type"] != MAIN_CASE[0], abs(row["test_ratio"] - MAIN_CASE[1])


def nearest(cells: pd.DataFrame) -> pd.DataFrame:
    """Keep the row of each run whose test case is nearest to the paper's default."""
    order = cells.assign(_far=[distance(row) for _, row in cells.iterrows()])
    return order.sort_values("_far", kind="stable").drop_duplicates("run").drop(columns="_far")


def groups(what: Compared, cells: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], Any, pd.DataFrame]]:
    """Give each setting and method with its rows, one a seed, of the split that is looked at."""
    seen = cells[cells["split"] == what.split]
    for (*setting, method), rows in seen.groupby([*what.others, what.axis], sort=False):
        yield tuple(setting), method, nearest(rows).sort_values("seed")


def main_setting(what: Compared, cells: pd.DataFrame, records: Mapping[str, Record]) -> tuple[Any, ...]:
    """Find the setting nearest to the paper's default: first task, missing both at 70 %."""

    def rank(group: tuple[tuple[Any, ...], Any, pd.DataFrame]) -> tuple:
        row = group[2].iloc[0]
        return list(TASKS).index(records[row["run"]].task), distance(row)

    return min(groups(what, cells), key=rank)[0]


def read(
    what: Compared,
    cells: pd.DataFrame,
    records: Mapping[str, Record],
    wanted: Callable[[tuple[Any, ...], Task], list[str]],
) -> list[Reading]:
    """Read the predictions of every run once.

    Args:
        what: of ``compared``.
        cells: of ``cells.collect``.
        records: of ``read_records``.
        wanted: (setting, task) -> metrics to resample.
    """
    out = []
    for setting, method, rows in groups(what, cells):
        first, found = records[rows["run"].iloc[0]], []
        task, goal = first.task, first.goal
        for _, row in rows.iterrows():
            record = records[row["run"]]
            path = record.folder / f"{what.split}.arrow"
            predictions = CasePredictions.load(path, task, what.split)
            table = evidence.masks(predictions, record.about["settings"], row)
            names = wanted(setting, goal)
            found.append(evidence.gather(predictions, goal, table, names))
        out.append(Reading(setting, method, rows, task, goal, evidence.mean(found)))
    return out


def resampled_metrics(task: Task) -> list[str]:
    """Name the metrics of a task that can be resampled, the headline first."""
    names = [name for name in task.metrics(task.num_classes) if name in bootstrap.SCORES]
    return sorted(names, key=lambda name: name != task.headline)
