"""`reproduce` and `once` as a user types them: killed and called again, and what they leave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from clip.evaluation.predictions import CasePredictions
from clip.experiments.once import claim, locked
from tests.conftest import ROOT
from tests.experiment_files import call, write


def contents(folder):
    """All files of a folder with their times."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def folder_of(prompt_type, log_dir):
    """The folder of the one run of a method."""
    records = {path.parent: json.loads(path.read_text()) for path in log_dir.glob("runs/*/run.json")}
    (found,) = (p for p, each in records.items() if each["settings"]["prompt_type"] == prompt_type)
    return found


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("experiments"))


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory):
    """Both runs done one by one, without reproduce."""
    log_dir = tmp_path_factory.mktemp("unbroken")
    for method in ("none", "dcp"):
        call("once", "with", *settings, f"log_dir={log_dir}", f"prompt_type={method}",
             "max_epoch=8", "val_check_interval=1.0", "learning_rate=0.02")  # fmt: skip
    return log_dir


def test_killed_and_called_again_nothing_is_repeated_and_the_table_is_the_same(
    files, settings, unbroken, tmp_path, capsys
):
    words = ["reproduce", "with", f"experiment={files}/small.yaml", *settings]
    program = [sys.executable, str(ROOT / "run.py"), *words, f"log_dir={tmp_path}"]
    first = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    (done,) = wait_for(lambda: [p.parent for p in tmp_path.glob("runs/*/result.json")])
    (half,) = wait_for(lambda: _in_training(tmp_path) - {done})
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = contents(done)
    assert not (half / "result.json").exists()
    second = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert "2 runs: 1 done before, 1 to do" in second.stdout
    assert "python run.py with" in second.stdout
    assert contents(done) == before
    assert sorted(p.name for p in half.glob("training/*/version_*")) == ["version_0", "version_1"]
    (again,) = half.glob("training/*/version_1/metrics.csv")
    assert pd.read_csv(again)["epoch"].min() > 0  # it went on, and did not begin again
    capsys.readouterr()
    call(*words, f"log_dir={unbroken}")
    assert "2 runs: 2 done before, 0 to do" in capsys.readouterr().out
    for name in ("cells.csv", "table.csv", "table.md"):
        assert (tmp_path / "small" / name).read_text() == (unbroken / "small" / name).read_text()
    assert "| DCP |" in second.stdout
    assert "2 of 2 runs are there" in second.stdout


def test_a_finished_run_folder_says_everything(unbroken, clip_folder):
    folders = {name: folder_of(name, unbroken) for name in ("none", "dcp")}
    records = {}
    for name, folder in folders.items():
        record = records[name] = json.loads((folder / "run.json").read_text())
        assert record["key"] == folder.name
        assert record["command"].startswith("python run.py with log_dir=")
        assert f"vit={clip_folder}" in record["command"]
        assert record["seed"] == 0
        assert record["missing_tables"].keys() == {"train", "val", "test"}
        assert sum(record["trainable"].values()) < record["total_parameters"]
        result = json.loads((folder / "result.json").read_text())
        assert result["headline"] == "F1_Macro"
        assert result["steps"] == 8 * 3
        assert result["seconds_per_step"] * result["steps"] == pytest.approx(result["seconds_train"])
        assert {"val.arrow", "test.arrow", "lock"} <= {path.name for path in folder.iterdir()}
        best = torch.load(result["checkpoint"], weights_only=True)
        assert set(best["state_dict"]) == set(record["trainable"])
    assert set(records["none"]["trainable"]) < set(records["dcp"]["trainable"])


@pytest.mark.parametrize("lost", ["result.json", "metrics.json"])
def test_a_run_killed_after_its_last_epoch_only_predicts(lost, unbroken, settings, tmp_path):
    name = folder_of("dcp", unbroken).name
    folder = shutil.copytree(unbroken / "runs" / name, tmp_path / "runs" / name)
    earlier = json.loads((folder / "result.json").read_text())
    for path in (
        folder / "result.json",
        folder / "val.arrow",
        *folder.glob(f"training/*/*/{lost}"),
    ):
        path.unlink()
    trained = contents(folder / "training")
    call("once", "with", *settings, f"log_dir={tmp_path}", "max_epoch=8",
         "val_check_interval=1.0", "learning_rate=0.02")  # fmt: skip
    now = contents(folder / "training")
    assert {path: now[path] for path in trained} == trained
    assert (len(now) > len(trained)) == (lost == "metrics.json")
    again = json.loads((folder / "result.json").read_text())
    assert again["steps"] == earlier["steps"]
    assert again["best_val"] == earlier["best_val"]
    assert Path(again["checkpoint"]).name == Path(earlier["checkpoint"]).name
    assert tmp_path in Path(again["checkpoint"]).parents  # not where the folder was before
    paths = [log_dir / "runs" / name / "val.arrow" for log_dir in (unbroken, tmp_path)]
    before, after = (CasePredictions.load(path, "mmimdb", "val").logits for path in paths)
    assert torch.equal(before, after)


def test_cells_agree_with_tests_of_the_same_checkpoint(files, settings, unbroken, tmp_path):
    """The run's own case, and others that are read from its predictions."""
    for name in ("small", "cases"):
        call("reproduce", "with", f"experiment={files}/{name}.yaml", *settings,
             f"log_dir={unbroken}")  # fmt: skip
    own = pd.read_csv(unbroken / "small" / "cells.csv")
    cases = pd.read_csv(unbroken / "cases" / "cells.csv")
    assert (len(own), len(cases)) == (2 * 2, 2 * 2 * 4)
    cells = pd.concat([own, cases]).query("split == 'test' and method == 'DCP'")
    for _, cell in cells[cells["test_type"] != "text"].iterrows():
        name = f"{cell['test_type']}{cell['test_ratio']}"
        call("with", *settings, f"log_dir={tmp_path}", "test_only=True", f"exp_name={name}",
             f"test_type={cell['test_type']}", f"test_ratio={cell['test_ratio']}",
             f"load_path={unbroken}/runs/{cell['run']}")  # fmt: skip
        (path,) = tmp_path.glob(f"{name}_*/version_0/metrics.json")
        found = json.loads(path.read_text())
        for metric in ("F1_Macro", "F1_Micro", "mAP"):
            assert found[f"test/{metric}"] == pytest.approx(cell[metric], abs=1e-6)
        assert found["constant_baseline"]["F1_Macro"] == pytest.approx(cell["constant_baseline"])
        assert found["missing_tables"]["test"] == cell["missing_table"]
        assert cell["score"] == cell["F1_Macro"]
    published = cases.query("split == 'test' and test_type == 'image' and test_ratio == 0.3")
    assert published.query("method == 'DCP'")["published"].tolist() == [40]
    assert cases["published"].notna().sum() == 1
    best = json.loads((unbroken / "runs" / own["run"][0] / "result.json").read_text())["best_val"]
    assert own.query("split == 'val'")["score"].tolist()[0] == pytest.approx(best, abs=1e-6)


def test_only_restricts_the_runs_and_shared_runs_are_done_once(files, settings, unbroken, capsys, tmp_path):
    both = f"experiment={[str(files / 'small.yaml'), str(files / 'cases.yaml')]}"
    call("reproduce", "with", both, *settings, f"log_dir={unbroken}", "only=['method=DCP']")
    said = capsys.readouterr().out
    assert "1 runs for 2 places: 1 done before, 0 to do" in said
    assert set(pd.read_csv(unbroken / "small" / "cells.csv")["method"]) == {"DCP"}


def test_a_run_is_not_done_by_two_processes(unbroken, settings, tmp_path):
    """While another process is in it, once waits; then it finds the run done."""
    folder = folder_of("none", unbroken)
    before = contents(folder)
    words = ["once", "with", *settings, f"log_dir={unbroken}", "prompt_type=none", "max_epoch=8",
             "val_check_interval=1.0", "learning_rate=0.02"]  # fmt: skip
    program = [sys.executable, str(ROOT / "run.py"), *words]
    with locked(folder):
        (folder / "result.json").rename(tmp_path / "result.json")
        other = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        wait_for(lambda: _waits_for_a_lock(other.pid))
        assert other.poll() is None
        (tmp_path / "result.json").rename(folder / "result.json")
    said, _ = other.communicate(timeout=60)
    assert other.returncode == 0
    assert f"done before: {folder}" in said
    assert contents(folder) == before


def test_two_commands_share_the_runs(files, settings, unbroken, tmp_path):
    """What another command has started is left to it, long before the run takes its lock."""
    others, own = (folder_of(method, unbroken) for method in ("none", "dcp"))
    for folder in (others, own):
        (folder / "log.txt").unlink(missing_ok=True)
    (others / "result.json").rename(tmp_path / "result.json")
    (own / "result.json").unlink()
    words = ["reproduce", "with", f"experiment={files}/small.yaml", *settings]
    program = [sys.executable, str(ROOT / "run.py"), *words, f"log_dir={unbroken}"]
    claimed = claim(others)
    assert claim(others) is None
    command = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (own / "result.json").exists())  # the other one stands first in the file
    assert not (others / "log.txt").exists()
    (tmp_path / "result.json").rename(others / "result.json")
    claimed.close()
    said, _ = command.communicate(timeout=60)
    assert command.returncode == 0
    assert "[2/2] done by another process: small: method none" in said
    assert not (others / "log.txt").exists()


def _in_training(log_dir):
    """Folders of runs that have a last checkpoint."""
    return {path.parents[4] for path in log_dir.glob("runs/*/training/*/*/*/*-last.pt")}


def _waits_for_a_lock(pid):
    return any(f" {pid} " in line and "->" in line for line in Path("/proc/locks").read_text().splitlines())
