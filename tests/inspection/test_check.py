"""The check command: what it reports about a data set before training, and its contact sheet."""

import pyarrow as pa
import pytest
from PIL import Image

import run
from tests.own_data import shapes, write_manifest
from vilt.utils import write_manifest as converter
from vilt.utils.arrow import with_classes

COUNTS = {"train": 21, "dev": 14, "test": 14}


@pytest.fixture
def check(settings, tmp_path, capsys):
    """Run the command; return the words of each line that it prints."""

    def call(data_root, *words, task="manifest"):
        place = [f"data_root={data_root}", f"log_dir={tmp_path}/log"]
        run.command_line(["run.py", "check", "with", f"task_finetune_{task}", *settings[1:], *place, *words])
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    return call


def convert(folder, rows):
    converter.make_arrow(write_manifest(folder / "mine.csv", rows), folder / "arrow")
    return folder / "arrow"


def spoil_image(path, row):
    """Replace the image of a row by bytes that are not an image."""
    table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
    images = table.column("image").to_pylist()
    images[row] = b"not an image"
    table = table.set_column(table.schema.get_field_index("image"), table.schema.field("image"), [images])
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def test_check_reports_what_a_data_set_contains(check, tmp_path):
    rows = shapes(tmp_path, COUNTS)
    rows[1] |= {"image": rows[0]["image"]}  # within train
    rows[21] |= {"image": rows[2]["image"], "text": rows[2]["text"]}  # of train in val
    rows[22] |= {"image": rows[2]["image"]}
    rows[3] |= {"text": "word " * 200}
    root = convert(tmp_path, rows)
    spoil_image(root / "test.arrow", 3)
    lines = check(root)
    assert ["manifest:", "multiclass,", "3", "classes"] in lines
    assert ["train", "21", "14", "4", "3", "0"] in lines  # rows, complete, missing text, missing image, no class
    assert ["circle", "7", "5", "5"] in lines
    length = next(line for line in lines if line[0:1] == ["train"] and line[-1] == "%")
    assert length[-2] == "5.9"  # one of 17 texts
    assert int(length[3]) >= 202
    assert ["train", "12", "12", "12", "9", "9", "9"] in lines
    assert any(line[:2] == ["test:", "1"] and line[-1] == "3" for line in lines)  # undecodable row
    assert ["train", "1", "0"] in lines
    assert ["val", "in", "train", "2", "1"] in lines
    assert ["test", "in", "train", "0", "0"] in lines
    with Image.open(tmp_path / "log/arrow_manifest_samples.png") as picture:
        assert picture.size == (1440, 960)
        colors = picture.convert("RGB").resize((60, 40)).getcolors(60 * 40)
        assert len(colors) > 20


def test_check_skips_a_split_without_a_file_and_counts_words_without_a_tokenizer(check, tmp_path):
    root = convert(tmp_path, shapes(tmp_path, COUNTS))
    (root / "val.arrow").unlink()
    lines = check(root, f"vit={tmp_path}/nowhere")
    assert any(line[:1] == ["val:"] for line in lines)
    assert ["test", "14", "10", "2", "2", "0"] in lines
    assert any("words," in line for line in lines)
    with Image.open(tmp_path / "log/arrow_manifest_samples.png") as picture:
        assert picture.size == (1440, 640)


def test_check_raises_if_a_published_task_has_fewer_classes(check, arrow_folder, tmp_path):
    for path in arrow_folder.glob("hatememes_*.arrow"):
        table = pa.ipc.open_file(path).read_all()
        schema = with_classes(table.schema, ["a", "b", "c"], "multiclass")
        with pa.ipc.new_file(tmp_path / path.name, schema) as writer:
            writer.write_table(table.cast(schema))
    with pytest.raises(SystemExit, match="3 classes.*task=hatememes has 2"):
        check(tmp_path, task="hatememes")
