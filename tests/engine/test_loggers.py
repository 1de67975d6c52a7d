"""Test metrics.csv, TensorBoard and Weights & Biases."""

import json

import pandas as pd
import pytest

import run

WORDS = ["max_epoch=2", "val_check_interval=1.0", "limit_train=16", "exp_name=l"]


def train(settings, log_dir, *words):
    """Train in this process; return the run's folder and its metrics.json."""
    run.command_line(["run.py", "with", "task_finetune_mmimdb", *settings, *WORDS, f"log_dir={log_dir}", *words])
    (folder,) = log_dir.glob("l_*/version_0")
    return folder, json.loads((folder / "metrics.json").read_text())


def test_metrics_csv_has_a_row_per_optimiser_step_and_a_column_per_learning_rate(settings, tmp_path):
    folder, result = train(settings, tmp_path, "lr_mult=2", "warmup_steps=0")
    log = pd.read_csv(folder / "metrics.csv")
    assert log["step"].tolist() == [1, 2, 3, 4]
    assert log["train/loss_step"].notna().all()
    assert log["lr"].tolist() == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert log["lr_classifier"].tolist() == pytest.approx((2 * log["lr"]).tolist())
    assert [name for name in log if name.startswith("lr")] == ["lr", "lr_classifier"]
    validated = log.dropna(subset=["val/F1_Macro"])
    assert validated["step"].tolist() == [2, 4]
    best = validated.loc[validated["val/F1_Macro"].idxmax()]
    assert (best["step"], best["val/F1_Macro"]) == (result["best_step"], pytest.approx(result["val/F1_Macro"]))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_one_line_before_anything_starts(name, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("clip.engine.run_folder.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        train(settings, tmp_path, f"logger={name}", f"vit={tmp_path}/nowhere")
    message = str(stopped.value)
    assert message.startswith("error: ")
    assert "\n" not in message
    assert f"logger={name}" in message
    assert "requirements-loggers.txt" in message
    assert not list(tmp_path.iterdir())


def test_tensorboard_has_the_scores_and_the_hyper_parameters(settings, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, result = train(settings, tmp_path, "logger=['csv','tensorboard']")
    assert (folder / "metrics.csv").is_file()
    events = EventAccumulator(str(folder)).Reload()
    assert len(events.Scalars("val/F1_Macro")) == 2
    (final,) = events.Scalars("final/val/F1_Macro")
    assert final.value == pytest.approx(result["val/F1_Macro"])
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_wandb_logs_offline_into_the_run_folder(settings, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    finished, finish = [], wandb.Run.finish

    def record(self, *args):
        finished.append((dict(self.config), self.summary["final/val/F1_Macro"]))
        finish(self, *args)

    monkeypatch.setattr(wandb.Run, "finish", record)
    folder, result = train(settings, tmp_path, "logger=wandb")
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert (folder / "metrics.csv").is_file()
    ((config, score),) = finished
    assert (config["max_epoch"], config["dcp.formulas"]) == (2, "released")
    assert score == pytest.approx(result["val/F1_Macro"])
