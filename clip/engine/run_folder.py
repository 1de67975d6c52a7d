"""Version folders, metric loggers and JSON records of a run, written atomically."""

import json
import math
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from clip.utils.files import atomic_write, write_text


class MetricsLog(Logger):
    """Write metrics.csv, one row per call of the Trainer.

    Lightning's CSVLogger rewrites the file in place when a new metric appears; a run killed meanwhile loses its log.

    Args:
        folder: folder of the run, ``.../NAME/version_K``.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self.rows: list[dict[str, float]] = []

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
        """Add a row."""
        self.rows.append({"step": step} | {name: float(value) for name, value in metrics.items()})

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing; run.json contains all settings."""

    @rank_zero_only
    def save(self) -> None:
        """Write all rows so far."""
        if self.rows:
            with atomic_write(self.folder / "metrics.csv") as partial:
                pd.DataFrame(self.rows).to_csv(partial, index=False)

    def finalize(self, status: str) -> None:
        """Write all rows at the end of a run."""
        self.save()


def make_loggers(log_dir: str, name: str) -> list[Logger]:
    """Create the version folder of a run and return its CSV and, if installed, TensorBoard loggers."""
    # Only rank 0 writes; the other ranks get the folder by broadcast.
    folder = Path(log_dir) / name / "version_0" if rank_zero_only.rank else make_version_dir(Path(log_dir) / name)
    loggers: list[Logger] = [MetricsLog(folder)]
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        loggers.append(TensorBoardLogger(log_dir, name=name, version=folder.name))
    return loggers


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
