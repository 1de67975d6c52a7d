"""The reproduce command: run the unfinished runs of one or more experiments, then write tables and reports."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import Popen

from filelock import FileLock, Timeout

from clip.cli.schema import Config
from clip.engine.trainer import check_single_process
from clip.experiments import report, tables
from clip.experiments.launch import SlurmJob, local, slurm
from clip.experiments.plan import PlannedRun, check_only, plan, print_conflicts, user_settings
from clip.experiments.spec import available, load_experiment
from clip.utils.errors import UserError
from clip.utils.files import write_text


def reproduce(config: Config) -> None:
    """Run everything of some experiments that is not finished, and write their tables and reports."""
    check_single_process("reproduce")
    chosen = config.reproduce
    if not chosen.experiment:
        raise UserError(f"reproduce needs reproduce.experiment=, one of {', '.join(available())}, or a file")
    names = [chosen.experiment] if isinstance(chosen.experiment, str) else chosen.experiment
    experiments = [load_experiment(name) for name in names]
    names = [experiment.name for experiment in experiments]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two experiments are called {twice} and would write to one folder; rename a file")
    check_only(experiments, chosen.only)
    overrides = user_settings(config)
    for experiment in experiments:
        print_conflicts(experiment, overrides)
    plans = [plan(experiment, overrides, chosen.seeds, chosen.only) for experiment in experiments]
    log_dir = Path(config.log_dir)
    start = local if chosen.launcher == "local" else slurm(log_dir, chosen.slurm)
    todo = print_plan(plans)
    failed = run_all(todo, start, chosen.jobs)
    for experiment, planned in zip(experiments, plans, strict=True):
        target = log_dir / experiment.name
        scores, masks = tables.collect(experiment, planned)
        results = tables.layout(experiment, scores, planned)
        print(f"\n{tables.write(experiment, scores, results, planned, target)}")
        print(f"written: {target}/scores.csv, table.csv, table.md, table.tex")
        if len(scores):
            folders = {run.key: run.folder for run in planned}
            print(f"written: {report.write_report(experiment, scores, masks, results, folders, target)}")
    if failed:
        raise UserError(f"{len(failed)} of {len(todo)} runs failed, see above; repeat the command to retry them")


def print_plan(plans: Iterable[list[PlannedRun]]) -> list[PlannedRun]:
    """Print all runs and return the unfinished ones without duplicates."""
    runs = {run.key: run for planned in plans for run in planned}
    todo = [run for run in runs.values() if not run.finished]
    shared = f" for {places} places" if (places := sum(map(len, plans))) > len(runs) else ""
    print(f"{len(runs)} runs{shared}: {len(runs) - len(todo)} finished, {len(todo)} to do")
    for run in runs.values():
        print(f"  {'finished' if run.finished else 'to do'}  {run.key}  {run.label}\n    $ {run.command}")
    return todo


def run_all(todo: list[PlannedRun], start: Callable[[Path], Popen | SlurmJob], jobs: int) -> list[PlannedRun]:
    """Run several runs at a time, those of another process last; print why runs failed, and return them."""
    waiting, failed, durations = list(todo), [], []
    running: dict[str, tuple[PlannedRun, Popen | SlurmJob, FileLock, float]] = {}

    def print_progress(run: PlannedRun, outcome: str) -> None:
        ended = len(todo) - len(waiting) - len(running)
        left = (len(todo) - ended) * sum(durations) / max(1, len(durations)) / jobs / 60
        rest = f"; about {left:.1f} minutes left" if left else ""
        print(f"[{ended}/{len(todo)}] {outcome}: {run.label}{rest}", flush=True)

    # On SIGTERM the children are terminated too, and save a checkpoint.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while waiting or running:
            free = ((run, lock) for run in list(waiting) if (lock := claim(run.folder)))
            while len(running) < jobs and (claimed := next(free, None)):
                run, lock = claimed
                waiting.remove(run)
                if run.finished:
                    lock.release()
                    print_progress(run, "finished by another process")
                    continue
                print(f"start  {run.label} -> {run.folder}", flush=True)
                plan = {"key": run.key, "hashed": run.hashed, "command": run.command}
                write_text(run.folder / "plan.json", json.dumps(plan | {"config": run.config.model_dump()}, indent=2))
                running[run.key] = run, start(run.folder), lock, time.monotonic()
            for run, job, lock, since in list(running.values()):
                if (code := job.poll()) is None:
                    continue
                del running[run.key]
                lock.release()
                if run.finished:
                    durations.append(time.monotonic() - since)
                    print_progress(run, f"finished in {durations[-1]:.0f} s")
                else:
                    failed.append(run)
                    print_progress(run, f"exit code {code}")
            time.sleep(0.2)
    finally:
        for _, job, *_ in running.values():
            job.terminate()
    for run in failed:
        log = run.folder / "log.txt"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        last = (text.strip().splitlines() or ["no output"])[-1][:300]
        print(f"failed: {run.label} ({last}); the full output is in {log}")
    return failed


def claim(folder: Path) -> FileLock | None:
    """Reserve a run for this command; return None if another command has claimed it or is running it.

    A run acquires its own lock only seconds after its start, or when SLURM starts it. Without a claim,
    two commands would start the same run twice, and one process would only wait for the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "claim.lock", blocking=False)
    try:
        lock.acquire()
        with FileLock(folder / "run.lock", blocking=False):
            return lock
    except Timeout:
        lock.release()
        return None
