"""The commands as a user types them: train, test, sweep, resume and help."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

import run
from clip.cli import commands
from clip.cli.build import build_all
from clip.cli.schema import make_config
from clip.engine.checkpoints import find_checkpoint
from clip.missing import MISSING_TYPES
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.baselines import LinearProbe
from tests import tiny
from tests.conftest import CPU, shell


def call(*arguments):
    """The same command line in this process."""
    run.command_line(["run.py", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    """One DCP run through the real command line: its output and its folder."""
    log_dir = tmp_path_factory.mktemp("runs")
    done = shell("with", "task_finetune_mmimdb", *settings, f"log_dir={log_dir}", "max_epoch=3",
                 "exp_name=tiny", "learning_rate=0.02", fresh=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, log_dir / "tiny_dcp_train_both0.7_seed0" / "version_0"


def test_a_run_says_what_is_missing_and_what_trains(trained):
    done, _ = trained
    assert re.search(r"^train +24 +0 +0 +8 +8 +8 ", done.stdout, re.MULTILINE)
    assert re.search(r"^val +9 +0 +0 +3 +3 +3 ", done.stdout, re.MULTILINE)
    assert "parameters train" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_a_run_folder_holds_its_record_and_small_checkpoints(trained, clip_folder):
    _, folder = trained
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["exp_name"] == "tiny"
    assert record["model_config"]["vit"] == str(clip_folder)
    assert record["missing_tables"].keys() == {"train", "val"}
    assert record["git_commit"]
    metrics = pd.read_csv(folder / "metrics.csv")
    assert {"val/F1_Macro", "val/mAP", "val/loss", "train/loss_step"} <= set(metrics.columns)
    assert not [name for name in metrics.columns if name.startswith("test/")]
    best, last = sorted((folder / "checkpoints").iterdir(), key=lambda path: "last" in path.name)
    assert best.name.startswith("epoch-")
    assert best.name.endswith("-best.pt")
    assert last.name.endswith("-last.pt")
    checkpoint = torch.load(best, weights_only=True)
    assert set(checkpoint["state_dict"]) == set(record["trainable"])
    assert best.stat().st_size < last.stat().st_size < 4 * 3 * sum(record["trainable"].values()) * 1.5


def metrics_of(log_dir, pattern):
    (path,) = log_dir.glob(f"{pattern}/version_*/metrics.json")
    return json.loads(path.read_text())


def test_training_moved_every_kind_of_parameter(trained):
    """After three epochs each part of the method differs from a fresh start under the same seed."""
    _, folder = trained
    last = next((folder / "checkpoints").glob("*last.pt"))
    state = torch.load(last, weights_only=True)["state_dict"]
    assert state["prompts.dynamic.text.queries"].std() > 0
    optimizer = torch.load(last, weights_only=True)["optimizer_states"][0]
    moved = [moment["exp_avg_sq"].max().item() for moment in optimizer["state"].values()]
    assert len(moved) == len(state)
    assert min(moved) > 0


def test_sweep_equals_separate_tests(trained, settings, arrow_folder, tmp_path):
    """21 cells from two passes: the same metrics as a test_only run under the same table."""
    _, folder = trained
    where = [*settings[:-2], f"load_path={folder}", f"log_dir={tmp_path}", "exp_name=t"]
    done = shell("sweep", "with", "task_finetune_mmimdb", *where)
    assert done.returncode == 0, done.stderr
    assert "Macro F1 in percent" in done.stdout
    (csv,) = tmp_path.glob("t_dcp_sweep_*/version_0/sweep.csv")
    assert (csv.parent / "sweep.png").stat().st_size > 10_000
    table = pd.read_csv(csv)
    assert (csv.parent / "sweep.pdf").stat().st_size > 10_000
    assert len(table) == 21
    assert (table["run"] == str(folder)).all()
    assert table["incomplete"].tolist() == pytest.approx(table["missing_ratio"].tolist(), abs=1 / 12)
    again = shell("sweep", "with", "task_finetune_mmimdb", *settings[:1], f"log_dir={tmp_path}",
                  f"sweep.predictions={csv.parent / 'predictions.arrow'}", "exp_name=p",
                  "sweep.ratios=[0.3, 0.7]", "sweep.seeds=[0, 1, 2]")  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "mean of 3 masks" in again.stdout
    more = pd.read_csv(next(tmp_path.glob("p_dcp_sweep_*/version_0/sweep.csv")))
    assert len(more) == 3 * 2 * 3
    records = [json.loads(next(tmp_path.glob(f"{name}_dcp_sweep_*/version_0/run.json")).read_text())
               for name in ("t", "p")]  # fmt: skip
    assert records[0]["model_config"] == records[1]["model_config"]  # whose predictions they are
    same = more.merge(table, on=["missing_type", "missing_ratio", "missing_seed", "missing_table"])
    assert len(same) == 6
    assert same["F1_Macro_x"].tolist() == same["F1_Macro_y"].tolist()
    for kind, ratio in zip(MISSING_TYPES, (0.3, 0.7, 1.0), strict=True):
        call("with", "task_finetune_mmimdb", *where, "test_only=True", f"test_ratio={ratio}",
             f"test_type={kind}", "prompt_type=dcp")  # fmt: skip
        found = metrics_of(tmp_path, f"t_dcp_test_{kind}{ratio:g}_seed0")
        cell = table[(table.missing_type == kind) & (table.missing_ratio == ratio)].iloc[0]
        assert found["missing_tables"]["test"] == cell["missing_table"]
        for name in ("F1_Macro", "F1_Micro", "F1_Samples", "F1_Weighted", "mAP"):
            assert found[f"test/{name}"] == pytest.approx(cell[name], abs=1e-6), (kind, name)
        assert not [name for name in found if name.startswith("val/")]


def test_several_runs_are_overlaid_by_one_sweep(trained, settings, tmp_path, capsys):
    _, folder = trained
    best = next((folder / "checkpoints").glob("*best.pt"))
    words = ["task_finetune_mmimdb", *settings[:-2], f"log_dir={tmp_path}", "sweep.types=['text']"]
    call("sweep", "with", *words, f"load_path={[str(folder), str(best)]}")
    (csv,) = tmp_path.glob("*_sweep_of_2/version_0/sweep.csv")
    table = pd.read_csv(csv)
    assert table["run"].tolist() == [str(folder)] * 7 + [str(best)] * 7
    assert (table["method"] == "dcp").all()
    assert {"sweep.png", "sweep.pdf", "run.json"} <= {path.name for path in csv.parent.iterdir()}
    capsys.readouterr()
    with pytest.raises(SystemExit, match="nowhere"):
        call("sweep", "with", *words, f"load_path={[str(folder), 'nowhere']}")
    with pytest.raises(SystemExit, match="load_path"):
        call("with", *words, f"load_path={[str(folder), str(best)]}")
    assert len(list(tmp_path.glob("*/version_*"))) == 3


def test_reloaded_weights_give_equal_logits_under_another_seed(trained, settings):
    _, folder = trained
    paths = dict(pair.split("=", 1) for pair in settings[:2])
    config = make_config({"seed": 5, "load_path": str(folder), **paths}, {"seed", "load_path", *paths})
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(build_all(config, CPU)[1].model.eval())
    inputs = tiny.batch([0, 1, 2], tiny.FEWER_IDS)
    assert torch.equal(models[0](*inputs), models[1](*inputs))
    assert config.prompt_length == 36  # the default; the model took the checkpoint's
    assert models[0].prompts.common.shape[1] == tiny.LENGTH // 3


class PowerCut(pl.Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            raise RuntimeError("power cut")


def test_a_resumed_run_goes_on_to_the_same_weights(settings, tmp_path, monkeypatch):
    """Four epochs at once, or two, a power cut and two: bitwise the same on a CPU."""
    common = ["with", "task_finetune_mmimdb", *settings, "max_epoch=4", "val_check_interval=1.0"]
    call(*common, f"log_dir={tmp_path}/whole")
    make = commands.make_trainer

    def fragile(loggers, device, callbacks, **settings):
        return make(loggers, device, [*callbacks, PowerCut()], **settings)

    with monkeypatch.context() as patch:
        patch.setattr(commands, "make_trainer", fragile)
        with pytest.raises(SystemExit):
            call(*common, f"log_dir={tmp_path}/half")
    call(*common, f"log_dir={tmp_path}/on", f"resume_from={tmp_path}/half")
    states, results = [], []
    for name in ("whole", "on"):
        (path,) = (tmp_path / name).glob("**/epoch-03-*-last.pt")
        states.append(torch.load(path, weights_only=True))
        (path,) = (tmp_path / name).glob("**/metrics.json")
        results.append(json.loads(path.read_text()))
        assert Path(results[-1]["best"]).is_relative_to(tmp_path / name)
    assert results[0]["val/F1_Macro"] == results[1]["val/F1_Macro"]
    assert Path(results[0]["best"]).name == Path(results[1]["best"]).name
    assert list((tmp_path / "half").rglob("*-best.pt"))  # the earlier files stay
    assert states[0]["global_step"] == states[1]["global_step"] == 12
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name


@pytest.mark.parametrize("task", ["food101", "hatememes"])
@pytest.mark.parametrize("prompt_type", ["dcp", "none"])
def test_the_other_tasks_train_and_test(task, prompt_type, settings, tmp_path, capsys):
    common = ["with", f"task_finetune_{task}", *settings, f"log_dir={tmp_path}"]
    call(*common, f"prompt_type={prompt_type}", "max_steps=2", "exp_name=x")
    call(*common, "test_only=True", f"load_path={tmp_path}", "exp_name=x")
    found = metrics_of(tmp_path, f"x_{prompt_type}_test_both0.7_seed0")
    headline = {"food101": "accuracy", "hatememes": "AUROC"}[task]
    assert 0 <= found[f"test/{headline}"] <= 1
    assert np.isfinite(found["test/loss"])
    assert re.search(r"^test +12 +0 +0 +4 +4 +4 ", capsys.readouterr().out, re.MULTILINE)


def test_fast_dev_run_leaves_nothing_behind(settings, tmp_path):
    call("with", "task_finetune_mmimdb", *settings, f"log_dir={tmp_path}", "fast_dev_run=True")
    assert list(tmp_path.iterdir()) == []


def test_a_table_made_elsewhere_is_used(trained, settings, tmp_path):
    table = tmp_path / "test.csv"
    table.write_text("missing_type\n" + "2\n" * 12)
    call("with", "task_finetune_mmimdb", *settings, f"load_path={trained[1]}", "test_only=True",
         f"log_dir={tmp_path}", f"missing_table.test={table}", "exp_name=m")  # fmt: skip
    call("with", "task_finetune_mmimdb", *settings, f"load_path={trained[1]}", "test_only=True",
         f"log_dir={tmp_path}", "test_ratio=1.0", "test_type=image", "exp_name=d")  # fmt: skip
    ours = metrics_of(tmp_path, "m_dcp_test_both0.7_seed0")
    assert ours == metrics_of(tmp_path, "d_dcp_test_image1_seed0")


def test_a_method_sees_the_training_split_before_the_first_step(settings, tmp_path, monkeypatch):
    seen = []

    class Prepared(LinearProbe):
        def prepare(self, model, batches):
            assert (model.training, torch.is_grad_enabled()) == (False, False)
            cases = [batch.missing_case for batch in batches]
            seen.append(([len(case) for case in cases], torch.cat(cases).bincount().tolist()))

        def loss(self, *args):
            assert self.training == torch.is_grad_enabled()
            return super().loss(*args)

    monkeypatch.setitem(PROMPT_TYPES, "none", Prepared)
    common = ["with", "task_finetune_mmimdb", *settings, "prompt_type=none", "max_epoch=1", f"log_dir={tmp_path}"]
    call(*common)
    call(*common, "max_epoch=2", f"resume_from={tmp_path}")
    assert seen == [([4] * 6, [8, 8, 8])]  # 24 samples in micro-batches of 4, and none on resume


def test_results_of_a_trained_run_are_written_in_its_folder(trained, settings, tmp_path, monkeypatch):
    run_folder = shutil.copytree(trained[1], tmp_path / "result" / "tiny" / "version_0")
    monkeypatch.chdir(tmp_path)
    words = ["task_finetune_mmimdb", *settings[:-2], "load_path=result/tiny"]
    for ratio in (0.3, 0.7, 0.7):
        call("with", *words, "test_only=True", f"test_ratio={ratio}")
    call("sweep", "with", *words, "sweep.types=['text']", "missing_seed=2")
    (tmp_path / "films.csv").write_text("text\nA hero saves the day.\n")
    for _ in range(2):
        call("predict", "with", "load_path=result/tiny", "num_gpus=0", "predict.input=films.csv")
    names = {str(path.relative_to(run_folder)) for path in run_folder.glob("*/version_*")}
    assert names == {
        "test_both0.3_seed0/version_0",
        "test_both0.7_seed0/version_0",
        "test_both0.7_seed0/version_1",
        "sweep_both0.7_seed2/version_0",
        "predict_films/version_0",
        "predict_films/version_1",
    }
    for name in names:
        assert {"metrics.json", "sweep.csv", "predictions.csv"} & {path.name for path in (run_folder / name).iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"result", "films.csv"}
    assert [path.name for path in (tmp_path / "result").iterdir()] == ["tiny"]
    assert find_checkpoint("result/tiny", "best").parent == Path("result/tiny/version_0/checkpoints")
