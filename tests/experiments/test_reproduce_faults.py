"""`reproduce` with runs that fail, and through SLURM."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.experiment_files import call, write

FAILING = """\
title: Runs that fail
source: nowhere
base: {task: mmimdb}
runs:
  - {at: {case: too deep}, settings: {prompt_depth: 9}}
  - {at: {case: works}, settings: {prompt_type: none, max_steps: 1}}
read: {splits: [val]}
rows: [case]
columns: []
published: []
"""


SBATCH = """#!/bin/sh
for script; do :; done
export SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_PROCID=0
export SLURM_LOCALID=0 SLURM_JOB_NODELIST=here SLURM_JOB_NAME=dcp
cp "$script" WORDS
nohup sh "$script" > /dev/null 2>&1 &
echo Submitted batch job 7
"""
SRUN = """#!/bin/sh
while [ "$1" != --error ]; do shift; done
shift 2
exec "$@"
"""
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
echo '7|RUNNING|here'
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("experiments"))


def test_a_run_that_fails_leaves_its_log_and_does_not_stop_the_others(settings, tmp_path, capsys):
    path = tmp_path / "failing.yaml"
    path.write_text(FAILING)
    words = ["reproduce", "with", f"experiment={path}", *settings, f"log_dir={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        call(*words, "jobs=2")
    assert str(ended.value).startswith("error: 1 of 2 runs failed")
    said = capsys.readouterr().out
    assert "failed: failing: case too deep, seed 0 (error: prompt_depth=9" in said
    assert "1 of 2 runs are there, 1 are not yet" in said
    table = pd.read_csv(tmp_path / "failing" / "table.csv").set_index("case")["ours"]
    assert table.notna().tolist() == [False, True]
    (log,) = (p for p in tmp_path.glob("runs/*/log.txt") if "prompt_depth=9" in p.read_text())
    before = log.stat().st_mtime_ns
    with pytest.raises(SystemExit, match="1 of 1 runs failed"):
        call(*words)
    assert "2 runs: 1 done before, 1 to do" in capsys.readouterr().out
    assert log.stat().st_mtime_ns > before


def test_slurm_gets_a_job_for_each_run(settings, files, tmp_path, monkeypatch, capsys):
    """A stand-in for SLURM's programs runs what submitit hands in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (programs / name).write_text(text.replace("WORDS", str(tmp_path / "sbatch.txt")))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    words = [f"experiment={files}/small.yaml", *settings, f"log_dir={tmp_path}", "launcher=slurm",
             "only=['method=none']", "max_steps=1"]  # fmt: skip
    for slurm, wanted in (("[]", "slurm=['time=120']"), ("['tim=1', 'time=1']", "tim")):
        with pytest.raises(SystemExit) as ended:
            call("reproduce", "with", *words, f"slurm={slurm}")
        assert wanted in str(ended.value)
        assert "\n" not in str(ended.value)
    call("reproduce", "with", *words, "slurm=['time=9', 'partition=fast', 'gpus_per_node=1']")
    said = capsys.readouterr().out
    assert "1 of 1 runs are there" in said
    asked = (tmp_path / "sbatch.txt").read_text()
    assert {"#SBATCH --time=9", "#SBATCH --partition=fast", "#SBATCH --gpus-per-node=1"} <= set(asked.splitlines())
    assert len(list(tmp_path.glob("runs/*/log.txt"))) == 1
    (result,) = tmp_path.glob("runs/*/result.json")
    assert Path(json.loads(result.read_text())["checkpoint"]).is_file()  # its last: none is best
