"""Version folders, metric loggers and JSON records of a run, written atomically."""

import json
import math
import os
import subprocess
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from clip.config import GROUPS, BaseConfig
from clip.utils.command_line import flatten
from clip.utils.errors import UserError
from clip.utils.files import atomic_write, write_text

SAVE_SECONDS = 10  # between two writes of metrics.csv, which is written as a whole


class MetricsLog(Logger):
    """Write metrics.csv, one row per optimiser step at which something was logged.

    Lightning's CSVLogger rewrites the file in place when a new metric appears; a run killed meanwhile loses its log.

    Args:
        folder: folder of the run, ``.../NAME/version_K``.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self.rows: dict[int, dict[str, float]] = {}
        self.saved = time.monotonic()

    @property
    def log_dir(self) -> str:
        """Folder of the run."""
        return str(self.folder)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.parent.name

    @property
    def version(self) -> str:
        """Version of the run, such as "version_0"."""
        return self.folder.name

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of an optimiser step, which Lightning counts from 0; a test has no step."""
        number = step if "test/loss" in metrics else step + 1
        row = self.rows.setdefault(number, {"step": number})
        row |= {name: float(value) for name, value in metrics.items()}

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing; run.json contains all settings."""

    def save(self) -> None:
        """Write all rows if ``SAVE_SECONDS`` have passed; Lightning calls this after each step."""
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.write()

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Write all rows: a run that resumes from the checkpoint has only the rows that follow."""
        self.write()

    def finalize(self, status: str) -> None:
        """Write all rows at the end of a run, or when it is interrupted."""
        self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write all rows so far."""
        self.saved = time.monotonic()
        if self.rows:
            with atomic_write(self.folder / "metrics.csv") as partial:
                pd.DataFrame(self.rows.values()).to_csv(partial, index=False)


def check_loggers(names: Sequence[str]) -> None:
    """Raise UserError if the package of a logger is not installed."""
    for name in names:
        if name != "csv" and not find_spec(name):
            raise UserError(f"logger={name} needs a package; run pip install -r requirements-loggers.txt")


def hyper_parameters(config: BaseConfig) -> dict[str, Any]:
    """Return the flat training settings of a run, without those of other methods and backbones."""
    owners = type(config).model_fields.keys() - BaseConfig.model_fields.keys() - {config.prompt_type, config.backbone}
    return flatten(config.model_dump(exclude={*GROUPS, *owners}))


def make_loggers(folder: Path, config: BaseConfig) -> list[Logger]:
    """Return the loggers of a run, the one of metrics.csv first, and log its settings.

    Raises:
        UserError: Weights & Biases cannot start a run.
    """
    loggers: list[Logger] = [MetricsLog(folder)]
    if "tensorboard" in config.logger:
        place = {"save_dir": folder.parents[1], "name": folder.parent.name, "version": folder.name}
        loggers.append(TensorBoardLogger(**place, default_hp_metric=False))
    if "wandb" in config.logger:
        project = os.environ.get("WANDB_PROJECT", "dcp")
        logger = WandbLogger(f"{folder.parent.name}/{folder.name}", save_dir=folder, project=project)
        try:
            logger.log_hyperparams(hyper_parameters(config))  # starts the run
        except Exception as error:  # noqa: BLE001  wandb is optional, so its errors cannot be imported
            reason = " ".join(str(error).split())
            raise UserError(
                f"logger=wandb cannot start ({reason:.200}); run wandb login or set WANDB_MODE=offline"
            ) from None
        loggers.append(logger)
    return loggers


@rank_zero_only
def log_result(loggers: Sequence[Logger], config: BaseConfig, result: dict[str, Any]) -> None:
    """Log the settings and the final scores of a run, by which TensorBoard and Weights & Biases compare runs."""
    final = {f"final/{name}": value for name, value in flatten(result).items() if isinstance(value, int | float)}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(hyper_parameters(config), final)
            logger.save()
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(final)
            logger.experiment.finish()


def make_version_dir(folder: Path) -> Path:
    """Create and return the next ``version_K`` in a folder; concurrent runs get different ones."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [path.name.removeprefix("version_") for path in folder.glob("version_*")]
    version = max((int(number) for number in numbers if number.isdigit()), default=-1) + 1
    while True:
        try:
            (folder / f"version_{version}").mkdir()
            return folder / f"version_{version}"
        except FileExistsError:
            version += 1


@rank_zero_only
def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, on rank 0 only; NaN and infinity become null."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def git_commit() -> str:
    """Return the commit of this checkout, with "+changes" if tracked files differ; "unknown" outside git."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
