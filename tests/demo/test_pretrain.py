"""Pretraining a small CLIP: which pairs it reads, and what it writes."""

import os
import stat

import pytest
import torch

from clip.cli import build, tools
from clip.cli.schema import make_config
from clip.demo.pretrain import drop_tokens, read_pairs, recall_at
from clip.modules.backbones.clip import load_clip
from clip.utils.errors import UserError
from tests import own_data
from vilt.utils import write_manifest


@pytest.fixture
def pretrain(arrow_folder, tmp_path):
    """Run the command with tiny sizes."""

    def run(**changes):
        sizes = {"image_size": 16, "width": 64, "layers": 1, "epochs": 1, "target": str(tmp_path / "clip")}
        settings = {"task": "mmimdb", "data_root": str(arrow_folder), "num_gpus": 0}
        settings["pretrain"] = sizes | changes.pop("pretrain", {})
        return tools.pretrain(make_config(settings | changes))

    return run


def test_a_pretrained_clip_loads_and_its_files_are_readable_as_the_umask_says(pretrain):
    old = os.umask(0o022)
    try:
        folder = pretrain()
    finally:
        os.umask(old)
    frozen = load_clip(str(folder))
    assert (frozen.sizes.image_size, frozen.sizes.patch, frozen.sizes.image_width) == (16, 8, 64)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    with pytest.raises(UserError, match="pretrain.target"):
        pretrain()


def test_only_a_training_split_is_needed_and_only_complete_pairs_are_read(pretrain, tmp_path):
    rows = own_data.shapes(tmp_path, {"train": 21, "dev": 3, "test": 3})
    write_manifest.make_arrow(own_data.write_manifest(tmp_path / "mine.csv", rows), tmp_path / "arrow")
    for split in ("val", "test"):
        (tmp_path / f"arrow/{split}.arrow").unlink()
    pretrain(task="manifest", data_root=str(tmp_path / "arrow"))
    config = make_config({"data_root": str(tmp_path / "arrow"), "task": "manifest"})
    dataset = build.build_data(config, build.task_from_data(config)[0], 16, tokenize=list).dataset("train")
    texts = []

    def tokenizer(given):
        texts.extend(given)
        return load_clip(str(tmp_path / "clip")).tokenizer(texts)

    pixels, tokens = read_pairs(dataset, tokenizer, 16).tensors
    assert texts == [row["text"] for row in rows[:21] if row["image"] and row["text"]]
    assert len(pixels) == len(tokens) == len(texts) == 14


def test_recall_counts_the_rows_whose_own_column_is_among_the_first():
    similarity = torch.tensor([[0.9, 0.1, 0.2, 0.0], [0.5, 0.4, 0.3, 0.1], [0.9, 0.8, 0.1, 0.7], [0.1, 0.2, 0.3, 0.4]])
    assert [recall_at(k, similarity) for k in (1, 2, 3, 4)] == [0.5, 0.75, 0.75, 1.0]
    assert recall_at(1, similarity.T) == 0.25


def test_drop_tokens_keeps_start_and_end_and_closes_gaps():
    torch.manual_seed(0)
    tokens = torch.tensor([[98, *range(1, 71), 99, *[0] * 5]]).repeat(50, 1)
    dropped = drop_tokens(tokens)
    assert dropped.shape == tokens.shape
    for row in dropped:
        kept = row[: int(row.argmax()) + 1].tolist()
        assert kept[0] == 98
        assert not row[len(kept) :].any()
    lengths = (dropped > 0).sum(1).float()
    assert 60 < lengths.mean() < 70
