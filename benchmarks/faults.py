"""Kills jobs at random moments, lets them go on, and compares their end with an unbroken run.

    python -m benchmarks.faults

Each job is first done unbroken. Then it is started, killed with all its processes (SIGKILL) at a
moment drawn evenly from the time it may take, looked at for files that are not whole, started
again, and so on, a few kills a chain, the last start to the end. Trainings and sweeps begin with
their imports done, so that the kills fall into the work. It goes on with the chains that are in
results/faults.json, so that it can be stopped too.
"""

import functools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

import run
from benchmarks import machine
from benchmarks.fault_jobs import JOBS, Job, broken, convert, prepare
from benchmarks.startup import ROOT
from clip import experiments  # noqa: F401  for the jobs that are forked
from clip.cli import commands  # noqa: F401  for the jobs that are forked

CHAIN = 6  # kills of one job before it may end
PATIENCE = 600  # seconds
PAUSE = 0.005
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


def start(job: Job, shared: Path, own: Path) -> list[int]:
    """Start a job; what it says goes to a file beside its folder.

    Returns:
        The numbers of its processes.
    """
    words, log = job.command(shared, own), own.with_suffix(".log")
    port = str(_free_port())
    return [_start(words, log, job, rank, port) for rank in range(job.processes)]


def _start(words: list[str], log: Path, job: Job, rank: int, port: str) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        os.environ["OMP_NUM_THREADS"] = "1"
        if not job.forked:
            os.execv(sys.executable, [sys.executable, *words])
        if job.processes > 1:  # what torchrun says to those it starts
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
                           "WORLD_SIZE": str(job.processes), "MASTER_ADDR": "127.0.0.1",
                           "LOCAL_WORLD_SIZE": str(job.processes), "MASTER_PORT": port,
                           "TORCHELASTIC_RUN_ID": "faults"}  # fmt: skip
            rank_zero_only.rank = rank  # Lightning reads it when it is imported
        sys.argv = words
        run.command_line(words)
        code = 0
    except SystemExit as error:
        print(error, file=sys.stderr, flush=True)
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ended(pids: list[int], seconds: float = PATIENCE) -> list[int] | None:
    """Wait for processes; their exit codes, or None if they did not end in time."""
    codes: dict[int, int] = {}
    until = time.monotonic() + seconds
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes and (status := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(status[1])
        if time.monotonic() > until:
            for pid in (each for one in pids if one not in codes for each in descendants(one)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in set(pids) - codes.keys():
                os.waitpid(pid, 0)
            return None
        time.sleep(PAUSE)
    return [codes[pid] for pid in pids]


def chain(job: Job, shared: Path, own: Path, random: Random, seconds: float, kills: int) -> Result:
    """Kill a job again and again, then let it end.

    Returns:
        "kills", "later" of which hit a job that had been killed before, "broken" files, "outcome".
    """
    found: Result = {"kills": 0, "later": 0, "broken": [], "outcome": None}
    shutil.rmtree(own, ignore_errors=True)
    while found["kills"] < kills:
        began = time.monotonic()
        # Where what was done before a kill counts, the next start has less to do.
        most = seconds / (1 + found["kills"]) if job.keeps else seconds
        codes = ended(start(job, shared, own), random.uniform(0, most))
        if codes is not None:
            found["seconds"] = None if found["kills"] else time.monotonic() - began
            break
        found["later"] += any(own.rglob("epoch-*-last.pt"))
        found["kills"] += 1
        found["broken"] += broken(own)
    else:
        codes = ended(start(job, shared, own))
    if codes is None or any(codes):
        text = own.with_suffix(".log").read_text(errors="replace")
        return found | {"failed": text.splitlines()[-3:]}
    found["broken"] += broken(own)
    return found | {"outcome": job.outcome(own)}


def unbroken(name: str, shared: Path, own: Path) -> tuple[float, Result]:
    """Do a job without a fault: its seconds and its outcome."""
    shutil.rmtree(own, ignore_errors=True)
    began = time.perf_counter()
    if ended(start(JOBS[name], shared, own)) != [0] * JOBS[name].processes:
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
        films = Job(functools.partial(convert, raw="small"), (), 0, forked=False)
        assert ended(start(films, shared, shared / "data")) == [0]
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
                # On a machine with other work, how long it takes unbroken changes.
                wholes[name] = one.get("seconds") or seconds, whole
                machine.write("faults", results)


if __name__ == "__main__":
    main()
