"""Start runs as processes on this machine or as SLURM jobs; each is a command of its own.

On this machine they are plain child processes: submitit's LocalExecutor would end a job after a
time limit, start it up to six times, and replace the user's CUDA_VISIBLE_DEVICES.
"""

import ast
import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError

from clip.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def run_command(folder: Path) -> list[str]:
    """Return the command that does the run of a folder, with all its output in log.txt."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = ["env", f"PYTHONPATH={path}", sys.executable, "-m", "clip.experiments.run_once", str(folder)]
    return ["sh", "-c", f"exec {shlex.join(command)} > {shlex.quote(str(folder / 'log.txt'))} 2>&1 < /dev/null"]


def local(folder: Path) -> subprocess.Popen:
    """Start a run as a child process, which gets this process group's signals."""
    return subprocess.Popen(run_command(folder))


@dataclass
class SlurmJob:
    """A run submitted with sbatch."""

    job: submitit.Job

    def poll(self) -> int | None:
        """Return its exit code; 1 if SLURM ended it, None while it waits or runs."""
        if not self.job.done():
            return None
        try:
            return self.job.result()
        except UncompletedJobError:  # the base class of submitit's error for a failed job
            return 1

    def terminate(self) -> None:
        """Cancel it."""
        self.job.cancel()


def slurm(log_dir: Path, options: Sequence[str]) -> Callable[[Path], SlurmJob]:
    """Return a function that submits runs as jobs; options are words "name=value" for ``update_parameters``."""
    try:
        executor = submitit.SlurmExecutor(log_dir / "slurm")
    except RuntimeError:
        raise UserError("launcher=slurm, but this machine has no srun; set launcher=local") from None
    parameters: dict[str, Any] = {"job_name": "dcp"}
    for option in options:
        name, _, value = option.partition("=")
        parameters[name] = value
        with contextlib.suppress(ValueError, SyntaxError):
            parameters[name] = ast.literal_eval(value)
    if "time" not in parameters:
        raise UserError("launcher=slurm needs the time limit of a run in minutes; set slurm=['time=120']")
    try:
        executor.update_parameters(**parameters)
    except (ValueError, NameError) as error:
        raise UserError(f"slurm={list(options)} is not valid: {' '.join(str(error).split())}") from None
    return lambda folder: SlurmJob(executor.submit(subprocess.call, run_command(folder)))
