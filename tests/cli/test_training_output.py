"""Test the output of a training run, checkpoint selection and early stopping."""

import json
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import run
from clip.engine import trainer
from clip.engine.checkpoints import find_checkpoint, read_checkpoint
from tests.conftest import shell

VALIDATION = re.compile(r"epoch (\d+)  step (\d+)  val F1-Macro ([\d.]+) \(constant ([\d.]+)\)  .*val loss")
COMMON = ["batch_size=8", "learning_rate=0.02", "val_check_interval=1.0"]


def train(settings, log_dir, *words):
    """Train in this process; return the run's folder and its metrics.json."""
    run.command_line(["run.py", "with", "task_finetune_mmimdb", *settings, *COMMON, f"log_dir={log_dir}", *words])
    path = max(Path(log_dir).glob("*/version_*/metrics.json"), key=os.path.getmtime)
    return path.parent, json.loads(path.read_text())


def validations(folder, metric):
    """Return the logged validation scores of a run in order."""
    return pd.read_csv(folder / "metrics.csv")[f"val/{metric}"].dropna().tolist()


@pytest.fixture(scope="module")
def in_a_file(settings, tmp_path_factory):
    """The working directory and the output of a run whose output is not a terminal."""
    folder = tmp_path_factory.mktemp("plain")
    done = shell(
        "with", "task_finetune_mmimdb", *settings, *COMMON, "max_epoch=4", f"log_dir={folder}/runs", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_without_a_terminal_prints_one_line_per_validation(in_a_file):
    folder, done = in_a_file
    assert "\r" not in done.stdout + done.stderr
    assert "v_num" not in done.stdout
    assert not done.stderr
    lines = [VALIDATION.match(line) for line in done.stdout.splitlines() if line.startswith("epoch ")]
    (path,) = folder.glob("runs/*/version_0")
    assert [f"{100 * score:.2f}" for score in validations(path, "F1_Macro")] == [line[3] for line in lines]
    assert [(line[1], line[2]) for line in lines] == [(str(epoch), str(3 * epoch + 3)) for epoch in range(4)]
    result = json.loads((path / "metrics.json").read_text())
    assert {line[4] for line in lines} == {f"{100 * result['constant_baseline']['F1_Macro']:.2f}"}


def test_the_closing_table_names_the_best_checkpoint_and_a_command_that_evaluates_it(in_a_file):
    folder, done = in_a_file
    (path,) = folder.glob("runs/*/version_0")
    result = json.loads((path / "metrics.json").read_text())
    best = Path(result["best"])
    scores = validations(path, "F1_Macro")
    assert result["val/F1_Macro"] == pytest.approx(max(scores))
    assert (
        best.name
        == f"epoch-{result['best_epoch']:02d}-step-{result['best_step']:06d}-F1_Macro-{max(scores):.4f}-best.pt"
    )
    assert best.is_file()
    assert result["seconds_train"] > 0 < result["seconds_validation"]
    table = dict(re.findall(r"^(\S.*?)  +(.*)$", done.stdout.split("val loss")[-1], re.MULTILINE))
    assert table["best val F1-Macro"].startswith(f"{100 * max(scores):.2f} ")
    assert table["run folder"] == str(path.relative_to(folder))
    assert str(folder) not in table["evaluate"].split("load_path")[1]
    assert "test_ratio=0.7" in table["evaluate"]


def test_a_terminal_shows_a_bar_with_the_headline_metric(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(trainer, "REFRESH_RATE", 1)
    folder, _ = train(settings, tmp_path, "max_epoch=2")
    text = capsys.readouterr().out
    score = f"{100 * validations(folder, 'F1_Macro')[0]:.2f}"
    bars = [part for part in re.split(r"[\r\n]+", text) if part.startswith("Epoch 1:")]
    assert any(f"val/F1_Macro={score}" in bar for bar in bars)
    assert all("v_num" not in bar for bar in bars)
    assert len(re.findall(VALIDATION, text)) == 2


def test_progress_without_a_terminal_is_a_line_every_few_minutes(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "LOG_SECONDS", 0)
    train(settings, tmp_path, "max_epoch=1")
    lines = re.findall(r"^epoch 0  step \d  batch (\d) of 6  train/loss_step \d", capsys.readouterr().out, re.MULTILINE)
    assert lines == list("123456")


def test_the_best_checkpoint_is_that_of_the_selected_metric(settings, tmp_path):
    for metric, choose in (("loss", min), ("mAP", max)):
        folder, result = train(settings, tmp_path / metric, "max_epoch=4", f"select_by={metric}")
        scores = validations(folder, metric)
        best = choose(scores)
        assert result[f"val/{metric}"] == pytest.approx(best)
        path = find_checkpoint(str(folder), "best")
        assert f"-{metric}-{best:.4f}-" in path.name
        assert torch.load(path, weights_only=True)["epoch"] == scores.index(best) == result["best_epoch"]


def test_an_unknown_metric_is_refused_with_the_choices_before_the_weights_are_read(settings, tmp_path):
    words = [
        "with",
        "task_finetune_mmimdb",
        *settings,
        f"vit={tmp_path}/nowhere",
        "select_by=F2",
        f"log_dir={tmp_path}",
    ]
    with pytest.raises(SystemExit) as stopped:
        run.command_line(["run.py", *words])
    message = str(stopped.value)
    assert message.startswith("error: ")
    assert "\n" not in message
    assert all(word in message for word in ("select_by=F2", "F1_Macro", "mAP", "loss"))
    assert not list(tmp_path.iterdir())


def test_warnings_name_a_model_that_learned_nothing_and_a_best_step_in_the_warm_up(settings, tmp_path, capsys):
    train(settings, tmp_path, "max_epoch=2", "warmup_steps=6", "learning_rate=1e-9")
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert ["constant" in line for line in warnings] == [True, False]
    assert "warm-up of 6 steps" in warnings[1]


def test_early_stopping_counts_validations_across_a_resumption(settings, tmp_path, capsys):
    """At a learning rate of nearly zero the first validation stays the best."""
    still = ["learning_rate=1e-12", "early_stopping=3", "end_lr=0"]
    folder, result = train(settings, tmp_path / "whole", "max_epoch=9", *still)
    assert (result["steps"], result["stopped_early"]) == (12, True)
    assert len(validations(folder, "F1_Macro")) == 4
    assert "stopped early" in capsys.readouterr().out
    # The learning rates depend on max_epoch; the scores do not.
    train(settings, tmp_path / "parts", "max_epoch=2", *still)
    _, result = train(settings, tmp_path / "parts", "max_epoch=9", *still, f"resume_from={tmp_path / 'parts'}")
    assert (result["steps"], result["stopped_early"], result["best_step"]) == (12, True, 3)
    _, again = train(settings, tmp_path / "parts", "max_epoch=9", *still, f"resume_from={result['folder']}")
    assert (again["steps"], again["folder"]) == (12, result["folder"])  # nothing is left to be done


def test_max_steps_validates_at_its_end(settings, tmp_path):
    folder, result = train(settings, tmp_path, "max_epoch=3", "max_steps=4")
    assert result["steps"] == 4
    log = pd.read_csv(folder / "metrics.csv")
    assert len(log["val/F1_Macro"].dropna()) == 2
    assert read_checkpoint(find_checkpoint(str(folder), "last"))["global_step"] == 4


def test_resuming_without_the_best_checkpoint_is_said_in_one_line(settings, tmp_path, capsys):
    folder, _ = train(settings, tmp_path, "max_epoch=2")
    gone = find_checkpoint(str(folder), "best")
    gone.unlink()
    capsys.readouterr()
    _, result = train(settings, tmp_path, "max_epoch=3", f"resume_from={folder}")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if gone.name in line]
    assert (result["best_epoch"], result["best_step"]) == (2, 9)
    assert Path(result["best"]).is_file()
