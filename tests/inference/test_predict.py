"""Predictions without labels: the same numbers as a test, whatever way they are asked for."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import clip
from clip.evaluation.predictions import CasePredictions
from clip.inference import readers as sources
from clip.inference.predictor import columns
from clip.modules.objectives import TASKS
from clip.utils.errors import UserError
from tests import predicting as p
from tests.conftest import ROOT, shell
from tests.predicting import call

CLASSES = [f"class {i}" for i in range(23)]
HEAD = ["row", "image", *CLASSES, "missing", "predicted"]


@pytest.fixture(scope="module")
def run_folder(clip_folder, tmp_path_factory):
    return p.write_run(clip_folder, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def posters(arrow_folder, tmp_path_factory):
    """The test films in a folder, with a table of each kind that lacks some cells."""
    folder = tmp_path_factory.mktemp("posters")
    rows = p.films(arrow_folder, folder)
    for kind, write in p.WRITERS.items():
        write(folder / f"films.{kind}", p.masked(rows, p.STATES))
    return folder, rows


@pytest.fixture(scope="module")
def model(run_folder):
    return clip.load(run_folder)


@pytest.fixture(scope="module")
def scored(run_folder, settings, tmp_path_factory):
    """The metrics of `test_only=True` under a table that takes the same cells away."""
    log_dir = tmp_path_factory.mktemp("test")
    table = log_dir / "states.csv"
    table.write_text("missing_type\n" + "".join(f"{state}\n" for state in p.STATES))
    call("with", "task_finetune_mmimdb", *settings, f"load_path={run_folder}", "test_only=True",
         f"log_dir={log_dir}", f"missing_table.test={table}", "exp_name=t")  # fmt: skip
    (path,) = log_dir.glob("t_*/version_0/metrics.json")
    return json.loads(path.read_text())


def in_a_shell(*words):
    done = shell(*words)
    assert done.returncode == 0, done.stderr
    print(done.stdout)


@pytest.mark.parametrize(("kind", "command"), [("csv", in_a_shell), ("jsonl", call), ("parquet", call)])
def test_a_table_with_gaps_scores_as_a_test_under_the_same_mask(
    kind, command, run_folder, scored, posters, tmp_path, capsys
):
    folder, rows = posters
    out = tmp_path / "out.csv"
    command("predict", "with", f"load_path={run_folder}", f"input={folder}/films.{kind}",
            f"output={out}", "num_gpus=0", "per_gpu_batchsize=5")  # fmt: skip
    said = capsys.readouterr().out
    assert f"12 rows: 4 complete, 4 without text, 4 without image; written: {out}" in said
    found = pd.read_csv(out, keep_default_na=False)
    assert list(found.columns) == HEAD
    assert found["missing"].tolist() == ["complete", "text", "image"] * 4
    assert found["row"].tolist() == list(range(1, 13))
    assert found["image"][0] == rows[0][0]
    assert list(tmp_path.iterdir()) == [out]
    metrics = TASKS["mmimdb"].collection()
    probabilities = torch.tensor(found[CLASSES].to_numpy(), dtype=torch.float32)
    metrics.update(probabilities, torch.tensor([label for *_, label in rows]))
    for name, value in metrics.compute().items():
        assert float(value) == pytest.approx(scored[f"test/{name}"], abs=1e-6), name


@pytest.fixture(scope="module")
def in_three_states(run_folder, settings, tmp_path_factory):
    """Probabilities (3, 12, 23) by way of arrow files, loaders and `sweep`."""
    log_dir = tmp_path_factory.mktemp("sweep")
    call("sweep", "with", "task_finetune_mmimdb", *settings, f"load_path={run_folder}",
         f"log_dir={log_dir}")  # fmt: skip
    (path,) = log_dir.glob("**/predictions.arrow")
    return CasePredictions.load(path, "mmimdb", "test").logits.sigmoid().numpy()


def test_python_and_command_give_the_logits_of_a_sweep(in_three_states, model, run_folder, posters, tmp_path):
    folder, rows = posters
    given = p.masked(rows, p.STATES)
    images = [row["image"] and folder / row["image"] for row in given]
    frame = model.predict(images, [row["text"] for row in given], batch_size=7)
    wanted = in_three_states[p.STATES, range(12)]
    np.testing.assert_allclose(frame[CLASSES].to_numpy(), wanted, atol=1e-6)
    out = tmp_path / "out.parquet"
    call("predict", "with", f"load_path={run_folder}", f"input={folder}/films.csv",
         f"output={out}", "num_gpus=0", "per_gpu_batchsize=7")  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_parquet(out)[frame.columns], frame, atol=1e-6)


def test_a_folder_of_images_is_all_without_text(in_three_states, run_folder, posters, tmp_path):
    folder, rows = posters
    out = tmp_path / "out.csv"
    call("predict", "with", f"load_path={run_folder}", f"input={folder}", f"output={out}",
         "num_gpus=0", "num_workers=0")  # fmt: skip
    found = pd.read_csv(out)
    assert found["image"].tolist() == [name for name, *_ in rows]
    np.testing.assert_allclose(found[CLASSES], in_three_states[p.NO_TEXT], atol=1e-6)


def test_one_image_and_one_text_in_all_states(in_three_states, model, run_folder, posters, capsys):
    folder, rows = posters
    name, text, _ = rows[4]
    where = ["predict", "with", f"load_path={run_folder}", "num_gpus=0"]
    call(*where, f"image={folder / name}", f"text={text}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "and", "text", "image", "alone", "text", "alone"]
    ours = in_three_states[:, 4]
    for line, i in zip(lines[1:], (-ours[0]).argsort(kind="stable")[:10], strict=False):
        assert line.split() == ["class", str(i), *(f"{value:.1%}" for value in ours[:, i])]
    assert lines[11].startswith("predicted")
    call(*where, f"text={text}")
    assert capsys.readouterr().out.splitlines()[0].strip() == "text alone"


def test_the_answer_names_the_likeliest_first_and_keeps_them_apart(model, posters):
    folder, rows = posters
    frame = model.predict([folder / rows[0][0]], [rows[0][1]])
    row = frame.iloc[0]
    above = row[CLASSES].astype(float).sort_values(ascending=False)
    wanted = [name for name, value in above.items() if value > 0.5]
    assert row["predicted"] == ", ".join(wanted)
    probabilities = torch.tensor([[0.2, 0.7, 0.6], [0.1, 0.4, 0.5]])
    assert TASKS["mmimdb"].decide(probabilities).tolist() == [[False, True, True], [False] * 3]
    assert TASKS["food101"].decide(probabilities).tolist() == [
        [False, True, False],
        [False, False, True],
    ]


@pytest.mark.parametrize("task", ["food101", "hatememes"])
def test_the_checkpoint_says_which_task_it_is(task, clip_folder, arrow_folder, tmp_path, capsys):
    folder = p.write_run(clip_folder, tmp_path, task)
    rows = p.films(arrow_folder, tmp_path, task)
    frame = clip.load(folder).predict(texts=[text for _, text, _ in rows])
    names = frame.columns[:-2]
    assert len(names) == TASKS[task].num_classes
    np.testing.assert_allclose(frame[names].sum(axis=1), 1, atol=1e-6)
    assert frame["predicted"].tolist() == frame[names].idxmax(axis=1).tolist()
    call("predict", "with", f"load_path={folder}", f"text={rows[0][1]}", "num_gpus=0")
    assert frame["predicted"][0] in capsys.readouterr().out


def test_class_names_come_from_the_checkpoint(run_folder, clip_folder, tmp_path):
    (best,) = run_folder.glob("*best.pt")
    checkpoint = torch.load(best, weights_only=True)
    names = ["image", "Comedy", *(f"genre {i}" for i in range(21))]
    checkpoint["model_config"] |= {"class_names": names, "vit": "/gone"}
    torch.save(checkpoint, tmp_path / "epoch-named.pt")
    with pytest.raises(UserError, match="vit='/gone'"):
        clip.load(tmp_path / "epoch-named.pt")
    model = clip.load(tmp_path / "epoch-named.pt", vit=clip_folder)
    frame = model.predict(texts=["a hero"])
    assert list(frame.columns) == ["class image", *names[1:], "missing", "predicted"]
    checkpoint["model_config"]["class_names"] = names[1:]
    torch.save(checkpoint, tmp_path / "epoch-few.pt")
    with pytest.raises(UserError, match="names 22 classes.* has 23"):
        clip.load(tmp_path / "epoch-few.pt", vit=clip_folder)


def test_what_counts_as_missing(model, posters):
    folder, rows = posters
    with Image.open(folder / rows[0][0]) as image:
        frame = model.predict([image, None, float("nan"), ""], [" \n", "a", "b", "c"])
    assert frame["missing"].tolist() == ["text", "image", "image", "image"]
    again = model.predict(images=[str(folder / rows[0][0])])
    np.testing.assert_allclose(again[CLASSES], frame[CLASSES][:1], atol=1e-6)
    assert len(model.predict([], [])) == 0


def test_the_examples_of_the_page(run_folder, posters, tmp_path, monkeypatch, capsys):
    """docs/predict.md as it is written, the tiny run and films in the places it names."""
    page = (ROOT / "docs" / "predict.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S)[1]
    commands = [shlex.split(found.replace("\\\n", ""))[2:] for found in
                re.findall(r"^    python run.py (?:\\\n|.)+", page, re.M)]  # fmt: skip
    (named,) = {word.partition("=")[2] for words in commands for word in words
                if word.startswith("load_path=")}  # fmt: skip
    shutil.copytree(run_folder, tmp_path / named)
    shutil.copytree(posters[0], tmp_path / "result/demo_0/raw/images")
    shutil.copy(posters[0] / posters[1][0][0], tmp_path / "poster.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/predict.md", "exec"), {})
    assert len(commands) == 4
    for words in commands:
        if words[0] == "predict":  # the page for a browser and the export have tests of their own
            call(*words, "num_gpus=0")
    assert "12 rows: 0 complete, 12 without text, 0 without image" in capsys.readouterr().out
    assert len(pd.read_csv("predictions.csv")) == 12


def test_importing_the_package_imports_no_torch():
    code = "import clip, sys; assert clip.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_table_is_read_as_it_comes(tmp_path):
    """Not a row further than asked: no file is too large."""
    path = tmp_path / "many.jsonl"
    path.write_text('{"text": "a"}\n' * 100_000)
    rows = sources.read_rows(path)
    assert next(rows) == (1, None, "a", "")
    with path.open("r+b") as file:
        file.truncate(50_000 * 14)
    assert sum(1 for _ in rows) == 49_999


def test_no_class_shares_a_column():
    assert columns(["row", "a", "image", "class image"]) == [
        "class row", "a", "class class image", "class image"]  # fmt: skip
