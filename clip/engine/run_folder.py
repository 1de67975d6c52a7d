"""The folder of a run: claimed by one run alone, with a log that is always whole."""

import csv
import subprocess
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from clip.utils.files import atomic_write

TENSORBOARDS = ("tensorboard", "tensorboardX")  # packages that Lightning can log to


class WholeWriter(ExperimentWriter):
    """Rows of metrics.csv; each time the whole file takes the place of the one before.

    Lightning's own writes in place, and anew when a column comes: killed in it, a run would leave
    a log with its earlier rows gone.
    """

    def __init__(self, log_dir: str):
        super().__init__(log_dir)
        self.rows: list[dict[str, float]] = []

    def save(self) -> None:
        """Write all rows so far."""
        if not self.metrics:
            return
        self._record_new_keys()
        self.rows += self.metrics
        self.metrics = []
        path = Path(self.metrics_file_path)
        with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(self.rows)


class WholeLog(CSVLogger):
    """Lightning's log with ``WholeWriter``, and without its empty hparams.yaml."""

    @property
    @rank_zero_experiment
    def experiment(self) -> WholeWriter:
        """The rows; the other processes of a run get one that does nothing."""
        if self._experiment is None:
            self._experiment = WholeWriter(self.log_dir)
        return self._experiment

    @rank_zero_only
    def save(self) -> None:
        """Write all rows so far."""
        self.experiment.save()


def claim(folder: Path) -> int:
    """Make the next ``version_<k>`` below a folder; two runs that begin at once get two.

    Returns:
        k.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(number) for path in folder.glob("version_*")
             if (number := path.name.removeprefix("version_")).isdigit()]  # fmt: skip
    version = max(taken, default=-1) + 1
    while True:
        try:
            (folder / f"version_{version}").mkdir()
        except FileExistsError:
            version += 1
        else:
            return version


def loggers(log_dir: str, name: str) -> list[Logger]:
    """Claim a version folder for a run, with a CSV log and, if installed, TensorBoard's."""
    # The other processes of a run write nothing; the first one tells them where its files lie.
    version = 0 if rank_zero_only.rank else claim(Path(log_dir) / name)
    out: list[Logger] = [WholeLog(log_dir, name=name, version=version)]
    if any(find_spec(name) for name in TENSORBOARDS):
        out.append(TensorBoardLogger(log_dir, name=name, version=version))
    return out


def git_commit() -> str:
    """Name the commit of this checkout, "+changes" if it is not clean, "unknown" outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True,
                              check=True).stdout.strip()  # fmt: skip

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
