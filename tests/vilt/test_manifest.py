"""make_arrow.py --dataset manifest: what comes out of the three file types, and what does not."""

import json
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip.utils.errors import UserError
from tests.converter import convert
from tests.own_data import shapes, write_manifest
from tests.raw_data import draw
from vilt.utils import write_manifest as writer

SUFFIXES = (".csv", ".jsonl", ".parquet")
FILES = ("train", "val", "test")


def table(path):
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def label_metadata(path):
    metadata = table(path).schema.metadata
    return json.loads(metadata[b"class_names"]), metadata[b"task_type"].decode()


def labelled(*labels, **columns):
    """One row per label, over the three splits in turn."""
    return [
        {"image": "", "text": "t", "label": label, "split": FILES[i % 3], **columns} for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_file_types_give_the_same_files(tmp_path, suffix, multilabel):
    rows = shapes(tmp_path, {"train": 8, "dev": 3, "test": 3}, multilabel)
    report = writer.make_arrow(write_manifest(tmp_path / f"mine{suffix}", rows), tmp_path / "out")
    train = table(tmp_path / "out/train.arrow")
    assert train.schema.names == ["image", "text", "label", "image_id", "split"]
    assert train["image"][0].as_py() == (tmp_path / "pictures/train0.png").read_bytes()
    assert train["image"][6].as_py() == b""
    assert train["text"].to_pylist()[3:5] == [["a circle, number 3 of train"], [""]]
    assert train["image_id"].to_pylist() == [str(n) for n in range(1, 9)]
    assert set(table(tmp_path / "out/val.arrow")["split"].to_pylist()) == {"val"}
    task_type = "multilabel" if multilabel else "multiclass"
    for split in FILES:
        assert label_metadata(tmp_path / f"out/{split}.arrow") == (["circle", "square", "star"], task_type)
    numbers = [[0], [0, 1], [2], [0], [1], [0, 2], [0], [0, 1]]
    expected = [[int(n in row) for n in range(3)] for row in numbers] if multilabel else [0, 1, 2, 0, 1, 2, 0, 1]
    assert train["label"].to_pylist() == expected
    assert "no text: 1 (pictures/train4.png)" in report
    assert "no image: 1 (row 7)" in report
    lines = {line.split()[0]: line.split()[1:] for line in report.splitlines()}
    assert lines["circle"] == (["6", "2", "2"] if multilabel else ["3", "1", "1"])


def test_the_command_line_skips_and_names_rows_that_cannot_be_used(tmp_path):
    draw(tmp_path / "mine/ok.png", 3)
    draw(tmp_path / "secret.png", 4)
    (tmp_path / "mine/bad.png").write_bytes(b"no image")
    absolute = str(tmp_path / "mine/ok.png")
    rows = [
        *labelled("a", "b", "a", image="ok.png"),
        {"image": "../secret.png", "text": "up", "label": "a", "split": "train"},
        {"image": absolute, "text": "an absolute path inside", "label": "a", "split": "train"},
        {"image": "bad.png", "text": "broken", "label": "a", "split": "train"},
        {"image": "gone.png", "text": "absent", "label": "ghost", "split": "train"},
        {"image": "", "text": " \n", "label": "a", "split": "train"},
        {"image": "ok.png", "text": "whose?", "label": "", "split": "train"},
    ]
    path = write_manifest(tmp_path / "mine/list.csv", rows)
    report = convert("manifest", path, tmp_path / "out", "--num_workers", 2)
    assert table(tmp_path / "out/train.arrow")["text"].to_pylist() == [["t"], ["an absolute path inside"]]
    assert report.splitlines()[0].split() == ["split", "written", "skipped", "why"]
    assert report.splitlines()[1].split()[:3] == ["train", "2", "5"]
    check = report.splitlines()[-1].partition(": ")[2].split()
    assert check == ["python", "run.py", "check", "with", "task_finetune_manifest", f"data_root={tmp_path}/out"]
    for name in ("../secret.png", "bad.png", "gone.png", "row 8", "ok.png"):
        assert f": 1 ({name})" in report
    assert label_metadata(tmp_path / "out/train.arrow") == (["a", "b"], "binary")  # ghost has no usable row


@pytest.mark.parametrize(
    "wrong", ["pictures/{}.png", "pic\\{}.png", "https://a.b/{}.png", "/data/{}.png", "{}", "{}.PNG"]
)
def test_image_paths_that_are_wrong_in_the_same_way_are_refused(tmp_path, wrong):
    for i in range(7):
        draw(tmp_path / f"{i}.png", i)
    rows = [row | {"image": wrong.format(i)} for i, row in enumerate(labelled(*"abababa"))]
    path = write_manifest(tmp_path / "m.csv", [*rows, *labelled("a", "b", "a")])
    with pytest.raises(UserError) as caught:
        writer.make_arrow(path, tmp_path / "out")
    message = str(caught.value).replace("\\\\", "\\")
    assert "7 of 7" in message
    assert repr(wrong.format(0)).replace("\\\\", "\\") in message
    assert str(tmp_path) in message or wrong.startswith("/")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["nan", "NULL", "None", "N/A"])
def test_words_for_empty_cells_make_a_modality_missing(tmp_path, word):
    draw(tmp_path / "a.png", 1)
    rows = [*labelled("a", "b", "a", image="a.png", text=word), *labelled("a", "b", "a", image=word)]
    writer.make_arrow(write_manifest(tmp_path / "m.csv", rows), tmp_path)
    assert table(tmp_path / "train.arrow")["text"].to_pylist() == [[""], ["t"]]
    assert [len(image) > 0 for image in table(tmp_path / "train.arrow")["image"].to_pylist()] == [True, False]


def test_quotes_within_a_label_are_part_of_it(tmp_path):
    rows = labelled("""['rock "n" "roll"']""", """['the "A" "B"', 'x']""", "['x']")
    writer.make_arrow(write_manifest(tmp_path / "m.csv", rows), tmp_path)
    assert label_metadata(tmp_path / "train.arrow")[0] == ['rock "n" "roll"', 'the "A" "B"', "x"]


@pytest.mark.parametrize("form", ["['Drama', 'Comedy']", '["Drama", "Comedy"]', "['Drama' 'Comedy']", "Drama|Comedy"])
def test_lists_as_text_are_several_labels(tmp_path, form):
    single = form.replace("Comedy", "").replace(", ''", "").replace(" ''", "").replace(', ""', "")
    rows = labelled(form, single, form, single)
    writer.make_arrow(write_manifest(tmp_path / "m.csv", rows), tmp_path)
    assert label_metadata(tmp_path / "train.arrow") == (["Comedy", "Drama"], "multilabel")
    assert table(tmp_path / "train.arrow")["label"].to_pylist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("labels", [("Drama, Comedy", "Drama"), ("Drama;Comedy", "Comedy;War"), ("[Drama, War]", "a")])
def test_lists_with_other_separators_are_refused_with_the_accepted_form(tmp_path, labels):
    with pytest.raises(UserError, match=r"a\|b"):
        writer.make_arrow(write_manifest(tmp_path / "m.csv", labelled(*labels, labels[0])), tmp_path)


def test_a_name_may_have_commas_and_many_classes_of_one_row_are_warned_of(tmp_path):
    labels = ["salt, fine", "pepper; black", *"abcd"]
    report = writer.make_arrow(write_manifest(tmp_path / "m.csv", labelled(*labels)), tmp_path)
    assert label_metadata(tmp_path / "train.arrow")[0] == sorted(labels)
    assert "6 of 6" in report.splitlines()[-1]


def test_class_names_are_escaped_on_the_terminal_but_not_in_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    names = ["a\x1b[2J", "日本"]
    target = tmp_path / "映画"
    report = convert("manifest", write_manifest(tmp_path / "m.jsonl", labelled(*names, names[0])), target)
    assert "a\\x1b[2J" in report
    assert "\\u65e5\\u672c" in report
    assert label_metadata(target / "train.arrow")[0] == names


def test_images_in_a_parquet_file_as_hugging_face_stores_them(tmp_path):
    draw(tmp_path / "a.png", 1)
    data = (tmp_path / "a.png").read_bytes()
    images = [{"bytes": data, "path": "gone.png"}, {"bytes": None, "path": "a.png"}, None]
    rows = [row | {"image": image} for row, image in zip(labelled(0, 1, 0), images, strict=True)]
    writer.make_arrow(write_manifest(tmp_path / "m.parquet", rows), tmp_path)
    assert [table(tmp_path / f"{split}.arrow")["image"][0].as_py() for split in FILES] == [data, data, b""]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("m.txt", "image,text,label\n", "m.txt"),
        ("m.csv", "image,text\n,a\n", "no column label.*image, text"),
        ("m.csv", "", "no rows"),
        ("m.csv", "image,text,label\n", "no rows"),
        ("m.csv", "image,text,label\n,one, two,a\n", "row 1"),
        ("m.csv", "image,text,label,split\n,t,a,valid\n", "row 1.*'valid'"),
        ("m.csv", "image,text,label,split\n,t,a,train\n,u,a,dev\n,v,a,test\n", "1 classes"),
        ("m.jsonl", '{"image": "", "text": "", "label": 1}\n{', "row 2"),
        ("m.jsonl", '{"image": 5, "text": "", "label": 1}', "row 1.*image 5"),
        ("m.jsonl", '{"image": "", "text": [1], "label": 1}', "row 1.*text"),
        ("m.jsonl", '{"image": "", "text": "a \\ud83d", "label": 1}', "row 1"),
        ("m.jsonl", '{"image": "", "text": "t", "label": 1, "split": "dev"}\n{"label": 2}', "row 2.*split None"),
        ("m.jsonl", '{"image": "", "text": "t", "label": true}', "row 1.*label True"),
        ("m.jsonl", '{"image": "", "text": "t", "label": 0.5}', "row 1.*label 0.5"),
        ("m.jsonl", '{"image": "", "text": "t", "label": ["a", ""]}', "row 1.*empty label"),
        ("m.jsonl", '{"img": "", "text": "t", "label": "a"}', "no column image.*img"),
    ],
)
def test_a_wrong_manifest_is_refused_before_anything_is_written(tmp_path, name, content, named):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=named) as caught:
        writer.make_arrow(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_drawn_split_keeps_images_together_and_old_rows_in_place(tmp_path):
    rows = [{"image": f"{i // 2}.png", "text": f"{i}", "label": "ab"[i % 2]} for i in range(600)]
    shares = {"train": 0.5, "val": 0.75, "test": 1.0}

    def splits(rows, seed=1):
        path = write_manifest(tmp_path / "m.jsonl", rows)
        return [entry.draw_split(shares, seed) for entry in writer.read_manifest(path)]

    found = splits(rows)
    assert found[::2] == found[1::2]
    assert splits(rows[200:]) == found[200:]
    assert splits(rows, seed=2) != found
    assert splits([row | {"image": f"./{row['image']}"} for row in rows]) == found
    for split, share in zip(FILES, (0.5, 0.25, 0.25), strict=True):
        assert abs(found.count(split) / 600 - share) < 0.1


def test_integers_are_classes_in_their_order(tmp_path):
    for suffix in SUFFIXES:
        writer.make_arrow(write_manifest(tmp_path / f"m{suffix}", labelled(10, 9, 2, 10, 9, 2)), tmp_path)
        assert label_metadata(tmp_path / "train.arrow") == (["2", "9", "10"], "multiclass")
        assert table(tmp_path / "train.arrow")["label"].to_pylist() == [2, 2]
    # pandas writes integers beside an empty cell as floats
    writer.make_arrow(write_manifest(tmp_path / "m.csv", labelled("10.0", "9.0", "2", "9", "2.0", "10")), tmp_path)
    assert label_metadata(tmp_path / "train.arrow")[0] == ["2", "9", "10"]
    assert table(tmp_path / "val.arrow")["label"].to_pylist() == [1, 0]
    versions = labelled("1.0", "1.5", "1")
    writer.make_arrow(write_manifest(tmp_path / "m.csv", versions), tmp_path)
    assert label_metadata(tmp_path / "train.arrow")[0] == ["1", "1.0", "1.5"]


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
NAMES = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0|,;["), max_size=8)
    .map(str.strip)
    .filter(lambda name: name and name.lower() not in ("na", "nan", "null", "none"))
)
LABELS = st.one_of(
    st.lists(NAMES, min_size=5, max_size=9), st.lists(st.lists(NAMES, max_size=3), min_size=5, max_size=9)
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SUFFIXES), LABELS, st.lists(WORDS, min_size=9, max_size=9))
def test_any_text_and_any_label_come_back(suffix, labels, texts):
    rows = [
        {"image": "", "text": f"x{text}", "label": label, "split": FILES[min(i, 2)]}
        for i, (label, text) in enumerate(zip(labels, texts, strict=False))
    ]
    names = {name for label in labels for name in (label if isinstance(label, list) else [label])}
    folder = Path(tempfile.mkdtemp())
    try:
        path = write_manifest(folder / f"m{suffix}", rows)
        if len(names) < 2:
            with pytest.raises(UserError, match="classes"):
                writer.make_arrow(path, folder)
            return
        writer.make_arrow(path, folder)
        classes, task_type = label_metadata(folder / "test.arrow")
        found = [row for split in FILES for row in table(folder / f"{split}.arrow").to_pylist()]
    finally:
        shutil.rmtree(folder)
    assert set(classes) == names
    for row, back in zip(rows, found, strict=True):
        assert back["text"] == [row["text"]]
        if task_type == "multilabel":
            assert {classes[i] for i, one in enumerate(back["label"]) if one} == set(row["label"])
        else:
            assert classes[back["label"]] == row["label"]
