"""From an experiment and the user's settings to runs that can be done."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip.cli.arguments import check_key, command_of, flat
from clip.cli.schema import PER_SPLIT, SPLITS, validate
from clip.config import ex
from clip.experiments.keys import key_of
from clip.experiments.schema import Experiment, Run
from clip.utils.errors import UserError

OWN = ("experiment", "seeds", "only", "launcher", "jobs", "slurm")  # of reproduce, not of a run
# A run starts anew and is read in all its states, whatever the user says.
REFUSED = ("load_path", "resume_from", "test_only", "fast_dev_run", "test_type", "test_ratio",
           "predictions")  # fmt: skip
Config = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A run with its seed and all its settings.

    Attributes:
        at: its coordinates.
        label: in words.
        seed: of the run.
        config: checked settings.
        key: of ``keys.key_of``.
        folder: where it lies, or will.
    """

    at: Config
    label: str
    seed: int
    config: Config
    key: str
    folder: Path

    @property
    def command(self) -> str:
        """The training alone, as one would type it."""
        return command_of(changes(self.config))

    @property
    def done(self) -> bool:
        """Whether it has been finished."""
        return is_done(self.folder)


def is_done(folder: Path) -> bool:
    """Tell a finished run by the file that is written last."""
    return (folder / "result.json").is_file()


def folder_of(config: Config, key: str) -> Path:
    """Give the folder of a run."""
    return Path(config["log_dir"]) / "runs" / key


def defaults() -> Config:
    """Give all settings as they are if nobody says anything."""
    config = ex.configurations[0]()
    return {key: value for key, value in config.items() if key != "__doc__"}


def changes(config: Config) -> Config:
    """Give the settings that differ from the defaults, in the keys that a user types."""
    plain = flat(validate(defaults()))
    return {key: value for key, value in flat(config).items()
            if key not in plain or value != plain[key]}  # fmt: skip


def overrides(config: Config, given: set[str]) -> Config:
    """Give the user's settings that runs take over, in the keys that a user types.

    Args:
        config: checked settings of the command.
        given: names of the settings that the user gave, with and without what is after the dot.

    Raises:
        UserError: one of them has no place in an experiment.
    """
    if "seed" in given:
        raise UserError(f"seed={config['seed']} is of a single run; give seeds=[{config['seed']}]")
    if refused := [key for key in REFUSED if config[key] != defaults()[key]]:
        key = refused[0]
        raise UserError(f"{key}={config[key]!r} has no place in a run of an experiment; leave it")
    plain = flat(validate(defaults()))
    whole = {key for key in given if not any(other.startswith(f"{key}.") for other in given)}
    return {
        key: value
        for key, value in flat(config).items()
        if key.split(".")[0] not in (*OWN, "seed", "exp_name")
        and (key in given or key.split(".")[0] in whole or value != plain.get(key))
    }


def put(config: Config, key: str, value: Any) -> None:
    """Set one setting in the key that a user types."""
    check_key(key, defaults())
    outer, _, inner = key.partition(".")
    if not inner:
        both = isinstance(config[key], dict) and isinstance(value, dict)
        config[key] = config[key] | value if both else value  # the rest keeps its values
        return
    if outer in PER_SPLIT and not isinstance(config[outer], dict):
        config[outer] = dict.fromkeys(SPLITS, config[outer])
    config[outer][inner] = value


def resolve(experiment: Experiment, run: Run, users: Config) -> Config:
    """Join settings: the defaults, the experiment's, the user's, and those of the coordinates.

    Raises:
        UserError: a setting does not exist or has a wrong value; names the experiment and the run.
    """
    config = copy.deepcopy(defaults())
    try:
        for settings in (experiment.base, users, run.settings):
            for key, value in settings.items():
                put(config, key, value)
        return validate(config)
    except UserError as error:
        where = " at ".join(filter(None, (experiment.name, _place(run.at))))
        raise UserError(f"{where}: {error}") from None


def plan(
    experiment: Experiment,
    users: Config,
    seeds: Sequence[int],
    only: Sequence[str] = (),
) -> list[Planned]:
    """Plan the runs of an experiment.

    Args:
        experiment: of ``load_experiment``.
        users: settings of ``overrides``.
        seeds: every run is done with each.
        only: words "coordinate=value" to which the runs are restricted; several values of one
            coordinate are alternatives.

    Raises:
        UserError: a setting is wrong, or there is no such backbone or data.
    """
    planned, wanted = [], _restriction(only)
    for run in experiment.runs:
        if any(name in run.at and str(run.at[name]) not in wanted[name] for name in wanted):
            continue
        config = resolve(experiment, run, users)
        for seed in seeds:
            own = copy.deepcopy(config) | {"seed": seed}
            key, _ = key_of(own)
            label = f"{experiment.name}: {_place(run.at)}, seed {seed}"
            planned.append(Planned(run.at, label, seed, own, key, folder_of(own, key)))
    return planned


def overruled(experiment: Experiment, users: Config) -> list[str]:
    """Name the user's settings that a coordinate sets otherwise."""
    return sorted(
        {key for run in experiment.runs for key, value in run.settings.items()
         for name, mine in users.items()
         if name.split(".")[0] == key.split(".")[0] and name.startswith(key) and mine != value}
    )  # fmt: skip


def departures(experiment: Experiment, users: Config) -> list[str]:
    """Name the experiment's own settings that the user's go over, in the keys that a user types."""
    own = flat(resolve(experiment, Run({}, {}), {}))
    outer = {key.split(".")[0] for key in experiment.base}
    return sorted(f"{key}={own[key]}" for key, value in users.items()
                  if key.split(".")[0] in outer and own[key] != value)  # fmt: skip


def check_only(experiments: Sequence[Experiment], only: Sequence[str]) -> None:
    """Refuse a restriction to coordinates or values that no experiment has.

    Raises:
        UserError: names what there is.
    """
    places = [item for each in experiments for run in each.runs for item in run.at.items()]
    known = _restriction(f"{name}={value}" for name, value in places)
    for name, values in _restriction(only).items():
        if name not in known:
            raise UserError(f"only={name}=… is no coordinate; there are {', '.join(known)}")
        for value in values:
            if value not in known[name]:
                raise UserError(f"only={name}={value}: {name} is one of {', '.join(known[name])}")


def _restriction(only: Iterable[str]) -> dict[str, list[str]]:
    """Group words "coordinate=value" by the coordinate, each value once."""
    grouped: dict[str, dict[str, None]] = {}
    for word in only:
        name, _, value = word.partition("=")
        grouped.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in grouped.items()}


def _place(at: Config) -> str:
    return ", ".join(f"{name} {value}" for name, value in at.items())
