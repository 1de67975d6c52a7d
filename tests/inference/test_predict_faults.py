"""What cannot be predicted is named in one line; what can be is predicted all the same."""

import json
import os
import re
import shutil

import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

import clip
from clip.inference.readers import read_rows
from clip.inference.writers import written
from clip.utils.errors import UserError
from tests import predicting as p
from tests.cli.messages import IMAGES
from tests.cli.wrong_files import inputs
from tests.predicting import call


@pytest.fixture(scope="module")
def run_folder(clip_folder, tmp_path_factory):
    return p.write_run(clip_folder, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run_folder):
    return clip.load(run_folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good and bad files."""
    folder = tmp_path_factory.mktemp("files")
    inputs(folder)
    return folder


pytestmark = pytest.mark.filterwarnings("ignore:.*decompression bomb")


@pytest.mark.parametrize(("name", "words"), IMAGES)
def test_python_names_the_row_and_the_file(name, words, model, files):
    with pytest.raises(UserError) as caught:
        model.predict([files / "good.png", files / name])
    assert str(caught.value).startswith(f"row 1: {files / name}")
    assert re.search(words, str(caught.value))


@pytest.mark.parametrize(("arguments", "words"), [
    (([None, None], ["a", None]), "row 1: image and text are both missing"),
    (([None], ["a", "b"]), "1 images and 2 texts"),
    ((), "images, texts or both"),
    ((None, [5]), "row 0: the text is 5"),
    (([5], None), "row 0: the image is of the type int"),
    ((None, ["a"], 0), "batch_size=0"),
    ((None, "a film"), "texts is one str; give a list"),
    (("good.png", None), "images is one str; give a list"),
    ((Image.new("RGB", (2, 2)), ["a"]), "images is one Image; give a list"),
])  # fmt: skip
def test_python_refuses(arguments, words, model):
    with pytest.raises(UserError) as caught:
        model.predict(*arguments)
    assert words in str(caught.value)


def test_bad_rows_are_named_and_the_others_written(run_folder, files, tmp_path, capsys):
    rows = [("good.png", "a"), ("cut.png", "b"), ("", "NA"), ("", ""), ("bomb.png", "")]
    lines = [f"{files / image if image else ''},{text},1999" for image, text in rows]
    lines = ["image,text,year", *lines, "good.png,a,b,c,d", "good.png"]
    (tmp_path / "some.csv").write_text("\n".join(lines))
    out = tmp_path / "out.csv"
    # A message in place of a code ends the program with exit code 1.
    with pytest.raises(SystemExit, match=r"^error: 5 of 7 rows .* the other 2 are in") as ended:
        call("predict", "with", f"load_path={run_folder}", f"input={tmp_path}/some.csv",
             f"output={out}", "num_gpus=0")  # fmt: skip
    assert "were skipped (row 2, 4, 5, 6, 7), as said above" in ended.value.code
    said = capsys.readouterr().err
    for words in (
        f"skipped row 2: {files}/cut.png cannot be decoded",
        "skipped row 4: image and text are both missing",
        f"skipped row 5: {files}/bomb.png has over",
        "skipped row 6: more cells than the header names",
        "skipped row 7: fewer cells than the header names",
    ):
        assert words in said
    found = pd.read_csv(out, keep_default_na=False)
    assert found[["row", "image", "missing"]].to_numpy().tolist() == [
        [1, str(files / "good.png"), "complete"],
        [3, "", "image"],  # the text NA is a text
    ]


def test_an_input_that_ends_badly_leaves_no_half_a_file(run_folder, files, tmp_path):
    (tmp_path / "in.csv").write_bytes(b"text,rest\n" + 300 * (b"a," + 99 * b"b" + b"\n") + b"\xff\n")
    with pytest.raises(SystemExit, match="in.csv cannot be read"):
        call("predict", "with", f"load_path={run_folder}", f"input={tmp_path}/in.csv",
             f"output={tmp_path}/out.csv", "num_gpus=0", "per_gpu_batchsize=64")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_line_that_is_no_json_is_a_bad_row_and_bytes_are_an_image(run_folder, files, tmp_path, capsys):
    lines = [json.dumps({"text": "a"}), "[" * 100_000, "[]", '{"img": "a.png", "txt": "a"}',
             '{"text": "half \\ud83d"}',
             json.dumps({"image": str(files / "good.png")})]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    where = ["predict", "with", f"load_path={run_folder}", "num_gpus=0"]
    with pytest.raises(SystemExit, match="4 of 6 rows were skipped .row 2, 3, 4, 5."):
        call(*where, f"input={tmp_path}/in.jsonl", f"output={tmp_path}/a.parquet")
    said = capsys.readouterr().err
    assert "row 3: no JSON object" in said
    assert "row 4: neither a key image nor a key text; its keys are img, txt" in said
    assert "row 5: the text has half a character" in said
    found = pd.read_parquet(tmp_path / "a.parquet")
    p.write_parquet(tmp_path / "in.parquet", [{"image": (files / "good.png").read_bytes()}])
    assert pa.parquet.read_schema(tmp_path / "in.parquet").field("image").type == pa.binary()
    call(*where, f"input={tmp_path}/in.parquet", f"output={tmp_path}/b.parquet")
    again = pd.read_parquet(tmp_path / "b.parquet")
    names = [f"class {i}" for i in range(23)]
    pd.testing.assert_frame_equal(found[names][1:].reset_index(drop=True), again[names], atol=1e-6)


def test_a_file_name_of_any_bytes_is_answered_and_written_in_utf_8(run_folder, files, tmp_path):
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(files / "good.png", tmp_path / "in" / name)
    for kind, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        out = tmp_path / f"out.{kind}"
        call("predict", "with", f"load_path={run_folder}", f"input={tmp_path}/in",
             f"output={out}", "num_gpus=0")  # fmt: skip
        assert read(out)["image"].tolist() == ["caf\\udce9.png"]


def test_what_macos_puts_beside_an_image_is_none(files, tmp_path):
    for name in ("b.png", "._b.png"):
        shutil.copy(files / "good.png", tmp_path / name)
    assert [row.image for row in read_rows(tmp_path)] == ["b.png"]


def test_of_two_that_write_one_file_the_first_wins(tmp_path):
    path = tmp_path / "out.csv"
    late = written(path)
    late.__enter__()(pd.DataFrame({"a": [2]}))
    with written(path) as early:
        early(pd.DataFrame({"a": [1]}))
    with pytest.raises(UserError, match="is there already"):
        late.__exit__(None, None, None)
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("key", "value"), [
    ("prompt_length", 10**9), ("prompt_depth", "2"), ("vit", 5), ("task", []), ("unfreeze", [{}]),
    ("class_names", 3), ("activation", {}),
])  # fmt: skip
def test_an_identity_that_no_run_writes_is_refused(key, value, run_folder, tmp_path):
    (best,) = run_folder.glob("*best.pt")
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["model_config"] |= {key: value}
    torch.save(checkpoint, tmp_path / "epoch-odd.pt")
    with pytest.raises(UserError, match=r"epoch-odd.pt (was made with|has an model_config)"):
        clip.load(tmp_path / "epoch-odd.pt")
