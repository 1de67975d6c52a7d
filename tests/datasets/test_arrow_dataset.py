"""Arrow files to samples: states, plots, workers, and files that are not what they should be."""

from io import BytesIO
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from clip.datamodules.samplers import EpochSampler, ShareSampler
from clip.datasets import DATASETS, ArrowDataset
from clip.missing.masks import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.transforms import ClipTransform
from clip.utils.errors import UserError

CLASSES, SIZE = 3, 16
PLOTS = [["short", "a longer plot", "mid one"], ["only"], [], ["x", "yy"]]
BLANKS = [["", "  ", "first"], ["\n", "x"], [" "], ["a"]]


def letters(texts):
    """Ids that show which text was read: its letters' codes."""
    out = torch.zeros(len(texts), 77, dtype=torch.long)
    for row, text in zip(out, texts, strict=True):
        codes = [ord(letter) for letter in text[:77]]
        row[: len(codes)] = torch.tensor(codes, dtype=torch.long)
    return out


def read(tokens):
    return "".join(chr(code) for code in tokens if code)


def jpeg(shade):
    buffer = BytesIO()
    Image.new("RGB", (20, 30), (shade, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path, plots=PLOTS, labels=None, images=None, **columns):
    rows = len(plots)
    columns = {
        "image": images or [jpeg(60 * i) for i in range(rows)],
        "plots": plots,
        "label": labels or [[i % 2, 1, 0] for i in range(rows)],
    } | columns
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def open_dataset(*paths, **changes):
    arguments = {
        "text_column": "plots",
        "num_classes": CLASSES,
        "transform": ClipTransform(SIZE),
        "tokenize": letters,
    }
    return ArrowDataset(*paths, **(arguments | changes))


def test_what_a_sample_holds_in_each_state(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow"))
    dataset.set_missing(np.array([COMPLETE, MISSING_TEXT, COMPLETE, MISSING_IMAGE]))
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert {key: (tuple(x.shape), x.dtype) for key, x in batch.items()} == {
        "image": ((4, 3, SIZE, SIZE), torch.uint8),
        "tokens": ((4, 77), torch.int64),
        "label": ((4, CLASSES), torch.float32),
        "missing_type": ((4,), torch.int64),
        "sample_id": ((4,), torch.int64),
    }
    assert torch.equal(dataset.sample_labels(), batch["label"])
    assert [read(row) for row in batch["tokens"]] == ["short", "", "", "x"]
    assert batch["image"].flatten(1).any(1).tolist() == [False, True, True, False]
    assert batch["missing_type"].tolist() == [0, 1, 0, 2]
    assert batch["sample_id"].tolist() == [0, 1, 2, 3]
    assert batch["label"].tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]]


def test_a_missing_image_is_never_decoded(tmp_path):
    broken = [jpeg(0), b"no image", b"", jpeg(9)]
    dataset = open_dataset(write(tmp_path / "a.arrow", images=broken))
    dataset.set_missing(np.array([COMPLETE, MISSING_IMAGE, MISSING_IMAGE, COMPLETE]))
    assert len([dataset[i] for i in range(4)]) == 4
    dataset.set_missing(np.zeros(4, dtype=np.uint8))
    with pytest.raises(UserError, match="row 1"):
        dataset[1]


@pytest.mark.parametrize(
    ("plots", "rows", "texts"),
    [
        ("first", [0, 1, 2, 3], ["short", "only", "", "x"]),
        ("longest", [0, 1, 2, 3], ["a longer plot", "only", "", "yy"]),
        ("all", [0, 0, 0, 1, 3, 3], ["short", "a longer plot", "mid one", "only", "x", "yy"]),
    ],
)
def test_plot_policies(tmp_path, plots, rows, texts):
    dataset = open_dataset(write(tmp_path / "a.arrow"), plots=plots)
    assert dataset.rows.tolist() == rows
    assert [dataset.text(i) for i in range(len(dataset))] == texts
    states = np.array([MISSING_TEXT, COMPLETE, COMPLETE, MISSING_IMAGE])
    dataset.set_missing(states)
    assert [int(dataset[i]["missing_type"]) for i in range(len(dataset))] == states[rows].tolist()


def test_the_first_plot_is_the_first_that_is_not_blank(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow", plots=BLANKS))
    assert [dataset.text(i) for i in range(4)] == ["first", "x", "", "a"]


def test_simulation_varies_complete_samples_from_epoch_to_epoch(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow"), simulate=0)
    dataset.set_missing(np.array([COMPLETE, MISSING_TEXT, COMPLETE, MISSING_IMAGE]))
    workers = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "spawn"}
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
    assert [set(states.tolist()) for states in by_row] == [{0, 1, 2}, {1}, {0, 1, 2}, {2}]
    assert seen["worker"] == seen["here"]


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
    shares = [list(ShareSampler(7, world_size=3, rank=rank)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def test_workers_open_the_file_themselves(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow", plots=[["p" * 20_000]] * 50))
    dataset[0]
    assert len(ForkingPickler.dumps(dataset)) < 10_000
    loader = DataLoader(dataset, batch_size=25, num_workers=1, multiprocessing_context="spawn")
    assert sum(len(batch["label"]) for batch in loader) == 50


def test_a_text_is_tokenised_once_for_all_workers(tmp_path):
    calls = tmp_path / "calls"

    def counted(texts):
        with calls.open("a") as file:
            file.write("".join(f"{text}\n" for text in texts if text))
        return letters(texts)

    dataset = open_dataset(write(tmp_path / "a.arrow"), tokenize=counted)
    loader = DataLoader(dataset, batch_size=1, num_workers=2, multiprocessing_context="fork",
                        persistent_workers=True, sampler=EpochSampler(dataset, seed=0))  # fmt: skip
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        texts = {int(batch["sample_id"]): read(batch["tokens"][0]) for batch in loader}
        assert texts == {0: "short", 1: "only", 2: "", 3: "x"}
    assert sorted(calls.read_text().split()) == ["only", "short", "x"]


def test_integer_labels_and_files_without_ids(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow", labels=[0, 2, 1, 0]))
    assert dataset[1]["label"].item() == 2
    assert dataset[1]["label"].dtype == torch.int64
    assert dataset.row_ids() is None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"labels": [0, 1, 3, 0]}, ["row 2", "3", "0 to 2"]),
        ({"labels": [0, -1, 0, 0]}, ["row 1", "-1"]),
        ({"labels": [[0, 1]] * 4}, ["2 classes", "3"]),
        ({"labels": [[0, 1, 0], [0, 1, 7], [0] * 3, [0] * 3]}, ["row 1", "zeros and ones"]),
        ({"labels": [[0, 1], [0], [1], [1]]}, ["labels"]),
        ({"labels": ["a", "b", "c", "d"]}, ["labels"]),
    ],
)
def test_labels_out_of_range_are_refused_by_row(tmp_path, columns, words):
    with pytest.raises(UserError) as refusal:
        open_dataset(write(tmp_path / "a.arrow", **columns))
    assert all(word in str(refusal.value) for word in words)


def test_truncated_foreign_and_incomplete_files_are_refused(tmp_path):
    path = write(tmp_path / "a.arrow")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"\x89PNG" * 100, b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.arrow .*make_arrow"):
            open_dataset(path)
    with pytest.raises(UserError, match="lacks the columns.*'words'"):
        open_dataset(write(tmp_path / "b.arrow"), text_column="words")


@pytest.mark.parametrize("place", ["mmimdb_dev.arrow", "val.arrow", "mmimdb/val.arrow"])
def test_files_are_found_under_our_names_and_others(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert DATASETS["mmimdb"].find(tmp_path, "val") == [path]


def test_an_absent_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"make_arrow\.py --dataset hateful_memes"):
        DATASETS["hatememes"].find(tmp_path, "train")
