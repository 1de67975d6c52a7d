"""Rows that really lack a modality: they stay so, and simulation adds to them."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate

from clip.datamodules.datamodule import MissingModalityDataModule, MissingPlan
from clip.datasets.states import observed_cases
from clip.evaluation.predictions import CasePredictions, fix_observed, sweep
from clip.missing.files import file_name, load, load_or_draw, save
from clip.missing.masks import COMPLETE, SPLITS, describe, draw, draw_released_masks, merge_observed
from clip.modules.objectives import resolve_task
from clip.transforms import ClipTransform
from tests.own_data import shapes, write_manifest
from tests.toy_tables import TOY, TOY_TABLE, refusal, toy
from vilt.utils import write_manifest as writer

# Of the ten rows of TOY, in the order 1 7 4 5 9 0 8 2 3 6, row 7 has no text and row 3 no image:
# of the other eight, floor(0.7 * 8) = 5 lose something: 1 text, 4 image, 5 text, 9 image, 0 text.
REAL = bytes([0, 0, 0, 2, 0, 0, 0, 1, 0, 0])
WITH_REAL = [1, 1, 0, 2, 2, 1, 0, 1, 0, 2]
STATES = st.lists(st.integers(0, 2), max_size=60).map(bytes)


def test_hand_computed_table():
    assert draw(toy(observed=REAL)).tolist() == WITH_REAL
    assert draw(toy(ratio=0, observed=REAL)).tolist() == list(REAL)
    assert draw(toy(ratio=1, missing_type="text", observed=REAL)).tolist() == [1, 1, 1, 2] + [1] * 6


def test_rows_that_lack_nothing_change_nothing(tmp_path):
    same = toy(observed=bytes(10))
    assert same == TOY
    assert draw(same).tolist() == TOY_TABLE
    save(tmp_path / "t.npz", TOY_TABLE, same)
    with np.load(tmp_path / "t.npz") as file:
        written = json.loads(str(file["settings"]))
    assert written == {"dataset": "toy", "split": "train", "size": 10, "missing_type": "both",
                       "ratio": 0.7, "both_ratio": 0.5, "seed": 7}  # fmt: skip


@settings(deadline=None)
@given(STATES, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["text", "image", "both"]))
def test_real_states_stay_and_the_rate_is_that_of_the_others(observed, ratio, both_ratio, kind):
    asked = toy(len(observed), kind, ratio, both_ratio, observed=observed)
    states = np.frombuffer(observed, dtype=np.uint8)
    whole = states == COMPLETE
    for table in (draw(asked), draw_released_masks([asked])["train"]):
        assert np.array_equal(table[~whole], states[~whole])
        lost = int((table[whole] != COMPLETE).sum())
        assert lost <= whole.sum() * ratio + 1e-9 < lost + 1 + 1e-6
    few = draw(toy(len(observed), kind, ratio / 2, both_ratio, observed=observed))
    assert np.array_equal(draw(asked)[few != COMPLETE], few[few != COMPLETE])


def test_a_kept_table_is_refused_for_other_real_states(tmp_path):
    asked = toy(observed=REAL)
    assert load_or_draw(tmp_path, asked).tolist() == WITH_REAL
    path = tmp_path / file_name(asked)
    assert load(path, asked).tolist() == WITH_REAL
    for other in (TOY, toy(observed=REAL[::-1])):
        assert "has observed=" in refusal(load, path, other)
    save(path, TOY_TABLE, TOY)
    assert "has observed=None" in refusal(load, path, asked)


def test_a_table_made_elsewhere_never_takes_the_other_modality():
    table, observed = np.array([0, 1, 2, 1, 2, 0]), np.array([1, 2, 1, 1, 0, 0])
    assert merge_observed(table, observed).tolist() == [1, 2, 1, 1, 2, 0]


def test_the_line_of_a_run_tells_real_from_simulated():
    asked = toy(observed=REAL)
    assert describe(draw(asked), asked, asked.observed_cases()) == (
        "train: 3 complete, 4 without text, 3 without image (missing both at 0.7; really without "
        "text 1, without image 1; simulated 5 of the other 8)"
    )


def test_states_are_read_from_chunks_and_slices():
    texts = [["a"], [""], [], None, [" \n", None], ["", "b"], ["c"], ["d"], [""]]
    images = [b"i", b"i", b"i", b"i", b"i", b"i", None, b"", b""]
    whole = pa.table({"image": pa.array(images, pa.binary()),
                      "words": pa.array(texts, pa.list_(pa.string()))})  # fmt: skip
    wanted = [0, 1, 1, 1, 1, 0, 2, 2, 1]
    parts = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 5), whole.slice(7)])
    for table in (whole, parts):
        assert observed_cases(table, "words").tolist() == wanted
    assert observed_cases(whole.slice(4, 4), "words").tolist() == wanted[4:8]
    assert observed_cases(whole.slice(0, 0), "words").tolist() == []


def test_a_sample_without_a_text_is_scored_without_it_in_every_cell(tmp_path):
    """Complete: always right; without text: always wrong; sample 0 never had a text."""
    right = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    logits = fix_observed(torch.stack([right, -right, right]), torch.tensor([1, 0]))
    assert torch.equal(logits[:, 0], -right[0].expand(3, 2))
    assert torch.equal(logits[:, 1], torch.stack([right[1], -right[1], right[1]]))
    label_metadata = {"class_names": ["no", "yes"], "task_type": "binary"}
    found = CasePredictions(logits, torch.tensor([1, 0]), np.arange(2), 2, "test",
                             {"task": "manifest"} | label_metadata, {"missing_text": [0]})  # fmt: skip
    found.save(tmp_path / "p.arrow")
    back = CasePredictions.load(tmp_path / "p.arrow", "manifest", "test")
    assert back.observed.tolist() == [1, 0]

    def cell(kind, ratio, seed):
        return draw(toy(2, kind, ratio, observed=back.observed.tobytes()))

    scores = sweep(back, resolve_task("manifest", label_metadata), cell, ["text", "image"], [0.0, 1.0], [7])
    assert scores["accuracy"].tolist() == [0.5, 0.0, 0.5, 0.5]


def data_module(folder, plan):
    return MissingModalityDataModule(
        dataset="manifest", data_root=folder, num_classes=3, plan=plan, collate=default_collate,
        transform=ClipTransform(4), num_workers=0,
        tokenize=lambda texts: torch.tensor([[len(text)] for text in texts]),
    )  # fmt: skip


def test_a_data_module_keeps_what_is_real_in_a_table_made_elsewhere(tmp_path):
    rows = shapes(tmp_path, {"train": 3, "dev": 3, "test": 7})
    writer.make_arrow(write_manifest(tmp_path / "m.jsonl", rows), tmp_path)
    table = "\n".join(["missing_type", "2", "1", "0", "0", "2", "0", "1"])
    (tmp_path / "test.csv").write_text(table)
    ratios, types = dict.fromkeys(SPLITS, 0.0), dict.fromkeys(SPLITS, "both")
    data = data_module(tmp_path, MissingPlan(types, ratios, files={"test": tmp_path / "test.csv"}))
    data.setup("test")
    assert data.datasets["test"].missing.tolist() == [2, 1, 0, 0, 1, 0, 2]


@pytest.mark.parametrize("how", ["nested", "stream"])
def test_a_data_module_gives_batches_of_what_is_there(tmp_path, how):
    rows = shapes(tmp_path, {"train": 21, "dev": 7, "test": 7})
    writer.make_arrow(write_manifest(tmp_path / "m.jsonl", rows), tmp_path)
    ratios = {"train": 1, "val": 0.5, "test": 0.0}
    plan = MissingPlan(dict.fromkeys(SPLITS, "text"), ratios, draw=how)
    data = data_module(tmp_path, plan)
    data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    no_image = [i % 7 == 6 for i in range(21)]
    assert [int(train[i]["missing_type"]) for i in range(21)] == [2 if no else 1 for no in no_image]
    # Of seven validation rows the fifth has no text and the last no image: two of five are taken.
    assert np.bincount(val.missing).tolist() == [3, 3, 1]
    assert val.missing[[4, 6]].tolist() == [1, 2]
    if how == "stream":
        asked = [plan.settings("manifest", split, one.observed) for split, one in data.datasets.items()]
        assert val.missing.tolist() == draw_released_masks(asked)["val"].tolist()
    data.setup("test")
    assert data.datasets["test"].missing.tolist() == [0, 0, 0, 0, 1, 0, 2]
