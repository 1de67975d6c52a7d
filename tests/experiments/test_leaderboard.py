"""`leaderboard` over runs that were trained and tested as a user does it."""

import json
import re
import shutil
import statistics

import numpy as np
import pandas as pd
import pytest

from tests.conftest import shell

RUNS = [("dcp", 0, 0.02), ("dcp", 1, 0.02), ("none", 0, 0.02), ("none", 1, 0.02), ("dcp", 0, 0.05)]
SHORT = ["max_epoch=1", "val_check_interval=1.0"]


def succeed(*words):
    done = shell(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(settings, tmp_path_factory):
    """Two methods with two seeds each, one more learning rate, tests of each, and what the command printed."""
    log_dir = tmp_path_factory.mktemp("board")
    words, folders = ["with", "task_finetune_mmimdb", *settings], {}
    for run in RUNS:
        method, seed, rate = run
        own = [f"prompt_type={method}", f"seed={seed}", f"learning_rate={rate}"]
        folder = log_dir / str(rate)
        succeed(*words, *SHORT, *own, f"log_dir={folder}", "exp_name=run")
        (folders[run],) = folder.glob(f"run_{method}_train_*_seed{seed}/version_0")
        test = [*words[:-2], f"load_path={folders[run]}", "test_only=True"]
        if run[:2] == ("dcp", 1):
            succeed(*test, f"log_dir={log_dir}", "exp_name=older")  # elsewhere, and with another score
            (metrics,) = log_dir.glob("older_dcp_test_*/version_0/metrics.json")
            metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"test/F1_Macro": 0.9}))
            succeed(*test, "test_type=text", "test_ratio=1.0")
        succeed(*test)
    (last,) = folders[RUNS[4]].glob("checkpoints/*-last.pt")
    succeed(*words[:-2], f"load_path={last}", "test_only=True", "test_type=image")
    shutil.copytree(folders[RUNS[0]], log_dir / "untested", ignore=shutil.ignore_patterns("test_*"))
    return log_dir, folders, succeed("leaderboard", "with", f"log_dir={log_dir}")


def scores_of(folders, runs, case="both0.7", metric="F1_Macro"):
    files = [folders[run] / f"test_{case}_seed0/version_0/metrics.json" for run in runs]
    return [json.loads(file.read_text())[f"test/{metric}"] for file in files]


def test_scores_are_means_over_the_seeds_of_equal_settings(made):
    log_dir, folders, output = made
    table = pd.read_csv(log_dir / "leaderboard.csv", keep_default_na=False, na_values={"std": [""]})
    wanted = {  # method, settings, test type, seeds -> scores of the seeds
        ("dcp", "learning_rate=0.02, test.checkpoint=best", "both", "0 1"): scores_of(folders, RUNS[:2]),
        ("dcp", "learning_rate=0.02, test.checkpoint=best", "text", "1"): scores_of(folders, RUNS[1:2], "text1"),
        ("dcp", "learning_rate=0.05, test.checkpoint=best", "both", "0"): scores_of(folders, RUNS[4:]),
        ("dcp", "learning_rate=0.05, test.checkpoint=last", "image", "0"): scores_of(folders, RUNS[4:], "image0.7"),
        ("none", "", "both", "0 1"): scores_of(folders, RUNS[2:4]),
    }
    table = table.set_index(["method", "settings", "test_type", "seeds"])
    assert set(table.index) == set(wanted)
    for place, scores in wanted.items():
        assert table["mean"][place] == pytest.approx(statistics.mean(scores))
        assert table["std"][place] == pytest.approx(statistics.stdev(scores) if scores[1:] else np.nan, nan_ok=True)
        run = folders[next(run for run in RUNS if run[0] == place[0])]
        assert table["trainable_parameters"][place] == sum(
            json.loads((run / "run.json").read_text())["trainable"].values()
        )
    seconds = [json.loads((folders[run] / "metrics.json").read_text())["seconds_train"] for run in RUNS[2:4]]
    assert table["seconds_train"]["none"].item() == pytest.approx(statistics.mean(seconds))
    assert {*table["protocol"], *table["backbone"], *table["train_type"], *table["metric"]} == {
        "zero", "clip", "both", "F1_Macro"}  # fmt: skip
    assert "1 tests that were repeated" in output
    assert "1 training runs without a test" in output
    assert f"{log_dir}/leaderboard.csv" in output


def test_the_best_value_of_the_latex_table_is_bold(made):
    log_dir, folders, _ = made
    tex = (log_dir / "leaderboard.tex").read_text()
    assert tex.count("{") == tex.count("}")
    (header, *rows) = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert {row.count(" & ") for row in rows} == {header.count(" & ")}
    assert r"learning\_rate=0.05" in tex
    best = max(statistics.mean(scores_of(folders, runs)) for runs in (RUNS[:2], RUNS[2:4], RUNS[4:]))
    (bold,) = re.findall(r"\\textbf\{([\d.]+)", tex)
    assert float(bold) == pytest.approx(100 * best, abs=0.005)


def test_select_by_chooses_the_metric(made, tmp_path):
    log_dir, folders, _ = made
    board = shutil.copytree(log_dir, tmp_path / "board")
    succeed("leaderboard", "with", f"log_dir={board}", "select_by=mAP")
    table = pd.read_csv(board / "leaderboard.csv").set_index("method")
    assert table["metric"].unique() == ["mAP"]
    assert table["mean"]["none"] == pytest.approx(statistics.mean(scores_of(folders, RUNS[2:4], metric="mAP")))
    done = shell("leaderboard", "with", f"log_dir={board}", "select_by=mAPP")
    assert done.returncode == 1
    assert "select_by=mAPP" in done.stderr
    assert "F1_Macro" in done.stderr


def test_settings_are_a_column_only_if_they_differ(made, tmp_path):
    log_dir, _, output = made
    board = shutil.copytree(log_dir / "0.02", tmp_path / "board")
    printed = succeed("leaderboard", "with", f"log_dir={board}")
    assert "ettings" in output
    assert "ettings" not in printed.replace(str(board), "")


def test_a_folder_without_tests_is_an_error(made, tmp_path):
    done = shell("leaderboard", "with", f"log_dir={tmp_path}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"log_dir={tmp_path}" in line
