"""Reads experiments from YAML files, whose form is in docs/reproduce.md.

Strictly: whatever is unknown, absent or of the wrong type is one line that names file and key.
"""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from clip.experiments.schema import FIGURES, SPLITS, TAKEN, Experiment, Read, Run
from clip.missing import MISSING_TYPES
from clip.utils.errors import UserError

MOST_BYTES = 200_000  # the largest of ours has a tenth
FOLDER = Path(__file__).resolve().parents[2] / "experiments"


def available() -> list[str]:
    """Name the experiments that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment.

    Args:
        path: a file, or a name in experiments/.

    Raises:
        UserError: one line that names the file and the key.
    """
    path = FOLDER / f"{path}.yaml" if str(path) in available() else Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has over {MOST_BYTES:,} bytes, which is no experiment")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError:
        raise UserError(f"experiment={path} is no file, nor one of {', '.join(available())}") from None
    except UserError:
        raise
    # A date that no calendar has, for one, is a ValueError.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())[:200]})") from None
    return _Reader(path).experiment(content)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool)


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(accepts, value))


_text, _mapping, _number = _is(str), _is(dict), _is(int, float)
_share = lambda value: _number(value) and 0 <= value <= 1  # noqa: E731
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "title": (_text, "a text"),
    "source": (_text, "a text"),
    "base": (_mapping, "a mapping of settings"),
    "grid": (_mapping, "a mapping of coordinates"),
    "runs": (_list_of(_mapping), "a list of {at: …, settings: …}"),
    "read": (_mapping, "a mapping"),
    "rows": (_list_of(_text), "a list of axes"),
    "columns": (_list_of(_text), "a list of axes"),
    "figure": (lambda value: value in FIGURES, f"one of {', '.join(FIGURES)}"),
    "published": (_list_of(_mapping), "a list of {axis: …, value: …}"),
    "at": (_mapping, "a mapping of coordinates"),
    "settings": (_mapping, "a mapping of settings"),
    "splits": (
        lambda value: isinstance(value, list) and bool(value) and set(value) <= set(SPLITS),
        f"a list of {', '.join(SPLITS)}",
    ),
    "cases": (_mapping, "a mapping of types and ratios"),
    "types": (
        lambda value: isinstance(value, list) and bool(value) and set(value) <= set(MISSING_TYPES),
        f"a list of {', '.join(MISSING_TYPES)}",
    ),
    "ratios": (
        lambda value: _list_of(_share)(value) and bool(value),
        "a list of numbers from 0 to 1",
    ),
    "metric": (_text, "the name of a metric"),
    "value": (_number, "a number"),
}


class _Loader(yaml.SafeLoader):
    """Plain values only: a few aliases of aliases would unfold to more than the memory."""

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it uses an alias (*); write the value out")
        return super().compose_node(parent, index)


class _Reader:
    """Turns the content of one file into an Experiment, and names the file in its complaints."""

    def __init__(self, path: Path):
        self.path = path

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.path}: {what:.400}")

    def take(self, content: Any, place: str, needed: str, optional: str = "") -> dict[str, Any]:
        """Check the keys of a mapping and the types of their values."""
        if not isinstance(content, dict):
            raise self.wrong(f"{place or 'the file'} is {content!r}; give a mapping")
        allowed = [*needed.split(), *optional.split()]
        for key in content:
            if key not in allowed:
                raise self.wrong(f"{place}{key} is unknown; the keys are {', '.join(allowed)}")
        for key in needed.split():
            if key not in content:
                raise self.wrong(f"{place}{key} is missing")
        for key, value in content.items():
            accepts, wanted = FIELDS[key]
            if not accepts(value):
                raise self.wrong(f"{place}{key}={value!r} is not valid; give {wanted}")
        return content

    def experiment(self, content: Any) -> Experiment:
        content = self.take(content, "", "title source base read rows columns published",
                            "grid runs figure")  # fmt: skip
        if ("grid" in content) == ("runs" in content):
            raise self.wrong("give one of grid and runs")
        runs = self.grid(content["grid"]) if "grid" in content else self.listed(content["runs"])
        experiment = Experiment(
            name=self.path.stem,
            title=content["title"],
            source=content["source"],
            base=content["base"],
            runs=runs,
            read=self.read(content["read"]),
            rows=tuple(content["rows"]),
            columns=tuple(content["columns"]),
            published={},
            figure=content.get("figure", "none"),
        )
        laid_out = [*experiment.rows, *experiment.columns]
        if sorted(laid_out) != sorted(experiment.axes):
            raise self.wrong(f"rows and columns name {laid_out}; they must name each of {list(experiment.axes)}")
        if experiment.figure == "curves" and not (experiment.rows and experiment.columns):
            raise self.wrong("figure=curves needs an axis in rows, its curves, and one in columns")
        experiment.published.update(self.published(content["published"], experiment))
        return experiment

    def grid(self, content: dict[str, Any]) -> tuple[Run, ...]:
        for name, values in content.items():
            if not isinstance(values, dict) or not values:
                raise self.wrong(f"grid.{name}={values!r} is not valid; give value: settings")
            for value, settings in values.items():
                if not isinstance(settings, dict):
                    raise self.wrong(f"grid.{name}.{value}={settings!r} is no mapping of settings")
        points = itertools.product(*(values.items() for values in content.values()))
        return self.distinct(
            Run(dict(zip(content, (value for value, _ in point), strict=True)),
                {key: setting for _, settings in point for key, setting in settings.items()})
            for point in points
        )  # fmt: skip

    def listed(self, content: list[Any]) -> tuple[Run, ...]:
        taken = [self.take(each, f"runs[{i}].", "at settings") for i, each in enumerate(content)]
        return self.distinct(Run(each["at"], each["settings"]) for each in taken)

    def distinct(self, runs: Iterable[Run]) -> tuple[Run, ...]:
        """Refuse runs without a place, at one place, or of several kinds of places."""
        runs = tuple(runs)
        names = set(runs[0].at) if runs else set()
        if not names:
            raise self.wrong("there are no runs with a coordinate")
        if strange := [name for name in names if not isinstance(name, str)]:
            raise self.wrong(f"the coordinate {strange[0]!r} is no text")
        if taken := sorted(names & set(TAKEN)):
            raise self.wrong(f"the coordinate {taken[0]} has the name of a column; choose another")
        seen = set()
        for run in runs:
            if set(run.at) != names:
                raise self.wrong(f"runs at {run.at} and {runs[0].at} have other coordinates")
            if not all(map(_is(str, int, float), run.at.values())):
                raise self.wrong(f"a coordinate of {run.at} is neither a text nor a number")
            place = tuple(run.at[name] for name in runs[0].at)
            if place in seen:
                raise self.wrong(f"two runs are at {run.at}")
            seen.add(place)
        return runs

    def read(self, content: dict[str, Any]) -> Read:
        content = self.take(content, "read.", "splits", "cases metric")
        cases = self.take(content["cases"], "read.cases.", "types ratios") if "cases" in content \
            else {"types": (), "ratios": ()}  # fmt: skip
        return Read(tuple(content["splits"]), tuple(cases["types"]),
                    tuple(map(float, cases["ratios"])), content.get("metric"))  # fmt: skip

    def published(self, content: list[Any], experiment: Experiment) -> dict[tuple, float]:
        """Check each entry's place: every value of an axis must be one of a run or of ``read``."""
        axes, read = experiment.axes, experiment.read
        known: dict[str, set] = {name: {run.at[name] for run in experiment.runs}
                                 for name in experiment.coordinates}  # fmt: skip
        known |= {"split": set(read.splits), "test_type": set(read.types),
                  "test_ratio": set(read.ratios)}  # fmt: skip
        values: dict[tuple, float] = {}
        for i, entry in enumerate(content):
            place = f"published[{i}]."
            if set(entry) != {*axes, "value"}:
                raise self.wrong(f"{place} has {[*entry]}; give {[*axes, 'value']}")
            self.take({"value": entry["value"]}, place, "value")
            for name in axes:
                if entry[name] not in known[name]:
                    raise self.wrong(f"{place}{name}={entry[name]!r} is in no run")
            key = tuple(entry[name] for name in axes)
            if key in values:
                raise self.wrong(f"{place[:-1]} gives a second value for {key}")
            values[key] = float(entry["value"])
        return values
