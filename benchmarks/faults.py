"""Kills jobs at random moments, lets them go on, and compares their end with an unbroken run.

    python -m benchmarks.faults

Each job is first done unbroken. Then it is started, killed with all its processes (SIGKILL) after a
random share of the unbroken run's time, looked at for files that are not whole, started again, and
so on, a few kills a chain, the last start to the end. It goes on with the chains that are in
results/faults.json, so that it can be stopped too.
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import machine
from benchmarks.fault_jobs import JOBS, Job, broken, convert, prepare
from benchmarks.startup import ROOT

CHAIN = 6  # kills of one job before it may end
PATIENCE = 600  # seconds
NOTHING = {"chains": 0, "kills": 0, "kills_with_a_checkpoint": 0, "broken_files": [],
           "chains_equal": 0, "faults": []}  # fmt: skip
Result = dict[str, Any]


def descendants(pid: int) -> list[int]:
    """Find the processes below one; torchrun starts its own in sessions of theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def start(job: Job, shared: Path, own: Path) -> subprocess.Popen:
    """Start a job; what it says goes to a file beside its folder."""
    with own.with_suffix(".log").open("w") as log:
        return subprocess.Popen(job.command(shared, own), cwd=ROOT, stdout=log, stderr=log,
                                env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip


def killed(process: subprocess.Popen, seconds: float) -> bool:
    """Kill a process and all below it after some time, unless it has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    for pid in descendants(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return True


def chain(job: Job, shared: Path, own: Path, random: Random, seconds: float, kills: int) -> Result:
    """Kill a job again and again, then let it end.

    Returns:
        "kills", "later" of which hit a job that had been killed before, "broken" files, "outcome".
    """
    found: Result = {"kills": 0, "later": 0, "broken": [], "outcome": None}
    shutil.rmtree(own, ignore_errors=True)
    while found["kills"] < kills:
        if not killed(start(job, shared, own), random.uniform(0, seconds)):
            break
        found["later"] += any(own.rglob("epoch-*-last.pt"))
        found["kills"] += 1
        found["broken"] += broken(own)
    else:
        if start(job, shared, own).wait(PATIENCE):
            text = own.with_suffix(".log").read_text(errors="replace")
            return found | {"failed": text.splitlines()[-3:]}
    found["broken"] += broken(own)
    return found | {"outcome": job.outcome(own)}


def unbroken(name: str, shared: Path, own: Path) -> tuple[float, Result]:
    """Do a job without a fault: its seconds and its outcome."""
    shutil.rmtree(own, ignore_errors=True)
    began = time.perf_counter()
    process = start(JOBS[name], shared, own)
    if process.wait(PATIENCE):
        raise SystemExit(own.with_suffix(".log").read_text(errors="replace"))
    return time.perf_counter() - began, JOBS[name].outcome(own)


def summed(name: str, entry: Result, one: Result, whole: Result) -> Result:
    """Add a chain to what is known of a job."""
    equal = one["outcome"] == whole
    if not equal:
        ours = one["outcome"] or {}
        names = [key for key in whole.keys() | ours.keys() if whole.get(key) != ours.get(key)]
        fault = {"chain": entry["chains"], "files": sorted(names), "said": one.get("failed", [])}
        entry |= {"faults": [*entry["faults"], fault]}
    entry |= {
        "chains": entry["chains"] + 1,
        "kills": entry["kills"] + one["kills"],
        "kills_with_a_checkpoint": entry["kills_with_a_checkpoint"] + one["later"],
        "broken_files": entry["broken_files"] + one["broken"],
        "chains_equal": entry["chains_equal"] + equal,
    }
    print(f"{name}: {entry['kills']} kills, {entry['chains_equal']} of {entry['chains']} chains "
          f"equal, {len(entry['broken_files'])} broken files", flush=True)  # fmt: skip
    return entry


def earlier() -> Result:
    """Read what an earlier call has done."""
    path = machine.RESULTS / "faults.json"
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}


def main() -> None:
    """Kill until each job has its number, and write results/faults.json after each chain."""
    results = earlier()
    with tempfile.TemporaryDirectory() as temporary:
        shared = Path(temporary)
        prepare(shared)
        films = Job(functools.partial(convert, raw="small"), (), 0)
        assert start(films, shared, shared / "data").wait(PATIENCE) == 0
        wholes = {}
        for name in JOBS:
            wholes[name] = unbroken(name, shared, shared / "whole")
            if name == "train":
                shutil.copytree(shared / "whole", shared / "trained")
            results.setdefault(name, NOTHING | {"seconds_unbroken": wholes[name][0]})
        # In turn, so that the table is of all jobs however far it came.
        while todo := [name for name in JOBS if results[name]["kills"] < JOBS[name].kills]:
            for name in todo:
                seconds, whole = wholes[name]
                random = Random(f"{name}/{results[name]['chains']}")
                most = min(CHAIN, JOBS[name].kills - results[name]["kills"])
                one = chain(JOBS[name], shared, shared / "own", random, seconds, most)
                results[name] = summed(name, results[name], one, whole)
                machine.write("faults", results)


if __name__ == "__main__":
    main()
