"""The reproduce command: do what is not done yet of some experiments, then write their tables."""

import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from clip.experiments import tables
from clip.experiments.cells import collect
from clip.experiments.launch import LAUNCHERS, Job, Start
from clip.experiments.once import claim
from clip.experiments.page import write_page
from clip.experiments.plan import Planned, check_only, departures, overrides, overruled, plan
from clip.experiments.records import read_records
from clip.experiments.spec import available, load_experiment
from clip.utils.errors import UserError

TERMINATED = 143  # as a shell tells a SIGTERM
PAUSE = 0.2  # seconds between two looks at the runs


def reproduce(config: dict[str, Any], given: set[str]) -> None:
    """Do the runs of experiments that are not done, and write cells and tables of all.

    Args:
        config: checked settings.
        given: names of the settings that the user gave.

    Raises:
        UserError: a mistake, before any run starts; or, after all, that some runs failed.
    """
    named = config["experiment"]
    if not named:
        raise UserError(f"reproduce needs experiment=, one of {', '.join(available())}, or a file")
    experiments = [load_experiment(name) for name in ([named] if isinstance(named, str) else named)]
    check_names([experiment.name for experiment in experiments])
    check_only(experiments, config["only"])
    users = overrides(config, given)
    for experiment in experiments:
        for key in overruled(experiment, users):
            print(f"{experiment.name}: its coordinates set {key}; yours does not count there")
        if experiment.published and (changed := departures(experiment, users)):
            print(f"{experiment.name}: the published values are of {', '.join(changed)}, not yours")
    log_dir = Path(config["log_dir"])
    plans = [plan(each, users, config["seeds"], config["only"]) for each in experiments]
    start = LAUNCHERS[config["launcher"]](log_dir, config["slurm"])
    todo = announce(plans)
    failed = work(todo, start, config["jobs"])
    for experiment, planned in zip(experiments, plans, strict=True):
        target = log_dir / experiment.name
        cells = collect(experiment, planned)
        print(f"\n{tables.write(experiment, cells, planned, target)}")
        print(f"written: {target}/cells.csv, table.csv, table.md")
        if len(cells):
            folders = {run.key: run.folder for run in planned if run.done}
            known = read_records({run: folders[run] for run in cells["run"].unique()}).values()
            names = {record.task: record.class_names for record in known if record.class_names}
            print(f"written: {write_page(experiment, cells, folders, target, names)}")
    if failed:
        raise UserError(f"{len(failed)} of {len(todo)} runs failed, see above; they are tried again next time")


def check_names(names: Sequence[str]) -> None:
    """Refuse experiments whose tables would lie in one folder."""
    if several := [name for name in names if names.count(name) > 1]:
        raise UserError(f"experiment= has two called {several[0]}, whose tables would lie in one folder")


def announce(plans: Iterable[list[Planned]]) -> list[Planned]:
    """Say what is done and what is to do; give the latter, each run once."""
    runs = {run.key: run for planned in plans for run in planned}
    places = sum(map(len, plans))
    todo = [run for run in runs.values() if not run.done]
    shared = f" for {places} places" if places > len(runs) else ""
    print(f"{len(runs)} runs{shared}: {len(runs) - len(todo)} done before, {len(todo)} to do")
    for run in runs.values():
        print(f"  {'done' if run.done else 'to do'}  {run.key}  {run.label}\n    $ {run.command}")
    return todo


def work(todo: list[Planned], start: Start, jobs: int) -> list[Planned]:
    """Do runs, some at once; those that other processes are in come last.

    Returns:
        The runs that failed; each has said why.
    """
    waiting, failed = list(todo), []
    running: dict[str, tuple[Planned, Job, TextIO, float]] = {}
    progress = Progress(len(todo), jobs)
    # No run is left behind that nobody waits for: they are told too, and keep their point.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        while waiting or running:
            while len(running) < jobs and (taken := _next(waiting)):
                run, claimed = taken
                waiting.remove(run)
                if run.done:
                    claimed.close()
                    progress.ended(run, "done by another process")
                else:
                    running[run.key] = run, _begin(run, start), claimed, time.monotonic()
            for run, job, claimed, since in list(running.values()):
                if (code := job.poll()) is None:
                    continue
                claimed.close()
                del running[run.key]
                if not run.done:
                    failed.append(run)
                progress.ended(run, f"exit code {code}", time.monotonic() - since)
            time.sleep(PAUSE)
    finally:
        for _, job, *_ in running.values():
            job.terminate()
    for run in failed:
        print(f"failed: {run.label} ({why(run)}); all it said is in {run.folder}/log.txt")
    return failed


def _next(waiting: list[Planned]) -> tuple[Planned, TextIO] | None:
    return next(((run, file) for run in waiting if (file := claim(run.folder))), None)


def _begin(run: Planned, start: Start) -> Job:
    print(f"start  {run.label} -> {run.folder}", flush=True)
    return start(run)


def why(run: Planned) -> str:
    """Give the last line that a run said."""
    log = run.folder / "log.txt"
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]


class Progress:
    """Says what has ended, and how long the rest will take."""

    def __init__(self, total: int, jobs: int):
        self.total, self.jobs, self.seconds = total, jobs, []
        self.over = 0

    def ended(self, run: Planned, how: str, seconds: float | None = None) -> None:
        """Count a run that ended.

        Args:
            run: that ended.
            how: in words, if it failed or was another process's.
            seconds: that it took here.
        """
        self.over += 1
        if run.done and seconds:
            self.seconds.append(seconds)
            how = f"done in {seconds:.0f} s"
        left = self.total - self.over
        rest = ""
        if left and self.seconds:
            mean = sum(self.seconds) / len(self.seconds)
            rest = f"; about {mean * left / self.jobs / 60:.1f} minutes left"
        print(f"[{self.over}/{self.total}] {how}: {run.label}{rest}", flush=True)
