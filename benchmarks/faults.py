"""Kill jobs at random moments, start them again, and compare the end with an uninterrupted run.

    python -m benchmarks.faults --kills 60

Each job is killed (SIGKILL, all its processes) at a moment drawn evenly from the time that it may still take, started
again, killed again, up to four times in a chain, and then left to end. `equal` counts the chains whose tables,
predictions, weights, optimizer states and scores are bitwise those of the uninterrupted run; `damaged` counts files
that have their final name and cannot be read.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from PIL import Image

from benchmarks import machine
from tests import raw_data, tiny

CHAIN = 4  # kills
PATIENCE = 900  # seconds
EXPERIMENT = """\
title: Two methods
source: none
base: {task: mmimdb, max_epoch: 4, val_check_interval: 1.0, learning_rate: 0.02}
grid:
  method:
    none: {prompt_type: none}
    DCP: {prompt_type: dcp}
read: {splits: [val, test]}
rows: [method]
columns: [split]
published: []
"""
TINY = (
    "data_root={shared}/data vit={shared}/clip num_gpus=0 num_workers=1 per_gpu_batchsize=4 batch_size=8 "
    "prompt_length=6 prompt_depth=2 log_dir={own}"
)
TRAIN = f"run.py with task_finetune_mmimdb {TINY} max_epoch=8 val_check_interval=0.5 learning_rate=0.02"
RUN = ("checkpoints/*-best.pt", "checkpoints/*-last.pt", "metrics.json")


class Job(NamedTuple):
    """A command to kill.

    Attributes:
        command: its words; `{shared}` is the folder of its inputs, `{own}` that of its outputs.
        compared: patterns of the files that must be equal in the end.
        share: share of all kills.
        resumes: whether it continues with `resume_from=`.
        keeps: whether work done before a kill counts.
        processes: number of processes that train together.
    """

    command: str
    compared: tuple[str, ...]
    share: float
    resumes: bool = False
    keeps: bool = False
    processes: int = 1


JOBS = {
    "make_arrow": Job(
        "make_arrow.py --dataset mmimdb --root {shared}/raw --target {own} --image_size 32 --num_workers 1",
        ("*.arrow",),
        0.25,
    ),
    "train": Job(TRAIN, RUN, 0.3, resumes=True, keeps=True),
    "train, 2 processes": Job(TRAIN, RUN, 0.2, resumes=True, keeps=True, processes=2),
    "sweep": Job(
        f"run.py sweep with task_finetune_mmimdb {TINY} load_path={{shared}}/trained",
        ("sweep.csv", "predictions.arrow"),
        0.15,
    ),
    "reproduce": Job(
        f"run.py reproduce with reproduce.experiment={{shared}}/two.yaml {TINY}",
        ("two/*.csv", "two/table.md", "runs/*/*.arrow"),
        0.1,
        keeps=True,
    ),
}


def start(job: Job, shared: Path, own: Path) -> list[subprocess.Popen]:
    """Start the processes of a job, as torchrun does where there are several."""
    words = job.command.format(shared=shared, own=own).split()
    if job.resumes and any(own.rglob("epoch-*-last.pt")):
        words.append(f"resume_from={own}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = []
    for rank in range(job.processes):
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        if job.processes > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "faults"}
            env |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(job.processes))
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with own.with_suffix(".log").open("a") as log:
            command = [sys.executable, *words]
            out.append(subprocess.Popen(command, cwd=machine.ROOT, env=env, stdout=log, stderr=log))
    return out


def wait(processes: list[subprocess.Popen], seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
    """Wait until all processes have ended, a condition holds or the time is over; return whether they have ended."""
    end = time.monotonic() + seconds
    while not (ended := all(process.poll() is not None for process in processes)):
        if until() or time.monotonic() > end:
            break
        time.sleep(0.005)
    return ended


def kill(processes: list[subprocess.Popen]) -> None:
    """Kill processes and all their descendants, which may have sessions of their own."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    pids = [process.pid for process in processes if process.poll() is None]
    for pid in pids:
        pids += [child for child, parent in parents.items() if parent == pid]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def digest(path: Path) -> str:
    """Return a hash of the content of an output file without times and places; raise if it is damaged."""
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            return hashlib.sha256(repr(pa.ipc.open_file(source).read_all().to_pydict()).encode()).hexdigest()
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        states = [state for optimizer in content.get("optimizer_states", []) for state in optimizer["state"].values()]
        found = hashlib.sha256(repr((content["epoch"], content["global_step"])).encode())
        for state in (content["state_dict"], *states):
            for name, tensor in sorted(state.items()):
                found.update(name.encode() + tensor.numpy().tobytes())
        return found.hexdigest()
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        return json.dumps({name: value for name, value in content.items() if name.startswith("val/")})
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1, path
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damaged(own: Path) -> list[str]:
    """Return the files that have their final name and cannot be read."""
    out = []
    for path in own.rglob("[!.]*.*"):
        if path.suffix in (".arrow", ".pt", ".json", ".csv", ".png") and path.is_file():
            try:
                digest(path)
            except Exception as error:  # noqa: BLE001  whatever a library raises, the file is damaged
                out.append(f"{path.name}: {error!r:.200}")
    return out


def outcome(job: Job, own: Path) -> dict[str, str]:
    """Return the hashes of a job's files, in the last version of a run."""
    versions = sorted(own.glob("*/version_*"), key=lambda path: int(path.name.removeprefix("version_")))
    root = versions[-1] if versions else own
    paths = sorted(path for pattern in job.compared for path in root.glob(pattern))
    return {path.relative_to(root).as_posix(): digest(path) for path in paths}


def uninterrupted(job: Job, shared: Path, own: Path) -> tuple[float, float, dict[str, str]]:
    """Run a job to its end; return the seconds before and after its folder appeared, and its outcome."""
    began = time.monotonic()
    processes = start(job, shared, own)
    wait(processes, PATIENCE, own.exists)
    appeared = time.monotonic()
    if not wait(processes, PATIENCE) or any(process.returncode for process in processes):
        kill(processes)
        raise SystemExit(own.with_suffix(".log").read_text(errors="replace"))
    return appeared - began, time.monotonic() - appeared, outcome(job, own)


def chain(job: Job, shared: Path, own: Path, delays: Iterator[float], most: int) -> dict[str, Any]:
    """Kill a job up to `most` times, let it end, and return the kills, the damaged files and the outcome.

    Args:
        job: the job.
        shared: folder of its inputs.
        own: folder of its outputs, emptied before.
        delays: seconds from each start to its kill.
        most: number of kills, if the job does not end before.
    """
    shutil.rmtree(own, ignore_errors=True)
    kills, files, later = 0, [], 0
    while not wait(processes := start(job, shared, own), PATIENCE if kills == most else next(delays)) and kills < most:
        later += any(own.rglob("epoch-*-last.pt"))
        kill(processes)
        kills += 1
        files += damaged(own)
    kill(processes)
    good = not any(process.returncode for process in processes)
    return {
        "kills": kills,
        "later": later,
        "damaged": files + damaged(own),
        "outcome": outcome(job, own) if good else {},
    }


def main() -> None:
    """Kill until each job has its share of kills; print and write results/faults.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="number of kills, over all jobs (default: %(default)s)")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="some of the jobs")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        shared = Path(temporary)
        raw_data.mmimdb(shared / "raw", {"train": 320, "dev": 40, "test": 40})
        tiny.write_clip(shared / "clip")
        tiny.write_arrow(shared / "data", {"train": 48, "dev": 16, "test": 16})
        (shared / "two.yaml").write_text(EXPERIMENT, encoding="utf-8")
        uninterrupted(JOBS["train"], shared, shared / "trained")
        for name in args.jobs:
            job, own = JOBS[name], shared / "own"
            shutil.rmtree(shared / "whole", ignore_errors=True)
            startup, work, expected = uninterrupted(job, shared, shared / "whole")
            wanted = max(1, round(args.kills * job.share))
            row = {"job": name, "uninterrupted, s": startup + work, "kills": 0, "with a checkpoint": 0, "damaged": 0}
            row |= {"chains": 0, "equal": 0}
            while row["kills"] < wanted and row["chains"] < 2 * wanted:
                random, most = Random(f"{name}/{row['chains']}"), min(CHAIN, wanted - row["kills"])
                delays = (startup + random.uniform(0, work / (1 + i * job.keeps)) for i in range(most))
                found = chain(job, shared, own, delays, most)
                row["kills"] += found["kills"]
                row["with a checkpoint"] += found["later"]
                row["damaged"] += len(found["damaged"])
                row["chains"] += 1
                row["equal"] += found["outcome"] == expected
                if found["damaged"] or found["outcome"] != expected:
                    print(name, found, own.with_suffix(".log").read_text(errors="replace")[-2000:], sep="\n")
                own.with_suffix(".log").unlink(missing_ok=True)
            rows.append(row)
            print(row, flush=True)
    machine.write("faults", {"jobs": rows})


if __name__ == "__main__":
    main()
