"""Runs that are stopped and resumed: settings from the checkpoint, moved files, finished runs."""

import shutil
from pathlib import Path

import pytest
import torch

import run
from clip.engine.checkpoints import LAST, find_checkpoint


def call(*words):
    """Run a command line and return its exit code or its error line."""
    try:
        run.command_line(["run.py", *words])
    except SystemExit as end:
        return end.code
    return 0


def last(folder):
    path = find_checkpoint(str(folder), LAST)
    return path, torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    """The folder of a run of 12 steps, and the words that made it."""
    base = tmp_path_factory.mktemp("resume")
    words = ["with", "task_finetune_mmimdb", *settings, "max_epoch=4", "learning_rate=0.02", "seed=3", "exp_name=mine"]
    assert call(*words, f"log_dir={base}/whole") == 0
    return base, words


@pytest.mark.parametrize("steps", [1, 2, 4, 5])
def test_the_preset_and_the_run_alone_continue_a_run_beside_it(steps, runs):
    runs, words = runs
    assert call(*words, f"log_dir={runs / str(steps)}", f"max_steps={steps}") == 0
    assert call("with", "task_finetune_mmimdb", f"resume_from={runs / str(steps)}", "max_steps=None") == 0
    path, content = last(runs / str(steps))
    assert path.parents[1].name == "version_1"
    assert content["global_step"] == 12
    whole = last(runs / "whole")[1]
    assert content["run"]["settings"]["seed"] == 3
    assert content["training_config"] == whole["training_config"]
    assert content["state_dict"].keys() == whole["state_dict"].keys()
    assert all(torch.equal(tensor, whole["state_dict"][name]) for name, tensor in content["state_dict"].items())


@pytest.mark.parametrize("relative", [False, True])
def test_a_finished_run_says_so_and_trains_nothing(relative, runs, capsys, monkeypatch):
    runs, _ = runs
    path = last(runs / "whole")[0]
    if relative:
        monkeypatch.chdir(path.parents[1])
    capsys.readouterr()
    before = sorted(runs.rglob("*"))
    assert call("with", "task_finetune_mmimdb", f"resume_from={'.' if relative else runs / 'whole'}") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "max_epoch=4" in line
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["dcp.formulas=paper"], "dcp.formulas", "paper"),
        (["missing_ratio=0.5"], "missing_ratio.train", "0.5"),
        (["seed=0"], "seed", "0"),
        (["batch_size=16"], "batch_size", "16"),
    ],
)
def test_a_setting_against_the_run_is_refused(words, key, value, runs):
    runs, _ = runs
    line = call("with", "task_finetune_mmimdb", f"resume_from={runs / 'whole'}", *words)
    assert line.startswith("error: ")
    assert f"{key}={value}" in line


def test_moved_files_are_found_by_their_other_path_or_named(arrow_folder, clip_folder, settings, tmp_path):
    home, paths = tmp_path / "home", {}
    home.mkdir()
    for key, source in (("data_root", arrow_folder), ("vit", clip_folder)):
        paths[key] = Path(shutil.copytree(source, home / key))
    words = [word for word in settings if not word.startswith(("data_root", "vit"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert call("with", "task_finetune_mmimdb", *words, "data_root=data_root", "vit=vit", "max_epoch=1") == 0
    run_folder = home / "result"
    resume = ["with", "task_finetune_mmimdb", f"resume_from={run_folder}", "max_epoch=2"]
    assert call(*resume) == 0  # from another working directory
    assert last(run_folder)[1]["global_step"] == 6
    paths["vit"].rename(home / "moved")
    line = call(*resume[:-1], "max_epoch=3")
    assert f"({paths['vit']})" in line
    assert call(*resume[:-1], "max_epoch=3", f"vit={home / 'moved'}") == 0
