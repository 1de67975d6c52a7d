"""ViLT through the command line: train, test, sweep, predict, and its mistakes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clip.datasets import DATASETS, ArrowDataset
from clip.missing import MISSING_IMAGE, MISSING_TYPES
from clip.transforms import ViltTransform
from tests import tiny, tiny_vilt
from tests.conftest import SIZES, shell
from tests.predicting import call


@pytest.fixture(scope="module")
def vilt_folder(tmp_path_factory):
    return tiny_vilt.write_vilt(tmp_path_factory.mktemp("vilt"), image_size=64)


@pytest.fixture(scope="module")
def arrow_folder(tmp_path_factory):
    """Posters of three shapes, so that batches hold padding."""
    folder = tmp_path_factory.mktemp("posters")
    return tiny.write_arrow(folder, SIZES, shapes=((20, 30), (30, 20), (24, 24)))


@pytest.fixture(scope="module")
def common(arrow_folder, vilt_folder):
    return [f"data_root={arrow_folder}", f"vit={vilt_folder}", "num_gpus=0", "num_workers=0",
            "per_gpu_batchsize=4", "batch_size=8", "prompt_length=6", "prompt_depth=2",
            "max_epoch=2"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(common, tmp_path_factory):
    """A DCP run on ViLT through the real command line: its output and its folder."""
    log_dir = tmp_path_factory.mktemp("runs")
    done = shell("with", "task_finetune_mmimdb", *common, "backbone=vilt", f"log_dir={log_dir}",
                 "vilt.max_text_len=60")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, log_dir / "finetune_mmimdb_dcp_train_both0.7_seed0" / "version_0"


def test_a_run_names_its_backbone(trained):
    said, folder = trained
    record = json.loads((folder / "run.json").read_text())
    assert record["model_config"]["backbone"] == "vilt"
    assert record["model_config"]["vilt.max_text_len"] == 60
    assert "stream.pooler.weight" in record["trainable"]
    assert "parameters train" in said


def test_a_missing_image_keeps_its_shape_and_is_not_decoded(arrow_folder):
    dataset = ArrowDataset(
        *DATASETS["mmimdb"].find(arrow_folder, "test"), text_column="plots", num_classes=23, multilabel=True,
        transform=ViltTransform(64), tokenize=lambda texts: torch.tensor([[1] for _ in texts]),
    )  # fmt: skip
    assert dataset[0]["image"].shape == (3, 96, 64)  # of 20 x 30 pixels
    dataset.set_mask(np.full(len(dataset), MISSING_IMAGE))
    assert dataset[0]["image"].shape == (3, 96, 64)
    assert not dataset[0]["image"].any()
    dataset.observed = dataset.mask
    assert dataset[0]["image"].shape == (3, 64, 64)


def test_a_sweep_equals_the_separate_tests(trained, arrow_folder, tmp_path, capsys):
    """The checkpoint says all about the model: nothing of it is given here."""
    _, folder = trained
    given = [f"data_root={arrow_folder}", "num_gpus=0", "num_workers=0", f"load_path={folder}",
             f"log_dir={tmp_path}", "task_finetune_mmimdb"]  # fmt: skip
    call("sweep", "with", *given, "sweep.ratios=[0.5, 1.0]")
    (table,) = tmp_path.glob("**/sweep.csv")
    rows = pd.read_csv(table)
    assert len(rows) == 2 * len(MISSING_TYPES)
    for row in rows.itertuples():
        call("with", *given, "test_only=True", f"test_type={row.missing_type}",
             f"test_ratio={row.missing_ratio}", "exp_name=one")  # fmt: skip
    for path in tmp_path.glob("one*/version_*/metrics.json"):
        tested = json.loads(path.read_text())
        run = json.loads((path.parent / "run.json").read_text())["config"]
        same = (rows.missing_type == run["missing_type"]["test"]) & (rows.missing_ratio == run["missing_ratio"]["test"])
        assert rows[same].mAP.item() == pytest.approx(tested["test/mAP"], abs=1e-6)
    assert rows.mAP.nunique() > 1


def test_predictions_of_the_three_states(trained, tmp_path, capsys):
    _, folder = trained
    Image.new("RGB", (50, 20), (220, 40, 40)).save(tmp_path / "a.png")
    rows = "image,text\na.png,drama number 1\na.png,\n,drama number 1\n"
    (tmp_path / "rows.csv").write_text(rows)
    call("predict", "with", f"load_path={folder}", "num_gpus=0", f"predict.input={tmp_path / 'rows.csv'}",
         f"predict.output={tmp_path / 'out.csv'}")  # fmt: skip
    made = pd.read_csv(tmp_path / "out.csv")
    assert made.missing.tolist() == ["complete", "text", "image"]
    assert (made[["Drama", "Comedy", "Horror"]].nunique() == 3).all()


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("backbone=bert", "backbone='bert'"),
        ("vilt.max_text_len=1", "vilt.max_text_len=1"),
        ("unfreeze=['ln_post']", "unfreeze=['ln_post']"),
        ("prompt_depth=4", "prompt_depth=4"),
        ("activation=quick_gelu", "activation=quick_gelu"),
    ],
)
def test_mistakes(common, word, named):
    with pytest.raises(SystemExit) as stopped:
        call("with", "task_finetune_mmimdb", *common, "backbone=vilt", word)
    assert named in str(stopped.value.code)


def test_a_clip_is_no_vilt(common, clip_folder):
    with pytest.raises(SystemExit) as stopped:
        call("with", "task_finetune_mmimdb", *common, "backbone=vilt", f"vit={clip_folder}")
    assert str(clip_folder) in str(stopped.value.code)
