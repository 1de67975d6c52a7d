"""Experiment spec: runs, what is evaluated, and published values, read from YAML (docs/reproduce.md)."""

import itertools
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError

from clip.missing import MISSING_TYPES
from clip.modules.objectives import Task
from clip.utils.errors import UserError, first_line
from clip.utils.files import parse_yaml
from clip.utils.settings import Settings, user_error

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
CASE_AXES = ("test_type", "test_ratio")
RESERVED = {*CASE_AXES, "seed", "split", "missing case", "constant_baseline", "incomplete", "missing_table"}
RESERVED |= {"score", "run", "published", "value", "mean", "std"}
Coordinate = str | int | FiniteFloat


class Run(Settings):
    """One point of an experiment, without its seed: its coordinates, and their settings, which override all others."""

    at: Annotated[dict[str, Coordinate], Field(min_length=1)]
    settings: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.at.items())


class TestCases(Settings):
    """Test cases: each missing type at each missing rate."""

    __test__ = False  # pytest must not collect it

    types: Annotated[list[Literal[MISSING_TYPES]], Field(min_length=1)]
    ratios: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]


class EvalSpec(Settings):
    """What is evaluated of a run."""

    splits: Annotated[list[Literal["val", "test"]], Field(min_length=1)]
    cases: TestCases | None = None  # None for the missing case that the run was trained with
    metric: str | None = None  # None for the task's headline

    def metric_of(self, task: Task) -> str:
        """Return the metric that is evaluated for a task."""
        return self.metric or task.headline


class Experiment(Settings):
    """A table or figure."""

    name: str  # stem of the file name
    title: str
    source: str = "own experiment"  # where the published values come from, such as a table of the paper
    base: dict[str, Any]  # settings of all runs; the user's override them
    grid: dict[str, dict[Coordinate, dict[str, Any]]] | None = None  # coordinate -> value -> settings, for the product
    listed: list[Run] = Field([], alias="runs")  # in place of ``grid``
    read: EvalSpec
    rows: list[str]  # axes down the table
    columns: list[str]  # axes across the table
    published: list[dict[str, Coordinate]] = []  # values in percent: the value of every axis, and "value"
    # "curves" with ``columns`` along x, a curve per value of the last of ``rows`` and a panel per value of the others;
    # "none" for bars.
    figure: Literal["none", "curves"] = "none"

    @cached_property
    def runs(self) -> list[Run]:
        """All runs in the order of the file."""
        if self.grid is None:
            return self.listed
        runs = []
        for point in itertools.product(*(values.items() for values in self.grid.values())):
            at = dict(zip(self.grid, (value for value, _ in point), strict=True))
            runs.append(Run(at=at, settings={key: value for _, settings in point for key, value in settings.items()}))
        return runs

    @property
    def coordinates(self) -> list[str]:
        """Names of the coordinates that tell runs apart."""
        return list(self.runs[0].at)

    @property
    def axes(self) -> list[str]:
        """The coordinates, then "split" if there are several, then the axes of several test cases."""
        return [*self.coordinates, *["split"] * (len(self.read.splits) > 1), *(CASE_AXES if self.read.cases else ())]

    @property
    def compared(self) -> str:
        """The coordinate that is compared: of a figure's curves, or the last of a table."""
        down, across = ([name for name in part if name in self.coordinates] for part in (self.rows, self.columns))
        return ((across or down) if self.figure == "none" else (down or across))[-1]

    @cached_property
    def published_values(self) -> dict[tuple[Coordinate, ...], float]:
        """Published values in percent, by the values of ``axes``."""
        return {tuple(entry[axis] for axis in self.axes): float(entry["value"]) for entry in self.published}


def available() -> list[str]:
    """Return the names of the experiments in experiments/."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_experiment(path: str | Path) -> Experiment:
    """Load and check a YAML file, or an experiment of experiments/ by name; errors name the file and the key."""
    path = FOLDER / f"{path}.yaml" if path in available() else Path(path)
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
        experiment = Experiment.model_validate({**content, "name": path.stem})
        _check_runs(experiment)
        _check_published(experiment)
    except ValidationError as error:
        raise user_error(error, f"{path}: ") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError:
        raise UserError(f"experiment={path} is not a file; give one or one of {', '.join(available())}") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a YAML mapping ({first_line(error)})") from None
    return experiment


def _check_runs(experiment: Experiment) -> None:
    """Check that the runs have the same coordinates, each place once, and that the axes are laid out."""
    if not experiment.runs or (experiment.grid is not None and experiment.listed):
        raise UserError("give one of grid and runs, with at least one run")
    coordinates = experiment.coordinates
    if taken := set(coordinates) & RESERVED:
        raise UserError(f"coordinate {min(taken)} has the name of a column; choose another name")
    for i, run in enumerate(experiment.runs):
        if run.at.keys() != set(coordinates) or any(run.at == other.at for other in experiment.runs[:i]):
            raise UserError(f"run at {run.at} must have the coordinates {coordinates} and a place of its own")
    laid_out = [*experiment.rows, *experiment.columns]
    if sorted(laid_out) != sorted(experiment.axes):
        raise UserError(f"rows and columns are {laid_out}; name each of {experiment.axes} once")
    if experiment.figure == "curves" and not (experiment.rows and experiment.columns):
        raise UserError("figure=curves needs an axis in rows (the curves) and one in columns (along x)")


def _check_published(experiment: Experiment) -> None:
    """Check that every published value is a number at a place of some run, once."""
    axes, read = experiment.axes, experiment.read
    known = {name: {run.at[name] for run in experiment.runs} for name in experiment.coordinates}
    known["split"] = set(read.splits)
    if read.cases:
        known |= dict(zip(CASE_AXES, (set(read.cases.types), set(read.cases.ratios)), strict=True))
    for i, entry in enumerate(experiment.published):
        if entry.keys() != {*axes, "value"} or isinstance(entry["value"], str):
            raise UserError(f"published[{i}]={entry} is not valid; give {axes} and a number as value")
        if wrong := [axis for axis in axes if entry[axis] not in known[axis]]:
            raise UserError(f"published[{i}].{wrong[0]}={entry[wrong[0]]!r} is not in any run; correct it")
    if len(experiment.published_values) < len(experiment.published):
        raise UserError("published has two values for one place; remove one")
