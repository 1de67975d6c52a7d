"""Readers of data, of missing tables and of rows to predict."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.hostile.files import (
    FORMATS,
    LABELS,
    SPLITS,
    TABLES,
    Reader,
    picture,
    put,
    write_table,
)
from clip.datasets import ArrowDataset
from clip.datasets.shards import read_label_metadata
from clip.inference.readers import base_of, read_rows
from clip.inference.samples import read_sample
from clip.inspection import check as data_check
from clip.inspection.contact_sheet import draw_sheet
from clip.missing import importers as missing_import
from clip.modules.objectives import TASKS
from clip.transforms import ClipTransform
from clip.utils.errors import UserError
from vilt.utils import arrow, raw, write_food101, write_hatememes, write_manifest, write_mmimdb


def mmimdb(folder: Path) -> Reader:
    """Raw MM-IMDb: split.json and a label file."""
    names = dict(zip(SPLITS, "abc", strict=True))
    for name in "abc":
        put(folder / f"raw/images/{name}.jpeg", picture(".jpeg"))
        put(folder / f"raw/labels/{name}.json", {"plot": ["p", "q"], "genres": ["Drama", "News"]})
    split = put(folder / "raw/split.json", {key: [name] for key, name in names.items()})
    return Reader([split, folder / "raw/labels/a.json"],
                  lambda _: write_mmimdb.make_arrow(folder / "raw", folder / "out"))  # fmt: skip


def food101(folder: Path) -> Reader:
    """Raw Food-101: its three json files and the titles in csv."""
    base, names = folder / "raw", [f"pie_{i}.jpg" for i in range(3)]
    for name, place in zip(names, ("train", "train", "test"), strict=True):
        put(base / f"images/{place}/pie/{name}", picture(".jpeg"))
    put(base / "split.json", {"train": names[:1], "val": names[1:2], "test": names[2:]})
    put(base / "class_idx.json", {"pie": 0, "soup": 1})
    put(base / "text.json", {name: "a pie" for name in names})
    titles = put(base / "texts/train_titles.csv", b"".join(b'%s,"a pie",pie\n' % name.encode()
                                                          for name in names))  # fmt: skip
    put(base / "texts/test_titles.csv", titles.read_bytes())
    texts = (base / "text.json").read_bytes()

    def read(spoiled: Path) -> None:
        (base / "text.json").write_bytes(texts) if spoiled != base / "text.json" else None
        if spoiled == titles:
            (base / "text.json").unlink()
        write_food101.make_arrow(base, folder / "out")

    return Reader([base / "split.json", base / "class_idx.json", base / "text.json", titles], read)


def memes(folder: Path) -> Reader:
    """Raw Hateful Memes: a jsonl file."""
    put(folder / "raw/img/1.png", picture())
    lines = [{"id": i, "img": "img/1.png", "label": i % 2, "text": "words"} for i in range(3)]
    files = [put(folder / f"raw/{split}.jsonl", lines) for split in SPLITS]
    return Reader(files[:1], lambda _: write_hatememes.make_arrow(folder / "raw", folder / "out"))


def manifest(folder: Path) -> Reader:
    """A manifest of each kind."""
    put(folder / "a.png", picture())
    files = [write_table(folder / f"m{suffix}", LABELS) for suffix in TABLES]
    return Reader(files, lambda path: write_manifest.make_arrow(path, folder / "out"))


def converted_images(folder: Path) -> Reader:
    """What the converter decodes."""
    files = [put(folder / f"a{suffix}", picture(suffix)) for suffix in FORMATS]
    return Reader(files, lambda path: raw.stored(path.read_bytes(), ClipTransform(16).pixels))


def predicted_images(folder: Path) -> Reader:
    """What a user asks about."""
    files = [put(folder / f"a{suffix}", picture(suffix)) for suffix in FORMATS]
    transform = ClipTransform(16)
    return Reader(files, lambda path: read_sample(path, "text", "row 1", transform))


def _arrows(folder: Path) -> list[Path]:
    images = [picture(), b"", picture(".jpeg")]
    columns = {"image": pa.array(images, pa.binary()), "text": [["a"], ["b", ""], [""]],
               "image_id": ["1", "2", "3"], "split": ["train"] * 3}  # fmt: skip
    out = []
    kinds = {"multiclass": [0, 1, 2], "multilabel": [[1, 0, 1], [0, 0, 0], [1, 1, 1]]}
    for kind, label in kinds.items():
        table = pa.table(columns | {"label": label})
        schema = arrow.with_classes(table.schema, ["x", "y", "z"], kind)
        out.append(folder / f"{kind}.arrow")
        with pa.ipc.new_file(out[-1], schema) as writer:
            writer.write_table(table.cast(schema))
    return out


def _dataset(path: Path) -> ArrowDataset:
    return ArrowDataset(path, text_column="text", num_classes=3, multilabel=path.stem == "multilabel",
                        transform=ClipTransform(16),
                        tokenize=lambda texts: torch.zeros(len(list(texts)), 77, dtype=torch.long),
                        plots="all")  # fmt: skip


def arrow_files(folder: Path) -> Reader:
    """An arrow file, to train on; every sample of it."""

    def read(path: Path) -> None:
        read_label_metadata(path)
        dataset = _dataset(path)
        dataset.row_ids()
        for index in range(len(dataset)):
            assert dataset[index]["image"].shape == (3, 16, 16)
            dataset.text(index)

    return Reader(_arrows(folder), read)


def checked_data(folder: Path) -> Reader:
    """An arrow file, in the check of a data set."""
    task = TASKS["food101"]
    return Reader(_arrows(folder), lambda path: data_check.survey(
        "train", _dataset(path), task, lambda texts: list(map(len, texts))))  # fmt: skip


def contact_sheets(folder: Path) -> Reader:
    """An arrow file, as a picture of a few samples."""
    return Reader(_arrows(folder), lambda path: draw_sheet(
        {"train": _dataset(path)}, ["x", "y", "z"], folder / "sheet.png"))  # fmt: skip


def downloaded_arrows(folder: Path) -> Reader:
    """An arrow file that comes from the hub."""
    return Reader(_arrows(folder), lambda path: arrow.check_arrow(path, ["image", "label"]))


def foreign_tables(folder: Path) -> Reader:
    """A missing table of others, of each kind."""
    rows = [{"id": f"00{i}", "text_missing": i % 2, "image_missing": 0} for i in range(9)]
    files = [write_table(folder / f"t{suffix}", rows) for suffix in (".jsonl", ".csv")]
    files += [folder / "t.npz", folder / "t.pt"]
    np.savez_compressed(files[2], np.arange(9) % 3)
    torch.save(torch.arange(9) % 3, files[3])
    ids = [f"img/00{i}.png" for i in range(9)]
    return Reader(files, lambda path: missing_import.import_mask(path, 9, "train", ids))


def sources(folder: Path) -> Reader:
    """A table of things to predict, of each kind."""
    put(folder / "a.png", picture())
    rows = [{key: row[key] for key in ("image", "text")} for row in LABELS]
    files = [write_table(folder / f"t{suffix}", rows) for suffix in TABLES]
    transform = ClipTransform(16)

    def read(path: Path) -> None:
        for row in read_rows(path):
            is_path = isinstance(row.image, str) and row.image
            image = base_of(path) / row.image if is_path else row.image
            try:
                read_sample(image, row.text, f"row {row.number}", transform)
            except UserError:
                continue

    return Reader(files, read)
