"""A model as graphs: what they say without our code is what the model says with it."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import clip
from clip.inference import graphs
from clip.inference.export import write_graphs
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.objectives import TASKS
from clip.modules.prompts import PROMPT_TYPES
from tests import predicting as p
from tests import tiny
from tests.conftest import ROOT
from tests.oracles.clip import SlowModel
from tests.predicting import call

FLAT = replace(tiny.SIZES, image_layers=2, text_layers=2)
# Complete samples go through both towers; of what one tower lacks, the heads may make something.
CASES = [*((name, COMPLETE) for name in PROMPT_TYPES),
         ("dept", MISSING_TEXT), ("dept", MISSING_IMAGE)]  # fmt: skip
SNIPPET = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "predict.md").read_text(), re.S)[1]
OUTSIDE = """
import sys
for name, wanted in about["graphs"].items():
    graph = torch.export.load(f"export/{name}.pt2").module()
    found = []
    for row in json.load(open("rows.json")):
        given = {"image": image_input(row["image"]), "tokens": text_input(row["text"])}
        found.append(graph(**{key: given[key] for key in wanted}).numpy())
    np.save(f"{name}.npy", np.concatenate(found))
assert not {"clip", "vilt"} & sys.modules.keys()
"""


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_method_equals_the_slow_form(name, case):
    torch.manual_seed(3)
    model = build_model(tiny.clip_state(FLAT), name, 5, tiny.LENGTH, tiny.DEPTH).eval()
    with torch.no_grad():
        for key in model.trainable_names():
            model.get_parameter(key).add_(0.05 * torch.randn_like(model.get_parameter(key)))
    task = TASKS["food101"]

    def given(size):
        image, tokens, lacks = tiny.batch([case] * size, FLAT)
        inputs = {"image": image, "tokens": tokens}
        inputs.pop(graphs.LACKS.get(case), None)
        return inputs, task.probabilities(SlowModel(model)(image, tokens, lacks))

    program = graphs.trace(graphs.OneCase(model, task, case), given(graphs.TRACED)[0])
    towers = {key.split(".")[1] for key in program.state_dict if "encoder" in key}
    assert len(towers) == (1 if case in graphs.LACKS else 2)
    run = program.module()
    for size in (1, 6):
        inputs, wanted = given(size)
        torch.testing.assert_close(run(**inputs), wanted, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def run_folder(clip_folder, tmp_path_factory):
    return p.write_run(clip_folder, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run_folder, arrow_folder, tmp_path_factory):
    """A folder with export/, the test films, and what a process without our code makes of them."""
    folder = tmp_path_factory.mktemp("outside")
    call("export", "with", f"load_path={run_folder}", f"export.target={folder}/export")
    rows = p.films(arrow_folder, folder)[:4]
    texts = ["It&amp;s a HERO", "run " * 100, "a", *(text for _, text, _ in rows[3:])]
    rows = [{"image": name, "text": text}
            for (name, *_), text in zip(rows, texts, strict=True)]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "poster.jpg").write_bytes((folder / rows[0]["image"]).read_bytes())
    done = subprocess.run([sys.executable, "-c", SNIPPET + OUTSIDE], cwd=folder, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, rows, done.stdout


def answers(run_folder, folder, rows, lacks):
    images = None if lacks == "image" else [folder / row["image"] for row in rows]
    texts = None if lacks == "text" else [row["text"] for row in rows]
    model = clip.load(run_folder)
    wanted = model.predict(images, texts)[model.class_names].to_numpy()
    assert np.ptp(wanted, axis=0).max() > 0.01  # the rows differ
    return wanted


@pytest.mark.parametrize(("graph", "lacks"), [("complete", ""), ("missing_text", "text"),
                                              ("missing_image", "image")])  # fmt: skip
def test_a_process_without_our_code_answers_as_predict(graph, lacks, exported, run_folder):
    folder, rows, _ = exported
    wanted = answers(run_folder, folder, rows, lacks)
    np.testing.assert_allclose(np.load(folder / f"{graph}.npy"), wanted, atol=1e-5)


def test_onnx_answers_as_predict(exported, run_folder, tmp_path):
    import onnxruntime

    folder, rows, _ = exported
    model = clip.load(run_folder)
    ((path, _),) = write_graphs(model, COMPLETE, tmp_path / "complete", ["onnx"])
    samples = [model.read(folder / row["image"], row["text"], "") for row in rows]
    image = model.transform.normalize(torch.stack([sample.image for sample in samples]))
    tokens = model.tokenizer([sample.text for sample in samples])
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {"image": image.numpy(), "tokens": tokens.numpy()})
    np.testing.assert_allclose(found, answers(run_folder, folder, rows, ""), atol=1e-5)


def test_the_folder_says_what_it_holds(exported, run_folder):
    folder, _, said = exported
    about = json.loads((folder / "export/model.json").read_text())
    model = clip.load(run_folder)
    files = {f"{graph}.{kind}" for graph in about["graphs"] for kind in about["formats"]}
    assert {path.name for path in (folder / "export").iterdir()} == {
        *files, "model.json", "tokenizer"}  # fmt: skip
    assert (about["task"], about["task_type"]) == ("mmimdb", "multilabel")
    assert about["class_names"] == model.class_names
    assert about["backbone_sha256"] == model.model_config["backbone_sha256"]
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert any(name in said for name in model.class_names)


def refused(run_folder, target, *words):
    with pytest.raises(SystemExit) as ended:
        call("export", "with", f"load_path={run_folder}", f"export.target={target}", *words)
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_a_graph_that_says_something_else_is_not_written(run_folder, tmp_path, monkeypatch):
    def write(program, path):
        with torch.no_grad():
            program.state_dict["model.classifier.weight"] += 1e-2
        torch.export.save(program, path)

    row = graphs.FORMATS["pt2"]
    monkeypatch.setitem(graphs.FORMATS, "pt2", row._replace(write=write))
    message = refused(run_folder, tmp_path / "export")
    assert re.search(r"complete.pt2 would be \S+ off the model's probabilities", message)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(graphs.FORMATS, "pt2", row._replace(needs=("no_such_package",)))
    assert "needs no_such_package" in refused(run_folder, tmp_path / "export")


@pytest.mark.parametrize(("words", "message"), [
    (["export.target={here}"], "is there already"),
    (['export.formats=["tflite"]'], "export.formats='tflite' is unknown; choose one of pt2, onnx"),
    (["export.formats=[]"], "export.formats=[] is not valid"),
    (["load_path="], "export needs load_path="),
])  # fmt: skip
def test_what_cannot_be_exported(words, message, run_folder, tmp_path):
    words = [word.format(here=tmp_path) for word in words]
    assert message in refused(run_folder, tmp_path / "export", *words)
    assert list(tmp_path.iterdir()) == []
