"""The data module: masks of each split, observed cases, order of samples, processes, signals of bad images."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from clip.config import BaseConfig
from clip.datamodules import MissingModalityDataModule
from clip.datamodules.datamodule import EpochSampler
from clip.missing.masks import draw_released_masks, mask_hash
from clip.modules.objectives import TASK_TYPES
from clip.transforms import ClipTransform
from clip.utils.errors import UserError
from tests.datasets.test_arrow_dataset import characters, jpeg, open_dataset, write
from tests.own_data import shapes, write_manifest
from vilt.utils import write_manifest as writer


def data_module(task, folder, **settings):
    kind = "multilabel" if task == "mmimdb" else "multiclass"
    config = BaseConfig(**{"task": task, "data_root": str(folder), "num_workers": 0, "per_gpu_batchsize": 4} | settings)
    transform = ClipTransform(4)
    return MissingModalityDataModule(
        config, replace(TASK_TYPES[kind], num_classes=3), transform, characters, default_collate
    )


def test_observed_cases_stay_in_an_imported_mask(tmp_path):
    rows = shapes(tmp_path, {"train": 3, "dev": 3, "test": 7})
    writer.make_arrow(write_manifest(tmp_path / "m.jsonl", rows), tmp_path)
    (tmp_path / "test.csv").write_text("\n".join(["missing_type", "2", "1", "0", "0", "2", "0", "1"]))
    data = data_module("manifest", tmp_path, missing_ratio=0.0, missing_table={"test": str(tmp_path / "test.csv")})
    data.setup("test")
    assert data.datasets["test"].mask.tolist() == [2, 1, 0, 0, 1, 0, 2]
    assert data.mask_hashes == {"test": mask_hash(data.datasets["test"].mask)}


@pytest.mark.parametrize("draw", ["nested", "stream"])
def test_batches_have_the_cases_of_the_mask(tmp_path, draw):
    rows = shapes(tmp_path, {"train": 21, "dev": 7, "test": 7})
    writer.make_arrow(write_manifest(tmp_path / "m.jsonl", rows), tmp_path)
    ratios = {"train": 1.0, "val": 0.5, "test": 0.0}
    data = data_module("manifest", tmp_path, missing_type="text", missing_ratio=ratios, missing_draw=draw)
    data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    no_image = [i % 7 == 6 for i in range(21)]
    assert [int(train[i]["missing_type"]) for i in range(21)] == [2 if no else 1 for no in no_image]
    # Of seven validation rows the fifth has no text and the last no image: two of five are taken.
    assert np.bincount(val.mask).tolist() == [3, 3, 1]
    assert val.mask[[4, 6]].tolist() == [1, 2]
    if draw == "stream":
        observed = {split: dataset.observed for split, dataset in data.datasets.items()}
        assert val.mask.tolist() == draw_released_masks(observed, data.missing)["val"].tolist()
    assert data.draw("val", val.observed, "text", 0.5, 0).tolist() == val.mask.tolist()
    assert data.draw("val", val.observed, "image", 1.0, 3).tolist() == [2, 2, 2, 2, 1, 2, 2]
    data.setup("test")
    assert data.datasets["test"].mask.tolist() == [0, 0, 0, 0, 1, 0, 2]


def test_order_depends_on_seed_and_epoch_and_every_process_has_its_share(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow", plots=[["p"]] * 40))

    def order(epoch, seed=0, **place):
        sampler = EpochSampler(dataset, seed, **place)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1) == order(1)
    assert sorted(order(1)) == sorted(order(2)) == list(range(40))
    assert len({tuple(order(*key)) for key in ((1, 0), (2, 0), (1, 5))}) == 3
    shares = [order(1, world_size=2, rank=rank) for rank in range(2)]
    assert sorted(sum(shares, [])) == list(range(40))
    assert order(1, start=1, skip=7) == order(1)[7:]
    assert order(2, start=1, skip=7) == order(2)


def test_evaluation_deals_out_each_sample_once_and_training_resumes_within_an_epoch(tmp_path):
    labels = [[1, 0, 0]] * 7
    for name in ("train", "dev"):
        write(tmp_path / f"mmimdb_{name}.arrow", [["p"]] * 7, labels)
    data = data_module("mmimdb", tmp_path, missing_ratio=0.5, per_gpu_batchsize=2)
    data.setup("fit")

    def samples(loader):
        return [int(i) for batch in loader for i in batch["sample_id"]]

    shares = []
    for rank in range(3):
        data.trainer = SimpleNamespace(world_size=3, global_rank=rank)
        shares.append(samples(data.val_dataloader()))
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    data.trainer = SimpleNamespace(world_size=1, global_rank=0)
    unbroken = samples(data.train_dataloader())
    data.resume_at(0, 2)
    assert samples(data.train_dataloader()) == unbroken[4:]


def test_simulation_varies_complete_samples_from_epoch_to_epoch(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow"))
    dataset.set_mask(np.array([0, 1, 0, 2]), simulate=0)
    workers = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "forkserver"}
    seen = {}
    for name, options in (("here", {}), ("worker", workers)):
        sampler = EpochSampler(dataset, seed=0)
        loader = DataLoader(dataset, batch_size=4, sampler=sampler, **options)
        seen[name] = []
        for epoch in range(12):
            sampler.set_epoch(epoch)
            (batch,) = loader
            seen[name].append(batch["missing_type"][batch["sample_id"].argsort()].tolist())
    by_row = np.array(seen["here"]).T
    assert [set(cases.tolist()) for cases in by_row] == [{0, 1, 2}, {1}, {0, 1, 2}, {2}]
    assert seen["worker"] == seen["here"]


@pytest.mark.parametrize("draw", ["nested", "stream"])
def test_shards_have_the_samples_and_masks_of_one_file(tmp_path, draw):
    plots = [[f"plot {i}", f"another plot of {i}"][: 1 + i % 2] for i in range(11)]
    columns = {"labels": [[i % 2, i // 2 % 2, 1] for i in range(11)], "images": [jpeg(20 * i) for i in range(11)]}
    folders = tmp_path / "one", tmp_path / "shards"
    for folder in folders:  # the stream of "val" depends on the rows of "train"
        folder.mkdir()
        write(folder / "mmimdb_dev.arrow", plots, columns["labels"])
    path = write(folders[0] / "mmimdb_train.arrow", plots, image_id=[f"{i:03d}" for i in range(11)], **columns)
    table, cuts = pa.ipc.open_file(path).read_all(), (0, 4, 5, 5, 11)  # one shard of one row, one of none
    for number, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False)):
        with pa.ipc.new_file(folders[1] / f"mmimdb_train-{number:05d}-of-00004.arrow", table.schema) as file:
            file.write_table(table.slice(start, stop - start))
    one, shards = (data_module("mmimdb", folder, missing_draw=draw, plots="all") for folder in folders)
    for data in (one, shards):
        data.setup("fit")
    assert one.mask_hashes == shards.mask_hashes
    assert one.fingerprints == shards.fingerprints
    first, second = one.datasets["train"], shards.datasets["train"]
    assert set(first.mask.tolist()) == {0, 1, 2}
    assert first.row_ids() == second.row_ids() == [f"{i:03d}" for i in range(11)]
    assert len(first) == len(second) == sum(map(len, plots))
    for sample, other in zip(first, second, strict=True):
        assert all(torch.equal(sample[key], other[key]) for key in sample)


def test_a_broken_image_is_one_line_in_a_worker_too(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow", images=[jpeg(0), jpeg(1), b"no image", jpeg(3)]))
    messages = set()
    for workers in (0, 1):
        with pytest.raises(UserError) as caught:
            list(DataLoader(dataset, batch_size=2, num_workers=workers))
        messages.add(str(caught.value))
    (message,) = messages
    assert "row 2" in message
    assert "Traceback" not in message
