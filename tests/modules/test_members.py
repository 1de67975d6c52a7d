"""CLIP's larger members as stand-ins with their ratios: train, test and sweep; the sweep agrees."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from clip.modules.backbones.clip import load_clip
from clip.modules.backbones.clip_convert import ClipSizes
from tests import tiny
from tests.predicting import call

DEPTH = 2
RATIO = 0.7
SCORES = ("F1_Macro", "mAP")
# As published: widths 768 and 512 or 1024 and 768, layers 12 and 12 or 24 and 12, patches of 32 or
# 14 pixels, grids of 7, 16 and 24, features as wide as the text tower.
B_32 = ClipSizes(image_width=192, image_layers=2, patch=32, grid=7, text_width=128, text_layers=2,
                 context=77, vocabulary=0, embed_dim=128)  # fmt: skip
L_14 = ClipSizes(image_width=256, image_layers=4, patch=14, grid=8, text_width=192, text_layers=2,
                 context=77, vocabulary=0, embed_dim=192)  # fmt: skip
MEMBERS = {"ViT-B/32": B_32, "ViT-L/14": L_14, "ViT-L/14@336px": replace(L_14, grid=12)}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return tiny.write_arrow(tmp_path_factory.mktemp("films"), {"train": 8, "dev": 3, "test": 9})


@pytest.mark.parametrize("sizes", MEMBERS.values(), ids=MEMBERS)
def test_the_whole_job_on_a_stand_in(sizes, films, tmp_path, capsys):
    vit = tiny.write_clip(tmp_path / "clip", sizes=sizes)
    read = load_clip(str(vit)).sizes
    assert replace(read, vocabulary=0) == sizes
    common = ["task_finetune_mmimdb", f"data_root={films}", "num_gpus=0", "num_workers=0",
              f"log_dir={tmp_path}", f"test_ratio={RATIO}"]  # fmt: skip
    call("with", *common, f"vit={vit}", "per_gpu_batchsize=4", "batch_size=4", "prompt_length=6",
         f"prompt_depth={DEPTH}", "max_epoch=1", "learning_rate=0.02", "exp_name=one")  # fmt: skip
    (best,) = tmp_path.glob("one_dcp_train*/**/*-best.pt")
    state = torch.load(best, weights_only=True)["state_dict"]
    for tower, width in read.towers.items():  # a layer of prompts is made of both towers'
        made = state[f"prompts.generators.{tower}.{DEPTH - 1}.1.2.weight"]
        assert made.shape == (width, sum(read.towers.values()) // 16)
    call("sweep", "with", *common, f"load_path={best}", f"sweep.ratios=[{RATIO}]", "exp_name=all")
    (table,) = tmp_path.glob("all*/**/sweep.csv")
    rows = pd.read_csv(table).set_index("missing_type")
    assert rows.mAP.nunique() > 1
    call("with", *common, f"load_path={best}", "test_only=True", "test_type=both", "exp_name=test")
    (path,) = tmp_path.glob(f"test_dcp_test_both{RATIO:g}_seed0/**/metrics.json")
    tested = json.loads(path.read_text())
    for score in SCORES:
        assert rows.loc["both", score] == pytest.approx(tested[f"test/{score}"], abs=1e-6)
