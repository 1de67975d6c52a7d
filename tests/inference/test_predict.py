"""Predictions equal the scores of a test, whichever way they are requested; bad input is reported."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import clip
from clip.evaluation.predictions import CasePredictions
from clip.inference.predict import reserve
from clip.inference.predictor import class_columns
from clip.missing.masks import MISSING_TEXT
from clip.modules.objectives import TASKS
from clip.utils.errors import UserError
from tests import predicting as p
from tests.cli.messages import IMAGES
from tests.cli.wrong_files import inputs
from tests.conftest import ROOT, shell
from tests.predicting import call

CLASSES = [f"class {i}" for i in range(23)]
pytestmark = pytest.mark.filterwarnings("ignore:.*decompression bomb")


@pytest.fixture(scope="module")
def posters(arrow_folder, tmp_path_factory):
    """The test films in a folder, with a table of each kind in which some cells are empty."""
    folder = tmp_path_factory.mktemp("posters")
    rows = p.films(arrow_folder, folder)
    p.write_tables(folder, rows)
    return folder, rows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good and bad files."""
    folder = tmp_path_factory.mktemp("files")
    inputs(folder)
    return folder


@pytest.fixture
def predict(run_folder):
    return lambda *words: call("predict", "with", f"load_path={run_folder}", "num_gpus=0", *words)


@pytest.fixture(scope="module")
def scored(run_folder, settings, tmp_path_factory):
    """The metrics of `test_only=True` under a mask that removes the same cells."""
    log_dir = tmp_path_factory.mktemp("test")
    mask = log_dir / "cases.csv"
    mask.write_text("missing_type\n" + "".join(f"{case}\n" for case in p.CASES))
    call("with", "task_finetune_mmimdb", *settings, f"load_path={run_folder}", "test_only=True",
         f"log_dir={log_dir}", f"missing_table.test={mask}", "exp_name=t")  # fmt: skip
    (path,) = log_dir.glob("t_*/version_0/metrics.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def by_case(run_folder, settings, tmp_path_factory):
    """Probabilities (3, 12, 23) by way of arrow files, loaders and `sweep`."""
    log_dir = tmp_path_factory.mktemp("sweep")
    call("sweep", "with", "task_finetune_mmimdb", *settings, f"load_path={run_folder}", f"log_dir={log_dir}")
    (path,) = log_dir.glob("**/predictions.arrow")
    return CasePredictions.load(path, "mmimdb", "test").logits.sigmoid().numpy()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_with_empty_cells_scores_as_a_test_under_the_same_mask(kind, run_folder, scored, posters, tmp_path):
    folder, rows = posters
    out = tmp_path / "out.csv"
    words = [f"load_path={run_folder}", f"predict.input={folder}/films.{kind}", f"predict.output={out}"]
    words = ["predict", "with", *words, "num_gpus=0", "per_gpu_batchsize=5", "num_workers=2"]
    if kind == "csv":  # once as a user does
        done = shell(*words)
        assert done.returncode == 0, done.stderr
    else:
        call(*words)
    found = pd.read_csv(out, keep_default_na=False)
    assert list(found.columns) == ["row", "image", *CLASSES, "missing", "predicted"]
    assert found["missing"].tolist() == ["complete", "text", "image"] * 4
    assert found["row"].tolist() == list(range(1, 13))
    assert found["image"].tolist() == [image or "" for image in p.masked(rows)[0]]
    assert list(tmp_path.iterdir()) == [out]
    metrics = TASKS["mmimdb"].collection()
    probabilities = torch.tensor(found[CLASSES].to_numpy(), dtype=torch.float32)
    metrics.update(probabilities, torch.tensor([label for *_, label in rows]))
    for name, value in metrics.compute().items():
        assert float(value) == pytest.approx(scored[f"test/{name}"], abs=1e-6), name


def test_python_and_command_return_the_probabilities_of_a_sweep(by_case, model, predict, posters, tmp_path, capsys):
    folder, rows = posters
    images, texts = p.masked(rows)
    frame = model.predict([image and folder / image for image in images], texts)
    np.testing.assert_allclose(frame[CLASSES], by_case[p.CASES, range(12)], atol=1e-6)
    predict(f"predict.input={folder}/films.csv", f"predict.output={tmp_path}/out.parquet", "per_gpu_batchsize=7")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet")[frame.columns], frame, atol=1e-6)
    predict(f"predict.input={folder}", f"predict.output={tmp_path}/folder.csv")
    found = pd.read_csv(tmp_path / "folder.csv")
    assert found["image"].tolist() == [name for name, *_ in rows]
    np.testing.assert_allclose(found[CLASSES], by_case[MISSING_TEXT], atol=1e-6)
    capsys.readouterr()
    predict(f"predict.image={folder / rows[4][0]}", f"predict.text={rows[4][1]}")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("class")]
    for line, i in zip(lines, (-by_case[0, 4]).argsort(kind="stable")[:10], strict=True):
        assert line.split() == ["class", str(i), *(f"{value:.1%}" for value in by_case[:, 4, i])]
    predict(f"predict.text={rows[4][1]}")
    assert capsys.readouterr().out.count("%") == 10  # one missing case


def test_synonyms_of_columns_are_accepted_and_named(predict, posters, tmp_path, capsys):
    folder, rows = posters
    for name in ("img", "file_name", "image_path", "Image"):
        table = tmp_path / f"{name}.csv"
        table.write_text(f"id,{name}, text\n1,{folder}/{rows[0][0]},\n2,,NULL\n3,{folder}/{rows[1][0]},a\n")
        with pytest.raises(SystemExit, match="1 of 3 rows"):
            predict(f"predict.input={table}", f"predict.output={tmp_path}/{name}.parquet")
        assert name in capsys.readouterr().out
        assert pd.read_parquet(tmp_path / f"{name}.parquet")["missing"].tolist() == ["text", "complete"]


@pytest.mark.parametrize("task", ["food101", "hatememes"])
def test_the_checkpoint_determines_the_task(task, clip_folder, arrow_folder, tmp_path):
    folder = p.write_run(clip_folder, tmp_path, task)
    frame = clip.load(folder).predict(texts=[text for _, text, _ in p.films(arrow_folder, tmp_path, task)])
    names = frame.columns[:-2]
    assert len(names) == TASKS[task].num_classes
    np.testing.assert_allclose(frame[names].sum(axis=1), 1, atol=1e-6)
    assert frame["predicted"].tolist() == frame[names].idxmax(axis=1).tolist()


def test_several_predicted_classes_are_ordered_by_probability(model, posters):
    folder, rows = posters
    row = model.predict([folder / rows[0][0]], [rows[0][1]]).iloc[0]
    above = row[CLASSES].astype(float).sort_values(ascending=False)
    assert row["predicted"] == ", ".join(name for name, value in above.items() if value > 0.5)


def test_class_names_come_from_the_checkpoint(run_folder, clip_folder, tmp_path, capsys):
    (best,) = run_folder.glob("*best.pt")
    checkpoint = torch.load(best, weights_only=True)
    names = ["image", "\x1b[31mred\u202e", *(f"genre {i}" for i in range(21))]
    checkpoint["model_config"] |= {"class_names": names, "vit": "/gone"}
    torch.save(checkpoint, tmp_path / "epoch-named.pt")
    with pytest.raises(UserError, match="/gone"):
        clip.load(tmp_path / "epoch-named.pt")
    frame = clip.load(tmp_path / "epoch-named.pt", vit=clip_folder).predict(texts=["a hero"])
    assert list(frame.columns) == ["class image", *names[1:], "missing", "predicted"]
    for text in ("a hero", "a heroine runs", "horror"):
        where = f"load_path={tmp_path}/epoch-named.pt", f"vit={clip_folder}", "num_gpus=0"
        call("predict", "with", *where, f"predict.text={text}")
    said = capsys.readouterr().out
    assert "red" in said
    assert not {"\x1b", "\u202e"} & set(said)
    checkpoint["model_config"]["class_names"] = names[1:]
    torch.save(checkpoint, tmp_path / "epoch-few.pt")
    with pytest.raises(UserError, match="23 classes"):
        clip.load(tmp_path / "epoch-few.pt", vit=clip_folder)
    assert class_columns(["row", "a", "image", "class image"]) == ["class row", "a", "class class image", "class image"]


@pytest.mark.parametrize(("key", "value"), [
    ("prompt_length", 10**9), ("prompt_depth", "2"), ("vit", 5), ("task", []), ("unfreeze", [{}]),
    ("class_names", 3), ("activation", {}),
])  # fmt: skip
def test_a_model_config_with_wrong_values_is_an_error(key, value, run_folder, tmp_path):
    (best,) = run_folder.glob("*best.pt")
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["model_config"] |= {key: value}
    torch.save(checkpoint, tmp_path / "epoch-odd.pt")
    with pytest.raises(UserError, match="epoch-odd.pt"):
        clip.load(tmp_path / "epoch-odd.pt")


def test_missing_values_and_kinds_of_images(model, posters):
    folder, rows = posters
    path = folder / rows[0][0]
    with Image.open(path) as image:
        frame = model.predict([image, None, float("nan"), ""], [" \n", "a", "b", "c"])
    assert frame["missing"].tolist() == ["text", "image", "image", "image"]
    again = model.predict(images=[str(path), path.read_bytes(), {"bytes": path.read_bytes(), "path": "x"}])
    np.testing.assert_allclose(again[CLASSES], frame[CLASSES].iloc[[0, 0, 0]], atol=1e-6)
    assert len(model.predict([], [])) == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (([None, None], ["a", None]), "row 1"),
    (([None], ["a", "b"]), "1 images and 2 texts"),
    ((), "images"),
    ((None, [5]), "row 0: .* 5"),
    (([5], None), "row 0: .* int"),
    ((None, ["half \ud83d"]), "row 0: .*surrogate"),
    ((None, "a film"), "texts is one str"),
    ((Image.new("RGB", (2, 2)), ["a"]), "images is one Image"),
])  # fmt: skip
def test_wrong_arguments_are_named(arguments, words, model):
    with pytest.raises(UserError, match=words):
        model.predict(*arguments)


@pytest.mark.parametrize("name", [name for name, _ in IMAGES])
def test_an_image_that_cannot_be_read_is_named_with_its_row(name, model, files):
    with pytest.raises(UserError, match=f"row 1: {re.escape(str(files / name))}"):
        model.predict([files / "good.png", files / name])


def test_bad_rows_are_reported_and_the_others_written(predict, files, tmp_path, capsys):
    rows = [("good.png", "a"), ("cut.png", "b"), ("", "c"), ("", ""), ("bomb.png", "")]
    lines = [f"{files / image if image else ''},{text},1999" for image, text in rows]
    (tmp_path / "some.csv").write_text("\n".join(["image,text,year", *lines]))
    with pytest.raises(SystemExit, match="3 of 5 rows") as ended:
        predict(
            f"predict.input={tmp_path}/some.csv",
            f"predict.output={tmp_path}/out.csv",
            "num_workers=2",
            "per_gpu_batchsize=2",
        )
    assert str(ended.value).startswith("error: ")  # a message in place of a code: exit code 1
    said = capsys.readouterr().err
    for words in (f"row 2: {files}/cut.png", "row 4: ", f"row 5: {files}/bomb.png"):
        assert words in said
    found = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    wanted = [[1, str(files / "good.png"), "complete"], [3, "", "image"]]
    assert found[["row", "image", "missing"]].to_numpy().tolist() == wanted


def test_an_input_that_cannot_be_read_leaves_no_output(predict, tmp_path):
    (tmp_path / "in.csv").write_bytes(b"text,rest\n" + 300 * (b"a," + 99 * b"b" + b"\n") + b"\xff\n")
    with pytest.raises(SystemExit, match=r"in\.csv"):
        predict(f"predict.input={tmp_path}/in.csv", f"predict.output={tmp_path}/out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_file_names_in_a_folder_may_be_any_bytes(predict, files, tmp_path):
    (tmp_path / "in").mkdir()
    for name in (b"caf\xe9.png", b"._good.png"):  # the second as macOS writes them, not an image
        shutil.copy(files / "good.png", tmp_path / "in" / name.decode(errors="surrogateescape"))
    for kind, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        predict(f"predict.input={tmp_path}/in", f"predict.output={tmp_path}/out.{kind}")
        assert read(tmp_path / f"out.{kind}")["image"].tolist() == ["caf\\udce9.png"]


def test_two_runs_do_not_write_one_file(tmp_path):
    path, errors = tmp_path / "out.csv", []

    def second():
        try:
            with reserve(path):
                pass
        except UserError as error:
            errors.append(error)

    with reserve(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert not list(tmp_path.iterdir())
    path.touch()
    with pytest.raises(UserError, match=re.escape(str(path))), reserve(path):
        pass


def test_the_examples_of_the_documentation(run_folder, posters, tmp_path, monkeypatch):
    """docs/predict.md as it is written, with the tiny run and films in the places it names."""
    page = (ROOT / "docs" / "predict.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S)[1]
    commands = [shlex.split(found.replace("\\\n", ""))[2:] for found in
                re.findall(r"^    python run.py (?:\\\n|.)+", page, re.M)]  # fmt: skip
    (named,) = {word.partition("=")[2] for words in commands for word in words if word.startswith("load_path=")}
    shutil.copytree(run_folder, tmp_path / named)
    shutil.copytree(posters[0], tmp_path / "result/demo_0/raw/images")
    shutil.copy(posters[0] / posters[1][0][0], tmp_path / "poster.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/predict.md", "exec"), {})
    assert len(commands) == 3
    for words in commands:
        if words[0] == "predict":  # the web page has tests of its own
            call(*words, "num_gpus=0")
    assert pd.read_csv("predictions.csv")["missing"].tolist() == ["text"] * 12


def test_importing_the_package_imports_no_torch():
    code = "import clip, sys; assert clip.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_encode_returns_what_the_classifier_reads(model, posters):
    folder, rows = posters
    images, texts = p.masked(rows)
    images = [image and folder / image for image in images]
    features = model.encode(images, texts)
    assert features.shape == (len(rows), model.model.classifier.in_features)
    probabilities = model.task.probabilities(model.model.classifier(features)).detach()
    expected = model.predict(images, texts)[model.class_names].to_numpy()
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-6)
    with pytest.raises(UserError):
        model.encode([], [])
