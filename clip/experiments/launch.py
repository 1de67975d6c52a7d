"""Starts runs: several at once on this machine, or as SLURM jobs. Each is a command of its own.

On this machine they are plain child processes. submitit's LocalExecutor would end a job after a
time limit, start it up to six times, and replace CUDA_VISIBLE_DEVICES, which the user may have set.
"""

import ast
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import submitit
from submitit.core.utils import UncompletedJobError

from clip.cli.arguments import typed
from clip.experiments.plan import Planned, changes
from clip.utils.errors import UserError

RUN = Path(__file__).resolve().parents[2] / "run.py"


class Job(Protocol):
    """A run that has been started."""

    def poll(self) -> int | None:
        """Give its exit code, None while it is not over."""

    def terminate(self) -> None:
        """End it."""


Start = Callable[[Planned], Job]


def logged(run: Planned) -> list[str]:
    """Give the words that do a run and write down all it says."""
    command = [sys.executable, str(RUN), "once", "with", *typed(changes(run.config))]
    log = run.folder / "log.txt"
    return ["sh", "-c", f"exec {shlex.join(command)} > {shlex.quote(str(log))} 2>&1 < /dev/null"]


def local(log_dir: Path, words: Sequence[str]) -> Start:
    """Start runs as processes of this machine, which end with this one's process group."""
    return lambda run: subprocess.Popen(logged(run))


class SlurmJob:
    """A run that sbatch has taken."""

    def __init__(self, job: submitit.Job):
        self.job = job

    def poll(self) -> int | None:
        """Give its exit code; 1 if SLURM ended it, None while it waits or runs."""
        if not self.job.done():
            return None
        try:
            return self.job.result()
        except UncompletedJobError:  # its sub-class says that the job's own code failed
            return 1

    def terminate(self) -> None:
        """Take it out of the queue, or end it."""
        self.job.cancel()


def slurm(log_dir: Path, words: Sequence[str]) -> Start:
    """Start runs as jobs of their own.

    Args:
        log_dir: submitit's files lie below it; all machines must see it.
        words: "name=value", parameters of ``submitit.SlurmExecutor.update_parameters``.

    Raises:
        UserError: there is no SLURM here, or no such parameter.
    """
    try:
        executor = submitit.SlurmExecutor(log_dir / "slurm")
    except RuntimeError:
        raise UserError("launcher=slurm, but this machine has no srun; give launcher=local") from None
    parameters = {name: _value(text) for name, _, text in (word.partition("=") for word in words)}
    if "time" not in parameters:
        raise UserError("launcher=slurm needs the minutes that a run may take: slurm=['time=120']")
    try:
        executor.update_parameters(**{"job_name": "dcp"} | parameters)
    except (ValueError, NameError) as error:
        raise UserError(f"slurm={list(words)}: {' '.join(str(error).split())}") from None
    return lambda run: SlurmJob(executor.submit(subprocess.call, logged(run)))


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


LAUNCHERS: dict[str, Callable[[Path, Sequence[str]], Start]] = {"local": local, "slurm": slurm}
