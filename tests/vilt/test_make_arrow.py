"""What make_arrow.py writes, through its command line, on tiny raw trees in the three layouts."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from tests import raw_data
from tests.converter import ROOT, convert
from tests.raw_data import write_json
from vilt.utils import write_food101, write_mmimdb

PUBLISHED_GENRES = tuple(
    name.strip()
    for line in (
        "Drama, Comedy, Romance, Thriller, Crime, Action, Adventure, Horror, Documentary, Mystery",
        "Sci-Fi, Fantasy, Family, Biography, War, History, Music, Animation, Musical, Western",
        "Sport, Short, Film-Noir",
    )
    for name in line.split(",")
)


def table(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def frame(path: Path) -> pd.DataFrame:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_pandas()


def test_mmimdb_keeps_every_plot_and_the_published_genre_order(tmp_path: Path) -> None:
    root = raw_data.mmimdb(tmp_path / "raw")
    label_file = root / "labels/0000000.json"
    genres = ["News", *PUBLISHED_GENRES[::-2]]
    write_json(label_file, {"plot": "one text, not a list", "genres": genres})

    write_json(root / "labels/0000004.json", {"plot": ["x"], "genres": ["News"]})

    report = convert("mmimdb", root, tmp_path)

    train = table(tmp_path / "mmimdb_train.arrow")
    assert train.schema.names == ["image", "plots", "label", "genres", "image_id", "split"]
    assert train.schema.field("label").type == pa.list_(pa.int64())
    assert train["image_id"].to_pylist() == ["0000000", "0000001", "0000002", "0000003"]
    assert train["plots"].to_pylist()[:2] == [
        ["one text, not a list"],
        ["A plot of 0000001.", "Another plot of 0000001."],
    ]
    assert train["genres"][0].as_py() == genres
    assert train["label"][0].as_py() == [1, 0] * 11 + [1]  # every second genre from Drama on
    assert train["label"][2].as_py() == [int(g == "Sport") for g in PUBLISHED_GENRES]
    assert train["image"][3].as_py() == (root / "images/0000003.jpeg").read_bytes()
    assert set(train["split"].to_pylist()) == {"train"}
    assert len(frame(tmp_path / "mmimdb_dev.arrow")) == 2
    assert "genre News ignored: 1 (0000000)" in report
    assert "label all zeros: 1 (0000004)" in report


def test_mmimdb_as_it_is_distributed_and_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Posters and label files are in one folder; a label file without plot or genres is skipped."""
    monkeypatch.setenv("HOME", str(tmp_path))
    root = raw_data.mmimdb(tmp_path / "raw")
    (root / "images").rename(root / "dataset")
    for path in (root / "labels").iterdir():
        path.rename(root / "dataset" / path.name)
    (root / "labels").rmdir()
    write_json(root / "dataset/0000000.json", {"genres": ["Drama"]})
    write_json(root / "dataset/0000001.json", {"plot": ["x"]})

    report = convert("mmimdb", "~/raw", "~/out")

    train = table(tmp_path / "out/mmimdb_train.arrow")
    assert train["image_id"].to_pylist() == ["0000002", "0000003"]
    assert train["image"][0].as_py() == (root / "dataset/0000002.jpeg").read_bytes()
    assert "no plot: 1 (0000000)" in report
    assert "no genres: 1 (0000001)" in report


def test_food101_reads_val_from_train_and_its_own_class_numbers(tmp_path: Path) -> None:
    root = raw_data.food101(tmp_path / "raw")
    texts = json.loads((root / "text.json").read_text())
    del texts["hot_dog_5.jpg"]
    write_json(root / "text.json", texts)

    report = convert("food101", root, tmp_path)

    val = frame(tmp_path / "food101_val.arrow")
    assert list(val.columns) == ["image", "text", "label", "image_id", "split"]
    assert val.image_id.tolist() == ["apple_pie_4.jpg"]
    assert val.text[0].tolist() == ["How to make apple_pie, part 4"]
    train = table(tmp_path / "food101_train.arrow")
    assert train["label"].to_pylist() == [1, 0, 1, 0]
    assert train.schema.field("label").type == pa.int64()
    assert val.image[0] == (root / "images/train/apple_pie/apple_pie_4.jpg").read_bytes()
    assert "no text: 1 (hot_dog_5.jpg)" in report


def test_food101_titles_come_from_the_csv_files_when_text_json_is_absent(tmp_path: Path) -> None:
    root = raw_data.food101(tmp_path / "raw")
    (root / "text.json").unlink()
    (root / "texts").mkdir()
    (root / "texts/train_titles.csv").write_text(
        "apple_pie_0.jpg,plain ,apple_pie\n"
        'hot_dog_1.jpg,"quoted, with ""this"" and, commas",hot_dog\n'
        'apple_pie_2.jpg,"never closed, but kept,apple_pie\n'
        "texts/hot_dog/hot_dog_3.txt,commas, and no quotes, at all,hot_dog\n"
        'apple_pie_4.jpg,"over\ntwo lines",apple_pie\n'
    )
    (root / "texts/test_titles.csv").write_text('apple_pie_6.jpg,[["a"]],apple_pie\n')

    report = convert("food101", root, tmp_path)

    assert table(tmp_path / "food101_train.arrow")["text"].to_pylist() == [
        ["plain "],
        ['quoted, with "this" and, commas'],
        ["never closed, but kept"],
        ["commas, and no quotes, at all"],
    ]
    assert table(tmp_path / "food101_val.arrow")["text"].to_pylist() == [["over two lines"]]
    assert table(tmp_path / "food101_test.arrow")["text"].to_pylist() == [['[["a"]]']]
    assert "no text: 2 (hot_dog_7.jpg, apple_pie_8.jpg)" in report


def test_a_name_that_comes_twice_is_noted_in_whatever_split(tmp_path: Path) -> None:
    root = raw_data.mmimdb(tmp_path / "raw")
    write_json(root / "split.json", {"train": ["0000000", "0000000", "0000001"],
                                     "dev": ["0000001"], "test": ["0000002"]})  # fmt: skip
    report = convert("mmimdb", root, tmp_path, "--num_workers", 0).splitlines()
    noted = [line.strip() for line in report if "duplicate" in line]
    assert noted[0].startswith("noted: duplicate image_id: 1 (0000000)")
    assert noted[1].startswith("noted: duplicate image_id: 1 (0000001)")
    assert len(noted) == 2


@pytest.mark.parametrize("below", [".", "data"])
def test_hateful_memes_in_both_layouts(tmp_path: Path, below: str) -> None:
    raw_data.hateful_memes(tmp_path / "raw" / below)
    convert("hateful_memes", tmp_path / "raw", tmp_path)
    test = table(tmp_path / "hatememes_test.arrow")
    assert test.schema.names == ["image", "text", "label", "image_id", "split"]
    assert test["label"].to_pylist() == [0, 1, 0]
    assert test["text"].to_pylist()[0] == ["words of meme 6"]
    assert test["image_id"].to_pylist()[0] == "img/00006.png"
    assert len(frame(tmp_path / "hatememes_dev.arrow")) == 2


def test_the_documented_columns_are_the_written_ones() -> None:
    text = (ROOT / "DATA.md").read_text(encoding="utf-8")
    for field in [*write_mmimdb.SCHEMA, *write_food101.SCHEMA]:
        kind = str(field.type).replace("element", "item").replace("list<item: ", "list<")
        assert f"| {field.name} | {kind} |" in text
    for count in [*write_mmimdb.PUBLISHED.values(), *write_food101.PUBLISHED.values()]:
        assert f"{count:,}" in text
