"""One run, done once: train, then predict the validation and test splits in all three states.

A run's folder is `<log_dir>/runs/<key>`: `training/` (folders of ordinary training runs, the later
ones going on where an earlier one was interrupted), `val.arrow`, `test.arrow`, `run.json`, and last
of all `result.json`, whose presence means that the run is done.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pytorch_lightning.utilities import rank_zero_only

from clip.cli import build as assembly
from clip.cli import commands
from clip.cli.arguments import command_of
from clip.engine import trainer as runs
from clip.experiments.keys import key_of
from clip.experiments.plan import changes, folder_of, is_done, overrides

SPLITS = ("val", "test")
MEASURED = ("seconds_train", "seconds_per_step", "steps", "peak_memory_mb")


def once(config: dict[str, Any], given: set[str]) -> Path:
    """Do a run unless it is done; go on with it if it was interrupted.

    Args:
        config: checked settings.
        given: names of the settings that the user gave.

    Returns:
        The run's folder.

    Raises:
        UserError: as training does, or a setting has no place here.
    """
    overrides(config, given - {"seed"})
    key, facts = key_of(config)
    folder = folder_of(config, key)
    # Under torchrun, all processes must agree that there is nothing to do.
    with contextlib.nullcontext() if is_done(folder) or rank_zero_only.rank else locked(folder):
        if is_done(folder):
            print(f"done before: {folder}")
            return folder
        trained = _finished(folder) or commands.train(_within(config, folder), given)
        if rank_zero_only.rank == 0:  # the other processes have trained with this one
            _predict(config, given, folder, trained, {"key": key, "keyed_by": facts})
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run; wait while one is in it.

    The system frees the lock when its process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claim(folder: Path) -> TextIO | None:
    """Reserve a run for one command that starts runs; closing the file gives it back.

    A started run takes its lock only seconds later, or when SLURM lets it: without a claim, two
    commands would start the same runs again and again, and one of each pair would only wait.

    Returns:
        None where another command has it, or a process is in the run.
    """
    file = _hold(folder / "claim")
    if file and (lock := _hold(folder / "lock")):
        lock.close()
        return file
    if file:
        file.close()
    return None


def _hold(path: Path) -> TextIO | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _finished(folder: Path) -> dict[str, Any] | None:
    """Read what a training left that had come to its end."""
    found = list((folder / "training").glob("*/version_*/metrics.json"))
    if not found:
        return None
    # The folder may have been moved since.
    return json.loads(found[0].read_text(encoding="utf-8")) | {"folder": str(found[0].parent)}


def _within(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Lead a training into the run's folder, and to the last checkpoint there if there is one."""
    place = folder / "training"
    interrupted = any(place.glob(f"**/epoch-*-{runs.LAST}*.pt"))
    return config | {"log_dir": str(place), "resume_from": str(place) if interrupted else ""}


def _predict(
    config: dict[str, Any],
    given: set[str],
    folder: Path,
    trained: dict[str, Any],
    about: dict[str, Any],
) -> None:
    """Predict with the best checkpoint, and write everything, the result last."""
    alone = config | {"num_gpus": min(1, config["num_gpus"]), "num_nodes": 1}
    device = commands.one_device(alone, "predicting")
    best = runs.find_checkpoint(trained["folder"], runs.BEST)
    module, data = assembly.from_config(alone | {"load_path": str(best)}, given, device)
    for split in SPLITS:
        commands.predict_split(module, data, split, device).save(folder / f"{split}.arrow")
    record = assembly.run_record(module, config)
    record["settings"] = record.pop("config")
    record |= about | {"seed": config["seed"], "command": command_of(changes(config)),
                       "missing_tables": about["keyed_by"]["missing_tables"]}  # fmt: skip
    runs.write_json(folder / "run.json", record)
    headline = module.task.headline
    result = {"headline": headline, "best_val": trained[f"val/{headline}"], "checkpoint": str(best)}
    runs.write_json(folder / "result.json", result | {name: trained[name] for name in MEASURED})
    print(f"done: {folder}")
