"""`reproduce` as a user calls it: killed and called again, shared by two commands, failing, and through SLURM."""

import json
import math
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock

import run
from clip.evaluation.predictions import CasePredictions
from clip.experiments import runner
from clip.experiments.run_once import run_once
from clip.experiments.runner import claim
from clip.utils.errors import UserError
from tests import forked
from tests.experiment_files import call, write
from tests.modules.test_coca import write_coca

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


def contents(folder):
    """All files of a folder but locks, with their times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def folder_of(prompt_type, log_dir):
    """The folder of the one run of a method."""
    records = {path.parent: json.loads(path.read_text()) for path in log_dir.glob("runs/*/plan.json")}
    (found,) = (folder for folder, each in records.items() if each["config"]["prompt_type"] == prompt_type)
    return found


def wait_for(condition, seconds=600):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def redirect(log):
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)


def fork_run(folder):
    """Start a run as `clip.experiments.launch.local` does, without seconds of imports."""
    before = partial(redirect, folder / "log.txt")
    return forked.start(folder, program="clip/experiments/run_once.py", before=before)


def lead_group_of_forks():
    """Let a command start its runs as forks and be killed with them."""
    os.setsid()
    runner.local = fork_run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("experiments"))


@pytest.fixture(scope="module")
def words(files, settings):
    """Reproduce both methods in the missing case that they were trained with."""
    return ["reproduce", "with", f"reproduce.experiment={files}/small.yaml", *settings]


@pytest.fixture(scope="module")
def unbroken(words, tmp_path_factory):
    """Both runs, never interrupted."""
    log_dir = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "local", fork_run)
        call(*words, f"log_dir={log_dir}")
    return log_dir


def test_a_killed_command_resumes_without_repeating_and_the_table_is_the_same(words, unbroken, tmp_path):
    done, half = (tmp_path / "runs" / folder_of(method, unbroken).name for method in ("none", "dcp"))
    shutil.copytree(unbroken / "runs" / done.name, done)
    before = contents(done)
    first = forked.start(*words, f"log_dir={tmp_path}", before=lead_group_of_forks)
    wait_for(lambda: list(half.glob("training/*/*/*/*-last.pt")))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (half / "result.json").exists()
    second = forked.start(*words, f"log_dir={tmp_path}", before=lead_group_of_forks).wait()
    assert second.returncode == 0, second.stderr
    assert "python run.py with" in second.stdout
    assert contents(done) == before
    assert sorted(path.name for path in half.glob("training/*/version_*")) == ["version_0", "version_1"]
    (again,) = half.glob("training/*/version_1/metrics.csv")
    assert pd.read_csv(again)["epoch"].min() > 0  # it continued, and did not start again
    for name in ("scores.csv", "table.csv", "table.md"):
        assert (tmp_path / "small" / name).read_text() == (unbroken / "small" / name).read_text()
    assert (tmp_path / "small" / "report.html").is_file()


def test_a_finished_run_is_fully_recorded(unbroken, clip_folder):
    records = {}
    for name in ("none", "dcp"):
        folder = folder_of(name, unbroken)
        record = records[name] = json.loads((folder / "run.json").read_text())
        assert record["key"] == folder.name
        assert f"vit={clip_folder}" in record["command"]
        assert record["seed"] == 0
        assert record["git_commit"]
        assert record["missing_tables"].keys() == {"train", "val", "test"}
        assert sum(record["trainable"].values()) < record["total_parameters"]
        result = json.loads((folder / "result.json").read_text())
        assert result["headline"] == "F1_Macro"
        assert result["steps"] == 4 * 3
        assert result["seconds_per_step"] * result["steps"] == pytest.approx(result["seconds_train"])
        assert {"val.arrow", "test.arrow", "log.txt"} <= {path.name for path in folder.iterdir()}
        best = torch.load(result["checkpoint"], weights_only=True)
        assert set(best["state_dict"]) == set(record["trainable"])
    assert set(records["none"]["trainable"]) < set(records["dcp"]["trainable"])


def test_the_leaderboard_has_the_test_scores_of_runs_that_were_moved(unbroken, tmp_path):
    shutil.copytree(unbroken / "runs", tmp_path / "runs")
    call("leaderboard", "with", f"log_dir={tmp_path}")
    board = pd.read_csv(tmp_path / "leaderboard.csv").set_index("method")["mean"]
    scores = pd.read_csv(unbroken / "small" / "scores.csv").query("split == 'test'").set_index("method")["score"]
    assert board.to_dict() == pytest.approx({"none": scores["none"], "dcp": scores["DCP"]}, abs=1e-6)


@pytest.mark.parametrize("lost", ["result.json", "metrics.json"])
def test_a_run_killed_after_its_last_epoch_only_predicts(lost, unbroken, tmp_path):
    name = folder_of("dcp", unbroken).name
    folder = shutil.copytree(unbroken / "runs" / name, tmp_path / "runs" / name)
    earlier = json.loads((folder / "result.json").read_text())
    for path in (folder / "result.json", folder / "val.arrow", *folder.glob(f"training/*/*/{lost}")):
        path.unlink()
    trained = contents(folder / "training")
    run_once(folder)
    now = contents(folder / "training")
    assert {path: now[path] for path in trained} == trained
    again = json.loads((folder / "result.json").read_text())
    assert again["steps"] == earlier["steps"]
    assert again["best_val"] == earlier["best_val"]
    assert Path(again["checkpoint"]).name == Path(earlier["checkpoint"]).name
    assert tmp_path in Path(again["checkpoint"]).parents  # not where the folder was before
    paths = [log_dir / "runs" / name / "val.arrow" for log_dir in (unbroken, tmp_path)]
    before, after = (CasePredictions.load(path, "mmimdb", "val").logits for path in paths)
    assert torch.equal(before, after)


def test_scores_agree_with_tests_of_the_same_checkpoint(files, settings, unbroken, tmp_path):
    """The missing case that a run was trained with, and others that are scored from its predictions."""
    call("reproduce", "with", f"reproduce.experiment={files}/cases.yaml", *settings, f"log_dir={unbroken}")
    own, cases = (pd.read_csv(unbroken / name / "scores.csv") for name in ("small", "cases"))
    assert (len(own), len(cases)) == (2 * 2, 2 * 2 * 4)
    scores = pd.concat([own, cases]).query("split == 'test' and method == 'DCP'")
    for _, row in scores[scores["test_type"] != "text"].iterrows():
        name = f"{row['test_type']}{row['test_ratio']}"
        call(
            "with",
            *settings,
            f"log_dir={tmp_path}",
            "test_only=True",
            f"exp_name={name}",
            f"test_type={row['test_type']}",
            f"test_ratio={row['test_ratio']}",
            f"load_path={unbroken}/runs/{row['run']}",
        )
        (path,) = tmp_path.glob(f"{name}_*/version_0/metrics.json")
        found = json.loads(path.read_text())
        for metric in ("F1_Macro", "F1_Micro", "mAP"):
            assert found[f"test/{metric}"] == pytest.approx(row[metric], abs=1e-6)
        assert found["constant_baseline"]["F1_Macro"] == pytest.approx(row["constant_baseline"])
        assert found["missing_tables"]["test"] == row["missing_table"]
        assert row["score"] == row["F1_Macro"]
    published = cases.query("split == 'test' and test_type == 'image' and test_ratio == 0.3")
    assert published.query("method == 'DCP'")["published"].tolist() == [40]
    assert cases["published"].notna().sum() == 1
    best = json.loads((unbroken / "runs" / own["run"][0] / "result.json").read_text())["best_val"]
    assert own.query("split == 'val'")["score"].tolist()[0] == pytest.approx(best, abs=1e-6)


def test_another_metric_is_carried_through(settings, unbroken, files):
    """Scores, published column, constant baseline and table are of mAP, from the same finished runs."""
    text = (files / "small.yaml").read_text().replace("splits: [val, test]", "splits: [val, test], metric: mAP")
    (files / "ranked.yaml").write_text(text)
    before = contents(unbroken / "runs")
    call("reproduce", "with", f"reproduce.experiment={files}/ranked.yaml", *settings, f"log_dir={unbroken}")
    assert contents(unbroken / "runs") == before
    small, ranked = (pd.read_csv(unbroken / name / "scores.csv") for name in ("small", "ranked"))
    assert (ranked["score"] == ranked["mAP"]).all()
    assert (ranked["score"] != small["score"]).any()
    share = {
        split: CasePredictions.load(path, "mmimdb", split).labels.mean(0)
        for split in ("val", "test")
        for path in unbroken.glob(f"runs/*/{split}.arrow")
    }
    for _, row in ranked.iterrows():  # a constant ranking has a class's frequency as its precision
        present = share[row["split"]][share[row["split"]] > 0]
        assert row["constant_baseline"] == pytest.approx(present.mean().item(), abs=1e-6)
    table = pd.read_csv(unbroken / "ranked" / "table.csv").set_index("method")
    wanted = 100 * ranked.query("method == 'DCP' and split == 'test'")["mAP"].item()
    assert float(table["test ours"]["DCP"]) == pytest.approx(wanted, abs=0.005)


def test_only_restricts_the_runs_and_shared_runs_are_done_once(files, settings, unbroken, capsys):
    both = f"reproduce.experiment={[str(files / 'small.yaml'), str(files / 'cases.yaml')]}"
    call("reproduce", "with", both, *settings, f"log_dir={unbroken}", "reproduce.only=['method=DCP']")
    assert "1 runs for 2 places: 1 finished, 0 to do" in capsys.readouterr().out
    assert set(pd.read_csv(unbroken / "small" / "scores.csv")["method"]) == {"DCP"}


def test_a_run_is_not_done_by_two_processes(unbroken, tmp_path):
    """While another process has the lock, a run waits; then it finds itself finished."""
    folder = folder_of("none", unbroken)
    before = contents(folder)
    with FileLock(folder / "run.lock"):
        (folder / "result.json").rename(tmp_path / "result.json")
        other = forked.start(folder, program="clip/experiments/run_once.py")
        time.sleep(3)
        assert other.poll() is None
        (tmp_path / "result.json").rename(folder / "result.json")
    assert other.wait().returncode == 0
    assert contents(folder) == before


def test_two_commands_share_the_runs(words, unbroken, tmp_path):
    """A run that another command has started is left to it, long before the run takes its lock."""
    others, own = (folder_of(method, unbroken) for method in ("none", "dcp"))
    for folder in (others, own):
        (folder / "log.txt").unlink()
    (others / "result.json").rename(tmp_path / "result.json")
    (own / "result.json").unlink()
    lock = claim(others)
    assert claim(others) is None
    command = forked.start(*words, f"log_dir={unbroken}", before=lead_group_of_forks)
    try:
        wait_for(lambda: (own / "result.json").exists())  # the other run is the first in the file
        (tmp_path / "result.json").rename(others / "result.json")
    finally:
        lock.release()
    assert command.wait().returncode == 0
    assert not (others / "log.txt").exists()


@pytest.mark.parametrize(
    ("name", "only", "published"),
    [
        ("table6", ["task=mmimdb", "missing=image"], {"Baseline": 45.78, "DCP": 55.12}),
        (
            "field",
            ["task=mmimdb", "rate=70", "missing=both", "protocol=dummy", "method=AOEPT", "method=DPL", "method=MoRA"],
            {"AOEPT": 53.31, "DPL": math.nan, "MoRA": 52.97},
        ),
    ],
)
def test_other_backbones_and_methods_run_beside_their_published_values(
    name, only, published, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner, "local", fork_run)
    words = [*settings, f"log_dir={tmp_path}", "max_epoch=1", "max_steps=1", "aoept.memory=4"]
    if name == "table6":
        words.append(f"vit={write_coca(tmp_path / 'coca')}")
    call("reproduce", "with", f"reproduce.experiment={name}", f"reproduce.only={only}", *words)
    scores = pd.read_csv(tmp_path / name / "scores.csv").set_index("method")
    assert scores["score"].notna().all()
    assert scores["published"].to_dict() == pytest.approx(published, nan_ok=True)
    configs = [json.loads(path.read_text())["config"] for path in tmp_path.glob("runs/*/plan.json")]
    backbone, missing = {"table6": ("coca", "zero"), "field": ("clip", "dummy")}[name]
    assert {(config["backbone"], config[backbone]["missing"]) for config in configs} == {(backbone, missing)}


def test_a_run_that_fails_leaves_its_log_and_does_not_stop_the_others(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "local", fork_run)
    path = tmp_path / "failing.yaml"
    path.write_text(FAILING)
    words = ["reproduce", "with", f"reproduce.experiment={path}", *settings, f"log_dir={tmp_path}"]
    with pytest.raises(SystemExit, match="1 of 2 runs"):
        call(*words, "reproduce.jobs=2")
    assert "prompt_depth=9" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "failing" / "table.csv").set_index("case").iloc[:, 0]
    assert table.notna().tolist() == [False, True]
    (log,) = (p for p in tmp_path.glob("runs/*/log.txt") if "prompt_depth=9" in p.read_text())
    before = log.stat().st_mtime_ns
    with pytest.raises(SystemExit, match="1 of 1 runs"):
        call(*words)
    assert log.stat().st_mtime_ns > before


def test_slurm_gets_a_job_for_each_run(settings, files, tmp_path, monkeypatch):
    """A stand-in for SLURM's programs runs what submitit hands in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (programs / name).write_text(text.replace("WORDS", str(tmp_path / "sbatch.txt")))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    words = [
        "reproduce",
        "with",
        f"reproduce.experiment={files}/small.yaml",
        *settings,
        f"log_dir={tmp_path}",
        "reproduce.launcher=slurm",
        "reproduce.only=['method=none']",
        "max_steps=1",
    ]
    for options, wanted in (("[]", "time="), ("['tim=1', 'time=1']", "tim")):
        with pytest.raises(SystemExit, match=wanted):
            call(*words, f"reproduce.slurm={options}")
    call(*words, "reproduce.slurm=['time=9', 'partition=fast', 'gpus_per_node=1']")
    asked = (tmp_path / "sbatch.txt").read_text()
    assert {"#SBATCH --time=9", "#SBATCH --partition=fast", "#SBATCH --gpus-per-node=1"} <= set(asked.splitlines())
    assert len(list(tmp_path.glob("runs/*/log.txt"))) == 1
    (result,) = tmp_path.glob("runs/*/result.json")
    assert Path(json.loads(result.read_text())["checkpoint"]).is_file()  # its last: none is best


def test_torchrun_is_refused_before_anything_starts(monkeypatch, tmp_path):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2 processes") as refused:
        run.command_line(["run.py", "reproduce", "with", "reproduce.experiment=table1", f"log_dir={tmp_path}"])
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="2 processes"):
        run_once(tmp_path)
    assert not list(tmp_path.iterdir())
