"""Parts of a split: stratified, nested, the same for a seed, and recorded by a run."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clip.datasets.subset import stratified_subset
from tests.own_data import SHAPES, shapes
from tests.predicting import call
from vilt.utils import write_manifest


@pytest.mark.parametrize("multilabel", [False, True])
def test_classes_keep_their_shares_and_smaller_parts_are_nested(multilabel):
    label = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    labels = torch.nn.functional.one_hot(label, 3) if multilabel else label
    if multilabel:
        labels[:, 0] = 1  # the rarest class of a row decides
    half, tenth = stratified_subset(labels, 0.5, 3), stratified_subset(labels, 10, 3)
    assert np.bincount(label[half]).tolist() == [30, 15, 5]
    assert np.bincount(label[tenth]).tolist() == [6, 3, 1]
    assert set(tenth) < set(half)
    assert stratified_subset(labels, 0.5, 3).tolist() == half.tolist()
    assert stratified_subset(labels, 0.5, 4).tolist() != half.tolist()
    assert stratified_subset(labels, 1.0, 3).tolist() == list(range(100))


def test_a_run_trains_on_a_part_and_its_masks_stay_those_of_the_whole_split(tmp_path, settings, capsys):
    records = {}
    for name, limits in {"whole": [], "part": ["limit_train=0.5", "limit_val=3", "limit_test=5"]}.items():
        common = [*settings, f"log_dir={tmp_path}/{name}", "max_epoch=1", "val_check_interval=1.0", *limits]
        call("with", "task_finetune_mmimdb", *common)
        (path,) = (tmp_path / name).rglob("run.json")
        records[name] = json.loads(path.read_text())
    assert records["part"]["missing_tables"] == records["whole"]["missing_tables"]
    assert records["part"]["config"]["limit_train"] == 0.5
    call("with", "task_finetune_mmimdb", *common, "test_only=True", f"load_path={path.parent}")
    out = capsys.readouterr().out
    rows = [[int(n) for n in line.split()[1:7]] for line in out.splitlines() if line.startswith("test ")]
    assert [sum(row[3:]) for row in rows] == [5]
    call("sweep", "with", "task_finetune_mmimdb", *common, f"load_path={path.parent}", "sweep.ratios=[0.7]")
    with pytest.raises(SystemExit) as stopped:
        call("with", "task_finetune_mmimdb", *common, "limit_train=0.25", f"resume_from={path.parent}")
    assert "limit_train" in str(stopped.value)


def test_a_split_that_is_not_used_need_not_exist(tmp_path, settings):
    rows = [row | {"split": "train" if i % 4 else "val"} for i, row in enumerate(shapes(tmp_path, {"train": 12}))]
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    write_manifest.make_arrow(tmp_path / "table.csv", tmp_path / "arrow")
    assert sorted(path.name for path in (tmp_path / "arrow").iterdir()) == ["train.arrow", "val.arrow"]
    common = ["with", "task_finetune_manifest", *settings[1:], f"data_root={tmp_path}/arrow"]
    common += [f"log_dir={tmp_path}/result"]
    call(*common, "max_epoch=1", "class_weights=balanced")
    (run,) = (tmp_path / "result").iterdir()
    with pytest.raises(SystemExit) as stopped:
        call(*common, "test_only=True", f"load_path={run}")
    assert "test.arrow" in str(stopped.value)
    call("check", *common)
    (tmp_path / "arrow" / "val.arrow").unlink()
    with pytest.raises(SystemExit) as stopped:
        call(*common)
    assert "val.arrow" in str(stopped.value)


def test_class_names_of_a_hugging_face_data_set(tmp_path):
    rows = shapes(tmp_path, {"train": 6, "val": 3, "test": 3})
    names = list(SHAPES)
    paths = [row["image"] for row in rows]
    image = [{"bytes": (tmp_path / path).read_bytes() if path else None, "path": path} for path in paths]
    columns = {"image": image, "text": [row["text"] for row in rows], "split": [row["split"] for row in rows]}
    columns["label"] = [names.index(row["label"]) for row in rows]
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "table.parquet")
    report = write_manifest.make_arrow(tmp_path / "table.parquet", tmp_path / "arrow")
    assert all(name in report for name in names)
