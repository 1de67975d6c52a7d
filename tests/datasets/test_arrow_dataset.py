"""Arrow files to samples: missing cases, plots, labels, workers, and damaged files."""

from io import BytesIO
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from clip.datamodules.datamodule import EpochSampler
from clip.datasets import DATASETS, ArrowDataset
from clip.datasets.arrow_dataset import fingerprint, observed_cases
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.transforms import ClipTransform
from clip.utils.errors import UserError

CLASSES, SIZE = 3, 16
PLOTS = [["short", "a longer plot", "mid one"], ["only"], [], ["x", "yy"]]
BLANKS = [["", "  ", "first"], ["\n", "x"], [" "], ["a"]]


def characters(texts):
    """Token ids that show which text was read: the codes of its characters."""
    out = torch.zeros(len(texts), 77, dtype=torch.long)
    for row, text in zip(out, texts, strict=True):
        codes = [ord(character) for character in text[:77]]
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
        "multilabel": True,
        "transform": ClipTransform(SIZE),
        "tokenize": characters,
    }
    return ArrowDataset(*paths, **(arguments | changes))


def test_a_sample_of_each_case(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow"))
    dataset.set_mask(np.array([COMPLETE, MISSING_TEXT, COMPLETE, MISSING_IMAGE]))
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
    dataset.set_mask(np.array([COMPLETE, MISSING_IMAGE, MISSING_IMAGE, COMPLETE]))
    assert len([dataset[i] for i in range(4)]) == 4
    dataset.set_mask(np.zeros(4, dtype=np.uint8))
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
    cases = np.array([MISSING_TEXT, COMPLETE, COMPLETE, MISSING_IMAGE])
    dataset.set_mask(cases)
    assert [int(dataset[i]["missing_type"]) for i in range(len(dataset))] == cases[rows].tolist()


def test_the_first_plot_is_the_first_that_is_not_blank(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow", plots=BLANKS))
    assert [dataset.text(i) for i in range(4)] == ["first", "x", "", "a"]


def test_workers_open_the_file_themselves(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.arrow", plots=[["p" * 20_000]] * 50))
    dataset[0]
    assert len(ForkingPickler.dumps(dataset)) < 10_000
    loader = DataLoader(dataset, batch_size=25, num_workers=1, multiprocessing_context="forkserver")
    assert sum(len(batch["label"]) for batch in loader) == 50


def test_a_text_is_tokenised_once_for_all_workers(tmp_path):
    calls = tmp_path / "calls"

    def counted(texts):
        with calls.open("a") as file:
            file.write("".join(f"{text}\n" for text in texts if text))
        return characters(texts)

    dataset = open_dataset(write(tmp_path / "a.arrow"), tokenize=counted)
    options = {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True}
    loader = DataLoader(dataset, batch_size=1, sampler=EpochSampler(dataset, seed=0), **options)
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        texts = {int(batch["sample_id"]): read(batch["tokens"][0]) for batch in loader}
        assert texts == {0: "short", 1: "only", 2: "", 3: "x"}
    assert sorted(calls.read_text().split()) == ["only", "short", "x"]


def test_integer_and_one_hot_labels(tmp_path):
    one_hot = [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    for labels in ([0, 2, 1, 0], [0.0, 2.0, 1.0, 0.0], one_hot, [[*map(bool, row)] for row in one_hot]):
        dataset = open_dataset(write(tmp_path / "a.arrow", labels=labels), multilabel=False)
        assert dataset.labels.tolist() == [0, 2, 1, 0]
        assert dataset[1]["label"].dtype == torch.int64
    assert dataset.row_ids() is None


@pytest.mark.parametrize(
    ("multilabel", "labels", "words"),
    [
        (False, [0, 1, 3, 0], ["row 2", "3", "0 to 2"]),
        (False, [0, -1, 0, 0], ["row 1", "-1"]),
        (False, [0.0, 0.0, float("nan"), 1.0], ["row 2"]),
        (False, [[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 1]], ["row 1", "[1, 0, 1]"]),
        (False, [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]], ["row 2"]),
        (False, [[0, 1]] * 4, ["(4, 2)", "(4, 3)"]),
        (True, [[0, 1]] * 4, ["(4, 2)", "(4, 3)"]),
        (True, [[0, 1, 0], [0, 1, 7], [0] * 3, [0] * 3], ["row 1", "7"]),
        (True, [0, 1, 2, 0], ["(4,)", "(4, 3)"]),
        (True, [[0, 1], [0], [1], [1]], ["labels"]),
        (True, ["a", "b", "c", "d"], ["labels"]),
    ],
)
def test_labels_that_are_not_valid_are_named(tmp_path, multilabel, labels, words):
    with pytest.raises(UserError) as refusal:
        open_dataset(write(tmp_path / "a.arrow", labels=labels), multilabel=multilabel)
    assert all(word in str(refusal.value) for word in words)
    assert "\n" not in str(refusal.value)


def test_damaged_files_and_wrong_columns_are_refused(tmp_path):
    path = write(tmp_path / "a.arrow")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"\x89PNG" * 100, b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.arrow .*make_arrow"):
            open_dataset(path)
    with pytest.raises(UserError, match="words"):
        open_dataset(write(path), text_column="words")
    for wrong in ({"images": ["text"] * 4}, {"plots": ["a"] * 4}):
        with pytest.raises(UserError, match=r"a\.arrow .*string"):
            open_dataset(write(path, **wrong))


def test_a_compressed_file_is_read(tmp_path):
    plain = open_dataset(write(tmp_path / "a.arrow"))
    with pa.ipc.new_file(
        tmp_path / "b.arrow", plain.table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(plain.table)
    packed = open_dataset(tmp_path / "b.arrow")
    assert all(torch.equal(plain[i]["image"], packed[i]["image"]) for i in range(4))


def test_observed_cases_are_read_from_chunks_and_slices():
    texts = [["a"], [""], [], None, [" \n", None], ["", "b"], ["c"], ["d"], [""]]
    images = [b"i", b"i", b"i", b"i", b"i", b"i", None, b"", b""]
    whole = pa.table({"image": pa.array(images, pa.binary()), "words": pa.array(texts, pa.list_(pa.string()))})
    wanted = [0, 1, 1, 1, 1, 0, 2, 2, 1]
    parts = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 5), whole.slice(7)])
    for table in (whole, parts):
        assert observed_cases(table, "words").tolist() == wanted
    assert observed_cases(whole.slice(4, 4), "words").tolist() == wanted[4:8]
    assert observed_cases(whole.slice(0, 0), "words").tolist() == []


def test_a_fingerprint_sees_every_value_and_the_order_of_shards(tmp_path):
    one, other = write(tmp_path / "a.arrow"), write(tmp_path / "b.arrow", plots=[["x"]] * 4)
    assert fingerprint(one, other) != fingerprint(other, one)
    base = fingerprint(one)
    changes = (
        {"labels": [[1, 1, 1]] * 4},
        {"plots": [*PLOTS[:3], [None]]},
        {"images": [jpeg(60 * i + 1) for i in range(4)]},
    )
    for change in changes:
        assert fingerprint(write(tmp_path / "c.arrow", **change)) != base
    assert fingerprint(write(tmp_path / "d.arrow")) == base


@pytest.mark.parametrize("place", ["mmimdb_dev.arrow", "val.arrow", "mmimdb/val.arrow"])
def test_files_are_found_under_our_and_the_published_names(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert DATASETS["mmimdb"].find(tmp_path, "val") == [path]
