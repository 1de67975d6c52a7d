"""make_arrow.py --dataset manifest: what comes out of the three file types, and what does not."""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.converter import convert
from tests.own_data import shapes, write_manifest
from tests.raw_data import draw
from vilt.utils import write_manifest as writer
from vilt.utils.raw import RawDataError

SUFFIXES = (".csv", ".jsonl", ".parquet")
FILES = ("train", "val", "test")


def table(path):
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def about(path):
    said = table(path).schema.metadata
    return json.loads(said[b"class_names"]), said[b"task_type"].decode()


def three(**columns):
    """One row a split, so that every file gets one."""
    return [{"image": "", "text": "t", "label": "ab"[i % 2], "split": split, **columns}
            for i, split in enumerate(FILES)]  # fmt: skip


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_file_types_give_the_same_files(tmp_path, suffix, several):
    rows = shapes(tmp_path, {"train": 8, "dev": 3, "test": 3}, several)
    report = writer.make_arrow(write_manifest(tmp_path / f"mine{suffix}", rows), tmp_path / "out")
    train = table(tmp_path / "out/train.arrow")
    assert train.schema.names == ["image", "text", "label", "image_id", "split"]
    picture = (tmp_path / "pictures/train0.png").read_bytes()
    assert train["image"][0].as_py() == picture
    assert train["image"][6].as_py() == b""
    assert train["text"].to_pylist()[3:5] == [["a circle, number 3 of train"], [""]]
    assert train["image_id"].to_pylist() == [str(n) for n in range(1, 9)]
    assert set(table(tmp_path / "out/val.arrow")["split"].to_pylist()) == {"val"}
    kind = "multilabel" if several else "multiclass"
    for split in FILES:
        assert about(tmp_path / f"out/{split}.arrow") == (["circle", "square", "star"], kind)
    wanted = [0, 1, 2, 0, 1, 2, 0, 1]
    if several:
        wanted = [[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 1], [1, 0, 0],
                  [1, 1, 0]]  # fmt: skip
    assert train["label"].to_pylist() == wanted
    assert "no text: 1 (pictures/train4.png)" in report
    assert "no image: 1 (row 7)" in report
    lines = {line.split()[0]: line.split()[1:] for line in report.splitlines()}
    assert lines["circle"] == (["6", "2", "2"] if several else ["3", "1", "1"])
    assert f"{kind}: 3 classes" in report


def test_the_command_line_skips_and_names_rows_that_cannot_be_used(tmp_path):
    draw(tmp_path / "mine/ok.png", 3)
    draw(tmp_path / "secret.png", 4)
    (tmp_path / "mine/bad.png").write_bytes(b"no image")
    rows = [
        *three(image="ok.png"),
        {"image": "../secret.png", "text": "up", "label": "a", "split": "train"},
        {"image": str(tmp_path / "secret.png"), "text": "abs", "label": "a", "split": "train"},
        {"image": "bad.png", "text": "broken", "label": "a", "split": "train"},
        {"image": "gone.png", "text": "absent", "label": "a", "split": "train"},
        {"image": "", "text": " \n", "label": "a", "split": "train"},
        {"image": "ok.png", "text": "whose?", "label": "", "split": "train"},
    ]
    path = write_manifest(tmp_path / "mine/list.csv", rows)
    report = convert("manifest", path, tmp_path / "out", "--num_workers", 2)
    assert table(tmp_path / "out/train.arrow").num_rows == 1
    assert report.splitlines()[1].split()[:4] == ["train", "1", "-", "6"]
    for reason in (
        "path leads out of the data folder: 2 (../secret.png, ",
        "image is unreadable: 1 (bad.png)",
        "image is absent: 1 (gone.png)",
        "no image and no text: 1 (row 8)",
        "no label: 1 (ok.png)",
        "binary: 2 classes",
    ):
        assert reason in report


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.txt", "image,text,label\n", "m.txt is no manifest: give a file that ends in .csv"),
        ("m.csv", "image,text\n,a\n", "has no column label, but image, text"),
        ("m.csv", "", "m.csv has no rows"),
        ("m.csv", "image,text,label\n", "m.csv has no rows"),
        ("m.csv", "image,text,label\n,one, two,a\n", "row 1 has more cells than the header"),
        ("m.csv", 'image,text,label\n,"open,a\n', "is no valid csv file (unexpected end"),
        ("m.csv", b"image,text,label\n,\xff,a\n", "is no valid csv file ('utf-8'"),
        ("m.csv", "image,text,label,split\n,t,a,valid\n", "row 1 has the split 'valid'; it is"),
        (
            "m.csv",
            "image,text,label\n,t,a\n,u,a\n",
            "has the classes ['a'] in rows that can be used",
        ),
        ("m.csv", "image,text,label,split\n,t,a,train\n,u,b,dev\n", "has no row for test"),
        ("m.jsonl", '{"image": "", "text": "", "label": 1}\n{', "row 2 is not valid JSON"),
        ("m.jsonl", "[1]\n", "row 1 is no JSON object"),
        ("m.jsonl", '{"image": 5, "text": "", "label": 1}', "row 1 has the image 5; give a text"),
        ("m.jsonl", '{"text": "a \\ud83d", "label": 1}', "half a character in its text, '\\ud83d'"),
        ("m.jsonl", '{"text": "t", "label": "\\ud83d"}', "half a character in its label"),
        ("m.jsonl", '{"label": 1, "split": "dev"}\n{"label": 2}', "row 2 differs from the rows"),
        ("m.jsonl", '{"label": 1}\n{"label": 2, "split": "dev"}', "which lack a split"),
        ("m.jsonl", "[" * 100_000, "row 1 is not valid JSON"),
        ("m.jsonl", '{"image": "", "text": "t", "label": true}', "row 1 has the label True"),
        ("m.jsonl", '{"image": "", "text": "t", "label": 0.5}', "row 1 has the label 0.5"),
        ("m.jsonl", '{"image": "", "text": "t", "label": ["a", ""]}', "has an empty label"),
        ("m.jsonl", '{"img": "", "text": "t", "label": "a"}', "no column image, but img"),
        ("m.parquet", "PAR1", "is no valid parquet file"),
    ],
)
def test_a_wrong_manifest_is_refused_before_anything_is_written(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RawDataError) as refusal:
        writer.make_arrow(tmp_path / name, tmp_path / "out")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_drawn_split_keeps_images_together_and_old_rows_in_place(tmp_path):
    rows = [{"image": f"{i // 2}.png", "text": f"{i}", "label": "ab"[i % 2]} for i in range(600)]
    draw_ = writer.Split((0.5, 0.25, 0.25), seed=1)

    def splits(rows, draw_=draw_):
        path = write_manifest(tmp_path / "m.jsonl", rows)
        return [draw_.of(entry) for entry in writer.read_entries(path)]

    found = splits(rows)
    assert found[::2] == found[1::2]
    assert splits(rows[200:]) == found[200:]
    assert splits(rows, writer.Split((0.5, 0.25, 0.25), seed=2)) != found
    assert splits([row | {"image": f"./{row['image']}"} for row in rows]) == found
    assert [abs(found.count(split) / 600 - share) < 0.1 for split, share in
            zip(FILES, (0.5, 0.25, 0.25), strict=True)] == [True] * 3  # fmt: skip


def test_a_failed_conversion_leaves_all_earlier_splits(tmp_path):
    """Else a row that moved from test to train would be in both."""
    rows = [row | {"text": row["split"]} for row in three()]
    writer.make_arrow(write_manifest(tmp_path / "m.jsonl", rows), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    moved = [rows[2] | {"split": "train"}, rows[1], rows[0] | {"split": "test", "image": "gone"}]
    with pytest.raises(RawDataError, match=r"no row for .*test.arrow: image is absent"):
        writer.make_arrow(write_manifest(tmp_path / "m.jsonl", moved), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_nan_is_an_empty_cell_and_a_text_may_be_long(tmp_path):
    rows = three(image=float("nan"), text="long " * 40_000)
    for name in ("m.jsonl", "m.csv"):
        given = [row | {"image": ""} for row in rows] if name == "m.csv" else rows
        writer.make_arrow(write_manifest(tmp_path / name, given), tmp_path)
        assert table(tmp_path / "test.arrow")["image"].to_pylist() == [b""]
        assert table(tmp_path / "test.arrow")["text"].to_pylist() == [[rows[0]["text"]]]


def test_numbers_are_classes_in_their_order(tmp_path):
    labels = [10, 9, 2, 10, 9, 2]
    rows = [{"image": None, "text": "t", "label": label, "split": FILES[i % 3]}
            for i, label in enumerate(labels)]  # fmt: skip
    for suffix in SUFFIXES:
        writer.make_arrow(write_manifest(tmp_path / f"m{suffix}", rows), tmp_path)
        assert about(tmp_path / "train.arrow") == (["2", "9", "10"], "multiclass")
        assert table(tmp_path / "train.arrow")["label"].to_pylist() == [2, 2]


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
NAMES = WORDS.map(str.strip).filter(lambda name: name and "|" not in name)
LABELS = st.one_of(
    st.lists(NAMES, min_size=5, max_size=9),
    st.lists(st.lists(NAMES, max_size=3), min_size=5, max_size=9),
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SUFFIXES), LABELS, st.lists(WORDS, min_size=9, max_size=9))
def test_any_text_and_any_label_come_back(suffix, labels, texts):
    rows = [{"image": "", "text": f"x{text}", "label": label, "split": FILES[min(i, 2)]}
            for i, (label, text) in enumerate(zip(labels, texts, strict=False))]  # fmt: skip
    names = {name for label in labels for name in (label if isinstance(label, list) else [label])}
    with tempfile.TemporaryDirectory() as folder:
        path = write_manifest(Path(folder) / f"m{suffix}", rows)
        if len(names) < 2:
            with pytest.raises(RawDataError, match="at least two"):
                writer.make_arrow(path, Path(folder))
            return
        writer.make_arrow(path, Path(folder))
        classes, kind = about(Path(folder) / "test.arrow")
        found = [row for split in FILES
                 for row in table(Path(folder) / f"{split}.arrow").to_pylist()]  # fmt: skip
    assert set(classes) == names
    assert len(found) == len(rows)
    for row, back in zip(rows, found, strict=True):
        assert back["text"] == [row["text"]]
        label = back["label"]
        if kind == "multilabel":
            assert {classes[i] for i, one in enumerate(label) if one} == set(row["label"])
        else:
            assert classes[label] == row["label"]


def test_whole_numbers_that_pandas_wrote_as_floats_are_the_same_classes(tmp_path):
    def classes(*labels):
        rows = [{"image": "", "text": "t", "label": label, "split": FILES[i % 3]}
                for i, label in enumerate(labels)]  # fmt: skip
        writer.make_arrow(write_manifest(tmp_path / "m.csv", rows), tmp_path)
        return about(tmp_path / "train.arrow")[0]

    assert classes("10.0", "9.0", "2", "9", "2.0", "10") == ["2", "9", "10"]
    assert table(tmp_path / "val.arrow")["label"].to_pylist() == [1, 0]
    assert classes("1.0", "1.5", "1") == ["1", "1.0", "1.5"]  # names of versions, say


def test_a_class_of_rows_that_are_left_out_is_none(tmp_path):
    left_out = [{"image": "", "text": " "}, {"image": "gone.png", "text": "t"},
                {"image": "../up.png", "text": "t"}]  # fmt: skip
    rows = three() + [row | {"label": "ghost", "split": "train"} for row in left_out]
    report = writer.make_arrow(write_manifest(tmp_path / "m.jsonl", rows), tmp_path / "out")
    assert about(tmp_path / "out/train.arrow") == (["a", "b"], "binary")
    assert report.splitlines()[1].split()[:4] == ["train", "1", "-", "3"]
