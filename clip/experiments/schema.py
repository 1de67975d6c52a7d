"""What an experiment is: runs, what is read from them, and what the paper says of them.

`clip.experiments.spec` reads one from a file.
"""

from dataclasses import dataclass
from typing import Any

from clip.modules.objectives import Task

SPLITS = ("val", "test")
CASE_AXES = ("test_type", "test_ratio")
FIGURES = ("none", "curves")
TAKEN = ("seed", "split", *CASE_AXES, "constant_baseline", "missing_table", "score", "run", "published",
         "value")  # fmt: skip
Coordinates = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One point of an experiment, without its seed.

    Attributes:
        at: coordinate -> value, the run's place in the table.
        settings: those of the coordinates, in the keys that a user types; they win over all others.
    """

    at: Coordinates
    settings: dict[str, Any]


@dataclass(frozen=True)
class Read:
    """What is read from a run.

    Attributes:
        splits: "val", "test".
        types: missing types of the test cases; empty for each run's own case.
        ratios: and their missing rates.
        metric: a metric of the task; None for the task's headline.
    """

    splits: tuple[str, ...]
    types: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    metric: str | None = None

    def metric_of(self, task: Task) -> str:
        """Name the metric that is read of a task."""
        return self.metric or task.headline


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: of its file.
        title: in words.
        source: where it is in the paper.
        base: settings of all runs, which the user's go over.
        runs: in the order of the file.
        read: what is read from them.
        rows: axes down the table.
        columns: axes across it; with ``rows``, every one of ``axes`` once.
        published: values of ``axes``, in their order -> published value in percent.
        figure: "curves": ``columns`` along x, a curve for each value of the last of ``rows``, a
            panel for each value of the others. "none": a table alone.
    """

    name: str
    title: str
    source: str
    base: dict[str, Any]
    runs: tuple[Run, ...]
    read: Read
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    published: dict[tuple[Any, ...], float]
    figure: str

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of what tells runs apart."""
        return tuple(self.runs[0].at)

    @property
    def axes(self) -> tuple[str, ...]:
        """Coordinates, then "split" if several are read, then the axes of several test cases."""
        split = ("split",) * (len(self.read.splits) > 1)
        return (*self.coordinates, *split, *(CASE_AXES if self.read.types else ()))
